"""Reasons, classes, ranks and flags."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qad.scoring import rank
from qad.scoring.explain import Finding, class_guess, place, reason
from qad.scoring.widths import feature_names

NAMES = feature_names()
KMS = np.array([300.0, 900.0, 2000.0, 4500.0, 9000.0, 19000.0, 38000.0])


def _finding(best: int = 3, sigma: float = 1.0, wave: float = 2000.0, **log_p: float) -> Finding:
    deviation, value = np.zeros(len(NAMES)), np.full(len(NAMES), np.nan)
    views = {"local": 0.0, "latent": 0.0, "line": 0.0} | log_p
    return Finding(views, np.full(7, sigma), np.full(7, wave), KMS, best, NAMES, deviation, value)


def _with(finding: Finding, **features: tuple[float, float]) -> Finding:
    for name, (value, deviation) in features.items():
        index = NAMES.index(name)
        finding.value[index], finding.deviation[index] = value, deviation
    return finding


def test_absorption_by_an_outflow_is_told_with_line_velocity_and_significance() -> None:
    wave = 1549.06 * (1 - 18_000 / 299_792.458)
    finding = _finding(sigma=-9.1, wave=wave, local=-20.0)
    assert reason(finding) == "broad absorption 18000 km/s blueward of C IV, 9.1 sigma, 4500 km/s wide"
    assert class_guess(finding) == "BAL"


def test_weak_lines_are_told_with_their_width() -> None:
    finding = _with(_finding(line=-15.0), **{"ew:C IV": (2.0, -3.1), "ew:C III]": (4.0, -2.5)})
    assert reason(finding).startswith("weak C IV, EW 2.0 Å (-3.1 sigma)")
    assert class_guess(finding) == "weak-line"


def test_a_rare_latent_is_told_with_its_p() -> None:
    finding = _finding(latent=np.log(1e-4))
    assert reason(finding) == "rare combination of features (latent p 1e-04)"
    assert class_guess(finding) == "unusual"


def test_nothing_strange_has_no_class() -> None:
    assert class_guess(_finding(local=-1.0, latent=-2.0, line=-3.0)) is None


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"ew:N III]": (9.0, 6.0)}, "N-rich"),
        ({"ew:[O III]": (200.0, 6.0), "ew:[O II]": (80.0, 5.0)}, "narrow-line"),
        ({"slope:2030-2682": (3.0, 6.0)}, "reddened"),
        ({"ew:Fe II UV": (150.0, 4.0)}, "strong Fe II"),
    ],
)
def test_classes_follow_the_lines(features: dict[str, tuple[float, float]], expected: str) -> None:
    assert class_guess(_with(_finding(line=-20.0), **features)) == expected


def test_a_probable_artefact_is_said_first() -> None:
    finding = _finding(local=-9.0)
    told = Finding(**{**vars(finding), "artefact": 0.9, "artefact_reason": "step at a camera edge"})
    assert reason(told).startswith("probable artefact: step at a camera edge; ")


def test_the_weaker_line_of_the_oiii_doublet_is_not_a_shift_of_the_stronger() -> None:
    line, velocity = place(4961.0, is_absorption=False)
    assert line is not None
    assert line.name == "[O III] 4960"
    assert abs(velocity) < 100


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), min_size=1, max_size=30), st.randoms())
def test_ranks_do_not_depend_on_the_order_of_rows(rows: list[tuple[float, bool]], random: object) -> None:
    score = np.array([item[0] for item in rows])
    artefact = np.array([item[1] for item in rows])
    targetid = np.arange(len(rows))
    shuffled = list(range(len(rows)))
    random.shuffle(shuffled)
    first = targetid[rank.order(score, artefact, False, targetid)]
    second = targetid[shuffled][rank.order(score[shuffled], artefact[shuffled], False, targetid[shuffled])]
    assert first.tolist() == second.tolist()


def test_probable_artefacts_rank_behind_unless_kept() -> None:
    score, artefact, targetid = np.array([9.0, 5.0, 7.0]), np.array([True, False, False]), np.arange(3)
    assert rank.order(score, artefact, False, targetid).tolist() == [2, 1, 0]
    assert rank.order(score, artefact, True, targetid).tolist() == [0, 2, 1]


def test_flags_have_names() -> None:
    assert rank.flag_names(rank.SPIKE | rank.SMALL_POPULATION) == ["small_population", "spike"]
    assert len({*rank.FLAGS}) == 9
