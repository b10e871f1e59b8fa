"""Shapes of the instrument's faults at fixed observed wavelengths, and how strongly they show in residuals.

As :mod:`qad.scoring.matched`, in the observed frame: a camera or an amplifier whose level is off, and the band of the collimator's
coating.  Beside the model's factors a smooth curve over the whole spectrum is free, so that what counts is the edge, not a red
or curved continuum.  A shape that shows as strongly as the strongest residual of any place and width explains the spectrum
better than any object does (positions: desispec issues 922, 929, 965, 1168, 1247, 1249, 1761).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qad.scoring.geometry import Geometry
from qad.scoring.matched import FIRST_RIDGE, Amplitudes
from qad.scoring.residuals import Batch, fit_tau2, robust_weight

BIN_KMS = 1100.0
FIRST, LAST = 3600.0, 9824.0
"""Limits of the spectrograph, Å, observed."""
CAMERAS = ((3600.0, 5780.0), (5780.0, 7570.0), (7570.0, 9824.0))
"""Cameras b, r, z as far as the middle of their overlaps, Å, observed."""
AMPLIFIERS = (4700.0, 6700.0, 8600.0)
"""Where the two amplifiers of a detector meet, Å, observed."""
COLLIMATOR = (4330.0, 4350.0, 4370.0, 4390.0, 4410.0)
COLLIMATOR_WIDTHS = (45.0, 65.0)
"""Centres and sigmas of the collimator's dip or bump, Å, observed."""
KINDS = ("step", "collimator")
CURVE_DEGREE = 5
CURVE_SD = 0.5
"""Degree of the free curve, and how much of the spectrum each of its terms may be."""
Z_BINS = 16
LOG_Z_STEP = 0.05
"""Normal spectra differ from the model at other observed wavelengths at each redshift: their spread is kept by log10(1 + z)."""


@dataclass(frozen=True)
class FaultShapes:
    """Shapes on bins of observed log wavelength.

    Attributes
    ----------
    kind : ndarray of int, shape (n_shapes,)
        Index into KINDS.
    is_factor : ndarray of bool, shape (n_shapes,)
        Whether the fault multiplies the spectrum, or adds to it.
    values : ndarray, shape (n_bins, n_shapes), float32
    curve : ndarray, shape (n_bins, CURVE_DEGREE + 1), float32
    bin_pixels : int
    """

    kind: np.ndarray
    is_factor: np.ndarray
    values: np.ndarray
    curve: np.ndarray
    bin_pixels: int


@lru_cache(maxsize=4)
def fault_shapes(geometry: Geometry) -> FaultShapes:
    """Return the shapes on a grid."""
    size = geometry.width(BIN_KMS)
    n_bins = int(np.ceil(np.log10(LAST / FIRST) / (geometry.dloglam * size))) + 1
    loglam = np.log10(FIRST) + (np.arange(n_bins) * size + 0.5 * (size - 1)) * geometry.dloglam
    wave = 10.0**loglam
    shapes = [("step", True, (wave > low) & (wave < high)) for low, high in CAMERAS]
    for (low, high), middle in zip(CAMERAS, AMPLIFIERS, strict=True):
        shapes += [("step", False, (wave > a) & (wave < b)) for a, b in ((low, middle), (middle, high))]
    for centre in COLLIMATOR:
        shapes += [("collimator", True, np.exp(-0.5 * ((wave - centre) / sd) ** 2)) for sd in COLLIMATOR_WIDTHS]
    scaled = 2.0 * (loglam - loglam.mean()) / (loglam[-1] - loglam[0])
    return FaultShapes(
        np.array([KINDS.index(kind) for kind, *_ in shapes]),
        np.array([is_factor for _, is_factor, _ in shapes]),
        np.stack([values for *_, values in shapes], axis=1).astype(np.float32),
        (CURVE_SD * np.polynomial.legendre.legvander(scaled, CURVE_DEGREE)).astype(np.float32),
        size,
    )


def fault_amplitudes(batch: Batch, geometry: Geometry, loading: np.ndarray, loading_pixels: int) -> Amplitudes:
    """Return the amplitude of every shape in every spectrum.

    Parameters
    ----------
    batch : Batch
        Pixels of single faults masked.
    geometry : Geometry
    loading : ndarray, shape (n_rest_bins, n_latent)
        See :func:`qad.scoring.matched.rest_loading`, on bins of `loading_pixels`.
    """
    shapes = fault_shapes(geometry)
    n_bins, size = len(shapes.values), shapes.bin_pixels
    first = np.rint((batch.first_observed - np.log10(FIRST)) / geometry.dloglam).astype(np.int64)
    weight, signal, level = _on_bins(batch, first, n_bins, size)
    # where each bin's middle lies in the rest frame
    middle = batch.rest_start[:, None] - first[:, None] + np.arange(n_bins)[None, :] * size + size // 2
    factors = loading[np.clip(middle // loading_pixels, 0, len(loading) - 1)]
    free = np.concatenate([factors, level[:, :, None] * shapes.curve[None]], axis=2)
    weighted = weight[:, :, None] * free
    precision = np.matmul(weighted.transpose(0, 2, 1), free).astype(np.float64) + np.eye(free.shape[2])
    covariance = np.linalg.inv(precision).astype(np.float32)
    values = shapes.values
    mixed = np.where(shapes.is_factor, (signal * level) @ values, signal @ values)
    own = np.where(shapes.is_factor, (weight * level**2) @ values**2, weight @ values**2)
    cross = np.where(
        shapes.is_factor[None, :, None],
        np.matmul(values.T, weighted * level[:, :, None]),
        np.matmul(values.T, weighted),
    )
    taken = cross @ covariance
    projected = np.matmul(signal[:, None, :], free)[:, 0]
    left = own - np.einsum("ntk,ntk->nt", taken, cross)
    is_seen = (left > FIRST_RIDGE * own) & (left > np.finfo(np.float32).tiny * 1e6)
    numerator = mixed - np.einsum("ntk,nk->nt", taken, projected)
    value = np.divide(numerator, left, out=np.zeros_like(left), where=is_seen)
    variance = np.divide(1.0, left, out=np.full_like(left, np.inf), where=is_seen)
    return Amplitudes(value, variance)


def _on_bins(batch: Batch, first: np.ndarray, n_bins: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sums of weight and of weight times residual, and the mean reconstruction, in observed bins, float32."""
    weight = robust_weight(batch)
    n, n_obs = weight.shape
    place = np.clip((first[:, None] + np.arange(n_obs)[None, :]) // size, 0, n_bins - 1)
    flat = (place + n_bins * np.arange(n)[:, None]).ravel()

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(flat, values.ravel(), n * n_bins).reshape(n, n_bins).astype(np.float32)

    count = np.maximum(np.bincount(flat, minlength=n * n_bins).reshape(n, n_bins), 1).astype(np.float32)
    return total(weight), total(weight * batch.residual), total(batch.recon) / count


def z_bin(z: np.ndarray) -> np.ndarray:
    """Return the redshift bin of a spectrum in :func:`fit_fault_spread`."""
    return np.clip(np.log10(1.0 + np.maximum(z, 0.0)) / LOG_Z_STEP, 0, Z_BINS - 1).astype(np.int64)


def fit_fault_spread(found: Sequence[Amplitudes], z: np.ndarray) -> np.ndarray:
    """Return tau^2 of each shape by redshift, (Z_BINS, n_shapes)."""
    value = np.concatenate([part.value for part in found])
    variance = np.concatenate([part.variance for part in found])
    bins = z_bin(z)
    spread = np.zeros((Z_BINS, value.shape[1]))
    for k in range(value.shape[1]):
        seen = np.isfinite(variance[:, k])
        spread[:, k] = fit_tau2(bins[seen], value[seen, k] ** 2, variance[seen, k], Z_BINS)
    return spread


def fault_sigma(found: Amplitudes, geometry: Geometry, z: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return how strongly the best shape of each kind shows, sigma, (n_spectra, n_kinds)."""
    sigma = np.abs(found.value) / np.sqrt(found.variance + spread[z_bin(z)])
    kind = fault_shapes(geometry).kind
    return np.stack([sigma[:, kind == k].max(axis=1) for k in range(len(KINDS))], axis=1)
