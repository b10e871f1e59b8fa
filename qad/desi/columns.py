"""Columns of binary tables: from TFORM to numpy, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qad.desi.header import HDU, Header
from qad.errors import InputError

TEXT = "text"
"""Stands for a dtype where a column holds text."""
_FORM = re.compile(r"([0-9]{0,9})([LXBIJKAEDCMPQ])([^ ]*)\Z")
_TYPES = {"L": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "C": ">c8", "M": ">c16"}
_BYTES = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "C": 8, "M": 16, "A": 1, "P": 8, "Q": 16}
_UNSIGNED = {("I", 2.0**15): np.uint16, ("J", 2.0**31): np.uint32, ("K", 2.0**63): np.uint64}


@dataclass(frozen=True)
class Field:
    """One column on disk: its numpy form, its TFORM letter, and what turns stored numbers into values."""

    name: str
    dtype: Any
    letter: str
    n_bytes: int
    scale: float
    zero: float
    null: int | None


class TableRows:
    """Rows of a binary table, as they lie on disk; columns come out by name.

    Parameters
    ----------
    hdu : HDU
        A table.
    data : bytes
        Its rows.
    """

    def __init__(self, hdu: HDU, data: bytes) -> None:
        self._hdu = hdu
        self._fields = table_fields(hdu)
        n_rows, width = hdu.shape
        n_bytes = sum(field.n_bytes for field in self._fields)
        if n_bytes != width:
            raise hdu.header.error(f"columns take {n_bytes} bytes a row, NAXIS1 says {width}")
        dtype = np.dtype([(f"f{i}", field.dtype) for i, field in enumerate(self._fields)])
        if not width and n_rows:  # of such rows a file can claim any number
            raise hdu.header.error(f"has {n_rows} rows without a column")
        self._rows = np.frombuffer(data, dtype, n_rows) if width else np.empty(n_rows, dtype)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: str) -> bool:
        return any(field.name == name for field in self._fields)

    def column(self, name: str, rows: np.ndarray | slice = slice(None)) -> np.ma.MaskedArray:
        """Return a column in native byte order, masked where it holds its TNULL; texts come as str without padding.

        Raises
        ------
        InputError
            If the column is absent, stands twice, or is of a form that is not read.
        """
        found = [i for i, field in enumerate(self._fields) if field.name == name]
        if len(found) != 1:
            raise self._hdu.header.error(f"column {name} {'stands twice' if found else 'is missing'}")
        field = self._fields[found[0]]
        stored = self._rows[f"f{found[0]}"][rows]
        if field.letter == "A":
            return np.ma.MaskedArray(_texts(stored))
        if field.dtype[0] == "V" or field.letter in "LX":
            raise self._hdu.header.error(f"column {name} has form {field.letter}, expected a number")
        mask = np.ma.nomask if field.null is None or stored.dtype.kind not in "iu" else stored == field.null
        return np.ma.MaskedArray(_scaled(stored, field), mask=mask)

    def numbers(
        self, name: str, dtype: Any, rows: np.ndarray | slice = slice(None), any_kind: bool = False
    ) -> np.ma.MaskedArray:
        """Return a column of numbers as `dtype`, masked where a value is null, not finite or outside its range.

        Whole numbers do not stand for real ones, nor the other way round, unless `any_kind` is set: bytes of the one
        that are read as the other are numbers too.
        """
        values, wanted = self.column(name, rows), np.dtype(dtype)
        kinds = "iuf" if any_kind else "iu" if wanted.kind in "iu" else "f"
        if values.dtype.kind not in kinds or values.ndim != 1:
            found = f"{values.dtype} vectors" if values.ndim != 1 else values.dtype
            raise self._hdu.header.error(f"column {name} holds {found}, expected {wanted}")
        return as_dtype(values, wanted)

    def reals(self, name: str) -> np.ndarray:
        """Return a column of real numbers or vectors of them, shape (n_rows, ...)."""
        values = self.column(name)
        if values.dtype.kind != "f":
            raise self._hdu.header.error(f"column {name} holds {values.dtype}, expected real numbers")
        return values.data

    def texts(self, name: str, rows: np.ndarray | slice = slice(None)) -> list[str]:
        """Return a column of texts."""
        values = self.column(name, rows)
        if values.dtype.kind != "O":
            raise self._hdu.header.error(f"column {name} holds {values.dtype}, expected text")
        return list(values.data)


def first_rows(targetid: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return for each wanted TARGETID the first row that holds it, -1 where none does."""
    if not len(targetid):
        return np.full(len(wanted), -1)
    order = np.argsort(targetid, kind="stable")
    place = np.searchsorted(targetid, wanted, sorter=order)
    rows = order[np.minimum(place, len(order) - 1)]
    return np.where(targetid[rows] == wanted, rows, -1)


def read_columns(table: TableRows, columns: Mapping[str, Any], rows: np.ndarray | slice) -> dict[str, Any]:
    """Return columns by name: masked arrays, lists of str where the type is :data:`TEXT`, None where there is none."""
    found: dict[str, Any] = {}
    for name, dtype in columns.items():
        if name not in table:
            found[name] = None
        else:
            found[name] = table.texts(name, rows) if dtype is TEXT else table.numbers(name, dtype, rows)
    return found


def matched_columns(table: TableRows, columns: Mapping[str, Any], targetid: np.ndarray) -> dict[str, Any]:
    """Return columns of the first row of each TARGETID; masked (an empty text) where the table has no such row."""
    if not len(table):
        return dict.fromkeys(columns)
    rows = first_rows(table.numbers("TARGETID", np.int64).data, targetid)
    found = read_columns(table, columns, np.maximum(rows, 0))
    for values in found.values():
        if isinstance(values, list):
            values[:] = [text if row >= 0 else "" for text, row in zip(values, rows, strict=True)]
        elif values is not None:
            values[rows < 0] = np.ma.masked
    return found


def table_fields(hdu: HDU) -> list[Field]:
    """Return the columns that a table's header tells."""
    header = hdu.header
    return [_field(header, i) for i in range(1, header.integer("TFIELDS") + 1)]


def as_dtype(values: np.ma.MaskedArray, dtype: np.dtype) -> np.ma.MaskedArray:
    """Return numbers as another type, masked where they are not finite or do not fit it."""
    data, mask = values.data, np.ma.getmaskarray(values)
    if data.dtype.kind == "f":
        mask = mask | ~np.isfinite(data)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low, high = int(limits.min), int(limits.max)
        if data.dtype.kind == "f":
            mask = mask | (data < low) | (data >= float(high) + 1)
        elif int(np.iinfo(data.dtype).min) < low or int(np.iinfo(data.dtype).max) > high:
            mask = (
                mask
                | (data < max(low, int(np.iinfo(data.dtype).min)))
                | (data > min(high, int(np.iinfo(data.dtype).max)))
            )
    else:
        mask = mask | (np.abs(data, where=~mask, out=np.zeros_like(data)) > np.finfo(dtype).max)
    return np.ma.MaskedArray(np.where(mask, 0, data).astype(dtype), mask=mask)


def _field(header: Header, number: int) -> Field:
    form = header.text(f"TFORM{number}").strip()
    name = header.text(f"TTYPE{number}", "").strip().upper()
    match = _FORM.match(form)
    if match is None:
        raise InputError(header.path, f"TFORM{number} is {form[:20]!r}", where=header.where)
    repeat = int(match[1]) if match[1] else 1
    letter = match[2]
    scale, zero = header.number(f"TSCAL{number}", 1.0), header.number(f"TZERO{number}", 0.0)
    null = header.integer(f"TNULL{number}") if f"TNULL{number}" in header else None
    dtype = _dtype(letter, repeat)
    return Field(name, dtype, letter, _n_bytes(letter, repeat), scale, zero, null)


def _dtype(letter: str, repeat: int) -> Any:
    if letter == "A":
        return f"S{repeat}"
    if letter == "X":
        return f"V{-(-repeat // 8)}"
    if letter in "PQ":
        return f"V{_BYTES[letter] * repeat}"
    if repeat == 1:
        return _TYPES[letter]
    return (_TYPES[letter], (repeat,))


def _n_bytes(letter: str, repeat: int) -> int:
    if letter == "X":
        return -(-repeat // 8)
    return repeat * _BYTES[letter]


def _texts(stored: np.ndarray) -> np.ndarray:
    """Decode texts; FITS ends them at a NUL, and what is not UTF-8 stays visible as backslashes."""
    texts = np.empty(stored.shape, object)
    for i, value in enumerate(stored.tolist()):
        texts[i] = value.partition(b"\0")[0].rstrip(b" ").decode("utf-8", "backslashreplace")
    return texts


def _scaled(stored: np.ndarray, field: Field) -> np.ndarray:
    native = stored.astype(stored.dtype.newbyteorder("="))
    if field.scale == 1.0 and field.zero == 0.0:
        return native
    unsigned = _UNSIGNED.get((field.letter, field.zero))
    if field.scale == 1.0 and unsigned is not None:
        # the standard's way to store unsigned numbers: the highest bit is turned over
        return native.view(unsigned) ^ unsigned(int(field.zero))
    with np.errstate(over="ignore", invalid="ignore"):
        return native.astype(np.float64) * field.scale + field.zero
