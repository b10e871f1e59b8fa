"""Which spectra fit the factor model, and which are kept out of the fit."""

from __future__ import annotations

import numpy as np

from qad.models.factor import FactorModel, residual, total_weight
from qad.models.threads import one_blas_thread
from qad.models.windows import groups

BLOCK = 16
"""Pixels over which residuals are summed to judge a spectrum: anomalies are broader than noise."""


def describe(
    model: FactorModel, flux: np.ndarray, ivar: np.ndarray, start: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return of chosen spectra the latents, their sd, the misfit and the log signal; row i belongs to ``rows[i]``."""
    place = np.empty(len(start), np.int64)
    place[rows] = np.arange(len(rows))
    latent = np.empty((len(rows), model.n_latent), np.float32)
    spread = np.empty_like(latent)
    misfit, signal = np.empty(len(rows)), np.empty(len(rows))
    with one_blas_thread():
        for group in groups(flux, ivar, start, rows):
            weight = total_weight(group, model.variance)
            h, covariance = model.solve_robust(group, weight)
            here = place[group.rows]
            latent[here] = h
            spread[here] = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
            misfit[here] = block_misfit(residual(model, group, h), weight)
            signal[here] = log_signal(group.ivar)
    return latent, spread, misfit, signal


def log_signal(ivar: np.ndarray) -> np.ndarray:
    """Return the log of each spectrum's summed ivar: what its misfit is judged against."""
    return np.log(np.maximum(np.asarray(ivar).sum(axis=1, dtype=np.float64), 1e-30))


def block_misfit(resid: np.ndarray, weight: np.ndarray, size: int = BLOCK) -> np.ndarray:
    """Return the mean over blocks of pixels of (sum weight residual)^2 / sum weight: 1 for noise, large for a feature."""
    edges = np.arange(0, resid.shape[1], size)
    total = np.add.reduceat(weight, edges, axis=1)
    signal = np.add.reduceat(weight * resid, edges, axis=1)
    covered = total > 0
    square = np.where(covered, signal * signal / np.where(covered, total, 1), 0)
    return square.sum(axis=1, dtype=np.float64) / np.maximum(covered.sum(axis=1), 1)


def trim_weights(misfit: np.ndarray, signal: np.ndarray, share: float) -> np.ndarray:
    """Return weights that fall from 1 to 0 around the worst-fitting `share` of spectra, judged among those of like signal.

    Misfit grows with signal-to-noise; without the comparison trimming would drop the best spectra.
    """
    n = len(misfit)
    order = np.argsort(signal, kind="stable")
    relative = np.empty(n)
    for part in np.array_split(order, max(1, n // 200)):
        level = np.log(np.maximum(misfit[part], 1e-6))
        centre = np.median(level)
        spread = 1.4826 * np.median(np.abs(level - centre))
        relative[part] = (level - centre) / max(spread, 1e-3)
    limit = np.quantile(relative, 1 - share)
    return 1 / (1 + np.exp(np.clip((relative - limit) / 0.2, -50, 50)))
