"""A spectrum in the terminal: smoothed flux, the model's reconstruction, named lines, and where the two disagree."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from qad.inspection.axes import MARGIN, MIN_HEIGHT, Size, line_names, observed_axis, rest_axis, wave_axis
from qad.inspection.canvas import Piece
from qad.inspection.panels import flux_panel, residual_panel
from qad.inspection.spectrum import Spectrum
from qad.inspection.text import ascii_text, cell, greek, one_line, shortened
from qad.lines import nearest_line

COLOURS = {
    "data": "cyan",
    "recon": "bold bright_yellow",
    "line": "magenta",
    "name": "magenta",
    "zero": "bright_black",
    "plus": "green",
    "minus": "blue",
    "strong": "bold red",
    "axis": "bright_black",
    "number": "",
    "title": "bold",
    "dim": "bright_black",
    "reason": "italic",
    "worst": "bold red",
}
"""Rich's style of each style name."""
_FRAME = str.maketrans("├┤╌─│┬┴└┌▲", "|.--|++++^")


def draw(spectrum: Spectrum, facts: Mapping[str, Any], size: Size, smooth_px: int) -> list[list[Piece]]:
    """Return the plot as lines of pieces; see :func:`as_text` and :func:`as_rich`.

    Parameters
    ----------
    spectrum : Spectrum
    facts : mapping
        What is known of it: ``rank``, ``score``, ``p_value``, ``snr``, ``reason``, ``worst_wave_rest`` where they are.
    size : Size
    smooth_px : int
        Pixels of the running mean.
    """
    axis = wave_axis(spectrum, size.columns)
    if axis is None:
        return [*_title(spectrum, facts, size), [("no pixel of this spectrum can be used", "")]]
    has_model = spectrum.recon is not None
    rows = max(size.height, MIN_HEIGHT)
    residual_rows = max(3, rows // 5) if has_model else 0
    head = [*_title(spectrum, facts, size), *observed_axis(axis)]
    names = line_names(spectrum, axis, size)
    foot = rest_axis(spectrum, axis, facts, size)
    legend = _legend(spectrum, facts, size, smooth_px)
    flux_rows = max(4, rows - residual_rows - len(head) - len(names) - len(foot) - len(legend) - has_model)
    lines = [*head, *names, *flux_panel(spectrum, axis, flux_rows, size, smooth_px)]
    if has_model:
        lines += [
            [("".ljust(MARGIN) + "├" + "╌" * (size.columns - 1), "axis")],
            *residual_panel(spectrum, axis, residual_rows, size),
        ]
    lines += [*foot, *legend]
    return [[(_plain(text) if not size.unicode else text, style) for text, style in line] for line in lines]


def as_text(lines: Sequence[Sequence[Piece]]) -> str:
    """Return a plot without colour."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines) + "\n"


def as_rich(lines: Sequence[Sequence[Piece]]) -> Any:
    """Return a plot as Rich text."""
    from rich.text import Text

    whole = Text(no_wrap=True, end="")
    for line in lines:
        for text, style in line:
            whole.append(text, COLOURS.get(style, ""))
        whole.append("\n")
    return whole


def _plain(text: str) -> str:
    return ascii_text(text.translate(_FRAME))


def _title(spectrum: Spectrum, facts: Mapping[str, Any], size: Size) -> list[list[Piece]]:
    targetid, survey, program, healpix = spectrum.key
    parts = [f"{survey}/{program}/{healpix}", f"z {spectrum.z:.4f}"]
    names = (("snr", "S/N"), ("rank", "rank"), ("score", "score"), ("p_value", "p"), ("artefact", "artefact"))
    parts += [f"{label} {cell(name, facts[name])}" for name, label in names if facts.get(name) is not None]
    head = f"TARGETID {targetid}"
    while parts and len("  ".join([head, *parts])) > size.width:
        parts.pop()
    lines: list[list[Piece]] = [[(head, "title"), ("".join(f"  {part}" for part in parts), "")]]
    reason = shortened(one_line(str(facts.get("reason") or ""), size.unicode), size.width, size.unicode)
    if reason:
        lines.append([(reason, "reason")])
    return lines


def _legend(spectrum: Spectrum, facts: Mapping[str, Any], size: Size, smooth_px: int) -> list[list[Piece]]:
    data = "⠒⠒" if size.unicode else "**"
    model = "⠒⠒" if size.unicode and size.colour else "oo"
    kind = ", dereddened" if spectrum.dereddened else ""
    line: list[Piece] = [
        (f"{data} ", "data"),
        (f"flux (1e-17 erg/s/cm²/Å{kind}), mean of {smooth_px} pixels", "dim"),
    ]
    if spectrum.recon is not None:
        line += [(f"  {model} ", "recon"), ("model", "dim")]
    lines = [_clipped(line, size.width)]
    worst = facts.get("worst_wave_rest")
    if worst is not None and math.isfinite(worst):
        near = nearest_line(worst)
        name = f" ({greek(near.name) if size.unicode else near.name})" if near else ""
        lines.append(
            _clipped(
                [
                    ("▲ ", "worst"),
                    (f"strongest residual: {worst:.0f} Å rest, {worst * (1 + spectrum.z):.0f} Å observed{name}", "dim"),
                ],
                size.width,
            )
        )
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
