"""The SHA-256 of a unit's inputs, without reading half a gigabyte each time where something can vouch for it.

Four fifths of a coadd are resolution matrices that extraction never reads; hashing them would take longer than all
else.  In this order a file's hash comes from

1. the unit's receipt, if size and time are those it had when it was hashed;
2. fetch's receipt in the same folder, under the same condition: fetch has verified the bytes;
3. for a large file of the release, the release's own SHA-256 list in the same folder, if the list is not older than
   the file; the HDUs that are read are checked against their DATASUM besides;
4. the bytes.

``--verify`` always takes the bytes.

A file has an origin besides: the release's file that it is or, as its header tells of a coadd that fetch has cut, that
it was cut from.  Tables name origins, so they are the same whatever was fetched.  A coadd that fetch left out, as its
pixel has no quasar, has its origin from the list and nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from qad.desi.coadd import Cut, read_cut
from qad.desi.fits import MAX_TABLE_BYTES, FitsFile
from qad.errors import InputError
from qad.storage import receipts
from qad.storage.provenance import hash_file

FETCH_RECEIPT = ".qad-fetch.json"
LARGE_BYTES = 16 << 20
"""Files up to this size are hashed in about 10 ms; none needs a voucher."""
MAX_HDU_BYTES = 4 << 30
"""The resolution matrix of a camera takes 127 kB a target; the fullest pixels of DR1 have some thousands."""
_LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?([^/\0]+)\Z")
_LIST_NAME = re.compile(r"redux_([a-z0-9]+)_healpix_")
_MAX_LIST_BYTES = 1 << 20


@dataclass(frozen=True)
class Identity:
    """What the files of a unit are.

    Attributes
    ----------
    paths : list of Path
        Those that are there.
    hashes : list of str
        SHA-256 of their bytes.
    origins : dict of str to str
        SHA-256 of the release's files that they are or were cut from, by file name; and of one that was left out.
    n_absent : int
        Files that are not there.
    read : list of Path
        Files that were read to hash them.
    notes : list of str
        What is not as the release's list says.
    """

    paths: list[Path]
    hashes: list[str]
    origins: dict[str, str]
    n_absent: int
    read: list[Path]
    notes: list[str]

    @property
    def own(self) -> dict[str, str]:
        """The origins, but a cut's own hash in place of its origin."""
        return self.origins | self.present

    @property
    def present(self) -> dict[str, str]:
        """The hashes of the files that are there."""
        return {path.name: sha256 for path, sha256 in zip(self.paths, self.hashes, strict=True)}

    @property
    def is_whole(self) -> bool:
        """Whether every file is there and is its own origin."""
        return not self.n_absent and self.own == self.origins


class _File(NamedTuple):
    """SHA-256 of a file's bytes (empty: it is not there) and of its origin (empty: unknown), and how they were found."""

    path: Path
    sha256: str
    origin: str
    is_read: bool = False
    note: str = ""


_Memory = Mapping[tuple[str, int, int], tuple[str, str]]


def input_hashes(paths: Sequence[Path], receipt: Path, verify: bool) -> Identity:
    """Return what each file is.

    Raises
    ------
    InputError
        If a file cannot be read, or is a cut whose header is damaged.
    """
    memory = {} if verify else _remembered(receipt)
    return _gathered([_known(path, memory) or _first_look(path, verify) for path in paths])


def known_hashes(paths: Sequence[Path], receipt: Path) -> Identity | None:
    """Return what the unit's receipt remembers of files that have not changed; None if one has."""
    memory = _remembered(receipt)
    files = [file for path in paths if (file := _known(path, memory)) is not None]
    return _gathered(files) if len(files) == len(paths) else None


def holds_no_target(coadd: Path) -> bool:
    """Whether fetch left a coadd where it is because it holds none of the targets that a person listed."""
    files = receipts.read_receipt(coadd.with_name(FETCH_RECEIPT)).get("files")
    entry = files.get(coadd.name) if isinstance(files, dict) else None
    rows = entry.get("rows") if isinstance(entry, dict) and entry.get("verified") == "no-rows" else None
    return isinstance(rows, list) and any(str(rule).startswith(("targets ", "positions ")) for rule in rows)


def listed_specprod(path: Path) -> str:
    """Return the production that the SHA-256 list naming a file belongs to; empty if there is none."""
    source = _find_listed(path)[1]
    match = _LIST_NAME.match(source.name) if source else None
    return match[1] if match else ""


def _gathered(files: Sequence[_File]) -> Identity:
    present = [file for file in files if file.sha256]
    return Identity(
        [file.path for file in present],
        [file.sha256 for file in present],
        {file.path.name: file.origin for file in files if file.origin},
        len(files) - len(present),
        [file.path for file in files if file.is_read],
        [file.note for file in files if file.note],
    )


def _remembered(receipt: Path) -> dict[tuple[str, int, int], tuple[str, str]]:
    """Return hash and origin by path, size and time; a receipt that names no origins is of files that had no other."""
    origins = receipts.read_receipt(receipt).get("origins")
    names = origins if isinstance(origins, dict) else {}
    known = receipts.remembered(receipt)
    return {key: (sha256, str(names.get(Path(str(key[0])).name, sha256))) for key, sha256 in known.items()}


def _known(path: Path, memory: _Memory) -> _File | None:
    """Return what is known of a file without opening it; one that is not there needs no opening."""
    status = _status(path)
    if status is None:
        return _File(path, "", _find_listed(path)[0])
    found = memory.get((str(path), status.st_size, status.st_mtime_ns))
    return _File(path, *found) if found else None


def _first_look(path: Path, verify: bool) -> _File:
    """Return what a file is that nothing is known of."""
    try:
        status = path.stat()
        cut = read_cut(path)
        vouched = "" if verify else _of_fetch(path, status) or (_of_list(path, status) if cut is None else "")
        if not vouched:
            _check_sizes(path)
        sha256 = vouched or hash_file(path)
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
    origin = sha256 if cut is None else cut.sha256 or sha256
    return _File(path, sha256, origin, not vouched, "" if vouched else _contradiction(path, cut, origin))


def _check_sizes(path: Path) -> None:
    """Refuse from its headers what would take minutes to hash, and is no file of one healpix."""
    with FitsFile(path) as file:
        for hdu in file.hdus:
            if hdu.n_bytes > (MAX_TABLE_BYTES if hdu.kind == "table" else MAX_HDU_BYTES):
                raise hdu.header.error(f"takes {hdu.n_bytes:,} bytes: too large for one healpix")


def _contradiction(path: Path, cut: Cut | None, origin: str) -> str:
    """Return what to note if the release's list names another file than this one's origin."""
    listed, _ = _find_listed(path)
    if not listed or listed == origin or (cut is not None and not cut.sha256):
        return ""
    if cut is None:
        return f"{path.name} is not the file of the release's SHA-256 list"
    return f"{path.name} was cut from another file than that of the release's SHA-256 list"


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


def _of_list(path: Path, status: os.stat_result) -> str:
    """Return what the folder's list says of a large file that is not newer than it."""
    if status.st_size <= LARGE_BYTES:
        return ""
    listed, source = _find_listed(path)
    return listed if source is not None and source.stat().st_mtime_ns >= status.st_mtime_ns else ""


def _find_listed(path: Path) -> tuple[str, Path | None]:
    """Return what the folder's SHA-256 list says of a file, and the list; empty and None if none names it."""
    for candidate in sorted(path.parent.glob("*.sha256sum")):
        try:
            if candidate.stat().st_size > _MAX_LIST_BYTES:
                continue
            lines = candidate.read_text("ascii").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for match in map(_LINE.match, lines):
            if match is not None and match[2] == path.name:
                return match[1], candidate
    return "", None


def _status(path: Path) -> os.stat_result | None:
    """Return a file's status; None if it is not there."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
