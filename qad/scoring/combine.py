"""One score of several views: the root of the sum of squares of -ln p, with weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qad.errors import ConfigError

MATCHED = (0.5, 0.9)
"""Quantiles of the population at which the null law is matched: a few per cent of anomalies hardly move them."""


@dataclass(frozen=True)
class NullLaw:
    """Distribution of the score of normal spectra: a gamma law, which Fisher's sum follows, its parameters widened because
    the views correlate (Brown 1975, Biometrics 31, 987), here by matching quantiles of the population.
    """

    shape: float
    scale: float

    @classmethod
    def fit(cls, score: np.ndarray) -> NullLaw:
        """Match the law to the scores of a population."""
        from scipy.special import gammaincinv

        middle, upper = np.quantile(score, MATCHED)
        ratio = upper / max(middle, 1e-9)
        low, high = np.log(0.2), np.log(200.0)
        for _ in range(50):
            shape = np.exp(0.5 * (low + high))
            is_narrow = gammaincinv(shape, MATCHED[1]) / gammaincinv(shape, MATCHED[0]) < ratio
            low, high = (low, np.log(shape)) if is_narrow else (np.log(shape), high)
        shape = float(np.exp(0.5 * (low + high)))
        return cls(shape, float(max(middle, 1e-9) / gammaincinv(shape, MATCHED[0])))

    def log_p(self, score: np.ndarray) -> np.ndarray:
        """Return ln of the share of normal spectra expected to score as high."""
        from scipy.stats import gamma

        return np.asarray(gamma.logsf(score, self.shape, scale=self.scale))


def combine(log_p: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return the root of the sum of squares of weight times -ln p over the views; higher is stranger.

    It lies between the sum (Fisher 1925), in which what one view alone sees drowns in the chance of the others, and the
    largest, which lets nothing add up.  Views correlate, so its p-value comes from the population, as any view's.

    Raises
    ------
    ConfigError
        If a weight names no view, or none is above 0.
    """
    unknown = [name for name in weights if name not in log_p]
    if unknown:
        raise ConfigError(f"score.weights: no view {unknown[0]!r}; known: {', '.join(log_p)}")
    if not any(weight > 0 for weight in weights.values()) or min(weights.values()) < 0:
        raise ConfigError("score.weights: at least one weight must be above 0, and none below")
    # in one order, whatever that of the settings: the last bits of a sum depend on it
    return np.sqrt(np.sum([np.square(weight * log_p[name]) for name, weight in sorted(weights.items())], axis=0))
