"""Shapes that spectra are made of, for those who make them and those who measure them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FWHM_PER_SIGMA = 2.354820045
_REACH = 5.0


def add_gaussian(flux: Array, wave: Array, centre: float, sigma: float, area: float) -> None:
    """Add a Gaussian of the given `area` to `flux`, in place, where it matters."""
    low, high = np.searchsorted(wave, (centre - _REACH * sigma, centre + _REACH * sigma))
    if high > low:
        x = (wave[low:high] - centre) / sigma
        flux[low:high] += area / (sigma * 2.5066282746) * np.exp(-0.5 * x * x)


def planck(wave: Array, temperature: float) -> Array:
    """Return a black body, in arbitrary units per Å."""
    return np.asarray((wave / 5000.0) ** -5 / np.expm1(1.43877e8 / (wave * temperature)))
