"""The grid: pixels uniform in log10 of wavelength, and the window of it that a spectrum fills.

On such a grid a redshift is a shift by whole pixels: each spectrum is resampled once onto a window of constant length
that begins at pixel `start` of the rest-frame grid.  Pixel k of a window is centred on
``loglam0 + (start + k) * dloglam`` and reaches half a `dloglam` to both sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from qad.schema import N_WAVE, WAVE_START, WAVE_STEP

if TYPE_CHECKING:
    from qad.settings import BuildGrid

FIRST_EDGE = WAVE_START - WAVE_STEP / 2
"""Blue edge of the first observed pixel, Å."""
LAST_EDGE = FIRST_EDGE + N_WAVE * WAVE_STEP
"""Red edge of the last observed pixel, Å."""


@dataclass(frozen=True)
class Grid:
    """A grid uniform in log10 of wavelength.

    Attributes
    ----------
    frame : "rest" or "observed"
    loglam0 : float
        log10 of the wavelength of the centre of pixel 0, Å.
    dloglam : float
        Width of a pixel in log10 of wavelength.
    n_rest : int
        Pixels of the whole grid.
    n_obs : int
        Pixels of a window; ``n_obs == n_rest`` in the observed frame.
    """

    frame: Literal["rest", "observed"]
    loglam0: float
    dloglam: float
    n_rest: int
    n_obs: int

    @property
    def wave(self) -> NDArray[np.float64]:
        """Centres of all pixels of the grid, Å, shape (n_rest,)."""
        return np.asarray(10.0 ** (self.loglam0 + self.dloglam * np.arange(self.n_rest)))

    def shift(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what grid wavelengths are multiplied by to be observed ones: 1 + z, or 1 in the observed frame."""
        return np.ones_like(z) if self.frame == "observed" else 1.0 + z

    def start(self, z: NDArray[np.float64]) -> NDArray[np.int32]:
        """Return the first pixel of the window of spectra at redshifts `z`.

        It is the first pixel whose centre has been observed, so that the window holds every pixel that is covered by
        half or more; at the ends of the grid the window is moved inside it.
        """
        first = np.log10(FIRST_EDGE / self.shift(z)) - self.loglam0
        return np.clip(np.ceil(first / self.dloglam), 0, self.n_rest - self.n_obs).astype(np.int32)

    def edges(self, start: NDArray[np.int32], z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the observed wavelengths of the edges of windows, Å, shape (n_spectra, n_obs + 1)."""
        every = np.asarray(10.0 ** (self.loglam0 + self.dloglam * (np.arange(self.n_rest + 1) - 0.5)))
        return np.asarray(_windows(every, start, self.n_obs + 1) * self.shift(z)[:, None])

    def wave_rest(self, start: NDArray[np.int32], z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rest wavelengths of the pixels of windows, Å, shape (n_spectra, n_obs)."""
        wave = _windows(self.wave, start, self.n_obs)
        return np.asarray(wave / (1.0 + z[:, None]) if self.frame == "observed" else wave)

    def holds(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return whether an observed wavelength of a spectrum at `z` lies on the grid; False where `z` is none."""
        shift = self.shift(np.where(np.isfinite(z) & (z > -1), z, np.nan))
        low, high = (10.0 ** (self.loglam0 + self.dloglam * k) for k in (-0.5, self.n_rest - 0.5))
        return np.asarray((low * shift < LAST_EDGE) & (high * shift > FIRST_EDGE))


def _windows(values: NDArray[np.float64], start: NDArray[np.int32], length: int) -> NDArray[np.float64]:
    """Return `length` values from each `start`, shape (n_spectra, length)."""
    return np.lib.stride_tricks.sliding_window_view(values, length)[start]


def grid_of(config: BuildGrid) -> Grid:
    """Return the grid that the settings describe.

    A window has as many pixels as can have their centre between the ends of the observed range, 2,181 at ``dloglam =
    2e-4``, or all of the grid if that is shorter.  `loglam0` is rounded to 1e-9 (2e-9 of a wavelength): the grid's hash must not depend on
    the last bit of a logarithm.
    """
    n_obs = math.ceil(math.log10(LAST_EDGE / FIRST_EDGE) / config.dloglam)
    if config.frame == "observed":
        return Grid("observed", round(math.log10(WAVE_START), 9), config.dloglam, n_obs, n_obs)
    n_rest = math.ceil(math.log10(config.rest_max / config.rest_min) / config.dloglam - 1e-6) + 1
    return Grid("rest", round(math.log10(config.rest_min), 9), config.dloglam, n_rest, min(n_obs, n_rest))
