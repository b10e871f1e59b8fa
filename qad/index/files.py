"""The embedded engine: Polars SQL over the Parquet tables and the labels, as PostgreSQL would answer.

Whole numbers are 64 bits wide and others doubles before anything is computed, as in the statements that
:mod:`qad.index.postgres` sends: a comparison with 3.3 is then the same comparison.

Where the engines differ, a statement can be written so that they do not: name an expression with AS (each has a name of its
own for ``max(z)``); round before a CAST to integer (PostgreSQL rounds, Polars cuts off); write 1e0 for 1.0 beside a whole
number (a decimal has seven places in Polars); divide doubles by what is not 0 (PostgreSQL refuses, Polars says infinity).
Functions that one of them lacks are refused by that one.  A catalogue column that is text in one file and a fraction in
another can spell the fraction differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.errors import ConfigError, InputError
from qad.index.engines import common_kinds, unified
from qad.index.rows import SourceFile, json_safe, label_columns, model_name, open_kind, ordinals, pixel_row
from qad.index.sky import Box, Cone
from qad.index.tables import MATCH, SCORE, TARGETS, Target, files_of, table_columns
from qad.schema import SPECTRA
from qad.storage.expression import first_line, shown
from qad.storage.parquet import read_metadata, read_once, read_table
from qad.workspace import Workspace

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

CHECKED_FILES = 100
"""Of more files the first and last are looked at before a query, the others only when it fails."""


class Files:
    """The tables of a work directory."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @property
    def place(self) -> str:
        """The folder."""
        return f"the files of {self._workspace.root}"

    def columns(self, table: str) -> dict[str, str]:
        """Return the columns of a table, open ones included, and their types in PostgreSQL."""
        return {**table_columns(table), **(self._open(table) if table in ("score", "match") else {})}

    def run(self, statement: str, tables: Iterable[str], area: Cone | Box | None) -> pl.DataFrame:
        """Return the rows of a statement; see :class:`qad.index.engines.Engine`."""
        import polars as pl

        wanted = list(tables)
        frames = {table: self._frame(table, area) for table in wanted}
        try:
            frame = pl.SQLContext(frames).execute(statement, eager=True)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            for table in wanted:
                self._check(table, every=True)
            raise ConfigError(f"{shown(statement)!r}: {_reason(error)}") from None
        return unified(_joined_once(frame, statement))

    def _frame(self, table: str, area: Cone | Box | None) -> pl.LazyFrame:
        import polars as pl

        self._check(table)
        files = files_of(self._workspace, table)
        columns = self.columns(table)
        types = {name: _polars_type(kind) for name, kind in columns.items()}
        if table == "label":
            parts = [pl.LazyFrame(label_columns(self._workspace.labels), schema=types)]
        elif table == "pixel":
            rows = [pixel_row(path, read_table(path, SPECTRA, ["z", "snr"])) for path in files]
            parts = [pl.LazyFrame(rows, schema=types, orient="row")]
        elif table == "spectrum":
            parts = [pl.scan_parquet(files, glob=False)] if files else []
        else:
            parts = [self._open_frame(SCORE if table == "score" else MATCH, path) for path in files]
        typed = [_typed(part, columns) for part in parts]
        frame = pl.concat(typed) if typed else pl.LazyFrame(schema=types)
        if area is not None and "ra" in columns:
            frame = frame.filter(pl.sql_expr(area.condition("ra", "dec")))
        return frame

    def _open_frame(self, target: Target, path: Path) -> pl.LazyFrame:
        """Return the rows of a file whose name, and not its rows, says of which model they are."""
        import polars as pl

        spec = target.spec
        assert spec is not None
        if target is SCORE:
            frame = pl.scan_parquet(path, glob=False).with_columns(pl.lit(path.stem).alias("name"))
            floats = [name for name, kind in self._open(target.name).items() if kind == "double precision"]
            present = [name for name in frame.collect_schema().names() if name in floats]
            finite = (pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in present)
            return frame.with_columns(finite)
        metadata, table = read_once(path, spec)
        known = {column.name for column in spec.columns}
        columns: dict[str, pa.ChunkedArray] = {
            name: table.column(name) if name in known else json_safe(table.column(name)) for name in table.column_names
        }
        columns["ordinal"] = ordinals(table)
        found = {name: pl.Series(name, pl.from_arrow(column)) for name, column in columns.items()}
        name = model_name(SourceFile(path, path.name, target), metadata)
        return pl.LazyFrame(found).with_columns(pl.lit(name).alias("name"))

    def _open(self, table: str) -> dict[str, str]:
        """Return names and types of the columns that a table leaves open."""
        import pyarrow.parquet as pq

        target = SCORE if table == "score" else MATCH
        assert target.spec is not None
        known = {column.name for column in target.spec.columns}
        found = []
        for path in files_of(self._workspace, table):
            read_metadata(path, target.spec)
            schema = pq.read_schema(path)
            found.append({field.name: open_kind(field.type) for field in schema if field.name not in known})
        return common_kinds(found)

    def _check(self, table: str, every: bool = False) -> None:
        """Raise InputError for a file that is damaged, another table, or of a newer version."""
        files = [] if table == "label" else files_of(self._workspace, table)
        name = "spectrum" if table == "pixel" else table
        spec = next(target.spec for target in TARGETS if target.name == name)
        for path in files if every or len(files) <= CHECKED_FILES else [files[0], files[-1]]:
            assert spec is not None
            if every:
                read_once(path, spec)
            else:
                read_metadata(path, spec)


def _typed(frame: pl.LazyFrame, columns: dict[str, str]) -> pl.LazyFrame:
    import polars as pl

    present = set(frame.collect_schema().names())
    values = []
    for name, kind in columns.items():
        value = pl.col(name) if name in present else pl.lit(None)
        value = value.cast(_polars_type(kind))
        if kind == "text":
            # PostgreSQL's text holds no NUL
            value = value.str.replace_all("\x00", "\ufffd", literal=True)
        values.append(value.alias(name))
    return frame.select(values)


def _polars_type(kind: str) -> Any:
    import polars as pl

    if kind in ("text", "boolean"):
        return pl.String if kind == "text" else pl.Boolean
    if kind == "numeric":
        return pl.UInt64
    return pl.Float64 if kind in ("real", "double precision") else pl.Int64


def _joined_once(frame: pl.DataFrame, statement: str) -> pl.DataFrame:
    """Return the columns of JOIN … USING as SQL has them: once, and first in ``SELECT *``."""
    using = re.findall(r"\busing\s*\(([^()]*)\)", statement, re.IGNORECASE)
    names = [name.strip().strip('"') for part in reversed(using) for name in part.split(",")]
    frame = frame.drop([name for name in frame.columns if ":" in name and name.partition(":")[0] in names])
    if re.match(r"\s*select\s*\*", statement, re.IGNORECASE):
        first = [name for name in dict.fromkeys(names) if name in frame.columns]
        return frame.select(*first, *(name for name in frame.columns if name not in first))
    return frame


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return str(InputError(error.filename or "a file", error.strerror or "cannot be read"))
    return first_line(error)
