"""What lies near a position: the pixels that a disc touches, and the positions within a radius."""

from __future__ import annotations

import numpy as np

from qad.desi.layout import N_PIXELS
from qad.desi.sky import healpix_of

_RING = 16


def pixels_near(ra: np.ndarray, dec: np.ndarray, radius_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the healpix pixels that discs around positions touch, generously.

    Returns
    -------
    row, healpix : ndarray of int64, shape (n_pairs,)
        One pair for nearly every position; more where it lies near an edge.
    """
    own = healpix_of(ra, dec)
    # a pixel is as good as convex: what holds the four corners of a diamond holds the disc inside it
    corners = healpix_of(*_around(ra, dec, 4 * radius_arcsec, 4))
    at_edge = np.flatnonzero((corners.reshape(4, -1) != own).any(axis=0))
    # a corner of a pixel that reaches into the disc is wider at twice the radius than the points are apart
    ring = healpix_of(*_around(ra[at_edge], dec[at_edge], 2 * radius_arcsec, _RING))
    rows = np.concatenate([np.arange(len(ra)), np.tile(at_edge, _RING)])
    pairs = np.unique(rows * N_PIXELS + np.concatenate([own, ring]))
    return pairs // N_PIXELS, pairs % N_PIXELS


def _around(ra: np.ndarray, dec: np.ndarray, distance_arcsec: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `n` points around each position, at all its compass bearings in turn, flat: first those of bearing 0."""
    distance = np.radians(distance_arcsec / 3600.0)
    alpha, delta = np.radians(ra), np.radians(dec)
    zero = np.zeros_like(alpha)
    here = _unit(ra, dec).T
    east = np.stack([-np.sin(alpha), np.cos(alpha), zero])
    north = np.stack([-np.sin(delta) * np.cos(alpha), -np.sin(delta) * np.sin(alpha), np.cos(delta)])
    bearings = 2 * np.pi * np.arange(n) / n
    points = [here * np.cos(distance) + np.sin(distance) * (north * np.cos(b) + east * np.sin(b)) for b in bearings]
    x, y, z = np.concatenate(points, axis=1)
    return np.mod(np.degrees(np.arctan2(y, x)), 360.0), np.degrees(np.arctan2(z, np.hypot(x, y)))


def is_near(ra: np.ndarray, dec: np.ndarray, of_ra: np.ndarray, of_dec: np.ndarray, radius_arcsec: float) -> np.ndarray:
    """Return which positions have one of the others within the radius; positions that are not finite have none."""
    from scipy.spatial import cKDTree

    found = np.zeros(len(ra), bool)
    there = np.isfinite(of_ra) & np.isfinite(of_dec)
    asked = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if there.any() and len(asked):
        # straight through the sphere: poles and RA 0 are places like any other
        chord = 2 * np.sin(np.radians(radius_arcsec / 3600.0) / 2)
        distance, _ = cKDTree(_unit(of_ra[there], of_dec[there])).query(
            _unit(ra[asked], dec[asked]), distance_upper_bound=chord * (1 + 1e-9)
        )
        found[asked] = np.isfinite(distance)
    return found


def _unit(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return unit vectors, shape (n, 3)."""
    alpha, delta = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)], axis=-1)
