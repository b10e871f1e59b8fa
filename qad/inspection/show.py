"""What ``qad inspect`` prints: the table, the details, the plots; plain where nobody looks or the terminal is plain."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qad.errors import ConfigError
from qad.inspection.axes import MIN_HEIGHT, Size
from qad.inspection.canvas import Piece
from qad.inspection.columns import describe_column
from qad.inspection.layout import caption, fit, plain_lines, rich_table, terminal_width
from qad.inspection.plot import as_rich, as_text, draw
from qad.inspection.report import report_lines
from qad.inspection.spectrum import SpectrumReader
from qad.inspection.tables import Tables
from qad.inspection.text import ascii_text, one_line, takes_unicode
from qad.terminal.console import is_plain, out_console

if TYPE_CHECKING:
    import polars as pl

PLOT_WIDTH, PLOT_HEIGHT = 100, 28
"""Size of a plot where there is no terminal to ask."""
PLOT_COLUMNS = ("z", "snr", "score", "p_value", "artefact", "reason", "worst_wave_rest")


def show_table(frame: pl.DataFrame, total: int) -> None:
    """Print rows as a table that fits the terminal."""
    unicode = takes_unicode(sys.stdout)
    plain = is_plain(sys.stdout)
    grid = fit(frame, terminal_width(sys.stdout), unicode)
    if plain:
        print_text("\n".join(plain_lines(grid)) + "\n")
        return
    console = out_console()
    console.print(rich_table(grid))
    console.print(caption(grid, frame.height, total), style="dim", markup=False)


def show_columns(tables: Tables) -> None:
    """Print every column that can be named."""
    unicode = takes_unicode(sys.stdout)
    width = max(map(len, tables.known))
    for name in tables.known:
        unit, description = describe_column(name)
        text = one_line(f"{description}{f' ({unit})' if unit else ''}", unicode)
        print_text(f"{name.ljust(width)}  {text}\n")


def show_details(documents: Sequence[Mapping[str, Any]]) -> None:
    """Print everything known of targets."""
    width = terminal_width(sys.stdout)
    for i, document in enumerate(documents):
        lines = report_lines(document, width)
        _print_pieces([[("", "")], *lines] if i else lines)


def show_plots(tables: Tables, frame: pl.DataFrame, smooth_px: int) -> int:
    """Print the plots of rows that have the key columns and those of `PLOT_COLUMNS`; return how many there were."""
    size = plot_size()
    spectra = SpectrumReader(tables).read(frame)
    facts = {tuple(row[name] for name in ("targetid", "survey", "program", "healpix")): row for row in frame.to_dicts()}
    for i, spectrum in enumerate(spectra):
        lines = draw(spectrum, facts[spectrum.key], size, smooth_px)
        _print_pieces([[("", "")], *lines] if i else lines)
    return len(spectra)


def plot_size() -> Size:
    """Return how large a plot may be here, and what the terminal can show."""
    plain = is_plain(sys.stdout)
    unicode = takes_unicode(sys.stdout)
    terminal = shutil.get_terminal_size((PLOT_WIDTH, PLOT_HEIGHT + 1))
    colour = not plain and not out_console().no_color
    # a line is left for the prompt
    return Size(terminal.columns, max(MIN_HEIGHT, terminal.lines - 1), unicode, colour)


def write_stdout(content: bytes, form: str) -> None:
    """Write bytes to stdout.

    Raises
    ------
    ConfigError
        If they are binary and stdout is a terminal.
    """
    if form in ("parquet", "fits") and sys.stdout.isatty():
        raise ConfigError(f"--format {form} is binary: name a file with -o, or pipe it")
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def print_text(text: str) -> None:
    """Print text in what characters stdout takes."""
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text if _can_encode(text, encoding) else ascii_text(text))


def _print_pieces(lines: Sequence[Sequence[Piece]]) -> None:
    if is_plain(sys.stdout):
        unicode = takes_unicode(sys.stdout)
        text = as_text(lines)
        print_text(text if unicode else ascii_text(text))
        return
    out_console().print(as_rich(lines), end="", soft_wrap=True)


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
