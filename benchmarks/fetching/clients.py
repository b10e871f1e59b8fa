"""HTTP clients to compare, each as one function that reads a range; run as a program, one of them is measured.

::

    python clients.py urllib3 small http://127.0.0.1:8000/bucket/key --size 100000000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

Read = Callable[[str, int, int, memoryview], None]
"""Read bytes [start, stop) of a path (``/bucket/key``) into a buffer of that length."""
PART_BYTES = 8 << 20
SMALL_BYTES = 12_000
"""About a spectrum of one camera: 11,004, 9,304 or 11,524 bytes."""


def bare_socket(base: str, _n_threads: int) -> Read:
    """Return a reader that writes and parses HTTP with as little as will do: what a client in Python must at least cost."""
    url, local = urlsplit(base), threading.local()
    context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE")) if url.scheme == "https" else None

    def read(path: str, start: int, stop: int, into: memoryview) -> None:
        sock = getattr(local, "socket", None)
        if sock is None:
            sock = socket.create_connection((url.hostname, url.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            local.socket = sock = context.wrap_socket(sock, server_hostname=url.hostname) if context else sock
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nRange: bytes={start}-{stop - 1}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        head, _, body = head.partition(b"\r\n\r\n")
        _check(int(head[9:12]))
        into[: len(body)] = body
        _fill(sock.recv_into, into[len(body) :])

    return read


def http_client(base: str, _n_threads: int) -> Read:
    """Return a reader over http.client: one connection a thread."""
    import http.client

    url, local = urlsplit(base), threading.local()
    context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE")) if url.scheme == "https" else None

    def read(path: str, start: int, stop: int, into: memoryview) -> None:
        connection = getattr(local, "connection", None)
        if connection is None:
            if context:
                connection = http.client.HTTPSConnection(url.netloc, context=context)
            else:
                connection = http.client.HTTPConnection(url.netloc)
            local.connection = connection
        connection.request("GET", path, headers={"Range": f"bytes={start}-{stop - 1}"})
        answer = connection.getresponse()
        _check(answer.status)
        _fill(answer.readinto, into)
        answer.read()

    return read


def urllib3(base: str, n_threads: int) -> Read:
    """Return a reader over a urllib3 pool."""
    import urllib3

    trust = {"ca_certs": os.environ.get("AWS_CA_BUNDLE")} if base.startswith("https") else {}
    pool = urllib3.connection_from_url(base, maxsize=n_threads, **trust)

    def read(path: str, start: int, stop: int, into: memoryview) -> None:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        answer = pool.request("GET", path, headers=headers, preload_content=False)
        _check(answer.status)
        _fill(answer.readinto, into)
        answer.release_conn()

    return read


def boto3(base: str, n_threads: int) -> Read:
    """Return a reader over boto3's get_object, unsigned."""
    client = boto3_client(base, n_threads)

    def read(path: str, start: int, stop: int, into: memoryview) -> None:
        bucket, _, key = path[1:].partition("/")
        body = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}")["Body"]
        _fill(body.readinto, into)
        body.read()

    return read


def obstore(base: str, _n_threads: int) -> Read:
    """Return a reader over obstore (Rust), called from threads."""
    store = obstore_store(base)

    def read(path: str, start: int, stop: int, into: memoryview) -> None:
        into[:] = memoryview(store.get_range(path.split("/", 2)[2], start=start, end=stop))

    return read


CLIENTS: dict[str, Callable[[str, int], Read]] = {
    "socket": bare_socket,
    "http.client": http_client,
    "urllib3": urllib3,
    "boto3": boto3,
    "obstore": obstore,
}


def boto3_client(base: str, n_connections: int) -> object:
    """Return an unsigned client of the server at `base`."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        signature_version=UNSIGNED,
        max_pool_connections=n_connections,
        s3={"addressing_style": "path"},
        response_checksum_validation="when_required",
    )
    return boto3.client("s3", endpoint_url=base, region_name="us-west-2", config=config)


def obstore_store(base: str) -> object:
    """Return obstore's store of the bucket at `base`."""
    from obstore.store import S3Store

    return S3Store(
        "desidata",
        endpoint=base,
        region="us-west-2",
        skip_signature=True,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "allow_invalid_certificates": True},
    )


def _check(status: int) -> None:
    if status not in (200, 206):
        raise OSError(f"status {status}")


def _fill(readinto: Callable[[memoryview], int], into: memoryview) -> None:
    got = 0
    while got < len(into):
        n = readinto(into[got:])
        if not n:
            raise OSError("the answer is short")
        got += n


def measure(client: str, what: str, url: str, size: int, n_threads: int, seconds: float) -> dict[str, float]:
    """Read ranges of one object for some seconds; return requests and bytes with the time and CPU time they took."""
    parts = urlsplit(url)
    read = CLIENTS[client](f"{parts.scheme}://{parts.netloc}", n_threads)
    length = min(SMALL_BYTES if what == "small" else PART_BYTES, size)
    done = 0
    lock = threading.Lock()
    barrier = threading.Barrier(n_threads + 1)

    def work(i: int) -> None:
        nonlocal done
        rng, buffer, n = random.Random(i), memoryview(bytearray(length)), 0
        try:
            read(parts.path, 0, length, buffer)
            barrier.wait()
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                start = rng.randrange(size - length + 1)
                read(parts.path, start, start + length, buffer)
                n += 1
        except BaseException:
            barrier.abort()
            raise
        with lock:
            done += n

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(n_threads)]
    for thread in threads:
        thread.start()
    barrier.wait()
    started, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.join()
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"requests": done, "bytes": done * length, "seconds": wall, "cpu_seconds": cpu}


def main() -> None:
    """Measure one client and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("what", choices=("small", "large"))
    parser.add_argument("url")
    parser.add_argument("--size", type=int, required=True, help="bytes of the object")
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    figures = measure(options.client, options.what, options.url, options.size, options.threads, options.seconds)
    print(json.dumps(figures))
    sys.stdout.flush()
    os._exit(0)  # obstore's runtime can abort at exit; the figures are out


if __name__ == "__main__":
    main()
