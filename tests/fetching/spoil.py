"""Ways in which an answer goes wrong between a server and `qad fetch`, for a FaultProxy to apply."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from s3server import Exchange, Fault, FaultProxy

Spoil = Callable[[Exchange], None]
DATA = (".fits", ".sha256sum")


def on(ending: str | tuple[str, ...], spoil: Spoil, times: int = 1, after: int = 0) -> Fault:
    """Return a fault that spoils some good answers for objects with this ending: `times` of them, `after` others."""
    count = itertools.count()

    def fault(found: Exchange) -> None:
        if found.path.endswith(ending) and found.status in (200, 206) and after <= next(count) < after + times:
            spoil(found)

    return fault


def now_and_then(
    spoil: Spoil, seed: int, span: int = 45, each: int = 2, most: int = 100, ending: tuple[str, ...] = DATA
) -> Fault:
    """Return a fault that spoils `each` of the first `span` answers for an object, chosen at random; `most` in all.

    For objects of which few ranges are asked, `span` is shorter.
    """
    places: dict[str, list[int]] = {}
    left = itertools.count(most, -1)

    def fault(found: Exchange) -> None:
        if not found.path.endswith(ending) or found.status not in (200, 206):
            return
        if found.path not in places:
            drawn = random.Random(f"{seed} {found.path.rpartition('/')[2]}")
            n = span if "/coadd-" in found.path else 3
            places[found.path] = drawn.sample(range(n), min(each, n - 1))
        if found.number in places[found.path] and next(left) > 0:
            spoil(found)

    return fault


def cut(found: Exchange) -> None:
    """Close the connection in the middle of the body (FIN)."""
    found.cut_at = len(found.body) * 2 // 5


def cut_with_reset(found: Exchange) -> None:
    """Break the connection in the middle of the body (RST)."""
    cut(found)
    found.is_reset = True


def cut_before_the_body(found: Exchange) -> None:
    """Close the connection after the head."""
    found.cut_at = 0


def stall(found: Exchange) -> None:
    """Fall silent in the middle of the body."""
    found.stall_at = len(found.body) // 2


def close_after(found: Exchange) -> None:
    """Close a connection that the client means to keep, after a good answer."""
    found.is_last = True


def reset_after(found: Exchange) -> None:
    """Break a connection that the client means to keep, after its head: what follows may be lost."""
    found.is_last = found.is_reset = True


def flip(found: Exchange) -> None:
    """Turn one bit of the body over."""
    drawn = random.Random(f"{found.target} {found.number} {found.range}")
    flip_some(found, drawn)


def flip_some(found: Exchange, drawn: random.Random, n_bits: int = 1) -> None:
    """Turn bits of the body over."""
    body = bytearray(found.body)
    for _ in range(n_bits if body else 0):
        body[drawn.randrange(len(body))] ^= 1 << drawn.randrange(8)
    found.body = bytes(body)


def other_bytes(found: Exchange) -> None:
    """Send bytes of another place under the right head, never twice the same."""
    place = (found.number * 2876 + 1) % max(len(found.body), 1)
    found.body = found.body[place:] + found.body[:place]


def words_moved(found: Exchange) -> None:
    """Send the right 32-bit words in another order, which a sum of them does not tell; never twice the same."""
    place = 4 * ((found.number + 1) * 719 % max(len(found.body) // 4, 1))
    found.body = found.body[place:] + found.body[:place]


def noise(found: Exchange) -> None:
    """Send noise under the right head."""
    found.body = random.Random(f"{found.target} {found.number}").randbytes(len(found.body))


def other_range(found: Exchange) -> None:
    """Say that the bytes are those of another range, and send them."""
    if found.range is None:
        return
    first, last = found.range
    size = {name.lower(): value for name, value in found.headers}.get("content-range", "/0").rpartition("/")[2]
    found.set_header("Content-Range", f"bytes {first + 1}-{last + 1}/{size}")
    found.body = found.body[1:] + b"\0"


def ignore_range(found: Exchange) -> None:
    """Answer 200 to a Range request."""
    found.status, found.reason = 200, "OK"
    found.headers = [(name, value) for name, value in found.headers if name.lower() != "content-range"]


def shorten(found: Exchange) -> None:
    """Send, and announce, fewer bytes than were asked for."""
    found.body = found.body[: len(found.body) * 3 // 4]
    found.set_header("Content-Length", str(len(found.body)))


def slow_down(found: Exchange) -> None:
    """Ask to come again."""
    body = (
        b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    )
    found.replace(503, "Slow Down", body, "application/xml", Retry_After="0.2")


def internal_error(found: Exchange) -> None:
    """Answer 500."""
    found.replace(500, "Internal Server Error", b"", "text/plain")


def login_page(found: Exchange) -> None:
    """Answer as a captive portal does."""
    found.replace(200, "OK", b"<html><body>Please log in to the hotel's network.</body></html>", "text/html")


def denied(found: Exchange) -> None:
    """Answer 403."""
    body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    found.replace(403, "Forbidden", body, "application/xml")


def gone(found: Exchange) -> None:
    """Answer 404."""
    body = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"
    found.replace(404, "Not Found", body, "application/xml")


def redirect(found: Exchange) -> None:
    """Send elsewhere."""
    body = b"<?xml version='1.0'?><Error><Code>TemporaryRedirect</Code><Endpoint>elsewhere</Endpoint></Error>"
    found.replace(307, "Temporary Redirect", body, "application/xml", Location="http://127.0.0.1:9/elsewhere")


def refuse(proxy: FaultProxy, seconds: float = 0.5) -> Spoil:
    """Return a fault that breaks every connection and refuses new ones for a while."""

    def spoil(found: Exchange) -> None:
        found.cut_at, found.is_reset = 0, True
        proxy.refuse(seconds)

    return spoil


PASSING: tuple[Spoil, ...] = (
    cut,
    cut_with_reset,
    cut_before_the_body,
    stall,
    close_after,
    reset_after,
    flip,
    other_bytes,
    noise,
    other_range,
    ignore_range,
    shorten,
    slow_down,
    internal_error,
    login_page,
    denied,
)
"""What a run gets over when it passes."""
