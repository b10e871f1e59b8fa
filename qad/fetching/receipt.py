"""What a pixel's folder says of its making: ``.qad-fetch.json`` names each file's size, ETag, hash and voucher."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from qad.errors import StorageError
from qad.fetching.source import RemoteFile
from qad.storage.atomic import storage_errors, write_json
from qad.storage.provenance import hash_file
from qad.storage.receipts import read_receipt

NAME = ".qad-fetch.json"
FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """A file as it was when it got its name.

    Attributes
    ----------
    url : str
        Where it came from.
    size : int
        Bytes.
    etag : str
        The source's, see :class:`~qad.fetching.source.RemoteFile`.
    sha256 : str
        Of the bytes.
    verified : str
        What vouched for them: ``sha256`` (the release's list), ``etag-md5``, ``datasum`` (every HDU); of a list
        whose ETag is no MD5 ``entries``: the files that it names agree with it.
    mtime_ns : int
        Time of the local file.
    """

    url: str
    size: int
    etag: str
    sha256: str
    verified: str
    mtime_ns: int


def read_entries(folder: Path) -> dict[str, Entry]:
    """Return the entries of a folder's receipt by file name; whatever is not one is left out: it is only a memory."""
    document = read_receipt(folder / NAME)
    files = document.get("files") if document.get("format") == FORMAT else None
    found = {}
    for name, item in files.items() if isinstance(files, dict) else ():
        entry = _entry(item)
        if entry is not None:
            found[name] = entry
    return found


def write_entries(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Write a folder's receipt."""
    files = {name: asdict(entry) for name, entry in sorted(entries.items())}
    write_json(folder / NAME, {"format": FORMAT, "files": files})


def is_current(path: Path, file: RemoteFile, entry: Entry | None, verify: bool = False) -> bool:
    """Whether the local file is the listed one, by size, time and receipt, and with `verify` by its bytes."""
    if entry is None or (entry.size, entry.etag) != (file.size, file.etag):
        return False
    status = regular_status(path)
    if status is None or status.st_size != file.size:
        return False
    if not verify and status.st_mtime_ns == entry.mtime_ns:
        return True
    with storage_errors(path):
        return hash_file(path) == entry.sha256


def regular_status(path: Path) -> Any:
    """Return the status of a regular file; None if there is none, or something else (a link is not followed)."""
    try:
        with storage_errors(path):
            status = path.lstat()
    except FileNotFoundError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def make_folder(root: Path, folder: Path) -> None:
    """Make `folder` below `root`.

    Raises
    ------
    StorageError
        If a symbolic link on the way leads out of `root`, or the folder cannot be made.
    """
    boundary = root.resolve()
    path = root
    for part in folder.relative_to(root).parts:
        path = path / part
        if path.is_symlink() and not path.resolve().is_relative_to(boundary):
            raise StorageError(f"{path}: is a symbolic link that leads out of {root}; remove it, or use another --root")
    with storage_errors(folder / NAME):
        folder.mkdir(parents=True, exist_ok=True)


def _entry(item: Any) -> Entry | None:
    if not isinstance(item, dict):
        return None
    try:
        entry = Entry(**{field.name: item[field.name] for field in fields(Entry)})
    except KeyError:
        return None
    numbers = all(type(value) is int for value in (entry.size, entry.mtime_ns))
    return entry if numbers and all(isinstance(v, str) for v in (entry.url, entry.etag, entry.sha256)) else None
