"""The connections that bring the bytes: kept where that is safe, given up where it is not."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from qad.errors import ConfigError
from qad.fetching.http import Connections, tls_context

Talk = Callable[[socket.socket, int], None]
"""What a server does with its n-th connection."""
ANSWER = b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n\r\n%s"


@contextmanager
def server(talk: Talk, certificate: Path | None = None) -> Iterator[tuple[str, list[int]]]:
    """Run a server of raw sockets, and yield its URL and the numbers of the connections that were made."""
    listening = socket.create_server(("127.0.0.1", 0))
    made: list[int] = []
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

    def serve() -> None:
        with suppress(OSError):
            while True:
                raw, _ = listening.accept()
                made.append(len(made))
                threading.Thread(target=attend, args=(raw, made[-1]), daemon=True).start()

    def attend(raw: socket.socket, number: int) -> None:
        with suppress(OSError), context.wrap_socket(raw, server_side=True) if context else raw as connection:
            talk(connection, number)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        scheme = "https" if certificate else "http"
        yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}", made
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


def request_from(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            return b""
        head += piece
    return head


def answers(body: bytes, n_answers: int = 1000) -> Talk:
    """Answer requests with one body, and close the connection after so many."""

    def talk(connection: socket.socket, _: int) -> None:
        for _ in range(n_answers):
            if not request_from(connection):
                return
            connection.sendall(ANSWER % (len(body), body))

    return talk


Connect = Callable[..., Connections]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make connections that are closed after the test."""
    made: list[Connections] = []

    def to(url: str, context: ssl.SSLContext | None = None, timeout_s: float = 2.0) -> Connections:
        made.append(Connections(url, timeout_s, context or ssl.create_default_context()))
        return made[-1]

    yield to
    for connections in made:
        connections.close()


def body_of(to: Connections, n_bytes: int = 100) -> bytes:
    """Ask, and read up to so many bytes of the answer."""
    buffer = memoryview(bytearray(n_bytes))
    place = 0
    with to.get("/x", {}) as answer:
        while place < n_bytes and (n := answer.readinto(buffer[place:])):
            place += n
    return bytes(buffer[:place])


def test_a_connection_whose_answer_was_read_is_used_again(connect: Connect) -> None:
    with server(answers(b"abc")) as (url, made):
        to = connect(url)
        assert [body_of(to) for _ in range(5)] == [b"abc"] * 5
        assert made == [0]


def test_a_connection_with_an_answer_half_read_is_not_used_again(connect: Connect) -> None:
    with server(answers(b"abc")) as (url, made):
        to = connect(url)
        assert body_of(to, 2) == b"ab"
        assert body_of(to) == b"abc"
        assert made == [0, 1]


def test_more_bytes_than_were_announced_are_no_answer_to_the_next_request(connect: Connect) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        while request_from(connection):
            extra = ANSWER % (3, b"bad") if number == 0 else b""
            connection.sendall(ANSWER % (3, b"abc") + extra)

    with server(talk) as (url, _):
        to = connect(url)
        assert [body_of(to) for _ in range(4)] == [b"abc"] * 4


@pytest.mark.parametrize("n_answers", [1, 2])
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_kept_connections_that_were_closed_meanwhile_give_way(
    connect: Connect, certificate: Path, is_encrypted: bool, n_answers: int
) -> None:
    with server(answers(b"abc", n_answers), certificate if is_encrypted else None) as (url, made):
        to = connect(url, tls_context(str(certificate)))
        assert [body_of(to) for _ in range(6)] == [b"abc"] * 6
        assert len(made) == 6 // n_answers


def test_all_kept_connections_may_be_dead_at_once(connect: Connect) -> None:
    with server(answers(b"abc", 1)) as (url, made):
        to = connect(url)
        open_ones = [to.get("/x", {}) for _ in range(4)]
        for answer in open_ones:
            with answer:
                assert answer.readinto(memoryview(bytearray(3))) == 3
        assert body_of(to) == b"abc"
        assert len(made) == 5


def test_a_new_connection_that_is_closed_at_once_is_an_error(connect: Connect) -> None:
    with server(lambda *_: None) as (url, made):
        with pytest.raises((OSError, HTTPException)):
            body_of(connect(url))
        assert made == [0]


@pytest.mark.parametrize(
    "said",
    [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"HTTP/1.1 99999\r\n\r\n"],
    ids=["nothing", "another protocol", "too many headers", "no status"],
)
def test_what_is_not_http_is_an_error_and_the_connection_goes(connect: Connect, said: bytes) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        request_from(connection)
        connection.sendall(said if number == 0 else ANSWER % (1, b"x"))
        connection.recv(1)

    with server(talk) as (url, made):
        to = connect(url, timeout_s=0.3)
        with pytest.raises((OSError, HTTPException)):
            body_of(to)
        assert body_of(to) == b"x"
        assert made == [0, 1]


def test_bytes_that_came_before_a_break_are_not_lost(connect: Connect) -> None:
    def talk(connection: socket.socket, _: int) -> None:
        request_from(connection)
        connection.sendall(ANSWER % (10, b"abcd"))

    with server(talk) as (url, _):
        assert body_of(connect(url)) == b"abcd"


def test_an_answer_without_length_ends_with_its_connection(connect: Connect) -> None:
    def talk(connection: socket.socket, _: int) -> None:
        request_from(connection)
        connection.sendall(b"HTTP/1.1 503 Busy\r\n\r\n<Error/>")

    with server(talk) as (url, made):
        to = connect(url)
        assert [body_of(to) for _ in range(2)] == [b"<Error/>"] * 2
        assert made == [0, 1]


def test_silence_ends_after_the_timeout(connect: Connect) -> None:
    def talk(connection: socket.socket, _: int) -> None:
        request_from(connection)
        connection.sendall(ANSWER % (10, b"ab"))
        connection.recv(1)

    with server(talk) as (url, _), pytest.raises(TimeoutError):
        body_of(connect(url, timeout_s=0.2))


def test_requests_go_through_the_proxy_with_its_password_and_not_where_it_is_not_wanted(
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heads: list[bytes] = []

    def talk(connection: socket.socket, _: int) -> None:
        heads.append(request_from(connection))
        connection.sendall(ANSWER % (1, b"x"))

    with server(talk) as (url, _):
        proxy = url.replace("http://", "http://me:p%40ss@")
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "here.example")
        assert body_of(connect("http://there.example/")) == b"x"
        assert heads[0].startswith(b"GET http://there.example/x HTTP/1.1\r\n")
        assert b"\r\nHost: there.example\r\n" in heads[0]
        assert b"Proxy-Authorization: Basic bWU6cEBzcw==" in heads[0]
        with pytest.raises(OSError):
            body_of(connect("http://here.example:9/"))
        assert len(heads) == 1


def test_a_certificate_must_be_vouched_for(connect: Connect, certificate: Path) -> None:
    with server(answers(b"abc"), certificate) as (url, _):
        with pytest.raises(ssl.SSLCertVerificationError):
            body_of(connect(url))
        assert body_of(connect(url, tls_context(str(certificate)))) == b"abc"


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_read_are_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"ca\.pem \(AWS_CA_BUNDLE\)"):
        tls_context(str(path))
    assert tls_context(str(tmp_path)).verify_mode == ssl.CERT_REQUIRED, "a folder of certificates"
