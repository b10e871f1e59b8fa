"""What normal quasars look like in line strengths and in latent space, given redshift, luminosity and S/N."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qad.scoring.widths import Widths

WELL_MEASURED = 0.3
"""A width whose error is below this share of the typical width shows the population rather than the noise."""
MIN_MEASURED = 40
"""Fewest measurements from which a feature's population is known; with fewer the feature is left out."""
SIDE = 1.0
_PROFILE = np.linspace(-8.0, 8.0, 65)
"""Trial positions, in units of the population's spread, for the best compromise of measurement and population."""


@dataclass(frozen=True)
class FeaturePopulation:
    """Distribution of one feature y: asinh(EW / 2 floor), which is ln EW for strong lines, or the value itself.

    Attributes
    ----------
    floor : float
        0: linear.
    coef : ndarray, shape (4,)
        Median of y as a linear function of 1, brightness, z and z^2 (see :func:`covariates`), each scaled to `limits`.
    low, high : float
        Spread below and above the median; nan: the feature is not used.
    limits : ndarray, shape (2, 2)
        Lowest and highest brightness and z of the population: beyond them the median stays what it is at the edge.
    """

    floor: float
    coef: np.ndarray
    low: float
    high: float
    limits: np.ndarray

    @property
    def is_known(self) -> bool:
        """Whether the feature can be used."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def stretch(self, value: np.ndarray) -> np.ndarray:
        """Return y of measured values."""
        return np.arcsinh(value / (2 * self.floor)) if self.floor > 0 else value

    def unstretch(self, y: np.ndarray) -> np.ndarray:
        """Return the value of y."""
        return 2 * self.floor * np.sinh(np.clip(y, -50, 50)) if self.floor > 0 else y

    def deviation(self, value: np.ndarray, error: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the signed deviation from the population, in sigma, 0 where not measured.

        The square is min over true values t of ((value - t) / error)^2 + ((y(t) - median) / spread)^2: the best compromise
        of noise and population.  A noisy width cannot deviate far; a well measured one deviates by (y - median) / spread.
        """
        measured = np.isfinite(value) & np.isfinite(error)
        value, error = np.where(measured, value, 0.0), np.where(measured, np.maximum(error, 1e-9), 1.0)
        centre = _design(x, self.limits) @ self.coef
        spread = np.where(_PROFILE < 0, self.low, self.high)
        trial = self.unstretch(centre[:, None] + _PROFILE * spread)
        energy = ((value[:, None] - trial) / error[:, None]) ** 2 + _PROFILE**2
        # the measured value itself is a trial too: a small error would fall between the others
        off = self.stretch(value) - centre
        exact = (off / np.where(off < 0, self.low, self.high)) ** 2
        return np.where(measured, np.sign(off) * np.sqrt(np.minimum(energy.min(axis=1), exact)), 0.0)


def covariates(norm: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return brightness (log10 of the amplitude) and z: what line strengths depend on (Baldwin 1977), (n_spectra, 2)."""
    return np.stack([np.log10(np.maximum(norm, 1e-6)), z], axis=1)


def _design(x: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return 1, brightness, z and z^2, from -1 to 1 over the population and constant beyond it."""
    span = np.maximum(limits[1] - limits[0], 1e-6)
    scaled = np.clip(2.0 * (x - limits[0]) / span - 1.0, -1.0, 1.0)
    return np.stack([np.ones(len(x)), scaled[:, 0], scaled[:, 1], scaled[:, 1] ** 2], axis=1)


def fit_features(widths: Widths, x: np.ndarray) -> list[FeaturePopulation]:
    """Return the population of every feature."""
    columns = zip(widths.names, widths.value.T, widths.error.T, strict=True)
    return [_fit_feature(name, value, error, x) for name, value, error in columns]


def _fit_feature(name: str, value: np.ndarray, error: np.ndarray, x: np.ndarray) -> FeaturePopulation:
    unknown = FeaturePopulation(0.0, np.zeros(4), float("nan"), float("nan"), np.zeros((2, x.shape[1])))
    measured = np.isfinite(value) & np.isfinite(error)
    if measured.sum() < MIN_MEASURED:
        return unknown
    typical = abs(float(np.median(value[measured])))
    quarter = float(np.quantile(error[measured], 0.25))
    limit = max(WELL_MEASURED * typical, quarter) if name.startswith("ew:") else 2 * quarter
    used = measured & (error <= limit)
    if used.sum() < MIN_MEASURED:
        used = measured & (error <= np.quantile(error[measured], min(1.0, MIN_MEASURED / measured.sum())))
    floor = max(0.1 * typical, 0.5 * quarter) if name.startswith("ew:") else 0.0
    limits = np.quantile(x[used], [0.02, 0.98], axis=0)
    shape = FeaturePopulation(floor, unknown.coef, 1.0, 1.0, limits)
    design = _design(x[used], limits)
    y = shape.stretch(value[used])
    noise = error[used] / (np.sqrt(value[used] ** 2 + 4 * floor**2) if floor > 0 else 1.0)
    coef = _robust_line(design, y)
    rest = y - design @ coef
    low, high = (_spread(side * rest, noise) for side in (-1, 1))
    return FeaturePopulation(floor, coef, low, high, limits)


def _spread(rest: np.ndarray, noise: np.ndarray) -> float:
    """Return the one-sigma quantile of one side of a distribution, its noise taken out."""
    outer = float(np.quantile(rest, 0.84))
    inner = float(np.median(noise))
    return float(np.sqrt(max(outer**2 - inner**2, (0.3 * outer) ** 2, 1e-6)))


def _robust_line(x: np.ndarray, y: np.ndarray, n_iterations: int = 15) -> np.ndarray:
    """Return coefficients of the least absolute deviation, by reweighting; a weak ridge keeps what is not known small."""
    weight = np.ones(len(y))
    coef = np.zeros(x.shape[1])
    ridge = np.diag([0.0] + [3.0] * (x.shape[1] - 1))
    coef[0] = np.median(y)
    for _ in range(n_iterations):
        weight = 1.0 / np.maximum(np.abs(y - x @ coef), 0.05)
        weight /= weight.mean()
        coef = np.linalg.solve((x * weight[:, None]).T @ x + ridge, (x * weight[:, None]).T @ y)
    return coef


def mahalanobis2(points: np.ndarray, reference: np.ndarray, neighbours: np.ndarray, shrink: float = 0.1) -> np.ndarray:
    """Return the squared distance of points from their neighbours in the reference, over their covariance.

    Mean and covariance come from the neighbours (trimmed once: the tenth that lies farthest out is left off), shrunk
    towards the covariance of all: `shrink` plus what the number of neighbours cannot support.
    """
    spread = np.maximum(1.4826 * np.median(np.abs(reference - np.median(reference, axis=0)), axis=0), 0.1)
    points, reference = points / spread, reference / spread
    n_dim = points.shape[1]
    inside = np.clip(reference, *np.quantile(reference, [0.01, 0.99], axis=0))
    overall = 0.1 * np.eye(n_dim) + (np.cov(inside, rowvar=False).reshape(n_dim, n_dim) if len(inside) > 1 else 0.0)
    share = min(shrink + n_dim / (4 * neighbours.shape[1]), 0.9)
    distance = np.empty(len(points))
    for first in range(0, len(points), 512):
        rows = slice(first, first + 512)
        distance[rows] = _local_distance(points[rows], reference[neighbours[rows]], overall, share)
    return distance


def _local_distance(points: np.ndarray, near: np.ndarray, overall: np.ndarray, share: float) -> np.ndarray:
    centre = np.median(near, axis=1)
    off = near - centre[:, None]
    weight = np.ones(off.shape[:2])
    for _ in range(2):
        total = weight.sum(axis=1)
        centre_off = np.einsum("nk,nkd->nd", weight, off) / total[:, None]
        centred = off - centre_off[:, None]
        cov = np.einsum("nk,nkd,nke->nde", weight, centred, centred) / total[:, None, None]
        cov = (1 - share) * cov + share * overall
        inverse = np.linalg.inv(cov)
        inner = np.einsum("nkd,nde,nke->nk", centred, inverse, centred)
        weight = (inner <= np.quantile(inner, 0.9, axis=1, keepdims=True)).astype(float)
    away = points - centre - centre_off
    return np.einsum("nd,nde,ne->n", away, inverse, away)
