"""How likely a match is by chance, from the density of a catalogue around each candidate.

The sky is divided into cells of like size whose counts nest, as HEALPix cells do, but whose number costs a few
multiplications only: every row of a long catalogue is counted while it passes by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from qad.matching.positions import valid_positions
from qad.matching.sky import ARCSEC_PER_DEG, Floats, Integers, SkyIndex

FINEST = 9
"""Level of the cells that are counted: 0.35 degrees high, 0.2 square degrees on average."""
ENOUGH = 25
"""Rows that a cell must hold to be a measurement: an error of 20 %."""
COVERED = 5.0
"""Mean rows of the cells that hold any, at the level where a cell without one counts as outside the survey."""
SQUARE_ARCSEC = ARCSEC_PER_DEG**2


def chance_probability(sep_arcsec: Floats, density: Floats) -> Floats:
    """Return the probability that an unrelated source lies as near as `sep_arcsec` or nearer.

    Parameters
    ----------
    sep_arcsec : ndarray
    density : ndarray
        Unrelated sources per square degree.

    Notes
    -----
    1 - exp(-pi r^2 rho): a Poisson process has no source within r with the probability exp(-pi r^2 rho) (de Ruiter, Willis
    and Arp 1977, A&AS 28, 211; Downes et al. 1986, MNRAS 218, 31, equation 1).  Of unrelated positions with a neighbour
    within R the probabilities of the nearest one are spread evenly between 0 and that of R.
    """
    return np.asarray(-np.expm1(-np.pi * np.square(sep_arcsec) * density / SQUARE_ARCSEC))


@dataclass(frozen=True)
class Grid:
    """The cells of one level: 2^level rings of equal height, each divided into a power of two of cells."""

    level: int
    shift: npt.NDArray[np.int64] = field(init=False, repr=False)
    start: npt.NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n_rings = 1 << self.level
        edges = np.linspace(-90.0, 90.0, n_rings + 1)
        widest = np.cos(np.radians(np.where(edges[:-1] >= 0, edges[:-1], np.minimum(edges[1:], 0.0))))
        shift = np.floor(np.log2(np.maximum(2 * n_rings * widest, 1.0)) + 1e-9).astype(np.int64)
        object.__setattr__(self, "shift", shift)
        object.__setattr__(self, "start", np.concatenate([[0], np.cumsum(1 << shift)]))

    @property
    def n_cells(self) -> int:
        """How many."""
        return int(self.start[-1])

    def cell(self, ra: Floats, dec: Floats) -> Integers:
        """Return the cells of positions in degrees, RA in [0, 360)."""
        n_rings = 1 << self.level
        ring = ((dec + 90.0) * (n_rings / 180.0)).astype(np.int32)
        np.minimum(ring, n_rings - 1, out=ring)
        n_ra = (1 << self.shift)[ring]
        column = (ra * (1 / 360.0) * n_ra).astype(np.int64)
        np.minimum(column, n_ra - 1, out=column)
        return np.asarray(self.start[ring] + column)

    def areas(self) -> Floats:
        """Return the area of each cell, square degrees."""
        edges = np.sin(np.radians(np.linspace(-90.0, 90.0, (1 << self.level) + 1)))
        n_ra = 1 << self.shift
        return np.repeat(np.diff(edges) * np.degrees(360.0) / n_ra, n_ra)

    def coarser(self) -> tuple[Grid, Integers]:
        """Return the grid of the level below, and which of its cells each cell lies in."""
        parent = Grid(self.level - 1)
        ring = np.repeat(np.arange(1 << self.level), 1 << self.shift)
        column = np.arange(self.n_cells) - self.start[ring]
        above = ring >> 1
        return parent, parent.start[above] + (column >> (self.shift[ring] - parent.shift[above]))


class Counter(Protocol):
    """Measures how dense a catalogue is, from its rows as they pass by."""

    def add(self, ra: Floats, dec: Floats) -> None:
        """Take rows: degrees, RA in [0, 360)."""

    def density(self, matched: tuple[Floats, Floats], ra: Floats, dec: Floats, radius_arcsec: float) -> Floats:
        """Return the unrelated rows per square degree at positions; NaN where there is nothing to measure it from.

        Parameters
        ----------
        matched : tuple of ndarray
            RA and dec of the rows within `radius_arcsec` of any of the positions, each once.
        ra, dec : ndarray, shape (n,)
            The positions, degrees, RA in [0, 360).
        radius_arcsec : float
        """
        ...


class SkyCounts:
    """Counts the rows of a catalogue while they pass by, and says how dense it is anywhere.

    Rows that lie within the match radius of a candidate say nothing about chance: they are left out, as are the discs in
    which they lie.
    """

    def __init__(self) -> None:
        self.grid = Grid(FINEST)
        self._rows = np.zeros(self.grid.n_cells, np.int64)

    def add(self, ra: Floats, dec: Floats) -> None:
        """Count rows: degrees, RA in [0, 360)."""
        cells = self.grid.cell(ra, dec)
        low, high = int(cells.min()), int(cells.max()) + 1
        if high - low < self.grid.n_cells // 4:  # a sorted catalogue needs a part of the counts at a time
            self._rows[low:high] += np.bincount(cells - low, minlength=high - low)
        else:
            self._rows += np.bincount(cells, minlength=self.grid.n_cells)

    def density(self, matched: tuple[Floats, Floats], ra: Floats, dec: Floats, radius_arcsec: float) -> Floats:
        """Return the density at positions; see :class:`Counter`."""
        places = np.unique(ra + 1j * dec)  # a target observed twice has one disc
        discs = np.bincount(self.grid.cell(places.real, places.imag), minlength=self.grid.n_cells)
        free = self.grid.areas() - discs * (np.pi * radius_arcsec**2 / SQUARE_ARCSEC)
        others = self._rows - np.bincount(self.grid.cell(*matched), minlength=self.grid.n_cells)
        return pooled(self.grid, self._rows, others, np.maximum(free, 0.0), ra, dec)


def pooled(
    grid: Grid, seen: npt.NDArray[Any], counted: npt.NDArray[Any], area: Floats, ra: Floats, dec: Floats
) -> Floats:
    """Return the density at positions from counts in cells, over as much sky as gives enough of them.

    Parameters
    ----------
    grid : Grid
    seen : ndarray, shape (n_cells,)
        All rows of the catalogue: where there are any, there is the survey.
    counted : ndarray, shape (n_cells,)
        The rows that count.
    area : ndarray, shape (n_cells,)
        The area in which they lie, square degrees.
    ra, dec : ndarray, shape (n,)

    Notes
    -----
    A survey that covers a part of the sky must not look sparse at its edge: cells without any row are left out, at the
    finest level whose cells, where they hold any, hold `COVERED` rows on average (a cell inside is empty by chance with a
    probability of exp(-COVERED), 0.7 %).  From there the cells grow until `ENOUGH` rows are in them.
    """
    density = np.full(len(ra), np.nan)
    is_masked = False
    seen, counted = np.asarray(seen, np.float64), np.asarray(counted, np.float64)
    while True:
        full = np.count_nonzero(seen)
        if not is_masked and (grid.level == 0 or seen.sum() >= COVERED * full):
            area = np.where(seen > 0, area, 0.0)
            is_masked = True
        if is_masked:
            cell = grid.cell(ra, dec)
            here, size = counted[cell], area[cell]
            open_ = np.isnan(density) & (size > 0) & ((here >= ENOUGH) | ((grid.level == 0) & (here > 0)))
            density[open_] = here[open_] / size[open_]
        if grid.level == 0 or not np.isnan(density).any():
            return density
        grid, parent = grid.coarser()
        seen, counted, area = (
            np.asarray(np.bincount(parent, weights=values, minlength=grid.n_cells), np.float64)
            for values in (seen, counted, area)
        )


class AnnulusCounts:
    """Counts the rows of an answer that has only what lies around the candidates: in the rings around them.

    Parameters
    ----------
    ra, dec : ndarray, shape (n,)
        The candidates, degrees.
    radius_arcsec, outer_arcsec : float
        Of a match, and of what was asked for.
    """

    def __init__(self, ra: Floats, dec: Floats, radius_arcsec: float, outer_arcsec: float) -> None:
        self.grid = Grid(FINEST)
        self._radius, self._outer = radius_arcsec, outer_arcsec
        rows, _, _ = valid_positions(ra, dec)
        ra, dec = ra[rows], dec[rows]
        self._index = SkyIndex(ra, dec, outer_arcsec)
        self._seen = np.zeros(len(ra), np.int64)
        self._others = np.zeros(len(ra), np.int64)

    def add(self, ra: Floats, dec: Floats) -> None:
        """Take rows; see :class:`Counter`."""
        nearest = np.full(len(ra), np.inf)
        pairs = list(self._index.pairs(ra, dec))
        for found in pairs:
            np.minimum.at(nearest, found.right, found.sep_arcsec)
        for found in pairs:
            np.add.at(self._seen, found.left, 1)
            np.add.at(self._others, found.left[nearest[found.right] > self._radius], 1)

    def density(self, matched: tuple[Floats, Floats], ra: Floats, dec: Floats, radius_arcsec: float) -> Floats:
        """Return the density at positions, which are those of the candidates that have one; see :class:`Counter`."""
        cells = self.grid.cell(ra, dec)
        ring = np.pi * (self._outer**2 - self._radius**2) / SQUARE_ARCSEC
        seen, others, area = (
            np.asarray(np.bincount(cells, weights=values, minlength=self.grid.n_cells), np.float64)
            for values in (self._seen, self._others, np.full(len(ra), ring))
        )
        return pooled(self.grid, seen, others, area, ra, dec)
