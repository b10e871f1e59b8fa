"""Catalogues in FITS binary tables, plain or gzip-compressed, read in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import numpy as np

from qad.desi.columns import TableRows, table_fields
from qad.desi.header import BLOCK, HDU, MAX_HEADER_BLOCKS, Header, describe, end_of_header
from qad.errors import InputError
from qad.matching.columns import Block, Field
from qad.matching.sky import Integers
from qad.matching.source import BLOCK_BYTES, BLOCK_ROWS, Source, as_array, is_gzip, open_stream, read_errors

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROW_BYTES = 1 << 24
MAX_HDUS = 1000
_KINDS: dict[str, tuple[Literal["number", "text", "other"], str]] = {
    **dict.fromkeys("BIJKED", ("number", "a number")),
    "A": ("text", "text"),
    "L": ("other", "logical"),
    "X": ("other", "a bit field"),
    **dict.fromkeys("CM", ("other", "complex")),
    **dict.fromkeys("PQ", ("other", "an array of varying length")),
}


@dataclass(frozen=True)
class FitsBlock:
    """Rows of a binary table as they lie on disk."""

    rows: TableRows
    n_rows: int

    def values(self, name: str, rows: Integers | None = None) -> pa.Array:
        """Return a column, or chosen rows of it."""
        return as_array(self.rows.column(name.upper(), slice(None) if rows is None else rows))


def fits_sources(path: Path) -> Iterator[Source]:
    """Yield the binary tables of a FITS file.

    Raises
    ------
    InputError
        If the file is not FITS, cut off, or its structure is impossible.
    """
    for hdu in _walk(path):
        if hdu.kind == "table":
            yield Source(path, hdu.header.where, _fields(hdu), _Reader(path, hdu))


@dataclass(frozen=True)
class _Reader:
    path: Path
    hdu: HDU

    def __call__(self, _names: Sequence[str]) -> Iterator[Block]:
        hdu = self.hdu
        n_rows, width = hdu.shape
        if width > MAX_ROW_BYTES:
            raise hdu.header.error(f"a row of {width:,} bytes: too large for a catalogue")
        step = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(width, 1)))
        with read_errors(self.path, hdu.header.where), closing(open_stream(self.path)) as stream:
            stream.seek(hdu.offset)
            for first in range(0, n_rows, step):
                count = min(step, n_rows - first)
                data = _exactly(stream, count * width, hdu.header, f"in row {first + 1} to {first + count}")
                yield FitsBlock(TableRows(replace(hdu, shape=(count, width)), data), count)


def _walk(path: Path) -> Iterator[HDU]:
    size = path.stat().st_size
    with read_errors(path, ""), closing(open_stream(path)) as stream:
        is_plain = not is_gzip(path)
        offset = 0
        for index in range(MAX_HDUS):
            raw = _header_bytes(stream, path, index)
            if not raw:
                return
            named = Header(raw, path, f"HDU {index}")
            name = named.text("EXTNAME", "").strip()
            header = Header(raw, path, f"HDU {index} {name}".strip())
            hdu = describe(header, index, offset + len(raw))
            if is_plain and hdu.offset + hdu.n_bytes > size:
                raise header.error(
                    f"the file ends {hdu.offset + hdu.n_bytes - size:,} bytes before the data do: cut off; get it again"
                )
            yield hdu
            offset = hdu.offset + hdu.padded_bytes
            if stream.seek(offset) < offset:
                return


def _header_bytes(stream: IO[bytes], path: Path, index: int) -> bytes:
    """Return a header's blocks; nothing at the end of the file, or where only padding follows."""
    blocks: list[bytes] = []
    while len(blocks) < MAX_HEADER_BLOCKS:
        block = stream.read(BLOCK)
        if not blocks and index and (not block or not block.startswith(b"XTENSION")):
            return b""
        if len(block) < BLOCK:
            raise InputError(path, "the header is cut off", where=f"HDU {index}")
        blocks.append(block)
        if end_of_header(block):
            return b"".join(blocks)
    raise InputError(path, "the header has no END", where=f"HDU {index}")


def _exactly(stream: IO[bytes], n_bytes: int, header: Header, place: str) -> bytes:
    data = stream.read(n_bytes)
    if len(data) < n_bytes:
        raise header.error(f"the file ends {place}: cut off; get it again")
    return data


def _fields(hdu: HDU) -> tuple[Field, ...]:
    header = hdu.header
    if header.logical("ZTABLE", False):
        raise header.error("a tile-compressed table; unpack it first (funpack)")
    fields = []
    for number, column in enumerate(table_fields(hdu), start=1):
        kind, type_name = _KINDS[column.letter]
        if column.letter != "A" and not isinstance(column.dtype, str):
            kind, type_name = "other", f"a vector of {column.dtype[1][0]}"
        if np.dtype(column.dtype).itemsize == 0:
            kind, type_name = "other", "empty"
        name = header.text(f"TTYPE{number}", f"col{number}").strip()
        unit = header.shown(f"TUNIT{number}")
        fields.append(Field(name, kind, unit, header.shown(f"TCOMM{number}"), header.shown(f"TUCD{number}"), type_name))
    return tuple(fields)
