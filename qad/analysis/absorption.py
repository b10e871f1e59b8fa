"""Broad absorption by C IV: the absorption index AI and the balnicity index BI.

BI (Weymann et al. 1991, ApJ 373, 23) integrates ``1 - f / 0.9`` from -3000 to -25000 km/s over troughs, and starts to count
2000 km/s into each; AI (Hall et al. 2002, ApJS 141, 267; Trump et al. 2006, ApJS 165, 1) from 0 to -25000 km/s over troughs of
at least 450 km/s, from their beginning.  `f` is the flux over continuum and emission line, in bins of 150 km/s.  A
trough counts if it is significant at 5 sigma as a whole, so that noise is no trough: spectra of low S/N have AI and BI 0
with a large error, not a spurious value.

The continuum is a power law through windows between lines, repeated without those that lie below it (absorbed); the emission line is fitted to
its red half and mirrored, since the blue half is where the absorption is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qad.analysis.spectra import WAVE, Spectra
from qad.lines import LIGHT_SPEED_KMS
from qad.profiles import FWHM_PER_SIGMA

Array = NDArray[np.float64]

CIV_WAVE = 1549.06
BIN_KMS = 150.0
LAST_KMS = 25_000.0
AI_RUN_KMS, BI_RUN_KMS, BI_FIRST_KMS = 450.0, 2000.0, 3000.0
DEPTH = 0.9
SIGNIFICANT = 5.0
_WINDOWS = ((1278.0, 1292.0), (1318.0, 1328.0), (1343.0, 1362.0), (1430.0, 1440.0), (1440.0, 1450.0), (1450.0, 1460.0), (1460.0, 1470.0), (1690.0, 1712.0),
            (1775.0, 1790.0), (1790.0, 1812.0), (1985.0, 2030.0))  # fmt: skip
_RED_EDGE = 1590.0
_FWHM = (1500.0, 2500.0, 3500.0, 5000.0, 7000.0)
_CONTINUUM_ERROR = 0.03
"""Of the continuum's place, relative: it moves all bins of a trough together."""
_MIN_COVERED = 0.6

COLUMNS = ("ai_civ", "ai_civ_err", "bi_civ", "bi_civ_err", "bal_vmin", "bal_vmax")


def broad_absorption(spectra: Spectra) -> dict[str, Array]:
    """Return AI and BI of C IV with errors, km/s, and the velocities between which troughs of AI lie (negative: outflow).

    nan where the trough's region or too much of it is not covered.
    """
    found = {name: np.full(len(spectra), np.nan) for name in COLUMNS}
    edges = -np.arange(0.0, LAST_KMS + BIN_KMS, BIN_KMS)
    for i, z in enumerate(spectra.z):
        rest = WAVE / (1 + z)
        if rest[0] > 1460.0 or rest[-1] < 1600.0:
            continue
        inside = (rest > 1270.0) & (rest < 2040.0)
        level = unabsorbed(rest[inside], spectra.flux[i, inside], spectra.ivar[i, inside])
        if level is None:
            continue
        ratio, sigma = _normalised(rest[inside], spectra.flux[i, inside], spectra.ivar[i, inside], level, edges)
        if np.isfinite(sigma).mean() < _MIN_COVERED:
            continue
        ai, ai_err, troughs = _index(ratio, sigma, AI_RUN_KMS, 0.0, 0.0)
        bi, bi_err, _ = _index(ratio, sigma, BI_RUN_KMS, BI_FIRST_KMS, BI_RUN_KMS)
        found["ai_civ"][i], found["ai_civ_err"][i] = ai, ai_err
        found["bi_civ"][i], found["bi_civ_err"][i] = bi, bi_err
        if troughs:
            found["bal_vmin"][i], found["bal_vmax"][i] = edges[troughs[0][0]], edges[troughs[-1][1]]
    return found


def unabsorbed(rest: Array, flux: Array, ivar: Array) -> Array | None:
    """Return continuum and C IV emission as they would be without absorption, None where there is no continuum."""
    points = []
    for low, high in _WINDOWS:
        part = (rest >= low) & (rest < high) & (ivar > 0)
        if part.sum() >= 5:
            weight = ivar[part].sum()
            points.append((0.5 * (low + high), (ivar[part] * flux[part]).sum() / weight, weight**-0.5))
    if len(points) < 3:
        return None
    wave, mean, error = np.array(points).T
    error = np.hypot(error, 0.03 * np.abs(mean))
    keep = np.ones(len(wave), bool)
    x = np.log(wave / 1550.0)
    for _ in range(4):
        # linear in ln wavelength: over this range nearly a power law, without the bias of logarithms at low S/N
        design = np.stack([np.ones_like(x), x])
        w = keep / error**2
        a, b = (design * w) @ design.T, design @ (w * mean)
        solution = np.linalg.solve(a + 1e-12 * np.trace(a) * np.eye(2), b)
        below = (mean - solution @ design) / error < -2.0
        if keep.sum() - (keep & below).sum() < 3 or not (keep & below).any():
            break
        keep &= ~below
    ln = np.log(rest / 1550.0)
    level = solution[0] + solution[1] * ln
    if not level.min() > 0:
        return None
    return np.asarray(level + _mirrored(rest, flux, ivar, level))


def _mirrored(rest: Array, flux: Array, ivar: Array, level: Array) -> Array:
    """Return the emission line from its red half."""
    red = (rest > CIV_WAVE) & (rest < _RED_EDGE) & (ivar > 0)
    if red.sum() < 10:
        return np.zeros_like(rest)
    best, line = np.inf, np.zeros_like(rest)
    for shift in (-1000.0, 0.0):
        velocity = (rest / CIV_WAVE - 1) * LIGHT_SPEED_KMS - shift
        for fwhm in _FWHM:
            sigma = fwhm / FWHM_PER_SIGMA
            shape = np.exp(-0.5 * (velocity / sigma) ** 2) + 0.3 * np.exp(-0.5 * (velocity / (2.5 * sigma)) ** 2)
            norm = (ivar[red] * shape[red] ** 2).sum()
            height = max(0.0, float((ivar[red] * shape[red] * (flux - level)[red]).sum() / norm))
            chi2 = float((ivar[red] * (flux - level - height * shape)[red] ** 2).sum())
            if chi2 < best:
                best, line = chi2, height * shape
    return line


def _normalised(rest: Array, flux: Array, ivar: Array, level: Array, edges: Array) -> tuple[Array, Array]:
    """Return flux over level, and its error, in the bins of velocity from 0 outwards; nan where nothing is."""
    squared = (rest / CIV_WAVE) ** 2
    velocity = LIGHT_SPEED_KMS * (squared - 1) / (squared + 1)
    place = np.floor(-velocity / BIN_KMS).astype(int)
    n_bins = len(edges) - 1
    inside = (place >= 0) & (place < n_bins) & (ivar > 0) & (velocity <= 0)
    weight = np.bincount(place[inside], (ivar * level**2)[inside], n_bins)
    total = np.bincount(place[inside], (ivar * level * flux)[inside], n_bins)
    empty = np.full(n_bins, np.nan)
    ratio = np.divide(total, weight, out=empty.copy(), where=weight > 0)
    return ratio, np.sqrt(np.divide(1.0, weight, out=empty, where=weight > 0))


def _index(
    ratio: Array, sigma: Array, run_kms: float, first_kms: float, skip_kms: float
) -> tuple[float, float, list[tuple[int, int]]]:
    """Return the index, its error and its troughs as (first bin, bin after the last)."""
    first, run, skip = (round(value / BIN_KMS) for value in (first_kms, run_kms, skip_kms))
    depth = 1 - ratio / DEPTH
    value, variance, count, troughs = 0.0, 0.0, 0, []
    for begin, end in _runs((depth > 0) & np.isfinite(depth), first):
        error = sigma[begin:end] / DEPTH
        if end - begin < run or depth[begin:end].sum() < SIGNIFICANT * np.sqrt((error**2).sum()):
            continue
        value += float(depth[begin + skip : end].sum()) * BIN_KMS
        variance += float((error[skip:] ** 2).sum()) * BIN_KMS**2
        count += end - begin - skip
        troughs.append((begin, end))
    if not troughs:
        # what a trough of the least length would have to exceed
        seen = sigma[first:][np.isfinite(sigma[first:])] / DEPTH
        variance = float(np.mean(seen**2)) * run * BIN_KMS**2 if len(seen) else np.inf
        count = run
    return value, float(np.hypot(np.sqrt(variance), _CONTINUUM_ERROR * count * BIN_KMS)), troughs


def _runs(flags: NDArray[np.bool_], first: int) -> list[tuple[int, int]]:
    """Return the runs of true values from `first` on, as (first, after the last)."""
    padded = np.concatenate([[False], flags[first:], [False]]).astype(np.int8)
    steps = np.diff(padded)
    begins, ends = np.flatnonzero(steps == 1) + first, np.flatnonzero(steps == -1) + first
    return list(zip(begins.tolist(), ends.tolist(), strict=True))
