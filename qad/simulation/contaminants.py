"""What lies among quasars in a release: stars, galaxies, sky fibres and fibres without a target."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qad.lines import LIGHT_SPEED_KMS
from qad.profiles import FWHM_PER_SIGMA, add_gaussian
from qad.simulation import stellar

Array = NDArray[np.float64]

KINDS = (("star", 0.35), ("galaxy", 0.35), ("sky", 0.18), ("dead", 0.12))
"""Kinds of rows beside quasars, and their shares."""
STAR_SHARES = (("WD", 0.12), ("A", 0.1), ("F", 0.25), ("G", 0.2), ("K", 0.15), ("M", 0.18))
_NEBULAR = ((3727.10, 0.7), (3729.86, 1.0), (3869.86, 0.15), (4102.89, 0.13), (4341.69, 0.23), (4862.71, 0.5),
            (4960.30, 0.25), (5008.24, 0.75), (6549.86, 0.2), (6564.60, 1.5), (6585.27, 0.6), (6718.29, 0.35), (6732.67, 0.28))  # fmt: skip
"""Emission lines of star-forming galaxies, Å, and their strength over [O II] (Kennicutt 1992, ApJ 388, 310)."""


def pick(rng: np.random.Generator, shares: tuple[tuple[str, float], ...]) -> str:
    """Return one of the names, by its share."""
    weights = np.array([share for _, share in shares])
    return shares[int(rng.choice(len(shares), p=weights / weights.sum()))][0]


def draw_star(rng: np.random.Generator, wave: Array, kind: str | None = None) -> tuple[Array, float, str]:
    """Return the spectrum of a star (mean 1), its redshift and its kind."""
    kind = kind or pick(rng, STAR_SHARES)
    low, high = stellar.STARS[kind]
    temperature = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    z = float(rng.normal(0.0, 80.0)) / LIGHT_SPEED_KMS
    return stellar.star(wave / (1 + z), kind, temperature), z, kind


def draw_galaxy(rng: np.random.Generator, wave: Array, z: float | None = None) -> tuple[Array, float]:
    """Return the spectrum of a galaxy (mean 1) and its redshift: young with emission lines, or old."""
    z = float(rng.uniform(0.05, 1.5)) if z is None else z
    age = float(rng.beta(0.8, 0.8))
    wave_rest = wave / (1 + z)
    flux = stellar.galaxy(wave_rest, age)
    ew = float(rng.lognormal(np.log(25.0), 0.6)) * (1.0 - age) ** 1.5
    sigma_kms = float(rng.uniform(60.0, 180.0))
    level = stellar.galaxy(np.array([line for line, _ in _NEBULAR]), age)
    for (line, strength), height in zip(_NEBULAR, level, strict=True):
        sigma = line * sigma_kms / LIGHT_SPEED_KMS
        add_gaussian(flux, wave_rest, line, sigma, float(ew * strength * height))
    return np.asarray(flux / flux.mean()), z


def narrow_lines(
    wave_rest: Array, fwhm: float, area: float, strengths: tuple[tuple[float, float], ...] = _NEBULAR
) -> Array:
    """Return narrow lines of one width, km/s, whose areas are `area` times their strengths."""
    flux = np.zeros_like(wave_rest)
    for line, strength in strengths:
        add_gaussian(flux, wave_rest, line, line * fwhm / (FWHM_PER_SIGMA * LIGHT_SPEED_KMS), area * strength)
    return flux
