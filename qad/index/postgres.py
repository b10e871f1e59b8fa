"""Asking PostgreSQL: one statement, in a transaction that can only read, for as long as was said.

A statement does not name the database's tables but views of them that stand before it (``WITH spectrum AS …``): with
doubles for reals, and the columns that scores and matches leave open as columns.  The planner sees through them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from qad.errors import ConfigError, ServiceError
from qad.index.connection import Database
from qad.index.engines import INT64_MAX, common_kinds, unified
from qad.index.sky import Box, Cone, zone_condition
from qad.index.tables import MATCH, SCORE, TARGETS, table_columns
from qad.storage.expression import shown

if TYPE_CHECKING:
    import polars as pl
    import psycopg
    from psycopg import sql

INTEGERS, REALS, BOOLEAN, NUMERIC, TEXT = (20, 21, 23, 26), (700, 701), 16, 1700, (25, 18, 19, 1042, 1043)
"""Object identifiers of PostgreSQL's types (pg_type.dat)."""


class Postgres:
    """The tables of a database.

    Parameters
    ----------
    database : Database
    timeout_s : float
        After which the server gives a query up.
    """

    def __init__(self, database: Database, timeout_s: float) -> None:
        self._database = database
        self._timeout_s = timeout_s
        self._known: dict[str, dict[str, str]] = {}

    @property
    def place(self) -> str:
        """The server, the database and the schema."""
        return f"{self._database.place}, schema {self._database.schema}"

    def columns(self, table: str) -> dict[str, str]:
        """Return the columns of a table, open ones included, and their types in PostgreSQL."""
        if table not in self._known:
            self._known[table] = {**table_columns(table), **self._open(table)}
        return self._known[table]

    def run(self, statement: str, tables: Iterable[str], area: Cone | Box | None) -> pl.DataFrame:
        """Return the rows of a statement; see :class:`qad.index.engines.Engine`."""
        import psycopg

        try:
            return unified(_frame(*self._ask(self.text(statement, tables, area))))
        except psycopg.Error as error:
            raise ConfigError(f"{shown(statement)!r}: {_reason(error)}") from None

    def text(self, statement: str, tables: Iterable[str], area: Cone | Box | None) -> str:
        """Return the statement with the views of the tables before it."""
        from psycopg import sql

        views = [self._view(table, area) for table in tables]
        if not views:
            return statement
        # a statement that begins so itself goes on with its own names
        own = re.match(r"\s*with\b(\s+recursive\b)?", statement, re.IGNORECASE)
        rest = f", {statement[own.end() :]}" if own else f" {statement}"
        recursive = "RECURSIVE " if own and own.group(1) else ""
        return sql.SQL(f"WITH {recursive}{{}}").format(sql.SQL(", ").join(views)).as_string() + rest

    def _ask(self, text: str) -> tuple[list[Any], list[tuple[Any, ...]]]:
        import psycopg
        from psycopg import sql

        def work(connection: psycopg.Connection[Any]) -> tuple[list[Any], list[tuple[Any, ...]]]:
            connection.execute("SET TRANSACTION READ ONLY")
            milliseconds = max(1, round(self._timeout_s * 1000))
            connection.execute("SELECT set_config('statement_timeout', %s, true)", [str(milliseconds)])
            # the schema before pg_catalog: whole numbers divide as in the files
            schema = sql.Identifier(self._database.schema)
            connection.execute(sql.SQL("SET LOCAL search_path TO {}, pg_catalog").format(schema))
            try:
                # binary is the protocol that takes one statement only
                cursor = connection.execute(text.encode(), binary=True)
            except psycopg.errors.QueryCanceled:
                raise ServiceError(
                    f"{self._database.place}: no answer in {self._timeout_s:g} s; narrow the query, "
                    "or raise index.query_timeout_s"
                ) from None
            return list(cursor.description or []), cursor.fetchall()

        return self._database.transaction(work)

    def _open(self, table: str) -> dict[str, str]:
        target = {"score": SCORE, "match": MATCH}.get(table)
        if target is None:
            return {}
        rows = self._database.transaction(
            lambda connection: connection.execute(
                "SELECT open_columns FROM source_file WHERE kind = %s ORDER BY path", [target.folder]
            ).fetchall()
        )
        return common_kinds(row[0] for row in rows)

    def _view(self, table: str, area: Cone | Box | None) -> sql.Composed:
        from psycopg import sql

        target = next((target for target in TARGETS if target.name == table), None)
        own = table_columns(table)
        columns = [
            _column(name, kind, name in own, target.extra if target else "")
            for name, kind in self.columns(table).items()
        ]
        where = sql.SQL("")
        if area is not None and "ra" in own:
            where = sql.SQL(f" WHERE {zone_condition(area, 'zone', 'ra')} AND {area.condition('ra', 'dec')}")
        return sql.SQL("{} AS NOT MATERIALIZED (SELECT {} FROM {}{})").format(
            sql.Identifier(table), sql.SQL(", ").join(columns), sql.Identifier(self._database.schema, table), where
        )


def _column(name: str, kind: str, is_own: bool, extra: str) -> sql.Composed:
    from psycopg import sql

    if not is_own:
        value = sql.SQL("({} ->> {})").format(sql.Identifier(extra), sql.Literal(name))
        text = ' COLLATE "C"' if kind == "text" else f"::{kind}"
        return sql.SQL(f"{{}}{text} AS {{}}").format(value, sql.Identifier(name))
    # a real compares with 3.3 as a double would; the files do the same
    double = "::double precision" if kind == "real" else ""
    return sql.SQL(f"{{}}{double} AS {{}}").format(sql.Identifier(name), sql.Identifier(name))


def _frame(description: Sequence[Any], rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    import polars as pl

    names = [column.name for column in description]
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice:
        raise ConfigError(f"the column {twice} comes twice: select columns by name, and rename one with AS")
    columns = list(zip(*rows, strict=True)) or [() for _ in names]
    return pl.DataFrame(
        [_series(column.name, column.type_code, values) for column, values in zip(description, columns, strict=True)]
    )


def _series(name: str, kind: int, values: Sequence[Any]) -> pl.Series:
    import polars as pl

    if kind in INTEGERS:
        return pl.Series(name, values, pl.Int64)
    if kind in REALS:
        return pl.Series(name, values, pl.Float64)
    if kind == BOOLEAN:
        return pl.Series(name, values, pl.Boolean)
    if kind == NUMERIC:
        # a sum of whole numbers is one, if 64 bits hold it
        whole = all(value is None or _is_whole(value) for value in values)
        converted = [None if value is None else int(value) if whole else float(value) for value in values]
        return pl.Series(name, converted, pl.Int64 if whole else pl.Float64)
    return pl.Series(name, [None if value is None else str(value) for value in values], pl.String)


def _is_whole(value: Decimal) -> bool:
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= 0 and abs(value) <= INT64_MAX


def _reason(error: psycopg.Error) -> str:
    """Return what the server says, on one line; places in the statement are not those that the user typed."""
    message = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
    hint = error.diag.message_hint
    return f"{message}; {hint}" if hint else message
