"""Would another redshift fit better?  The usual mistakes take one strong line for another.

At each trial redshift the spectrum is fitted with the vectors of a basis, linearly: redrock's quasar templates where their
files are given, else line groups, iron and two power laws, made here.  Trials: the catalogue's redshift, and those at which one
strong line takes the place of another, each with a scan of ±3000 km/s.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qad.analysis.spectra import WAVE, Spectra
from qad.desi.templates import Template, forest
from qad.lines import LIGHT_SPEED_KMS
from qad.profiles import FWHM_PER_SIGMA

Array = NDArray[np.float64]

STRONG = (("Lya", 1215.67), ("C IV", 1549.06), ("C III]", 1908.73), ("Mg II", 2798.75), ("[O II]", 3728.48),
          ("Hbeta", 4862.71), ("[O III]", 5008.24), ("Halpha", 6564.60))  # fmt: skip
"""Lines that are taken for each other."""
STEP = 1e-3
"""Bins of the comparison in ln wavelength: 300 km/s."""
SCAN = tuple(range(-10, 11, 2))
"""Offsets of the scan, bins."""
Z_RANGE = (0.05, 6.5)
MIN_PIXELS = 200
_START = float(np.log(WAVE[0]))
_N = int((np.log(WAVE[-1]) - _START) / STEP)
_GROUPS = (
    ((1033.82, 10.0, 4500.0), (1215.67, 72.0, 4500.0), (1240.14, 18.0, 5500.0)),
    ((1304.35, 1.7, 4500.0), (1335.31, 0.7, 4500.0), (1398.3, 8.0, 5000.0)),
    ((1549.06, 24.0, 4500.0), (1600.0, 2.5, 12_000.0), (1640.42, 2.5, 7000.0), (1663.48, 0.9, 4500.0)),
    ((1857.40, 1.6, 4000.0), (1892.03, 2.6, 4000.0), (1908.73, 16.0, 5000.0)),
    ((2798.75, 32.0, 4000.0),),
    ((4102.89, 5.0, 4500.0), (4341.69, 12.6, 4500.0), (4862.71, 46.0, 4500.0), (6564.60, 195.0, 4000.0)),
    ((3728.48, 1.6, 600.0), (3869.86, 1.4, 600.0), (4960.30, 4.4, 600.0), (5008.24, 13.2, 600.0)),
)
"""Lines that vary together: wavelength, equivalent width of the composite (Vanden Berk et al. 2001), Å, and FWHM, km/s."""


@dataclass(frozen=True)
class Basis:
    """Vectors on a grid of step :data:`STEP` in ln rest wavelength that begins at `start`; 0 where not known."""

    start: float
    vectors: Array
    has_forest: bool
    z_range: tuple[float, float] = Z_RANGE


def alternative_redshifts(spectra: Spectra, templates: Sequence[Template] = ()) -> dict[str, Array | list[str | None]]:
    """Return the best alternative for each spectrum.

    ``z_alt``: its redshift; ``z_alt_dchi2``: chi2 at the catalogue's redshift less chi2 there (positive: the alternative fits
    better), over the pixels that both can fit; ``z_alt_lines``: which line would be which, as ``Mg II is Lya``.
    """
    bases = [_from_template(template) for template in templates] or [composite_basis()]
    z_alt, gain = np.full(len(spectra), np.nan), np.full(len(spectra), np.nan)
    lines: list[str | None] = [None] * len(spectra)
    for i, z in enumerate(spectra.z):
        y, w = _binned(spectra.flux[i], spectra.ivar[i])
        if (w > 0).sum() < MIN_PIXELS:
            continue
        swaps = _swaps(float(z))
        shifts = np.array([0.0, *(np.log((1 + other) / (1 + z)) for other, _ in swaps)])
        chi2, place = _best(y, w, np.log(1 + z) + shifts, bases)
        if not np.isfinite(chi2[0]) or not np.isfinite(chi2[1:]).any():
            continue
        best = int(np.nanargmin(np.where(np.isfinite(chi2[1:]), chi2[1:], np.inf)))
        z_alt[i], gain[i] = np.exp(place[1 + best]) - 1, chi2[0] - chi2[1 + best]
        lines[i] = swaps[best][1]
    return {"z_alt": z_alt, "z_alt_dchi2": gain, "z_alt_lines": lines}


def _swaps(z: float) -> list[tuple[float, str]]:
    """Return the redshifts at which a line that could be seen at `z` is another one, well apart from `z`."""
    found = []
    for (name, wave), (other_name, other) in itertools.permutations(STRONG, 2):
        observed = wave * (1 + z)
        z_other = observed / other - 1
        if WAVE[0] < observed < WAVE[-1] and Z_RANGE[0] < z_other < Z_RANGE[1] and abs(np.log(other / wave)) > 0.05:
            found.append((z_other, f"{name} is {other_name}"))
    return found


def _best(y: Array, w: Array, ln_stretch: Array, bases: Sequence[Basis]) -> tuple[Array, Array]:
    """Return the least chi2 of the scan around each trial, and ln(1 + z) there; inf where no basis covers enough."""
    chi2: Array = np.full(len(ln_stretch), np.inf)
    place: Array = ln_stretch.copy()
    trial: Array = (ln_stretch[:, None] + STEP * np.array(SCAN)).ravel()
    total = float((w * y * y).sum())
    for basis in bases:
        values = _scan(y, w, trial, basis, total).reshape(len(ln_stretch), -1)
        best = values.argmin(axis=1)
        least = values[np.arange(len(best)), best]
        better = least < chi2
        chi2[better] = least[better]
        place[better] = trial.reshape(values.shape)[np.arange(len(best)), best][better]
    return chi2, place


def _scan(y: Array, w: Array, ln_stretch: Array, basis: Basis, total: float) -> Array:
    # observed bin k is rest bin k + first
    first = np.round((_START - ln_stretch - basis.start) / STEP).astype(int)
    n_rest = basis.vectors.shape[1]
    index = np.clip(first[:, None] + np.arange(_N), -1, n_rest)
    padded = np.pad(basis.vectors, ((0, 0), (1, 1)))
    rows = np.moveaxis(padded[:, index + 1], 0, 1)
    if basis.has_forest:
        z = np.expm1(ln_stretch)
        lya = index + 1 < np.round((np.log(1216.0) - basis.start) / STEP) + 1
        for i in np.flatnonzero(lya.any(axis=1)):
            rows[i] *= forest(float(z[i]), _CENTRES)
    # pixels beyond the basis stay, with a model of 0: no redshift gains by leaving some out
    a = (rows * w) @ np.swapaxes(rows, 1, 2)
    b = rows @ (w * y)
    scale = np.sqrt(np.maximum(np.diagonal(a, axis1=1, axis2=2), 1e-30))
    a = a / scale[:, :, None] / scale[:, None, :] + 1e-6 * np.eye(a.shape[1])
    b = b / scale
    chi2 = total - (b * np.linalg.solve(a, b[..., None])[..., 0]).sum(axis=1)
    z = np.expm1(ln_stretch)
    return np.where((z > basis.z_range[0]) & (z < basis.z_range[1]), chi2, np.inf)


_CENTRES: Array = np.exp(_START + STEP * (np.arange(_N) + 0.5))


def _binned(flux: Array, ivar: Array) -> tuple[Array, Array]:
    place = ((np.log(WAVE) - _START) / STEP).astype(int)
    inside = place < _N
    w = np.bincount(place[inside], ivar[inside], _N).astype(float)
    total = np.bincount(place[inside], (ivar * flux)[inside], _N).astype(float)
    # errors of the calibration: no bin is known better than 3 %
    y: Array = np.divide(total, w, out=np.zeros(_N), where=w > 0)
    return y, np.divide(w, 1 + w * (0.03 * y) ** 2)


@lru_cache(maxsize=1)
def composite_basis() -> Basis:
    """Return power laws, line groups and iron as vectors."""
    from qad.iron import balmer_continuum, iron

    start = float(np.log(520.0))
    wave = np.exp(start + STEP * (np.arange(int(np.log(9900.0 / 520.0) / STEP)) + 0.5))
    t = wave / 3000.0
    slope = t**-1.5
    rows = [slope, t**0.0]
    for group in _GROUPS:
        total = np.zeros_like(wave)
        for centre, ew, fwhm in group:
            sigma = centre * fwhm / (FWHM_PER_SIGMA * LIGHT_SPEED_KMS)
            height = ew * (centre / 3000.0) ** -1.5 / (sigma * np.sqrt(2 * np.pi))
            total += height * np.exp(-0.5 * ((wave - centre) / sigma) ** 2)
        rows.append(total)
    rows += [slope * iron(wave, 3500.0, 45.0, 0.0), slope * iron(wave, 3500.0, 0.0, 18.0), 0.2 * balmer_continuum(wave)]
    return Basis(start, np.array(rows), True)


def _from_template(template: Template) -> Basis:
    start = float(np.log(template.wave[0]))
    wave = np.exp(start + STEP * (np.arange(int((np.log(template.wave[-1]) - start) / STEP)) + 0.5))
    z_range = (0.05, 1.6) if template.subtype == "LOZ" else (1.4, 6.5)
    return Basis(start, np.array([np.interp(wave, template.wave, row) for row in template.vectors]), True, z_range)
