"""Starlight: spectra of stars, white dwarfs and galaxies from black bodies, breaks and absorption lines."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qad.profiles import add_gaussian, planck

Array = NDArray[np.float64]

BALMER = (3836.47, 3890.16, 3971.20, 4102.89, 4341.69, 4862.71, 6564.60)
"""Balmer lines from H-zeta to H-alpha, Å, vacuum."""
_CALCIUM = (3934.78, 3969.59)
_SODIUM = (5891.58, 5897.56)
_MAGNESIUM = (5168.76, 5174.13, 5185.05)
_CALCIUM_TRIPLET = (8500.36, 8544.44, 8664.52)
_G_BAND = 4305.6
_TIO_BANDS = ((4761.0, 200.0), (4954.0, 190.0), (5448.0, 260.0), (5847.0, 260.0), (6158.0, 330.0), (6651.0, 320.0),
              (7053.0, 330.0), (7589.0, 330.0), (8206.0, 240.0), (8432.0, 330.0), (8859.0, 330.0))  # fmt: skip
"""Heads of TiO bands, Å, and the length over which they fade to the red (Kirkpatrick et al. 1991, ApJS 77, 417)."""

_STAR_SIGMA, _GALAXY_SIGMA = 1.2, 3.5
"""Width of metal lines, Å: blends in a star, and 200 km/s in a galaxy."""
STARS = {"WD": (8000.0, 25_000.0), "A": (7600.0, 9500.0), "F": (6100.0, 7400.0), "G": (5300.0, 6000.0),
         "K": (3950.0, 5200.0), "M": (2900.0, 3750.0)}  # fmt: skip
"""Temperatures of the kinds of stars, K."""


@lru_cache(maxsize=2)
def _blanketing(sigma: float) -> tuple[Array, Array]:
    """Return many weak metal lines of width `sigma`, Å, the same for ever: optical depth by wavelength, densest in the blue."""
    rng = np.random.default_rng(4000)
    wave = np.arange(2000.0, 10_500.0, 0.5)
    depth = np.zeros_like(wave)
    centres = 2000.0 + 8500.0 * rng.beta(1.2, 2.6, 3500)
    for centre, area in zip(centres, rng.exponential(0.25, centres.size), strict=True):
        add_gaussian(depth, wave, float(centre), sigma, float(area))
    return wave, depth


def _absorb(flux: Array, wave: Array, line: float, ew: float, sigma: float) -> None:
    depth = np.zeros_like(flux)
    add_gaussian(depth, wave, line, sigma, ew)
    flux *= np.exp(-depth)


def star(wave: Array, kind: str, temperature: float) -> Array:
    """Return the spectrum of a star at rest, mean 1.

    Parameters
    ----------
    wave : ndarray
        Å.
    kind : str
        A key of :data:`STARS`.
    temperature : float
        K.
    """
    flux = planck(wave, temperature)
    cool = float(np.clip((7500.0 - temperature) / 3500.0, 0.0, 1.0))
    if cool > 0:
        grid, depth = _blanketing(_STAR_SIGMA)
        flux *= np.exp(-0.6 * cool * np.interp(wave, grid, depth))
        for line, ew in [*zip(_CALCIUM, (9.0, 7.5), strict=True), (_G_BAND, 5.0)]:
            _absorb(flux, wave, line, cool * ew, 5.0)
        for line in (*_MAGNESIUM, *_SODIUM, *_CALCIUM_TRIPLET):
            _absorb(flux, wave, line, cool * 2.0, 2.5)
    width, strength = (25.0, 24.0) if kind == "WD" else (6.0, 9.0)
    warm = float(np.exp(-0.5 * ((np.log(temperature) - np.log(10_000.0)) / 0.42) ** 2))
    for line, share in zip(BALMER, (0.5, 0.65, 0.8, 0.9, 1.0, 1.0, 0.9), strict=True):
        _absorb(flux, wave, line, warm * strength * share, width * (line / 4341.69))
    if kind != "WD":
        flux *= 1.0 - 0.6 * warm / (1.0 + np.exp((wave - 3720.0) / 25.0))
    if kind == "M":
        for head, length in _TIO_BANDS:
            inside = wave > head
            strongest = 0.3 + 0.4 * (3750.0 - temperature) / 600.0
            flux[inside] *= np.exp(-strongest * np.exp(-(wave[inside] - head) / length))
    return np.asarray(flux / flux.mean())


def galaxy(wave: Array, age: float) -> Array:
    """Return the stellar light of a galaxy in its rest frame, 1 at 5100 Å.

    Parameters
    ----------
    wave : ndarray
        Rest frame, Å.
    age : float
        0 for a young population with Balmer lines and a blue continuum, 1 for an old one with a strong 4000 Å break.
    """
    flux = _population(wave, age)
    return np.asarray(flux / _population(np.array([5090.0, 5100.0, 5110.0]), age).mean())


def _population(wave: Array, age: float) -> Array:
    flux = planck(wave, 4700.0) + (1.0 - age) * 0.05 * planck(wave, 11_000.0)
    flux *= 1.0 - (0.12 + 0.38 * age) / (1.0 + np.exp((wave - 3990.0) / 18.0))
    flux *= 1.0 - (0.2 + 0.25 * age) / (1.0 + np.exp((wave - 3640.0) / 25.0))
    flux *= 1.0 - (0.3 * age + 0.2) / (1.0 + np.exp((wave - 2750.0) / 120.0))
    grid, depth = _blanketing(_GALAXY_SIGMA)
    flux *= np.exp(-(0.25 + 0.5 * age) * np.interp(wave, grid, depth))
    for line, ew in [*zip(_CALCIUM, (7.0, 6.0), strict=True), (_G_BAND, 5.0)]:
        _absorb(flux, wave, line, (0.25 + 0.75 * age) * ew, 7.0)
    for line in (*_MAGNESIUM, *_SODIUM, *_CALCIUM_TRIPLET):
        _absorb(flux, wave, line, (0.4 + 0.6 * age) * 1.8, 4.5)
    for line in BALMER[:-1]:
        _absorb(flux, wave, line, (1.0 - age) * 5.5, 6.0)
    return flux
