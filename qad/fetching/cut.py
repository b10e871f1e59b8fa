"""Cutting a coadd: which HDUs and rows of it are kept, what has to be asked for, and the file that is made of it.

The values of the kept rows are those of the whole file, bit for bit, and so is every header card that need not
change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qad import __version__
from qad.desi.cards import edited, sealed
from qad.desi.checksum import MODULUS, DataSum
from qad.desi.header import BLOCK, HDU, expected_datasum
from qad.errors import QadError
from qad.fetching.checksums import DATASUM, MismatchError
from qad.fetching.partial import Partial
from qad.fetching.rangelog import RangeLog

MAX_WHOLE_BYTES = 8 << 20
"""Longest request for a whole data unit."""
MAX_ROWS_BYTES = 1 << 20
"""Longest request for rows, which waits in memory."""
WRITTEN_BYTES = 1 << 20
SMALL_BYTES = 64 << 10
"""A data unit up to this size is taken whole."""
DENSE = 0.5
"""From this share of wanted bytes on a data unit is taken whole: then its DATASUM vouches for it."""
EXPOSURES = "EXP_FIBERMAP"
Interval = tuple[int, int]


class CannotCutError(QadError):
    """The file is not laid out so that rows can be cut out of it: it must be taken whole."""


@dataclass(frozen=True)
class Part:
    """One HDU of the cut file.

    Attributes
    ----------
    hdu : HDU
        As it is at the source.
    rows : ndarray of int or None
        Which rows of its first axis are kept, ascending; None: all.
    is_whole : bool
        Its whole data unit is asked for, so that DATASUM can be checked.
    """

    hdu: HDU
    rows: np.ndarray | None
    is_whole: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of a row at the source."""
        return self.hdu.n_bytes // self.hdu.shape[0] if self.hdu.shape and self.hdu.shape[0] else 0

    @property
    def n_bytes(self) -> int:
        """Bytes of the data that are kept."""
        return self.hdu.n_bytes if self.rows is None else len(self.rows) * self.row_bytes

    @property
    def end(self) -> int:
        """Where its data unit ends at the source, padding included."""
        return self.hdu.offset + self.hdu.padded_bytes

    def kept(self) -> list[Interval]:
        """Return the places of the kept bytes at the source, neighbouring rows joined."""
        if self.rows is None:
            return [(self.hdu.offset, self.hdu.offset + self.hdu.n_bytes)] if self.hdu.n_bytes else []
        if not len(self.rows) or not self.row_bytes:
            return []
        breaks = np.flatnonzero(np.diff(self.rows) != 1) + 1
        firsts = self.rows[np.concatenate(([0], breaks))]
        lasts = self.rows[np.concatenate((breaks - 1, [len(self.rows) - 1]))]
        starts = self.hdu.offset + firsts.astype(np.int64) * self.row_bytes
        stops = self.hdu.offset + (lasts.astype(np.int64) + 1) * self.row_bytes
        return list(zip(starts.tolist(), stops.tolist(), strict=True))

    def header(self, history: Sequence[str], cards: dict[str, Any]) -> bytes:
        """Return its header: the source's, with the new number of rows, and cards and history in the primary one."""
        changes = dict(cards)
        if self.rows is not None:
            axis = "NAXIS2" if self.hdu.kind == "table" else f"NAXIS{len(self.hdu.shape)}"
            changes[axis] = len(self.rows)
        return edited(self.hdu.header.raw, changes, history)


@dataclass(frozen=True)
class Request:
    """A range to ask for.

    Attributes
    ----------
    start, stop : int
    pieces : tuple of (int, int)
        What is kept of it.
    is_summed : bool
        It belongs to a data unit whose DATASUM is checked.
    """

    start: int
    stop: int
    pieces: tuple[Interval, ...]
    is_summed: bool


def choose_parts(
    hdus: Sequence[HDU], rows: np.ndarray | None, exposures: np.ndarray | None, with_resolution: bool, sums_only: bool
) -> list[Part]:
    """Return the HDUs of the cut file.

    Parameters
    ----------
    hdus : sequence of HDU
        Of the coadd.
    rows, exposures : ndarray of int or None
        Rows to keep of FIBERMAP and all HDUs that go with it, and of EXP_FIBERMAP; None: all.
    with_resolution : bool
        Keep the resolution matrices.
    sums_only : bool
        Take every data unit whole: nothing but a checksum could vouch for its bytes.

    Raises
    ------
    CannotCutError
        If an HDU is stored so that its rows are no ranges, or has no DATASUM where that is needed.
    """
    n_rows = next(hdu.shape[0] for hdu in hdus if hdu.name == "FIBERMAP")
    parts = []
    for hdu in hdus:
        if hdu.name.endswith("_RESOLUTION") and not with_resolution:
            continue
        chosen = exposures if hdu.name == EXPOSURES else rows if _goes_with_rows(hdu, n_rows) else None
        if chosen is not None and not _is_plain(hdu):
            raise CannotCutError(f"HDU {hdu.name} is compressed or has data beside its rows")
        has_sum = bool(hdu.header.shown("DATASUM"))
        if sums_only and hdu.n_bytes and not has_sum:
            raise CannotCutError(f"HDU {hdu.name} has no DATASUM")
        wanted = Part(hdu, chosen, False).n_bytes
        is_whole = has_sum and (
            chosen is None or sums_only or hdu.n_bytes <= SMALL_BYTES or wanted > DENSE * hdu.n_bytes
        )
        parts.append(Part(hdu, chosen, is_whole))
    return parts


def plan_requests(parts: Iterable[Part], log: RangeLog, gap: int) -> list[Request]:
    """Return what is still to be asked for, neighbours joined where they are not further apart than `gap`."""
    requests: list[Request] = []
    loose: list[Interval] = []
    for part in parts:
        if part.is_whole:
            requests += _whole_requests(part, log)
        else:
            loose += [left for start, stop in part.kept() for left in log.missing(start, stop)]
    return requests + list(_joined(sorted(loose), gap))


def check_sums(parts: Iterable[Part], log: RangeLog) -> None:
    """Compare the data units that came whole with their DATASUM.

    Raises
    ------
    MismatchError
    """
    for part in parts:
        if not part.is_whole or not part.hdu.n_bytes:
            continue
        if log.span_sum(part.hdu.offset, part.end) % MODULUS != expected_datasum(part.hdu.header):
            raise MismatchError(f"HDU {part.hdu.name} does not match its DATASUM")


def voucher(parts: Iterable[Part], transport: str) -> str:
    """Return what vouches for a cut file: the weakest of what its parts have."""
    if all(part.is_whole or not part.hdu.n_bytes for part in parts):
        return DATASUM
    return "tls" if transport == "tls" else "twice"


def write_cut(parts: Sequence[Part], log: RangeLog, out: Partial, cards: dict[str, Any], history: Sequence[str]) -> int:
    """Write the cut file, each HDU with fresh checksums, and return its size."""
    offset = 0
    for part in parts:
        is_primary = part.hdu.index == 0
        header = part.header(history if is_primary else (), cards if is_primary else {})
        # room for the two cards that a header may lack, and that are known only after the data
        room = len(sealed(header, 0))
        total, n_bytes = DataSum(), 0
        for block in _blocks(log, part):
            total.add(block)
            out.write(block, offset + room + n_bytes)
            n_bytes += len(block)
        out.write(sealed(header, total.value), offset)
        offset += room + n_bytes
    return offset


def cut_cards(mode: str, sha256: str, etag: str, size: int, n_rows: int, rule: str, check: str) -> dict[str, Any]:
    """Return the primary header's cards that say what a file was cut from."""
    cards: dict[str, Any] = {"QADMODE": mode, "QADSIZE": size, "QADNROWS": n_rows}
    cards |= {"QADETAG": etag[:64]} if etag else {}
    cards |= {"QADSHA": sha256} if sha256 else {}
    # a quote is written twice, and might not fit then
    cards |= {"QADSEL": rule.replace("'", "?")} if mode == "rows" else {}
    return {**cards, "QADCHECK": check}


def cut_history(name: str, parts: Sequence[Part], rule: str) -> list[str]:
    """Return the HISTORY of a cut file."""
    fibermap = next(part for part in parts if part.hdu.name == "FIBERMAP")
    n_all = fibermap.hdu.shape[0]
    kept = f"{n_all} rows" if fibermap.rows is None else f"{len(fibermap.rows)} of {n_all} rows ({rule})"
    with_resolution = any(part.hdu.name.endswith("_RESOLUTION") for part in parts)
    return [
        f"Cut by qad {__version__} from {name}:",
        f"  {kept}",
        f"  {'with' if with_resolution else 'without'} the resolution matrices",
        "  Values are those of the whole file; CHECKSUM and DATASUM are new.",
    ]


def _goes_with_rows(hdu: HDU, n_rows: int) -> bool:
    if hdu.kind == "table":
        return hdu.shape[0] == n_rows
    return (len(hdu.shape) > 1 and hdu.shape[0] == n_rows) or hdu.kind == "compressed"


def _is_plain(hdu: HDU) -> bool:
    return hdu.kind != "compressed" and not hdu.header.integer("PCOUNT", 0)


def _whole_requests(part: Part, log: RangeLog) -> Iterator[Request]:
    kept = part.kept()
    for start, stop in log.unasked(part.hdu.offset, part.end):
        for first in range(start, stop, MAX_WHOLE_BYTES):
            last = min(first + MAX_WHOLE_BYTES, stop)
            pieces = tuple((max(a, first), min(b, last)) for a, b in kept if a < last and b > first)
            yield Request(first, last, pieces, is_summed=True)


def _joined(wanted: Sequence[Interval], gap: int) -> Iterator[Request]:
    pieces: list[Interval] = []
    for start, stop in _short(wanted):
        if pieces and (start - pieces[-1][1] > gap or stop - pieces[0][0] > MAX_ROWS_BYTES):
            yield Request(pieces[0][0], pieces[-1][1], tuple(pieces), is_summed=False)
            pieces = []
        pieces.append((start, stop))
    if pieces:
        yield Request(pieces[0][0], pieces[-1][1], tuple(pieces), is_summed=False)


def _short(wanted: Iterable[Interval]) -> Iterator[Interval]:
    for start, stop in wanted:
        for first in range(start, stop, MAX_ROWS_BYTES):
            yield first, min(first + MAX_ROWS_BYTES, stop)


def _blocks(log: RangeLog, part: Part) -> Iterator[memoryview]:
    """Yield the kept data in large pieces of whole words, padded to whole FITS blocks."""
    waiting, total = bytearray(), 0
    for start, stop in part.kept():
        for data in log.read(start, stop):
            waiting += data
            total += len(data)
            if len(waiting) >= WRITTEN_BYTES:
                whole = len(waiting) // 4 * 4
                yield memoryview(bytes(waiting[:whole]))
                del waiting[:whole]
    if total:
        yield memoryview(waiting + bytes(-total % BLOCK))
