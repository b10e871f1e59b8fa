"""All pairs of two lists of positions within a radius: exact, at the poles and across RA 0/360 too.

The shorter list is indexed once; the longer one passes by in blocks and is never held.  A bitmap of the cells that the
indexed positions reach throws away nearly all of a block with one look-up per row; what is left is compared with the
positions of the declination zones that its disc touches, sorted by right ascension.  Zones: Gray, Nieto-Santisteban
and Szalay (2007), "The Zones Algorithm for Finding Points-Near-a-Point or Cross-Matching Spatial Datasets", MSR-TR-2006-52.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

ARCSEC_PER_DEG = 3600.0
CELLS_PER_POSITION = 64
"""Cells of the bitmap for each indexed position: about 2 % of them are set, and it still fits the processor's cache."""
MIN_CELLS, MAX_CELLS = 1 << 16, 1 << 24
MARGIN_DEG = 1e-6
"""Added to every search window: more than the rounding of a sort key, less than any radius of interest costs."""
MAX_COMPARED = 1 << 21
"""Pairs compared at once: bounds the memory however clustered the sky is."""
ZONE_RADII = 4
"""Height of a zone in radii: most discs then lie in one zone, and a search costs more than a few more comparisons."""
_RA_STRIDE = 512.0
"""Sort key = zone times this + RA; more than 360, a power of two so that the product is exact."""


@dataclass(frozen=True)
class Pairs:
    """Pairs within the radius: row of the indexed list, row of the block, and their separation in arcsec."""

    left: Integers
    right: Integers
    sep_arcsec: Floats

    def __len__(self) -> int:
        return len(self.left)


def separation_arcsec(ra1: Any, dec1: Any, ra2: Any, dec2: Any) -> Floats:
    """Return the great-circle separation in arcsec of positions in degrees, by the haversine formula.

    Right ascensions may differ by full turns.  The formula keeps full precision for small separations (Sinnott 1984,
    Sky and Telescope 68, 158), and the differences are taken in degrees, before any rounding of a conversion.
    """
    half_dec = np.radians(np.subtract(dec2, dec1)) / 2
    half_ra = np.radians(np.subtract(ra2, ra1)) / 2
    cosines = np.cos(np.radians(dec1)) * np.cos(np.radians(dec2))
    hav = np.sin(half_dec) ** 2 + cosines * np.sin(half_ra) ** 2
    return np.asarray(np.degrees(2 * np.arcsin(np.sqrt(np.minimum(hav, 1.0)))) * ARCSEC_PER_DEG)


class SkyIndex:
    """Positions that can be asked, block by block, which of other positions lie within a radius.

    Parameters
    ----------
    ra, dec : ndarray, shape (n,)
        Degrees; RA is taken modulo 360.  A position that is not finite or off the sphere has no partner.
    radius_arcsec : float
        Positive, at most 10 degrees.
    """

    def __init__(self, ra: Floats, dec: Floats, radius_arcsec: float) -> None:
        self.radius_arcsec = radius_arcsec
        self._radius = radius_arcsec / ARCSEC_PER_DEG
        self._n_zones = max(1, int(180.0 / (ZONE_RADII * self._radius + MARGIN_DEG)))
        ra, dec = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
        valid = np.flatnonzero(np.isfinite(ra) & (np.abs(dec) <= 90))
        ra, dec = normal_ra(ra[valid]), dec[valid]
        zone = self._zone(dec)
        order = np.lexsort((ra, zone))
        self._order = valid[order]
        self._ra, self._dec = ra[order], dec[order]
        self._key = zone[order] * _RA_STRIDE + self._ra
        self._cells_ra, self._cells_dec, self._bitmap = self._mark_cells()

    def near(self, ra: Floats, dec: Floats) -> Integers:
        """Return the rows of a block that may have a partner; all others have none.  Degrees, RA in [0, 360)."""
        cell = np.minimum((ra * (self._cells_ra / 360.0)).astype(np.int32), self._cells_ra - 1)
        row = np.minimum(((dec + 90.0) * (self._cells_dec / 180.0)).astype(np.int32), self._cells_dec - 1)
        row *= self._cells_ra
        row += cell
        return np.flatnonzero(self._bitmap[row])

    def pairs(self, ra: Floats, dec: Floats) -> Iterator[Pairs]:
        """Yield all pairs of the indexed positions with those of a block, in portions.

        Parameters
        ----------
        ra, dec : ndarray, shape (n_block,)
            Degrees; finite, RA in [0, 360), dec within -90 to 90.
        """
        rows = self.near(ra, dec)
        block_ra, block_dec = ra[rows], dec[rows]
        who, low, high = self._windows(block_ra, block_dec)
        first = np.searchsorted(self._key, low, "left")
        count = np.searchsorted(self._key, high, "right") - first
        for part in _portions(count):
            asked = np.repeat(who[part], count[part])
            found = _ranges(first[part], count[part])
            sep = separation_arcsec(self._ra[found], self._dec[found], block_ra[asked], block_dec[asked])
            inside = sep <= self.radius_arcsec
            if inside.any():
                yield Pairs(self._order[found[inside]], rows[asked[inside]], sep[inside])

    def _zone(self, dec: Floats) -> Integers:
        zone = np.floor((dec + 90.0) * (self._n_zones / 180.0)).astype(np.int64)
        return np.clip(zone, 0, self._n_zones - 1)

    def _windows(self, ra: Floats, dec: Floats) -> tuple[Integers, Floats, Floats]:
        """Return, for each stretch of sort keys to look through, the asking row and the first and last key."""
        reach = ra_reach(dec, self._radius)
        low, high = ra - reach, ra + reach
        whole = reach >= 180.0
        low[whole], high[whole] = 0.0, 360.0
        # the part of a window beyond RA 0 or 360 lies at the other end of the zone
        rows = np.arange(len(ra))
        left, right = np.flatnonzero(low < 0), np.flatnonzero(high > 360.0)
        asking = np.concatenate([rows, left, right])
        lows = np.concatenate([np.maximum(low, 0.0), low[left] + 360.0, np.zeros(len(right))])
        highs = np.concatenate([np.minimum(high, 360.0), np.full(len(left), 360.0), high[right] - 360.0])
        who, first, last = [], [], []
        lowest = self._zone(dec - self._radius - MARGIN_DEG)[asking]
        highest = self._zone(dec + self._radius + MARGIN_DEG)[asking]
        for zone, used in ((lowest, lowest >= 0), (highest, highest > lowest)):
            base = zone[used] * _RA_STRIDE
            who.append(asking[used])
            first.append(base + lows[used])
            last.append(base + highs[used])
        low_keys = np.concatenate(first)
        order = np.argsort(low_keys)  # sorted keys are searched for several times faster
        return np.concatenate(who)[order], low_keys[order], np.concatenate(last)[order]

    def _mark_cells(self) -> tuple[int, int, npt.NDArray[np.bool_]]:
        """Return the numbers of cells in RA and dec, and which cells any indexed position reaches, flat."""
        reach_dec = self._radius + MARGIN_DEG
        wanted = float(np.clip(CELLS_PER_POSITION * len(self._ra), MIN_CELLS, MAX_CELLS))
        # twice as many in RA as in dec makes them square at the equator; two radii high, a disc touches two rows at most
        n_dec = max(1, min(int(np.sqrt(wanted / 2)), int(180.0 / (2 * reach_dec))))
        n_ra = 2 * n_dec
        reach_ra = ra_reach(self._dec, self._radius)
        low = np.floor((self._ra - reach_ra) * (n_ra / 360.0)).astype(np.int64)
        high = np.floor((self._ra + reach_ra) * (n_ra / 360.0)).astype(np.int64)
        low, high = np.where(reach_ra >= 180.0, 0, low), np.where(reach_ra >= 180.0, n_ra - 1, high)
        bitmap = np.zeros(n_dec * n_ra, bool)
        wide = np.flatnonzero(high - low > 1)
        for edge in (-reach_dec, reach_dec):
            row = np.clip(np.floor((self._dec + edge + 90.0) * (n_dec / 180.0)).astype(np.int64), 0, n_dec - 1)
            bitmap[row * n_ra + low % n_ra] = True
            bitmap[row * n_ra + high % n_ra] = True
            if len(wide):
                bitmap |= _covered(row[wide], low[wide], high[wide], n_dec, n_ra)
        return n_ra, n_dec, bitmap


def normal_ra(ra: Floats) -> Floats:
    """Return right ascensions in [0, 360); the same array if all are already."""
    if len(ra) == 0 or (ra.min() >= 0.0 and ra.max() < 360.0):
        return ra
    ra = np.mod(ra, 360.0)
    ra[ra >= 360.0] = 0.0  # a tiny negative number is rounded up to 360 by mod
    return ra


def ra_reach(dec: Floats, radius_deg: float) -> Floats:
    """Return how far in RA a disc of `radius_deg` around each `dec` extends, degrees; 180 where it holds a pole.

    The widest RA of a disc is asin(sin(radius) / cos(dec)), on the tangent meridian.
    """
    reach = np.full(dec.shape, 180.0)
    free = np.abs(dec) + radius_deg + MARGIN_DEG < 90.0
    sine = np.sin(np.radians(radius_deg)) / np.cos(np.radians(dec[free]))
    reach[free] = np.degrees(np.arcsin(np.minimum(sine, 1.0))) * (1 + 1e-9) + MARGIN_DEG / np.cos(np.radians(dec[free]))
    return np.minimum(reach, 180.0)


def _covered(row: Integers, low: Integers, high: Integers, n_dec: int, n_ra: int) -> npt.NDArray[np.bool_]:
    """Return which cells lie in any of the stretches from `low` to `high` of their rows, flat."""
    change = np.zeros(n_dec * n_ra + 1, np.int32)
    for start, stop in _unwrapped(low, high, n_ra):
        valid = start <= stop
        np.add.at(change, (row * n_ra + start)[valid], 1)
        np.add.at(change, (row * n_ra + stop + 1)[valid], -1)
    return np.asarray(np.cumsum(change[:-1], dtype=np.int32) > 0)


def _unwrapped(low: Integers, high: Integers, n: int) -> list[tuple[Integers, Integers]]:
    """Return intervals of cells, which may leave [0, n), as intervals inside it; empty ones have start > stop."""
    none = np.full(len(low), -1)
    left = (np.where(low < 0, low + n, 0), np.where(low < 0, n - 1, none))
    right = (np.zeros(len(low), np.int64), np.where(high >= n, high - n, none))
    return [(np.maximum(low, 0), np.minimum(high, n - 1)), left, right]


def _portions(count: Integers) -> Iterator[slice]:
    """Yield slices whose counts add up to about MAX_COMPARED, one entry at least."""
    total = np.cumsum(count)
    start, done = 0, 0
    while start < len(count):
        stop = max(start + 1, int(np.searchsorted(total, done + MAX_COMPARED, "right")))
        yield slice(start, stop)
        start, done = stop, int(total[stop - 1])


def _ranges(first: Integers, count: Integers) -> Integers:
    """Return first[0], first[0] + 1, ... count[0] of them, then those of first[1], and so on."""
    ends = np.cumsum(count)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - count), count)
