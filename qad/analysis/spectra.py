"""Spectra of candidates, ready to be measured: dereddened, with what cannot be used weighted 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qad.desi.dust import transmission
from qad.schema import N_WAVE, WAVE_START, WAVE_STEP

Array = NDArray[np.float64]

WAVE: Array = WAVE_START + WAVE_STEP * np.arange(N_WAVE, dtype=np.float64)
"""Observed wavelengths of the `spectra` table, Å."""


@dataclass(frozen=True)
class Spectra:
    """Spectra on the merged grid of the `spectra` table, corrected for the dust of the Milky Way.

    Attributes
    ----------
    z : ndarray, shape (n,)
    flux, ivar : ndarray, shape (n, 7781)
        1e-17 erg/s/cm2/Å and its inverse variance; 0: do not use.
    """

    z: Array
    flux: Array
    ivar: Array

    def __len__(self) -> int:
        return len(self.z)

    def rows(self, index: slice | NDArray[np.int64]) -> Spectra:
        """Return some of the spectra."""
        return Spectra(self.z[index], self.flux[index], self.ivar[index])


def dereddened(z: Array, flux: Array, ivar: Array, ebv: Array) -> Spectra:
    """Return spectra corrected for extinction, shape (n, 7781); `ebv` (n,) is that of the column, nan counts as 0."""
    passed = transmission(WAVE, np.nan_to_num(ebv))
    good = (ivar > 0) & np.isfinite(flux) & np.isfinite(ivar)
    corrected = np.where(good, flux, 0.0) / passed
    return Spectra(np.asarray(z, np.float64), corrected, np.where(good, ivar, 0.0) * passed**2)
