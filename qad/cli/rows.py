"""Rows that a query brought, on their way out: a table for people, or a format for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.cli.runtime import Run

if TYPE_CHECKING:
    import polars as pl

    from qad.inspection.formats import Format

EXACT_IN_DOUBLE = 2**53


def output_format(form: str | None, output: Path | None) -> str:
    """Return the format of the rows: as asked for, or as the name of the file says; see `qad inspect`."""
    from qad.inspection.view import Wanted, output_format

    # the option lists the forms, so no other comes here; its type does not say so
    return output_format(Wanted(form=form, output=output))  # type: ignore[arg-type]


def check_parts(sql: str | None, parts: Mapping[str, Any], cone: str | None, box: str | None) -> None:
    """Raise ConfigError for parts that cannot stand together."""
    from qad.errors import ConfigError

    given = [flag for flag, value in parts.items() if value is not None]
    if sql is not None and given:
        raise ConfigError(f"a whole SELECT says all by itself: leave out {', '.join(given)}, or the SELECT")
    if sql is not None and not sql.strip():
        raise ConfigError("the query is empty")
    if cone is not None and box is not None:
        raise ConfigError("--cone and --box: give one of them")


def tell(run: Run, place: str, reason: str, n_rows: int) -> None:
    """Say on stderr who answered, and why not another."""
    from qad.terminal.console import printable

    if not run.common.quiet:
        why = f" ({reason})" if reason else ""
        print(printable(f"qad {run.name}: {n_rows:,} rows from {place}{why}"), file=sys.stderr)


def give(run: Run, frame: pl.DataFrame, shape: str, output: Path | None, place: str) -> None:
    """Print the rows or write them; with ``--json`` one document that holds them, or says where they are."""
    import qad
    from qad.inspection.formats import FORMATS, encode, write
    from qad.inspection.show import show_table, write_stdout

    metadata = {"qad.version": qad.__version__, "qad.stage": "index"}
    known: Format | None = next((name for name in FORMATS if name == shape), None)
    document: dict[str, Any] = {"engine": place, "n_rows": frame.height, "columns": frame.columns}
    if output is not None and known is not None:
        write(output, frame, known, metadata)
        document["paths"] = [str(output)]
    else:
        document["rows"] = None
    if run.common.json:
        run.print_json(document if "rows" not in document else {**document, "rows": exact_rows(frame)})
    elif output is not None:
        if not run.common.quiet:
            print(f"{output}: {frame.height:,} rows")
    elif known is not None:
        write_stdout(encode(frame, known, metadata), known)
    else:
        show_table(frame, frame.height)


def exact_rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Return rows as JSON types; a whole number that a double cannot hold is text, whatever its column is called."""
    from qad.inspection.formats import rows_as_json

    return [{name: _exact(value) for name, value in row.items()} for row in rows_as_json(frame)]


def _exact(value: Any) -> Any:
    is_large = isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT_IN_DOUBLE
    return str(value) if is_large else value
