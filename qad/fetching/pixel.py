"""One pixel: its folder brought to the state of the source, file by file, with a receipt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from qad.desi.layout import pixel_folder
from qad.errors import QadError
from qad.fetching.checksums import ENTRIES, MD5, SHA256, Expected, MismatchError, parse_list
from qad.fetching.download import Hashes, Transfer, download, remove_partials
from qad.fetching.plan import PixelFiles, list_pixel
from qad.fetching.receipt import (
    Entry,
    is_current,
    make_folder,
    read_entries,
    regular_status,
    write_entries,
)
from qad.fetching.source import ChangedError, MissingError, RemoteFile
from qad.fetching.threads import FATAL
from qad.storage.atomic import remove_stale_parts, storage_errors
from qad.storage.provenance import hash_file

STALE_RECEIPT_S = 60.0
"""Writing a receipt takes milliseconds: one that was begun so long ago by a process that is gone was left behind."""


@dataclass(frozen=True)
class Target:
    """Where files go and what counts as done.

    Attributes
    ----------
    root : Path
        The work directory, which nothing may leave.
    healpix : Path
        The folder that mirrors the release's ``healpix``.
    force, verify : bool
        Fetch everything again; look at the bytes of what is there.
    """

    root: Path
    healpix: Path
    force: bool = False
    verify: bool = False


@dataclass(frozen=True)
class PixelResult:
    """What became of a pixel's files: how many were fetched, were there already, and how they are verified."""

    n_fetched: int = 0
    n_kept: int = 0
    verified: tuple[str, ...] = ()
    absent: bool = False


def pending(target: Target, files: PixelFiles) -> list[RemoteFile]:
    """Return the files of a pixel that are not there as the receipt says."""
    if target.force:
        return list(files.all)
    folder = pixel_folder(target.healpix, files.pixel)
    entries = read_entries(folder)
    return [
        file for file in files.all if not is_current(folder / file.name, file, entries.get(file.name), target.verify)
    ]


def fetch_pixel(transfer: Transfer, target: Target, files: PixelFiles) -> PixelResult:
    """Bring a pixel's folder to the state of the source.

    An object that changed since it was listed is listed and fetched once more.

    Raises
    ------
    QadError
        If a file cannot be had; what was fetched before stays, with its receipt.
    """
    try:
        return _Folder(transfer, target, files).bring()
    except ChangedError:
        again = list_pixel(transfer.source, files.pixel)
    if again is None:
        raise MissingError("its files were listed and are now gone")
    try:
        return _Folder(transfer, target, again).bring()
    except ChangedError as error:
        raise QadError(f"{error}, twice; run again when the source is at rest") from None


class _Folder:
    """The work on one pixel's folder."""

    def __init__(self, transfer: Transfer, target: Target, files: PixelFiles) -> None:
        self._transfer = transfer
        self._target = target
        self._files = files
        self._folder = pixel_folder(target.healpix, files.pixel)
        self._entries = read_entries(self._folder)
        self._checksums: dict[str, str] | None = None
        self._list_is_fresh = False

    def bring(self) -> PixelResult:
        todo = pending(self._target, self._files)
        kept = [file for file in self._files.all if file not in todo]
        self._transfer.meter.add(kept=sum(file.size for file in kept))
        before = dict(self._entries)
        self._note_times(kept)
        if not todo:
            self._remove_partials()
            if self._entries != before:
                write_entries(self._folder, self._entries)
            return PixelResult(n_kept=len(kept), verified=self._verified())
        make_folder(self._target.root, self._folder)
        remove_stale_parts(self._folder, STALE_RECEIPT_S)
        n_fetched = 0
        try:
            for file in (file for file in self._files.data if file in todo):
                n_fetched += self._bring_file(file)
            if self._files.checksums in todo:
                self._keep_list(self._files.checksums)
                n_fetched += 1
        finally:
            if self._entries != before:
                write_entries(self._folder, self._entries)
        return PixelResult(n_fetched, len(self._files.all) - n_fetched, self._verified())

    def _bring_file(self, file: RemoteFile) -> bool:
        """Make a data file be there; return whether it had to be fetched."""
        final = self._folder / file.name
        try:
            expected = self._expected(file)
            if self._adopt(file, final, expected):
                return False
            sha256, verified = download(
                self._transfer if not self._target.force else replace(self._transfer, resume=False),
                file,
                final,
                lambda hashes, path: self._verify(file, hashes, path),
                with_md5=not expected.sha256 and bool(expected.md5),
            )
        except FATAL:
            raise
        except ChangedError as error:
            raise ChangedError(f"{file.name}: {error}") from None
        except QadError as error:
            raise QadError(f"{file.name}: {error}") from None
        self._note(file, final, sha256, verified)
        return True

    def _adopt(self, file: RemoteFile, final: Path, expected: Expected) -> bool:
        """Take a file that is there without a fitting receipt (another tool's, another source's) if its bytes agree."""
        status = regular_status(final)
        if self._target.force or not expected.sha256 or status is None or status.st_size != file.size:
            return False
        with storage_errors(final):
            sha256 = hash_file(final)
        if sha256 != expected.sha256:
            return False
        remove_partials(final)
        self._transfer.meter.add(kept=file.size)
        self._note(file, final, sha256, SHA256)
        return True

    def _note_times(self, kept: list[RemoteFile]) -> None:
        """Take over the times of files whose bytes were found right: a copied tree is hashed once, not in every run."""
        for file in kept:
            status = regular_status(self._folder / file.name)
            if status is not None:
                self._entries[file.name] = replace(self._entries[file.name], mtime_ns=status.st_mtime_ns)

    def _remove_partials(self) -> None:
        for file in self._files.all:
            remove_partials(self._folder / file.name)

    def _note(self, file: RemoteFile, final: Path, sha256: str, verified: str) -> None:
        url, mtime_ns = self._transfer.source.url + file.key, final.lstat().st_mtime_ns
        self._entries[file.name] = Entry(url, file.size, file.etag, sha256, verified, mtime_ns)

    def _verified(self) -> tuple[str, ...]:
        return tuple(self._entries[file.name].verified for file in self._files.all if file.name in self._entries)

    def _expected(self, file: RemoteFile) -> Expected:
        if self._checksums is None:
            self._checksums = self._read_list()
        return Expected(self._checksums.get(file.name, ""), file.md5)

    def _verify(self, file: RemoteFile, hashes: Hashes, path: Path) -> str:
        """Say how bytes are verified; before they are blamed, the list is read once more."""
        try:
            return self._expected(file).verify(hashes.sha256, hashes.md5, path)
        except MismatchError:
            if self._list_is_fresh or self._files.checksums is None:
                raise
        self._list_is_fresh = True
        self._checksums = self._read_list(again=True)
        return self._expected(file).verify(hashes.sha256, hashes.md5, path)

    def _read_list(self, again: bool = False) -> dict[str, str]:
        """Return the SHA-256 list of the folder, which becomes a local file first; empty if the source has none."""
        file = self._files.checksums
        if file is None:
            return {}
        final = self._folder / file.name
        entry = self._entries.get(file.name)
        if again or self._target.force or not is_current(final, file, entry, verify=True):
            transfer = replace(self._transfer, resume=False)
            sha256, verified = download(transfer, file, final, partial(_verify_list, file), with_md5=bool(file.md5))
            self._note(file, final, sha256, verified)
        with storage_errors(final):
            return parse_list(final.read_bytes())

    def _keep_list(self, file: RemoteFile | None) -> None:
        """Make the list be there although no data file needed it."""
        if file is not None and self._checksums is None:
            self._checksums = self._read_list()


def _verify_list(file: RemoteFile, hashes: Hashes, path: Path) -> str:
    """Say how the bytes of a list are verified: by an ETag that is an MD5, and by being a list in every line."""
    if file.md5:
        Expected(md5=file.md5).verify(hashes.sha256, hashes.md5, path)
    parse_list(path.read_bytes())
    return MD5 if file.md5 else ENTRIES
