"""A person's SQL: an expression as a filter, never a statement, a subquery or a file; and a statement that only reads."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from qad.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

MAX_LENGTH = 20_000
MAX_OPERATORS = 400
"""Polars walks an expression by recursion: one of some ten thousand operators overflows its stack and ends the process."""
SHOWN_COLUMNS = 24
"""Columns that a message names; ``--columns '?'`` lists all."""

_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_STATEMENT = re.compile(r"\b(select|from|with|table|values|into|union|read_\w+|scan_\w+)\b|;", re.IGNORECASE)
_FILE_FUNCTION = re.compile(r"\b((?:read|scan)_\w+)\s*\(", re.IGNORECASE)
_OPERATOR = re.compile(r"\b(?:and|or|not|case|when|over)\b|\|\||[-+*/%&|(]", re.IGNORECASE)


def parse_where(text: str, known: Collection[str]) -> tuple[pl.Expr, list[str]]:
    """Return an SQL expression as a Polars expression, and the columns that it names.

    Raises
    ------
    ConfigError
        If it is more than an expression, cannot be parsed, or names an unknown column (the nearest is named).
    """
    import polars as pl

    bare = _QUOTED.sub(" ", text)
    found = _STATEMENT.search(bare)
    if found:
        raise ConfigError(f"--where takes one expression; {found.group()!r} cannot stand in it")
    if len(text) > MAX_LENGTH or len(_OPERATOR.findall(bare)) > MAX_OPERATORS:
        raise ConfigError(f"--where is too long: at most {MAX_OPERATORS} operators and {MAX_LENGTH} characters")
    try:
        expression = pl.sql_expr(text)
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"--where {shown(text)!r}: {first_line(error)}; write it as 'z > 2 and snr > 3'") from None
    names = list(dict.fromkeys(expression.meta.root_names()))
    check_columns(names, known, "--where")
    return expression, names


def apply_where(frame: pl.DataFrame, expression: pl.Expr, text: str) -> pl.DataFrame:
    """Return the rows for which an expression holds.

    Raises
    ------
    ConfigError
        If the expression is not true or false for every row (a number, a comparison of text with a number).
    """
    import polars as pl

    try:
        return frame.filter(expression)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ConfigError(f"--where {shown(text)!r}: {first_line(error)}") from None


def parse_sort(text: str, known: Collection[str]) -> tuple[str, bool]:
    """Return column and whether it sorts downwards of ``column``, ``-column``, ``column asc`` or ``column desc``."""
    name, _, direction = text.strip().partition(" ")
    direction = direction.strip().lower()
    if direction not in ("", "asc", "desc"):
        raise ConfigError(f"--sort {text!r}: write it as COLUMN, -COLUMN, 'COLUMN asc' or 'COLUMN desc'")
    downwards = name.startswith("-") or direction == "desc"
    name = name.removeprefix("-")
    check_columns([name], known, "--sort")
    return name, downwards


def check_columns(names: Iterable[str], known: Collection[str], what: str) -> None:
    """Raise ConfigError for the first name that is no column, with the nearest one and the others."""
    for name in names:
        if name in known:
            continue
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        some = ", ".join(list(known)[:SHOWN_COLUMNS])
        more = f" and {len(known) - SHOWN_COLUMNS} more, see --columns '?'" if len(known) > SHOWN_COLUMNS else ""
        raise ConfigError(f"{what}: no column {shown(name)!r}; {hint}columns are: {some}{more}")


def shown(text: str) -> str:
    """Return what a message quotes of a text."""
    return text if len(text) <= 80 else text[:79] + "…"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def check_statement(text: str) -> str:
    """Return one SQL statement that only reads, without its semicolon.

    Raises
    ------
    ConfigError
        If it is empty, several, does not begin with SELECT or WITH, reads a file, or is too long.
    """
    statement = text.strip().rstrip(";").rstrip()
    bare = _QUOTED.sub(lambda found: " " if found.group()[0] in "'-/" else found.group(), statement)
    first = re.match(r"[\s(]*(\w*)", bare)
    if first is None or first.group(1).lower() not in ("select", "with"):
        raise ConfigError(f"{shown(statement)!r}: a query begins with SELECT or WITH; nothing here changes a table")
    outside = _QUOTED.sub(" ", statement)
    if ";" in outside:
        raise ConfigError("one statement at a time: leave out what follows the semicolon")
    found = _FILE_FUNCTION.search(outside)
    if found:
        raise ConfigError(f"{found.group(1)} cannot stand in a query: it reads the index's tables only")
    if len(text) > MAX_LENGTH or len(_OPERATOR.findall(outside)) > MAX_OPERATORS:
        raise ConfigError(f"the query is too long: at most {MAX_OPERATORS} operators and {MAX_LENGTH} characters")
    return statement


def words_of(statement: str) -> set[str]:
    """Return the words of a statement that can be names, in lower case; those in single quotes and comments cannot."""
    bare = _QUOTED.sub(lambda found: " " if found.group()[0] in "'-/" else found.group(), statement)
    return {word.lower() for word in re.findall(r"\w+", bare)}
