"""How well a score finds what was planted: average precision, AUROC, recall, precision among the first k.

Higher scores are stranger.  Equal scores are taken together, as one threshold cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def average_precision(score: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean precision over the positives, nan without positives: sum of (R_i - R_{i-1}) P_i over thresholds."""
    hits, taken = _cumulative(score, truth)
    if hits.size == 0 or hits[-1] == 0:
        return float("nan")
    gain = np.diff(hits, prepend=0) / hits[-1]
    return float(np.sum(gain * hits / taken))


def auroc(score: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of (positive, negative) pairs in the right order, ties half; nan if either class is empty."""
    hits, taken = _cumulative(score, truth)
    if hits.size == 0 or hits[-1] == 0 or hits[-1] == taken[-1]:
        return float("nan")
    misses = taken - hits
    return float(np.trapezoid(np.r_[0, hits], np.r_[0, misses]) / (hits[-1] * misses[-1]))


def recall_at_fpr(score: np.ndarray, truth: np.ndarray, fpr: float = 0.01) -> float:
    """Return the share of positives above the lowest threshold that passes at most `fpr` of the negatives."""
    hits, taken = _cumulative(score, truth)
    if hits.size == 0 or hits[-1] == 0:
        return float("nan")
    misses = taken - hits
    allowed = misses <= fpr * misses[-1]
    return float(hits[allowed].max(initial=0) / hits[-1])


def precision_at(score: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Return the share of positives among the `k` highest scores (the first in row order where scores are equal)."""
    order = np.argsort(-np.asarray(score, float), kind="stable")[:k]
    return float(np.mean(np.asarray(truth, bool)[order])) if order.size else float("nan")


def recall_of(score: np.ndarray, truth: np.ndarray, members: np.ndarray, fpr: float = 0.01) -> float:
    """Return the share of `members`, a subset of the positives, that pass the threshold of false-positive rate `fpr`.

    The negatives are all rows that are not in `truth`: other classes of positives count neither way.
    """
    keep = np.asarray(members, bool) | ~np.asarray(truth, bool)
    return recall_at_fpr(np.asarray(score)[keep], np.asarray(members, bool)[keep], fpr)


def bootstrap(
    metric: Callable[[np.ndarray, np.ndarray], float],
    score: np.ndarray,
    truth: np.ndarray,
    n_draws: int = 200,
    seed: int = 0,
) -> float:
    """Return the standard error of `metric` by drawing rows with replacement."""
    rng = np.random.default_rng(seed)
    score, truth = np.asarray(score), np.asarray(truth)
    draws = [metric(score[rows], truth[rows]) for rows in rng.integers(0, len(score), (n_draws, len(score)))]
    return float(np.nanstd(draws))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation, ties with their mean rank."""
    return float(np.corrcoef(_mean_ranks(first), _mean_ranks(second))[0, 1])


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - 0.5 * (counts - 1))[inverse]


def _cumulative(score: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return positives and rows taken at each distinct threshold, from the highest score down."""
    score, truth = np.asarray(score, float), np.asarray(truth, bool)
    if not np.isfinite(score).all():
        raise ValueError("scores must be finite")
    order = np.argsort(-score, kind="stable")
    score, truth = score[order], truth[order]
    last = np.flatnonzero(np.diff(score, append=-np.inf) != 0) if score.size else np.empty(0, int)
    return np.cumsum(truth)[last], last + 1
