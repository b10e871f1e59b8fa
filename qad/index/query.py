"""A question to the index: as SQL, or in parts that become SQL; and who is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qad.config import Config
from qad.errors import ConfigError, InputError, ServiceError
from qad.index.connection import Database, schema_version
from qad.index.engines import Engine, as_stored
from qad.index.files import Files
from qad.index.migrations import migrations
from qad.index.plan import n_behind
from qad.index.postgres import Postgres
from qad.index.sky import Box, Cone
from qad.index.tables import TABLE_KEYS, table_columns
from qad.schema import SPECTRUM_KEY
from qad.storage.expression import check_columns, check_statement, parse_sort, parse_where, words_of

if TYPE_CHECKING:
    import polars as pl

EngineName = Literal["auto", "postgres", "files"]
JOINED = ("spectrum", "score", "label")
"""Tables whose columns can be named beside those of the table that is asked, with at most one row for each of its rows."""
SHOWN = {
    "spectrum": ("targetid", "survey", "program", "healpix", "ra", "dec", "z", "snr"),
    "score": (
        "rank",
        "targetid",
        "survey",
        "program",
        "ra",
        "dec",
        "z",
        "snr",
        "score",
        "p_value",
        "artefact",
        "reason",
    ),
    "match": ("rank", "targetid", "survey", "program", "catalog", "catalog_id", "sep_arcsec", "best"),
    "label": tuple(table_columns("label")),
    "pixel": tuple(table_columns("pixel")),
}
"""Columns that are shown if none are named."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes
    ----------
    statement : str
        A whole SQL statement; empty: the rest says what is asked.
    table : str
    name : str
        Model whose scores and matches are meant.
    columns : sequence of str
        Empty: a few; ``all``: every column of the table.
    where : str
        SQL expression over any column of the table and of :data:`JOINED`.
    sort : str
        ``column`` or ``-column``; empty: by key.
    top : int
        Rows at most; 0: all.
    area : Cone or Box, optional
        Only what lies in it.
    """

    statement: str = ""
    table: str = "spectrum"
    name: str = "default"
    columns: Sequence[str] = ()
    where: str = ""
    sort: str = ""
    top: int = 0
    area: Cone | Box | None = None


def ask(engine: Engine, question: Question) -> pl.DataFrame:
    """Return the rows that answer a question.

    Raises
    ------
    ConfigError
        If it names what there is not, or is no SQL.
    ServiceError, InputError
        As the engine raises them.
    """
    statement = check_statement(question.statement) if question.statement else build(engine, question)
    words = words_of(statement)
    tables = [table for table in TABLE_KEYS if table in words]
    return as_stored(engine.run(statement, tables, question.area))


def build(engine: Engine, question: Question) -> str:
    """Return the statement that the parts of a question make.

    Raises
    ------
    ConfigError
        If a part is wrong.
    """
    table = question.table
    if table not in TABLE_KEYS:
        raise ConfigError(f"--from {table!r}: tables are {', '.join(TABLE_KEYS)}")
    found = _known(engine, table)
    columns = list(dict.fromkeys(question.columns or SHOWN[table]))
    if columns == ["all"]:
        columns = list(engine.columns(table))
    check_columns(columns, found, "--columns")
    named = parse_where(question.where, found)[1] if question.where.strip() else []
    order = [parse_sort(question.sort, found)] if question.sort else []
    key = [name for name in TABLE_KEYS[table] if (name, False) not in order]
    wanted = list(dict.fromkeys([*columns, *named, *(name for name, _ in order), *key]))
    joined = [other for other in JOINED if any(found[name] == other for name in wanted)]
    if question.area is not None and table in ("match", "label") and "spectrum" not in joined:
        joined.insert(0, "spectrum")
    if question.area is not None and table == "pixel":
        raise ConfigError("--from pixel has no positions: ask spectrum, or --where over healpix")
    parts = [f"{found[name]}.{_quoted(name)} AS {_quoted(name)}" for name in wanted]
    source = " ".join([table, *(_join(table, other, question) for other in joined if other != table)])
    model = f" WHERE {table}.name = {_literal(question.name)}" if "name" in TABLE_KEYS[table] else ""
    inner = f"SELECT {', '.join(parts)} FROM {source}{model}"
    where = f" WHERE ({question.where}\n)" if question.where.strip() else ""
    sorts = [
        f"{_quoted(name)}{' DESC' if down else ''} NULLS LAST" for name, down in [*order, *((k, False) for k in key)]
    ]
    limit = f" LIMIT {question.top}" if question.top else ""
    shown = ", ".join(_quoted(name) for name in columns)
    return f"SELECT {shown} FROM ({inner}) AS found{where} ORDER BY {', '.join(sorts)}{limit}"


def _known(engine: Engine, table: str) -> dict[str, str]:
    """Return every column that can be named, and the table that it is taken from."""
    others = () if table == "pixel" else tuple(other for other in JOINED if other != table)
    found: dict[str, str] = {}
    for other in (table, *others):
        found = {**dict.fromkeys(engine.columns(other), other), **found}
    return found


def _join(table: str, other: str, question: Question) -> str:
    keys: Mapping[str, Sequence[str]] = TABLE_KEYS
    shared = [name for name in SPECTRUM_KEY if name in keys[table] and name in keys[other]]
    conditions = [f"{other}.{name} = {table}.{name}" for name in shared]
    kind = "JOIN" if other == "spectrum" and question.area is not None else "LEFT JOIN"
    if other != "score":
        return f"{kind} {other} ON {' AND '.join(conditions)}"
    model = f"(SELECT * FROM score WHERE name = {_literal(question.name)})"
    return f"{kind} {model} AS score ON {' AND '.join(conditions)}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def open_engine(config: Config, wanted: EngineName) -> Iterator[tuple[Engine, str]]:
    """Give the engine that answers, and why it is not another one (empty where there is no reason to tell).

    With ``auto`` it is PostgreSQL if it is configured, answers and holds what the files hold; else the files.

    Raises
    ------
    ConfigError, ServiceError, InputError
        With ``postgres``, if the server is not configured, cannot be reached, or holds tables of another version.
    """
    if wanted == "files":
        yield Files(config.workspace), ""
        return
    if wanted == "auto" and not config.index.dsn.get_secret_value():
        yield Files(config.workspace), "index.dsn is not set"
        return
    with Database(config.index) as database:
        try:
            reason = _obstacle(database, config)
        except (ServiceError, InputError) as error:
            if wanted == "postgres":
                raise
            reason = str(error)
        if wanted == "postgres" or not reason:
            yield Postgres(database, config.index.query_timeout_s), reason
        else:
            yield Files(config.workspace), reason


def _obstacle(database: Database, config: Config) -> str:
    """Return why the tables do not answer for the files."""
    version = database.transaction(lambda connection: schema_version(connection, database.schema))
    if version < max(migrations()):
        raise InputError(
            database.place, f"schema {database.schema} is at version {version}; `qad index sync` brings it forward"
        )
    behind = n_behind(database, config.root)
    return f"the index is {behind:,} files behind: `qad index sync` catches up" if behind else ""
