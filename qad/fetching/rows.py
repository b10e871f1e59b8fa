"""The coadd of one pixel without what nobody wants of it: the wanted rows, or all rows without resolution matrices.

Redrock's file, which is here and verified, says which targets are wanted and in which order the coadd should have them.
The coadd's headers say where its rows lie.  Nothing of either is taken for granted: a row counts by the TARGETID that
came with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from qad.desi.columns import TableRows
from qad.desi.fits import MAX_TABLE_BYTES, FitsFile, by_name
from qad.desi.header import HDU
from qad.errors import InputError
from qad.fetching.checksums import MismatchError
from qad.fetching.choice import Choice
from qad.fetching.cut import (
    EXPOSURES,
    CannotCutError,
    Part,
    Request,
    check_sums,
    choose_parts,
    cut_cards,
    cut_history,
    plan_requests,
    voucher,
    write_cut,
)
from qad.fetching.download import MAX_ROUNDS, Transfer, read_range
from qad.fetching.partial import Buffer, Partial, open_partial, partial_path
from qad.fetching.rangelog import RangeLog
from qad.fetching.receipt import Need
from qad.fetching.redrock import read_rows
from qad.fetching.remote import RemoteFits, read_agreed
from qad.fetching.source import RemoteFile
from qad.storage.atomic import check_space, storage_errors
from qad.storage.provenance import hash_file
from qad.work.units import Pixel

LOGGED_BYTES = 1 << 20
"""What a killed process may lose of a request for a whole data unit."""
PLAIN_GAP_BYTES = 16 << 10
"""Widest gap where every range is read twice: its bytes count double."""


@dataclass(frozen=True)
class Cut:
    """A file that was made.

    Attributes
    ----------
    sha256 : str
        Of its bytes.
    verified : str
        What vouches for it, see :class:`~qad.fetching.receipt.Entry`.
    n_rows : int
    """

    sha256: str
    verified: str
    n_rows: int


@dataclass(frozen=True)
class PixelTargets:
    """What redrock's file tells: the coadd's rows and exposures in the order that it should have them.

    Attributes
    ----------
    targetid : ndarray of int64
        All of the pixel.
    wanted : ndarray of bool
        Of the same shape.
    exposures : ndarray of int64 or None
        TARGETID of each exposure.
    """

    targetid: np.ndarray
    wanted: np.ndarray
    exposures: np.ndarray | None


def wanted_targets(redrock: Path, pixel: Pixel, choice: Choice, also: np.ndarray) -> PixelTargets:
    """Read redrock's file.

    Parameters
    ----------
    redrock : Path
    pixel : Pixel
    choice : Choice
    also : ndarray of int64
        TARGETIDs that are wanted whatever `choice` says.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    rows = read_rows(redrock)
    wanted = choice.wanted(pixel, rows) | np.isin(rows.targetid, also)
    with FitsFile(redrock) as fits:
        exposures = fits.table(EXPOSURES).numbers("TARGETID", np.int64).data if EXPOSURES in fits else None
    return PixelTargets(rows.targetid, wanted, exposures)


def targets_of(path: Path) -> np.ndarray:
    """Return the TARGETIDs of a coadd that is here; none if it cannot be read."""
    try:
        with FitsFile(path) as fits:
            return fits.table("FIBERMAP").numbers("TARGETID", np.int64).data
    except InputError:
        return np.empty(0, np.int64)


def bring_cut(
    transfer: Transfer, file: RemoteFile, final: Path, need: Need, targets: PixelTargets, rule: str, sha256: str
) -> Cut:
    """Make `final` of what is wanted of the coadd `file`.

    Parameters
    ----------
    transfer : Transfer
    file : RemoteFile
    final : Path
    need : Need
    targets : Targets
    rule : str
        Which rows these are, for the header.
    sha256 : str
        Of the whole file, as the release's list says; empty if it does not.

    Raises
    ------
    CannotCutError
        If the file must be taken whole.
    MismatchError
        If bytes do not agree with their checksum each time that they come.
    """
    remote = RemoteFits(transfer, file)
    hdus = by_name(remote.hdus, file.name)
    if "FIBERMAP" not in hdus:
        raise CannotCutError("it has no FIBERMAP")
    for name in ("FIBERMAP", EXPOSURES):
        if name in hdus and hdus[name].kind != "table":
            raise CannotCutError(f"its {name} is no table")
    for read_tables in (False, True):
        found = _places(transfer, file, hdus, targets, read_tables) if need.mode == "rows" else {}
        rows, exposures = (found[name].rows if name in found else None for name in ("FIBERMAP", EXPOSURES))
        sums_only = transfer.source.transport == "disk" or need.mode == "hdus"
        parts = choose_parts(remote.hdus, rows, exposures, need.resolution, sums_only)
        work = _Work(transfer, file, final, need, rule, sha256, remote)
        if (cut := work.do(parts, found)) is not None:
            return cut
        # the rows that came are others than redrock's order made expect: look for them
    raise CannotCutError("its tables are not the ones that were read before")


@dataclass(frozen=True)
class _Places:
    """Rows of a table to keep, and the TARGETIDs that they should have."""

    rows: np.ndarray
    targetid: np.ndarray


def _places(
    transfer: Transfer, file: RemoteFile, hdus: dict[str, HDU], targets: PixelTargets, read_tables: bool
) -> dict[str, _Places]:
    """Return the rows to keep of FIBERMAP and EXP_FIBERMAP: where redrock has them, or where the tables do."""
    wanted = targets.targetid[targets.wanted]
    found = {}
    for name, expected in (("FIBERMAP", targets.targetid), (EXPOSURES, targets.exposures)):
        hdu = hdus.get(name)
        if hdu is None:
            continue
        if read_tables or expected is None or hdu.shape[0] != len(expected):
            expected = _targetids(hdu, _table_bytes(transfer, file, hdu))
        rows = np.flatnonzero(np.isin(expected, wanted))
        found[name] = _Places(rows, expected[rows])
    return found


def _table_bytes(transfer: Transfer, file: RemoteFile, hdu: HDU) -> bytes:
    if hdu.n_bytes > MAX_TABLE_BYTES:
        raise hdu.header.error(f"takes {hdu.n_bytes:,} bytes: too large for a table of one healpix")
    return read_agreed(transfer, file, hdu.offset, hdu.offset + hdu.n_bytes) if hdu.n_bytes else b""


def _targetids(hdu: HDU, data: bytes) -> np.ndarray:
    table = TableRows(hdu, data)
    if "TARGETID" not in table:
        raise CannotCutError(f"its {hdu.name} has no TARGETID")
    return table.numbers("TARGETID", np.int64).data


class _Work:
    """The making of one cut file."""

    def __init__(
        self,
        transfer: Transfer,
        file: RemoteFile,
        final: Path,
        need: Need,
        rule: str,
        sha256: str,
        remote: RemoteFits,
    ) -> None:
        self._transfer, self._file, self._final = transfer, file, final
        self._need, self._rule, self._sha256 = need, rule, sha256
        self._remote = remote

    def do(self, parts: Sequence[Part], expected: Mapping[str, _Places]) -> Cut | None:
        """Bring the parts and write the file; None if the rows that came are not those that are wanted."""
        place = partial_path(self._final, self._file, _key(self._need, parts, self._transfer.source.transport))
        for attempt in range(MAX_ROUNDS):
            with (
                storage_errors(self._final),
                open_partial(place, self._transfer.resume) as opened,
                RangeLog(opened, self._transfer.patience.check) as log,
            ):
                self._transfer.meter.add(resumed=log.n_taken_up)
                self._bring(parts, log)
                try:
                    check_sums(parts, log)
                except MismatchError:
                    log.clear()
                    if attempt + 1 == MAX_ROUNDS:
                        raise
                    continue
                if not self._holds_the_targets(parts, log, expected):
                    log.clear()
                    return None
                return self._write(parts, log, opened)
        raise MismatchError("its HDUs do not match their DATASUM")

    def _bring(self, parts: Sequence[Part], log: RangeLog) -> None:
        gap = self._transfer.line.gap_bytes
        if self._transfer.source.transport == "plain":
            gap = min(gap, PLAIN_GAP_BYTES)
        requests = plan_requests(parts, log, gap)
        # once as pieces, and once as the file that is made of them
        n_left = sum(stop - start for request in requests for start, stop in request.pieces)
        check_space(self._final, n_left + sum(part.n_bytes for part in parts))
        self._transfer.crew.run([partial(self._bring_one, request, log) for request in requests])

    def _bring_one(self, request: Request, log: RangeLog) -> None:
        if request.is_summed:
            _Summing(request, log, self._remote).bring(self._transfer, self._file)
            return
        start, stop = request.start, request.stop
        data = self._remote.held(start, stop) or read_agreed(self._transfer, self._file, start, stop)
        view = memoryview(data)
        log.add(start, stop, 0, [(a, view[a - start : b - start]) for a, b in request.pieces])

    def _holds_the_targets(self, parts: Sequence[Part], log: RangeLog, expected: Mapping[str, _Places]) -> bool:
        """Whether the tables' rows have the TARGETIDs that they should have."""
        named = {part.hdu.name: part for part in parts}
        for name, places in expected.items():
            came = self._rows_of(named[name], log)
            if came is None or not np.array_equal(came, places.targetid):
                return False
        scores = self._rows_of(named.get("SCORES"), log)
        if scores is not None and not np.array_equal(scores, expected["FIBERMAP"].targetid):
            raise CannotCutError("its SCORES are not in the order of its FIBERMAP")
        return True

    def _rows_of(self, part: Part | None, log: RangeLog) -> np.ndarray | None:
        """Return the TARGETIDs of a table's kept rows; None if there is no such table or column."""
        if part is None or part.rows is None:
            return None
        data = b"".join(piece for start, stop in part.kept() for piece in log.read(start, stop))
        table = TableRows(replace(part.hdu, shape=(len(part.rows), part.hdu.shape[1])), data)
        return table.numbers("TARGETID", np.int64).data if "TARGETID" in table else None

    def _write(self, parts: Sequence[Part], log: RangeLog, opened: Partial) -> Cut:
        transport = self._transfer.source.transport
        check = voucher(parts, transport)
        fibermap = next(part for part in parts if part.hdu.name == "FIBERMAP")
        n_rows = fibermap.hdu.shape[0]
        etag = "" if transport == "disk" else self._file.etag
        cards = cut_cards(self._need.mode, self._sha256, etag, self._file.size, n_rows, self._rule, check)
        with open_partial(opened.beside("cut"), resume=False) as out:
            size = write_cut(parts, log, out, cards, cut_history(self._file.name, parts, self._rule))
            sha256 = hash_file(out.path)
            out.commit(self._final, size)
        return Cut(sha256, check, n_rows if fibermap.rows is None else len(fibermap.rows))


class _Summing:
    """A request whose words are added up; what comes is kept in steps, so that little is lost if the process is killed."""

    def __init__(self, request: Request, log: RangeLog, remote: RemoteFits) -> None:
        self._request, self._log, self._remote = request, log, remote
        self._waiting = bytearray()
        self._start = request.start

    def bring(self, transfer: Transfer, file: RemoteFile) -> None:
        """Ask for it."""
        held = self._remote.held(self._request.start, self._request.stop)
        if held is not None:
            self._take(held, self._start)
        elif transfer.source.transport == "plain":
            # a sum does not tell that words have changed places, nor does that of TCP
            for start in range(self._request.start, self._request.stop, LOGGED_BYTES):
                stop = min(start + LOGGED_BYTES, self._request.stop)
                self._take(read_agreed(transfer, file, start, stop), start)
        else:
            read_range(transfer, file, self._request.start, self._request.stop, self._take)
        self._flush(len(self._waiting))

    def _take(self, data: Buffer, _: int) -> None:
        self._waiting += data
        if len(self._waiting) >= LOGGED_BYTES:
            self._flush(len(self._waiting) // 4 * 4)

    def _flush(self, n_bytes: int) -> None:
        from qad.desi.checksum import data_sum

        if not n_bytes:
            return
        view = memoryview(bytes(self._waiting[:n_bytes]))
        start, stop = self._start, self._start + n_bytes
        kept = [(max(a, start), min(b, stop)) for a, b in self._request.pieces if a < stop and b > start]
        self._log.add(start, stop, data_sum(view), [(a, view[a - start : b - start]) for a, b in kept])
        del self._waiting[:n_bytes]
        self._start = stop


def _key(need: Need, parts: Sequence[Part], transport: str) -> str:
    """Return what tells the pieces of one cut from those of another."""
    found = hashlib.sha256(f"{need.mode} {need.resolution} {transport}".encode())
    for part in parts:
        found.update(f"{part.hdu.name} {part.is_whole}".encode())
        if part.rows is not None:
            found.update(np.ascontiguousarray(part.rows, np.int64).tobytes())
    return found.hexdigest()
