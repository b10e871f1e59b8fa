"""The axes of the terminal plot: wavelengths above and below, flux at the left, names of lines over the spectrum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qad.inspection.canvas import Canvas, Piece
from qad.inspection.scene import Frame
from qad.inspection.spectrum import Spectrum
from qad.inspection.text import greek
from qad.lines import EMISSION_LINES, Line

MARGIN = 9
"""Columns left of the panels, for the numbers of the y axis."""
MIN_WIDTH, MIN_HEIGHT = 40, 16


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


def wave_axis(stretch: tuple[float, float], columns: int) -> WaveAxis:
    """Return the axis that shows an observed stretch (Å), its last pixel included."""
    return WaveAxis(stretch[0], stretch[1] * (1 + 1e-9), columns)


def nice_step(rough: float) -> float:
    """Return the round number (1, 2 or 5 times a power of ten) next above a step."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= rough), 10 * power)


def shown_lines(spectrum: Spectrum, axis: WaveAxis) -> list[Line]:
    return [line for line in EMISSION_LINES if 0 <= axis.column(line.wave * (1 + spectrum.z)) < axis.columns]


def line_names(spectrum: Spectrum, axis: WaveAxis, size: Size) -> list[list[Piece]]:
    """Return two rows of line names, the strongest lines first in getting room."""
    canvas = Canvas(axis.columns, 2, size.unicode)
    for line in sorted(shown_lines(spectrum, axis), key=lambda line: -line.ew):
        name = greek(line.name) if size.unicode else line.name
        column = axis.column(line.wave * (1 + spectrum.z))
        left = int(np.clip(column - len(name) // 2, 0, max(0, axis.columns - len(name))))
        for row in (1, 0):
            cells = range(max(0, left - 1), min(axis.columns, left + len(name) + 1))
            if all(canvas.is_empty(c, row) for c in cells):
                canvas.put(left, row, name, "name")
                break
    return [[("".ljust(MARGIN + 1), ""), *pieces] for pieces in canvas.lines()]


def upper_axis(spectrum: Spectrum, axis: WaveAxis, frame: Frame) -> list[list[Piece]]:
    """Return numbers and ruler of the frame that is not the plot's own."""
    name, shift = ("obs Å", 1.0) if frame == "rest" else ("rest Å", 1 + spectrum.z)
    numbers, ruler = _numbers(axis, shift)
    return [
        [(name.rjust(MARGIN - 1) + "  ", "dim"), (numbers, "number")],
        [("".ljust(MARGIN), ""), ("┌" + ruler.translate(str.maketrans("┴", "┬")), "axis")],
    ]


def lower_axis(
    spectrum: Spectrum, axis: WaveAxis, facts: Mapping[str, Any], size: Size, frame: Frame
) -> list[list[Piece]]:
    """Return ruler and numbers of the plot's own frame, and the mark of the strongest residual."""
    name, shift = ("rest Å", 1 + spectrum.z) if frame == "rest" else ("obs Å", 1.0)
    numbers, ruler = _numbers(axis, shift)
    canvas = Canvas(axis.columns, 1, size.unicode)
    canvas.put(0, 0, ruler, "axis")
    worst = facts.get("worst_wave_rest")
    if worst is not None and math.isfinite(worst):
        canvas.put(axis.column(worst * (1 + facts.get("z", spectrum.z))), 0, "▲", "worst")
    return [
        [("".ljust(MARGIN), ""), ("└", "axis"), *next(canvas.lines())],
        [(name.rjust(MARGIN - 1) + "  ", "dim"), (numbers, "number")],
    ]


def flux_ticks(low: float, high: float, canvas: Canvas) -> dict[int, str]:
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


def _numbers(axis: WaveAxis, shift: float) -> tuple[str, str]:
    """Return a row of wavelengths and the ruler that belongs to it; wavelengths are divided by `shift`."""
    low, high = axis.low / shift, axis.high / shift
    step = nice_step((high - low) / max(2, axis.columns // 11))
    text, ruler = [" "] * axis.columns, ["─"] * axis.columns
    value = math.ceil(low / step) * step
    decimals = max(0, -math.floor(math.log10(step)))
    while value < high:
        column = axis.column(value * shift)
        label = f"{value:.{decimals}f}"
        left = min(max(0, column - len(label) // 2), axis.columns - len(label))
        if 0 <= column < axis.columns and all(c == " " for c in text[max(0, left - 1) : left + len(label)]):
            text[left : left + len(label)] = label
            ruler[column] = "┴"
        value += step
    return "".join(text), "".join(ruler)
