"""A FITS file at the source: its headers, read by small ranges, and what is believed of bytes that nothing can check.

A walk reads each header where the one before says that it lies.  Since that would cost a round trip for each of nineteen
HDUs, the blocks in which DESI's layout puts the headers are asked for all at once; where the walk finds another
layout, it asks for what it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from qad.desi.datamodel import CAMERA_PIXELS, NDIAG
from qad.desi.fits import walk_hdus
from qad.desi.header import BLOCK, HDU
from qad.fetching.checksums import MismatchError
from qad.fetching.download import MAX_ROUNDS, Transfer, read_bytes
from qad.fetching.source import RemoteFile

FRONT_BYTES = 64 << 10
"""Holds a coadd's primary header (up to 12 blocks) and that of its FIBERMAP (as many)."""
TABLE_HEADER_BYTES = 10 * BLOCK
"""Holds the header of EXP_FIBERMAP or SCORES."""


def read_agreed(transfer: Transfer, file: RemoteFile, start: int, stop: int) -> bytes:
    """Return bytes that no checksum covers.

    An encrypted connection vouches for them.  On any other they are read until two answers agree: a byte that is
    spoilt on the way is not spoilt the same way twice.  No range is asked for twice, or a cache might give what it
    has spoilt once more.

    Raises
    ------
    MismatchError
        If the answers differ each time.
    """
    first = read_bytes(transfer, file, start, stop)
    if transfer.source.transport != "plain":
        return first
    seen = [first]
    for n_more in range(1, MAX_ROUNDS + 1):
        before, after = min(n_more, start), min(n_more, file.size - stop)
        again = read_bytes(transfer, file, start - before, stop + after)[before : before + stop - start]
        if again in seen:
            return again
        seen.append(again)
    raise MismatchError(
        f"bytes {start:,} to {stop:,}: other bytes came each of {len(seen)} times: is something in between spoiling them?"
    )


class RemoteFits:
    """The headers of a FITS file at the source.

    Parameters
    ----------
    transfer : Transfer
    file : RemoteFile

    Attributes
    ----------
    hdus : list of HDU
        Checked as those of a local file are: sizes, names, header checksums.

    Raises
    ------
    InputError
        If it is not a sound FITS file.
    """

    def __init__(self, transfer: Transfer, file: RemoteFile) -> None:
        self._transfer, self._file = transfer, file
        self._held: list[tuple[int, bytes]] = []
        self.hdus: list[HDU] = []
        for hdu in walk_hdus(self._read, file.size, file.name):
            self.hdus.append(hdu)
            self._look_ahead(hdu)

    def held(self, start: int, stop: int) -> bytes | None:
        """Return the bytes [start, stop) if reading the headers has brought them."""
        for offset, data in self._held:
            if offset <= start and stop <= offset + len(data):
                return data[start - offset : stop - offset]
        return None

    def _read(self, offset: int, n_bytes: int) -> bytes:
        held = self.held(offset, offset + n_bytes)
        if held is None:
            ahead = FRONT_BYTES if offset == 0 else max(n_bytes, TABLE_HEADER_BYTES)
            self._bring(offset, offset + ahead)
            held = self.held(offset, offset + n_bytes)
        return held if held is not None else b""

    def _bring(self, start: int, stop: int) -> None:
        stop = min(stop, self._file.size)
        self._held.append((start, read_agreed(self._transfer, self._file, start, stop)))

    def _look_ahead(self, hdu: HDU) -> None:
        """Ask at once for the headers that should follow the tables in front."""
        if hdu.name != "EXP_FIBERMAP":
            return
        n_rows = next((other.shape[0] for other in self.hdus if other.name == "FIBERMAP" and other.kind == "table"), 0)
        if not n_rows:
            return
        places = _merged(_expected_headers(hdu.offset + hdu.padded_bytes, n_rows), self._transfer.line.gap_bytes)
        wanted = [(start, stop) for start, stop in places if start < self._file.size]
        self._transfer.crew.run([partial(self._bring, start, stop) for start, stop in wanted])


def _expected_headers(offset: int, n_rows: int) -> Iterator[tuple[int, int]]:
    """Yield where DESI's layout has headers, from that of B_WAVELENGTH at `offset` on."""
    for n_wave in CAMERA_PIXELS.values():
        sizes = [8 * n_wave, *(3 * [4 * n_wave * n_rows]), 4 * NDIAG * n_wave * n_rows]
        for size in sizes:
            yield offset, offset + BLOCK
            offset += BLOCK + -(-size // BLOCK) * BLOCK
    yield offset, offset + TABLE_HEADER_BYTES


def _merged(places: Iterator[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Join neighbours whose gap is narrower than `gap`."""
    merged: list[tuple[int, int]] = []
    for start, stop in places:
        if merged and start - merged[-1][1] <= gap:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged
