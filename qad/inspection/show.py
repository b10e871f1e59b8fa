"""What ``qad inspect`` prints: the table, the details, the plots; plain where nobody looks or the terminal is plain."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from qad.errors import ConfigError
from qad.inspection.axes import MIN_HEIGHT, Size
from qad.inspection.canvas import Piece
from qad.inspection.capabilities import Background, Capabilities, Protocol, terminal_capabilities
from qad.inspection.columns import describe_column
from qad.inspection.layout import caption, fit, plain_lines, rich_table, terminal_width
from qad.inspection.plot import as_rich, as_text, draw
from qad.inspection.report import report_lines
from qad.inspection.scene import PlotOptions
from qad.inspection.spectrum import Key, Spectrum, SpectrumReader
from qad.inspection.tables import Tables
from qad.inspection.text import ascii_text, one_line, takes_unicode
from qad.schema import SPECTRUM_KEY
from qad.terminal.console import is_plain, out_console

if TYPE_CHECKING:
    import polars as pl

PLOT_WIDTH, PLOT_HEIGHT = 100, 28
"""Size of a plot where there is no terminal to ask."""
PLOT_COLUMNS = ("z", "snr", "score", "p_value", "artefact", "reason", "class_guess", "worst_wave_rest")
MAX_PICTURE = 2400
"""Pixels of the widest picture that is sent to a terminal."""
PICTURE_RATIO = 0.62
"""Height of a picture over its width at most."""


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


def show_plots(
    tables: Tables,
    frame: pl.DataFrame,
    options: PlotOptions,
    graphics: Protocol | Literal["auto"] = "auto",
    background: Background | Literal["auto"] = "auto",
) -> int:
    """Print the plots of rows that have the key columns and those of `PLOT_COLUMNS`; return how many there were."""
    able = terminal_capabilities(graphics, background)
    size = plot_size()
    spectra = SpectrumReader(tables).read(frame)
    facts = facts_by_key(frame)
    for i, spectrum in enumerate(spectra):
        if able.protocol != "text":
            _print_picture(spectrum, facts[spectrum.key], size, options, able)
            continue
        lines = draw(spectrum, facts[spectrum.key], size, options)
        _print_pieces([[("", "")], *lines] if i else lines, able.background)
    return len(spectra)


def facts_by_key(frame: pl.DataFrame) -> dict[Key, dict[str, Any]]:
    """Return what is known of each row's spectrum by its key."""
    return {tuple(row[name] for name in SPECTRUM_KEY): row for row in frame.to_dicts()}


def _print_picture(
    spectrum: Spectrum, facts: Mapping[str, Any], size: Size, options: PlotOptions, able: Capabilities
) -> None:
    """Print a picture as wide as the terminal, and as high as leaves room for the prompt."""
    from qad.inspection.figure import render
    from qad.inspection.pictures import picture

    wide, high = able.cell
    width = min(size.width * wide, MAX_PICTURE)
    height = min((size.height - 1) * high, round(width * PICTURE_RATIO))
    # text as large as the terminal's own
    scale = max(1.0, high / 17)
    sys.stdout.write(picture(render(spectrum, facts, options, (width, height), able.background == "dark", scale), able))
    sys.stdout.flush()


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


def _print_pieces(lines: Sequence[Sequence[Piece]], background: Background = "dark") -> None:
    if is_plain(sys.stdout):
        unicode = takes_unicode(sys.stdout)
        text = as_text(lines)
        print_text(text if unicode else ascii_text(text))
        return
    out_console().print(as_rich(lines, background), end="", soft_wrap=True)


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
