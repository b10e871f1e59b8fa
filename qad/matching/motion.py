"""Positions at another epoch, by their proper motions."""

from __future__ import annotations

import numpy as np

from qad.matching.sky import Floats

_RADIANS_PER_MAS = np.radians(1 / 3.6e6)


def moved(ra: Floats, dec: Floats, pmra: Floats, pmdec: Floats, years: Floats | float) -> tuple[Floats, Floats]:
    """Return positions after `years`, along great circles.

    Parameters
    ----------
    ra, dec : ndarray, shape (n,)
        Degrees.
    pmra, pmdec : ndarray, shape (n,)
        mas/yr; `pmra` includes the factor cos(dec).  Where either is not finite the source stays.
    years : float or ndarray, shape (n,)
        Julian years from the epoch of the positions to the wanted one, may be negative.

    Returns
    -------
    ra, dec : ndarray, shape (n,)
        Degrees, RA in [0, 360).

    Notes
    -----
    Uniform motion in space seen from afar: the unit vector r becomes r + mu t, normalised, where mu lies in the plane of the
    sky (The Hipparcos and Tycho Catalogues, ESA SP-1200, volume 1, section 1.2.8, without parallax and radial velocity).
    Right at the poles too, where moving RA and dec on their own is not.
    """
    still = ~(np.isfinite(pmra) & np.isfinite(pmdec))
    step = _RADIANS_PER_MAS * np.asarray(years, np.float64)
    east = np.where(still, 0.0, pmra) * step
    north = np.where(still, 0.0, pmdec) * step
    alpha, delta = np.radians(ra), np.radians(dec)
    cos_a, sin_a, cos_d, sin_d = np.cos(alpha), np.sin(alpha), np.cos(delta), np.sin(delta)
    x = cos_d * cos_a - sin_a * east - sin_d * cos_a * north
    y = cos_d * sin_a + cos_a * east - sin_d * sin_a * north
    z = sin_d + cos_d * north
    moved_ra = np.mod(np.degrees(np.arctan2(y, x)), 360.0)
    moved_ra[moved_ra >= 360.0] = 0.0
    # a source that stays keeps its numbers to the last bit
    stays = (east == 0.0) & (north == 0.0)
    return np.where(stays, ra, moved_ra), np.where(stays, dec, np.degrees(np.arctan2(z, np.hypot(x, y))))


def shift_arcsec(pmra: Floats, pmdec: Floats, years: Floats | float) -> Floats:
    """Return how far sources move in `years`, arcsec; 0 where the motion is not known.  Units as in :func:`moved`."""
    total = np.hypot(pmra, pmdec) * np.abs(years) / 1000.0
    return np.where(np.isfinite(total), total, 0.0)
