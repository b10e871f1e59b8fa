"""What a pixel's folder says of its making: ``.qad-fetch.json`` names each file's size, ETag, hash and voucher."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from qad.errors import StorageError
from qad.fetching.source import RemoteFile
from qad.storage.atomic import storage_errors, write_json
from qad.storage.provenance import hash_file
from qad.storage.receipts import read_receipt

NAME = ".qad-fetch.json"
FORMAT = 2
FORMATS = (1, 2)
"""Format 1 knew whole files only, and its entries read as such."""
NO_ROWS = "no-rows"
"""Stands for a voucher where the pixel holds nothing that is wanted, and so no file."""


@dataclass(frozen=True)
class Need:
    """What is wanted of a file.

    Attributes
    ----------
    mode : str
        ``files``: all of it; ``hdus``: all but the resolution matrices; ``rows``: the wanted rows of these.
    rows : str
        Which rows, see :meth:`~qad.fetching.choice.Choice.signature`.
    resolution : bool
        The resolution matrices too.
    redrock : str
        SHA-256 of the redrock file that tells the rows; empty if it is not here.
    """

    mode: str = "files"
    rows: str = ""
    resolution: bool = False
    redrock: str = ""


@dataclass(frozen=True)
class Entry:
    """A file as it was when it got its name.

    Attributes
    ----------
    url : str
        Where it came from.
    size : int
        Bytes here.
    etag : str
        The source's, see :class:`~qad.fetching.source.RemoteFile`.
    sha256 : str
        Of the bytes here.
    verified : str
        What vouched for them: ``sha256`` (the release's list), ``etag-md5``, ``datasum`` (every HDU), ``tls`` (headers
        and whole HDUs by their checksums, rows by the encrypted connection), ``twice`` (over plain HTTP: ranges read twice, over two
        connections, with the same bytes); of a list whose ETag is no MD5 ``entries``: the files that it names agree
        with it; ``no-rows``: nothing in it is wanted, and it is not here.
    mtime_ns : int
        Time of the local file.
    mode : str
        How much of it is here, see :class:`Need`.
    source_size : int
        Bytes at the source.
    rows : list of str
        The signatures of the choices whose rows are here.
    resolution : bool
        Whether the resolution matrices are here.
    redrock : str
        Of cut coadds: SHA-256 of the redrock file that told the rows.
    """

    url: str
    size: int
    etag: str
    sha256: str
    verified: str
    mtime_ns: int
    mode: str = "files"
    source_size: int = -1
    rows: list[str] = field(default_factory=list)
    resolution: bool = True
    redrock: str = ""

    def is_of(self, file: RemoteFile) -> bool:
        """Whether it came from this version of the source's file."""
        size = self.size if self.source_size < 0 else self.source_size
        return (size, self.etag) == (file.size, file.etag)

    def satisfies(self, need: Need) -> bool:
        """Whether it holds what is wanted."""
        if self.mode == "files":
            return True
        is_empty = self.verified == NO_ROWS
        if self.mode == "hdus" and not is_empty:
            return need.mode != "files" and (self.resolution or not need.resolution)
        # the modes differ in what they take of a pixel with wanted rows; one without is the same to both
        modes = ("rows", "hdus") if is_empty else ("rows",)
        fits = need.mode in modes and need.rows in self.rows and self.redrock == need.redrock
        return fits and (is_empty or self.resolution or not need.resolution)


def read_entries(folder: Path) -> dict[str, Entry]:
    """Return the entries of a folder's receipt by file name; whatever is not one is left out: it is only a memory."""
    document = read_receipt(folder / NAME)
    files = document.get("files") if document.get("format") in FORMATS else None
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


def is_current(
    path: Path, file: RemoteFile, entry: Entry | None, verify: bool = False, need: Need | None = None
) -> bool:
    """Whether the local file is what is wanted of the listed one, by receipt, size and time; with `verify` by its bytes."""
    if entry is None or not entry.is_of(file) or not entry.satisfies(need or Need()):
        return False
    status = regular_status(path)
    if entry.verified == NO_ROWS:
        return True
    if status is None or status.st_size != entry.size:
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


def make_folder(root: Path, folder: Path, known: set[Path]) -> None:
    """Make `folder` below `root`.

    Parameters
    ----------
    root, folder : Path
    known : set of Path
        Folders that have been looked at; those on the way to `folder` are added.

    Raises
    ------
    StorageError
        If a symbolic link on the way leads out of `root`, or the folder cannot be made.
    """
    path = root
    for part in folder.relative_to(root).parts:
        path = path / part
        if path in known:
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            raise StorageError(f"{path}: is a symbolic link that leads out of {root}; remove it, or use another --root")
        if path != folder:
            known.add(path)
    with storage_errors(folder / NAME):
        try:
            folder.mkdir()
        except FileExistsError:
            folder.mkdir(exist_ok=True)  # a file of that name is still an error
        except FileNotFoundError:
            folder.mkdir(parents=True, exist_ok=True)


_FIELDS = tuple(item.name for item in fields(Entry))
_TEXTS = ("url", "etag", "sha256", "verified", "mode", "redrock")
_REQUIRED = tuple(item.name for item in fields(Entry) if item.default is MISSING and item.default_factory is MISSING)


def _entry(item: Any) -> Entry | None:
    if not isinstance(item, dict) or any(name not in item for name in _REQUIRED):
        return None
    entry = Entry(**{name: item[name] for name in _FIELDS if name in item})
    numbers = all(type(value) is int for value in (entry.size, entry.mtime_ns, entry.source_size))
    texts = all(isinstance(getattr(entry, name), str) for name in _TEXTS)
    return entry if numbers and texts and isinstance(entry.rows, list) and isinstance(entry.resolution, bool) else None
