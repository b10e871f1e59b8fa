"""The continuum: slopes on either side of the break, and what the luminosity is at the usual wavelengths.

The break near 5000 Å is that of the composite of Vanden Berk et al. (2001, AJ 122, 549): F_lambda falls as the power -1.5
blueward and more slowly redward of it, where at low redshift the host's light adds to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qad.analysis.fit import ComplexFit
from qad.analysis.spectra import Spectra
from qad.cosmology import luminosity_distance_cm
from qad.schema import WAVE_START, WAVE_STEP

Array = NDArray[np.float64]

ULTRAVIOLET = ((1345.0, 1362.0), (1440.0, 1470.0), (1688.0, 1712.0), (1775.0, 1815.0), (1985.0, 2030.0), (2135.0, 2195.0),
               (2650.0, 2690.0), (2950.0, 3060.0), (3200.0, 3320.0), (3500.0, 3640.0), (3780.0, 3832.0),
               (4000.0, 4050.0), (4200.0, 4235.0), (4435.0, 4640.0))  # fmt: skip
OPTICAL = ((5070.0, 5130.0), (5480.0, 5535.0), (5700.0, 5800.0), (6005.0, 6035.0), (6110.0, 6250.0), (6800.0, 7000.0),
           (7160.0, 7180.0), (7500.0, 7800.0), (8050.0, 8150.0))  # fmt: skip
"""Windows with few lines, rest Å: PyQSOFit's, widened to hold enough pixels, with gaps at the edges of iron's bumps."""
_FLOOR = 0.035
"""How far windows depart from a power law: errors of the flux calibration (Guy et al. 2023, AJ 165, 144), and continua that are none."""
_SLOPES: Array = np.arange(-5.0, 3.01, 0.05)
_MIN_SPAN = 0.12
"""Least span of the covered windows in ln wavelength for which a slope means something."""
LUMINOSITY_AT = {1450: ("civ", "siiv"), 3000: ("mgii",), 5100: ("hbeta",)}
"""Rest wavelengths at which the continuum is told, and the complexes whose local continuum holds them."""
_HALF = 12.0
_FLUX_UNIT = 1e-17


def slopes(spectra: Spectra) -> dict[str, Array]:
    """Return ``slope_uv``, ``slope_opt`` (exponents of F_lambda below and above the break), ``slope_break`` and errors.

    A power law, iron and the Balmer continuum are fitted to means over the windows; the slope's error is where chi2 has
    risen by 1 (times chi2 per degree of freedom where that exceeds 1).  nan: too little is covered.
    """
    uv, uv_err = _slope(spectra, ULTRAVIOLET, True)
    optical, optical_err = _slope(spectra, OPTICAL, False)
    return {
        "slope_uv": uv,
        "slope_uv_err": uv_err,
        "slope_opt": optical,
        "slope_opt_err": optical_err,
        "slope_break": optical - uv,
        "slope_break_err": np.hypot(uv_err, optical_err),
    }


def luminosities(spectra: Spectra, fits: dict[str, ComplexFit]) -> dict[str, Array]:
    """Return the continuum without iron at 1450, 3000 and 5100 Å, and log10 of lambda L_lambda, with errors.

    ``flux_<wave>`` is F_lambda where that rest wavelength is observed; ``loglum_<wave>`` is in erg/s, nan where the flux is
    not positive.
    """
    found = {}
    distance = luminosity_distance_cm(spectra.z)
    for wave, names in LUMINOSITY_AT.items():
        flux, error = np.full(len(spectra), np.nan), np.full(len(spectra), np.nan)
        is_covered = np.isfinite(_mean(spectra, (wave - _HALF, wave + _HALF))[0])
        for name in reversed(names):
            fit = fits[name]
            value, sigma = fit.continuum(np.full(len(fit.index), float(wave)))
            good = (fit.chi2 >= 0) & is_covered[fit.index]
            flux[fit.index[good]], error[fit.index[good]] = value[good], sigma[good]
        # lambda L_lambda does not change with the frame: observed wavelength and flux, 4 pi D_L^2
        power = flux * _FLUX_UNIT * wave * (1 + spectra.z) * 4 * np.pi * distance**2
        is_bright = flux > 0
        found[f"flux_{wave}"], found[f"flux_{wave}_err"] = flux, error
        found[f"loglum_{wave}"] = np.log10(power, out=np.full(len(spectra), np.nan), where=is_bright)
        relative = np.divide(error, flux, out=np.full(len(spectra), np.nan), where=is_bright)
        found[f"loglum_{wave}_err"] = relative / np.log(10)
    return found


def _mean(spectra: Spectra, window: tuple[float, float]) -> tuple[Array, Array]:
    """Return the weighted mean in a rest window and its variance, nan where less than half of the pixels are good."""
    mean, variance = np.full(len(spectra), np.nan), np.full(len(spectra), np.nan)
    for i, z in enumerate(spectra.z):
        first, last = (round((edge * (1 + z) - WAVE_START) / WAVE_STEP) for edge in window)
        if first < 0 or last > spectra.flux.shape[1] or last <= first:
            continue
        w = spectra.ivar[i, first:last]
        total = w.sum()
        if (w > 0).mean() >= 0.5:
            mean[i] = (w * spectra.flux[i, first:last]).sum() / total
            variance[i] = 1 / total
    return mean, variance


def _slope(spectra: Spectra, windows: tuple[tuple[float, float], ...], has_iron: bool) -> tuple[Array, Array]:
    means = [_mean(spectra, window) for window in windows]
    y = np.stack([mean for mean, _ in means], axis=1)
    variance = np.stack([var for _, var in means], axis=1) + (_FLOOR * np.nan_to_num(y)) ** 2
    used = np.isfinite(y)
    w = np.divide(1.0, variance, out=np.zeros_like(y), where=used)
    y = np.where(used, y, 0.0)
    wave = np.array([0.5 * sum(window) for window in windows])
    extra = _bumps(windows) if has_iron else np.zeros((0, len(windows)))
    powers = (wave / 3000.0) ** _SLOPES[:, None]
    basis = np.concatenate([powers[:, None], np.tile(extra, (len(_SLOPES), 1, 1))], axis=1)
    a = np.einsum("skp,np,slp->nskl", basis, w, basis)
    b = np.einsum("skp,np->nsk", basis, w * y)
    # iron and Balmer continuum are a fifth of the continuum, give or take as much
    level = np.abs(np.divide((w * y).sum(axis=1), w.sum(axis=1), out=np.ones(len(y)), where=used.any(axis=1)))
    for k in range(1, basis.shape[1]):
        pull = (np.maximum(level, 1e-12) * 0.2) ** -2
        a[:, :, k, k] += pull[:, None]
        b[:, :, k] += (pull * 0.2 * level)[:, None]
    a += 1e-12 * np.eye(basis.shape[1])
    fit = np.linalg.solve(a, b[..., None])[..., 0]
    chi2 = (w * y * y).sum(axis=1)[:, None] - np.einsum("nsk,nsk->ns", b, fit)
    return _minimum(chi2, wave, used, basis.shape[1])


def _minimum(chi2: Array, wave: Array, used: NDArray[np.bool_], n_terms: int) -> tuple[Array, Array]:
    best = np.clip(chi2.argmin(axis=1), 1, len(_SLOPES) - 2)
    rows = np.arange(len(chi2))
    left, middle, right = (chi2[rows, best + d] for d in (-1, 0, 1))
    curvature = left - 2 * middle + right
    step = _SLOPES[1] - _SLOPES[0]
    good = curvature > 0
    shift = np.divide(0.5 * (left - right), curvature, out=np.zeros(len(chi2)), where=good)
    error = step * np.sqrt(np.divide(2.0, curvature, out=np.full(len(chi2), np.inf), where=good))
    span = np.log(np.where(used, wave, 0).max(axis=1, initial=1.0)) - np.log(np.where(used, wave, 1e9).min(axis=1))
    dof = np.maximum(used.sum(axis=1) - n_terms - 1, 1)
    error *= np.sqrt(np.maximum(middle / dof, 1.0))
    is_inside = (chi2.argmin(axis=1) > 0) & (chi2.argmin(axis=1) < len(_SLOPES) - 1)
    enough = good & is_inside & (used.sum(axis=1) >= 3) & (span > _MIN_SPAN)
    return np.where(enough, _SLOPES[best] + shift * step, np.nan), np.where(enough, error, np.nan)


def _bumps(windows: tuple[tuple[float, float], ...]) -> Array:
    """Return ultraviolet iron, optical iron and the Balmer continuum in the windows, each about 1 at its highest."""
    from qad.iron import balmer_continuum, iron

    terms = []
    for window in windows:
        wave = np.linspace(*window, 20)
        terms.append(
            [iron(wave, 3500.0, 1.0, 0.0).mean(), iron(wave, 3500.0, 0.0, 1.0).mean(), balmer_continuum(wave).mean()]
        )
    values = np.array(terms).T
    return np.asarray(values / values.max(axis=1, keepdims=True))
