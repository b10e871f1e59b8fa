"""Catalogues of any supported format, found by their first bytes: positions in degrees, block by block."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qad.errors import InputError
from qad.matching.columns import Block, ColumnError, Field, Layout, Wanted, choose_columns, found_columns
from qad.matching.fits import fits_sources
from qad.matching.positions import Axis
from qad.matching.sky import Floats
from qad.matching.source import ArrowBlock, Source, as_array, open_stream, read_errors
from qad.matching.tables import csv_sources, parquet_files, parquet_sources

if TYPE_CHECKING:
    import pyarrow as pa

_SUFFIXES = (
    ".gz",
    ".fits",
    ".fit",
    ".parquet",
    ".pq",
    ".csv",
    ".tsv",
    ".ecsv",
    ".txt",
    ".dat",
    ".vot",
    ".votable",
    ".xml",
)
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"BZh", "bzip2-compressed; unpack it"),
    (b"\xfd7zXZ", "xz-compressed; unpack it"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it"),
    (b"\x89HDF", "an HDF5 file; convert it to FITS or Parquet"),
    (b"ARROW1", "an Arrow file; convert it to Parquet"),
)
_VOTABLE_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    AttributeError,
    ArithmeticError,
    EOFError,
    NotImplementedError,
)
"""What astropy raises on damaged VOTables; its own exceptions are SyntaxErrors."""


@dataclass(frozen=True)
class Positions:
    """The positions of a block: degrees, NaN where there is none, with the row number of its first row, from 0."""

    block: Block
    first_row: int
    ra: Floats
    dec: Floats


@dataclass(frozen=True)
class Catalog:
    """A catalogue whose columns are chosen.

    Attributes
    ----------
    path : Path
    layout : Layout
    source : Source
    """

    path: Path
    layout: Layout
    source: Source

    def blocks(self) -> Iterator[Positions]:
        """Yield the rows in order.

        Raises
        ------
        InputError
            If the file is damaged, or a position is not one.
        """
        try:
            axes = Axis(self.layout.ra, is_ra=True), Axis(self.layout.dec, is_ra=False)
            first_row = 0
            for block in self.source.read(self.layout.names):
                ra, dec = (axis.degrees(block.values(axis.field.name), first_row) for axis in axes)
                yield Positions(block, first_row, ra, dec)
                first_row += block.n_rows
        except ColumnError as error:
            raise InputError(self.path, str(error), where=self.source.where) from None


def catalog_name(path: Path) -> str:
    """Return a name for a catalogue that can stand in a file name: its own without endings and odd characters."""
    stem = path.name
    while (suffix := Path(stem).suffix.lower()) in _SUFFIXES and suffix:
        stem = stem[: -len(suffix)]
    safe = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "_", stem)).lstrip("._-")
    return safe[:100] or "catalog"


def catalog_files(path: Path) -> list[Path]:
    """Return the files of a catalogue: itself, or the Parquet files of a folder.

    Raises
    ------
    InputError
        If there is none.
    """
    with read_errors(path, ""):
        if not path.exists():
            raise InputError(path, "no such file")
        if not path.is_dir() and not path.is_file():
            raise InputError(path, "not a regular file")
        files = parquet_files(path) if path.is_dir() else [path]
    if not files:
        raise InputError(path, "a folder without Parquet files")
    return files


def open_catalog(path: Path, wanted: Wanted) -> Catalog:
    """Find the table of a catalogue file that has positions, and its columns.

    Raises
    ------
    InputError
        If the file cannot be read, or no table has the columns; the message says what was found instead.
    """
    catalog_files(path)
    reasons: list[tuple[Source, str]] = []
    for source in _sources(path):
        try:
            return Catalog(path, choose_columns(source.fields, wanted), source)
        except ColumnError as error:
            reasons.append((source, str(error)))
    if not reasons:
        raise InputError(path, "holds no table")
    if len(reasons) == 1:
        source, reason = reasons[0]
        raise InputError(path, reason, where=source.where)
    found = "; ".join(f"{source.where}: {found_columns(source.fields)}" for source, _ in reasons[:3])
    raise InputError(
        path, f"no table has the position and other columns wanted; give --ra-column and --dec-column ({found})"
    )


def _sources(path: Path) -> Iterator[Source]:
    readers: dict[str, Callable[[Path], Iterator[Source]]] = {
        "fits": fits_sources,
        "parquet": parquet_sources,
        "votable": votable_sources,
        "csv": csv_sources,
    }
    return readers[_format(path)](path)


def _format(path: Path) -> Literal["fits", "parquet", "votable", "csv"]:
    if path.is_dir():
        return "parquet"
    with read_errors(path, ""), open_stream(path) as stream:
        head = stream.read(1024)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"SIMPLE  ="):
        return "fits"
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise InputError(path, f"is {what}")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        raise InputError(path, "is a web page, not a catalogue; fetch the file itself")
    if text.startswith((b"<?xml", b"<votable", b"<vot:")):
        return "votable"
    if path.name.lower().removesuffix(".gz").endswith((".fits", ".fit")):
        raise InputError(path, "not a FITS file (no SIMPLE at its start)")
    if path.suffix.lower() in (".parquet", ".pq"):
        raise InputError(path, "not a Parquet file")
    return "csv"


def votable_sources(path: Path) -> Iterator[Source]:
    """Yield the tables of a VOTable.

    Raises
    ------
    InputError
        If it is not XML, or keeps its data elsewhere: data are never fetched from an address that a file names.
    """
    for number, fields in enumerate(_votable_tables(path)):
        yield Source(
            path, f"TABLE {number}", tuple(fields), _VotableReader(path, number, tuple(f.name for f in fields))
        )


def _votable_tables(path: Path) -> Iterator[list[Field]]:
    """Yield the fields of each table in its order, from the XML alone."""
    from astropy.utils.xml.iterparser import get_xml_iterator

    fields: list[Field] | None = None
    with (
        read_errors(path, ""),
        _votable_errors(path, ""),
        open_stream(path) as stream,
        get_xml_iterator(stream) as events,
    ):
        for start, tag, data, _position in events:
            if start and tag == "TABLE":
                fields = []
            elif start and tag == "FIELD" and fields is not None:
                fields.append(_votable_field(data))
            elif start and tag == "STREAM" and "href" in data:
                raise InputError(path, "its data lie elsewhere (STREAM href); save them inside the VOTable")
            elif start and tag in ("FITS", "PARQUET"):
                raise InputError(path, f"holds its data as {tag} inside XML; save it as TABLEDATA or BINARY2")
            elif fields is not None and ((start and tag in ("TR", "STREAM")) or (not start and tag == "TABLE")):
                yield fields
                fields = None


def _votable_field(data: dict[str, str]) -> Field:
    kind: Literal["number", "text", "other"] = "other"
    datatype, size = data.get("datatype", ""), data.get("arraysize", "")
    if datatype in ("char", "unicodeChar") and "x" not in size:
        kind = "text"
    elif datatype in ("unsignedByte", "short", "int", "long", "float", "double") and size in ("", "1"):
        kind = "number"
    name = data.get("name") or data.get("ID", "")
    return Field(name, kind, data.get("unit", ""), "", data.get("ucd", ""), f"{datatype}[{size}]" if size else datatype)


@dataclass(frozen=True)
class _VotableReader:
    path: Path
    number: int
    names: tuple[str, ...]

    def __call__(self, names: Sequence[str]) -> Iterator[Block]:
        wanted = sorted(self.names.index(name) for name in names)
        where = f"TABLE {self.number}"
        with read_errors(self.path, where), _votable_errors(self.path, where):
            places = list(range(len(wanted)))
            try:
                array = self._parse(wanted)
            except (ValueError, LookupError):
                # astropy looks for the columns in the tables that it skips too (8.0): another table may lack them
                array, places = self._parse(None), wanted
            columns = {}
            if array is not None and len(array):
                for index, place in zip(wanted, places, strict=True):
                    columns[self.names[index]] = _votable_column(array[array.dtype.names[place]])
        if columns:
            yield ArrowBlock(columns, len(next(iter(columns.values()))))

    def _parse(self, columns: list[int] | None) -> Any:
        """Return the table as astropy's masked record array, None if it holds no data."""
        from astropy.io import votable

        with warnings.catch_warnings(), open_stream(self.path) as stream:
            warnings.simplefilter("ignore")
            document = votable.parse(
                stream,
                columns=columns,
                table_number=self.number,
                invalid="mask",
                verify="ignore",
                filename=str(self.path),
            )
        tables = [table for table in document.iter_tables() if not table.is_empty()]
        return tables[0].array if tables else None


def _votable_column(values: Any) -> pa.Array:
    if values.dtype.kind == "O":
        mask = np.ma.getmaskarray(values)
        texts = np.array(
            ["" if hidden else _text(value) for value, hidden in zip(values.data, mask, strict=True)], object
        )
        return as_array(np.ma.MaskedArray(texts, mask=mask))
    return as_array(values)


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


@contextmanager
def _votable_errors(path: Path, where: str) -> Iterator[None]:
    """Turn what astropy and expat raise on a damaged VOTable into InputError."""
    from xml.parsers.expat import ExpatError

    try:
        yield
    except (*_VOTABLE_ERRORS, ExpatError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(path, f"not a readable VOTable: {reason}", where=where) from None
