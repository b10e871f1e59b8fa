"""One score of several views: Fisher's sum of -ln p, with weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qad.errors import ConfigError


def combine(log_p: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return the weighted sum of -ln p over the views (Fisher 1925); higher is stranger.

    Views correlate, so the sum follows no chi2 law: its p-value comes from the population, as any view's.

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
    return np.sum([-weight * log_p[name] for name, weight in weights.items()], axis=0)
