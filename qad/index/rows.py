"""The rows of one file as the columns of the database's table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.errors import InputError
from qad.index.binary import SQL_TYPES, clean_text, encode_rows
from qad.index.sky import zone_of
from qad.index.tables import LABEL_COLUMNS, PIXEL_COLUMNS, Target
from qad.storage.labels import last_labels
from qad.storage.parquet import read_once

if TYPE_CHECKING:
    import pyarrow as pa

INT64 = range(-(2**63), 2**63)
FORMAT = b"rows/2"
"""Goes into every fingerprint: files are loaded again when their rows are made differently."""


@dataclass(frozen=True)
class SourceFile:
    """A file to bring in: its place, its name below the root, and what it looked like before it was read."""

    path: Path
    name: str
    target: Target
    size: int = 0
    mtime_ns: int = 0


@dataclass(frozen=True)
class Rows:
    """What a file brings.

    Attributes
    ----------
    file : SourceFile
    n_rows : int
    columns : dict of str to (str, ChunkedArray)
        By the name of the database's column: PostgreSQL type and values.
    open_columns : dict of str to str
        Names and types of what the jsonb column holds.
    pixel : tuple
        Of a file of spectra the row of `pixel`, in the order of ``PIXEL_COLUMNS``; else empty.
    """

    file: SourceFile
    n_rows: int
    columns: dict[str, tuple[str, pa.ChunkedArray]]
    open_columns: Mapping[str, str] = field(default_factory=dict)
    pixel: tuple[Any, ...] = ()


def read_rows(file: SourceFile) -> Rows:
    """Read a file.

    Raises
    ------
    InputError
        If the file is damaged, not the table that its folder says, or holds a row twice.
    """
    rows = _read_labels(file) if file.target.spec is None else _read_table(file)
    _check_key(rows)
    return rows


def fingerprint(rows: Rows) -> str:
    """Return a SHA-256 of the rows as they go to the database: what of a file does not reach it changes nothing."""
    digest = start_fingerprint(rows)
    for part, _ends in encode_rows(list(rows.columns.values()), rows.n_rows):
        digest.update(part)
    return digest.hexdigest()


def start_fingerprint(rows: Rows) -> Any:
    """Return the hash that the encoded rows are to be added to."""
    return hashlib.sha256(FORMAT + repr([*rows.columns, rows.open_columns]).encode())


def _read_table(file: SourceFile) -> Rows:
    import pyarrow as pa

    spec = file.target.spec
    assert spec is not None
    metadata, table = read_once(file.path, spec)
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(file.path, f"damaged: {error}", where=spec.tag) from None
    known = {column.name for column in spec.columns}
    open_names = [name for name in table.column_names if name not in known]
    columns = {"file": ("text", _repeated(file.name, table.num_rows))}
    if file.target.name != "spectrum":
        columns["name"] = ("text", _repeated(model_name(file, metadata), table.num_rows))
    for column in spec.columns:
        if not column.is_vector:
            values = table.column(column.name)
            plain = values.cast(pa.string()) if column.dtype == "dictionary" else values
            columns[column.name] = (SQL_TYPES[column.dtype], plain)
    if file.target.has_zone:
        columns["zone"] = ("smallint", pa.chunked_array([pa.array(zone_of(table.column("dec").to_numpy()))]))
    if file.target.name == "match":
        columns["ordinal"] = ("integer", ordinals(table))
    if file.target.extra:
        columns[file.target.extra] = ("jsonb", _as_json(table.select(open_names)))
    kinds = {name: open_kind(table.column(name).type) for name in open_names}
    pixel = pixel_row(file.path, table) if file.target.name == "spectrum" else ()
    return Rows(file, table.num_rows, columns, kinds, pixel)


def _read_labels(file: SourceFile) -> Rows:
    import pyarrow as pa

    labels = label_columns(file.path)
    types = {"bigint": pa.int64(), "text": pa.string()}
    columns = {
        name: (kind, pa.chunked_array([pa.array(labels[name], types[kind])])) for name, kind in LABEL_COLUMNS.items()
    }
    n_rows = len(labels["targetid"])
    return Rows(file, n_rows, {"file": ("text", _repeated(file.name, n_rows)), **columns})


def label_columns(path: Path) -> dict[str, list[Any]]:
    """Return the last label of each target as the columns of `label`; what is no 64-bit number is no target."""
    labels = [label for target, label in sorted(last_labels(path).items()) if target in INT64]
    values = [(o.targetid, o.label, o.comment, o.who, o.when, o.model) for o in labels]
    return {name: [row[place] for row in values] for place, name in enumerate(LABEL_COLUMNS)}


def pixel_row(path: Path, table: pa.Table) -> tuple[Any, ...]:
    """Return the row of `pixel` of a file of spectra: its name says which pixel, its rows what is in it."""
    survey, _, rest = path.stem.partition("-")
    program, _, healpix = rest.rpartition("-")
    if not (program and healpix.isascii() and healpix.isdigit() and len(healpix) < 10):
        raise InputError(path, "is not named <survey>-<program>-<healpix>.parquet")
    z, snr = (table.column(name).to_numpy() for name in ("z", "snr"))
    found = (float(z.min()), float(z.max()), float(np.median(snr))) if table.num_rows else (None, None, None)
    row = (survey, program, int(healpix), table.num_rows, *found)
    assert len(row) == len(PIXEL_COLUMNS)
    return row


def model_name(file: SourceFile, metadata: Mapping[str, Any]) -> str:
    """Return the name of the model that scores or matches belong to."""
    if file.target.name == "score":
        return file.path.stem
    config = metadata.get("qad.config")
    name = config.get("name") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise InputError(file.path, "does not say of which model its candidates are; run `qad crossmatch` again")
    return name


def ordinals(table: pa.Table) -> pa.ChunkedArray:
    """Return the place of each match among those of its candidate, from 0; rows of a candidate are adjacent."""
    import pyarrow as pa

    rank = table.column("rank").to_numpy()
    is_first = np.ones(len(rank), bool)
    is_first[1:] = rank[1:] != rank[:-1]
    starts = np.flatnonzero(is_first)
    return pa.chunked_array([pa.array(np.arange(len(rank)) - starts[np.cumsum(is_first) - 1], pa.int32())])


def open_kind(dtype: pa.DataType) -> str:
    """Return the PostgreSQL type under which a query sees a column whose name its table leaves open."""
    import pyarrow as pa

    if pa.types.is_boolean(dtype):
        return "boolean"
    if pa.types.is_integer(dtype):
        return "numeric" if dtype == pa.uint64() else "bigint"
    return "double precision" if pa.types.is_floating(dtype) else "text"


def _as_json(table: pa.Table) -> pa.ChunkedArray:
    """Return each row as a JSON object; what JSON cannot say (NaN, infinity) is null."""
    import polars as pl
    import pyarrow as pa

    if not table.column_names:
        return _repeated("{}", table.num_rows)
    clean = pa.table({name: json_safe(table.column(name)) for name in table.column_names})
    frame = pl.DataFrame(pl.from_arrow(clean))
    text = frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()
    return pa.chunked_array([text.to_arrow().cast(pa.string())])


def json_safe(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers and text as the jsonb column holds them: no NaN, no infinity, no NUL, doubles for floats."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(values.type):
        doubles = values.cast(pa.float64())
        return pc.if_else(pc.is_finite(doubles), doubles, pa.scalar(None, pa.float64()))
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        return values
    return clean_text(values.cast(pa.string()))


def _repeated(text: str, n_rows: int) -> pa.ChunkedArray:
    import pyarrow as pa

    return pa.chunked_array([pa.repeat(pa.scalar(text, pa.string()), n_rows)])


def _check_key(rows: Rows) -> None:
    """Refuse a file that holds a row twice: an upsert could not say which of them counts."""
    import pyarrow as pa

    key: Sequence[str] = rows.file.target.key
    table = pa.table({name: rows.columns[name][1] for name in key})
    n_distinct = table.group_by(list(key)).aggregate([]).num_rows
    if n_distinct != table.num_rows:
        raise InputError(
            rows.file.path, f"{table.num_rows - n_distinct} rows have the key of another ({', '.join(key)})"
        )
