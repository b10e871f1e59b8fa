"""A spectrum as a figure, for PNG files and for terminals that show pictures; drawn by Matplotlib, without its windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.inspection.panels import MAX_SIGMA, STRONG_SIGMA, flux_range
from qad.inspection.plot import SAID
from qad.inspection.scene import PlotOptions, stretches
from qad.inspection.spectrum import Spectrum, smooth
from qad.inspection.text import cell, greek, one_line
from qad.lines import EMISSION_LINES, nearest_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

DPI = 100
LEAST_WIDTH, LEAST_HEIGHT = 480, 300
"""Smallest picture in which the numbers can still be read, pixels."""
NAME_ROWS = 3
"""Rows for names of lines above the flux."""


@dataclass(frozen=True)
class Palette:
    """Colours on one background."""

    page: str
    ink: str
    soft: str
    grid: str
    raw: str
    data: str
    error: str
    model: str
    line: str
    strong: str


LIGHT = Palette(
    "#ffffff", "#1b1f24", "#5c6670", "#e3e7ec", "#b9cbe6", "#1858c4", "#8a94a0", "#d9480f", "#7a4bd0", "#c92a2a"
)
DARK = Palette(
    "#101318", "#e6edf3", "#9aa5b1", "#262d36", "#34506f", "#5aa9ff", "#77828e", "#ff9d5c", "#b79cff", "#ff7b72"
)


def render(
    spectrum: Spectrum,
    facts: Mapping[str, Any],
    options: PlotOptions,
    size: tuple[int, int],
    dark: bool = False,
    scale: float = 1.0,
) -> NDArray[np.uint8]:
    """Return the figure as pixels.

    Parameters
    ----------
    spectrum : Spectrum
    facts : mapping
        As :func:`qad.inspection.plot.draw` takes them.
    options : PlotOptions
    size : tuple of int
        Width and height, pixels.
    dark : bool
        Light ink on a dark page.
    scale : float
        Size of text and strokes: pixels for one of 100 per inch.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = max(size[0], LEAST_WIDTH), max(size[1], LEAST_HEIGHT)
    dpi = DPI * scale
    palette = DARK if dark else LIGHT
    figure = Figure((width / dpi, height / dpi), dpi=dpi, facecolor=palette.page)
    canvas = FigureCanvasAgg(figure)
    _compose(figure, spectrum, facts, options, palette)
    canvas.draw()
    # a margin of rounding: the canvas has whole pixels
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _compose(
    figure: Figure, spectrum: Spectrum, facts: Mapping[str, Any], options: PlotOptions, palette: Palette
) -> None:
    high = figure.get_figheight()
    top = 1 - 0.95 / high
    _title(figure, spectrum, facts, palette, high)
    shown = stretches(spectrum, facts, options)
    if not shown:
        figure.text(0.5, 0.5, "no pixel of this spectrum can be used", ha="center", color=palette.soft)
        return
    has_residual = spectrum.recon is not None and "residual" in options.layers
    ratios = [1.9, 1] if len(shown) > 1 else [1]
    wide = figure.get_figwidth()
    grid = figure.add_gridspec(
        2 if has_residual else 1,
        len(shown),
        height_ratios=[3.4, 1] if has_residual else [1],
        width_ratios=ratios,
        left=0.62 / wide,
        right=1 - 0.16 / wide,
        bottom=0.5 / high,
        top=top,
        hspace=0.06,
        wspace=0.13,
    )
    for column, stretch in enumerate(shown):
        flux = figure.add_subplot(grid[0, column])
        residual = figure.add_subplot(grid[1, column], sharex=flux) if has_residual else None
        _panel(flux, residual, spectrum, facts, options, palette, stretch, first=column == 0)
    if len(shown) > 1:
        _mark_region(figure, shown[1], spectrum, options, palette)


def _title(figure: Figure, spectrum: Spectrum, facts: Mapping[str, Any], palette: Palette, high: float) -> None:
    targetid, survey, program, healpix = spectrum.key
    left = 0.1 / figure.get_figwidth()
    figure.text(left, 1 - 0.08 / high, f"TARGETID {targetid}", color=palette.ink, weight="bold", size=11, va="top")
    known = [f"{label} {one_line(cell(name, facts[name]))}" for name, label in SAID if facts.get(name) is not None]
    text = "   ".join([f"{survey}/{program}/{healpix}", f"z = {spectrum.z:.4f}", *known])
    figure.text(1 - left, 1 - 0.08 / high, _plain(text), color=palette.soft, size=9.5, va="top", ha="right")
    reason = one_line(str(facts.get("reason") or spectrum.note or ""))
    room = int(figure.get_figwidth() * 13.5)
    if reason:
        cut = reason if len(reason) <= room else reason[: room - 1] + "…"
        figure.text(left, 1 - 0.33 / high, _plain(cut), color=palette.ink, size=9.5, va="top", style="italic")


def _plain(text: str) -> str:
    """Return a text that Matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")


def _panel(
    axes: Axes,
    residual: Axes | None,
    spectrum: Spectrum,
    facts: Mapping[str, Any],
    options: PlotOptions,
    palette: Palette,
    stretch: tuple[float, float],
    first: bool,
) -> None:
    shift = options.shift(spectrum)
    wave = spectrum.wave / shift
    low, high = stretch[0] / shift, stretch[1] / shift
    inside = (wave >= low) & (wave <= high)
    good = inside & (spectrum.ivar > 0)
    soft, weight = smooth(spectrum.flux, spectrum.ivar, options.smooth_px)
    data = np.where(good, soft, np.nan)
    error = np.where(good, 1 / np.sqrt(np.where(weight > 0, weight, np.inf)), np.nan)
    recon = spectrum.recon if "model" in options.layers else None
    reach = flux_range(data[inside], error[inside], None if recon is None else recon[inside])
    if "raw" in options.layers:
        axes.step(wave, np.where(good, spectrum.flux, np.nan), where="mid", color=palette.raw, lw=0.5)
    if "error" in options.layers:
        axes.plot(wave, error, color=palette.error, lw=0.8)
    axes.step(wave, data, where="mid", color=palette.data, lw=1.0)
    if recon is not None:
        _draw_model(axes, spectrum, wave, inside, palette)
    axes.set_xlim(low, high)
    axes.set_ylim(*reach)
    if reach[0] < 0 < reach[1]:
        axes.axhline(0, color=palette.soft, lw=0.6, ls=(0, (1, 3)))
    _style(axes, palette)
    if "lines" in options.layers:
        _draw_lines(axes, spectrum, shift, palette)
    _upper_axis(axes, spectrum, options, palette)
    if first:
        unit = r"$10^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$"
        axes.set_ylabel(f"flux ({unit})", color=palette.soft, size=8.5)
    if residual is not None:
        _draw_residual(residual, spectrum, wave, good, options, palette, first)
        axes.tick_params(labelbottom=False)
    _mark_worst(residual or axes, facts, spectrum, shift, palette)
    name = "rest" if options.frame == "rest" else "observed"
    (residual or axes).set_xlabel(f"{name} wavelength (Å, vacuum)", color=palette.soft, size=8.5, labelpad=2)
    if first:
        _legend(axes, spectrum, options, palette)


def _draw_model(axes: Axes, spectrum: Spectrum, wave: np.ndarray, inside: np.ndarray, palette: Palette) -> None:
    recon = np.where(inside, np.asarray(spectrum.recon), np.nan)
    if spectrum.model_var is not None:
        scatter = np.sqrt(np.maximum(spectrum.model_var, 0))
        axes.fill_between(wave, recon - scatter, recon + scatter, color=palette.model, alpha=0.16, lw=0)
    axes.plot(wave, recon, color=palette.model, lw=1.3)


def _draw_residual(
    axes: Axes,
    spectrum: Spectrum,
    wave: np.ndarray,
    good: np.ndarray,
    options: PlotOptions,
    palette: Palette,
    first: bool,
) -> None:
    residual, ivar = spectrum.residual()
    mean, weight = smooth(residual, ivar, options.smooth_px)
    sigma = np.where(good, mean * np.sqrt(weight), np.nan)
    most = float(np.nanmax(np.abs(sigma), initial=0)) if np.isfinite(sigma).any() else 0.0
    most = 1.08 * min(max(most, STRONG_SIGMA), MAX_SIGMA)
    axes.axhspan(-3, 3, color=palette.grid, alpha=0.7, lw=0)
    axes.axhline(0, color=palette.soft, lw=0.6)
    filled = np.nan_to_num(sigma)
    axes.fill_between(wave, 0, filled, step="mid", color=palette.data, lw=0)
    strong = np.where(np.abs(filled) >= STRONG_SIGMA, filled, 0)
    axes.fill_between(wave, 0, strong, step="mid", color=palette.strong, lw=0)
    axes.set_ylim(-most, most)
    _style(axes, palette)
    if first:
        axes.set_ylabel("residual (σ)", color=palette.soft, size=8.5)


def _style(axes: Axes, palette: Palette) -> None:
    axes.set_facecolor(palette.page)
    axes.tick_params(colors=palette.soft, labelsize=8, direction="in", length=4, width=0.7)
    for spine in axes.spines.values():
        spine.set_color(palette.soft)
        spine.set_linewidth(0.7)


def _upper_axis(axes: Axes, spectrum: Spectrum, options: PlotOptions, palette: Palette) -> None:
    factor = 1 + spectrum.z if options.frame == "rest" else 1 / (1 + spectrum.z)
    upper = axes.secondary_xaxis("top", functions=(partial(np.multiply, factor), partial(np.multiply, 1 / factor)))
    upper.tick_params(colors=palette.soft, labelsize=8, direction="in", length=4, width=0.7, pad=2)
    name = "observed" if options.frame == "rest" else "rest"
    upper.set_xlabel(f"{name} wavelength (Å)", color=palette.soft, size=8.5, labelpad=3)


def _draw_lines(axes: Axes, spectrum: Spectrum, shift: float, palette: Palette) -> None:
    """Draw the lines that lie inside, and the names of those that find room, the strongest first."""
    low, high = axes.get_xlim()
    box = axes.get_window_extent()
    taken: list[list[tuple[float, float]]] = [[] for _ in range(NAME_ROWS)]
    figure = axes.figure
    per_point = figure.dpi / 72
    for line in sorted(EMISSION_LINES, key=lambda line: -line.ew):
        at = line.wave * (1 + spectrum.z) / shift
        if not low <= at <= high:
            continue
        axes.axvline(at, color=palette.line, lw=0.7, ls=(0, (2, 3)), alpha=0.75, zorder=0.5)
        name = greek(line.name)
        half = (len(name) * 7.5 * 0.56 / 2 + 2) * per_point
        centre = box.x0 + (at - low) / (high - low) * box.width
        centre = min(max(centre, box.x0 + half), box.x1 - half)
        for row, spans in enumerate(taken):
            if all(centre + half < a or centre - half > b for a, b in spans):
                spans.append((centre - half, centre + half))
                height = 1 - (4 + 10 * row) * per_point / box.height
                axes.text(
                    (centre - box.x0) / box.width,
                    height,
                    name,
                    transform=axes.transAxes,
                    color=palette.line,
                    size=7.5,
                    ha="center",
                    va="top",
                    bbox={"facecolor": palette.page, "edgecolor": "none", "pad": 0.6, "alpha": 0.75},
                )
                break


def _mark_worst(axes: Axes, facts: Mapping[str, Any], spectrum: Spectrum, shift: float, palette: Palette) -> None:
    worst = facts.get("worst_wave_rest")
    if worst is None or not math.isfinite(worst):
        return
    at = worst * (1 + facts.get("z", spectrum.z)) / shift
    low, high = axes.get_xlim()
    if low <= at <= high:
        axes.plot(
            [at],
            [0.0],
            marker="^",
            color=palette.strong,
            ms=7,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            zorder=5,
        )


def _mark_region(
    figure: Figure, stretch: tuple[float, float], spectrum: Spectrum, options: PlotOptions, palette: Palette
) -> None:
    """Shade in the whole spectrum what the second panel shows, and name it there."""
    shift = options.shift(spectrum)
    for axes in figure.axes[: len(figure.axes) // 2]:
        axes.axvspan(stretch[0] / shift, stretch[1] / shift, color=palette.line, alpha=0.07, lw=0, zorder=0)
    line = nearest_line((stretch[0] + stretch[1]) / 2 / (1 + spectrum.z))
    if line is not None:
        second = figure.axes[len(figure.axes) // 2]
        second.text(
            0.985,
            0.03,
            f"{greek(line.name)} region",
            transform=second.transAxes,
            color=palette.soft,
            size=8,
            ha="right",
        )


def _legend(axes: Axes, spectrum: Spectrum, options: PlotOptions, palette: Palette) -> None:
    from matplotlib.lines import Line2D

    kind = ", dereddened" if spectrum.dereddened else ""
    entries: Sequence[tuple[str, str, bool]] = (
        ("pixels", palette.raw, "raw" in options.layers),
        (f"mean of {options.smooth_px} pixels{kind}", palette.data, True),
        ("error of the mean", palette.error, "error" in options.layers),
        ("model and its scatter", palette.model, spectrum.recon is not None and "model" in options.layers),
    )
    shown = [(name, colour) for name, colour, is_shown in entries if is_shown]
    handles = [Line2D([], [], color=colour, lw=1.5) for _, colour in shown]
    legend = axes.legend(
        handles,
        [name for name, _ in shown],
        loc="best" if len(spectrum.wave) < 20_000 else "upper right",
        fontsize=7.5,
        frameon=True,
        framealpha=0.8,
        facecolor=palette.page,
        edgecolor="none",
        labelcolor=palette.soft,
        handlelength=1.4,
    )
    legend.set_zorder(3)
