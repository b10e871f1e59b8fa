"""Listed targets, the pixels that may hold them, and the choice of their rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qad.fetching.choice import RedrockRows
from qad.fetching.nearby import is_near
from qad.fetching.wanted import Listed, Wanted, covers
from qad.work.units import Pixel

_SHOWN_NAME = 32


@dataclass(frozen=True)
class Targets:
    """Listed targets, and the pixels that may hold each.

    Attributes
    ----------
    path : Path
    targetid : ndarray of int64, shape (n,), or None
        None: they are given by position.
    ra, dec : ndarray of float64, shape (n,), or None
        Degrees; only of targets given by position.
    trees : tuple of (str, str)
        The different (survey, program) that the table names; an empty word stands for every one.
    tree : ndarray of int32, shape (n,)
        Which of them a target is listed for.
    rows, healpix : ndarray of int64, shape (n_pairs,)
        Pairs of a target and a pixel that may hold it, sorted by pixel.
    is_exact : bool
        The table itself names the pixels.
    radius_arcsec : float
    counts : mapping of str to int
        ``rows`` of the table, ``listed`` targets, ``unplaced`` ones of which no pixel is known, and rows
        ``dropped.<reason>``.
    """

    path: Path
    targetid: np.ndarray | None
    ra: np.ndarray | None
    dec: np.ndarray | None
    trees: tuple[tuple[str, str], ...]
    tree: np.ndarray
    rows: np.ndarray
    healpix: np.ndarray
    is_exact: bool
    radius_arcsec: float
    counts: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.tree)

    def listed(self) -> Listed:
        """Return the pixels to look in."""
        numbers = {}
        tree = self.tree[self.rows]
        for place, name in enumerate(self.trees):
            numbers[name] = tuple(np.unique(self.healpix[tree == place]).tolist())
        return Listed(str(self.path), numbers, self.is_exact)

    def of_pixel(self, pixel: Pixel) -> np.ndarray:
        """Return the targets that may lie in a pixel, as indices."""
        # keys of another type would have the whole array converted, for every pixel again
        ends = np.array([pixel.healpix, pixel.healpix + 1], self.healpix.dtype)
        first, last = np.searchsorted(self.healpix, ends)
        rows = self.rows[first:last]
        fits = np.array([covers(name, (pixel.survey, pixel.program)) for name in self.trees], bool)
        return rows[fits[self.tree[rows]]]

    def name(self, index: int) -> str:
        """Return a target as a report names it."""
        if self.targetid is not None:
            return str(self.targetid[index])
        ra, dec = self.positions(np.array([index]))
        return f"{ra[0]:.6f} {dec[0]:+.6f}"

    def positions(self, listed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return RA and dec of targets, degrees; nothing where they are given by TARGETID."""
        return (
            (np.empty(0), np.empty(0)) if self.ra is None or self.dec is None else (self.ra[listed], self.dec[listed])
        )


@dataclass(frozen=True)
class ByTarget:
    """Rows of listed targets, whatever redrock calls them."""

    targets: Targets

    def wanted(self, pixel: Pixel, rows: RedrockRows) -> np.ndarray:
        """Return which rows are of a target that is listed for this pixel."""
        listed = self.targets.of_pixel(pixel)
        if self.targets.targetid is not None:
            return np.isin(rows.targetid, self.targets.targetid[listed])
        return is_near(rows.ra, rows.dec, *self.targets.positions(listed), self.targets.radius_arcsec)

    def matched(self, pixel: Pixel, rows: RedrockRows) -> np.ndarray:
        """Return the listed targets that these rows hold, as indices for :class:`Tally`."""
        listed = self.targets.of_pixel(pixel)
        if self.targets.targetid is not None:
            return listed[np.isin(self.targets.targetid[listed], rows.targetid)]
        return listed[is_near(*self.targets.positions(listed), rows.ra, rows.dec, self.targets.radius_arcsec)]

    def signature(self, pixel: Pixel) -> str:
        """Return a hash of what is listed for this pixel alone: other lines of the list change nothing here."""
        listed = self.targets.of_pixel(pixel)
        if self.targets.targetid is not None:
            content = np.unique(self.targets.targetid[listed]).astype("<i8").tobytes()
            return f"targets {hashlib.sha256(content).hexdigest()[:32]}"
        ra, dec = self.targets.positions(listed)
        content = np.unique(np.stack([ra, dec], axis=1), axis=0).astype("<f8").tobytes()
        return f"positions {self.targets.radius_arcsec:g} {hashlib.sha256(content).hexdigest()[:32]}"

    @property
    def text(self) -> str:
        """The rule, such as ``TARGETIDs of quasars.fits``."""
        what = "TARGETIDs" if self.targets.targetid is not None else "positions"
        return f"{what} of {re.sub(r'[^ -~]', '?', self.targets.path.name)[:_SHOWN_NAME]}"


class Tally:
    """Which listed targets were found; one for a run, used from one thread.

    Parameters
    ----------
    targets : Targets
    wanted : Wanted
        What was asked for beside the list: a target outside it is not missed.
    """

    def __init__(self, targets: Targets, wanted: Wanted) -> None:
        self._targets = targets
        self._is_asked = _in_scope(targets, wanted)
        self._is_known = np.zeros(len(targets), bool)

    def found(self, matched: np.ndarray) -> None:
        """Note what :meth:`ByTarget.matched` returned of a pixel."""
        self._is_known[matched] = True

    def untold(self, pixel: Pixel) -> None:
        """Note that a pixel was not looked into: its targets are not missed."""
        self._is_known[self._targets.of_pixel(pixel)] = True

    def name(self, index: int) -> str:
        """Return a target as a report names it."""
        return self._targets.name(index)

    def missing(self) -> np.ndarray:
        """Return the targets that no pixel held, as indices, each target once."""
        indices = np.flatnonzero(self._is_asked & ~self._is_known)
        targetid = self._targets.targetid
        if targetid is None:
            return indices
        # the same target may be listed for several pixels: found in one is found
        indices = indices[~np.isin(targetid[indices], targetid[self._is_known])]
        return indices[np.unique(targetid[indices], return_index=True)[1]]


def _in_scope(targets: Targets, wanted: Wanted) -> np.ndarray:
    """Return which targets lie where something was asked for; those of which no pixel is known count."""
    fits = np.array(
        [
            (not wanted.surveys or not survey or survey in wanted.surveys)
            and (not wanted.programs or not program or program in wanted.programs)
            for survey, program in targets.trees
        ],
        bool,
    )
    asked = fits[targets.tree]
    if wanted.healpix:
        inside = np.zeros(len(targets), bool)
        inside[targets.rows[np.isin(targets.healpix, wanted.healpix)]] = True
        inside[np.bincount(targets.rows, minlength=len(targets)) == 0] = True
        asked &= inside
    return asked
