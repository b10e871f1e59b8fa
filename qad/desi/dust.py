"""Extinction by the dust of the Milky Way, as DESI applies it.

The curve is that of Fitzpatrick (1999, PASP 111, 63), anchored at 1 µm to the reddening map of Schlegel, Finkbeiner
and Davis (1998, ApJ 500, 525) in the recalibration of Schlafly and Finkbeiner (2011, ApJ 737, 103): the convention of
`desiutil.dust.dust_transmission`, and so of DESI's flux calibration and of fastspecfit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

R_V = 3.1
"""Total to selective extinction of the diffuse Milky Way."""
ANCHOR_WAVE = 10_000.0
ANCHOR_PER_EBV = 1.029
"""A(1 µm), mag, per unit of the map's E(B-V): Schlafly and Finkbeiner (2011); their familiar factor 0.86 in other words."""

# Fitzpatrick (1999), §4 and appendix: the ultraviolet, in the form of Fitzpatrick and Massa (1990, ApJS 72, 163)
_BUMP_CENTRE, _BUMP_WIDTH = 4.596, 0.99  # 1/µm
_BUMP_STRENGTH, _FAR_UV = 3.23, 0.41
_FAR_UV_START = 5.9  # 1/µm
_UV_WAVE = 2700.0
# Spline anchors, Å, and their A/E(B-V) as polynomials in R_V, highest power first: Fitzpatrick (1999, tables 3 and 4),
# with the digits of his own code FMRCURVE
_INFRARED = ((26_500.0, 0.26469), (12_200.0, 0.82925))
_OPTICAL = (
    (6000.0, (2.13572e-4, 1.00270, -4.22809e-1)),
    (5470.0, (-7.35778e-5, 1.00216, -5.13540e-2)),
    (4670.0, (-3.32598e-5, 1.00184, 7.00127e-1)),
    (4110.0, (-4.45636e-5, 7.97809e-4, -5.46959e-3, 1.01707, 1.19456)),
)
_ULTRAVIOLET = (_UV_WAVE, 2600.0)


def transmission(wave: ArrayLike, ebv: ArrayLike, r_v: float = R_V) -> Array:
    """Return the share of light that passes the dust.

    Parameters
    ----------
    wave : array-like
        Wavelength in the frame of the Milky Way (observed), vacuum, Å.
    ebv : array-like
        E(B-V) of Schlegel, Finkbeiner and Davis (1998), mag: DESI's column EBV as it is.
    r_v : float

    Returns
    -------
    ndarray, shape ``ebv.shape + wave.shape``
        Observed flux is intrinsic flux times this.
    """
    magnitudes = np.multiply.outer(np.asarray(ebv, np.float64), extinction_per_ebv(wave, r_v))
    return np.asarray(10.0 ** (-0.4 * magnitudes))


def extinction_per_ebv(wave: ArrayLike, r_v: float = R_V) -> Array:
    """Return A(λ), mag, per unit of the map's E(B-V); the shape is that of `wave` (Å)."""
    return ANCHOR_PER_EBV * fitzpatrick(wave, r_v) / fitzpatrick(ANCHOR_WAVE, r_v)


def fitzpatrick(wave: ArrayLike, r_v: float = R_V) -> Array:
    """Return A(λ)/E(B-V) of Fitzpatrick (1999); the shape is that of `wave` (Å, positive).

    A parametrised ultraviolet below 2700 Å, and above it a natural cubic spline in 1/λ through the anchors.
    """
    from scipy.interpolate import CubicSpline

    x = 1e4 / np.asarray(wave, np.float64)
    anchor_wave = np.array([w for w, _ in (*_INFRARED, *_OPTICAL)] + list(_ULTRAVIOLET))
    values = [value * r_v / R_V for _, value in _INFRARED]
    values += [float(np.polyval(powers, r_v)) for _, powers in _OPTICAL]
    values += list(_ultraviolet(1e4 / np.array(_ULTRAVIOLET), r_v))
    spline = CubicSpline(np.concatenate([[0.0], 1e4 / anchor_wave]), [0.0, *values], bc_type="natural")
    is_ultraviolet = x >= 1e4 / _UV_WAVE
    return np.where(is_ultraviolet, _ultraviolet(x, r_v), spline(np.where(is_ultraviolet, 0.0, x)))


def _ultraviolet(x: Array, r_v: float) -> Array:
    """Return A/E(B-V) at `x` = 1 µm/λ: a line, the 2175 Å bump and the far-ultraviolet rise."""
    slope = -0.824 + 4.717 / r_v
    line = 2.030 - 3.007 * slope + slope * x
    bump = _BUMP_STRENGTH * x**2 / ((x**2 - _BUMP_CENTRE**2) ** 2 + (x * _BUMP_WIDTH) ** 2)
    far = np.maximum(x - _FAR_UV_START, 0.0)
    return r_v + line + bump + _FAR_UV * (0.5392 * far**2 + 0.05644 * far**3)
