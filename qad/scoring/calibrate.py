"""The calibration: everything that is learned from a population, applied to any spectrum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qad.scoring.artefacts import probability
from qad.scoring.classes import CLASSES, LINE_CLASSES, PREFIX, directions, mixture
from qad.scoring.combine import NullLaw, combine
from qad.scoring.conditional import Neighbours, ViewCalibration, position, standardise
from qad.scoring.linelaw import LineLaw, fit_line_law, one_sided
from qad.scoring.matcher import ShapeSpread
from qad.scoring.population import FeaturePopulation, covariates, fit_features
from qad.scoring.residuals import Scatter
from qad.scoring.views import (
    Measured,
    extent_views,
    global_view,
    latent_view,
    line_deviations,
    local_scales,
    peak_views,
)
from qad.scoring.widths import Widths, feature_names

MAIN_VIEWS = ("global", "local", "latent", "line", "class")
EVIDENCE = ("local", "latent", "line")
"""Views that tell independently of each other what is strange."""
CHUNK = 8192
"""Spectra calibrated at a time: their neighbours take 200 numbers each."""
UNSEEN = 0.0
"""Raw value of a class that cannot show in a spectrum, below what most have; its p-value is 1."""
USUAL_SHARE = 0.95
"""Share of the population that calls itself usual: more than are, so that what is left is clean."""


@dataclass(frozen=True)
class Scored:
    """Calibrated views of spectra.

    Attributes
    ----------
    raw : dict of str to ndarray
        Raw value of each view, by view name (``global``, ``local``, ``local_300``, ``latent``, ``line``, ``class``,
        ``class_bal``).
    log_p : dict of str to ndarray
        ln p of each view.
    score, log_p_score : ndarray
        The combination, and ln of its p-value.
    deviation : ndarray, shape (n_spectra, n_features)
        Signed deviation of each line feature, sigma.
    """

    raw: dict[str, np.ndarray]
    log_p: dict[str, np.ndarray]
    score: np.ndarray
    log_p_score: np.ndarray
    deviation: np.ndarray

    @staticmethod
    def join(parts: Sequence[Scored]) -> Scored:
        """Return the rows of all parts."""
        views = list(parts[0].raw)
        return Scored(
            {name: np.concatenate([part.raw[name] for part in parts]) for name in views},
            {name: np.concatenate([part.log_p[name] for part in parts]) for name in views},
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.log_p_score for part in parts]),
            np.concatenate([part.deviation for part in parts]),
        )


@dataclass(frozen=True)
class Calibration:
    """What was learned from a reference population.

    Attributes
    ----------
    meta : mapping
        ``geometry_hash``, ``model`` (its hash), ``windows_kms``, ``neighbours``, ``weights``, ``n_reference``.
    scatters : tuple of Scatter
    snr, z, latent : ndarray
        Of the reference spectra.
    features : tuple of FeaturePopulation
    lines : LineLaw
    shapes : ShapeSpread
        Spread of the amplitude of known shapes.
    views : mapping of str to ViewCalibration
    null : NullLaw
        Distribution of the score of normal spectra.
    highest : float
        Highest score of the reference spectra.
    """

    meta: Mapping[str, Any]
    scatters: tuple[Scatter, ...]
    snr: np.ndarray
    z: np.ndarray
    latent: np.ndarray
    features: tuple[FeaturePopulation, ...]
    lines: LineLaw
    shapes: ShapeSpread
    views: Mapping[str, ViewCalibration]
    null: NullLaw
    highest: float

    @property
    def n_reference(self) -> int:
        """Spectra of the reference population."""
        return len(self.snr)

    def apply(self, measured: Measured) -> Scored:
        """Return calibrated views and score of spectra."""
        finder = Neighbours(self.snr, self.z, int(self.meta["neighbours"]))
        starts = range(0, max(len(measured), 1), CHUNK)
        return Scored.join([self._apply(measured.rows(slice(first, first + CHUNK)), finder) for first in starts])

    def _apply(self, measured: Measured, finder: Neighbours) -> Scored:
        neighbours, where = finder.of(measured.snr, measured.z), position(measured.snr, measured.z)
        deviation = line_deviations(measured, self.features)

        def standard(name: str, values: np.ndarray) -> np.ndarray:
            return self.views[name].standard(values, neighbours)

        def log_p(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: self.views[name].log_p(values[name], neighbours, where) for name in values}

        raw = _raw_views(measured, self.latent, neighbours, self.meta["windows_kms"], standard)
        raw["line"], classes = _line_views(measured, deviation, self.lines)
        found = log_p(raw) | _class_log_p(classes, log_p(_filled(classes)))
        raw |= classes | {"class": mixture(found)}
        found |= log_p({"class": raw["class"]})
        score = combine(found, self.meta["weights"])
        return Scored(raw, found, score, self.null.log_p(score), deviation)


def fit_calibration(
    reference: Measured, scatters: Sequence[Scatter], meta: Mapping[str, Any], shapes: ShapeSpread | None = None
) -> Calibration:
    """Return the calibration on a reference population, which may hold a few per cent of anomalies and artefacts."""
    neighbours = Neighbours(reference.snr, reference.z, int(meta["neighbours"])).of(reference.snr, reference.z)
    where = position(reference.snr, reference.z)
    widths = Widths(feature_names(), reference.width.astype(float), reference.width_error.astype(float))
    features = tuple(fit_features(widths, covariates(reference.norm, reference.z)))
    latent = reference.latent.astype(np.float32).astype(float)
    deviation = line_deviations(reference, features)
    lines = fit_line_law(one_sided(feature_names(), deviation))
    windows = meta["windows_kms"]
    raw = _raw_views(reference, latent, neighbours, windows, lambda _, values: standardise(values, values, neighbours))
    raw["line"], classes = _line_views(reference, deviation, lines)
    usual = probability(reference.evidence) < 0.5
    usual = usual if usual.any() else np.ones(len(reference), bool)

    def fit(values: np.ndarray, normal: np.ndarray) -> ViewCalibration:
        return ViewCalibration.fit(values, neighbours, normal, where)

    first = {name: fit(raw[name], usual).log_p(raw[name], neighbours, where) for name in EVIDENCE}
    normal = {name: _is_normal(name, first, usual) for name in EVIDENCE}
    views = {name: fit(values, normal[name if name in EVIDENCE else "local"]) for name, values in raw.items()}
    for name, values in _filled(classes).items():
        # classes of lines are seen by the line view, shapes by the local one
        family = "line" if name.removeprefix(PREFIX) in LINE_CLASSES else "local"
        views[name] = fit(values, normal[family] & np.isfinite(classes[name]))
    log_p = {name: views[name].log_p(values, neighbours, where) for name, values in (raw | _filled(classes)).items()}
    log_p |= _class_log_p(classes, log_p)
    together = mixture(log_p)
    views["class"] = fit(together, normal["line"] & normal["local"])
    log_p["class"] = views["class"].log_p(together, neighbours, where)
    score = combine(log_p, meta["weights"])
    return Calibration(
        {**meta, "n_reference": len(reference)},
        tuple(scatters),
        reference.snr,
        reference.z,
        latent,
        features,
        lines,
        shapes or ShapeSpread(np.zeros(0), np.zeros((0, 0))),
        views,
        NullLaw.fit(score[usual]),
        float(score.max()),
    )


def _raw_views(
    measured: Measured,
    latent: np.ndarray,
    neighbours: np.ndarray,
    windows_kms: Sequence[float],
    standard: Callable[[str, np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
    """Return the raw value of every view but those of lines and classes; `standard` standardises values of a named view."""
    names = [f"{kms:.0f}" for kms in windows_kms]
    raw = {"global": global_view(measured)}
    raw |= {f"local_{name}": values for name, values in zip(names, peak_views(measured).T, strict=True)}
    raw |= {f"extent_{name}": values for name, values in zip(names, extent_views(measured).T, strict=True)}
    scales = [f"extent_{names[index]}" for index in local_scales(windows_kms)]
    raw["local"] = np.mean([standard(name, raw[name]) for name in scales], axis=0)
    raw["latent"] = latent_view(measured, latent, neighbours)
    return raw


def _line_views(measured: Measured, deviation: np.ndarray, lines: LineLaw) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the joint distance of the line features, and the raw value of every class, nan where it cannot show."""
    names = feature_names()
    judged = lines.judged(one_sided(names, deviation))
    distance, along = lines.views(judged, directions(names))
    values = np.concatenate([measured.family.astype(float), along], axis=1)
    return distance, {PREFIX + name: values[:, index] for index, name in enumerate(CLASSES)}


def _filled(classes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.where(np.isfinite(values), values, UNSEEN) for name, values in classes.items()}


def _class_log_p(classes: Mapping[str, np.ndarray], log_p: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return ln p of the classes: 0 where one cannot show."""
    return {name: np.where(np.isfinite(values), log_p[name], 0.0) for name, values in classes.items()}


def _is_normal(name: str, log_p: Mapping[str, np.ndarray], usual: np.ndarray) -> np.ndarray:
    """Return which spectra show what a view looks like without anomalies: those that the *other* views find usual.

    To leave out what the view itself finds strange would cut its own tail.
    """
    strange = -np.sum([values for other, values in log_p.items() if other != name], axis=0)
    return usual & (strange <= np.quantile(strange[usual], USUAL_SHARE))
