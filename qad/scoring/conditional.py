"""From raw values to p-values that mean the same at every signal-to-noise and redshift.

A raw value is compared with those of the reference spectra nearest in (log S/N, z): less their median, over the distance from
their median to their upper quantile.  What is left has one distribution for all spectra; its tail beyond the sample is a
generalised Pareto law, fitted to spectra that no other view finds strange.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UPPER = 0.84
"""Quantile that sets the scale, one sigma above the median of a Gaussian."""
TAIL = 0.95
"""Quantile of the normal spectra above which the tail law holds."""
MIN_SHAPE, MAX_SHAPE = 0.05, 0.3
"""Bounds of the Pareto index: no tail ends, and none is so heavy that nothing can be significant."""
LOWEST_SNR = 0.05
"""S/N below which spectra are all alike."""


class Neighbours:
    """Finds the reference spectra nearest in (log S/N, z), each scaled by its robust spread."""

    def __init__(self, snr: np.ndarray, z: np.ndarray, n_neighbours: int) -> None:
        from scipy.spatial import cKDTree

        points = _position(snr, z)
        self._scale = np.maximum(np.std(points, axis=0), 1e-6)
        self._tree = cKDTree(points / self._scale)
        self.count = min(n_neighbours, len(points))

    def of(self, snr: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return indices of the nearest reference spectra, nearest first, int64 (n_spectra, count)."""
        _, index = self._tree.query(_position(snr, z) / self._scale, k=self.count)
        return np.asarray(index).reshape(len(snr), self.count)


def _position(snr: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.stack([np.log(np.maximum(np.nan_to_num(snr), LOWEST_SNR)), z], axis=1).astype(float)


def standardise(values: np.ndarray, reference: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Return how far values lie above the median of their neighbours' reference values, in units of their upper spread."""
    near = reference[neighbours]
    middle, upper = np.quantile(near, [0.5, UPPER], axis=1)
    floor = 1e-3 * np.std(reference) + 1e-12
    return (values - middle) / np.maximum(upper - middle, floor)


@dataclass(frozen=True)
class Tail:
    """Distribution of standardised values of normal spectra.

    Attributes
    ----------
    values : ndarray
        Quantiles of the body at `chance`, increasing.
    chance : ndarray
        Share of normal spectra above each of `values`.
    threshold, scale, shape : float
        Generalised Pareto law above `threshold`: TAIL holds below it.
    """

    values: np.ndarray
    chance: np.ndarray
    threshold: float
    scale: float
    shape: float

    @classmethod
    def fit(cls, standard: np.ndarray) -> Tail:
        """Fit to the standardised values of normal spectra, by probability-weighted moments (Hosking and Wallis 1987)."""
        chance = 1.0 - np.linspace(0.002, TAIL, 476)
        values = np.quantile(standard, 1.0 - chance)
        excess = np.sort(standard[standard > values[-1]] - values[-1])
        if len(excess) < 10:
            return cls(
                values, chance, float(values[-1]), float(max(values[-1] - np.median(standard), 1e-6)) / 3.0, MIN_SHAPE
            )
        mean = float(excess.mean())
        rank_share = 1.0 - (np.arange(1, len(excess) + 1) - 0.35) / len(excess)
        moment = float(np.mean(excess * rank_share))
        shape = float(np.clip(2.0 - mean / max(mean - 2.0 * moment, 1e-9), MIN_SHAPE, MAX_SHAPE))
        return cls(values, chance, float(values[-1]), max(mean * (1.0 - shape), 1e-6), shape)

    def log_p(self, standard: np.ndarray) -> np.ndarray:
        """Return ln of the share of normal spectra expected to lie as high."""
        body = np.log(np.interp(standard, self.values, self.chance))
        above = np.maximum(standard - self.threshold, 0.0) / self.scale
        tail = -np.log1p(self.shape * above) / self.shape if self.shape > 1e-6 else -above
        return np.where(standard > self.threshold, np.log(1.0 - TAIL) + tail, body)


@dataclass(frozen=True)
class ViewCalibration:
    """A view's reference values, and the tail of their standardised distribution."""

    reference: np.ndarray
    tail: Tail

    @classmethod
    def fit(cls, reference: np.ndarray, neighbours: np.ndarray, is_normal: np.ndarray) -> ViewCalibration:
        """Fit to a reference population, each spectrum against its own neighbours; the tail to those that are normal."""
        return cls(reference, Tail.fit(standardise(reference, reference, neighbours)[is_normal]))

    def standard(self, values: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
        """Return standardised values of spectra with these neighbours in the reference."""
        return standardise(values, self.reference, neighbours)

    def log_p(self, values: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
        """Return ln p of raw values of spectra with these neighbours in the reference."""
        return self.tail.log_p(self.standard(values, neighbours))
