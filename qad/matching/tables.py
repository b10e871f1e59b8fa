"""Catalogues in Parquet and CSV, read in batches."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qad.errors import InputError
from qad.matching.columns import Block, Field, shorten
from qad.matching.source import BLOCK_ROWS, ArrowBlock, Source, is_gzip, open_stream, read_errors

if TYPE_CHECKING:
    import pyarrow as pa

UNTYPED = "untyped text"
"""Type name of a CSV column: its values are text until they are carried over."""
CSV_BLOCK_BYTES = 1 << 24
HEAD_BYTES = 1 << 20
_DELIMITERS = ",\t;|"


def parquet_sources(path: Path) -> Iterator[Source]:
    """Yield the one table of a Parquet file, or of a folder of Parquet files.

    Raises
    ------
    InputError
        If a folder holds none, or a file is not Parquet.
    """
    files = parquet_files(path)
    if not files:
        raise InputError(path, "a folder without Parquet files")
    yield parquet_source_of(path, files)


def parquet_source_of(path: Path, files: Sequence[Path]) -> Source:
    """Return the table that Parquet files of a catalogue are together; none gives one without rows or columns."""
    fields = _parquet_fields(files[0]) if files else ()
    return Source(path, "", fields, _ParquetReader(tuple(files)))


def parquet_files(path: Path) -> list[Path]:
    """Return the Parquet files of a catalogue, sorted by name; a name that starts with '.' or '_' is not data."""
    if path.is_file():
        return [path]
    found = sorted(path.rglob("*.parquet")) + sorted(path.rglob("*.pq"))
    return [
        file for file in found if file.is_file() and not any(part[0] in "._" for part in file.relative_to(path).parts)
    ]


@dataclass(frozen=True)
class _ParquetReader:
    files: tuple[Path, ...]

    def __call__(self, names: Sequence[str]) -> Iterator[Block]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        expected = {field.name: field.kind for path in self.files[:1] for field in _parquet_fields(path)}
        for path in self.files:
            kinds = {field.name: field.kind for field in _parquet_fields(path)}
            for name in names:
                if kinds.get(name) != expected[name]:
                    found = f"holds {kinds[name]}" if name in kinds else "is missing"
                    raise InputError(path, f"column {name} {found}, in {self.files[0].name} it holds {expected[name]}")
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(BLOCK_ROWS, columns=list(names)):
                        columns = {name: _plain(batch.column(name)) for name in names}
                        yield ArrowBlock(columns, batch.num_rows)
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise InputError(path, f"damaged: {_first_line(error)}") from None


def _parquet_fields(path: Path) -> tuple[Field, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"not a readable Parquet file: {_first_line(error)}") from None
    counts = Counter(schema.names)
    return tuple(_parquet_field(field, counts[field.name]) for field in schema)


def _parquet_field(field: pa.Field, count: int) -> Field:
    import pyarrow as pa

    kind: Literal["number", "text", "other"] = "other"
    value_type = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_integer(value_type) or pa.types.is_floating(value_type):
        kind = "number"
    elif pa.types.is_string(value_type) or pa.types.is_large_string(value_type) or value_type == pa.string_view():
        kind = "text"
    metadata = {key.decode("utf-8", "replace"): value for key, value in (field.metadata or {}).items()}
    unit, description, ucd = (
        metadata.get(key, b"").decode("utf-8", "replace") for key in ("unit", "description", "ucd")
    )
    if count > 1:
        return Field(field.name, "other", unit, description, ucd, f"there {count} times")
    return Field(field.name, kind, unit, description, ucd, str(field.type))


def _plain(column: pa.Array) -> pa.Array:
    """Return a column with plain values: text as string, no dictionary."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return column
    text = column if column.type == pa.string() else column.cast(pa.string())
    text.validate(full=True)  # Parquet's text may be anything; what is not UTF-8 is refused here
    return text


def csv_sources(path: Path) -> Iterator[Source]:
    """Yield the one table of a CSV file: UTF-8 with or without byte-order mark, perhaps gzip-compressed.

    The delimiter (comma, tab, semicolon, bar; a blank if the header has none of them) is found in the header line;
    lines before it that are empty or start with ``#`` are comments.

    Raises
    ------
    InputError
        If the file is not text, or has no header line.
    """
    with read_errors(path, ""), open_stream(path) as stream:
        head = stream.read(HEAD_BYTES)
    header, n_skipped = _header_line(path, head)
    delimiter = max(_DELIMITERS, key=header.count) if any(mark in header for mark in _DELIMITERS) else " "
    if delimiter == " " and len(header.split()) == 1:
        delimiter = ","
    names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter))]
    if all(_is_number(name) for name in names):
        raise InputError(path, f"no header line: the first line is {shorten(header)}; name the columns in it")
    counts = Counter(names)
    fields = tuple(
        Field(name, "text", type_name=UNTYPED) if count == 1 and name else Field(name, "other", type_name="not unique")
        for name, count in ((name, counts[name]) for name in names)
    )
    # a column without a name of its own is never asked for, but Arrow wants every name once
    unique = tuple(name if name and counts[name] == 1 else f"\x00{number}" for number, name in enumerate(names))
    yield Source(path, "", fields, _CsvReader(path, unique, delimiter, n_skipped))


def _header_line(path: Path, head: bytes) -> tuple[str, int]:
    """Return the header line of a text, and how many lines end with it."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(path, "UTF-16 text; save it as UTF-8")
    if b"\x00" in head:
        raise InputError(path, "not a catalogue: neither FITS, Parquet, VOTable nor text")
    if not head.strip():
        raise InputError(path, "an empty file: no header line")
    try:
        text = head.rpartition(b"\n")[0].decode("utf-8-sig") if b"\n" in head else head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(path, f"not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if line.strip() and not line.startswith("#"):
            return line, number
    raise InputError(path, "no header line: only comments")


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

    def __call__(self, names: Sequence[str]) -> Iterator[Block]:
        import pyarrow as pa
        import pyarrow.csv

        read = pa.csv.ReadOptions(block_size=CSV_BLOCK_BYTES, column_names=list(self.names), skip_rows=self.n_skipped)
        parse = pa.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True)
        convert = pa.csv.ConvertOptions(
            include_columns=list(names), column_types={name: pa.string() for name in names}, strings_can_be_null=False
        )
        try:
            with (
                pa.input_stream(self.path, compression="gzip" if is_gzip(self.path) else None) as stream,
                pa.csv.open_csv(stream, read, parse, convert) as reader,
            ):
                for batch in reader:
                    yield ArrowBlock({name: batch.column(name) for name in names}, batch.num_rows)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, pa.ArrowInvalid) and str(error).startswith("Empty CSV"):
                return  # a header without rows
            raise InputError(self.path, f"not a readable CSV file: {_csv_reason(error)}") from None


def _csv_reason(error: BaseException) -> str:
    text = _first_line(error)
    return text.removeprefix("CSV parse error: ").removeprefix("In CSV ")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
