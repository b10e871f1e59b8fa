"""What a TARGETID tells of a target's place: the brick of sky that it was numbered in.

A TARGETID holds, from the lowest bit, 22 bits of OBJID, 20 of BRICKID, 16 of RELEASE, one each for mocks and sky
fibres, and two of the Gaia release (``desitarget.targets.encode_targetid``, DESI DocDB 2348).  The bricks are those of
the Legacy Surveys (``desiutil.brick.Bricks``): rows of 0.25 degrees in declination, each cut into an even number of
columns, none wider than 0.25 degrees, and one round brick at each pole; they are numbered from 1, from the south pole
and RA 0 on.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from qad.desi.sky import healpix_of

OBJID_BITS, BRICKID_BITS, RELEASE_BITS = 22, 20, 16
_BRICK_SHIFT, _RELEASE_SHIFT = OBJID_BITS, OBJID_BITS + BRICKID_BITS
_SKY_SHIFT, _GAIA_SHIFT = _RELEASE_SHIFT + RELEASE_BITS + 1, _RELEASE_SHIFT + RELEASE_BITS + 2
TERTIARY_RELEASE = 8888
"""Targets of tertiary programs, which have the program's number for a brick (desihub/fiberassign, ``fba_tertiary``)."""
GAIA_NSIDE = 32
"""Targets from Gaia alone have the nested pixel of Gaia's files for a brick (``desitarget.gaiamatch``)."""
MIN_GAIA_RELEASE = 2
"""1 stands for commissioning targets of first light, not for a Gaia release (``encode_targetid``)."""
BRICK_DEG = 0.25
MARGIN_DEG = 0.02
"""Added around a brick: a target that moved, or lies on an edge, is still found, and the corner of a pixel that pokes
into the brick is at least as wide at the outline's edge as the outline's points are apart."""
_STEPS = 32
"""Points of a brick's outline along each side: 0.009 degrees apart."""
_CHUNK = 1 << 12
"""Bricks handled at once."""


class Parts(NamedTuple):
    """The fields of TARGETIDs, arrays of int64."""

    objid: np.ndarray
    brickid: np.ndarray
    release: np.ndarray
    sky: np.ndarray
    gaia_release: np.ndarray


def decode_targetid(targetid: np.ndarray) -> Parts:
    """Return the fields of TARGETIDs; they mean nothing where one is negative (a fibre without a target)."""
    targetid = np.asarray(targetid, np.int64)
    return Parts(
        targetid & (1 << OBJID_BITS) - 1,
        targetid >> _BRICK_SHIFT & (1 << BRICKID_BITS) - 1,
        targetid >> _RELEASE_SHIFT & (1 << RELEASE_BITS) - 1,
        targetid >> _SKY_SHIFT & 1,
        targetid >> _GAIA_SHIFT & 3,
    )


def candidate_pixels(targetid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the healpix pixels (nside 64, nested) that targets can lie in.

    Parameters
    ----------
    targetid : ndarray of int64, shape (n,)

    Returns
    -------
    row, healpix : ndarray of int64, shape (n_pairs,)
        A few pixels a row; a row whose TARGETID tells no place is not there: negative ones, targets of tertiary
        programs, numbers that no brick has.
    """
    targetid = np.asarray(targetid, np.int64)
    parts = decode_targetid(targetid)
    is_gaia = (targetid >= 0) & (parts.gaia_release >= MIN_GAIA_RELEASE) & (parts.brickid < 12 * GAIA_NSIDE**2)
    # Gaia's own targets have RELEASE 0; with another, or of the sky, the bits may stand beside a true brick
    # (`gdr` of desitarget.targets.finalize)
    is_brick = (targetid >= 0) & ((parts.gaia_release == 0) | (parts.release > 0) | (parts.sky > 0))
    is_brick &= (parts.release != TERTIARY_RELEASE) & (parts.brickid >= 1) & (parts.brickid <= n_bricks())
    gaia_rows, brick_rows = np.flatnonzero(is_gaia), np.flatnonzero(is_brick)
    gaia_pixels = parts.brickid[gaia_rows, None] * 4 + np.arange(4)  # the four children of a nested pixel
    bricks, inverse = np.unique(parts.brickid[brick_rows], return_inverse=True)
    place, healpix = brick_pixels(bricks)
    first = np.searchsorted(place, inverse, "left")
    count = np.searchsorted(place, inverse, "right") - first
    rows = np.repeat(brick_rows, count)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    found = healpix[np.repeat(first, count) + within]
    return np.concatenate([np.repeat(gaia_rows, 4), rows]), np.concatenate([gaia_pixels.ravel(), found])


def brick_pixels(brickid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the healpix pixels that bricks touch, generously.

    Returns
    -------
    place, healpix : ndarray of int64
        `place` is the index into `brickid`, sorted.
    """
    places, pixels = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(brickid), _CHUNK):
        ra, dec = _outlines(brickid[start : start + _CHUNK])
        touched = healpix_of(ra.ravel(), dec.ravel()).reshape(ra.shape)
        touched.sort(axis=1)
        is_new = np.ones(touched.shape, bool)
        is_new[:, 1:] = touched[:, 1:] != touched[:, :-1]
        place, column = np.nonzero(is_new)
        places.append(place + start)
        pixels.append(touched[place, column].astype(np.int64))
    return np.concatenate(places), np.concatenate(pixels)


def brick_bounds(brickid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the lowest and highest RA and the lowest and highest declination of bricks, degrees."""
    columns, first = _rows()
    row = np.searchsorted(first, np.asarray(brickid) - 1, "right") - 1
    width = 360.0 / columns[row]
    low = (np.asarray(brickid) - 1 - first[row]) * width
    south = -90.0 + BRICK_DEG * (row - 0.5)
    return low, low + width, np.maximum(south, -90.0), np.minimum(south + BRICK_DEG, 90.0)


def brick_of(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the BRICKID of positions, degrees."""
    columns, first = _rows()
    row = np.floor((np.asarray(dec, np.float64) + 90.0 + BRICK_DEG / 2) / BRICK_DEG).astype(np.int64)
    row = np.clip(row, 0, len(columns) - 1)
    column = (np.mod(ra, 360.0) / 360.0 * columns[row]).astype(np.int64)
    return first[row] + np.minimum(column, columns[row] - 1) + 1


def n_bricks() -> int:
    """Return how many bricks the sky has."""
    columns, first = _rows()
    return int(first[-1] + columns[-1])


def _outlines(brickid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points on the outlines of bricks, with their margin: RA and dec, degrees, shape (n_bricks, 4 * _STEPS)."""
    west, east, south, north = brick_bounds(brickid)
    south, north = np.maximum(south - MARGIN_DEG, -90.0), np.minimum(north + MARGIN_DEG, 90.0)
    narrowest = np.cos(np.radians(np.maximum(np.abs(south), np.abs(north))))
    with np.errstate(divide="ignore"):
        margin = np.minimum(MARGIN_DEG / narrowest, 180.0)
    middle, half = (west + east) / 2, np.minimum((east - west) / 2 + margin, 180.0)
    step = np.arange(_STEPS) / _STEPS
    along, back = 2 * step - 1, 1 - 2 * step
    # counter-clockwise from the south-western corner, in units of half a side
    x = np.concatenate([along, np.ones(_STEPS), back, -np.ones(_STEPS)])
    y = np.concatenate([-np.ones(_STEPS), along, np.ones(_STEPS), back])
    ra = middle[:, None] + half[:, None] * x
    dec = ((south + north) / 2)[:, None] + ((north - south) / 2)[:, None] * y
    return np.mod(ra, 360.0), np.clip(dec, -90.0, 90.0)


@lru_cache(maxsize=1)
def _rows() -> tuple[np.ndarray, np.ndarray]:
    """Return the number of bricks in each row of declination, and how many lie in the rows before it."""
    centre = np.arange(-90.0, 90.0 + BRICK_DEG / 2, BRICK_DEG)
    equatorward = np.radians(np.abs(centre) - BRICK_DEG / 2)
    columns = (2 * np.ceil(360.0 / BRICK_DEG * np.cos(equatorward) / 2)).astype(np.int64)
    columns[[0, -1]] = 1
    return columns, np.concatenate([[0], np.cumsum(columns)[:-1]])
