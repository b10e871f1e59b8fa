"""The SHA-256 of a unit's inputs, without reading half a gigabyte each time where something can vouch for it.

Four fifths of a coadd are resolution matrices that extraction never reads; hashing them would take longer than all
else.  In this order a file's hash comes from

1. the unit's receipt, if size and time are those it had when it was hashed;
2. fetch's receipt in the same folder, under the same condition: fetch has verified the bytes;
3. for a large file, the release's own SHA-256 list in the same folder, if the list is not older than the file;
   the HDUs that are read are checked against their DATASUM besides;
4. the bytes.

``--verify`` always takes the bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from qad.errors import InputError
from qad.storage import receipts
from qad.storage.provenance import hash_file

FETCH_RECEIPT = ".qad-fetch.json"
LARGE_BYTES = 16 << 20
"""Files up to this size are hashed in about 10 ms; none needs a voucher."""
_LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?([^/\0]+)\Z")
_MAX_LIST_BYTES = 1 << 20


class Identity(NamedTuple):
    """The SHA-256 of a unit's files, which of them were read for it, and notes on what the release's list says else."""

    hashes: list[str]
    read: list[Path]
    notes: list[str]


def input_hashes(paths: Sequence[Path], receipt: Path, verify: bool) -> Identity:
    """Return the SHA-256 of each file.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    known = receipts.remembered(receipt)
    found = Identity([], [], [])
    for path in paths:
        status = _status(path)
        sha256 = None if verify else known.get((str(path), status.st_size, status.st_mtime_ns))
        if sha256 is None:
            sha256, is_read, note = _first_hash(path, status, verify)
            found.read.extend([path] if is_read else [])
            found.notes.extend([note] if note else [])
        found.hashes.append(sha256)
    return found


def known_hashes(paths: Sequence[Path], receipt: Path) -> list[str] | None:
    """Return the SHA-256 that the unit's receipt remembers of files that have not changed; None if one has."""
    known = receipts.remembered(receipt)
    found = [known.get((str(path), (status := _status(path)).st_size, status.st_mtime_ns)) for path in paths]
    return None if None in found else [str(sha256) for sha256 in found]


def _first_hash(path: Path, status: os.stat_result, verify: bool) -> tuple[str, bool, str]:
    """Return a file's SHA-256, whether its bytes were read, and a note if it is not what the release's list says."""
    vouched = "" if verify else _of_fetch(path, status)
    if vouched:
        return vouched, False, ""
    listed, is_newer = _of_list(path, status)
    if listed and is_newer and status.st_size > LARGE_BYTES and not verify:
        return listed, False, ""
    try:
        sha256 = hash_file(path)
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
    differs = bool(listed) and listed != sha256
    return sha256, True, f"{path.name} is not the file of the release's SHA-256 list" if differs else ""


def _of_fetch(path: Path, status: os.stat_result) -> str:
    files = receipts.read_receipt(path.with_name(FETCH_RECEIPT)).get("files")
    entry = files.get(path.name) if isinstance(files, dict) else None
    if not isinstance(entry, dict) or (entry.get("size"), entry.get("mtime_ns")) != (
        status.st_size,
        status.st_mtime_ns,
    ):
        return ""
    sha256 = entry.get("sha256")
    return sha256 if isinstance(sha256, str) and len(sha256) == 64 else ""


def _of_list(path: Path, status: os.stat_result) -> tuple[str, bool]:
    """Return what the folder's list says of a file (empty: nothing), and whether the list is as new as the file."""
    for candidate in sorted(path.parent.glob("*.sha256sum")):
        try:
            listed = candidate.stat()
            if listed.st_size > _MAX_LIST_BYTES:
                continue
            lines = candidate.read_text("ascii").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for match in map(_LINE.match, lines):
            if match is not None and match[2] == path.name:
                return match[1], listed.st_mtime_ns >= status.st_mtime_ns
    return "", False


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
