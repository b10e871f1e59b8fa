"""Files of one table into the database: all their rows, or none, become visible at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.index.binary import HEADER, TRAILER, encode_rows
from qad.index.rows import Rows, start_fingerprint
from qad.index.tables import PIXEL_COLUMNS, SPECTRUM, TABLE_KEYS, Target

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa
    from psycopg import sql


def load(connection: psycopg.Connection[Any], files: Sequence[Rows], known: frozenset[str]) -> None:
    """Make the tables hold exactly the rows of `files`, inside the caller's transaction.

    Parameters
    ----------
    connection : Connection
    files : sequence of Rows
        Of one table.
    known : frozenset of str
        Names of those that the database holds already, as they were.
    """
    target = files[0].file.target
    fingerprints: list[str] = []
    new = [rows for rows in files if rows.file.name not in known]
    old = [rows for rows in files if rows.file.name in known]
    if new:
        fingerprints += _insert(connection, target, new)
    if old:
        fingerprints += _upsert(connection, target, old)
    if target is SPECTRUM:
        _put_pixels(connection, files)
    _register(connection, [*new, *old], fingerprints)


def remove_files(connection: psycopg.Connection[Any], target: Target, names: Sequence[str]) -> None:
    """Remove the rows of files that are gone, inside the caller's transaction."""
    tables = [target.name, "pixel"] if target is SPECTRUM else [target.name]
    for table in tables:
        connection.execute(_sql("DELETE FROM {} WHERE file = ANY(%s)", table), [list(names)])
    connection.execute("DELETE FROM source_file WHERE path = ANY(%s)", [list(names)])


def touch(connection: psycopg.Connection[Any], files: Sequence[tuple[str, int, int]]) -> None:
    """Remember another size and time of files (name, bytes, ns) whose rows are the same."""
    connection.execute(
        "UPDATE source_file AS f SET size = n.size, mtime_ns = n.mtime_ns "
        "FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS n(path, size, mtime_ns) WHERE f.path = n.path",
        [list(column) for column in zip(*files, strict=True)],
    )


def _insert(connection: psycopg.Connection[Any], target: Target, files: Sequence[Rows]) -> list[str]:
    """Copy files that are new straight into their table; if a row is there already, as that of another file, upsert."""
    import psycopg

    try:
        with connection.transaction():
            return _copy(connection, target.name, files)
    except psycopg.errors.UniqueViolation:
        return _upsert(connection, target, files)


def _upsert(connection: psycopg.Connection[Any], target: Target, files: Sequence[Rows]) -> list[str]:
    """Copy files into a temporary table, and from there what is new or different; rows that they lack now go."""
    incoming = f"incoming_{target.name}"
    connection.execute(
        _sql("CREATE TEMP TABLE IF NOT EXISTS {} (LIKE {}) ON COMMIT DELETE ROWS", incoming, target.name)
    )
    connection.execute(_sql("DELETE FROM pg_temp.{}", incoming))
    fingerprints = _copy(connection, incoming, files, "pg_temp.")
    names = list(files[0].columns)
    rest = [name for name in names if name not in target.key]
    # rows that are the same are left alone: a second load writes nothing
    connection.execute(
        _sql(
            "INSERT INTO {} ({}) SELECT {} FROM pg_temp.{} ON CONFLICT ({}) DO UPDATE SET ({}) = ROW({}) "
            "WHERE ({}) IS DISTINCT FROM ({})",
            target.name,
            names,
            names,
            incoming,
            list(target.key),
            rest,
            [("excluded", name) for name in rest],
            [(target.name, name) for name in rest],
            [("excluded", name) for name in rest],
        )
    )
    _delete_missing(connection, target, incoming, files)
    return fingerprints


def _delete_missing(connection: psycopg.Connection[Any], target: Target, incoming: str, files: Sequence[Rows]) -> None:
    from psycopg import sql

    # files of a batch are neighbours: one interval of names is found in one pass of the index of blocks
    names = [rows.file.name for rows in files]
    same = sql.SQL(" AND ").join(sql.SQL("i.{0} = t.{0}").format(sql.Identifier(name)) for name in target.key)
    connection.execute(
        sql.SQL(
            "DELETE FROM {target} AS t WHERE t.file BETWEEN %s AND %s AND t.file IN (SELECT unnest(%s::text[])) AND NOT EXISTS (SELECT FROM pg_temp.{incoming} AS i WHERE {same})"
        ).format(target=sql.Identifier(target.name), incoming=sql.Identifier(incoming), same=same),
        [min(names), max(names), names],
    )


def _copy(connection: psycopg.Connection[Any], table: str, files: Sequence[Rows], schema: str = "") -> list[str]:
    """Copy files into a table, and return the fingerprint of each."""
    digests = [start_fingerprint(rows) for rows in files]
    lasts = np.cumsum([rows.n_rows for rows in files])
    statement = _sql(f"COPY {schema}{{}} ({{}}) FROM STDIN (FORMAT binary)", table, list(files[0].columns))
    first = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(HEADER)
        for part, ends in encode_rows(_joined(files), int(lasts[-1])):
            copy.write(part)
            last = first + len(ends)
            # the files that have rows in this part, and where in its bytes each begins and ends
            for place in range(int(np.searchsorted(lasts, first, "right")), len(files)):
                begin = max(int(lasts[place]) - files[place].n_rows, first)
                end = min(int(lasts[place]), last)
                if begin >= last:
                    break
                if end > begin:
                    digests[place].update(
                        part[int(ends[begin - first - 1]) if begin > first else 0 : int(ends[end - first - 1])]
                    )
            first = last
        copy.write(TRAILER)
    return [digest.hexdigest() for digest in digests]


def _joined(files: Sequence[Rows]) -> list[tuple[str, pa.ChunkedArray]]:
    """Return the columns of several files as one: encoding costs as much for a hundred rows as for thousands."""
    import pyarrow as pa

    if len(files) == 1:
        return list(files[0].columns.values())
    tables = [pa.table({name: values for name, (_kind, values) in rows.columns.items()}) for rows in files]
    whole = pa.concat_tables(tables).combine_chunks()
    return [(kind, whole.column(name)) for name, (kind, _values) in files[0].columns.items()]


def _put_pixels(connection: psycopg.Connection[Any], files: Sequence[Rows]) -> None:
    names = ["file", *PIXEL_COLUMNS]
    key = list(TABLE_KEYS["pixel"])
    rest = [name for name in names if name not in key]
    statement = _sql(
        "INSERT INTO pixel ({}) SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::integer[], %s::bigint[], "
        "%s::double precision[], %s::double precision[], %s::double precision[]) "
        "ON CONFLICT ({}) DO UPDATE SET ({}) = ROW({}) WHERE ({}) IS DISTINCT FROM ({})",
        names,
        key,
        rest,
        [("excluded", name) for name in rest],
        [("pixel", name) for name in rest],
        [("excluded", name) for name in rest],
    )
    values = [(rows.file.name, *rows.pixel) for rows in files]
    connection.execute(statement, [list(column) for column in zip(*values, strict=True)])


def _register(connection: psycopg.Connection[Any], files: Sequence[Rows], fingerprints: Sequence[str]) -> None:
    values = [
        (
            *(rows.file.name, rows.file.target.folder, rows.file.size, rows.file.mtime_ns),
            *(digest, rows.n_rows, json.dumps(dict(rows.open_columns))),
        )
        for rows, digest in zip(files, fingerprints, strict=True)
    ]
    connection.execute(
        "INSERT INTO source_file (path, kind, size, mtime_ns, sha256, n_rows, open_columns) SELECT * FROM unnest("
        "%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::jsonb[]) "
        "ON CONFLICT (path) DO UPDATE SET (kind, size, mtime_ns, sha256, n_rows, open_columns) = "
        "ROW(excluded.kind, excluded.size, excluded.mtime_ns, excluded.sha256, excluded.n_rows, excluded.open_columns)",
        [list(column) for column in zip(*values, strict=True)],
    )


def _sql(text: str, *names: str | Sequence[str | tuple[str, str]]) -> sql.Composed:
    """Return a statement with identifiers, or lists of them, in its places."""
    from psycopg import sql

    def place(name: str | tuple[str, str]) -> sql.Identifier:
        return sql.Identifier(name) if isinstance(name, str) else sql.Identifier(*name)

    def listed(item: str | Sequence[str | tuple[str, str]]) -> sql.Composable:
        return place(item) if isinstance(item, str) else sql.SQL(", ").join(place(name) for name in item)

    return sql.SQL(text).format(*(listed(item) for item in names))


def batches(files: Iterator[Rows], max_rows: int, max_files: int) -> Iterator[list[Rows]]:
    """Group files of one table, in their order, so that a transaction is worth its while."""
    batch: list[Rows] = []
    n_rows = 0
    for rows in files:
        if batch and (
            rows.file.target is not batch[0].file.target or n_rows + rows.n_rows > max_rows or len(batch) == max_files
        ):
            yield batch
            batch, n_rows = [], 0
        batch.append(rows)
        n_rows += rows.n_rows
    if batch:
        yield batch
