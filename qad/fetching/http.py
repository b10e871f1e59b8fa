"""Kept-alive HTTP connections to one server: what moves the bytes.

boto3 finds the endpoint and the credentials; all else is asked by :mod:`http.client`, which takes a seventh of boto3's
time for a small range (``benchmarks/fetch.py clients``).  Nothing is followed, repeated or decoded here.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from qad.errors import ConfigError

CONNECT_TIMEOUT_S = 10.0
READ_BYTES = 64 << 10
MAX_LINE = 64 << 10
MAX_FIELDS = 100


class Answer:
    """The head of an answer, and its body piece by piece; use it as a context manager.

    Attributes
    ----------
    status : int
    headers : mapping of str to str
        By name in lower case.
    first_byte_s : float
        Seconds from the request to the head.
    """

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        response: _Response,
        first_byte_s: float,
        idle: deque[http.client.HTTPConnection],
    ) -> None:
        self._connection, self._response, self._idle = connection, response, idle
        self._left = response.length
        self.status = response.status
        self.headers = response.fields
        self.first_byte_s = first_byte_s

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()
        # only a connection whose answer was read to its end can take another request
        if kind is None and self._left == 0 and not self._response.will_close:
            self._idle.append(self._connection)
        else:
            self._connection.close()

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` as far as bytes have come, and return how many; 0 at the end."""
        if self._left is not None:
            buffer = buffer[: self._left]
        # one read of the socket: what came before the connection breaks is not lost
        n_bytes = self._response.fp.readinto1(buffer) if len(buffer) else 0
        if self._left is not None:
            self._left -= n_bytes
        return n_bytes

    def read(self, most: int) -> bytes:
        """Return the whole body, however it is coded on the way.

        Raises
        ------
        http.client.HTTPException
            If it has more than `most` bytes, or ends early.
        """
        data = self._response.read(most + 1)
        if len(data) > most:
            raise http.client.HTTPException(f"an answer of more than {most:,} bytes")
        if self._left is not None and len(data) < self._left:
            raise http.client.IncompleteRead(data, self._left - len(data))
        self._left = 0
        return data


class _Generous:
    """A socket whose reader takes a small answer in one piece, head and body."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> Any:
        """Return a buffered reader."""
        return self._sock.makefile("rb", READ_BYTES)


class _Response(http.client.HTTPResponse):
    """An answer whose head is split at its colons.

    The standard library reads a head with its parser for mail, which takes longer than all else of a small answer.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(cast(socket.socket, _Generous(sock)), method="GET")

    def begin(self) -> None:
        """Read the head."""
        version, self.status, self.reason = self._status_line()
        while self.status == 100:  # "go on": a server may say so before its answer
            self._fields()
            version, self.status, self.reason = self._status_line()
        self.code = self.status
        self.version = 10 if version.startswith("HTTP/1.0") else 11
        self.fields = self._fields()
        self.headers = self.msg = http.client.HTTPMessage()
        self.chunked = self.fields.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        self.length = self._stated_length()
        ends = self.fields.get("connection", "").lower()
        self.will_close = ends == "close" or (self.version == 10 and ends != "keep-alive") or self.length is None

    def _status_line(self) -> tuple[str, int, str]:
        line = self.fp.readline(MAX_LINE + 1).decode("latin-1")
        if not line:
            raise http.client.RemoteDisconnected("the server closed the connection without an answer")
        version, _, rest = line.rstrip().partition(" ")
        status, _, reason = rest.strip().partition(" ")
        if not version.startswith("HTTP/1.") or not (status.isascii() and status.isdigit() and len(status) == 3):
            raise http.client.BadStatusLine(line[:80])
        return version, int(status), reason.strip()

    def _fields(self) -> dict[str, str]:
        """Return the fields by name in lower case; of a field that stands twice the first counts."""
        found: dict[str, str] = {}
        for _ in range(MAX_FIELDS):
            line = self.fp.readline(MAX_LINE + 1)
            if len(line) > MAX_LINE:
                raise http.client.LineTooLong("header line")
            if line in (b"\r\n", b"\n", b""):
                return found
            name, _, value = line.decode("latin-1").partition(":")
            found.setdefault(name.strip().lower(), value.strip())
        raise http.client.HTTPException(f"more than {MAX_FIELDS} header fields")

    def _stated_length(self) -> int | None:
        text = self.fields.get("content-length", "")
        if self.chunked or not (text.isascii() and text.isdigit()):
            return 0 if self.status in (204, 304) else None
        return int(text)


class Connections:
    """Connections to the server of `url`, straight or through the proxy that the environment names.

    Parameters
    ----------
    url : str
        Any URL of the server.
    timeout_s : float
        Seconds without a byte.
    context : ssl.SSLContext
        For https.
    """

    def __init__(self, url: str, timeout_s: float, context: ssl.SSLContext) -> None:
        self._url = urlsplit(url)
        self.timeout_s = timeout_s
        self._context = context
        self._idle: deque[http.client.HTTPConnection] = deque()
        host = self._url.hostname or ""
        proxy = "" if proxy_bypass(host) else getproxies().get(self._url.scheme, "")
        self._proxy = urlsplit(proxy if "://" in proxy or not proxy else f"http://{proxy}")

    @property
    def is_encrypted(self) -> bool:
        """Whether bytes come over TLS, which finds every change on the way."""
        return self._url.scheme == "https"

    def get(self, target: str, headers: Mapping[str, str]) -> Answer:
        """GET `target` (path and query).

        A kept connection that the server has closed meanwhile gives way to the next.

        Raises
        ------
        OSError, http.client.HTTPException
        """
        if self._proxy.hostname and not self.is_encrypted:
            target, headers = f"{self._url.scheme}://{self._url.netloc}{target}", {**headers, **_permit(self._proxy)}
        request = _head(target, {"Host": self._url.netloc, **headers})
        while True:
            kept = self._take()
            connection = kept or self._connect()
            began = time.monotonic()
            try:
                return Answer(connection, _exchange(connection.sock, request), time.monotonic() - began, self._idle)
            except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                connection.close()
                if kept is None:
                    raise
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> http.client.HTTPConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self) -> http.client.HTTPConnection:
        place = self._proxy if self._proxy.hostname else self._url
        make: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
        more = {}
        if self.is_encrypted:
            make, more = http.client.HTTPSConnection, {"context": self._context}
        port = place.port or (443 if place.scheme == "https" else 80)
        connection = make(place.hostname or "", port, timeout=min(CONNECT_TIMEOUT_S, self.timeout_s), **more)
        if self._proxy.hostname and self.is_encrypted:
            connection.set_tunnel(self._url.hostname or "", self._url.port or 443, _permit(self._proxy))
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        connection.sock.settimeout(self.timeout_s)
        return connection


def tls_context(authorities: str) -> ssl.SSLContext:
    """Return what checks a server's certificate.

    Parameters
    ----------
    authorities : str
        File or folder of certificates to trust.

    Raises
    ------
    ConfigError
        If it cannot be read, or holds no certificates.
    """
    is_folder = Path(authorities).is_dir()
    try:
        return ssl.create_default_context(
            cafile=None if is_folder else authorities, capath=authorities if is_folder else None
        )
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"certificates of {authorities} (AWS_CA_BUNDLE): {reason}") from None


def _exchange(sock: socket.socket, request: bytes) -> _Response:
    """Send a request and read the head of its answer."""
    sock.sendall(request)
    response = _Response(sock)
    try:
        response.begin()
    except BaseException:
        response.close()  # its reader would keep the socket open
        raise
    return response


def _head(target: str, headers: Mapping[str, str]) -> bytes:
    """Return a request.

    Raises
    ------
    ValueError
        If a field or the target holds what would end it.
    """
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if any(not line.isprintable() for line in lines) or " " in target:
        raise ValueError(f"{target} or a field of its request is not plain text")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _permit(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
