"""One pass of expectation-maximisation: posteriors of all spectra, and the sums that the next model needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qad.models.factor import FactorModel, residual, solve, student_weight, total_weight
from qad.models.windows import Group, groups
from qad.training.trim import block_misfit

CLIP = 9.0
"""Squared residual, in units of the total variance, beyond which a pixel counts no more towards psi."""
CLIPPED_MEAN = 0.99499
"""Mean of min(x^2, CLIP) of a unit normal x: what clipping takes from pure noise is given back."""


@dataclass
class Sums:
    """What one pass over the spectra adds up, float64."""

    cross: np.ndarray  # (n_rest, (k + 1) (k + 2) / 2): sum of weight * outer([1, h])
    target: np.ndarray  # (n_rest, k + 1): sum of weight * flux * [1, h]
    excess: np.ndarray  # (n_rest,): sum of weight^2 * (residual^2 - noise)
    squared: np.ndarray  # (n_rest,): sum of weight^2
    count: np.ndarray  # (n_rest,): spectra
    latent: np.ndarray  # (k,), sum of h
    second: np.ndarray  # (k, k), sum of h h' + covariance
    total: float = 0.0
    objective: float = 0.0

    @classmethod
    def zeros(cls, n_rest: int, k: int) -> Sums:
        """Return empty sums."""
        return cls(
            np.zeros((n_rest, (k + 1) * (k + 2) // 2)),
            np.zeros((n_rest, k + 1)),
            np.zeros(n_rest),
            np.zeros(n_rest),
            np.zeros(n_rest),
            np.zeros(k),
            np.zeros((k, k)),
        )


def pass_over(
    model: FactorModel,
    flux: np.ndarray,
    ivar: np.ndarray,
    start: np.ndarray,
    latent: np.ndarray,
    spectrum_weight: np.ndarray,
) -> tuple[Sums, np.ndarray, np.ndarray]:
    """Go over all spectra once; return the sums, the new latents and each spectrum's misfit."""
    k = model.n_latent
    sums = Sums.zeros(model.n_rest, k)
    new_latent = np.empty_like(latent)
    misfit = np.empty(len(start))
    for group in groups(flux, ivar, start):
        weight = total_weight(group, model.variance)
        robust = weight * student_weight(weight, residual(model, group, latent[group.rows]))
        h, covariance = solve(model, group, robust)
        resid = residual(model, group, h)
        new_latent[group.rows] = h
        misfit[group.rows] = block_misfit(resid, weight)
        _add(sums, model, group, robust, weight, resid, h, covariance, spectrum_weight[group.rows])
    return sums, new_latent, misfit


def _add(
    sums: Sums,
    model: FactorModel,
    group: Group,
    robust: np.ndarray,
    weight: np.ndarray,
    resid: np.ndarray,
    h: np.ndarray,
    covariance: np.ndarray,
    share: np.ndarray,
) -> None:
    k, here = model.n_latent, group.stretch
    one_h = np.concatenate([np.ones((len(h), 1)), h], axis=1)
    second = one_h[:, :, None] * one_h[:, None, :]
    second[:, 1:, 1:] += covariance
    i, j = np.triu_indices(k + 1)
    scaled = robust * share[:, None].astype(np.float32)
    sums.cross[here] += scaled.T @ second[:, i, j].astype(np.float32)
    sums.target[here] += (scaled * group.flux).T @ one_h.astype(np.float32)
    sums.latent += share @ h
    sums.second += np.einsum("n,nij->ij", share, second[:, 1:, 1:])
    sums.total += float(share.sum())
    sums.objective += float(share @ _log_likelihood(robust, weight, resid, h, covariance))
    sums.count[here] += (scaled > 0).sum(axis=0)
    # the moment estimate of psi: squared residual, plus what the fit took from it, less the noise
    squared = weight * weight * share[:, None].astype(np.float32)
    excess = weight * share[:, None].astype(np.float32) * (np.minimum(weight * resid * resid, CLIP) / CLIPPED_MEAN)
    excess -= squared / np.where(group.ivar > 0, group.ivar, 1)
    i, j = np.triu_indices(k)
    twice = np.where(i == j, 1.0, 2.0)
    taken = (squared.T @ (covariance[:, i, j] * twice).astype(np.float32)) * model.outer[here]
    sums.excess[here] += excess.sum(axis=0) + taken.sum(axis=1)
    sums.squared[here] += squared.sum(axis=0)


def _log_likelihood(
    robust: np.ndarray, weight: np.ndarray, resid: np.ndarray, h: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """Return each spectrum's marginal log likelihood (Bishop 2006, eq. 12.43 by the matrix determinant lemma)."""
    misfit = (robust * resid * resid).sum(axis=1, dtype=np.float64) + (h * h).sum(axis=1)
    log_weight = np.log(np.where(weight > 0, weight, 1)).sum(axis=1, dtype=np.float64)
    return (log_weight + np.linalg.slogdet(covariance)[1] - misfit) / 2
