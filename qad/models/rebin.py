"""The fixed number of pixels that the plain autoencoder sees, and the way back to the grid's window."""

from __future__ import annotations

import numpy as np


def rebin(flux: np.ndarray, ivar: np.ndarray, n_out: int) -> np.ndarray:
    """Average windows in `n_out` bins, weighted by ivar; a bin without data is 0.

    Parameters
    ----------
    flux, ivar : ndarray, shape (n, n_obs)
    n_out : int
        Not more than n_obs.

    Returns
    -------
    ndarray, shape (n, n_out), float32
    """
    edges = bin_edges(flux.shape[1], n_out)[:-1]
    weighted = np.where(ivar > 0, flux * ivar, 0)
    total = np.add.reduceat(ivar, edges, axis=1)
    mean = np.add.reduceat(weighted, edges, axis=1) / np.where(total > 0, total, 1)
    return np.where(total > 0, mean, 0).astype(np.float32)


def expand(binned: np.ndarray, n_obs: int) -> np.ndarray:
    """Interpolate linearly from the centres of the bins back to `n_obs` pixels; the ends are held."""
    edges = bin_edges(n_obs, binned.shape[1])
    centres = (edges[:-1] + edges[1:] - 1) / 2
    pixel = np.clip(np.arange(n_obs), centres[0], centres[-1])
    left = np.clip(np.searchsorted(centres, pixel, side="right") - 1, 0, max(len(centres) - 2, 0))
    right = np.minimum(left + 1, len(centres) - 1)
    width = np.where(right > left, centres[right] - centres[left], 1)
    share = ((pixel - centres[left]) / width).astype(np.float32)
    return np.asarray(binned[:, left] * (1 - share) + binned[:, right] * share, np.float32)


def bin_edges(n_obs: int, n_out: int) -> np.ndarray:
    """Return the first pixel of each bin, and the end: `n_out` + 1 values."""
    return np.arange(n_out + 1) * n_obs // n_out
