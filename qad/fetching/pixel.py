"""One pixel: its folder brought to the state of the source, file by file, with a receipt."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from qad.desi.layout import pixel_folder, redrock_name
from qad.errors import QadError
from qad.fetching.checksums import ENTRIES, MD5, SHA256, Expected, MismatchError, parse_list
from qad.fetching.choice import ByClass, Choice
from qad.fetching.cut import CannotCutError
from qad.fetching.download import Hashes, Transfer, download
from qad.fetching.partial import remove_partials
from qad.fetching.plan import PixelFiles, list_pixel
from qad.fetching.receipt import (
    NO_ROWS,
    Entry,
    Need,
    is_current,
    make_folder,
    read_entries,
    regular_status,
    write_entries,
)
from qad.fetching.redrock import read_rows
from qad.fetching.source import ChangedError, MissingError, RemoteFile
from qad.fetching.targets import ByTarget
from qad.fetching.threads import FATAL
from qad.storage.atomic import storage_errors
from qad.storage.provenance import hash_file
from qad.work.units import Pixel

_log = logging.getLogger("qad.fetch")


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
    mode : str
        How much of the coadds is wanted, see :class:`~qad.fetching.receipt.Need`.
    resolution : bool
        The resolution matrices too.
    choice : Choice
        Which rows.
    known : set of Path
        Folders that have been looked at.
    """

    root: Path
    healpix: Path
    force: bool = False
    verify: bool = False
    mode: str = "files"
    resolution: bool = False
    choice: Choice = field(default_factory=ByClass)
    known: set[Path] = field(default_factory=set, compare=False)

    def need(self, file: RemoteFile, pixel: Pixel, entries: Mapping[str, Entry]) -> Need:
        """Return what is wanted of a file, where `entries` tell what is here: all but coadds are taken whole."""
        if self.mode == "files" or not file.name.startswith("coadd-"):
            return Need()
        redrock = entries.get(redrock_name(pixel))
        return Need(self.mode, self.choice.signature(pixel), self.resolution, redrock.sha256 if redrock else "")


@dataclass(frozen=True)
class PixelResult:
    """What became of a pixel's files.

    Attributes
    ----------
    n_fetched, n_kept : int
        Files that were fetched, and were there already.
    verified : tuple of str
        How each is verified.
    n_rows : int
        Rows that were cut out.
    matched : ndarray of int or None
        The listed targets that the pixel holds, where targets were listed.
    """

    n_fetched: int = 0
    n_kept: int = 0
    verified: tuple[str, ...] = ()
    n_rows: int = 0
    matched: np.ndarray | None = None


def pending(target: Target, files: PixelFiles, entries: dict[str, Entry] | None = None) -> list[RemoteFile]:
    """Return the files of a pixel that are not there as the receipt says (`entries`, if it has been read)."""
    if target.force:
        return list(files.all)
    folder = pixel_folder(target.healpix, files.pixel)
    entries = read_entries(folder) if entries is None else entries
    return [file for file in files.all if not _is_here(target, files.pixel, file, entries, target.verify)]


def _is_here(target: Target, pixel: Pixel, file: RemoteFile, entries: Mapping[str, Entry], verify: bool) -> bool:
    path = pixel_folder(target.healpix, pixel) / file.name
    return is_current(path, file, entries.get(file.name), verify, target.need(file, pixel, entries))


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


def settle_pixel(transfer: Transfer, target: Target, files: PixelFiles) -> PixelResult | None:
    """Return what a pixel comes to in which nothing is to do, else None: no request is made."""
    return _Folder(transfer, target, files).settle()


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
        self._n_rows = 0
        self._todo = pending(target, files, self._entries)

    def settle(self) -> PixelResult | None:
        """Return what the pixel comes to if nothing is to do, else None."""
        if self._todo:
            return None
        remove_partials(self._folder)
        before = dict(self._entries)
        self._note_kept(self._files.all)
        if self._entries != before:
            write_entries(self._folder, self._entries)
        return PixelResult(n_kept=len(self._files.all), verified=self._verified(), matched=self._matched())

    def bring(self) -> PixelResult:
        settled = self.settle()
        if settled is not None:
            return settled
        todo, before = self._todo, dict(self._entries)
        self._note_kept([file for file in self._files.all if file not in todo])
        make_folder(self._target.root, self._folder, self._target.known)
        n_fetched = 0
        try:
            for file in self._files.data:
                # a coadd that was here may not be what the redrock file that has just come wants
                if file in todo or not _is_here(self._target, self._files.pixel, file, self._entries, verify=False):
                    n_fetched += self._bring_file(file)
            if self._files.checksums in todo:
                self._keep_list(self._files.checksums)
                n_fetched += 1
        finally:
            if self._entries != before:
                write_entries(self._folder, self._entries)
        remove_partials(self._folder)
        n_kept = len(self._files.all) - n_fetched
        return PixelResult(n_fetched, n_kept, self._verified(), self._n_rows, self._matched())

    def _matched(self) -> np.ndarray | None:
        choice, pixel = self._target.choice, self._files.pixel
        if not isinstance(choice, ByTarget):
            return None
        return choice.matched(pixel, read_rows(self._folder / redrock_name(pixel)))

    def _bring_file(self, file: RemoteFile) -> bool:
        """Make a data file be there; return whether it had to be fetched."""
        final = self._folder / file.name
        try:
            expected = self._expected(file)
            if self._adopt(file, final, expected):
                return False
            need = self._target.need(file, self._files.pixel, self._entries)
            if need.mode != "files":
                try:
                    return self._cut(file, final, need, expected)
                except CannotCutError as error:
                    _log.info("taken whole", extra={"unit": str(self._files.pixel), "reason": str(error)})
            self._take_whole(file, final, expected)
        except FATAL:
            raise
        except ChangedError as error:
            raise ChangedError(f"{file.name}: {error}") from None
        except QadError as error:
            raise QadError(f"{file.name}: {error}") from None
        return True

    def _take_whole(self, file: RemoteFile, final: Path, expected: Expected) -> None:
        sha256, verified = download(
            self._its_transfer(),
            file,
            final,
            lambda hashes, path: self._verify(file, hashes, path),
            with_md5=not expected.sha256 and bool(expected.md5),
        )
        self._note(file, final, sha256, verified)

    def _cut(self, file: RemoteFile, final: Path, need: Need, expected: Expected) -> bool:
        """Take what is wanted of a coadd; return whether anything had to be fetched.

        Raises
        ------
        CannotCutError
            If it has to be taken whole.
        """
        from qad.fetching.rows import bring_cut, targets_of, wanted_targets

        pixel = self._files.pixel
        before = self._honest_cut(file, final, need)
        held = targets_of(final) if before is not None else np.empty(0, np.int64)
        targets = wanted_targets(self._folder / redrock_name(pixel), pixel, self._target.choice, held)
        if not targets.wanted.any():
            self._note_nothing(file, final, need)
            return False
        rows = sorted({need.rows, *(before.rows if before is not None else ())})
        need = replace(need, resolution=need.resolution or (before is not None and before.resolution))
        if before is not None and need.mode == "rows" and not self._target.force:
            n_more = len(set(targets.targetid[targets.wanted].tolist()) - set(held.tolist()))
            if not n_more and before.resolution == need.resolution:
                self._entries[file.name] = replace(before, rows=rows, redrock=need.redrock)
                return False
        cut = bring_cut(self._its_transfer(), file, final, need, targets, self._target.choice.text, expected.sha256)
        self._n_rows = cut.n_rows
        entry = self._entry(file, final, cut.sha256, cut.verified)
        self._entries[file.name] = replace(
            entry, mode=need.mode, rows=rows, resolution=need.resolution, redrock=need.redrock
        )
        return True

    def _honest_cut(self, file: RemoteFile, final: Path, need: Need) -> Entry | None:
        """Return the entry of rows that are here, byte for byte as this version of redrock's file and coadd gave them."""
        entry = self._entries.get(file.name)
        if entry is None or entry.mode != "rows" or entry.verified == NO_ROWS or not entry.is_of(file):
            return None
        if entry.redrock != need.redrock:
            return None
        status = regular_status(final)
        if status is None or status.st_size != entry.size:
            return None
        with storage_errors(final):
            return entry if hash_file(final) == entry.sha256 else None

    def _note_nothing(self, file: RemoteFile, final: Path, need: Need) -> None:
        """Note that a pixel holds nothing that is wanted; a coadd that an earlier version of it gave goes."""
        before = self._entries.get(file.name)
        if before is not None and before.verified != NO_ROWS:
            with storage_errors(final):
                final.unlink(missing_ok=True)
        same = before is not None and before.verified == NO_ROWS and before.redrock == need.redrock
        rows = sorted({need.rows, *(before.rows if before is not None and same else ())})
        self._entries[file.name] = Entry(
            self._transfer.source.url + file.key,
            size=0,
            etag=file.etag,
            sha256="",
            verified=NO_ROWS,
            mtime_ns=0,
            mode=need.mode,
            source_size=file.size,
            rows=rows,
            resolution=need.resolution,
            redrock=need.redrock,
        )

    def _its_transfer(self) -> Transfer:
        return replace(self._transfer, resume=False) if self._target.force else self._transfer

    def _adopt(self, file: RemoteFile, final: Path, expected: Expected) -> bool:
        """Take a file that is there without a fitting receipt (another tool's, another source's) if its bytes agree."""
        status = regular_status(final)
        if self._target.force or not expected.sha256 or status is None or status.st_size != file.size:
            return False
        with storage_errors(final):
            sha256 = hash_file(final)
        if sha256 != expected.sha256:
            return False
        self._transfer.meter.add(kept=file.size)
        self._note(file, final, sha256, SHA256)
        return True

    def _note_kept(self, kept: Sequence[RemoteFile]) -> None:
        """Count files whose bytes were found right, and take over their times: a copied tree is hashed once."""
        self._transfer.meter.add(kept=sum(self._entries[file.name].size for file in kept))
        for file in kept:
            status = regular_status(self._folder / file.name)
            entry = self._entries[file.name]
            if status is not None and entry.verified != NO_ROWS and status.st_mtime_ns != entry.mtime_ns:
                self._entries[file.name] = replace(entry, mtime_ns=status.st_mtime_ns)

    def _note(self, file: RemoteFile, final: Path, sha256: str, verified: str) -> None:
        self._entries[file.name] = self._entry(file, final, sha256, verified)

    def _entry(self, file: RemoteFile, final: Path, sha256: str, verified: str) -> Entry:
        url, status = self._transfer.source.url + file.key, final.lstat()
        return Entry(url, status.st_size, file.etag, sha256, verified, status.st_mtime_ns, source_size=file.size)

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
