"""Windows of spectra on the rest-frame grid: spectrum i covers pixels ``start[i]`` to ``start[i] + n_obs``.

Spectra of like `start` are laid side by side on one common stretch of the grid, so that a sum over pixels of
(spectrum x rest-frame basis) becomes one matrix product instead of one per spectrum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

GROUP_ROWS = 64
"""Spectra in one matrix product: enough for the full speed of the product, few enough that starts stay alike."""


@dataclass(frozen=True)
class Group:
    """Spectra laid on grid pixels `low` to `high`.

    Attributes
    ----------
    rows : ndarray of int, shape (n,)
        Which spectra.
    offset : ndarray of int, shape (n,)
        First pixel of each window, counted from `low`.
    flux, ivar : ndarray, shape (n, high - low), float32
        0 outside the window and where ivar is 0.
    """

    rows: np.ndarray
    low: int
    high: int
    offset: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray

    @property
    def stretch(self) -> slice:
        """The grid pixels of the group."""
        return slice(self.low, self.high)


def groups(
    flux: np.ndarray, ivar: np.ndarray, start: np.ndarray, rows: np.ndarray | None = None, size: int = GROUP_ROWS
) -> Iterator[Group]:
    """Yield all spectra (or those of `rows`), those of like start together."""
    chosen = np.arange(len(start)) if rows is None else np.asarray(rows)
    order = chosen[np.argsort(start[chosen], kind="stable")]
    n_obs = flux.shape[1]
    for first in range(0, len(order), size):
        members = order[first : first + size]
        low, high = int(start[members[0]]), int(start[members[-1]]) + n_obs
        offset = start[members].astype(np.int64) - low
        laid_flux = np.zeros((len(members), high - low), np.float32)
        laid_ivar = np.zeros_like(laid_flux)
        for i, (row, shift) in enumerate(zip(members, offset, strict=True)):
            laid_flux[i, shift : shift + n_obs] = flux[row]
            laid_ivar[i, shift : shift + n_obs] = ivar[row]
        laid_flux[laid_ivar == 0] = 0  # what a masked pixel holds must never reach a result
        yield Group(members, low, high, offset, laid_flux, laid_ivar)


def cut(values: np.ndarray, start: np.ndarray, n_obs: int) -> np.ndarray:
    """Return the window of each row, shape (n, n_obs); `values` is (n, n_pixels), or (n_pixels,) for all rows."""
    index = np.asarray(start, np.int64)[:, None] + np.arange(n_obs)
    if values.ndim == 1:
        return values[index]
    return np.take_along_axis(values, index, axis=1)
