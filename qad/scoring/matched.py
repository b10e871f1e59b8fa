"""How strongly the shapes of known anomalies show in a residual, in units of noise and of what normal quasars do.

A shape t has in a residual r the amplitude a = t'C^-1 r / t'C^-1 t with variance 1 / t'C^-1 t, where C is the covariance of normal
spectra: noise, intrinsic variance, and the model's factors, whose share in t is no news (the generalised least squares estimate;
the inverse of C is Woodbury's).  Normal quasars scatter by more than C says; tau^2 of each shape comes from the population.
A family's evidence is the logarithm of the mean likelihood ratio of its shapes, ln <exp(x^2 / 2)> with x = a / sqrt(var + tau^2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qad.scoring.geometry import REST_MIN, Geometry
from qad.scoring.residuals import Batch, fit_tau2, robust_weight
from qad.scoring.shapes import SIGNED, Bank

MIN_SEEN = 0.1
"""Least share of a shape's square that must lie on good pixels: of a trough in C IV, Si IV and N V, C IV alone."""
MAX_HALF_SQUARE = 80.0
"""Half squares count up to this: beyond it exp overflows, and nothing is less likely by chance."""
FIRST_RIDGE = 1e-3
"""Least share of a shape that the factors leave."""


@dataclass(frozen=True)
class Amplitudes:
    """Amplitude of every shape in every spectrum, and its variance (inf: not seen), float32 (n_spectra, n_shapes)."""

    value: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class FamilyEvidence:
    """Evidence of each family, nan where no shape is seen, and the shape that shows best with its significance.

    All of shape (n_spectra, n_families); `best` counts the bank's shapes, -1 where none is seen.
    """

    evidence: np.ndarray
    best: np.ndarray
    sigma: np.ndarray


def nothing_found(n: int, n_families: int) -> FamilyEvidence:
    """Return the evidence where no shapes were looked for."""
    shape = (n, n_families)
    return FamilyEvidence(np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int16), np.zeros(shape, np.float32))


def rest_loading(loading: np.ndarray, geometry: Geometry, size: int) -> np.ndarray:
    """Return a model's factors on bins of the scorer's rest-frame axis, (n_bins, n_latent), 0 beyond the grid.

    Only a grid in the rest frame has factors that belong to rest wavelengths.
    """
    n_bins = -(-geometry.n_rest // size)
    if geometry.frame != "rest":
        return np.zeros((n_bins, 0), np.float32)
    first = round((geometry.loglam0 - np.log10(REST_MIN)) / geometry.dloglam)
    laid = np.zeros((n_bins * size, loading.shape[1]), np.float32)
    low, high = max(first, 0), min(first + len(loading), len(laid))
    laid[low:high] = loading[low - first : high - first]
    return laid.reshape(n_bins, size, -1).mean(axis=1)


def amplitudes(batch: Batch, bank: Bank, loading: np.ndarray) -> Amplitudes:
    """Return the amplitude of every shape.

    Parameters
    ----------
    batch : Batch
        Pixels of faults masked.
    bank : Bank
    loading : ndarray, shape (n_bins, n_latent)
        See :func:`rest_loading`.
    """
    weight, signal, seen = _on_bins(batch, bank)
    shapes, k = bank.values, loading.shape[1]
    projected = signal @ shapes
    own = weight @ shapes**2
    if k:
        i, j = np.triu_indices(k)
        precision = np.zeros((len(weight), k, k))
        precision[:, i, j] = weight @ (loading[:, i] * loading[:, j])
        precision[:, j, i] = precision[:, i, j]
        precision[:, np.arange(k), np.arange(k)] += 1.0
        cross = np.stack([weight @ (shapes * loading[:, [f]]) for f in range(k)], axis=2)
        covariance = np.linalg.inv(precision).astype(np.float32)
        taken = np.einsum("ntk,ntk->nt", cross @ covariance, cross)
        left = np.maximum(own - taken, FIRST_RIDGE * own)
    else:
        left = own
    is_seen = (seen @ shapes**2 >= MIN_SEEN * (shapes**2).sum(axis=0)) & (left > 0)
    value = np.divide(projected, left, out=np.zeros_like(projected), where=is_seen)
    variance = np.divide(1.0, left, out=np.full_like(projected, np.inf), where=is_seen)
    return Amplitudes(value, variance)


def _on_bins(batch: Batch, bank: Bank) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sums of weight and of weight times residual in rest-frame bins, and which bins hold data, float32."""
    weight = robust_weight(batch)
    n, n_obs = weight.shape
    pixel = batch.rest_start[:, None] + np.arange(n_obs)[None, :]
    place = np.clip(pixel // bank.bin_pixels, 0, bank.n_bins - 1) + bank.n_bins * np.arange(n)[:, None]
    length = n * bank.n_bins
    sums = [
        np.bincount(place.ravel(), values.ravel(), length).reshape(n, -1).astype(np.float32)
        for values in (weight, weight * batch.residual)
    ]
    return sums[0], sums[1], (sums[0] > 0).astype(np.float32)


def fit_spread(found: Sequence[Amplitudes]) -> np.ndarray:
    """Return tau^2 of each shape in a population, (n_shapes,); that of the next shape where too few spectra show one."""
    value = np.concatenate([part.value for part in found])
    variance = np.concatenate([part.variance for part in found])
    spectrum, shape = np.nonzero(np.isfinite(variance))
    square = value[spectrum, shape] ** 2
    return fit_tau2(shape, square, variance[spectrum, shape], value.shape[1])


def family_evidence(found: Amplitudes, bank: Bank, tau2: np.ndarray) -> FamilyEvidence:
    """Return the evidence of every family in every spectrum."""
    n = len(found.value)
    nothing = nothing_found(n, len(bank.families))
    evidence, best, sigma = nothing.evidence, nothing.best, nothing.sigma
    for index, name in enumerate(bank.families):
        members = np.flatnonzero(bank.family == index)
        seen = np.isfinite(found.variance[:, members])
        spread = np.where(seen, found.variance[:, members], 1.0) + tau2[members]
        x = np.where(seen, found.value[:, members] / np.sqrt(spread), 0.0)
        x = x if name in SIGNED else np.maximum(x, 0.0)
        count = seen.sum(axis=1)
        some = count > 0
        ratio = np.where(seen, np.exp(np.minimum(0.5 * x**2, MAX_HALF_SQUARE)), 0.0).sum(axis=1)
        evidence[some, index] = np.log(ratio[some] / count[some])
        strongest = np.abs(x).argmax(axis=1)
        best[some, index] = members[strongest[some]]
        sigma[:, index] = x[np.arange(n), strongest]
    return FamilyEvidence(evidence, best, sigma)
