"""The cameras b, r and z on one grid: 3600 + 0.8 k Å, 7781 pixels.

DESI's own rule (``desispec.coaddition.coadd_cameras``): where one camera covers a pixel it is copied, where two do, they
are averaged by inverse variance.  Nothing is rescaled: a step at 5760-5800 or 7520-7620 Å stays in the data.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qad.extraction.clean import Cleaned
from qad.schema import N_WAVE


def merge_cameras(cameras: Iterable[Cleaned], n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return flux and ivar on the merged grid.

    Parameters
    ----------
    cameras : iterable of Cleaned
    n_rows : int

    Returns
    -------
    flux, ivar : ndarray of float32, shape (n_rows, 7781)
        Both 0 where no camera has a pixel that counts; a bitwise copy where just one has.
    """
    flux = np.zeros((n_rows, N_WAVE), np.float32)
    ivar = np.zeros((n_rows, N_WAVE), np.float32)
    end = 0
    for camera in sorted(cameras, key=lambda item: item.start):
        stop = camera.start + camera.flux.shape[1]
        n_shared = min(max(end - camera.start, 0), camera.flux.shape[1])
        own = slice(camera.start + n_shared, stop)
        flux[:, own], ivar[:, own] = camera.flux[:, n_shared:], camera.ivar[:, n_shared:]
        if n_shared:
            shared = slice(camera.start, camera.start + n_shared)
            flux[:, shared], ivar[:, shared] = _average(
                flux[:, shared], ivar[:, shared], camera.flux[:, :n_shared], camera.ivar[:, :n_shared]
            )
        end = max(end, stop)
    return flux, ivar


def _average(
    flux_1: np.ndarray, ivar_1: np.ndarray, flux_2: np.ndarray, ivar_2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the inverse-variance weighted mean of two sets of pixels, in float64 on the way."""
    weight_1, weight_2 = ivar_1.astype(np.float64), ivar_2.astype(np.float64)
    total = weight_1 + weight_2
    mean = (weight_1 * flux_1 + weight_2 * flux_2) / np.where(total > 0, total, 1)
    # a mean over one pixel would round; the copy does not
    flux = np.where(ivar_2 == 0, flux_1, np.where(ivar_1 == 0, flux_2, mean.astype(np.float32)))
    return flux, np.minimum(total, np.finfo(np.float32).max).astype(np.float32)
