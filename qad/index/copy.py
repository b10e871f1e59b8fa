"""One file of the work directory into its table: all its rows, or none, become visible at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.errors import InputError
from qad.index.binary import SQL_TYPES, clean_text, encode_copy
from qad.schema import MATCHES, SCORES, SPECTRA, SPECTRUM_KEY, Table
from qad.storage.parquet import read_metadata, read_table

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa


@dataclass(frozen=True)
class Target:
    """A table of the database, and the table of the files that fills it.

    Attributes
    ----------
    name : str
        The table.
    folder : str
        Where the files lie, below the root; also the name of the kind.
    spec : Table
    key : tuple of str
        Primary key.
    extra : str
        The jsonb column that holds the columns that `spec` leaves open; empty: none.
    """

    name: str
    folder: str
    spec: Table
    key: tuple[str, ...]
    extra: str = ""


TARGETS = (
    Target("spectrum", "spectra", SPECTRA, SPECTRUM_KEY),
    Target("score", "scores", SCORES, ("name", *SPECTRUM_KEY), "views"),
    Target("match", "matches", MATCHES, ("name", "catalog", *SPECTRUM_KEY, "ordinal"), "columns"),
)


@dataclass(frozen=True)
class SourceFile:
    """A file to bring in: its place below the root, and what it looked like when its hash was taken."""

    path: Path
    name: str
    target: Target
    size: int
    mtime_ns: int
    sha256: str


def load_file(connection: psycopg.Connection[Any], file: SourceFile) -> int:
    """Make the table hold exactly the rows of `file`, inside the caller's transaction; return their number.

    Raises
    ------
    InputError
        If the file is damaged or not the table that its folder says.
    """
    from psycopg import sql

    columns, n_rows = read_columns(file)
    target = sql.Identifier(file.target.name)
    names = sql.SQL(", ").join(sql.Identifier(name) for name in columns)
    key = sql.SQL(", ").join(sql.Identifier(name) for name in file.target.key)
    rest = [sql.Identifier(name) for name in columns if name not in file.target.key]
    new = sql.SQL(", ").join(sql.SQL("excluded.{}").format(name) for name in rest)
    old = sql.SQL(", ").join(sql.SQL("{}.{}").format(target, name) for name in rest)
    connection.execute(sql.SQL("CREATE TEMP TABLE incoming (LIKE {}) ON COMMIT DROP").format(target))
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("COPY pg_temp.incoming ({}) FROM STDIN (FORMAT binary)").format(names)) as copy,
    ):
        for part in encode_copy(list(columns.values()), n_rows):
            copy.write(part)
    # rows that are the same are left alone: a second load writes nothing
    connection.execute(
        sql.SQL(
            "INSERT INTO {target} ({names}) SELECT {names} FROM pg_temp.incoming ORDER BY {key} "
            "ON CONFLICT ({key}) DO UPDATE SET ({rest}) = ROW({new}) WHERE ({old}) IS DISTINCT FROM ({new})"
        ).format(target=target, names=names, key=key, rest=sql.SQL(", ").join(rest), new=new, old=old)
    )
    same = sql.SQL(" AND ").join(sql.SQL("i.{0} = t.{0}").format(sql.Identifier(name)) for name in file.target.key)
    connection.execute(
        sql.SQL(
            "DELETE FROM {target} AS t WHERE t.file = %s AND NOT EXISTS (SELECT FROM pg_temp.incoming AS i WHERE {same})"
        ).format(target=target, same=same),
        [file.name],
    )
    connection.execute("DROP TABLE pg_temp.incoming")
    return n_rows


def remove_file(connection: psycopg.Connection[Any], name: str, target: Target) -> None:
    """Remove the rows of a file that is gone, inside the caller's transaction."""
    from psycopg import sql

    connection.execute(sql.SQL("DELETE FROM {} WHERE file = %s").format(sql.Identifier(target.name)), [name])
    connection.execute("DELETE FROM source_file WHERE path = %s", [name])


def read_columns(file: SourceFile) -> tuple[dict[str, tuple[str, pa.ChunkedArray]], int]:
    """Return the columns of the database's table by name, each with its PostgreSQL type, and the number of rows."""
    import pyarrow as pa

    spec = file.target.spec
    scalars = [column for column in spec.columns if not column.is_vector]
    open_names = _open_columns(file)
    table = read_table(file.path, spec, [column.name for column in scalars] + open_names)
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(file.path, f"damaged: {error}", where=spec.tag) from None
    columns = {"file": ("text", _repeated(file.name, table.num_rows))}
    if file.target.name != "spectrum":
        columns["name"] = ("text", _repeated(_model_name(file), table.num_rows))
    columns.update({column.name: (SQL_TYPES[column.dtype], table.column(column.name)) for column in scalars})
    if file.target.name == "match":
        columns["ordinal"] = ("integer", _ordinals(table))
    if file.target.extra:
        columns[file.target.extra] = ("jsonb", _as_json(table.select(open_names)))
    _check_key(file, columns)
    return columns, table.num_rows


def _open_columns(file: SourceFile) -> list[str]:
    """Return the columns of the file whose names its table leaves open."""
    import pyarrow.parquet as pq

    known = {column.name for column in file.target.spec.columns}
    read_metadata(file.path, file.target.spec)
    return [name for name in pq.read_schema(file.path).names if name not in known]


def _model_name(file: SourceFile) -> str:
    if file.target.name == "score":
        return file.path.stem
    config = read_metadata(file.path, file.target.spec).get("qad.config")
    name = config.get("name") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise InputError(file.path, "does not say of which model its candidates are; run `qad crossmatch` again")
    return name


def _ordinals(table: pa.Table) -> pa.ChunkedArray:
    """Return the place of each match among those of its candidate, from 0; rows of a candidate are adjacent."""
    import pyarrow as pa

    rank = table.column("rank").to_numpy()
    is_first = np.ones(len(rank), bool)
    is_first[1:] = rank[1:] != rank[:-1]
    starts = np.flatnonzero(is_first)
    return pa.chunked_array([pa.array(np.arange(len(rank)) - starts[np.cumsum(is_first) - 1], pa.int32())])


def _as_json(table: pa.Table) -> pa.ChunkedArray:
    """Return each row as a JSON object; what JSON cannot say (NaN, infinity) is null."""
    import polars as pl
    import pyarrow as pa

    if not table.column_names:
        return _repeated("{}", table.num_rows)
    clean = pa.table({name: _json_safe(table.column(name)) for name in table.column_names})
    frame = pl.DataFrame(pl.from_arrow(clean))
    text = frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()
    return pa.chunked_array([text.to_arrow().cast(pa.string())])


def _json_safe(values: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(values.type):
        return pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type))
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        return values
    return clean_text(values.cast(pa.string()))


def _repeated(text: str, n_rows: int) -> pa.ChunkedArray:
    import pyarrow as pa

    return pa.chunked_array([pa.repeat(pa.scalar(text, pa.string()), n_rows)])


def _check_key(file: SourceFile, columns: dict[str, tuple[str, pa.ChunkedArray]]) -> None:
    """Refuse a file that holds a row twice: an upsert could not say which of them counts."""
    import pyarrow as pa

    key: Sequence[str] = file.target.key
    rows = pa.table({name: columns[name][1] for name in key})
    n_distinct = rows.group_by(list(key)).aggregate([]).num_rows
    if n_distinct != rows.num_rows:
        raise InputError(file.path, f"{rows.num_rows - n_distinct} rows have the key of another ({', '.join(key)})")
