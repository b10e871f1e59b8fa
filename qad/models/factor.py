"""The factor model of rest-frame spectra: x = mean + loading h + noise, h ~ N(0, 1), variance 1/ivar + psi.

A linear Gaussian model with missing pixels has an exact posterior in closed form: pixels without data drop out of the
sums, nothing is filled in, and every redshift is encoded from whatever it covers (factor analysis as for quasar spectra
in Sun et al. 2023, ApJS 268, 8; the algebra is Bishop 2006, section 12.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from qad.models.base import Inference
from qad.models.threads import one_blas_thread
from qad.models.windows import Group, cut, groups

STUDENT_NU = 8.0
"""Degrees of freedom of the Student-t pixel weights: an absorber or a cosmic must not bend the fit."""
ROBUST_PASSES = 2


@dataclass(frozen=True)
class FactorModel:
    """A trained factor model.

    Attributes
    ----------
    mean, variance : ndarray, shape (n_rest,), float32
        Mean spectrum, and variance psi of normal quasars around mean + loading h beside the noise.
    loading : ndarray, shape (n_rest, n_latent), float32
    n_obs : int
    grid_hash : str
    """

    mean: np.ndarray
    loading: np.ndarray
    variance: np.ndarray
    n_obs: int
    grid_hash: str = ""
    arch: str = field(default="factor", init=False)

    @property
    def n_rest(self) -> int:
        """Pixels of the rest-frame grid."""
        return int(self.mean.shape[0])

    @property
    def n_latent(self) -> int:
        """Number of factors."""
        return int(self.loading.shape[1])

    @cached_property
    def outer(self) -> np.ndarray:
        """Products of factors per pixel, upper triangle, shape (n_rest, n_latent (n_latent + 1) / 2)."""
        i, j = np.triu_indices(self.n_latent)
        return self.loading[:, i] * self.loading[:, j]

    def infer(self, flux: np.ndarray, ivar: np.ndarray, start: np.ndarray) -> Inference:
        """Encode and reconstruct spectra; see :class:`qad.models.base.SpectrumModel`."""
        latent, covariance = self.posterior(flux, ivar, start)
        recon, variance = self.decode(latent, start)
        sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)).astype(np.float32)
        return Inference(latent.astype(np.float32), sd, recon, variance)

    def posterior(
        self, flux: np.ndarray, ivar: np.ndarray, start: np.ndarray, robust_passes: int = ROBUST_PASSES
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (n, n_latent) and covariance (n, n_latent, n_latent) of the latents, float64.

        With ``robust_passes=0`` this is the exact Gaussian posterior; each pass then down-weights pixels by their
        Student-t weight at the last fit.
        """
        n = len(start)
        latent = np.empty((n, self.n_latent))
        covariance = np.empty((n, self.n_latent, self.n_latent))
        with one_blas_thread():
            for group in groups(flux, ivar, np.asarray(start)):
                weight = total_weight(group, self.variance)
                latent[group.rows], covariance[group.rows] = self.solve_robust(group, weight, robust_passes)
        return latent, covariance

    def solve_robust(
        self, group: Group, weight: np.ndarray, passes: int = ROBUST_PASSES
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the posterior of a group for pixel weights, made robust in `passes` passes."""
        h, covariance = solve(self, group, weight)
        for _ in range(passes):
            h, covariance = solve(self, group, weight * student_weight(weight, residual(self, group, h)))
        return h, covariance

    def decode(self, latent: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return reconstruction and intrinsic variance in the windows, each (n, n_obs), float32."""
        rest = np.asarray(latent, np.float32) @ self.loading.T + self.mean
        return cut(rest, start, self.n_obs), cut(self.variance, start, self.n_obs)


def total_weight(group: Group, variance: np.ndarray) -> np.ndarray:
    """Return 1 / (1/ivar + psi), 0 where there is no data."""
    return group.ivar / (1 + group.ivar * variance[group.stretch])


def residual(model: FactorModel, group: Group, latent: np.ndarray) -> np.ndarray:
    """Return flux less reconstruction; meaningless where ivar is 0."""
    recon = latent.astype(np.float32) @ model.loading[group.stretch].T
    recon += model.mean[group.stretch]
    return group.flux - recon


def student_weight(weight: np.ndarray, resid: np.ndarray, nu: float = STUDENT_NU) -> np.ndarray:
    """Return what a Student-t likelihood multiplies the weight of each pixel with."""
    return ((nu + 1) / (nu + weight * resid * resid)).astype(np.float32)


def solve(model: FactorModel, group: Group, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the posterior mean and covariance for pixel weights."""
    k = model.n_latent
    i, j = np.triu_indices(k)
    flat = weight @ model.outer[group.stretch]
    precision = np.zeros((len(weight), k, k))
    precision[:, i, j] = flat
    precision[:, j, i] = flat
    precision[:, np.arange(k), np.arange(k)] += 1.0
    projected = (weight * (group.flux - model.mean[group.stretch])) @ model.loading[group.stretch]
    covariance = np.linalg.inv(precision)
    covariance = (covariance + covariance.transpose(0, 2, 1)) / 2
    return np.einsum("nij,nj->ni", covariance, projected.astype(np.float64)), covariance
