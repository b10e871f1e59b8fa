"""Which pixels count: the mask rule, and what is put in the place of the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qad.desi.coadd import Camera
from qad.schema import WAVE_START, WAVE_STEP

HALF_PIXEL = WAVE_STEP / 2


class Cleaned(NamedTuple):
    """A camera's spectra with flux and ivar 0 where a pixel does not count, and how many values were impossible."""

    start: int
    flux: np.ndarray
    ivar: np.ndarray
    n_impossible: int


def clean_camera(camera: Camera, min_wave: float, max_wave: float) -> Cleaned:
    """Set flux and ivar to 0, in place, in pixels that do not count.

    A pixel counts if ``ivar > 0 and mask == 0``, both numbers are finite, and its centre lies from `min_wave` to
    `max_wave` (Å).  In DESI's files a dead row has ivar 0 and mask 0, and a pixel that is bad in all exposures keeps its
    ivar and has its mask set: neither test alone will do.

    Returns
    -------
    Cleaned
        ``n_impossible`` counts pixels whose flux or ivar is not finite, or whose ivar is negative.
    """
    flux, ivar = camera.flux, camera.ivar
    possible = np.isfinite(flux) & np.isfinite(ivar) & (ivar >= 0)
    good = possible & (ivar > 0)
    if camera.mask is not None:
        good &= camera.mask == 0
    first, last = wave_limits(min_wave, max_wave)
    good[:, : max(first - camera.start, 0)] = False
    good[:, max(last - camera.start, 0) :] = False
    flux[~good] = 0
    ivar[~good] = 0
    return Cleaned(camera.start, flux, ivar, int(possible.size - np.count_nonzero(possible)))


def wave_limits(min_wave: float, max_wave: float) -> tuple[int, int]:
    """Return the range of merged-grid pixels whose centres lie from `min_wave` to `max_wave` (Å)."""
    # centres such as 5800.0000000005 Å must not fall outside a limit of 5800 Å
    first = int(np.ceil((min_wave - WAVE_START) / WAVE_STEP - 1e-6))
    last = int(np.floor((max_wave - WAVE_START) / WAVE_STEP + 1e-6))
    return first, last + 1


def median_snr(flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median of flux * sqrt(ivar) over pixels with ivar > 0, and the number of these, per row.

    Returns
    -------
    snr : ndarray of float32, shape (n_rows,)
        NaN where no pixel counts.
    n_good : ndarray of int32, shape (n_rows,)
    """
    good = ivar > 0
    n_good = good.sum(axis=1, dtype=np.int32)
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = flux * np.sqrt(ivar)
    # bad pixels go behind the n_good that count
    ratio[~good] = np.inf
    low, high = np.full(len(ratio), np.nan, np.float32), np.full(len(ratio), np.nan, np.float32)
    for row in np.flatnonzero(n_good):
        values, middle = ratio[row], (n_good[row] - 1) // 2
        # half the time of a sort; a second place to divide at would take as long again
        values.partition(middle)
        low[row] = high[row] = values[middle]
        if n_good[row] % 2 == 0:
            high[row] = values[middle + 1 :].min()
    largest = np.finfo(np.float32).max
    return np.clip(low / 2 + high / 2, -largest, largest), n_good
