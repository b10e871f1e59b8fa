"""Spectra of which it is known what they are, in the order of a ranking; and what that ranking is worth.

Rows have weights, so that planted anomalies, of which there are many, stand for the few that nature has; and units, which are
drawn together in the bootstrap, so that several plants into one spectrum count as what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from qad.evaluation.metrics import rank_correlation

FLAGGED_BEHIND = 1e6
"""Probable artefacts rank behind all others: no score is as large."""
FPRS = (0.001, 0.01)
"""False-positive rates at which completeness is told."""
JEFFREYS = 0.5
CORRELATION_DRAWS = 51
"""Bootstrap draws for a rank correlation, which sorts the list in each, and the figure itself."""


@dataclass(frozen=True)
class Judged:
    """Spectra with their truth; every array is of shape (n_rows,).

    Attributes
    ----------
    score : ndarray
        What ranks: higher is stranger, probable artefacts behind (:func:`ranking_score`).
    p_value : ndarray
    is_flagged : ndarray of bool
        Called an artefact.
    anomaly, artefact : ndarray of str
        Class of what is planted, empty without.
    strength, snr, z : ndarray
    in_list : ndarray of bool
        Part of the list that a user looks at: planted copies are not.
    weight : ndarray
        How many spectra of that list a row stands for.
    unit : ndarray of int
        Rows of the same unit are drawn together.
    """

    score: np.ndarray
    p_value: np.ndarray
    is_flagged: np.ndarray
    anomaly: np.ndarray
    artefact: np.ndarray
    strength: np.ndarray
    snr: np.ndarray
    z: np.ndarray
    in_list: np.ndarray
    weight: np.ndarray
    unit: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    @cached_property
    def is_anomaly(self) -> np.ndarray:
        """Whether an anomaly is planted."""
        return np.asarray(self.anomaly != "")

    @cached_property
    def is_artefact(self) -> np.ndarray:
        """Whether an artefact is planted."""
        return np.asarray(self.artefact != "")

    @cached_property
    def is_normal(self) -> np.ndarray:
        """Whether nothing is planted."""
        return ~(self.is_anomaly | self.is_artefact)

    def rows(self, which: np.ndarray) -> Judged:
        """Return some rows."""
        return replace(self, **{name: getattr(self, name)[which] for name in self.__dataclass_fields__})


def ranking_score(score: np.ndarray, is_flagged: np.ndarray, keep_artefacts: bool) -> np.ndarray:
    """Return what `qad score` ranks by: the score, with probable artefacts behind unless they are kept."""
    return np.asarray(score, float) - np.where(is_flagged & (not keep_artefacts), FLAGGED_BEHIND, 0.0)


@dataclass(frozen=True)
class Measure:
    """A figure and its standard error; nan where there is nothing to measure."""

    value: float
    error: float


class Ranking:
    """Judged spectra, sorted once; every figure is a function of the rows' weights, which the bootstrap varies."""

    def __init__(self, judged: Judged) -> None:
        self.judged = judged
        self.order = np.argsort(-judged.score, kind="stable")
        score = judged.score[self.order]
        # of equal scores none comes before another: a threshold takes all or none of them
        self.ends = np.flatnonzero(np.diff(score, append=-np.inf) != 0) if score.size else np.empty(0, int)
        self._place = np.empty(len(judged), int)
        self._place[self.order] = np.searchsorted(self.ends, np.arange(len(judged)))

    def taken(self, weight: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Return the weight of `members` above each threshold, from the highest score down."""
        return np.cumsum((weight * members)[self.order])[self.ends]

    def average_precision(self, weight: np.ndarray) -> float:
        """Return the average precision of finding anomalies among everything."""
        hits, total = self.taken(weight, self.judged.is_anomaly), self.taken(weight, np.ones(len(self.judged)))
        if hits.size == 0 or hits[-1] <= 0:
            return float("nan")
        precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
        return float(np.sum(np.diff(hits, prepend=0.0) * precision) / hits[-1])

    def auroc(self, weight: np.ndarray) -> float:
        """Return the chance that an anomaly ranks before any other spectrum."""
        hits, misses = (self.taken(weight, m) for m in (self.judged.is_anomaly, ~self.judged.is_anomaly))
        if hits.size == 0 or hits[-1] <= 0 or misses[-1] <= 0:
            return float("nan")
        return float(np.trapezoid(np.r_[0, hits], np.r_[0, misses]) / (hits[-1] * misses[-1]))

    def share_of_first(self, weight: np.ndarray, members: np.ndarray, k: int) -> float:
        """Return the share of `members` among the first `k` of a list in which every row counts by its weight."""
        ordered = weight[self.order]
        total, hits = np.cumsum(ordered), np.cumsum(ordered * members[self.order])
        if total.size == 0 or total[-1] < k:
            return float("nan")
        return float(np.interp(k, np.r_[0.0, total], np.r_[0.0, hits]) / k)

    def found_at_fpr(self, weight: np.ndarray, fpr: float) -> np.ndarray | None:
        """Return which rows lie above the lowest threshold that passes at most `fpr` of the normal spectra.

        None if there are too few of them to tell.
        """
        normal = self.taken(weight, self.judged.is_normal)
        if normal.size == 0 or int((self.judged.is_normal & (weight > 0)).sum()) * fpr < 1.0:
            return None
        n_allowed = int(np.searchsorted(normal, fpr * normal[-1] * (1 + 1e-12), side="right"))
        return np.asarray(self._place < n_allowed)

    def found_in_first(self, count: np.ndarray, k: int) -> np.ndarray | None:
        """Return which rows score at least as high as the `k`-th of the user's list, or None if it is shorter.

        `count` says how often each row was drawn.
        """
        listed = self.taken(count, self.judged.in_list)
        if listed.size == 0 or listed[-1] < k:
            return None
        return np.asarray(self._place <= int(np.searchsorted(listed, k - 1e-9)))


class Bootstrap:
    """Figures with the errors that drawing units with replacement gives."""

    def __init__(self, judged: Judged, n_draws: int = 200, seed: int = 0) -> None:
        self.judged, self.ranking = judged, Ranking(judged)
        rng = np.random.default_rng([seed, 0xB007])
        _, self._unit = np.unique(judged.unit, return_inverse=True)
        n_units = int(self._unit.max(initial=-1)) + 1
        self.counts = [np.ones(len(judged))]
        self.counts += [
            np.bincount(rng.integers(0, n_units, n_units), minlength=n_units).astype(float)[self._unit]
            for _ in range(n_draws if n_units else 0)
        ]

    def measure(self, figure: Callable[[Ranking, np.ndarray], float]) -> Measure:
        """Return a figure of (ranking, weights)."""
        values = [figure(self.ranking, self.judged.weight * count) for count in self.counts]
        return _measure(values)

    def completeness(self, cells: Mapping[str, np.ndarray], tops: Sequence[int]) -> dict[str, dict[str, Measure]]:
        """Return, by cell (a mask of rows) and criterion, the share of its rows that are found.

        Criteria are ``fpr_0.001``, ``fpr_0.01`` and ``top_<k>``.
        """
        names = list(cells)
        # a list of a million spectra holds some hundred plants: only their columns count
        wanted = np.flatnonzero(np.any(list(cells.values()), axis=0)) if names else np.empty(0, int)
        masks = np.array([cells[name][wanted] for name in names], np.float64).reshape(len(names), len(wanted))
        shares: dict[str, list[np.ndarray]] = {}
        for count in self.counts:
            weight = self.judged.weight * count
            found = {f"fpr_{fpr:g}": self.ranking.found_at_fpr(weight, fpr) for fpr in FPRS}
            found |= {f"top_{k}": self.ranking.found_in_first(count, k) for k in tops}
            total = masks @ weight[wanted]
            for key, which in found.items():
                unknown = np.full(len(names), np.nan)
                hits = unknown if which is None else masks @ (weight * which)[wanted]
                shares.setdefault(key, []).append(np.divide(hits, total, out=unknown.copy(), where=total > 0))
        columns = {key: np.stack(values) for key, values in shares.items()}
        sizes = masks.sum(axis=1)
        return {
            name: {key: _share(values[:, i], int(sizes[i])) for key, values in columns.items()}
            for i, name in enumerate(names)
        }

    def share(self, members: np.ndarray, which: np.ndarray) -> Measure:
        """Return the share of `members` for which `which` holds."""
        values = []
        for count in self.counts:
            total = float(count[members].sum())
            values.append(float((count * which)[members].sum()) / total if total else float("nan"))
        return _share(np.array(values), int(members.sum()))


def snr_correlation(boot: Bootstrap) -> Measure:
    """Return the rank correlation of the score with S/N over the user's list."""
    judged = boot.judged
    listed = np.flatnonzero(judged.in_list)
    values = []
    for count in boot.counts[:CORRELATION_DRAWS]:
        rows = np.repeat(listed, count[listed].astype(int))
        score, snr = judged.score[rows], judged.snr[rows]
        varies = len(rows) > 2 and np.ptp(score) > 0 and np.ptp(snr) > 0
        values.append(rank_correlation(score, snr) if varies else float("nan"))
    return _measure(values)


def _measure(values: Sequence[float]) -> Measure:
    draws = np.asarray(values[1:], float)
    draws = draws[np.isfinite(draws)]
    return Measure(float(values[0]), float(np.std(draws)) if draws.size > 1 else float("nan"))


def _share(values: np.ndarray, n: int) -> Measure:
    """Return a share; where all or none are found the bootstrap knows no error, and that of Jeffreys' prior stands in."""
    measure = _measure([float(value) for value in values])
    if n and measure.value in (0.0, 1.0):
        a, b = measure.value * n + JEFFREYS, (1 - measure.value) * n + JEFFREYS
        measure = replace(measure, error=max(measure.error, float(np.sqrt(a * b / ((a + b) ** 2 * (a + b + 1))))))
    return measure
