"""How the line features of normal quasars go together, and what known classes do to them.

Strengths of lines rise and fall together; what is rare is a combination.  So features are judged by their joint distance, and by
how far they lie in the directions of classes that are defined by lines (reviews: see :mod:`qad.scoring.shapes` and
:mod:`qad.scoring.classes`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EMISSION_ONLY = ("[Ne V]", "[O II]", "[Ne III]", "[O III]", "He I", "O I", "N III]", "He II 1640", "Hgamma", "Hdelta")
"""Lines too weak for their absence to mean much: a deficit counts up to WEAK_SIDE."""
ABSORPTION_ONLY = ("Ca II K",)
WEAK_SIDE = 1.0
TAIL_SHARE, TAIL_SIGMA = 0.95, 1.96
"""A feature of which this share of one side lies beyond this many sigma has heavier tails than a Gaussian, and is scaled down."""
MIN_SIDE = 100
"""Fewest deviations of a side from which its tail is measured."""
CLIP = 3.0
PRIOR_SPECTRA = 100.0
"""Pairs of features seen in few spectra are taken for independent: the weight of that, in spectra."""
SHRINK = 0.8
"""Share of a correlation that is believed: populations differ."""


@dataclass(frozen=True)
class LineLaw:
    """The joint law of the deviations of line features.

    Attributes
    ----------
    scale : ndarray, shape (2, n_features)
        What deviations below and above 0 are multiplied with.
    correlation : ndarray, shape (n_features, n_features)
    """

    scale: np.ndarray
    correlation: np.ndarray

    def judged(self, deviation: np.ndarray) -> np.ndarray:
        """Return deviations with their tails scaled."""
        return deviation * np.where(deviation < 0, self.scale[0], self.scale[1])

    def views(self, deviation: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the joint distance, and how far spectra lie in each direction.

        Parameters
        ----------
        deviation : ndarray, shape (n_spectra, n_features)
            Of :func:`one_sided` and :meth:`judged`; 0 where not measured.
        directions : ndarray, shape (n_directions, n_features)

        Returns
        -------
        distance : ndarray, shape (n_spectra,)
            (d'R^-1 d - n) / sqrt(2 n) over the n measured features: 0 in the mean, of unit scatter.
        along : ndarray, shape (n_spectra, n_directions)
            a'R^-1 d / sqrt(a'R^-1 a), nan where no leading feature of the direction is measured.
        """
        measured = deviation != 0
        distance = np.full(len(deviation), -np.sqrt(0.5))
        along = np.full((len(deviation), len(directions)), np.nan)
        leading = np.abs(directions) >= 0.5 * np.abs(directions).max(axis=1, keepdims=True)
        patterns, member = np.unique(measured, axis=0, return_inverse=True)
        order = np.argsort(member.ravel(), kind="stable")
        rows = np.split(order, np.cumsum(np.bincount(member.ravel(), minlength=len(patterns)))[:-1])
        for pattern, chosen in zip(patterns, rows, strict=True):
            some = np.flatnonzero(pattern)
            if some.size == 0:
                continue
            inverse = np.linalg.inv(self.correlation[np.ix_(some, some)])
            part = deviation[np.ix_(chosen, some)]
            whitened = part @ inverse
            distance[chosen] = ((whitened * part).sum(axis=1) - some.size) / np.sqrt(2.0 * some.size)
            for k in np.flatnonzero((leading & pattern).any(axis=1)):
                a = directions[k, some]
                along[chosen, k] = whitened @ a / np.sqrt(a @ inverse @ a)
        return distance, along


def one_sided(names: tuple[str, ...], deviation: np.ndarray) -> np.ndarray:
    """Return deviations of which only the side that means something counts in full."""
    limits = np.full((2, len(names)), np.inf)
    for k, name in enumerate(names):
        what = name.removeprefix("ew:")
        limits[0, k] = WEAK_SIDE if name.startswith("ew:") and what in EMISSION_ONLY else np.inf
        limits[1, k] = WEAK_SIDE if name.startswith("ew:") and what in ABSORPTION_ONLY else np.inf
    return np.clip(deviation, -limits[0], limits[1])


def fit_line_law(deviation: np.ndarray) -> LineLaw:
    """Return the law of a population's deviations, after :func:`one_sided`; a few per cent of anomalies hardly move it."""
    n_features = deviation.shape[1]
    scale = np.ones((2, n_features))
    for side, sign in enumerate((-1.0, 1.0)):
        for k in range(n_features):
            there = sign * deviation[:, k]
            there = there[there > 0]
            if there.size >= MIN_SIDE:
                scale[side, k] = min(1.0, TAIL_SIGMA / max(float(np.quantile(there, TAIL_SHARE)), 1e-3))
    measured = (deviation != 0).astype(float)
    clipped = np.clip(deviation * np.where(deviation < 0, scale[0], scale[1]), -CLIP, CLIP)
    count = measured.T @ measured
    product = (clipped.T @ clipped) / np.maximum(count, 1.0)
    size = np.sqrt(np.maximum(np.diag(product), 1e-3))
    correlation = SHRINK * product / np.outer(size, size) * count / (count + PRIOR_SPECTRA)
    np.fill_diagonal(correlation, 1.0)
    # pairs are measured on different spectra: the matrix of their correlations need not be one
    values, vectors = np.linalg.eigh(correlation)
    return LineLaw(scale, (vectors * np.maximum(values, 0.05)) @ vectors.T)
