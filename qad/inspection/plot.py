"""A spectrum in the terminal: smoothed flux, the model's reconstruction, named lines, and where the two disagree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qad.inspection.canvas import Canvas
from qad.inspection.spectrum import Spectrum, smooth
from qad.inspection.text import cell, greek, number, one_line, shortened
from qad.lines import EMISSION_LINES, Line, nearest_line

MARGIN = 9
"""Columns left of the panels, for the numbers of the y axis."""
MIN_WIDTH, MIN_HEIGHT = 40, 16
MAX_SIGMA = 30.0
MARKS = {"data": "*", "recon": "o", "line": ":", "zero": "-", "plus": "#", "minus": "=", "strong": "#"}
"""The characters of the styles where there is no braille."""
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
STRONG_SIGMA = 5.0
"""Residuals from here on are drawn as strong."""
SURE_SIGMA = 5.0
"""A peak must stand this far out of the noise to widen the flux axis."""


@dataclass(frozen=True)
class Size:
    """How much room there is, and what it can show."""

    width: int
    height: int
    unicode: bool = True
    colour: bool = True

    @property
    def columns(self) -> int:
        """Columns of a panel."""
        return max(self.width, MIN_WIDTH) - MARGIN - 1


@dataclass(frozen=True)
class WaveAxis:
    """Observed wavelength, linear from the left edge of column 0 to the right edge of the last column, Å."""

    low: float
    high: float
    columns: int

    def column(self, wave: float) -> int:
        """Return the column in which a wavelength lies; it may lie outside."""
        return math.floor((wave - self.low) / (self.high - self.low) * self.columns)

    def bins(self, wave: np.ndarray, n_bins: int) -> np.ndarray:
        """Return for each wavelength in which of `n_bins` bins across the panel it lies, -1 outside."""
        index = np.floor((wave - self.low) / (self.high - self.low) * n_bins).astype(int)
        return np.where((index >= 0) & (index < n_bins), index, -1)


Piece = tuple[str, str]
"""Text and the name of its style."""


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
    head = [*_title(spectrum, facts, size), *_observed_axis(axis)]
    names = _line_names(spectrum, axis, size)
    foot = _rest_axis(spectrum, axis, facts, size)
    legend = _legend(spectrum, facts, size, smooth_px)
    flux_rows = max(4, rows - residual_rows - len(head) - len(names) - len(foot) - len(legend) - has_model)
    lines = [*head, *names, *_flux_panel(spectrum, axis, flux_rows, size, smooth_px)]
    if has_model:
        lines += [
            [("".ljust(MARGIN) + "├" + "╌" * (size.columns - 1), "axis")],
            *_residual_panel(spectrum, axis, residual_rows, size),
        ]
    lines += [*foot, *legend]
    return [[(one_line_keep(text, size.unicode), style) for text, style in line] for line in lines]


def one_line_keep(text: str, unicode: bool) -> str:
    """Return a piece as it can be shown, its spaces kept."""
    from qad.inspection.text import ascii_text

    return text if unicode else ascii_text(text.translate(_FRAME))


_FRAME = str.maketrans("├┤╌─│┬┴└┌▲", "|.--|++++^")


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


def wave_axis(spectrum: Spectrum, columns: int) -> WaveAxis | None:
    """Return the axis that shows every usable pixel, None if there is none."""
    good = spectrum.wave[spectrum.ivar > 0]
    if len(good) < 2:
        return None
    return WaveAxis(float(good[0]), float(good[-1]) * (1 + 1e-9), columns)


def binned(values: np.ndarray, weights: np.ndarray, bins: np.ndarray, n_bins: int) -> np.ndarray:
    """Return the weighted mean in each bin, NaN where no weight is; bin -1 does not count."""
    inside = (bins >= 0) & (weights > 0)
    total = np.bincount(bins[inside], weights[inside], n_bins)
    summed = np.bincount(bins[inside], weights[inside] * values[inside], n_bins)
    return np.divide(summed, total, out=np.full(n_bins, np.nan), where=total > 0)


def significance(spectrum: Spectrum, axis: WaveAxis) -> np.ndarray:
    """Return in each column how many standard deviations its mean lies off the reconstruction, NaN without data."""
    residual, ivar = spectrum.residual()
    bins = axis.bins(spectrum.wave, axis.columns)
    mean = binned(residual, ivar, bins, axis.columns)
    inside = (bins >= 0) & (ivar > 0)
    return np.asarray(mean * np.sqrt(np.bincount(bins[inside], ivar[inside], axis.columns)))


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


def _flux_panel(spectrum: Spectrum, axis: WaveAxis, rows: int, size: Size, smooth_px: int) -> list[list[Piece]]:
    canvas = Canvas(size.columns, rows, size.unicode, MARKS)
    bins = axis.bins(spectrum.wave, canvas.width)
    flux, weight = smooth(spectrum.flux, spectrum.ivar, smooth_px)
    data = binned(flux, np.where(spectrum.ivar > 0, weight, 0), bins, canvas.width)
    recon = None if spectrum.recon is None else binned(spectrum.recon, np.ones_like(flux), bins, canvas.width)
    error = 1 / np.sqrt(binned(weight, np.where(spectrum.ivar > 0, weight, 0), bins, canvas.width))
    low, high = _flux_range(data, error, recon)

    def height(values: np.ndarray) -> np.ndarray:
        return (high - values) / (high - low) * (canvas.height - 1)

    for line in _shown_lines(spectrum, axis):
        x = axis.column(line.wave * (1 + spectrum.z)) * canvas.across
        for y in range(0, canvas.height, canvas.down):
            canvas.dot(x, y, "line")
    if low < 0 < high:
        zero = round((high - 0) / (high - low) * (canvas.height - 1))
        for x in range(0, canvas.width, 4):
            canvas.dot(x, zero, "zero")
    canvas.curve(height(data), "data")
    if recon is not None:
        _draw_recon(canvas, height(recon), size)
    return _framed(canvas, _ticks(low, high, canvas), "flux")


def _draw_recon(canvas: Canvas, height: np.ndarray, size: Size) -> None:
    if size.colour and size.unicode:
        canvas.curve(height, "recon")
        return
    # without colour the two curves need different marks
    for column in range(0, canvas.columns, 2):
        value = height[min(len(height) - 1, column * canvas.across)]
        if np.isfinite(value):
            canvas.put(column, int(np.clip(round(value / canvas.down), -1, canvas.rows)), "o", "recon")


def _residual_panel(spectrum: Spectrum, axis: WaveAxis, rows: int, size: Size) -> list[list[Piece]]:
    canvas = Canvas(size.columns, rows, size.unicode, MARKS)
    sigma = significance(spectrum, axis)
    finite = np.abs(sigma[np.isfinite(sigma)])
    top = float(np.clip(finite.max(initial=0) * 1.05, STRONG_SIGMA, MAX_SIGMA))
    zero = (canvas.height - 1) / 2
    for x in range(0, canvas.width, 2):
        canvas.dot(x, round(zero), "zero")
    for column, value in enumerate(sigma):
        if not np.isfinite(value) or abs(value) * zero / top < 0.5:
            continue
        style = "strong" if abs(value) >= STRONG_SIGMA else "plus" if value > 0 else "minus"
        end = round(zero - float(np.clip(value / top, -1, 1)) * zero)
        for x in range(column * canvas.across, (column + 1) * canvas.across):
            canvas.column(x, round(zero), end, style)
    return _framed(
        canvas,
        {0: f"+{number(top, 2)}", rows // 2: "0", rows - 1: f"-{number(top, 2)}"},
        "σ" if size.unicode else "sigma",
    )


def _framed(canvas: Canvas, labels: Mapping[int, str], unit: str) -> list[list[Piece]]:
    lines: list[list[Piece]] = []
    for row, pieces in enumerate(canvas.lines()):
        label = labels.get(row, unit if row == 1 and 1 not in labels else "")
        lines.append(
            [(label[: MARGIN - 1].rjust(MARGIN - 1) + " ", "number"), ("┤" if row in labels else "│", "axis"), *pieces]
        )
    return lines


def _flux_range(data: np.ndarray, error: np.ndarray, recon: np.ndarray | None) -> tuple[float, float]:
    shown = data[np.isfinite(data)]
    if not len(shown):
        return 0.0, 1.0
    low, high = np.percentile(shown, [0.5, 99.5])
    # narrow lines stand out of any percentile; a cosmic must not flatten all else
    peak = float(np.max(data, where=data > SURE_SIGMA * error, initial=high))
    high = max(high, min(peak, 3 * high))
    if recon is not None and np.isfinite(recon).any():
        # the model's own extremes where there is no data must not flatten the data
        high = max(high, min(float(np.nanmax(recon)), 1.5 * high))
    room = 0.06 * max(high - min(low, 0.0), 1e-9)
    return float(min(low, 0.0) - (room if low < 0 else 0.0)), float(high + room)


def _ticks(low: float, high: float, canvas: Canvas) -> dict[int, str]:
    """Return row and text of round values of the y axis."""
    step = nice_step((high - low) / max(2, canvas.rows // 3))
    decimals = max(0, -math.floor(math.log10(step)))
    found: dict[int, str] = {}
    value = math.ceil(low / step) * step
    while value <= high:
        row = round((high - value) / (high - low) * (canvas.height - 1)) // canvas.down
        text = f"{value:.{decimals}f}" if decimals <= 4 and abs(value) < 1e6 else f"{value:.1e}"
        found[row] = "0" if abs(value) < step / 2 else text
        value += step
    return found


def nice_step(rough: float) -> float:
    """Return the round number (1, 2 or 5 times a power of ten) next above a step."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= rough), 10 * power)


def _shown_lines(spectrum: Spectrum, axis: WaveAxis) -> list[Line]:
    return [line for line in EMISSION_LINES if 0 <= axis.column(line.wave * (1 + spectrum.z)) < axis.columns]


def _line_names(spectrum: Spectrum, axis: WaveAxis, size: Size) -> list[list[Piece]]:
    """Return two rows of line names, the strongest lines first in getting room."""
    canvas = Canvas(size.columns, 2, size.unicode)
    for line in sorted(_shown_lines(spectrum, axis), key=lambda line: -line.ew):
        name = greek(line.name) if size.unicode else line.name
        column = axis.column(line.wave * (1 + spectrum.z))
        left = int(np.clip(column - len(name) // 2, 0, max(0, size.columns - len(name))))
        for row in (1, 0):
            cells = range(max(0, left - 1), min(size.columns, left + len(name) + 1))
            if all(canvas.is_empty(c, row) for c in cells):
                canvas.put(left, row, name, "name")
                break
    return [[("".ljust(MARGIN + 1), ""), *pieces] for pieces in canvas.lines()]


def _observed_axis(axis: WaveAxis) -> list[list[Piece]]:
    return [
        [("obs Å".rjust(MARGIN - 1) + "  ", "dim"), (_numbers(axis, 1.0)[0], "number")],
        [("".ljust(MARGIN), ""), ("┌" + _numbers(axis, 1.0)[1].translate(str.maketrans("┴", "┬")), "axis")],
    ]


def _rest_axis(spectrum: Spectrum, axis: WaveAxis, facts: Mapping[str, Any], size: Size) -> list[list[Piece]]:
    numbers, ruler = _numbers(axis, 1 + spectrum.z)
    canvas = Canvas(size.columns, 1, size.unicode)
    canvas.put(0, 0, ruler, "axis")
    worst = facts.get("worst_wave_rest")
    if worst is not None and math.isfinite(worst):
        canvas.put(axis.column(worst * (1 + spectrum.z)), 0, "▲", "worst")
    return [
        [("".ljust(MARGIN), ""), ("└", "axis"), *next(canvas.lines())],
        [("rest Å".rjust(MARGIN - 1) + "  ", "dim"), (numbers, "number")],
    ]


def _numbers(axis: WaveAxis, shift: float) -> tuple[str, str]:
    """Return a row of wavelengths and the ruler that belongs to it; wavelengths are divided by `shift`."""
    low, high = axis.low / shift, axis.high / shift
    step = nice_step((high - low) / max(2, axis.columns // 11))
    text, ruler = [" "] * axis.columns, ["─"] * axis.columns
    value = math.ceil(low / step) * step
    while value < high:
        column = axis.column(value * shift)
        label = f"{value:.0f}"
        left = min(max(0, column - len(label) // 2), axis.columns - len(label))
        if 0 <= column < axis.columns and all(c == " " for c in text[max(0, left - 1) : left + len(label)]):
            text[left : left + len(label)] = label
            ruler[column] = "┴"
        value += step
    return "".join(text), "".join(ruler)


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
        lines.append([(spectrum.note, "worst")])
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
