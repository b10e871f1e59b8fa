"""Figures equal their definitions, weights stand for copies, and errors are as large as the scatter that they tell of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.evaluation.figures import bands, document
from qad.evaluation.judged import Bootstrap, Judged, Ranking, ranking_score, snr_correlation
from qad.evaluation.metrics import auroc, average_precision, precision_at, rank_correlation, recall_at_fpr


def judged(
    score: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None, fault: np.ndarray | None = None
) -> Judged:
    """Return rows in which `truth` are anomalies and `fault` artefacts."""
    n = len(score)
    fault = np.zeros(n, bool) if fault is None else fault
    return Judged(
        score=np.asarray(score, float),
        p_value=np.linspace(0, 1, n),
        is_flagged=np.zeros(n, bool),
        anomaly=np.where(truth, "odd", ""),
        artefact=np.where(fault & ~truth, "fault", ""),
        strength=np.where(truth, 0.5, np.nan),
        snr=np.full(n, 2.0),
        z=np.full(n, 2.0),
        in_list=np.ones(n, bool),
        weight=np.ones(n) if weight is None else weight,
        unit=np.arange(n),
    )


ROWS = st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(1, 4)), min_size=3, max_size=40)


@given(ROWS)
def test_with_weight_one_the_figures_are_those_of_the_plain_metrics(rows: list[tuple[int, bool, int]]) -> None:
    score, truth = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    ranking, ones = Ranking(judged(score, truth)), np.ones(len(rows))
    np.testing.assert_allclose(ranking.average_precision(ones), average_precision(score, truth))
    np.testing.assert_allclose(ranking.auroc(ones), auroc(score, truth))
    for k in (1, len(rows)):
        np.testing.assert_allclose(ranking.share_of_first(ones, truth, k), precision_at(score, truth, k))
    found = ranking.found_at_fpr(ones, 0.5)
    if found is not None and truth.any():
        np.testing.assert_allclose(found[truth].mean(), recall_at_fpr(score, truth, 0.5))


@given(ROWS)
def test_a_weight_stands_for_as_many_copies(rows: list[tuple[int, bool, int]]) -> None:
    score, truth = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    weight = np.array([r[2] for r in rows], float)
    copies = np.repeat(np.arange(len(rows)), weight.astype(int))
    ranking = Ranking(judged(score, truth))
    np.testing.assert_allclose(ranking.average_precision(weight), average_precision(score[copies], truth[copies]))
    np.testing.assert_allclose(ranking.auroc(weight), auroc(score[copies], truth[copies]))


def test_the_first_k_of_the_list_decide_and_too_few_normal_spectra_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    rows = judged(rng.normal(size=300), np.arange(300) < 20)
    ranking = Ranking(rows)
    found = ranking.found_in_first(np.ones(300), 25)
    assert found is not None
    assert found.sum() == 25
    assert ranking.found_in_first(np.ones(300), 301) is None
    assert ranking.found_at_fpr(np.ones(300), 0.001) is None
    allowed = ranking.found_at_fpr(np.ones(300), 0.01)
    assert allowed is not None
    assert allowed[20:].sum() == 2


def test_probable_artefacts_rank_behind_unless_they_are_kept() -> None:
    score, flagged = np.array([9.0, 1.0, 5.0]), np.array([True, False, False])
    assert list(np.argsort(-ranking_score(score, flagged, False))) == [2, 1, 0]
    assert list(np.argsort(-ranking_score(score, flagged, True))) == [0, 2, 1]


def toy(seed: int, n: int = 500, n_odd: int = 60) -> Judged:
    """Return normal scores, the anomalies' one sigma higher, three of them to a unit."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) < n_odd
    rows = judged(rng.normal(size=n) + 1.5 * truth, truth)
    shared = np.repeat(rng.normal(0, 0.8, n_odd // 3), 3)
    rows.score[:n_odd] = 1.5 + shared + rng.normal(0, 0.6, n_odd)
    unit = np.arange(n)
    unit[:n_odd] = np.repeat(np.arange(n_odd // 3), 3)
    return Judged(**{**vars_of(rows), "unit": unit})


def vars_of(rows: Judged) -> dict[str, np.ndarray]:
    return {name: getattr(rows, name) for name in Judged.__dataclass_fields__}


def test_errors_cover_the_truth_as_often_as_they_say() -> None:
    true_auroc = np.mean([Ranking(toy(1000 + i)).auroc(np.ones(500)) for i in range(150)])
    inside, errors, values = 0, [], []
    for seed in range(80):
        boot = Bootstrap(toy(seed), n_draws=80, seed=seed)
        measure = boot.measure(lambda ranking, weight: ranking.auroc(weight))
        inside += abs(measure.value - true_auroc) < 1.96 * measure.error
        errors.append(measure.error)
        values.append(measure.value)
    assert inside >= 0.86 * 80  # 95 % is nominal, and 80 trials scatter by 2.4 %
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.3)


def test_the_rank_correlation_with_snr_is_that_of_the_list() -> None:
    rng = np.random.default_rng(2)
    rows = judged(rng.normal(size=400), np.arange(400) < 40)
    snr = rows.score + rng.normal(size=400)
    rows = Judged(**{**vars_of(rows), "snr": snr, "in_list": np.arange(400) >= 40})
    measure = snr_correlation(Bootstrap(rows, 60))
    assert measure.value == pytest.approx(rank_correlation(rows.score[40:], snr[40:]))
    assert 0.015 < measure.error < 0.06  # about (1 - rho^2) / sqrt(n)


def test_a_share_of_none_or_all_has_an_error_too() -> None:
    rows = judged(np.arange(100.0), np.arange(100) >= 90)
    share = Bootstrap(rows, 20).share(rows.is_anomaly, np.zeros(100, bool))
    assert share.value == 0
    assert 0.02 < share.error < 0.1


@settings(max_examples=30)
@given(st.lists(st.floats(0, 50), min_size=1, max_size=30))
def test_bands_hold_every_value_once(values: list[float]) -> None:
    found = bands(np.array(values), (0.0, 1.0, 4.0, np.inf))
    assert np.all(np.sum(list(found.values()), axis=0) == 1)


def test_a_document_is_json_whatever_is_missing() -> None:
    import json

    for rows in (judged(np.arange(30.0), np.zeros(30, bool)), judged(np.arange(5.0), np.ones(5, bool))):
        text = json.dumps(document(rows, [10, 1000], 0), allow_nan=False)
        assert "precision_at_1000" not in text


def test_same_seed_same_document() -> None:
    assert document(toy(3), [50], 1) == document(toy(3), [50], 1)
    assert document(toy(3), [50], 1) != document(toy(3), [50], 2)
