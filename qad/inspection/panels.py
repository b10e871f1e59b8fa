"""The panels of the terminal plot: flux with its reconstruction, and how far the two lie apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qad.inspection.axes import MARGIN, Size, WaveAxis, flux_ticks, shown_lines
from qad.inspection.canvas import Canvas, Piece
from qad.inspection.scene import PlotOptions
from qad.inspection.spectrum import Spectrum, smooth
from qad.inspection.text import number

MAX_SIGMA = 30.0
"""Largest significance that the axis of the residuals shows."""
MARKS = {
    "raw": ",",
    "error": "_",
    "data": "*",
    "recon": "o",
    "line": ":",
    "zero": "-",
    "plus": "#",
    "minus": "=",
    "strong": "#",
}
"""The characters of the styles where there is no braille."""
STRONG_SIGMA = 5.0
"""Residuals from here on are drawn as strong."""
SURE_SIGMA = 5.0
"""A peak must stand this far out of the noise to widen the flux axis."""


def flux_panel(spectrum: Spectrum, axis: WaveAxis, rows: int, size: Size, options: PlotOptions) -> list[list[Piece]]:
    """Return the rows of the flux: pixels, error, running mean, reconstruction, and the lines' places."""
    canvas = Canvas(axis.columns, rows, size.unicode, MARKS)
    bins = axis.bins(spectrum.wave, canvas.width)
    flux, weight = smooth(spectrum.flux, spectrum.ivar, options.smooth_px)
    counted = np.where(spectrum.ivar > 0, weight, 0)
    data = joined(binned(flux, counted, bins, canvas.width), bins)
    error = joined(1 / np.sqrt(binned(weight, counted, bins, canvas.width)), bins)
    recon = None
    if spectrum.recon is not None and "model" in options.layers:
        recon = joined(binned(spectrum.recon, np.ones_like(flux), bins, canvas.width), bins)
    low, high = flux_range(data, error, recon)

    def height(values: np.ndarray) -> np.ndarray:
        return (high - values) / (high - low) * (canvas.height - 1)

    if "lines" in options.layers:
        _draw_lines(canvas, spectrum, axis)
    if low < 0 < high:
        zero = round((high - 0) / (high - low) * (canvas.height - 1))
        for x in range(0, canvas.width, 4):
            canvas.dot(x, zero, "zero")
    if "raw" in options.layers and size.colour and size.unicode:
        _draw_raw(canvas, spectrum, bins, height(spectrum.flux))
    if "error" in options.layers and size.colour:
        canvas.curve(height(error), "error")
    canvas.curve(height(data), "data")
    if recon is not None:
        _draw_recon(canvas, height(recon), size)
    return _framed(canvas, flux_ticks(low, high, canvas), "flux")


def _draw_lines(canvas: Canvas, spectrum: Spectrum, axis: WaveAxis) -> None:
    for line in shown_lines(spectrum, axis):
        x = axis.column(line.wave * (1 + spectrum.z)) * canvas.across
        for y in range(0, canvas.height, canvas.down):
            canvas.dot(x, y, "line")


def _draw_raw(canvas: Canvas, spectrum: Spectrum, bins: np.ndarray, height: np.ndarray) -> None:
    """Draw single pixels as dots; one far outside the panel has none."""
    inside = (bins >= 0) & (spectrum.ivar > 0) & (height > -1) & (height < canvas.height)
    for x, y in zip(bins[inside].tolist(), np.round(height[inside]).astype(int).tolist(), strict=True):
        canvas.dot(x, y, "raw")


def residual_panel(spectrum: Spectrum, axis: WaveAxis, rows: int, size: Size) -> list[list[Piece]]:
    """Return the rows of the residual's significance, a bar a column."""
    canvas = Canvas(axis.columns, rows, size.unicode, MARKS)
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


def joined(values: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Fill bins that lie between two neighbouring pixels, where a zoom makes bins narrower than pixels.

    A gap as wide as several pixels is one in the data, and stays.
    """
    inside = bins[bins >= 0]
    if len(inside) < 2:
        return values
    spacing = int(np.ceil((inside[-1] - inside[0]) / (len(inside) - 1)))
    if spacing <= 1:
        return values
    known = np.flatnonzero(np.isfinite(values))
    filled = values.copy()
    for a, b in zip(known[:-1].tolist(), known[1:].tolist(), strict=True):
        if 1 < b - a <= spacing + 1:
            filled[a : b + 1] = np.linspace(values[a], values[b], b - a + 1)
    return filled


def significance(spectrum: Spectrum, axis: WaveAxis) -> np.ndarray:
    """Return in each column how many standard deviations its mean lies off the reconstruction, NaN without data."""
    residual, ivar = spectrum.residual()
    bins = axis.bins(spectrum.wave, axis.columns)
    mean = binned(residual, ivar, bins, axis.columns)
    inside = (bins >= 0) & (ivar > 0)
    return joined(np.asarray(mean * np.sqrt(np.bincount(bins[inside], ivar[inside], axis.columns))), bins)


def binned(values: np.ndarray, weights: np.ndarray, bins: np.ndarray, n_bins: int) -> np.ndarray:
    """Return the weighted mean in each bin, NaN where no weight is; bin -1 does not count."""
    inside = (bins >= 0) & (weights > 0)
    total = np.bincount(bins[inside], weights[inside], n_bins)
    summed = np.bincount(bins[inside], weights[inside] * values[inside], n_bins)
    return np.divide(summed, total, out=np.full(n_bins, np.nan), where=total > 0)


def _draw_recon(canvas: Canvas, height: np.ndarray, size: Size) -> None:
    if size.colour and size.unicode:
        canvas.curve(height, "recon")
        return
    # without colour the two curves need different marks
    for column in range(0, canvas.columns, 2):
        value = height[min(len(height) - 1, column * canvas.across)]
        if np.isfinite(value):
            canvas.put(column, int(np.clip(round(value / canvas.down), -1, canvas.rows)), "o", "recon")


def _framed(canvas: Canvas, labels: Mapping[int, str], unit: str) -> list[list[Piece]]:
    lines: list[list[Piece]] = []
    for row, pieces in enumerate(canvas.lines()):
        label = labels.get(row, unit if row == 1 and 1 not in labels else "")
        lines.append(
            [(label[: MARGIN - 1].rjust(MARGIN - 1) + " ", "number"), ("┤" if row in labels else "│", "axis"), *pieces]
        )
    return lines


def flux_range(data: np.ndarray, error: np.ndarray, recon: np.ndarray | None) -> tuple[float, float]:
    """Return the lower and upper end of the flux axis: what noise, a cosmic or the model alone does not stretch."""
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
