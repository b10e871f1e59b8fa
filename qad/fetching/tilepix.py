"""The release's own list of pixels: ``tilepix.fits`` at the root of the ``healpix`` folder."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import replace
from pathlib import Path

from qad.errors import InputError, QadError
from qad.fetching.checksums import Expected, parse_list
from qad.fetching.retry import Patience
from qad.fetching.source import RemoteFile, Source, TransientError
from qad.fetching.target_table import read_pixels
from qad.fetching.wanted import Listed
from qad.storage.atomic import storage_errors

NAME = "tilepix.fits"
MAX_BYTES = 256 << 20
"""That of DR1 has some 10 MB."""
_LIST = re.compile(r"redux_[a-z0-9]{1,32}_healpix\.sha256sum\Z")


def read_tilepix(source: Source, patience: Patience) -> Listed:
    """Read the list of pixels that a source publishes, verified.

    Parameters
    ----------
    source : Source
        Rooted at its ``healpix`` folder.
    patience : Patience

    Raises
    ------
    InputError
        If there is no such list, or nothing vouches for it, or it is damaged.
    """
    there = {file.key: file for prefix in ("tilepix", "redux_") for file in source.files(prefix)}
    file = there.get(NAME)
    if file is None or not 0 < file.size <= MAX_BYTES:
        raise InputError(f"{source.url}{NAME}", "no such file; name the pixels with --healpix @FILE")
    content = _read(source, file, patience)
    lists = [other for key, other in there.items() if _LIST.match(key)]
    try:
        entries = parse_list(_read(source, lists[0], patience)) if lists else {}
        return _check(content, Expected(entries.get(NAME, ""), file.md5), f"{source.url}{NAME}")
    except InputError:
        raise
    except QadError as error:
        raise InputError(
            f"{source.url}{NAME}", f"{error}; try again, or name the pixels with --healpix @FILE"
        ) from None


def _check(content: bytes, expected: Expected, url: str) -> Listed:
    with storage_errors(Path(tempfile.gettempdir()) / NAME), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_bytes(content)
        # MD5 is what S3's ETag is; against damage, not against an attacker
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        expected.verify(hashlib.sha256(content).hexdigest(), md5, path)
        try:
            return replace(read_pixels(path), origin=url)
        except InputError as error:
            raise InputError(url, error.reason, error.where) from None


def _read(source: Source, file: RemoteFile, patience: Patience) -> bytes:
    def read() -> bytes:
        content, done = bytearray(file.size), 0
        with source.open(file, 0, file.size) as body:
            while n_bytes := body.readinto(memoryview(content)[done:]):
                done += n_bytes
        if done != file.size:
            raise TransientError(f"{file.key} ended after {done} of {file.size} bytes")
        return bytes(content)

    return patience.repeat(read)
