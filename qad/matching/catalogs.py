"""Catalogues of any supported format, found by their first bytes: positions in degrees, block by block."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from qad.errors import InputError
from qad.matching.columns import Block, ColumnError, Layout, Wanted, choose_columns, found_columns
from qad.matching.fits import fits_sources
from qad.matching.hats import hats_root, hats_sources, partitions
from qad.matching.positions import Axis
from qad.matching.presets import Preset
from qad.matching.sky import Floats
from qad.matching.source import Source, open_stream, read_errors
from qad.matching.tables import csv_sources, parquet_files, parquet_sources
from qad.matching.votable import votable_sources

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
    preset : Preset or None
        What it is known to be.
    """

    path: Path
    layout: Layout
    source: Source
    preset: Preset | None = None

    def around(self, ra: Floats, dec: Floats, radius_arcsec: float) -> Catalog:
        """Return the part that has every row within the radius of any of these positions, if it can be told beforehand."""
        if self.source.around is None:
            return self
        return replace(self, source=self.source.around(ra, dec, radius_arcsec))

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
    """Return the files of a catalogue: itself, or the Parquet files of a folder, of a HATS catalogue its partitions.

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
        root = hats_root(path) if path.is_dir() else None
        if root is not None:
            return [part.path for part in partitions(root)]
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
            return Catalog(path, choose_columns(source.fields, wanted), source, wanted.preset)
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


def open_answers(paths: Sequence[Path], wanted: Wanted) -> Catalog:
    """Return the catalogue that several files of the same columns are together: the answers of a service.

    Raises
    ------
    InputError
        As :func:`open_catalog`.
    """
    parts = [open_catalog(path, wanted) for path in paths]

    def read(names: Sequence[str]) -> Iterator[Block]:
        for part in parts:
            yield from part.source.read(names)

    first = parts[0]
    return replace(first, source=replace(first.source, read=read))


def _sources(path: Path) -> Iterator[Source]:
    readers: dict[str, Callable[[Path], Iterator[Source]]] = {
        "fits": fits_sources,
        "parquet": parquet_sources,
        "hats": lambda folder: hats_sources(hats_root(folder) or folder),
        "votable": votable_sources,
        "csv": csv_sources,
    }
    return readers[_format(path)](path)


def _format(path: Path) -> Literal["fits", "parquet", "hats", "votable", "csv"]:
    if path.is_dir():
        return "parquet" if hats_root(path) is None else "hats"
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
