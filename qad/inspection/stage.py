"""``qad inspect``: the top candidates, or everything known of some."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qad.config import Config
from qad.inspection.formats import rows_as_json
from qad.results import RunOptions, StageResult

if TYPE_CHECKING:
    import polars as pl

    from qad.inspection.tables import Tables


@dataclass(frozen=True)
class InspectResult(StageResult):
    """What was found.

    Attributes
    ----------
    rows : tuple of dict
        The rows of the table, JSON types: a TARGETID is a string, NaN is None.
    targets : tuple of dict
        With ``targetid``: one document a target, see :func:`qad.inspection.details.describe`.
    frame : polars.DataFrame
        The same rows with their own types; TARGETID is int64.
    """

    rows: tuple[dict[str, Any], ...] = ()
    targets: tuple[dict[str, Any], ...] = ()
    frame: pl.DataFrame | None = field(default=None, repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        more = {"targets": list(self.targets)} if self.targets else {}
        return {**super().as_json(), "rows": list(self.rows), **more}


def inspect(config: Config, options: RunOptions, tables: Tables | None = None) -> InspectResult:
    """Return the top candidates by ``[inspect]``, or the details of its targets; nothing is written.

    `tables` may be given by who has opened them already.

    Raises
    ------
    ConfigError
        If an expression or a column is wrong.
    InputError
        If there are no scores of that name, or a target is in no table.
    """
    started = time.monotonic()
    tables = open_tables(config) if tables is None else tables
    section = config.inspect
    targets = _details(tables, section.targetid) if section.targetid else []
    frame = select(config, tables, section.columns)
    return InspectResult(
        stage="inspect",
        n_done=frame.height,
        paths=(tables.scores,),
        counts={"rows": frame.height, "scored": tables.n_rows},
        seconds=time.monotonic() - started,
        dry_run=options.dry_run,
        rows=tuple(rows_as_json(frame)),
        targets=tuple(targets),
        frame=frame,
    )


def open_tables(config: Config) -> Tables:
    """Return the tables of the configured model."""
    from qad.inspection.tables import Tables

    return Tables(config.workspace, config.inspect.name, config.inspect.model or config.score.model)


def select(config: Config, tables: Tables, columns: Sequence[str]) -> pl.DataFrame:
    """Return the configured rows with exactly these columns."""
    from qad.inspection.table import Query, candidates

    section = config.inspect
    top = 0 if section.targetid else section.top
    query = Query(top, section.where, section.sort, tuple(section.targetid))
    return candidates(tables, query, columns).select(list(dict.fromkeys(columns)))


def _details(tables: Tables, targetids: Sequence[int]) -> list[dict[str, Any]]:
    from qad.inspection.details import describe

    return describe(tables, list(dict.fromkeys(targetids)))
