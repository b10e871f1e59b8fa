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
SNR_KNOTS, Z_KNOTS = 5, 3
"""Tails are fitted around this many quantiles of S/N and of redshift: noise has lighter tails than the variety of quasars."""
KNOT_SPECTRA = 300
"""Fewest normal spectra that a tail is fitted to, if there are as many."""
SNR_STRETCH = 2.0
"""A standard deviation of log S/N counts this many times one of redshift when the spectra nearest to a knot are chosen."""


class Neighbours:
    """Finds the reference spectra nearest in (log S/N, z), each scaled by its robust spread."""

    def __init__(self, snr: np.ndarray, z: np.ndarray, n_neighbours: int) -> None:
        from scipy.spatial import cKDTree

        points = position(snr, z)
        self._scale = np.maximum(np.std(points, axis=0), 1e-6)
        self._tree = cKDTree(points / self._scale)
        self.count = min(n_neighbours, len(points))

    def of(self, snr: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return indices of the nearest reference spectra, nearest first, int64 (n_spectra, count)."""
        _, index = self._tree.query(position(snr, z) / self._scale, k=self.count)
        return np.asarray(index).reshape(len(snr), self.count)


def position(snr: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return where spectra lie in log S/N and redshift, (n_spectra, 2)."""
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
class TailField:
    """Tails that change with S/N and redshift: between its knots ln p is interpolated.

    Attributes
    ----------
    snr, z : ndarray
        Knots in log S/N and in redshift, increasing.
    tails : tuple of tuple of Tail
        By knot of S/N, then of redshift.
    """

    snr: np.ndarray
    z: np.ndarray
    tails: tuple[tuple[Tail, ...], ...]

    @classmethod
    def fit(cls, standard: np.ndarray, where: np.ndarray) -> TailField:
        """Fit to the standardised values of normal spectra at positions `where`, (n_spectra, 2)."""
        n = len(standard)
        knots = SNR_KNOTS if n >= 2 * KNOT_SPECTRA else 1, Z_KNOTS if n >= 4 * KNOT_SPECTRA else 1
        snr, z = (np.quantile(where[:, i], (np.arange(k) + 0.5) / k) for i, k in enumerate(knots))
        count = min(n, max(KNOT_SPECTRA, round(1.5 * n / (len(snr) * len(z)))))
        scale = np.maximum(np.std(where, axis=0), 1e-6) / (SNR_STRETCH, 1.0)

        def tail(a: float, b: float) -> Tail:
            distance = (((where - (a, b)) / scale) ** 2).sum(axis=1)
            return Tail.fit(standard[np.argsort(distance, kind="stable")[:count]])

        return cls(snr, z, tuple(tuple(tail(a, b) for b in z) for a in snr))

    def log_p(self, standard: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Return ln of the share of normal spectra of like S/N and redshift expected to lie as high."""
        found = np.zeros(len(standard))
        across = _shares(where[:, 1], self.z)
        for along, row in zip(_shares(where[:, 0], self.snr), self.tails, strict=True):
            for share, tail in zip(across, row, strict=True):
                chosen = np.flatnonzero(along * share)
                found[chosen] += (along * share)[chosen] * tail.log_p(standard[chosen])
        return found


def _shares(x: np.ndarray, knots: np.ndarray) -> list[np.ndarray]:
    """Return the share of each knot in linear interpolation, constant beyond the ends."""
    hats = np.eye(len(knots))
    return [np.interp(x, knots, hat) for hat in hats]


@dataclass(frozen=True)
class ViewCalibration:
    """A view's reference values, and the tails of their standardised distribution."""

    reference: np.ndarray
    tail: TailField

    @classmethod
    def fit(
        cls, reference: np.ndarray, neighbours: np.ndarray, is_normal: np.ndarray, where: np.ndarray
    ) -> ViewCalibration:
        """Fit to a reference population, each spectrum against its own neighbours; the tails to those that are normal."""
        standard = standardise(reference, reference, neighbours)
        is_normal = is_normal if is_normal.any() else np.ones(len(reference), bool)
        return cls(reference, TailField.fit(standard[is_normal], where[is_normal]))

    def standard(self, values: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
        """Return standardised values of spectra with these neighbours in the reference."""
        return standardise(values, self.reference, neighbours)

    def log_p(self, values: np.ndarray, neighbours: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Return ln p of raw values of spectra with these neighbours in the reference, at these positions."""
        return self.tail.log_p(self.standard(values, neighbours), where)
