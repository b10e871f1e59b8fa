"""Shapes that known kinds of anomalies give to the difference from a normal quasar: the bank that :mod:`matched` looks for.

Each shape is a change of a composite spectrum in the rest frame; its amplitude is free.  Velocities, widths and ratios are those of
the reviews named beside each family, in steps finer than the width, so that what lies between two shapes loses little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qad.lines import EMISSION_LINES, LIGHT_SPEED_KMS, LYA
from qad.scoring.geometry import REST_MIN, Geometry

BIN_KMS = 550.0
"""Width of the bins in which shapes are compared: a third of the narrowest shape."""
FWHM_PER_SIGMA = 2.3548
BROAD_FWHM, NARROW_FWHM = 4500.0, 600.0
"""Typical widths of broad and narrow lines, km/s, in the composite."""
SLOPE = -1.56
"""Slope of the composite's continuum in F_lambda (Vanden Berk et al. 2001, AJ 122, 549)."""
EDGE_KMS = 300.0
"""Scale over which a trough's edges rise, km/s."""
Ions = tuple[tuple[float, float], ...]
HIGH_IONS: Ions = ((1549.06, 1.0), (1398.0, 0.6), (1240.8, 0.9), (1034.0, 0.7))
"""C IV, Si IV, N V, O VI: rest wavelength, Å, and depth over that of C IV (Weymann et al. 1991, ApJ 373, 23)."""
LOW_IONS: Ions = ((2799.0, 0.8), (1858.0, 0.6))
"""Mg II and Al III (Trump et al. 2006, ApJS 165, 1)."""
IRON_IONS: Ions = ((2344.2, 0.6), (2380.0, 0.8), (2600.0, 0.8), (2750.0, 0.4), *LOW_IONS)
"""Fe II (Hall et al. 2002, ApJS 141, 267)."""
HIGH_WIDTHS = ((1500.0, 750.0), (3000.0, 1500.0), (6000.0, 2500.0), (10_000.0, 4000.0))
"""Width and step of troughs, km/s."""
REDSHIFTED_WIDTHS = HIGH_WIDTHS[:3]
FAST_WIDTHS = ((2000.0, 1000.0), (4000.0, 2000.0), (7000.0, 3500.0))
LOW_WIDTHS = ((1500.0, 750.0), (3000.0, 1500.0), (6000.0, 3000.0))
COLUMN_DENSITIES = (20.3, 20.8, 21.3, 21.8)
"""log10 of neutral hydrogen, cm^-2, from the threshold of damped systems on (Wolfe et al. 2005, ARA&A 43, 861)."""
LYA_OSCILLATOR, LYA_GAMMA = 0.4164, 6.265e8
"""Oscillator strength and damping constant (s^-1) of Lyman alpha (Morton 2003, ApJS 149, 205)."""
CROSS_SECTION = 0.02654
"""pi e^2 / (m_e c), cm^2 Hz."""
LINE_WIDTHS = (1500.0, 4000.0, 9000.0)
LINE_SHIFTS = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""FWHM of emission shapes, km/s, and their shifts in units of it."""


@dataclass(frozen=True)
class Bank:
    """Shapes on bins of the scorer's rest-frame axis.

    Attributes
    ----------
    families : tuple of str
        Names; absorption families count only with positive amplitude.
    family : ndarray of int, shape (n_shapes,)
        Which family a shape belongs to.
    velocity, width : ndarray, shape (n_shapes,)
        Of trough or line, km/s, negative to the blue; log10 of the column density stands for the width of a damped system.
    values : ndarray, shape (n_bins, n_shapes), float32
        Each of unit mean square.
    bin_pixels : int
        Grid pixels in a bin.
    """

    families: tuple[str, ...]
    family: np.ndarray
    velocity: np.ndarray
    width: np.ndarray
    values: np.ndarray
    bin_pixels: int

    @property
    def n_bins(self) -> int:
        """Bins of the rest-frame axis."""
        return len(self.values)


FAMILIES = (
    "bal",
    "redshifted_bal",
    "fast_outflow",
    "lobal",
    "felobal",
    "damped_lya",
    "si_iv",
    "n_iii",
)
SIGNED = ("si_iv", "n_iii")
"""Families that count with either sign: lines may be too strong or too weak; troughs only absorb."""


@lru_cache(maxsize=4)
def bank(geometry: Geometry) -> Bank:
    """Return the bank on a grid."""
    size = geometry.width(BIN_KMS)
    n_bins = -(-geometry.n_rest // size)
    wave = REST_MIN * 10.0 ** ((np.arange(n_bins) * size + 0.5 * (size - 1)) * geometry.dloglam)
    shapes = [shape for name in FAMILIES for shape in _family(name, wave)]
    values = np.stack([shape for *_, shape in shapes], axis=1)
    values /= np.sqrt(np.mean(values**2, axis=0))
    return Bank(
        FAMILIES,
        np.array([FAMILIES.index(name) for name, *_ in shapes]),
        np.array([velocity for _, velocity, *_ in shapes]),
        np.array([width for *_, width, _ in shapes]),
        values.astype(np.float32),
        size,
    )


Shape = tuple[str, float, float, np.ndarray]


def _family(name: str, wave: np.ndarray) -> list[Shape]:
    mean = composite(wave)
    if name == "bal":
        return _troughs(name, wave, mean, HIGH_IONS, HIGH_WIDTHS, (-26_000.0, -500.0))
    if name == "redshifted_bal":
        return _troughs(name, wave, mean, HIGH_IONS, REDSHIFTED_WIDTHS, (700.0, 8000.0))
    if name == "fast_outflow":
        return _troughs(name, wave, mean, HIGH_IONS[:1], FAST_WIDTHS, (-60_000.0, -26_000.0))
    if name == "lobal":
        return _troughs(name, wave, mean, LOW_IONS, LOW_WIDTHS, (-15_000.0, 0.0))
    if name == "felobal":
        return _troughs(name, wave, mean, IRON_IONS, LOW_WIDTHS, (-15_000.0, 0.0))
    if name == "damped_lya":
        return [
            (name, velocity, log_n, -mean * damped(wave, velocity, log_n))
            for log_n in COLUMN_DENSITIES
            for velocity in np.arange(-4000.0, 1001.0, 500.0)
        ]
    centre = {"si_iv": 1398.0, "n_iii": 1750.26}[name]
    level = continuum(wave)
    return [
        (name, shift * fwhm, fwhm, level * gaussian(wave, centre, shift * fwhm, fwhm))
        for fwhm in LINE_WIDTHS
        for shift in LINE_SHIFTS
    ]


def _troughs(
    name: str,
    wave: np.ndarray,
    mean: np.ndarray,
    ions: Ions,
    widths: tuple[tuple[float, float], ...],
    limits: tuple[float, float],
) -> list[Shape]:
    """Return troughs of every width at every velocity between the limits, km/s."""
    found = []
    for width, step in widths:
        # the centres: a trough may begin beyond the limit nearest to rest, but does not end beyond the other
        centres = np.arange(limits[0] + width / 2, limits[1] + 1.0, step)
        found += [(name, float(v), width, -mean * trough(wave, ions, float(v), width)) for v in centres]
    return found


def trough(wave: np.ndarray, ions: Ions, velocity: float, width: float) -> np.ndarray:
    """Return the share of light that ions at a common velocity take (km/s, negative towards us), 0 to 1."""
    taken = np.zeros_like(wave)
    for line, depth in ions:
        v = (wave / line - 1.0) * LIGHT_SPEED_KMS
        inside = _rise((v - velocity + width / 2) / EDGE_KMS) - _rise((v - velocity - width / 2) / EDGE_KMS)
        taken = np.maximum(taken, depth * inside)
    return taken


def _rise(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -40.0, 40.0)))


def damped(wave: np.ndarray, velocity: float, log_n: float) -> np.ndarray:
    """Return the share of light that the damping wings of Lyman alpha take, 0 to 1; their core takes all."""
    rest = wave / (1.0 + velocity / LIGHT_SPEED_KMS)
    hertz = LIGHT_SPEED_KMS * 1e13
    away = hertz / rest - hertz / LYA
    wing = LYA_GAMMA / (4.0 * math.pi**2) / np.maximum(away**2, 1e20)
    tau = 10.0**log_n * CROSS_SECTION * LYA_OSCILLATOR * wing
    return np.where(np.abs(rest / LYA - 1.0) < 0.12, 1.0 - np.exp(-np.minimum(tau, 50.0)), 0.0)


def gaussian(wave: np.ndarray, line: float, shift: float, fwhm: float) -> np.ndarray:
    """Return a line of unit height, shifted and as wide as said, km/s."""
    sigma = fwhm / FWHM_PER_SIGMA
    return np.exp(-0.5 * (((wave / line - 1.0) * LIGHT_SPEED_KMS - shift) / sigma) ** 2)


def continuum(wave: np.ndarray) -> np.ndarray:
    """Return the composite's power law, 1 at 2500 Å."""
    return (wave / 2500.0) ** SLOPE


def composite(wave: np.ndarray) -> np.ndarray:
    """Return a composite quasar: a power law and Gaussian lines of the typical equivalent widths."""
    lines = np.zeros_like(wave)
    for line in EMISSION_LINES:
        # bumps of iron are as wide as their regions
        own = 0.5 * (line.high - line.low) / line.wave * LIGHT_SPEED_KMS if line.name.startswith("Fe") else 0.0
        fwhm = max(own, BROAD_FWHM if line.broad else NARROW_FWHM)
        sigma = line.wave * fwhm / FWHM_PER_SIGMA / LIGHT_SPEED_KMS
        lines += line.ew * gaussian(wave, line.wave, 0.0, fwhm) / (sigma * math.sqrt(2.0 * math.pi))
    return continuum(wave) * (1.0 + lines)
