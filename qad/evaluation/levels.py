"""What observed spectra would be without noise: the model's reconstruction, back on the observed grid and behind the dust."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qad.desi.dust import transmission
from qad.schema import N_WAVE, WAVE_START, WAVE_STEP
from qad.scoring.geometry import Geometry
from qad.storage.flatcache import GridCache

if TYPE_CHECKING:
    from qad.models.base import SpectrumModel

BATCH = 512


def levels_of(cache: GridCache, model: SpectrumModel, rows: np.ndarray) -> np.ndarray:
    """Return the noise-free flux of grid rows in the units of the `spectra` table, float32 (n_rows, 7781).

    Beyond the ends of a window, which hold few observed pixels, the last value goes on.
    """
    geometry = Geometry.of(cache.grid)
    observed = np.log10(WAVE_START + WAVE_STEP * np.arange(N_WAVE))
    scalars = {name: cache.table[name].to_numpy() for name in ("z", "norm", "ebv", "start")}
    levels = np.empty((len(rows), N_WAVE), np.float32)
    for begin in range(0, len(rows), BATCH):
        part = rows[begin : begin + BATCH]
        flux, ivar = np.asarray(cache.flux[part]), np.asarray(cache.ivar[part])
        recon = model.infer(flux, ivar, cache.start[part]).recon
        first = geometry.first_observed(scalars["start"][part], scalars["z"][part])
        for i, row in enumerate(part):
            loglam = first[i] + geometry.dloglam * np.arange(cache.n_obs)
            levels[begin + i] = scalars["norm"][row] * np.interp(observed, loglam, recon[i])
    if cache.grid.get("deredden", False):
        wave = WAVE_START + WAVE_STEP * np.arange(N_WAVE)
        levels *= transmission(wave, scalars["ebv"][rows], float(cache.grid["r_v"])).astype(np.float32)
    return levels
