"""Reading FITS files without trusting them.

A file is refused from its headers, before memory is asked for: what is not FITS, what is cut off, sizes that are
negative or larger than the file, names that stand twice.  HDUs are found by name, and each one that is read is
checked against its DATASUM while its bytes pass.  astropy takes about half of such files without an error, and
does not come back from some of them; it is only used for tile-compressed images.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from qad.desi.checksum import DataSum
from qad.desi.columns import TableRows
from qad.desi.header import (
    BLOCK,
    HDU,
    ITEM_BYTES,
    MAX_HEADER_BLOCKS,
    Header,
    check_checksum,
    compressed_shape,
    describe,
    end_of_header,
    expected_datasum,
)
from qad.errors import InputError

MAX_HDUS = 1000
MAX_HEADER_BYTES = 8 << 20
"""All headers of a file together."""
MAX_TABLE_BYTES = 256 << 20
"""A DESI fibermap takes 0.3 kB a row; tables are read whole."""
MAX_IMAGE_BYTES = 256 << 20
"""Largest image, or selection of its rows, that is brought into memory."""
CHUNK_BYTES = 1 << 20
"""Images pass through the memory in pieces of this size, which stay in a core's cache: 13 GB/s instead of 8 with 2 MiB."""
SKIPPED_BYTES = 32 << 10
"""Up to so many bytes between two rows are read in vain: a second request takes as long."""
DENSE_SHARE = 0.1
"""From this share of wanted rows on, whole planes come from a disk in less time than their rows (3 to 12 % measured)."""
_VECTOR_ROWS = 500
"""Rows of one vectored read: the kernel takes 1,024 buffers, and every second one is for what is skipped."""
_IMAGE_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_UNSIGNED = {(16, 2.0**15): np.uint16, (32, 2.0**31): np.uint32, (64, 2.0**63): np.uint64}
_FOREIGN = ((b"\x1f\x8b", "gzip-compressed data; gunzip it"), (b"PAR1", "a Parquet file"), (b"\x89HDF", "an HDF5 file"))


class FitsFile:
    """A FITS file open for reading; use it as a context manager.

    Parameters
    ----------
    path : Path
    verify : bool
        Check headers against CHECKSUM, and data that are read against DATASUM, where the file has them.

    Raises
    ------
    InputError
        If the file cannot be opened, or its structure is impossible.  Every method raises it too, and nothing else.
    """

    def __init__(self, path: Path, verify: bool = True) -> None:
        self.path = path
        self._verify = verify
        self._descriptor = _open_regular(path)
        self._passing: memoryview[Any] = memoryview(b"")
        self._reserved = np.empty(0, np.uint8)
        try:
            self.size = os.fstat(self._descriptor).st_size
            self.hdus = list(
                walk_hdus(lambda offset, n_bytes: self._read(n_bytes, offset, ""), self.size, path, verify)
            )
            self._by_name = by_name(self.hdus, path)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FitsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def primary(self) -> Header:
        """The header of the first HDU."""
        return self.hdus[0].header

    def hdu(self, name: str) -> HDU:
        """Return an HDU by name."""
        if name not in self._by_name:
            raise InputError(self.path, f"HDU {name} is missing")
        return self._by_name[name]

    def check_data(self) -> None:
        """Check every HDU that has a DATASUM, also those that are never read."""
        for hdu in self.hdus:
            if "DATASUM" in hdu.header:
                total = DataSum()
                view = self._scratch(min(CHUNK_BYTES, hdu.padded_bytes) or BLOCK)
                for start in range(0, hdu.padded_bytes, len(view)):
                    piece = view[: hdu.padded_bytes - start]
                    self._read_into(piece, hdu.offset + start, hdu.name)
                    total.add(piece)
                self._check_sum(hdu, total)

    def table(self, name: str) -> TableRows:
        """Read a binary table."""
        hdu = self.hdu(name)
        if hdu.kind != "table" or hdu.header.logical("ZTABLE", False):
            raise hdu.header.error("is not a plain binary table")
        if hdu.n_bytes > MAX_TABLE_BYTES:
            raise hdu.header.error(f"takes {hdu.n_bytes:,} bytes: too large for a table of one healpix")
        data = self._read(hdu.padded_bytes, hdu.offset, hdu.name)
        if self._verify and "DATASUM" in hdu.header:
            total = DataSum()
            total.add(data)
            self._check_sum(hdu, total)
        return TableRows(hdu, data)

    def image_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an image, plain or tile-compressed, slowest axis first."""
        hdu = self.hdu(name)
        if hdu.kind == "table":
            raise hdu.header.error("is a table, expected an image")
        return compressed_shape(hdu.header) if hdu.kind == "compressed" else hdu.shape

    def image(self, name: str, rows: np.ndarray | None = None, max_bytes: int = MAX_IMAGE_BYTES) -> np.ndarray:
        """Read rows of an image, or all of a small one, in native byte order.

        Parameters
        ----------
        name : str
        rows : ndarray of int, shape (n_rows,), optional
            Which rows of the first axis, in any order.
        max_bytes : int
            Refuse to return more.

        Returns
        -------
        ndarray
            Whole numbers with BZERO 2^15, 2^31 or 2^63 come unsigned, other scaled ones as float64.
        """
        shape = self.image_shape(name)
        hdu = self.hdu(name)
        if not shape:
            raise hdu.header.error("holds no data")
        if rows is not None and len(rows) and (rows.min() < 0 or rows.max() >= shape[0]):
            raise hdu.header.error(f"has {shape[0]} rows, row {rows.max()} is wanted")
        if hdu.kind == "compressed":
            image = self._tiled(hdu, shape)
            return image if rows is None else image[rows]
        bitpix = hdu.header.integer("BITPIX")
        row_bytes = ITEM_BYTES[bitpix] * prod(shape[1:])
        n_rows = shape[0] if rows is None else len(rows)
        if not row_bytes:  # of such rows a file can claim any number
            raise hdu.header.error(f"has {shape[0]} rows without a pixel")
        if max(n_rows, 1) * row_bytes > max_bytes:
            raise hdu.header.error(f"{n_rows} rows of {row_bytes:,} bytes: too large")
        stored = np.dtype(_IMAGE_TYPES[bitpix])
        values = self._room((n_rows, prod(shape[1:])), stored.newbyteorder("="))
        is_whole = rows is None or (n_rows == shape[0] and bool((np.diff(rows) == 1).all()))
        is_checked = self._verify and "DATASUM" in hdu.header
        if rows is None or is_whole:
            self._take_all(hdu, values.reshape(-1), stored, is_checked)
        elif is_checked:
            self._pick_rows(hdu, rows, values, stored)
        elif values.size:
            self._gather_rows(hdu, rows, values, stored)
        return _scaled(values.reshape(n_rows, *shape[1:]), hdu.header, bitpix)

    def reserve(self, n_bytes: int) -> None:
        """Let the images that are read next lie in one piece of memory, which lives as long as one of them.

        The system gives large pages for a large piece (NumPy asks for them from 4 MiB on); fetching 4 kB at a time for nine
        planes takes longer than reading them.
        """
        self._reserved = np.empty(n_bytes, np.uint8)

    def _room(self, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
        """Return an array of any content, in what is reserved as long as that lasts; no two share memory."""
        n_bytes = prod(shape) * dtype.itemsize
        if n_bytes > len(self._reserved):
            return np.empty(shape, dtype)
        room, self._reserved = self._reserved[:n_bytes], self._reserved[-(-n_bytes // 64) * 64 :]
        return room.view(dtype).reshape(shape)

    def _take_all(self, hdu: HDU, out: np.ndarray, stored: np.dtype, is_checked: bool) -> None:
        """Read a whole data unit, adding up its DATASUM and turning its bytes round while they are in the cache."""
        total = DataSum()
        size = max(min(CHUNK_BYTES, hdu.padded_bytes), BLOCK)
        view = self._scratch(size)
        for start in range(0, hdu.padded_bytes, size):
            piece = view[: hdu.padded_bytes - start]
            self._read_into(piece, hdu.offset + start, hdu.name)
            if is_checked:
                total.add(piece)
            first = start // stored.itemsize
            n_items = min(len(piece) // stored.itemsize, len(out) - first)
            out[first : first + n_items] = np.frombuffer(piece, stored, n_items)
        if is_checked:
            self._check_sum(hdu, total)

    def _pick_rows(self, hdu: HDU, rows: np.ndarray, out: np.ndarray, stored: np.dtype) -> None:
        """Stream a whole data unit, adding up its DATASUM and keeping the wanted rows."""
        total = DataSum()
        row_bytes = out.shape[1] * stored.itemsize
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        # a multiple of four rows: the checksum adds up words of four bytes
        n_chunk = max(CHUNK_BYTES // max(row_bytes, 1), 1) + 3 & ~3
        size = max(min(n_chunk * row_bytes, hdu.padded_bytes), BLOCK)
        view = self._scratch(size)
        for start in range(0, hdu.padded_bytes, size):
            n_bytes = min(size, hdu.padded_bytes - start)
            self._read_into(view[:n_bytes], hdu.offset + start, hdu.name)
            total.add(view[:n_bytes])
            if row_bytes:
                first = start // row_bytes
                low, high = np.searchsorted(wanted, (first, first + n_chunk))
                n_held = n_bytes // row_bytes
                held = np.frombuffer(view, stored, n_held * out.shape[1]).reshape(n_held, -1)
                out[order[low:high]] = held[wanted[low:high] - first]
        self._check_sum(hdu, total)

    def _gather_rows(self, hdu: HDU, rows: np.ndarray, out: np.ndarray, stored: np.dtype) -> None:
        """Read rows alone; of a file that is not in memory neighbours together, and many rows with all that lies between."""
        row_bytes = out.shape[1] * stored.itemsize
        is_sorted = bool((np.diff(rows) >= 0).all())
        order = None if is_sorted else np.argsort(rows, kind="stable")
        wanted = rows if order is None else rows[order]
        is_cached = self._is_cached(hdu.offset + int(wanted[len(wanted) // 2]) * row_bytes)
        is_far = len(rows) >= DENSE_SHARE * hdu.shape[0]
        longest_gap = 0 if is_cached else CHUNK_BYTES if is_far else SKIPPED_BYTES
        n_held = min(max(CHUNK_BYTES // row_bytes, 1), _VECTOR_ROWS, len(rows))
        scratch = self._scratch(n_held * row_bytes + longest_gap)
        held, gap = scratch[: n_held * row_bytes], scratch[n_held * row_bytes :]
        for first in range(0, len(rows), n_held):
            part = slice(first, first + n_held)
            n_rows = len(wanted[part])
            if is_cached:
                self._read_runs(hdu, wanted[part], held, row_bytes)
            else:
                self._read_rows(hdu, wanted[part].tolist(), held, gap, row_bytes)
            out[part if order is None else order[part]] = np.frombuffer(held, stored, n_rows * out.shape[1]).reshape(
                n_rows, -1
            )

    def _read_runs(self, hdu: HDU, rows: np.ndarray, held: memoryview[Any], row_bytes: int) -> None:
        """Read rows, in increasing order, one behind the other into `held`, those that follow each other in one go."""
        firsts = np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1])
        places = (firsts * row_bytes).tolist()
        offsets = (hdu.offset + rows[firsts].astype(np.int64) * row_bytes).tolist()
        ends = [*places[1:], len(rows) * row_bytes]
        buffers = [held[start:end] for start, end in zip(places, ends, strict=True)]
        descriptor, read = self._descriptor, os.preadv  # a row takes 2 µs: every call counts
        try:
            short = [i for i, buffer in enumerate(buffers) if read(descriptor, [buffer], offsets[i]) != len(buffer)]
        except OSError as error:
            raise self._unreadable(error, hdu.name) from None
        for i in short:
            self._read_into(buffers[i], offsets[i], hdu.name)

    def _read_rows(
        self, hdu: HDU, rows: list[int], held: memoryview[Any], gap: memoryview[Any], row_bytes: int
    ) -> None:
        """Read rows, in increasing order, one behind the other into `held`, and what is between into `gap`."""
        buffers: list[memoryview[Any]] = []
        start = end = 0
        for i, row in enumerate(rows):
            skipped = row * row_bytes - end
            if buffers and not 0 <= skipped <= len(gap):  # negative: the same row again
                self._read_vector(buffers, hdu.offset + start, hdu.name)
                buffers = []
            if not buffers:
                start = row * row_bytes
            elif skipped:
                buffers.append(gap[:skipped])
            buffers.append(held[i * row_bytes : (i + 1) * row_bytes])
            end = (row + 1) * row_bytes
        self._read_vector(buffers, hdu.offset + start, hdu.name)

    def _scratch(self, n_bytes: int) -> memoryview[Any]:
        """Return memory for bytes that pass: the same for every plane, or each new page of it would be faulted in again."""
        if len(self._passing) < n_bytes:
            self._passing = memoryview(bytearray(n_bytes))
        return self._passing[:n_bytes]

    def _is_cached(self, offset: int) -> bool:
        """Whether a byte of the file is in memory, as far as the system tells."""
        try:
            return os.preadv(self._descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
        except (OSError, AttributeError):  # not there (BlockingIOError), or a system or file system that cannot tell
            return False

    def _tiled(self, hdu: HDU, shape: tuple[int, ...]) -> np.ndarray:
        """Read a tile-compressed image with astropy, from a copy of that HDU alone."""
        from qad.desi.tiled import read_tiled

        header = hdu.header
        n_bytes = ITEM_BYTES.get(header.integer("ZBITPIX"), 8) * prod(shape)
        if n_bytes > MAX_IMAGE_BYTES or hdu.n_bytes > MAX_IMAGE_BYTES:
            raise header.error(f"takes {n_bytes:,} bytes: too large")
        data = self._read(hdu.padded_bytes, hdu.offset, hdu.name)
        if self._verify and "DATASUM" in header:
            total = DataSum()
            total.add(data)
            self._check_sum(hdu, total)
        raw = self._read(header.n_bytes, hdu.offset - header.n_bytes, hdu.name)
        return read_tiled(hdu, raw + data, shape)

    def _check_sum(self, hdu: HDU, total: DataSum) -> None:
        if hdu.header.text("DATASUM") and total.value != expected_datasum(hdu.header):
            raise hdu.header.error("the data do not match their DATASUM: damaged; fetch the file again")

    def _read(self, n_bytes: int, offset: int, where: str) -> bytes:
        buffer = bytearray(n_bytes)
        self._read_into(memoryview(buffer), offset, where)
        return bytes(buffer)

    def _read_into(self, view: memoryview[Any], offset: int, where: str) -> None:
        done = 0
        while done < len(view):
            done += self._read_some([view[done:]], offset + done, where)

    def _read_vector(self, buffers: list[memoryview[Any]], offset: int, where: str) -> None:
        """Fill buffers one after the other."""
        n_read = self._read_some(buffers, offset, where)
        for buffer in buffers:
            if n_read < len(buffer):  # the system may return less than was asked for
                self._read_into(buffer[max(n_read, 0) :], offset + max(n_read, 0), where)
            n_read -= len(buffer)
            offset += len(buffer)

    def _read_some(self, buffers: list[memoryview[Any]], offset: int, where: str) -> int:
        try:
            n_read = os.preadv(self._descriptor, buffers, offset)
        except OSError as error:
            raise self._unreadable(error, where) from None
        if n_read == 0:
            raise InputError(self.path, "cut off while it was read", where=where)
        return n_read

    def _unreadable(self, error: OSError, where: str) -> InputError:
        return InputError(self.path, f"cannot be read: {error.strerror}", where=where)


Read = Callable[[int, int], bytes]
"""Returns so many bytes from an offset on: (offset, n_bytes) -> bytes."""


def walk_hdus(read: Read, size: int, path: object, verify: bool = True) -> Iterator[HDU]:
    """Yield the HDUs of a file of which only headers are read, each checked against the size of the file.

    Parameters
    ----------
    read : callable
        Returns the bytes at an offset, all within `size`.
    size : int
        Bytes of the file.
    path : object
        What messages call the file.
    verify : bool
        Check each header against its CHECKSUM, where it has one.

    Raises
    ------
    InputError
        If it is not FITS, is cut off, or its structure is impossible.
    """
    _check_start(read, size, path)
    offset = n_header_bytes = 0
    for index in range(MAX_HDUS):
        header = _read_header(read, size, path, index, offset)
        n_header_bytes += header.n_bytes
        if n_header_bytes > MAX_HEADER_BYTES:
            raise header.error(f"headers of more than {MAX_HEADER_BYTES:,} bytes")
        hdu = describe(header, index, offset + header.n_bytes)
        if hdu.offset + hdu.padded_bytes > size:
            missing = hdu.offset + hdu.padded_bytes - size
            raise header.error(f"cut off: {missing:,} bytes are missing at the end of the file; fetch it again")
        if verify:
            check_checksum(hdu)
        yield hdu
        offset = hdu.offset + hdu.padded_bytes
        if offset == size:
            return
    raise InputError(path, f"more than {MAX_HDUS} HDUs")


def by_name(hdus: Iterable[HDU], path: object) -> dict[str, HDU]:
    """Return the HDUs that have a name; InputError if two have the same."""
    named: dict[str, HDU] = {}
    for hdu in hdus:
        if hdu.name in named:
            raise InputError(path, f"HDU name {hdu.name[:40]} stands twice")
        if hdu.name:
            named[hdu.name] = hdu
    return named


def _check_start(read: Read, size: int, path: object) -> None:
    if size == 0:
        raise InputError(path, "is empty")
    start = read(0, min(size, 80))
    for magic, what in _FOREIGN:
        if start.startswith(magic):
            raise InputError(path, f"not a FITS file but {what}")
    if start.lstrip()[:1] == b"<":
        raise InputError(path, "not a FITS file but an HTML or XML page; fetch it again")
    if not start.startswith(b"SIMPLE  ="):
        raise InputError(path, "not a FITS file (it does not begin with SIMPLE)")


def _read_header(read: Read, size: int, path: object, index: int, offset: int) -> Header:
    where = f"HDU {index}"
    raw = b""
    for _ in range(MAX_HEADER_BLOCKS):
        if offset + len(raw) + BLOCK > size:
            raise InputError(path, "cut off inside a header; fetch the file again", where=where)
        block = read(offset + len(raw), BLOCK)
        if not raw and not block.startswith((b"SIMPLE  =", b"XTENSION=")[min(index, 1)]):
            raise InputError(path, "what follows the HDU before is not an HDU: damaged", where=where)
        raw += block
        if end_of_header(block):
            break
    else:
        raise InputError(path, "a header without END", where=where)
    header = Header(raw, path, where)
    header.where = header.shown("EXTNAME")[:40] or where
    return header


def _open_regular(path: Path) -> int:
    """Open a file; what would block or never end (a pipe, a device) is refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be opened: {error}"
        raise InputError(path, reason) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(path, "is not a regular file")
    return descriptor


def _scaled(native: np.ndarray, header: Header, bitpix: int) -> np.ndarray:
    """Return numbers with BZERO and BSCALE applied."""
    scale, zero = header.number("BSCALE", 1.0), header.number("BZERO", 0.0)
    if scale == 1.0 and zero == 0.0:
        return native
    unsigned = _UNSIGNED.get((bitpix, zero))
    if scale == 1.0 and unsigned is not None:
        return native.view(unsigned) ^ unsigned(int(zero))
    with np.errstate(over="ignore", invalid="ignore"):
        return native.astype(np.float64) * scale + zero
