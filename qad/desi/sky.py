"""Which healpix a position lies in: nside 64, nested, as DESI groups its spectra."""

from __future__ import annotations

import numpy as np

from qad.desi.layout import NSIDE


def healpix_of(ra: np.ndarray, dec: np.ndarray, nside: int = NSIDE) -> np.ndarray:
    """Return the nested HEALPix pixel of positions.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Degrees, ICRS, finite, ``abs(dec) <= 90``.
    nside : int
        A power of two.

    Returns
    -------
    ndarray of int32, shape (n,)

    Notes
    -----
    Górski et al. (2005), ApJ 622, 759: a belt of |sin(dec)| <= 2/3 and two caps, twelve base pixels, and in the nested
    scheme the bits of a pixel's place on its base pixel interleaved.
    """
    z = np.sin(np.radians(dec))
    turn = np.mod(ra, 360.0) / 90.0
    face, x, y = (
        np.where(np.abs(z) <= 2 / 3, *pair) for pair in zip(_belt(z, turn, nside), _cap(z, turn, nside), strict=True)
    )
    return (face * nside**2 + _spread(x) + 2 * _spread(y)).astype(np.int32)


def _belt(z: np.ndarray, turn: np.ndarray, nside: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return base pixel and place on it for positions with |z| <= 2/3."""
    rising = np.floor(nside * (0.5 + turn - 0.75 * z)).astype(np.int64)
    falling = np.floor(nside * (0.5 + turn + 0.75 * z)).astype(np.int64)
    quarter_up, quarter_down = rising // nside, falling // nside
    face = np.where(
        quarter_up == quarter_down,
        quarter_up % 4 + 4,
        np.where(quarter_up < quarter_down, quarter_up, quarter_down + 8),
    )
    return face, falling % nside, nside - 1 - rising % nside


def _cap(z: np.ndarray, turn: np.ndarray, nside: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return base pixel and place on it for positions with |z| > 2/3."""
    quarter = np.minimum(np.floor(turn), 3).astype(np.int64)
    part = turn - quarter
    scale = nside * np.sqrt(3 * (1 - np.abs(z)))
    first = np.minimum((part * scale).astype(np.int64), nside - 1)
    second = np.minimum(((1 - part) * scale).astype(np.int64), nside - 1)
    north = z > 0
    return (
        np.where(north, quarter, quarter + 8),
        np.where(north, nside - 1 - second, first),
        np.where(north, nside - 1 - first, second),
    )


def _spread(value: np.ndarray) -> np.ndarray:
    """Put a zero between the bits of numbers below 2^15."""
    spread = np.zeros_like(value)
    for bit in range(15):
        spread |= (value >> bit & 1) << 2 * bit
    return spread
