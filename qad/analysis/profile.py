"""Width and place of a fitted profile, the instrument's spread taken off, with their errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qad.profiles import FWHM_PER_SIGMA

Array = NDArray[np.float64]

_STEP = 0.02
_GRID: Array = np.arange(-14.0, 14.0 + _STEP / 2, _STEP)
"""Velocity from the core in units of the core's sigma."""
_DELTA = 0.02
"""Step of the numeric derivatives, in each number of the shape."""


def widths(shape: Array) -> tuple[Array, Array]:
    """Return the full width at half maximum and the half-flux velocity of profiles, km/s.

    The half-flux velocity has half of the line's flux on either side (Coatman et al. 2016, MNRAS 461, 647): for one
    Gaussian it is the centre.

    Parameters
    ----------
    shape : ndarray, shape (n, 5)
        Shift of the core, km/s; ln of its sigma, km/s; its share; ln of the wing's width over the core's; shift of the wing
        in sigmas of the core.
    """
    sigma = np.exp(shape[:, 1])
    share, ratio, offset = shape[:, 2:3], np.exp(shape[:, 3:4]), shape[:, 4:5]
    core = share * np.exp(-0.5 * _GRID**2)
    wing = (1 - share) / ratio * np.exp(-0.5 * ((_GRID - offset) / ratio) ** 2)
    profile = core + wing
    return sigma * _full_width(profile), shape[:, 0] + sigma * _half_flux(profile)


def widths_with_errors(shape: Array, covariance: Array) -> tuple[Array, Array, Array, Array]:
    """Return :func:`widths` and their errors: FWHM, its error, shift, its error; `covariance` has shape (n, 5, 5)."""
    fwhm, shift = widths(shape)
    gradient = np.empty((2, *shape.shape))
    scale = np.exp(shape[:, 1])
    for j in range(shape.shape[1]):
        step = _DELTA * (scale if j == 0 else np.ones(len(shape)))
        up, down = shape.copy(), shape.copy()
        up[:, j] += step
        down[:, j] -= step
        for k, (above, below) in enumerate(zip(widths(up), widths(down), strict=True)):
            gradient[k, :, j] = (above - below) / (2 * step)
    errors = np.sqrt(np.maximum(np.einsum("kni,nij,knj->kn", gradient, covariance, gradient), 0.0))
    return fwhm, errors[0], shift, errors[1]


def _full_width(profile: Array) -> Array:
    rows = np.arange(len(profile))
    above = profile >= 0.5 * profile.max(axis=1, keepdims=True)
    left, right = above.argmax(axis=1), above.shape[1] - 1 - above[:, ::-1].argmax(axis=1)
    half = 0.5 * profile.max(axis=1)

    def crossing(inside: NDArray[np.int64], outside: NDArray[np.int64]) -> Array:
        outside = np.clip(outside, 0, profile.shape[1] - 1)
        high, low = profile[rows, inside], profile[rows, outside]
        share = np.divide(high - half, high - low, out=np.zeros(len(rows)), where=high > low)
        return np.asarray(_GRID[inside] + share * (_GRID[outside] - _GRID[inside]))

    return crossing(right, right + 1) - crossing(left, left - 1)


def _half_flux(profile: Array) -> Array:
    total = np.cumsum(profile, axis=1)
    total /= total[:, -1:]
    rows = np.arange(len(profile))
    place = np.clip((total < 0.5).sum(axis=1), 1, profile.shape[1] - 1)
    before, after = total[rows, place - 1], total[rows, place]
    share = np.divide(0.5 - before, after - before, out=np.zeros(len(rows)), where=after > before)
    # the cumulative sum up to a pixel reaches its upper edge
    return np.asarray(_GRID[place - 1] + (share + 0.5) * _STEP)


def sigma_of(fwhm: float) -> float:
    """Return the sigma of a Gaussian of that width."""
    return fwhm / FWHM_PER_SIGMA
