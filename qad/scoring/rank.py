"""The order of the candidates, and flags that say what to know of each before believing it.

Bits of ``flags``::

    1    few_pixels          fewer than 30 % of the window's pixels hold data
    2    redshift_edge       few spectra of like redshift: the calibration leans on others
    4    snr_edge            few spectra of like S/N
    8    small_population    calibrated on fewer than score.min_population spectra
    16   artefact            artefact probability at or above score.artefact_threshold
    32   spike               a single-pixel spike was left out of the residuals
    64   camera_missing      no data in one of the cameras b, r, z
    128  foreign_calibration calibrated by another run's population
    256  extrapolated        the score lies beyond every spectrum of the calibrating population
"""

from __future__ import annotations

import numpy as np

FEW_PIXELS = 1
REDSHIFT_EDGE = 2
SNR_EDGE = 4
SMALL_POPULATION = 8
ARTEFACT = 16
SPIKE = 32
CAMERA_MISSING = 64
FOREIGN_CALIBRATION = 128
EXTRAPOLATED = 256

FLAGS = {
    FEW_PIXELS: "few_pixels",
    REDSHIFT_EDGE: "redshift_edge",
    SNR_EDGE: "snr_edge",
    SMALL_POPULATION: "small_population",
    ARTEFACT: "artefact",
    SPIKE: "spike",
    CAMERA_MISSING: "camera_missing",
    FOREIGN_CALIBRATION: "foreign_calibration",
    EXTRAPOLATED: "extrapolated",
}
"""Name of each bit of ``flags``."""
EDGE_SHARE = 0.005
"""Redshifts and S/N outside this and one less this of the population are its edge."""
FEW_PIXELS_SHARE = 0.3


def flag_names(flags: int) -> list[str]:
    """Return the names of the bits that are set."""
    return [name for bit, name in FLAGS.items() if flags & bit]


def edge_flags(values: np.ndarray, population: np.ndarray, bit: int) -> np.ndarray:
    """Return `bit` where values lie at or beyond the edge of a population, uint32."""
    low, high = np.quantile(population, [EDGE_SHARE, 1 - EDGE_SHARE])
    return np.where((values < low) | (values > high), np.uint32(bit), np.uint32(0))


def order(score: np.ndarray, is_artefact: np.ndarray, keep_artefacts: bool, *keys: np.ndarray) -> np.ndarray:
    """Return row indices from rank 1 on.

    Probable artefacts come after all others unless `keep_artefacts`.  Equal scores are ordered by `keys` (the identity of a
    spectrum), so that the ranks never depend on the order of rows.
    """
    behind = np.zeros(len(score), bool) if keep_artefacts else is_artefact
    return np.lexsort((*reversed(keys), -score, behind))
