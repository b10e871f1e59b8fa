"""Ways to copy the objects below a prefix of the bucket into a folder; run as a program, one of them does.

::

    python peers.py http.client http://127.0.0.1:8000 dr1 FOLDER --threads 16
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).parents[1]))
from fetching.clients import CLIENTS, PART_BYTES, boto3_client, obstore_store

BUCKET = "desidata"
Listing = list[tuple[str, int]]


def copy_ranges(client: str, base: str, prefix: str, folder: Path, n_threads: int) -> None:
    """Copy by ranges of 8 MiB, each written where it belongs: the loop that a client library allows."""
    read = CLIENTS[client](base, n_threads)
    listing = obstore_listing(base, prefix) if client == "obstore" else bare_listing(base, prefix)
    parts = []
    for key, size in listing:
        target = folder / key.removeprefix(f"{prefix}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(target, os.O_WRONLY | os.O_CREAT, 0o644) if size > PART_BYTES else -1
        parts += [(key, target, file, start, min(start + PART_BYTES, size)) for start in range(0, size, PART_BYTES)]

    def copy(part: tuple[str, Path, int, int, int]) -> None:
        key, target, file, start, stop = part
        buffer = memoryview(bytearray(stop - start))
        read(f"/{BUCKET}/{key}", start, stop, buffer)
        if file >= 0:
            os.pwrite(file, buffer, start)
        else:
            target.write_bytes(buffer)

    with ThreadPoolExecutor(n_threads) as pool:
        for _ in pool.map(copy, parts):
            pass


def copy_objects(base: str, prefix: str, folder: Path, n_threads: int) -> None:
    """Copy with boto3's get_object, a file a thread."""
    client = boto3_client(base, n_threads)

    def copy(item: tuple[str, int]) -> None:
        target = folder / item[0].removeprefix(f"{prefix}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for chunk in client.get_object(Bucket=BUCKET, Key=item[0])["Body"].iter_chunks(1 << 20):
                file.write(chunk)

    with ThreadPoolExecutor(n_threads) as pool:
        for _ in pool.map(copy, boto3_listing(client, prefix)):
            pass


def transfer_manager(base: str, prefix: str, folder: Path, n_threads: int) -> None:
    """Copy with boto3's download_file in threads, its transfers as they come."""
    client = boto3_client(base, 10 * n_threads)

    def copy(item: tuple[str, int]) -> None:
        target = folder / item[0].removeprefix(f"{prefix}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(BUCKET, item[0], str(target))

    with ThreadPoolExecutor(n_threads) as pool:
        for _ in pool.map(copy, boto3_listing(client, prefix)):
            pass


def bare_listing(base: str, prefix: str) -> Listing:
    """Return keys and sizes from pages that are read with the standard library."""
    import ssl
    import urllib.request

    context = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"]) if base.startswith("https") else None
    found: Listing = []
    token = ""
    while True:
        more = f"&continuation-token={quote(token, safe='')}" if token else ""
        url = f"{base}/{BUCKET}?list-type=2&prefix={quote(prefix, safe='')}%2F{more}"
        with urllib.request.urlopen(url, context=context) as answer:
            page = answer.read().decode()
        keys, sizes = re.findall(r"<Key>([^<]+)</Key>", page), re.findall(r"<Size>(\d+)</Size>", page)
        found += zip(keys, map(int, sizes), strict=True)
        match = re.search(r"<NextContinuationToken>([^<]+)</NextContinuationToken>", page)
        if match is None:
            return found
        token = match[1]


def boto3_listing(client: object, prefix: str) -> Iterator[tuple[str, int]]:
    """Yield keys and sizes as boto3 lists them."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/"):
        yield from ((item["Key"], item["Size"]) for item in page["Contents"])


def obstore_listing(base: str, prefix: str) -> Listing:
    """Return keys and sizes as obstore lists them."""
    return [(item["path"], item["size"]) for page in obstore_store(base).list(prefix) for item in page]


WAYS: dict[str, Callable[[str, str, Path, int], None]] = {
    "download_file": transfer_manager,
    "get_object": copy_objects,
    **{name: (lambda *arguments, name=name: copy_ranges(name, *arguments)) for name in CLIENTS},
}


def main() -> None:
    """Copy and end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("base", help="URL of the server")
    parser.add_argument("prefix")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=16)
    options = parser.parse_args()
    WAYS[options.way](options.base, options.prefix, options.folder, options.threads)
    os._exit(0)  # obstore's runtime can abort at exit; everything is written


if __name__ == "__main__":
    main()
