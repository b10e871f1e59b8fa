"""Tables that name targets or pixels (FITS, Parquet, CSV), read column by column in blocks of rows.

A zcatalog of a release has 28 million rows of 136 columns, 21 GB; what is kept of it at a time is a block of the few
columns that are asked for.  A FITS table is mapped into memory block by block, so that what is not asked for is not read
where a row is longer than a page, and no block outlives its turn.
"""

from __future__ import annotations

import csv
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from qad.desi.columns import Field, TableRows, table_fields
from qad.desi.fits import FitsFile
from qad.desi.header import HDU
from qad.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["integer", "float", "text", "untyped", "other"]
"""``untyped`` is a column of a text file: it holds what it is read as."""

BLOCK_ROWS = 1 << 17
BLOCK_BYTES = 1 << 26
HEAD_BYTES = 1 << 16
INTEGER_NAME, POSITION_NAMES = "TARGETID", ("RA", "DEC")
"""What a text file without a header line holds: one column of whole numbers, or two of numbers."""
_WHOLE_ZEROS = (0.0, 2.0**15, 2.0**31, 2.0**63)
"""TZERO of columns of whole numbers: the standard's way to store unsigned ones."""
_DELIMITERS = ",\t;|"
_FOREIGN = (
    (b"\x1f\x8b", "gzip-compressed; gunzip it first"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"BZh", "bzip2-compressed; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it first"),
    (b"\x89HDF", "an HDF5 file; convert it to FITS or Parquet"),
    (b"<", "an HTML or XML page; use FITS, Parquet or CSV"),
)


@dataclass(frozen=True)
class Words:
    """A column of text: the different values, and which of them each row has (-1: none)."""

    names: list[str]
    codes: np.ndarray

    def take(self, rows: np.ndarray) -> Words:
        """Return chosen rows."""
        return Words(self.names, self.codes[rows])


Values = np.ma.MaskedArray | np.ndarray | Words
Block = dict[str, Any]
"""Columns by the name asked for: masked int64, float64 (NaN: none), or :class:`Words`."""


@dataclass(frozen=True)
class Column:
    """A column: its name in the file, what it holds, and how the file calls that."""

    name: str
    kind: Kind
    type_name: str


@dataclass(frozen=True)
class Table:
    """A table whose rows are not read yet.

    Attributes
    ----------
    path : Path
    where : str
        The HDU, for messages; empty where a file has one table.
    columns : tuple of Column
    n_rows : int
        -1 where only reading tells.
    read : callable
        Yields blocks of the columns asked for, by name in the file, as the kinds asked for.
    """

    path: Path
    where: str
    columns: tuple[Column, ...]
    n_rows: int
    read: Callable[[Mapping[str, Kind]], Iterator[Block]]

    def find(self, name: str, kind: Kind) -> str | None:
        """Return the file's name of a column, found without regard to case; None if there is none.

        Raises
        ------
        InputError
            If it is of another kind, or there are several.
        """
        found = [column for column in self.columns if column.name.strip().upper() == name]
        if len(found) > 1:
            raise InputError(self.path, f"column {name} is there {len(found)} times; keep one of them", self.where)
        if not found:
            return None
        column = found[0]
        # a whole number is a number, and a TARGETID that somebody kept as text is still exact
        fits = {"integer": ("integer", "text"), "float": ("float", "integer")}.get(kind, (kind,))
        if column.kind not in (*fits, "untyped"):
            raise InputError(self.path, _misfit(column, kind), self.where)
        return column.name

    @property
    def shown_columns(self) -> str:
        """The names of the columns, as a message shows them."""
        names = [column.name for column in self.columns]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return ", ".join(names[:8]) + more if names else "none"


def open_tables(path: Path) -> list[Table]:
    """Return the tables of a file, found by its first bytes.

    Raises
    ------
    InputError
        If it cannot be read, or is neither FITS, Parquet nor text.
    """
    head = read_head(path)
    if head.startswith(b"SIMPLE  ="):
        return _fits_tables(path)
    if head.startswith(b"PAR1"):
        return [_parquet_table(path)]
    for magic, what in _FOREIGN:
        if head.lstrip().startswith(magic):
            raise InputError(path, f"is {what}")
    if path.suffix.lower() in (".fits", ".fit"):
        raise InputError(path, "not a FITS file (it does not begin with SIMPLE)")
    if path.suffix.lower() in (".parquet", ".pq"):
        raise InputError(path, "not a Parquet file (it does not begin with PAR1)")
    return [_csv_table(path, head)]


def is_table(path: Path) -> bool:
    """Whether a file is a table with named columns, not a plain list of numbers."""
    head = read_head(path)
    if head.startswith((b"SIMPLE  =", b"PAR1")):
        return True
    line = next((line for line in head.splitlines() if line.strip() and not line.lstrip().startswith(b"#")), b"")
    return re.search(rb"[A-Za-z]", line.partition(b"#")[0]) is not None


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file; InputError if it cannot be read."""
    try:
        if not path.is_file():
            raise InputError(path, "no such file" if not path.exists() else "is not a regular file")
        with path.open("rb") as handle:
            head = handle.read(HEAD_BYTES)
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
    if not head.strip():
        raise InputError(path, "is empty")
    return head


def _misfit(column: Column, kind: Kind) -> str:
    if kind == "integer" and column.kind == "float":
        return (
            f"column {column.name} is {column.type_name}: floating point holds 15 digits and a TARGETID has up to 18; "
            "save it as 64-bit integers"
        )
    expected = {"integer": "whole numbers", "float": "numbers (degrees)", "text": "text"}.get(kind, kind)
    return f"column {column.name} is {column.type_name}, expected {expected}"


# ---------------------------------------------------------------- FITS


def _fits_tables(path: Path) -> list[Table]:
    with FitsFile(path, verify=False) as file:
        hdus = [hdu for hdu in file.hdus if hdu.kind == "table" and not hdu.header.logical("ZTABLE", False)]
    if not hdus:
        raise InputError(path, "holds no binary table")
    return [Table(path, hdu.header.where, _fits_columns(hdu), hdu.shape[0], _FitsReader(path, hdu)) for hdu in hdus]


def _fits_columns(hdu: HDU) -> tuple[Column, ...]:
    columns = []
    for number, field in enumerate(table_fields(hdu), start=1):
        name = hdu.header.text(f"TTYPE{number}", "").strip()
        columns.append(Column(name, _fits_kind(field), f"FITS type {hdu.header.text(f'TFORM{number}').strip()}"))
    return tuple(columns)


def _fits_kind(field: Field) -> Kind:
    if field.letter == "A":
        return "text"
    if not isinstance(field.dtype, str):
        return "other"  # an array in each row
    if field.letter in "BIJK" and field.scale == 1.0 and field.zero in _WHOLE_ZEROS:
        return "integer"
    return "float" if field.letter in "BIJKED" else "other"


@dataclass(frozen=True)
class _FitsReader:
    path: Path
    hdu: HDU

    def __call__(self, kinds: Mapping[str, Kind]) -> Iterator[Block]:
        n_rows, width = self.hdu.shape
        step = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(width, 1)))
        with self.path.open("rb") as handle:
            if os.fstat(handle.fileno()).st_size < self.hdu.offset + self.hdu.n_bytes:
                raise self.hdu.header.error("the file became shorter while it was read")
            for first in range(0, n_rows, step):
                yield self._block(handle.fileno(), first, min(step, n_rows - first), kinds)

    def _block(self, descriptor: int, first: int, count: int, kinds: Mapping[str, Kind]) -> Block:
        width = self.hdu.shape[1]
        start = self.hdu.offset + first * width
        aligned = start - start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(descriptor, start + count * width - aligned, access=mmap.ACCESS_READ, offset=aligned)
        # the map goes when the last column that points into it does: none, every column below is a copy
        data = memoryview(mapped)[start - aligned :]
        rows = TableRows(replace(self.hdu, shape=(count, width)), cast(bytes, data))
        return {name: self._column(rows, data, count, name, kind) for name, kind in kinds.items()}

    def _column(self, rows: TableRows, data: memoryview, count: int, name: str, kind: Kind) -> Values:
        column = name.strip().upper()
        fields = table_fields(self.hdu)
        place = next(i for i, field in enumerate(fields) if field.name == column)
        if fields[place].letter == "A":
            dtype = np.dtype([(f"f{i}", field.dtype) for i, field in enumerate(fields)])
            words = _fits_words(np.frombuffer(data, dtype, count)[f"f{place}"])
            return words if kind == "text" else _integers_of(words, self.path, name)
        if kind == "integer":
            return rows.numbers(column, np.int64)
        return np.ma.MaskedArray(rows.numbers(column, np.float64, any_kind=True)).filled(np.nan)


def _fits_words(stored: np.ndarray) -> Words:
    """Find the different texts of a column by hashing, a hundred times faster than decoding each."""
    import pyarrow as pa

    width = stored.dtype.itemsize
    if width == 0:
        return Words([""], np.zeros(len(stored), np.int32))
    content = pa.py_buffer(np.ascontiguousarray(stored).tobytes())
    array = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(stored), [None, content])
    found = array.dictionary_encode()
    names = [value.partition(b"\0")[0].decode("utf-8", "backslashreplace") for value in found.dictionary.to_pylist()]
    return _merged(names, found.indices.to_numpy().astype(np.int32))


def _merged(names: Sequence[str], codes: np.ndarray) -> Words:
    """Return words without blanks at their ends, each once; an empty one is none."""
    stripped = [name.strip() for name in names]
    unique = sorted({name for name in stripped if name})
    place = {name: i for i, name in enumerate(unique)}
    new = np.array([*(place.get(name, -1) for name in stripped), -1], np.int32)
    return Words(unique, new[codes])


def _integers_of(words: Words, path: Path, name: str) -> np.ma.MaskedArray:
    """Read the digits of a text column."""
    values = np.zeros(len(words.names) + 1, np.int64)
    for i, text in enumerate(words.names):
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or not -(1 << 63) <= int(text) < 1 << 63:
            raise InputError(path, f"{text[:40]!r} is not a whole number", where=f"column {name}")
        values[i] = int(text)
    return np.ma.MaskedArray(values[words.codes], mask=words.codes < 0)


# ---------------------------------------------------------------- Parquet and CSV


def _parquet_table(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(path, f"not a readable Parquet file: {_first_line(error)}") from None
    columns = tuple(Column(field.name, _arrow_kind(field.type), f"Parquet type {field.type}") for field in schema)
    return Table(path, "", columns, n_rows, _ParquetReader(path))


def _arrow_kind(kind: pa.DataType) -> Kind:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "float"
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else "other"


@dataclass(frozen=True)
class _ParquetReader:
    path: Path

    def __call__(self, kinds: Mapping[str, Kind]) -> Iterator[Block]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(BLOCK_ROWS, columns=list(kinds)):
                    yield {
                        name: _arrow_values(batch.column(name), kind, self.path, name) for name, kind in kinds.items()
                    }
        except (pa.ArrowException, OSError) as error:
            raise InputError(self.path, f"damaged: {_first_line(error)}") from None


def _arrow_values(column: pa.Array, kind: Kind, path: Path, name: str) -> Values:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if is_text:
        found = column.dictionary_encode()
        codes = found.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        words = _merged(found.dictionary.to_pylist(), codes)
        return words if kind == "text" else _integers_of(words, path, name)
    if kind == "integer":
        values = column.cast(pa.int64())
        is_null = values.is_null().to_numpy(zero_copy_only=False)
        return np.ma.MaskedArray(values.fill_null(0).to_numpy(zero_copy_only=False), mask=is_null)
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _csv_table(path: Path, head: bytes) -> Table:
    """Return the table of a text file: its names come from the header line, its types from what is asked for."""
    if b"\0" in head:
        raise InputError(path, "neither FITS, Parquet nor text")
    try:
        lines = head.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        # the last character of the head may be cut in two
        lines = head.decode("utf-8-sig", "replace").splitlines()
    n_skipped = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), -1)
    if n_skipped < 0:
        raise InputError(path, "holds no header line and no rows, only comments")
    line = lines[n_skipped]
    delimiter = max(_DELIMITERS, key=line.count) if any(mark in line for mark in _DELIMITERS) else ","
    names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
    if any(not _is_number(name) for name in names):
        n_skipped += 1
    elif len(names) in (1, 2):
        names = [INTEGER_NAME] if len(names) == 1 else list(POSITION_NAMES)
    else:
        raise InputError(path, f"no header line with column names: it begins with {line[:40]!r}")
    columns = tuple(Column(name, "untyped", "text") for name in names)
    return Table(path, "", columns, -1, _CsvReader(path, tuple(names), delimiter, n_skipped))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class _CsvReader:
    path: Path
    names: tuple[str, ...]
    delimiter: str
    n_skipped: int

    def __call__(self, kinds: Mapping[str, Kind]) -> Iterator[Block]:
        import pyarrow as pa
        import pyarrow.csv

        # a column without a name of its own is never asked for, but Arrow wants every name once
        unique = [name if self.names.count(name) == 1 else f"\0{i}" for i, name in enumerate(self.names)]
        read = pa.csv.ReadOptions(block_size=BLOCK_BYTES // 4, column_names=unique, skip_rows=self.n_skipped)
        types = {"integer": pa.int64(), "float": pa.float64(), "text": pa.string()}
        convert = pa.csv.ConvertOptions(
            include_columns=list(kinds),
            column_types={name: types[kind] for name, kind in kinds.items()},
            null_values=["", "nan", "NaN", "null", "NULL", "None", "N/A", "--"],
            strings_can_be_null=True,
        )
        parse = pa.csv.ParseOptions(delimiter=self.delimiter, invalid_row_handler=_skip_comment)
        try:
            with pa.csv.open_csv(self.path, read, parse, convert) as reader:
                for batch in reader:
                    yield {
                        name: _arrow_values(batch.column(name), kind, self.path, name) for name, kind in kinds.items()
                    }
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if "Empty CSV" not in str(error):
                raise InputError(self.path, _csv_reason(error, unique)) from None


def _skip_comment(row: Any) -> str:
    return "skip" if str(row.text).startswith("#") else "error"


def _csv_reason(error: BaseException, names: Sequence[str]) -> str:
    """Return Arrow's complaint with the column's name, and for a TARGETID written as a float why that is refused."""
    text = _first_line(error)
    match = re.search(r"column #(\d+): .*conversion error to (\w+): invalid value '(.{0,40})", text)
    if match is None:
        return f"not a readable CSV file: {text}"
    name = names[int(match[1])] if int(match[1]) < len(names) else f"#{match[1]}"
    value = match[3].rstrip("'")
    if match[2] == "int64" and _is_number(value):
        return _misfit(Column(name, "float", f"floating point ({value})"), "integer")
    return f"column {name}: {value!r} is not a number" + (" of degrees" if match[2] == "double" else "")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
