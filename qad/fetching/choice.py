"""Which rows of a pixel are wanted: by redrock's class, or by a list of targets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qad.work.units import Pixel


@dataclass(frozen=True)
class RedrockRows:
    """What a choice is made from: the rows of a redrock file, all of shape (n_rows,).

    Attributes
    ----------
    targetid : ndarray of int64
    spectype : sequence of str
    zwarn : ndarray of int64
    ra, dec : ndarray of float64
        TARGET_RA and TARGET_DEC of the file's FIBERMAP, degrees ICRS; NaN where it does not tell.
    """

    targetid: np.ndarray
    spectype: Sequence[str]
    zwarn: np.ndarray
    ra: np.ndarray
    dec: np.ndarray


class Choice(Protocol):
    """A rule that picks rows."""

    def wanted(self, pixel: Pixel, rows: RedrockRows) -> np.ndarray:
        """Return which rows are wanted: bool, shape (n_rows,)."""

    def signature(self, pixel: Pixel) -> str:
        """Return a text that changes when other rows of this pixel may be wanted; receipts keep it."""

    @property
    def text(self) -> str:
        """The rule in at most 60 ASCII characters, for the header of a file that holds only these rows."""


@dataclass(frozen=True)
class ByClass:
    """Rows of these redrock classes without warnings.

    Attributes
    ----------
    spectype : tuple of str
    zwarn : int
        ZWARN bits that are allowed to be set.
    """

    spectype: tuple[str, ...] = ("QSO",)
    zwarn: int = 0

    def wanted(self, pixel: Pixel, rows: RedrockRows) -> np.ndarray:
        """Return which rows are of a wanted class and have no other warning than the allowed ones."""
        names = {name.upper() for name in self.spectype}
        is_class = np.array([value in names for value in rows.spectype], bool)
        return is_class & ((rows.zwarn & ~np.int64(self.zwarn)) == 0)

    def signature(self, pixel: Pixel) -> str:
        """Return the rule itself: it is the same for every pixel."""
        return f"SPECTYPE {'|'.join(sorted({name.upper() for name in self.spectype}))}, ZWARN {self.zwarn}"

    @property
    def text(self) -> str:
        """The rule, such as ``SPECTYPE QSO, ZWARN 0``."""
        names = "|".join(sorted({name.upper() for name in self.spectype}))
        return f"SPECTYPE {re.sub(r'[^ -~]', '?', names)}, ZWARN {self.zwarn}"[:60]
