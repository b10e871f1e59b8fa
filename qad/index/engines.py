"""What both ways of asking have in common: the tables' columns, and rows whose types do not tell who was asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from qad.errors import ConfigError
from qad.index.sky import Box, Cone
from qad.index.tables import TARGETS

if TYPE_CHECKING:
    import polars as pl

NUMBERS = frozenset({"bigint", "numeric", "double precision"})
INT64_MAX = 2**63 - 1


class Engine(Protocol):
    """PostgreSQL, or the files."""

    @property
    def place(self) -> str:
        """What is asked, as messages name it."""

    def columns(self, table: str) -> dict[str, str]:
        """Return the columns of a table, open ones included, and their types in PostgreSQL."""

    def run(self, statement: str, tables: Iterable[str], area: Cone | Box | None) -> pl.DataFrame:
        """Return the rows of a statement.

        Parameters
        ----------
        statement : str
            As :func:`qad.storage.expression.check_statement` lets it pass.
        tables : iterable of str
            Those that it can name.
        area : Cone or Box, optional
            The tables that hold positions are cut to it.

        Raises
        ------
        ConfigError
            If the statement is wrong.
        ServiceError, InputError
            If the server does not answer in time; if a file is damaged.
        """


def common_kinds(files: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return one type for each open column of several files: numbers meet in a double, other things in text."""
    found: dict[str, set[str]] = {}
    for columns in files:
        for name, kind in columns.items():
            found.setdefault(name, set()).add(kind)
    return {name: _common(kinds) for name, kinds in sorted(found.items())}


def _common(kinds: set[str]) -> str:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "double precision" if kinds <= NUMBERS else "text"


def unified(frame: pl.DataFrame) -> pl.DataFrame:
    """Return rows with one type for whole numbers (Int64), one for others (Float64), one for text.

    Raises
    ------
    ConfigError
        If a column's name comes twice.
    """
    import polars as pl

    twice = next((name for name in frame.columns if ":" in name), None)
    if twice:
        raise ConfigError(
            f"the column {twice.partition(':')[0]} comes twice: select columns by name, and rename one with AS"
        )
    return frame.with_columns(_unified(series) for series in frame.get_columns()) if frame.width else pl.DataFrame()


def _unified(series: pl.Series) -> pl.Series:
    import polars as pl

    dtype = series.dtype
    if dtype == pl.UInt64 or dtype == pl.Int128:
        largest: Any = series.abs().max() if dtype == pl.Int128 else series.max()
        return series.cast(pl.Float64 if largest is not None and largest > INT64_MAX else pl.Int64)
    if dtype.is_integer():
        return series.cast(pl.Int64)
    if dtype.is_numeric():
        return series.cast(pl.Float64)
    return series if dtype == pl.Boolean else series.cast(pl.String)


def as_stored(frame: pl.DataFrame) -> pl.DataFrame:
    """Return rows with the columns that the tables hold in single precision as such: 3.3, not 3.299999952316284."""
    import polars as pl

    single = [
        name
        for name, dtype in frame.schema.items()
        if dtype == pl.Float64 and (name in _single_precision() or name.startswith("view_"))
    ]
    exact = [name for name in single if frame[name].cast(pl.Float32).cast(pl.Float64).equals(frame[name])]
    return frame.with_columns(pl.col(exact).cast(pl.Float32)) if exact else frame


def _single_precision() -> set[str]:
    specs = [target.spec for target in TARGETS if target.spec is not None]
    return {column.name for spec in specs for column in spec.columns if column.dtype == "float32"}
