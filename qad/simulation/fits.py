"""Write FITS files in one pass, with checksums and without dates: the same arrays give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from qad.desi.cards import Cards, header_block, sealed
from qad.desi.checksum import DataSum
from qad.desi.datamodel import TableColumn
from qad.desi.header import BLOCK

_BITPIX = {"float64": -64, "float32": -32, "int32": 32}
_TABLE_TYPES = {"K": ">i8", "J": ">i4", "I": ">i2", "B": "u1", "D": ">f8", "E": ">f4"}


def write_primary(file: BinaryIO, cards: Cards) -> None:
    """Write a primary HDU without data."""
    head = {"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True}
    _write(file, {**head, **cards}, ())


def write_image(
    file: BinaryIO, name: str, shape: Sequence[int], dtype: str, parts: Iterable[np.ndarray], unit: str = ""
) -> None:
    """Write an image HDU of the given `shape`, whose rows come in `parts`, in order: no need to hold it whole."""
    head: dict[str, Any] = {"XTENSION": "IMAGE", "BITPIX": _BITPIX[dtype], "NAXIS": len(shape)}
    head |= {f"NAXIS{i}": n for i, n in enumerate(reversed(shape), 1)}
    head |= {"PCOUNT": 0, "GCOUNT": 1, "EXTNAME": name}
    if unit:
        head["BUNIT"] = unit
    big_endian = np.dtype(dtype).newbyteorder(">")
    _write(file, head, (np.ascontiguousarray(part, big_endian).reshape(-1).view(np.uint8) for part in parts))


def write_table(
    file: BinaryIO,
    name: str,
    columns: Sequence[TableColumn],
    values: Mapping[str, Any],
    tnull: Mapping[str, int] | None = None,
    cards: Cards | None = None,
) -> None:
    """Write a binary table HDU.

    Parameters
    ----------
    file : binary file
    name : str
    columns : sequence of TableColumn
    values : mapping
        An array or list per column name.
    tnull : mapping, optional
        TNULL per integer format.
    cards : mapping, optional
        Further cards.
    """
    dtype = np.dtype([(column.name, *_numpy_type(column.format)) for column in columns])
    rows = np.zeros(len(values[columns[0].name]), dtype)
    for column in columns:
        rows[column.name] = values[column.name]
    head: dict[str, Any] = {"XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": dtype.itemsize}
    head |= {"NAXIS2": len(rows), "PCOUNT": 0, "GCOUNT": 1, "TFIELDS": len(columns)}
    for i, column in enumerate(columns, 1):
        head |= {f"TTYPE{i}": column.name, f"TFORM{i}": column.format}
        if column.unit:
            head[f"TUNIT{i}"] = column.unit
        if tnull and column.format in tnull:
            head[f"TNULL{i}"] = tnull[column.format]
    head |= {"EXTNAME": name, **(cards or {})}
    _write(file, head, (rows.view(np.uint8).reshape(-1),) if len(rows) else ())


def _numpy_type(form: str) -> tuple[Any, ...]:
    repeat, code = int(form[:-1] or 1), form[-1]
    if code == "A":
        return (f"S{repeat}",)
    return (_TABLE_TYPES[code],) if repeat == 1 else (_TABLE_TYPES[code], (repeat,))


def _write(file: BinaryIO, cards: Cards, parts: Iterable[np.ndarray]) -> None:
    """Write an HDU: room for the header, then the data, then the header with the sums that are known only now."""
    start = file.tell()
    header = header_block({**cards, "CHECKSUM": "0" * 16, "DATASUM": "0" * 10})
    file.write(bytes(len(header)))
    total = DataSum()
    for block in _blocks(parts):
        file.write(block)
        total.add(block)
    end = file.tell()
    file.seek(start)
    file.write(sealed(header, total.value))
    file.seek(end)


def _blocks(parts: Iterable[np.ndarray]) -> Iterator[bytes]:
    """Yield the bytes of `parts`, in multiples of four so that sums can be taken, padded with zeros to whole FITS blocks."""
    total, rest = 0, b""
    for part in parts:
        data = rest + part.tobytes()
        total += len(data) - len(rest)
        whole = len(data) // 4 * 4
        rest = data[whole:]
        yield data[:whole]
    yield rest + bytes(-total % BLOCK)
