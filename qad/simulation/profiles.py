"""Shapes on a rising wavelength grid: Gaussians, Voigt wings, smooth boxes; and extinction in small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qad.lines import LIGHT_SPEED_KMS

Array = NDArray[np.float64]


def velocity_kms(wave: Array, line: float) -> Array:
    """Return the velocity at which `line` appears at `wave`, km/s, relativistic; negative: towards us."""
    ratio = (wave / line) ** 2
    return LIGHT_SPEED_KMS * (ratio - 1.0) / (ratio + 1.0)


def shifted(line: float, velocity: float) -> float:
    """Return the wavelength of `line` at a velocity, km/s, relativistic."""
    beta = velocity / LIGHT_SPEED_KMS
    return float(line * np.sqrt((1.0 + beta) / (1.0 - beta)))


def smooth_box(x: Array, low: float, high: float, edge: float) -> Array:
    """Return 1 between `low` and `high` and 0 outside, with edges of the given width."""
    return np.asarray(0.5 * (np.tanh((x - low) / edge) - np.tanh((x - high) / edge)))


def voigt_depth(wave: Array, line: float, strength: float, damping: float, log_n: float, b_kms: float) -> Array:
    """Return the optical depth of a line.

    Parameters
    ----------
    wave : ndarray
        In the frame of the absorber, Å.
    line : float
        Å.
    strength, damping : float
        Oscillator strength, and damping constant, 1/s (Morton 2003, ApJS 149, 205).
    log_n : float
        Column density, log10 of cm-2.
    b_kms : float
        Doppler parameter.

    Notes
    -----
    τ = √π e²/(m c) f λ N / b · H(a, u), with √π e²/(m c) = 1.4974e-15 cm² km/s/Å (Draine 2011, Physics of the Interstellar and Intergalactic Medium, chapter 9).
    """
    from scipy.special import wofz

    doppler = line * b_kms / LIGHT_SPEED_KMS
    a = damping * line * 1e-13 / (4.0 * np.pi * b_kms)
    profile = wofz((wave - line) / doppler + 1j * a).real
    return np.asarray(1.4974e-15 * strength * line * 10.0**log_n / b_kms * profile)


def smc_transmission(wave_rest: Array, ebv: float) -> Array:
    """Return the share of light that passes dust like that of the Small Magellanic Cloud: A = E(B-V) 1.39 (λ/µm)^-1.2.

    The law is the fit of Richards et al. (2003, AJ 126, 1131) to the bump-free curve of Prevot et al. (1984).
    """
    return np.asarray(10.0 ** (-0.4 * ebv * 1.39 * (wave_rest * 1e-4) ** -1.2))


def random_curve(rng: np.random.Generator, x: Array, step: float, scatter: float) -> Array:
    """Return a smooth random curve of mean 0: cubic through normal deviates `step` apart in `x`."""
    from scipy.interpolate import CubicSpline

    nodes = np.arange(x[0] - step, x[-1] + 2 * step, step)
    return np.asarray(CubicSpline(nodes, rng.normal(0.0, scatter, nodes.size))(x))


def draw(rng: np.random.Generator, table: Sequence[tuple[float, float]]) -> float:
    """Return a random value from a density given at points (value, density), linear between them."""
    points = np.array(table)
    area = 0.5 * (points[1:, 1] + points[:-1, 1]) * np.diff(points[:, 0])
    i = int(rng.choice(area.size, p=area / area.sum()))
    (x0, y0), (x1, y1) = points[i], points[i + 1]
    u = rng.random()
    if abs(y1 - y0) < 1e-12:
        return float(x0 + u * (x1 - x0))
    t = (np.sqrt(y0 * y0 + u * (y1 * y1 - y0 * y0)) - y0) / (y1 - y0)
    return float(x0 + t * (x1 - x0))
