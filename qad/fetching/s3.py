"""Release files in an S3 bucket."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from threading import Lock
from typing import NoReturn
from urllib.parse import quote, urlsplit

from qad import __version__
from qad.errors import ConfigError, InputError
from qad.fetching.address import SIGNATURE_S, Address, find_address
from qad.fetching.answers import check_part, parsed_error, refusal
from qad.fetching.http import Answer, Connections, tls_context
from qad.fetching.line import Line
from qad.fetching.listing import Page, read_page
from qad.fetching.retry import Patience
from qad.fetching.source import Readable, RemoteFile, Reopen, TransientError, Transport, is_safe_key
from qad.settings import Fetch

USER_AGENT = f"qad/{__version__}"
_FIELDS = {"Accept-Encoding": "identity", "User-Agent": USER_AGENT}
MAX_ERROR_BYTES = 64 << 10
MAX_PAGE_BYTES = 16 << 20
MAX_SIGNATURES = 10_000
_STRANGE_LISTING = "the answer to a listing is not one of S3: is a proxy or login page in between?"


def split_url(url: str) -> tuple[str, str]:
    """Return bucket and prefix (without slashes at its ends) of ``s3://bucket/prefix``.

    Raises
    ------
    ConfigError
        If the URL names no bucket.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"source {url}: no bucket; write s3://bucket/prefix")
    return bucket, prefix.strip("/")


class S3Source:
    """A prefix of a bucket.

    Parameters
    ----------
    address : Address
    prefix : str
        Empty, or ends in a slash.
    patience : Patience
        How listings are repeated.  Downloads are repeated by their caller, who knows how far they came.
    line : Line
        How many requests may be under way.
    connections : Connections
        What brings the bytes.
    """

    def __init__(self, address: Address, prefix: str, patience: Patience, line: Line, connections: Connections) -> None:
        self._address = address
        self._prefix = prefix
        self._patience = patience
        self._line = line
        self._connections = connections
        self._targets = _Targets(address)
        self.url = f"s3://{address.bucket}/{prefix}"
        self.transport: Transport = "tls" if connections.is_encrypted else "plain"
        self.refused = 0
        self._lock = Lock()

    def below(self, prefix: str) -> S3Source:
        """Return the source rooted at `prefix`."""
        return S3Source(self._address, self._prefix + prefix, self._patience, self._line, self._connections)

    def reopen(self) -> Reopen:
        """Return what opens the same prefix in another process."""
        return partial(_open, self._address, self._prefix, self._connections.timeout_s)

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly in `prefix`, sorted."""
        start = len(self._prefix + prefix)
        found: list[str] = []
        for page in self._pages(prefix, {"delimiter": "/"}):
            names = [folder[start:].removesuffix("/") for folder in page.folders]
            found += [name for name in names if self._is_safe(name)]
        return sorted(found)

    def files(self, prefix: str) -> list[RemoteFile]:
        """Return every file below `prefix`, sorted by key."""
        start = len(self._prefix)
        found: list[RemoteFile] = []
        for page in self._pages(prefix, {}):
            listed = [
                RemoteFile(key[start:], size, etag)
                for key, size, etag in page.files
                if not key.endswith("/")  # a "folder" that some tools write as an empty object
            ]
            found += [file for file in listed if self._is_safe(file.key)]
        return sorted(found, key=lambda file: file.key)

    @contextmanager
    def open(self, file: RemoteFile, start: int, stop: int) -> Iterator[Readable]:
        """Open the bytes [start, stop) of `file`; every header of the answer must be the one asked for.

        Raises
        ------
        TransientError, ChangedError, MissingError, DeniedError
        """
        asked = {"Range": f"bytes={start}-{stop - 1}", **_FIELDS}
        if file.etag:
            asked["If-Match"] = f'"{file.etag}"'
        with self._line.slot(stop - start, self._patience.check):
            began = time.monotonic()
            with _broken_connections():
                answer = self._connections.get(self._targets.of(self._prefix + file.key), asked)
            with answer:
                if answer.status >= 300:
                    self._refuse(answer, file.key)
                check_part(answer.status, answer.headers, file, start, stop)
                yield _Body(answer)
                self._line.answered(answer.first_byte_s, time.monotonic() - began, stop - start)

    def _refuse(self, answer: Answer, key: str) -> NoReturn:
        """Raise what an error answer means."""
        with _broken_connections():
            text = answer.read(MAX_ERROR_BYTES)
        error = refusal(parsed_error(answer.status, answer.headers, text), self.url, key)
        if isinstance(error, TransientError) and error.is_busy:
            self._line.slow_down()
        raise error

    def is_up(self) -> bool:
        """Whether the service answers a small question now, were it with a refusal."""
        try:
            self._page({"prefix": self._prefix, "max-keys": "1"})
        except TransientError:
            return False
        except InputError:
            return True
        return True

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()
        if self._address.signer is not None:
            self._address.signer.close()

    def _is_safe(self, key: str) -> bool:
        is_safe = is_safe_key(key)
        if not is_safe:
            with self._lock:
                self.refused += 1
        return is_safe

    def _pages(self, prefix: str, query: Mapping[str, str]) -> Iterator[Page]:
        query = {"prefix": self._prefix + prefix, **query}
        while True:
            page = self._patience.repeat(partial(self._page, query))
            yield page
            if not page.is_truncated:
                return
            # without the token the first page would come again and again
            if not page.token:
                raise InputError(self.url, "the server cut its listing short and gave no token to go on with")
            query = {**query, "continuation-token": page.token}

    def _page(self, query: Mapping[str, str]) -> Page:
        self._patience.check()
        with _broken_connections():
            answer = self._connections.get(self._targets.listing(query), _FIELDS)
        with answer:
            if answer.status >= 300:
                self._refuse(answer, "")
            with _broken_connections():
                body = answer.read(MAX_PAGE_BYTES)
        try:
            page = read_page(body)
        except ValueError:
            raise TransientError(_STRANGE_LISTING) from None
        if page.bucket != self._address.bucket:
            raise TransientError(_STRANGE_LISTING)
        return page


class _Body:
    """The body of an answer, with the errors of this package."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def readinto(self, buffer: memoryview, /) -> int:
        with _broken_connections():
            return self._answer.readinto(buffer)


class _Targets:
    """What to ask the server for: a path, with a signature in its query where requests are signed."""

    def __init__(self, address: Address) -> None:
        self._root = urlsplit(address.url).path
        self._signer = address.signer
        self._lock = Lock()
        self._known: dict[str, tuple[float, str]] = {}

    def of(self, key: str) -> str:
        """Return the target of an object."""
        if self._signer is None:
            return self._root + quote(key, safe="/~")
        now = time.monotonic()
        with self._lock:
            made, target = self._known.get(key, (float("-inf"), ""))
        if now - made > SIGNATURE_S / 2:
            target = self._signer.target(key)
            with self._lock:
                if len(self._known) >= MAX_SIGNATURES:
                    self._known.clear()
                self._known[key] = now, target
        return target

    def listing(self, query: Mapping[str, str]) -> str:
        """Return the target of a page of the listing."""
        if self._signer is not None:
            return self._signer.listing(query)
        asked = {"list-type": "2", **query, "encoding-type": "url"}
        words = "&".join(f"{name}={quote(value, safe='~')}" for name, value in asked.items())
        return f"{self._root.rstrip('/') or '/'}?{words}"


def open_source(settings: Fetch, region_is_set: bool, url: str, patience: Patience, line: Line) -> S3Source:
    """Return the source at ``s3://bucket/prefix``.

    Raises
    ------
    ConfigError
        If the URL, the endpoint, a profile or the credentials cannot be used.
    """
    bucket, prefix = split_url(url)
    address = find_address(settings, region_is_set, bucket)
    return _open(address, f"{prefix}/" if prefix else "", settings.timeout_s, patience, line)


def _open(address: Address, prefix: str, timeout_s: float, patience: Patience, line: Line) -> S3Source:
    connections = Connections(address.url, timeout_s, tls_context(address.authorities))
    source = S3Source(address, prefix, patience, line, connections)
    patience.is_up = source.is_up
    return source


@contextmanager
def _broken_connections() -> Iterator[None]:
    """Turn what breaks below an answer into an error of ours."""
    try:
        yield
    except (HTTPException, OSError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, ssl.SSLError) and "CERTIFICATE" in text.upper():
            raise ConfigError(
                f"the server's certificate does not hold: {text}; AWS_CA_BUNDLE names another authority"
            ) from None
        if isinstance(error, TimeoutError):
            raise TransientError(f"timeout: nothing came for a while ({text})") from None
        raise TransientError(f"no connection: {text}") from None
