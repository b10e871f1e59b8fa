"""Metrics equal their definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qad.evaluation.metrics import (
    auroc,
    average_precision,
    bootstrap,
    precision_at,
    rank_correlation,
    recall_at_fpr,
    recall_of,
)

ROWS = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40)


def _arrays(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([float(row[0]) for row in rows]), np.array([row[1] for row in rows])


@given(ROWS)
def test_auroc_is_the_share_of_ordered_pairs(rows: list[tuple[int, bool]]) -> None:
    score, truth = _arrays(rows)
    pairs = [(p > n) + 0.5 * (p == n) for p in score[truth] for n in score[~truth]]
    if not pairs:
        assert np.isnan(auroc(score, truth))
    else:
        assert auroc(score, truth) == pytest.approx(np.mean(pairs))


@given(ROWS)
def test_average_precision_is_the_sum_over_thresholds(rows: list[tuple[int, bool]]) -> None:
    score, truth = _arrays(rows)
    if not truth.any():
        assert np.isnan(average_precision(score, truth))
        return
    expected, before = 0.0, 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        chosen = score >= threshold
        recall = truth[chosen].sum() / truth.sum()
        expected += (recall - before) * truth[chosen].mean()
        before = recall
    assert average_precision(score, truth) == pytest.approx(expected)


@given(ROWS, st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_recall_at_fpr_is_the_best_allowed_threshold(rows: list[tuple[int, bool]], fpr: float) -> None:
    score, truth = _arrays(rows)
    if not truth.any():
        return
    best = 0.0
    for threshold in set(score.tolist()):
        chosen = score >= threshold
        if (chosen & ~truth).sum() <= fpr * (~truth).sum():
            best = max(best, truth[chosen].sum() / truth.sum())
    assert recall_at_fpr(score, truth, fpr) == pytest.approx(best)


@given(ROWS)
def test_metrics_depend_on_order_alone(rows: list[tuple[int, bool]]) -> None:
    score, truth = _arrays(rows)
    if truth.any() and not truth.all():
        assert average_precision(np.exp(score), truth) == pytest.approx(average_precision(score, truth))
        assert auroc(3 * score - 7, truth) == pytest.approx(auroc(score, truth))


def test_precision_among_the_first() -> None:
    score = np.array([5.0, 4.0, 3.0, 2.0])
    assert precision_at(score, np.array([True, False, True, True]), 2) == 0.5
    assert precision_at(score, np.array([True, False, True, True]), 10) == 0.75


def test_recall_of_a_class_leaves_other_classes_out() -> None:
    score = np.array([9.0, 8.0, 7.0, 6.0])
    truth = np.array([True, True, False, False])
    assert recall_of(score, truth, np.array([False, True, False, False]), fpr=0.0) == 1.0


def test_rank_correlation_of_any_rising_function_is_one() -> None:
    x = np.random.default_rng(0).random(50)
    assert rank_correlation(x, np.exp(5 * x)) == pytest.approx(1.0)
    assert rank_correlation(x, -x) == pytest.approx(-1.0)


def test_bootstrap_error_shrinks_with_the_sample() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(4000) < 0.2
    score = truth + rng.standard_normal(4000)
    assert bootstrap(auroc, score, truth, 30) < bootstrap(auroc, score[:200], truth[:200], 30)


def test_scores_must_be_finite() -> None:
    with pytest.raises(ValueError) as error:
        auroc(np.array([1.0, np.nan]), np.array([True, False]))
    assert "finite" in str(error.value)
