"""Kept-alive HTTP connections to one server: what moves the bytes.

boto3 finds the endpoint, the credentials and the listings; a body comes by :mod:`http.client`, which takes a seventh of
boto3's time for a small range (``benchmarks/fetch.py clients``).  Nothing is followed, repeated or decoded here.
"""

from __future__ import annotations

import http.client
import ssl
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_TIMEOUT_S = 10.0


class Answer:
    """The head of an answer, and its body piece by piece; use it as a context manager.

    Attributes
    ----------
    status : int
    headers : mapping of str to str
        Names are compared without regard to case.
    first_byte_s : float
        Seconds from the request to the head.
    """

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        first_byte_s: float,
        idle: deque[http.client.HTTPConnection],
    ) -> None:
        self._connection, self._response, self._idle = connection, response, idle
        self._left = response.length
        self.status = response.status
        self.headers = response.headers
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
        self._timeout_s = timeout_s
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
        while True:
            kept = self._take()
            connection = kept or self._connect()
            began = time.monotonic()
            try:
                connection.request("GET", target, headers=dict(headers))
                response = connection.getresponse()
            except (ConnectionError, http.client.RemoteDisconnected):
                connection.close()
                if kept is None:
                    raise
            except BaseException:
                connection.close()
                raise
            else:
                return Answer(connection, response, time.monotonic() - began, self._idle)

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
        connection = make(place.hostname or "", port, timeout=min(CONNECT_TIMEOUT_S, self._timeout_s), **more)
        if self._proxy.hostname and self.is_encrypted:
            connection.set_tunnel(self._url.hostname or "", self._url.port or 443, _permit(self._proxy))
        connection.connect()
        connection.sock.settimeout(self._timeout_s)
        return connection


def tls_context(authorities: str) -> ssl.SSLContext:
    """Return what checks a server's certificate.

    Parameters
    ----------
    authorities : str
        File or folder of certificates to trust.
    """
    is_folder = Path(authorities).is_dir()
    return ssl.create_default_context(
        cafile=None if is_folder else authorities, capath=authorities if is_folder else None
    )


def _permit(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
