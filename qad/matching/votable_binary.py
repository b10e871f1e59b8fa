"""The rows of a VOTable's BINARY and BINARY2 serialisations (VOTable 1.4, sections 5.3 and 5.4; arrays: section 6)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK_ROWS = 1 << 15
MAX_ROW_BYTES = 1 << 24
_TYPES: dict[str, tuple[int, str]] = {
    "boolean": (1, "S1"),
    "unsignedByte": (1, "u1"),
    "short": (2, ">i2"),
    "int": (4, ">i4"),
    "long": (8, ">i8"),
    "char": (1, "S1"),
    "unicodeChar": (2, "S2"),
    "float": (4, ">f4"),
    "double": (8, ">f8"),
    "floatComplex": (8, "S8"),
    "doubleComplex": (16, "S16"),
}
"""Bytes and NumPy type of one item."""
_COUNT = struct.Struct(">I")


class BinaryError(Exception):
    """The bytes are not rows of the fields."""


@dataclass(frozen=True)
class _Item:
    """How a field lies in a row: `length` bytes, or where that is None a count of items of `size` bytes before them."""

    length: int | None
    size: int


class Binary:
    """Decodes rows from pieces of any length; holds a block of them.

    Parameters
    ----------
    fields : sequence of dict
        The attributes of each FIELD.
    has_flags : bool
        BINARY2: a bit for each field, set where it is null, comes before each row.
    wanted : sequence of int
        Numbers of the fields to return.
    """

    def __init__(self, fields: Sequence[dict[str, str]], has_flags: bool, wanted: Sequence[int]) -> None:
        self.fields = fields
        self.wanted = list(wanted)
        self.items = [_item(data) for data in fields]
        self.flag_bytes = (len(fields) + 7) // 8 if has_flags else 0

    def blocks(self, pieces: Iterator[bytes]) -> Iterator[tuple[list[Any], int]]:
        """Yield the wanted columns as Arrow arrays, and their number of rows.

        Raises
        ------
        BinaryError
            If the last row is not whole, or a row is impossibly long.
        """
        held = b""
        rows: list[tuple[bytes, list[bytes]]] = []
        for piece in pieces:
            held += piece
            position = 0
            while (found := self._row(held, position)) is not None:
                position, row = found
                rows.append(row)
                if len(rows) == BLOCK_ROWS:
                    yield self._columns(rows), len(rows)
                    rows = []
            held = held[position:]
            if len(held) > MAX_ROW_BYTES:
                raise BinaryError(f"a row of more than {MAX_ROW_BYTES:,} bytes")
        if held:
            raise BinaryError("the data end inside a row")
        if rows:
            yield self._columns(rows), len(rows)

    def _row(self, held: bytes, position: int) -> tuple[int, tuple[bytes, list[bytes]]] | None:
        """Return where the next row starts, and this one's flags and wanted fields; None if it is not all there."""
        flags = held[position : position + self.flag_bytes]
        place = position + self.flag_bytes
        spans = []
        for item in self.items:
            length = item.length
            if length is None:
                if place + 4 > len(held):
                    return None
                length = _COUNT.unpack_from(held, place)[0] * item.size
                place += 4
            spans.append((place, place + length))
            place += length
        if place > len(held) or place == position:
            return None
        return place, (flags, [held[slice(*spans[index])] for index in self.wanted])

    def _columns(self, rows: list[tuple[bytes, list[bytes]]]) -> list[Any]:
        columns = []
        for place, index in enumerate(self.wanted):
            is_null = np.zeros(len(rows), bool)
            if self.flag_bytes:
                byte, bit = divmod(index, 8)
                is_null = np.array([flags[byte] >> (7 - bit) & 1 for flags, _ in rows], bool)
            columns.append(_array(self.fields[index], [values[place] for _, values in rows], is_null))
        return columns


def _item(data: dict[str, str]) -> _Item:
    datatype, shape = data.get("datatype", ""), data.get("arraysize", "").strip()
    if datatype == "bit":
        if "*" in shape:
            raise BinaryError("a bit field of varying length")
        return _Item((_product(shape) + 7) // 8, 1)
    if datatype not in _TYPES:
        raise BinaryError(f"a field of datatype {datatype!r}")
    size = _TYPES[datatype][0]
    return _Item(None, size) if "*" in shape else _Item(size * _product(shape), size)


def _product(shape: str) -> int:
    try:
        return math.prod(int(part) for part in shape.split("x")) if shape else 1
    except ValueError:
        raise BinaryError(f"an arraysize of {shape!r}") from None


def _array(data: dict[str, str], values: list[bytes], is_null: np.ndarray) -> Any:
    import pyarrow as pa

    datatype = data.get("datatype", "")
    if datatype in ("char", "unicodeChar"):
        encoding = "utf-8" if datatype == "char" else "utf-16-be"
        texts = [value.decode(encoding, "backslashreplace").partition("\0")[0] for value in values]
        return pa.array(texts, pa.string(), mask=is_null)
    numbers = np.frombuffer(b"".join(values), _TYPES[datatype][1])
    if data.get("null") and numbers.dtype.kind in "iu":
        try:
            is_null = is_null | (numbers == int(data["null"], 0))
        except ValueError:
            raise BinaryError(f"a null value of {data['null']!r}") from None
    return pa.array(numbers.astype(numbers.dtype.newbyteorder("=")), mask=is_null if is_null.any() else None)
