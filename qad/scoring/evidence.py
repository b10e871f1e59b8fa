"""Tests that tell the instrument from the sky: spikes, steps at camera and amplifier edges, wavelengths that fail often.

Each test gives evidence in sigma; :mod:`qad.scoring.artefacts` weighs it.  Positions are those reported by the survey's
maintainers (desispec issues 922, 929, 965, 1168, 1247, 1761, 1935, 2563, 2660, 2725-2727).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from qad.lines import LIGHT_SPEED_KMS, LYA
from qad.scoring.geometry import Geometry
from qad.scoring.residuals import Batch, BoxSums, Scatter, significance, total_variance

TESTS = ("spike", "step", "sky", "band", "splice", "noise", "collimator")
"""Order of the columns of :func:`gather_evidence`."""
LYMAN_LIMIT = 912.0
"""Rest wavelength, Å, below which nothing is judged."""
SPIKE_SIGMA = 5.0
"""A pixel this far out whose neighbours are quiet is a spike: narrower than the line-spread function allows."""
QUIET_SHARE = 0.3
"""Neighbours two to four pixels away must stay below this share of a spike's significance."""
SPLICES = ((5755.0, 5805.0), (7515.0, 7625.0))
"""The overlaps themselves, where spikes stand, Å, observed."""
FAULT_SIGMA, FAULT_SHARE = 4.7, 0.72
"""A step or the collimator's band must show at this many sigma, and with this share of the strongest residual of any place and
width: objects, which no such shape fits, keep below 0.6 (measured on simulations)."""
SKY_IVAR = 0.35
"""Pixels with ivar below this share of the running median are bright sky."""
SKY_SIGMA = 4.0
"""A pixel on bright sky that differs from its surroundings by more is left out of the residuals."""
SKY_KMS = 6000.0
"""Width of that running median, km/s."""
SMOOTH_PIXELS = 15
SQUARE_LIMIT = 16.0
"""Squared deviations count up to this on sky pixels: many bad pixels tell of the sky, one giant of a line."""
NARROW_LINES = (3728.48, 3869.86, 4862.71, 4960.30, 5008.24, 6564.60)
"""Rest wavelengths (Å) at which a narrow excess is a line and no fault."""
NARROW_KMS = 1500.0
BAD_BANDS = ((8565.0, 8635.0, 2000.0), (7890.0, 8110.0, 300.0))
"""False absorption of the z2 detector, spurious emission: limits (Å, observed), width of the box (km/s)."""
CAMERAS = ((3600.0, 5760.0), (5800.0, 7520.0), (7620.0, 9824.0))
"""Where only camera b, r, z has data, Å, observed."""


def find_spikes(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels belong to a spike, bool (n_spectra, n_obs), and the largest spike's significance."""
    sigma = batch.residual / np.sqrt(total_variance(batch))
    size = np.abs(sigma)
    around = np.zeros_like(size)
    for shift in (-4, -3, -2, 2, 3, 4):
        np.maximum(around, _shifted(size, shift), out=around)
    peak = np.maximum(_shifted(size, 1), _shifted(size, -1)) <= size
    is_spike = (size > SPIKE_SIGMA) & peak & (around < QUIET_SHARE * size)
    height = np.where(is_spike, size, 0.0).max(axis=1)
    return is_spike | _shifted(is_spike, 1) | _shifted(is_spike, -1), height


def find_faults(batch: Batch, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels to leave out of the residual views, bool (n_spectra, n_obs), and the largest spike's significance.

    Left out are spikes, deviant pixels on bright sky lines, and the camera overlaps: what remains of a real object is far
    broader, and what remains of these faults is nothing.  So is what lies beyond the Lyman limit, where intervening clouds
    decide what passes.
    """
    is_spike, height = find_spikes(batch)
    pixel_sigma = batch.residual / np.sqrt(total_variance(batch))
    sharp = np.abs(pixel_sigma - _smooth(pixel_sigma, SMOOTH_PIXELS)) > SKY_SIGMA
    deviant = sharp & _is_sky(batch.ivar, geometry)
    loglam = _loglam(batch, geometry)
    aside = geometry.rest_wave(batch.rest_start[:, None] + np.arange(deviant.shape[1])) < LYMAN_LIMIT
    for low, high in SPLICES:
        aside |= (loglam > np.log10(low)) & (loglam < np.log10(high))
    return is_spike | deviant | _shifted(deviant, 1) | _shifted(deviant, -1) | aside, height


def _loglam(batch: Batch, geometry: Geometry) -> np.ndarray:
    return batch.first_observed[:, None] + np.arange(batch.flux.shape[1])[None, :] * geometry.dloglam


def _is_sky(ivar: np.ndarray, geometry: Geometry) -> np.ndarray:
    return (ivar > 0) & (ivar < SKY_IVAR * _coarse_median(ivar, geometry.width(SKY_KMS)))


def gather_evidence(
    batch: Batch,
    geometry: Geometry,
    scatters: Sequence[Scatter],
    spike: np.ndarray,
    faults: np.ndarray,
    strongest: np.ndarray,
) -> np.ndarray:
    """Return the evidence of every test, (n_spectra, len(TESTS)).

    Parameters
    ----------
    spike : ndarray, shape (n_spectra,)
        What :func:`find_spikes` found.
    faults : ndarray, shape (n_spectra, 2)
        Sigma of steps and of the collimator's band (:func:`qad.scoring.instrument.fault_sigma`).
    strongest : ndarray, shape (n_spectra,)
        Strongest residual of any place and width, sigma.
    """
    sums = BoxSums(batch)
    pixel_sigma = batch.residual / np.sqrt(total_variance(batch))
    step, collimator = (
        np.minimum(sigma / FAULT_SIGMA, sigma / (FAULT_SHARE * np.maximum(strongest, 1.0))) for sigma in faults.T
    )
    return np.stack(
        [
            spike,
            step,
            _sky(batch.ivar, pixel_sigma, _is_sky(batch.ivar, geometry)),
            _band(batch, geometry, sums, scatters),
            _splice(batch, geometry, sums, scatters),
            _noise(batch.ivar, pixel_sigma, _loglam(batch, geometry)),
            collimator,
        ],
        axis=1,
    )


def _nearest(scatters: Sequence[Scatter], width: int) -> Scatter:
    return min(scatters, key=lambda item: abs(item.width - width))


def _sky(ivar: np.ndarray, pixel_sigma: np.ndarray, on_sky: np.ndarray) -> np.ndarray:
    """Return how far chi2 on bright sky exceeds that between the sky lines, in sigma."""
    good = ivar > 0
    count = np.maximum(on_sky.sum(axis=1), 1)
    # what is broad is no sky residual: leave only what differs from the pixels around
    square = np.minimum((pixel_sigma - _smooth(pixel_sigma, SMOOTH_PIXELS)) ** 2, SQUARE_LIMIT)
    inside = np.where(on_sky, square, 0.0).sum(axis=1) / count
    outside = np.where(good & ~on_sky, square, 0.0).sum(axis=1) / np.maximum((good & ~on_sky).sum(axis=1), 1)
    return np.maximum(inside / np.maximum(outside, 1.0) - 1.0, 0.0) * np.sqrt(count / 2.0)


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Return the running mean over `width` pixels, an odd number."""
    padded = np.pad(values, ((0, 0), (width // 2 + 1, width // 2)), mode="edge")
    total = np.cumsum(padded, axis=1)
    return (total[:, width:] - total[:, :-width]) / width


def _coarse_median(ivar: np.ndarray, width: int) -> np.ndarray:
    """Return the median of blocks of `width` pixels, at every pixel."""
    n_blocks = max(ivar.shape[1] // width, 1)
    edges = np.linspace(0, ivar.shape[1], n_blocks + 1).astype(int)
    medians = [np.median(ivar[:, low:high], axis=1) for low, high in itertools.pairwise(edges)]
    return np.repeat(np.stack(medians, axis=1), np.diff(edges), axis=1)


def _band(batch: Batch, geometry: Geometry, sums: BoxSums, scatters: Sequence[Scatter]) -> np.ndarray:
    """Return by how much the largest residual in a band that fails often exceeds the largest elsewhere, at the band's scale."""
    largest = np.zeros(len(batch.flux))
    for low, high, kms in BAD_BANDS:
        sigma, loglam, rest = _residuals(batch, geometry, sums, _nearest(scatters, geometry.width(kms)))
        # in the forest a deficit is more often a damped absorber than the instrument's
        near = (loglam > np.log10(low)) & (loglam < np.log10(high)) & (rest > LYA)
        for line in NARROW_LINES:
            near &= np.abs(rest / line - 1.0) > NARROW_KMS / LIGHT_SPEED_KMS
        largest = np.maximum(largest, _above(sigma, near))
    return largest


def _splice(batch: Batch, geometry: Geometry, sums: BoxSums, scatters: Sequence[Scatter]) -> np.ndarray:
    """Return by how much the largest narrow residual in a camera overlap exceeds the largest elsewhere."""
    sigma, loglam, _ = _residuals(batch, geometry, sums, scatters[0])
    near = np.zeros(sigma.shape, bool)
    for low, high in SPLICES:
        near |= (loglam > np.log10(low)) & (loglam < np.log10(high))
    return _above(sigma, near)


def _noise(ivar: np.ndarray, pixel_sigma: np.ndarray, loglam: np.ndarray) -> np.ndarray:
    """Return by how much the noisiest camera's pixel-to-pixel scatter exceeds what ivar says, as a factor less 1.

    Differences of neighbouring residuals, by their median, know neither lines nor continua: only noise.
    """
    step = np.abs(np.diff(pixel_sigma, axis=1))
    both = (ivar[:, 1:] > 0) & (ivar[:, :-1] > 0)
    factors = []
    for low, high in CAMERAS:
        inside = both & (loglam[:, 1:] > np.log10(low)) & (loglam[:, 1:] < np.log10(high))
        size = np.sqrt(np.where(inside, np.minimum(step, 6.0), 0.0).sum(axis=1) / np.maximum(inside.sum(axis=1), 1))
        factors.append(np.where(inside.sum(axis=1) >= 50, size, 0.0))
    ordered = np.sort(np.stack(factors, axis=1), axis=1)
    usual = np.where(ordered[:, 1] > 0, ordered[:, 1], ordered[:, 2])
    return np.where(usual > 0, (ordered[:, 2] / np.maximum(usual, 1e-6)) ** 2 - 1.0, 0.0)


def _residuals(
    batch: Batch, geometry: Geometry, sums: BoxSums, scatter: Scatter
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return significance, log10 of the observed and rest wavelength of the boxes of one width."""
    boxes = sums.boxes(scatter.width, max(scatter.width // 4, 1))
    sigma = np.abs(significance(boxes, scatter, batch.rest_start))
    loglam = batch.first_observed[:, None] + boxes.centre[None, :] * geometry.dloglam
    return sigma, loglam, geometry.rest_wave(batch.rest_start[:, None] + boxes.centre[None, :])


def _above(sigma: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the largest value where `near` less 0.8 of the largest elsewhere, at least 0."""
    here = np.where(near, sigma, 0.0).max(axis=1)
    return np.maximum(here - 0.8 * np.where(near, 0.0, sigma).max(axis=1), 0.0)


def _shifted(values: np.ndarray, shift: int) -> np.ndarray:
    out = np.zeros_like(values)
    if shift > 0:
        out[:, shift:] = values[:, :-shift]
    else:
        out[:, :shift] = values[:, -shift:]
    return out
