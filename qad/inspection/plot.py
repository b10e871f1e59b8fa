"""A spectrum in the terminal: smoothed flux, the model's reconstruction, named lines, and where the two disagree."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from qad.inspection.axes import MARGIN, MIN_HEIGHT, Size, line_names, lower_axis, upper_axis, wave_axis
from qad.inspection.canvas import Piece
from qad.inspection.capabilities import Background
from qad.inspection.panels import flux_panel, residual_panel
from qad.inspection.scene import PlotOptions, stretches
from qad.inspection.spectrum import Spectrum
from qad.inspection.text import ascii_text, cell, greek, one_line, shortened
from qad.lines import nearest_line

COLOURS = {
    "dark": {
        "raw": "#5f6b78",
        "error": "#8a949e",
        "data": "#5fd7ff",
        "recon": "bold #ffd75f",
        "line": "#8f6fc0",
        "name": "#d0a8ff",
        "zero": "#5f6b78",
        "plus": "#87d787",
        "minus": "#5fafff",
        "strong": "bold #ff6b6b",
        "axis": "#7f8a96",
        "number": "",
        "title": "bold",
        "dim": "#9aa5b1",
        "reason": "italic",
        "worst": "bold #ff6b6b",
    },
    "light": {
        "raw": "#c0c8d0",
        "error": "#8a949e",
        "data": "#005fd7",
        "recon": "bold #d75f00",
        "line": "#a58bd0",
        "name": "#6a3fb5",
        "zero": "#a8b0b8",
        "plus": "#2b8a3e",
        "minus": "#3b7dd8",
        "strong": "bold #c92a2a",
        "axis": "#7f8a96",
        "number": "",
        "title": "bold",
        "dim": "#5c6670",
        "reason": "italic",
        "worst": "bold #c92a2a",
    },
}
"""Rich's style of each style name, on a dark and on a light background."""
_FRAME = str.maketrans("├┤╌─│┬┴└┌▲", "|.--|++++^")
BESIDE_WIDTH = 110
"""From this width on the driving region stands beside the whole spectrum."""
BELOW_HEIGHT = 36
"""From this height on, where there is no such width, it stands below."""
SAID = (
    ("snr", "S/N"),
    ("rank", "rank"),
    ("score", "score"),
    ("p_value", "p"),
    ("artefact", "artefact"),
    ("class_guess", "class"),
)
"""What the title says beside place and redshift, where it is known."""
SHARE = 0.6
"""Share of the width, or of the height, that the whole spectrum has."""


def draw(spectrum: Spectrum, facts: Mapping[str, Any], size: Size, options: PlotOptions) -> list[list[Piece]]:
    """Return the plot as lines of pieces; see :func:`as_text` and :func:`as_rich`.

    Parameters
    ----------
    spectrum : Spectrum
    facts : mapping
        What is known of it: ``rank``, ``score``, ``p_value``, ``snr``, ``reason``, ``worst_wave_rest`` where they are.
    size : Size
    options : PlotOptions
    """
    title = _title(spectrum, facts, size)
    shown = stretches(spectrum, facts, options)
    if not shown:
        return [*title, [("no pixel of this spectrum can be used", "")]]
    legend = _legend(spectrum, facts, size, options)
    rows = max(size.height, MIN_HEIGHT) - len(title) - len(legend)
    lines = [*title, *_panels(spectrum, facts, size, options, shown, rows), *legend]
    return [[(_plain(text) if not size.unicode else text, style) for text, style in line] for line in lines]


def _panels(
    spectrum: Spectrum,
    facts: Mapping[str, Any],
    size: Size,
    options: PlotOptions,
    shown: Sequence[tuple[float, float]],
    rows: int,
) -> list[list[Piece]]:
    """Return the whole spectrum, and the driving region where there is room for it."""
    if len(shown) > 1 and size.width >= BESIDE_WIDTH:
        left = round(size.width * SHARE)
        one, other = (
            _block(spectrum, facts, replace(size, width=width), options, stretch, rows)
            for width, stretch in zip((left, size.width - left), shown, strict=True)
        )
        return [[*a, *b] for a, b in zip(one, other, strict=True)]
    if len(shown) > 1 and size.height >= BELOW_HEIGHT:
        upper = round(rows * SHARE)
        return [
            *_block(spectrum, facts, size, options, shown[0], upper),
            *_block(spectrum, facts, size, options, shown[1], rows - upper),
        ]
    return _block(spectrum, facts, size, options, shown[0], rows)


def _block(
    spectrum: Spectrum,
    facts: Mapping[str, Any],
    size: Size,
    options: PlotOptions,
    stretch: tuple[float, float],
    rows: int,
) -> list[list[Piece]]:
    """Return exactly `rows` lines of ``size.width`` columns: axes, names of lines, flux, residuals."""
    axis = wave_axis(stretch, size.columns)
    head = upper_axis(spectrum, axis, options.frame)
    if "lines" in options.layers:
        head += line_names(spectrum, axis, size)
    foot = lower_axis(spectrum, axis, facts, size, options.frame)
    has_residual = spectrum.recon is not None and "residual" in options.layers
    residual_rows = max(3, rows // 5) if has_residual else 0
    flux_rows = max(4, rows - residual_rows - len(head) - len(foot) - has_residual)
    lines = [*head, *flux_panel(spectrum, axis, flux_rows, size, options)]
    if has_residual:
        lines += [
            [("".ljust(MARGIN) + "├" + "╌" * (axis.columns - 1), "axis")],
            *residual_panel(spectrum, axis, residual_rows, size),
        ]
    return [_padded(line, MARGIN + 1 + axis.columns) for line in [*lines, *foot]]


def _padded(line: list[Piece], width: int) -> list[Piece]:
    missing = width - sum(len(text) for text, _ in line)
    return [*line, (" " * missing, "")] if missing > 0 else line


def as_text(lines: Sequence[Sequence[Piece]]) -> str:
    """Return a plot without colour."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines) + "\n"


def as_rich(lines: Sequence[Sequence[Piece]], background: Background = "dark") -> Any:
    """Return a plot as Rich text in colours that can be read on a background."""
    from rich.text import Text

    whole = Text(no_wrap=True, end="")
    for line in lines:
        for text, style in line:
            whole.append(text, COLOURS[background].get(style, ""))
        whole.append("\n")
    return whole


def _plain(text: str) -> str:
    return ascii_text(text.translate(_FRAME))


def _title(spectrum: Spectrum, facts: Mapping[str, Any], size: Size) -> list[list[Piece]]:
    targetid, survey, program, healpix = spectrum.key
    parts = [f"{survey}/{program}/{healpix}", f"z {spectrum.z:.4f}"]
    names = SAID
    parts += [f"{label} {cell(name, facts[name])}" for name, label in names if facts.get(name) is not None]
    head = f"TARGETID {targetid}"
    while parts and len("  ".join([head, *parts])) > size.width:
        parts.pop()
    lines: list[list[Piece]] = [[(head, "title"), ("".join(f"  {part}" for part in parts), "")]]
    reason = shortened(one_line(str(facts.get("reason") or ""), size.unicode), size.width, size.unicode)
    if reason:
        lines.append([(reason, "reason")])
    return lines


def _legend(spectrum: Spectrum, facts: Mapping[str, Any], size: Size, options: PlotOptions) -> list[list[Piece]]:
    data = "⠒⠒" if size.unicode else "**"
    model = "⠒⠒" if size.unicode and size.colour else "oo"
    kind = ", dereddened" if spectrum.dereddened else ""
    line: list[Piece] = [
        (f"{data} ", "data"),
        (f"flux (1e-17 erg/s/cm²/Å{kind}), mean of {options.smooth_px} pixels", "dim"),
    ]
    if spectrum.recon is not None and "model" in options.layers:
        line += [(f"  {model} ", "recon"), ("model", "dim")]
    if "error" in options.layers and size.colour:
        line += [(f"  {data} ", "error"), ("error", "dim")]
    if "raw" in options.layers and size.colour and size.unicode:
        line += [("  ⠂⠁ ", "raw"), ("pixels", "dim")]
    lines = [_clipped(line, size.width)]
    worst = facts.get("worst_wave_rest")
    if worst is not None and math.isfinite(worst):
        near = nearest_line(worst)
        name = f" ({greek(near.name) if size.unicode else near.name})" if near else ""
        z = facts.get("z", spectrum.z)
        text = f"strongest residual: {worst:.0f} Å rest, {worst * (1 + z):.0f} Å observed{name}"
        lines.append(_clipped([("▲ ", "worst"), (text, "dim")], size.width))
    if spectrum.note:
        lines += [[(line, "worst")] for line in textwrap.wrap(one_line(spectrum.note, size.unicode), size.width)]
    return lines


def _clipped(line: list[Piece], width: int) -> list[Piece]:
    """Cut a line of pieces to a width, so that no terminal wraps it."""
    left, pieces = width, []
    for text, style in line:
        if left <= 0:
            break
        pieces.append((text[:left], style))
        left -= len(text)
    return pieces
