"""A table of candidates on a terminal of any width: identifiers whole, text shortened, whole columns left out last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from qad.inspection.text import cell, one_line, shortened

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

FIRST_KEPT = ("rank", "targetid", "score", "z", "reason", "snr", "p_value", "artefact")
"""Where there is no room for all columns these come first, then the others in their order."""
WHOLE = ("rank", "targetid")
"""Columns that are never shortened or left out."""
TEXT_FLOOR = 16
"""A text column is shortened to this width before it is left out."""
GAP = 2
"""Columns of air between two columns."""
SHORT = {"targetid": "TARGETID", "p_value": "p", "snr": "S/N"}


@dataclass(frozen=True)
class Grid:
    """A table as text, made to fit.

    Attributes
    ----------
    names : columns that are shown
    cells : rows of text
    widths : of each column
    right : whether each column is set to the right (numbers)
    left_out : columns that did not fit
    """

    names: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    widths: tuple[int, ...]
    right: tuple[bool, ...]
    left_out: tuple[str, ...]


def fit(frame: pl.DataFrame, width: int | None, unicode: bool = True) -> Grid:
    """Return a frame as text that fits `width` columns of a terminal (None: any)."""
    names = list(frame.columns)
    text = {name: [one_line(cell(name, value), unicode) for value in frame[name].to_list()] for name in names}
    full = {name: max([len(header(name)), *map(len, text[name])]) for name in names}
    right = {name: frame.schema[name].is_numeric() for name in names}
    wide = full if width is None else _widths(names, full, right, width)
    shown = [name for name in names if name in wide]
    rows = zip(*(([shortened(value, wide[name], unicode) for value in text[name]]) for name in shown), strict=True)
    left_out = tuple(name for name in names if name not in wide)
    widths = tuple(wide[name] for name in shown)
    return Grid(tuple(shown), tuple(rows), widths, tuple(right[name] for name in shown), left_out)


def _widths(names: Sequence[str], full: Mapping[str, int], right: Mapping[str, bool], width: int) -> dict[str, int]:
    """Return the widths of the columns that fit: first each at its least, then the rest of the room to those cut."""
    least = {name: full[name] if right[name] or name in WHOLE else min(full[name], TEXT_FLOOR) for name in names}
    by_worth = sorted(names, key=lambda name: FIRST_KEPT.index(name) if name in FIRST_KEPT else len(FIRST_KEPT))
    wide: dict[str, int] = {}
    room = width + GAP
    for name in by_worth:
        if name in WHOLE or not wide or least[name] + GAP <= room:
            wide[name] = least[name]
            room -= least[name] + GAP
    for name in by_worth:
        if name in wide and room > 0:
            more = min(room, full[name] - wide[name])
            wide[name] += more
            room -= more
    return wide


def plain_lines(grid: Grid) -> list[str]:
    """Return the table as lines without colour or frame, for pipes and plain terminals."""
    head = tuple(header(name) for name in grid.names)
    return [_line(row, grid) for row in (head, *grid.cells)]


def rich_table(grid: Grid) -> Table:
    """Return the table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None, pad_edge=False, header_style="bold underline", padding=(0, GAP, 0, 0), collapse_padding=True
    )
    for name, width, right in zip(grid.names, grid.widths, grid.right, strict=True):
        table.add_column(
            header(name), justify="right" if right else "left", no_wrap=True, width=width, style=_style(name)
        )
    for row in grid.cells:
        table.add_row(
            *(Text(value, style=_cell_style(name, value)) for name, value in zip(grid.names, row, strict=True))
        )
    return table


def caption(grid: Grid, n_rows: int, total: int) -> str:
    """Return the line below the table: how many of how many, and what did not fit."""
    parts = [f"{n_rows:,} of {total:,}"]
    if grid.left_out:
        parts.append(f"no room for {', '.join(grid.left_out)}")
    return "; ".join(parts)


def header(name: str) -> str:
    """Return a column's heading."""
    return SHORT.get(name, name)


def terminal_width(stream: IO[str]) -> int | None:
    """Return the columns of the terminal, None where nobody looks: then nothing is cut."""
    import os
    import shutil

    if not stream.isatty():
        return int(os.environ["COLUMNS"]) if os.environ.get("COLUMNS", "").isdigit() else None
    return shutil.get_terminal_size().columns


def _line(row: Sequence[str], grid: Grid) -> str:
    cells = zip(row, grid.widths, grid.right, strict=True)
    return (
        (" " * GAP).join(value.rjust(width) if right else value.ljust(width) for value, width, right in cells).rstrip()
    )


def _style(name: str) -> str:
    return {"targetid": "cyan", "score": "bold", "reason": "default"}.get(name, "")


def _cell_style(name: str, value: str) -> str:
    if name == "artefact" and value not in ("-", "") and float(value) >= 0.5:
        return "red"
    return (
        {"interesting": "green", "artefact": "red", "known": "yellow", "boring": "dim"}.get(value, "")
        if name == "label"
        else ""
    )
