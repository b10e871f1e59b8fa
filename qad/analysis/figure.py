"""A drawing of one spectrum with what was fitted to it: PNG by matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qad.analysis.fit import ComplexFit
from qad.analysis.spectra import WAVE

if TYPE_CHECKING:
    from qad.analysis.source import Block
    from qad.desi.templates import Template

Array = NDArray[np.float64]

SMOOTH = 7
_COLOURS = {
    "flux": "#9aa4ad",
    "smooth": "#1b2a36",
    "error": "#c9a227",
    "model": "#c0392b",
    "level": "#2471a3",
    "redrock": "#1e8449",
}


def new_figure(size: tuple[float, float]) -> Any:
    """Return an empty figure of that size, inches, that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw(block: Block, i: int, fits: dict[str, ComplexFit], template: Template | None = None) -> bytes:
    """Return a PNG: the whole spectrum above, below it each complex that was fitted with its model and continuum."""
    shown = [(fit, int(np.flatnonzero(fit.index == i)[0])) for fit in fits.values() if i in fit.index]
    shown = [(fit, row) for fit, row in shown if fit.chi2[row] >= 0]
    n_rows = -(-len(shown) // 4)
    figure = new_figure((12, 3.6 + 2.4 * n_rows))
    grid = figure.add_gridspec(1 + n_rows, 4, height_ratios=[1.5, *[1.0] * n_rows])
    _whole(figure.add_subplot(grid[0, :]), block, i, shown, template)
    for k, (fit, row) in enumerate(shown):
        _zoom(figure.add_subplot(grid[1 + k // 4, k % 4]), block, i, fit, row)
    sink = io.BytesIO()
    # no time or version in the file: the same fit gives the same bytes
    figure.savefig(sink, format="png", dpi=110, metadata={"Software": None})
    return sink.getvalue()


def smoothed(flux: Array, ivar: Array, width: int = SMOOTH) -> Array:
    """Return the running mean weighted by inverse variance, nan where nothing is."""
    ones = np.ones(width)
    weight = np.convolve(ivar, ones, "same")
    total = np.convolve(ivar * flux, ones, "same")
    seen = np.convolve((ivar > 0).astype(float), ones, "same") > 0.5
    return np.divide(total, weight, out=np.full(len(flux), np.nan), where=seen & (weight > 0))


def _whole(axes: Any, block: Block, i: int, shown: list[tuple[ComplexFit, int]], template: Template | None) -> None:
    row, spectra = block.rows[i], block.spectra
    flux, ivar = spectra.flux[i], spectra.ivar[i]
    good = ivar > 0
    line = smoothed(flux, ivar)
    axes.plot(WAVE, np.where(good, flux, np.nan), color=_COLOURS["flux"], lw=0.3)
    axes.plot(WAVE, line, color=_COLOURS["smooth"], lw=0.7, label=f"flux, mean of {SMOOTH} px")
    axes.plot(
        WAVE,
        np.divide(1, np.sqrt(ivar), out=np.full(len(ivar), np.nan), where=good),
        color=_COLOURS["error"],
        lw=0.4,
        label="error",
    )
    if template is not None:
        # what redrock fitted was not dereddened
        passed = np.divide(block.raw_flux[i], flux, out=np.ones_like(flux), where=np.abs(flux) > 0)
        model = template.model(row["z"], block.coeff[i], WAVE) / np.where(passed > 0, passed, 1)
        axes.plot(
            WAVE, model, color=_COLOURS["redrock"], lw=0.9, label=f"redrock {template.subtype} {template.version}"
        )
    for k, (fit, j) in enumerate(shown):
        wave = _span(fit, j)
        level, total = fit.model(j, wave)
        axes.plot(wave, total, color=_COLOURS["model"], lw=0.9, label=None if k else "lines + continuum")
        axes.plot(wave, level, color=_COLOURS["level"], lw=0.8, ls="--", label=None if k else "continuum")
    finite = line[np.isfinite(line)]
    if len(finite):
        low, high = np.percentile(finite, [1, 99.7])
        axes.set_ylim(min(0.0, low) - 0.05 * (high - low), high + 0.2 * (high - low))
    axes.set_xlim(WAVE[0], WAVE[-1])
    axes.set_xlabel("observed wavelength [Å]")
    axes.set_ylabel("flux, dereddened\n[10$^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$]", fontsize=8)
    axes.set_title(
        f"TARGETID {row['targetid']}  {row['survey']}/{row['program']}  z = {row['z']:.4f}  rank {row['rank']}",
        fontsize=10,
    )
    axes.legend(fontsize=7, ncols=5, loc="upper right")


def _span(fit: ComplexFit, row: int) -> Array:
    stretch = 1 + fit.z[row]
    low, high = fit.complex.ranges[0][0] * stretch, fit.complex.ranges[-1][1] * stretch
    return np.asarray(WAVE[(low <= WAVE) & (high >= WAVE)])


def _zoom(axes: Any, block: Block, i: int, fit: ComplexFit, row: int) -> None:
    wave = _span(fit, row)
    stretch = 1 + fit.z[row]
    inside = np.isin(WAVE, wave)
    flux, ivar = block.spectra.flux[i, inside], block.spectra.ivar[i, inside]
    level, total = fit.model(row, wave)
    rest = wave / stretch
    axes.plot(rest, np.where(ivar > 0, flux, np.nan), color=_COLOURS["flux"], lw=0.4)
    axes.plot(rest, smoothed(flux, ivar, 5), color=_COLOURS["smooth"], lw=0.7)
    axes.plot(rest, total, color=_COLOURS["model"], lw=1.1)
    axes.plot(rest, level, color=_COLOURS["level"], lw=0.9, ls="--")
    top = float(np.nanmax(total)) if len(total) else 1.0
    bottom = float(np.nanmin(level)) if len(level) else 0.0
    noise = float(np.median(1 / np.sqrt(ivar[ivar > 0]))) if (ivar > 0).any() else 0.0
    axes.set_ylim(bottom - 2 * noise - 0.1 * (top - bottom), top + 2 * noise + 0.15 * (top - bottom))
    for k, line in enumerate(fit.complex.lines):
        if line.is_reported and fit.covered[row, k]:
            axes.axvline(line.wave, color="#bbbbbb", lw=0.5, zorder=0)
    axes.set_title(f"{fit.complex.name}   χ²/dof {fit.chi2[row] / fit.dof[row]:.2f}", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("rest wavelength [Å]", fontsize=7)
