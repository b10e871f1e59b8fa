"""Distances in a flat universe with H0 = 70 km/s/Mpc and Omega_m = 0.3, as most quasar catalogues take it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qad.lines import LIGHT_SPEED_KMS

Array = NDArray[np.float64]

_HUBBLE_DISTANCE_MPC = LIGHT_SPEED_KMS / 70.0
_OMEGA_M = 0.3
CM_PER_MPC = 3.0856775814913673e24


@lru_cache(maxsize=1)
def _distance_table() -> tuple[Array, Array]:
    z = np.linspace(0.0, 8.0, 4001)
    inverse = 1.0 / np.sqrt(_OMEGA_M * (1.0 + z) ** 3 + 1.0 - _OMEGA_M)
    comoving = np.concatenate([[0.0], np.cumsum(0.5 * (inverse[1:] + inverse[:-1]) * np.diff(z))])
    return z, comoving * _HUBBLE_DISTANCE_MPC * (1.0 + z)


def distance_modulus(z: float) -> float:
    """Return the distance modulus, mag, of a flat universe with H0 = 70 km/s/Mpc and Omega_m = 0.3."""
    nodes, distance = _distance_table()
    return float(5.0 * np.log10(max(float(np.interp(z, nodes, distance)), 1e-3) * 1e5))


def luminosity_distance_cm(z: ArrayLike) -> Array:
    """Return the luminosity distance, cm."""
    nodes, distance = _distance_table()
    return np.asarray(np.interp(np.asarray(z, np.float64), nodes, distance) * CM_PER_MPC)
