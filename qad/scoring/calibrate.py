"""The calibration: everything that is learned from a population, applied to any spectrum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qad.scoring.artefacts import probability
from qad.scoring.combine import NullLaw, combine
from qad.scoring.conditional import Neighbours, ViewCalibration, standardise
from qad.scoring.population import FeaturePopulation, covariates, fit_features
from qad.scoring.residuals import Scatter
from qad.scoring.views import (
    Measured,
    extent_views,
    global_view,
    latent_view,
    line_deviations,
    line_view,
    local_scales,
    peak_views,
)
from qad.scoring.widths import Widths, feature_names

MAIN_VIEWS = ("global", "local", "latent", "line")
EVIDENCE = ("local", "latent", "line")
"""Views that tell independently of each other what is strange."""
CHUNK = 8192
"""Spectra calibrated at a time: their neighbours take 200 numbers each."""
USUAL_SHARE = 0.95
"""Share of the population that calls itself usual: more than are, so that what is left is clean."""


@dataclass(frozen=True)
class Scored:
    """Calibrated views of spectra.

    Attributes
    ----------
    raw : dict of str to ndarray
        Raw value of each view, by view name (``global``, ``local``, ``local_300``, ``latent``, ``line``).
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
        neighbours = finder.of(measured.snr, measured.z)
        deviation = line_deviations(measured, self.features)

        def standard(name: str, values: np.ndarray) -> np.ndarray:
            return self.views[name].standard(values, neighbours)

        raw = _raw_views(measured, deviation, self.latent, neighbours, self.meta["windows_kms"], standard)
        log_p = {name: self.views[name].log_p(values, neighbours) for name, values in raw.items()}
        score = combine(log_p, self.meta["weights"])
        return Scored(raw, log_p, score, self.null.log_p(score), deviation)


def fit_calibration(reference: Measured, scatters: Sequence[Scatter], meta: Mapping[str, Any]) -> Calibration:
    """Return the calibration on a reference population, which may hold a few per cent of anomalies and artefacts."""
    neighbours = Neighbours(reference.snr, reference.z, int(meta["neighbours"])).of(reference.snr, reference.z)
    widths = Widths(feature_names(), reference.width.astype(float), reference.width_error.astype(float))
    features = tuple(fit_features(widths, covariates(reference.norm, reference.z)))
    latent = reference.latent.astype(np.float32).astype(float)
    deviation = line_deviations(reference, features)
    raw = _raw_views(
        reference,
        deviation,
        latent,
        neighbours,
        meta["windows_kms"],
        lambda _, values: standardise(values, values, neighbours),
    )
    usual = probability(reference.evidence) < 0.5
    usual = usual if usual.any() else np.ones(len(reference), bool)
    first = {name: ViewCalibration.fit(raw[name], neighbours, usual).log_p(raw[name], neighbours) for name in EVIDENCE}
    views = {
        name: ViewCalibration.fit(values, neighbours, _is_normal(name, first, usual)) for name, values in raw.items()
    }
    log_p = {name: view.log_p(view.reference, neighbours) for name, view in views.items()}
    score = combine(log_p, meta["weights"])
    full = {**meta, "n_reference": len(reference)}
    null = NullLaw.fit(score[usual])
    return Calibration(
        full, tuple(scatters), reference.snr, reference.z, latent, features, views, null, float(score.max())
    )


def _raw_views(
    measured: Measured,
    deviation: np.ndarray,
    latent: np.ndarray,
    neighbours: np.ndarray,
    windows_kms: Sequence[float],
    standard: Callable[[str, np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
    """Return the raw value of every view; `standard` standardises the values of a named view."""
    names = [f"{kms:.0f}" for kms in windows_kms]
    raw = {"global": global_view(measured)}
    raw |= {f"local_{name}": values for name, values in zip(names, peak_views(measured).T, strict=True)}
    raw |= {f"extent_{name}": values for name, values in zip(names, extent_views(measured).T, strict=True)}
    scales = [f"extent_{names[index]}" for index in local_scales(windows_kms)]
    raw["local"] = np.mean([standard(name, raw[name]) for name in scales], axis=0)
    raw["latent"] = latent_view(measured, latent, neighbours)
    raw["line"] = line_view(deviation)
    return raw


def _is_normal(name: str, log_p: Mapping[str, np.ndarray], usual: np.ndarray) -> np.ndarray:
    """Return which spectra show what a view looks like without anomalies: those that the *other* views find usual.

    To leave out what the view itself finds strange would cut its own tail.
    """
    family = name if name in EVIDENCE else "local"
    strange = -np.sum([values for other, values in log_p.items() if other != family], axis=0)
    return usual & (strange <= np.quantile(strange[usual], USUAL_SHARE))
