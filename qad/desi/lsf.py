"""The width of DESI's line spread function, for those who have no resolution matrix at hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qad.desi.datamodel import CAMERA_FIRST, CAMERA_PIXELS, CAMERA_START
from qad.schema import WAVE_STEP

LSF_SIGMA_PIXELS = {"b": (0.92, 0.84), "r": (0.82, 0.76), "z": (1.00, 0.92)}
"""Width (Gaussian sigma) of the line spread function at the two ends of each camera, pixels: measured on EDR coadds."""


def lsf_sigma(wave: ArrayLike) -> NDArray[np.float64]:
    """Return the width of the line spread function, Å (Gaussian sigma), at observed wavelengths (Å).

    In the overlap of two cameras that of the redder one is given; a fibre's own width differs by about 3 %.
    """
    wave = np.asarray(wave, np.float64)
    sigma = np.zeros(wave.shape)
    for camera, first in CAMERA_FIRST.items():
        start = CAMERA_START[camera]
        ends = (start, start + WAVE_STEP * (CAMERA_PIXELS[camera] - 1))
        inside = (wave >= start) if first else np.ones(wave.shape, bool)
        sigma = np.where(inside, WAVE_STEP * np.interp(wave, ends, LSF_SIGMA_PIXELS[camera]), sigma)
    return sigma
