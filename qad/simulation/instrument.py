"""From the light that reaches the telescope to what a coadd holds: resolution, noise, masks, three cameras."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qad.desi.datamodel import CAMERA_FIRST, CAMERA_PIXELS, NDIAG
from qad.desi.lsf import LSF_SIGMA_PIXELS
from qad.simulation import sky
from qad.simulation.profiles import random_curve

Array = NDArray[np.float64]
Values = NDArray[np.floating[Any]]

N_SETTINGS = 16
"""Fibres share this many sets of resolution matrices: their widths differ by ±3 % only."""
CALIBRATION_SCATTER = {"b": 0.02, "r": 0.01, "z": 0.01}
"""Slow multiplicative errors of the flux calibration (Guy et al. 2023, AJ 165, 144: 2 % and more in the far blue)."""
SKY_RESIDUAL = 0.25
"""On strong sky lines the true noise exceeds that of the inverse variance by this share, as residuals of sky subtraction do."""
COSMIC_RATE = 4e-4
"""Masked hits per pixel; coadds of several exposures keep almost none."""
BAD_RUN_SHARE = 0.12
"""Share of cameras crossed by a bad column: in the EDR coadds 6 to 19 pixels in one of a few cameras."""
KEPT_IVAR_SHARE = 0.1
"""Share of masked runs that keep their inverse variance: where every exposure is masked (desispec.coaddition.coadd)."""
SOMEBADPIX, COSMIC, BADCOLUMN = 1 << 0, 1 << 2, 1 << 10
"""Bits of the pixel mask (desispec.maskbits.specmask)."""


@dataclass
class Spectrum:
    """One coadded spectrum: per camera flux, its expectation, inverse variance, mask; and which resolution it has."""

    flux: dict[str, Values]
    expected: dict[str, Array]
    ivar: dict[str, Values]
    mask: dict[str, NDArray[np.int32]]
    setting: int

    def blank(self, camera: str) -> None:
        """Take a camera away, as DESI does: zero flux, inverse variance and mask."""
        self.flux[camera][:] = 0.0
        self.ivar[camera][:] = 0.0
        self.mask[camera][:] = 0

    def pack(self) -> None:
        """Keep only what files hold, in their precision: a pixel's rows wait together in memory."""
        self.flux = {camera: flux.astype(np.float32) for camera, flux in self.flux.items()}
        self.ivar = {camera: ivar.astype(np.float32) for camera, ivar in self.ivar.items()}
        self.expected = {}

    def snr_true(self) -> float:
        """Return the median of expected flux over noise in the pixels with data; 0 if there are none."""
        parts = [self.expected[c][self.ivar[c] > 0] * np.sqrt(self.ivar[c][self.ivar[c] > 0]) for c in sky.CAMERAS]
        values = np.concatenate(parts)
        return float(np.median(values)) if values.size else 0.0


@lru_cache(maxsize=3 * N_SETTINGS)
def kernel(camera: str, setting: int) -> Array:
    """Return the share of each neighbour in each pixel, shape (n_wave, 11): offsets -5 to +5, every row summing to 1."""
    from scipy.special import erf

    n_wave = CAMERA_PIXELS[camera]
    first, last = LSF_SIGMA_PIXELS[camera]
    sigma = np.linspace(first, last, n_wave) * (1.0 + 0.03 * (2 * setting / (N_SETTINGS - 1) - 1))
    half = NDIAG // 2
    edges = (np.arange(-half, half + 2) - 0.5)[None, :] / (np.sqrt(2.0) * sigma[:, None])
    shares = np.diff(erf(edges), axis=1)
    place = np.arange(n_wave)[:, None] + np.arange(-half, half + 1)
    shares[(place < 0) | (place >= n_wave)] = 0.0
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


@lru_cache(maxsize=3 * N_SETTINGS)
def resolution(camera: str, setting: int) -> NDArray[np.float32]:
    """Return the resolution matrix as DESI stores it, shape (11, n_wave): row d is the diagonal at offset 5 - d.

    Element [d, j] couples model pixel j to observed pixel j - (5 - d).
    """
    shares = kernel(camera, setting)
    half = NDIAG // 2
    bands = np.zeros((NDIAG, len(shares)))
    for row, offset in enumerate(range(half, -half - 1, -1)):
        column = shares[:, half + offset]
        if offset >= 0:
            bands[row, offset:] = column[: len(column) - offset]
        else:
            bands[row, :offset] = column[-offset:]
    return bands.astype(np.float32)


def convolve(flux: Array, camera: str, setting: int) -> Array:
    """Return what the resolution matrix makes of `flux`, shape (n_wave,)."""
    shares = kernel(camera, setting)
    padded = np.pad(flux, NDIAG // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, NDIAG)
    return np.asarray(np.einsum("ij,ij->i", shares, windows))


def observe(flux: Array, rng: np.random.Generator, exposures: float, calibration: bool = True) -> Spectrum:
    """Observe a spectrum.

    Parameters
    ----------
    flux : ndarray, shape (7781,)
        At the top of the fibre, on the merged grid, 1e-17 erg/s/cm2/Å.
    rng : Generator
    exposures : float
        Exposure time in units of 1000 s of dark time.
    calibration : bool
        Whether to add the slow errors of the flux calibration.
    """
    setting = int(rng.integers(N_SETTINGS))
    noise_level = float(np.exp(0.12 * rng.normal()))
    spectrum = Spectrum({}, {}, {}, {}, setting)
    for camera in sky.CAMERAS:
        first, n_wave = CAMERA_FIRST[camera], CAMERA_PIXELS[camera]
        expected = convolve(flux[first : first + n_wave], camera, setting)
        if calibration:
            expected *= _calibration_error(rng, camera)
        level = (noise_level * np.exp(0.04 * rng.normal())) ** 2
        variance = (sky.sky_variance(camera) * level + np.maximum(expected, 0.0) / sky.gain(camera)) / exposures
        sigma = np.sqrt(variance)
        strong = sky.line_strength(camera) > 1.0
        true_sigma = np.where(strong, (1.0 + SKY_RESIDUAL) * sigma, sigma)
        spectrum.expected[camera] = expected
        spectrum.flux[camera] = expected + true_sigma * rng.standard_normal(n_wave)
        spectrum.ivar[camera] = 1.0 / variance
        spectrum.mask[camera] = np.zeros(n_wave, np.int32)
        _mask_pixels(spectrum, camera, rng, exposures, sigma)
    return spectrum


def _calibration_error(rng: np.random.Generator, camera: str) -> Array:
    wave = sky.camera_wave(camera)
    scatter = CALIBRATION_SCATTER[camera]
    curve = random_curve(rng, wave[::50], 400.0, scatter)
    return np.asarray(1.0 + np.interp(wave, wave[::50], curve) + 0.5 * scatter * rng.normal())


def _mask_pixels(spectrum: Spectrum, camera: str, rng: np.random.Generator, exposures: float, sigma: Array) -> None:
    """Mask cosmic rays and bad columns, and spoil the flux below them."""
    n_wave = CAMERA_PIXELS[camera]
    rate = COSMIC_RATE / max(exposures, 1.0) ** 2
    runs = [(int(rng.integers(n_wave)), int(rng.integers(1, 5)), COSMIC) for _ in range(rng.poisson(rate * n_wave))]
    if rng.random() < BAD_RUN_SHARE:
        length = int(rng.integers(4, 30)) if rng.random() < 0.9 else int(rng.integers(60, 300))
        runs.append((int(rng.integers(n_wave)), length, SOMEBADPIX | BADCOLUMN))
    for start, length, bits in runs:
        run = slice(start, start + length)
        spectrum.mask[camera][run] |= bits
        spectrum.flux[camera][run] += 5.0 * rng.normal() * sigma[run]
        if rng.random() >= KEPT_IVAR_SHARE:
            spectrum.ivar[camera][run] = 0.0
