"""Which candidates, in which order: the rows of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qad.inspection.tables import Tables
from qad.storage.expression import apply_where, check_columns, parse_sort, parse_where

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Query:
    """What to show.

    Attributes
    ----------
    top : int
        Rows at most; 0 for all.
    where : str
        SQL expression over any column; empty for all rows.
    sort : str
        ``column``, ``-column``, ``column asc`` or ``column desc``.
    targetids : sequence of int
        Only these targets; one without a score has no row.
    """

    top: int = 20
    where: str = ""
    sort: str = "rank"
    targetids: Sequence[int] = ()


def candidates(tables: Tables, query: Query, columns: Sequence[str]) -> pl.DataFrame:
    """Return the wanted rows with the wanted columns beside those of the key.

    Raises
    ------
    ConfigError
        If an expression or a column is wrong.
    """
    check_columns(columns, tables.known, "--columns")
    sort, downwards = parse_sort(query.sort, tables.known)
    if not query.where and not query.targetids and query.top and (sort, downwards) == ("rank", False):
        names = [name for name in columns if name in tables.scores_columns]
        return tables.with_columns(tables.first(query.top, names), columns)
    frame = _filtered(tables, query, sort)
    frame = frame.sort(sort, "rank", descending=[downwards, False], nulls_last=True)
    return tables.with_columns(frame.head(query.top) if query.top else frame, columns)


def _filtered(tables: Tables, query: Query, sort: str) -> pl.DataFrame:
    expression, names = parse_where(query.where, tables.known) if query.where.strip() else (None, [])
    read_now = [name for name in [*names, sort] if name in tables.scores_columns]
    frame = tables.of_targets(query.targetids, read_now) if query.targetids else tables.all_rows(read_now)
    frame = tables.with_columns(frame, [*names, sort])
    return frame if expression is None else apply_where(frame, expression, query.where)
