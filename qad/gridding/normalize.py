"""One number per spectrum that makes bright and faint quasars alike, at every redshift.

A mean flux between two rest wavelengths exists at some redshifts only.  The amplitude of a fixed shape t(λ), which stands
for the mean quasar, can be measured from any part of the spectrum: A is the robust mean of ``flux / t``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

REFERENCE_WAVE = 2500.0
"""Rest wavelength at which t = 1, Å: the norm is the flux density of the continuum there."""
BREAK_WAVE = 5000.0
BLUE_SLOPE, RED_SLOPE = -1.56, 0.45
"""Slopes of F_λ on both sides of the break: Vanden Berk et al. (2001, AJ 122, 549), α_ν = -0.44 and -2.45."""
FOREST_END = 1250.0
"""Only pixels redward of it count, Å: blueward the forest takes a share of the light that depends on redshift."""
MIN_PIXELS = 20
"""With fewer pixels redward of ``FOREST_END`` all pixels count."""
INTRINSIC_SCATTER = 0.2
"""Quasars differ from t by this share of A; added to the noise, or the few brightest pixels would decide alone."""
HUBER_K = 1.345
"""Deviations beyond this many sigma lose weight: 95 % efficiency for Gaussian errors (Huber 1981, §4)."""
ITERATIONS = 4
"""Leaves less than 1e-3 to the fixed point, measured on quasars with lines at S/N 0.2 to 50 per pixel."""
MIN_SIGNIFICANCE = 3.0
"""A spectrum whose A is below so many times its own noise is divided by that noise instead."""
MAX_FLUX = 1e6
"""A normalised pixel beyond it is no measurement, and its square would overflow float32: its ivar is set to 0."""
MAX_IVAR = 1e10
"""The same for normalised ivar: a signal-to-noise ratio of 1e5 in one pixel."""


def rule() -> dict[str, float | str]:
    """Return the rule in words and its constants: part of the geometry of a grid, and of its hash."""
    return {
        "rule": (
            "norm = max(A, min_significance * sigma_A), where A is the Huber mean of flux / t over pixels redward of "
            "forest_end with variance 1 / (ivar t^2) + (intrinsic_scatter A)^2, sigma_A^2 = 1 / sum(ivar t^2), and t is "
            "wavelength_rest^blue_slope below break_wave, ^red_slope above, 1 at reference_wave"
        ),
        "reference_wave": REFERENCE_WAVE,
        "break_wave": BREAK_WAVE,
        "blue_slope": BLUE_SLOPE,
        "red_slope": RED_SLOPE,
        "forest_end": FOREST_END,
        "min_pixels": MIN_PIXELS,
        "intrinsic_scatter": INTRINSIC_SCATTER,
        "huber_k": HUBER_K,
        "iterations": ITERATIONS,
        "min_significance": MIN_SIGNIFICANCE,
        "max_flux": MAX_FLUX,
        "max_ivar": MAX_IVAR,
    }


def reference_shape(wave_rest: Float) -> Float:
    """Return t(λ): a power law broken at ``BREAK_WAVE``, 1 at ``REFERENCE_WAVE``; the shape is that of `wave_rest` (Å)."""
    # one logarithm and one exponential: two powers take three times as long
    loglam = np.log(wave_rest / REFERENCE_WAVE)
    at_break = np.log(BREAK_WAVE / REFERENCE_WAVE)
    return np.exp(BLUE_SLOPE * np.minimum(loglam, at_break) + RED_SLOPE * np.maximum(loglam - at_break, 0.0))


def amplitude(flux: Float, ivar: Float, wave_rest: Float) -> tuple[Float, Float]:
    """Return the amplitude of each spectrum relative to the reference shape, and its error from noise alone.

    Parameters
    ----------
    flux, ivar, wave_rest : ndarray, shape (n_spectra, n_pixels)
        `wave_rest` in Å; pixels with ivar 0 do not count.

    Returns
    -------
    amplitude, sigma : ndarray, shape (n_spectra,)
        In the unit of flux; amplitude 0 and sigma infinite where no pixel counts.  ``amplitude(c flux, ivar / c²)`` is c times
        ``amplitude(flux, ivar)`` for c > 0.

    Notes
    -----
    Huber's M-estimator by iteratively reweighted means, from the median: one pixel of 1e30 moves it no more than one
    of 10 sigma does.
    """
    from qad.gridding.kernels import huber_means, used_values

    value, weight = np.empty(flux.shape), np.empty(flux.shape)
    count = np.empty(len(flux), np.int64)
    used_values(flux, ivar, reference_shape(wave_rest), wave_rest > FOREST_END, MIN_PIXELS, value, weight, count)
    mean, sigma = np.empty(len(flux)), np.empty(len(flux))
    huber_means(value, weight, count, INTRINSIC_SCATTER, HUBER_K, ITERATIONS, mean, sigma)
    return mean, sigma


def norm_of(flux: Float, ivar: Float, wave_rest: Float) -> NDArray[np.float32]:
    """Return what to divide each spectrum by, shape (n_spectra,); positive, but 0 or infinite where there is no answer.

    That is where no pixel counts, where all flux is exactly 0 (a dead readout), or beyond the range of float32.
    """
    mean, sigma = amplitude(flux, ivar, wave_rest)
    dead = ~((flux != 0) & (ivar > 0)).any(axis=1)
    with np.errstate(over="ignore", under="ignore"):
        norm = np.maximum(mean, MIN_SIGNIFICANCE * sigma).astype(np.float32)
    return np.where(dead, np.float32(0), norm)


def normalise(
    flux: Float, ivar: Float, norm: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return ``flux / norm``, ``ivar norm²`` as float32, and how many pixels of each spectrum were out of range.

    `norm` must be positive and finite.  A pixel beyond ``MAX_FLUX`` or ``MAX_IVAR``, or whose ivar is too small for float32,
    gets flux 0 and ivar 0.
    """
    divisor = norm.astype(np.float64)[:, None]
    flux_out = flux / divisor
    ivar_out = ivar * divisor**2
    was_good = ivar > 0
    good = was_good & (np.abs(flux_out) <= MAX_FLUX) & (ivar_out <= MAX_IVAR)
    good &= ivar_out >= np.finfo(np.float32).tiny
    flux_out[~good] = 0.0
    ivar_out[~good] = 0.0
    return flux_out.astype(np.float32), ivar_out.astype(np.float32), np.asarray((was_good & ~good).sum(axis=1))
