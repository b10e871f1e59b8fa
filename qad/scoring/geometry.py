"""Where the pixels of a grid lie: observed and rest wavelengths of every window, and widths in km/s."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qad.lines import LIGHT_SPEED_KMS

REST_MIN = 600.0
"""Blue end of the scorer's own rest-frame bins, Å: below every wavelength that DESI sees at z < 5."""
REST_MAX = 10_200.0
"""Red end of the bins, Å: above the end of camera z (9824 Å) at z slightly below 0."""


@dataclass(frozen=True)
class Geometry:
    """The wavelength grid of a ``grid`` table.

    Attributes
    ----------
    frame : str
        ``rest``: pixel k of a window lies at rest ``loglam0 + (start + k) dloglam``; ``observed``: at observed
        ``loglam0 + (start + k) dloglam``.
    loglam0, dloglam : float
        log10 of Å.
    n_obs : int
        Pixels of a window.
    """

    frame: str
    loglam0: float
    dloglam: float
    n_obs: int

    @classmethod
    def of(cls, grid: Mapping[str, Any]) -> Geometry:
        """Return the geometry that ``grid.json`` describes."""
        return cls(str(grid["frame"]), float(grid["loglam0"]), float(grid["dloglam"]), int(grid["n_obs"]))

    @property
    def pixel_kms(self) -> float:
        """Width of a pixel, km/s."""
        return LIGHT_SPEED_KMS * math.log(10.0) * self.dloglam

    @property
    def n_rest(self) -> int:
        """Pixels of the scorer's rest-frame axis, from REST_MIN to REST_MAX."""
        return math.ceil(math.log10(REST_MAX / REST_MIN) / self.dloglam) + 1

    def rest_start(self, start: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return the rest-frame pixel, counted from REST_MIN, of each window's first pixel, int64 (n_spectra,)."""
        loglam = self.loglam0 + np.asarray(start, float) * self.dloglam
        if self.frame == "observed":
            loglam = loglam - np.log10(1.0 + z)
        return np.rint((loglam - math.log10(REST_MIN)) / self.dloglam).astype(np.int64)

    def rest_pixel(self, wave_rest: np.ndarray | float) -> np.ndarray:
        """Return the rest-frame pixel, counted from REST_MIN, of rest wavelengths (Å), int64."""
        return np.rint((np.log10(wave_rest) - math.log10(REST_MIN)) / self.dloglam).astype(np.int64)

    def rest_wave(self, pixel: np.ndarray) -> np.ndarray:
        """Return the rest wavelength (Å) of rest-frame pixels counted from REST_MIN."""
        return REST_MIN * 10.0 ** (np.asarray(pixel, float) * self.dloglam)

    def first_observed(self, start: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return log10 of the observed wavelength of each window's first pixel, (n_spectra,)."""
        loglam = self.loglam0 + np.asarray(start, float) * self.dloglam
        return loglam + np.log10(1.0 + z) if self.frame == "rest" else loglam

    def kms(self, width: int) -> float:
        """Return how wide pixels are together, km/s."""
        return width * self.pixel_kms

    def width(self, kms: float) -> int:
        """Return how many pixels are `kms` wide, at least 1 and at most the window."""
        return int(min(max(round(kms / self.pixel_kms), 1), self.n_obs))
