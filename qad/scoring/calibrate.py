"""The calibration: everything that is learned from a population, applied to any spectrum, kept in one file.

``scores/<name>.calibration.npz`` holds plain arrays and one JSON text; it lets a dozen spectra be judged by the population that
their model was trained on.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qad.errors import InputError
from qad.scoring.artefacts import probability
from qad.scoring.combine import NullLaw, combine
from qad.scoring.conditional import Neighbours, Tail, ViewCalibration, standardise
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
from qad.storage.atomic import write_bytes

FORMAT = 1
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
        ``format``, ``geometry_hash``, ``model`` (its hash), ``windows_kms``, ``neighbours``, ``weights``, ``n_reference``.
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
    full = {**meta, "format": FORMAT, "n_reference": len(reference)}
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


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration, whole; the same calibration gives the same bytes."""
    meta = {
        **calibration.meta,
        "views": {name: _tail_json(view.tail) for name, view in calibration.views.items()},
        "null": {"shape": calibration.null.shape, "scale": calibration.null.scale},
        "highest": calibration.highest,
        "scatters": [{"width": item.width, "bin_pixels": item.bin_pixels} for item in calibration.scatters],
    }
    arrays = {
        "meta": np.frombuffer(json.dumps(meta, sort_keys=True).encode(), np.uint8),
        "snr": calibration.snr,
        "z": calibration.z,
        "latent": calibration.latent.astype(np.float32),
        "feature_coef": np.stack([item.coef for item in calibration.features]),
        "feature_shape": np.array([[item.floor, item.low, item.high] for item in calibration.features]),
        "feature_limits": np.stack([item.limits for item in calibration.features]),
    }
    for index, scatter in enumerate(calibration.scatters):
        arrays[f"tau2_{index}"] = scatter.tau2
    for name, view in sorted(calibration.views.items()):
        arrays[f"view_{name}"] = view.reference
        arrays[f"tail_{name}"] = np.stack([view.tail.values, view.tail.chance])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def load_calibration(path: Path) -> Calibration:
    """Read a calibration.

    Raises
    ------
    InputError
        If the file is missing or damaged, or of a newer format.
    """
    if not path.is_file():
        raise InputError(path, "no such calibration; `qad score` writes one beside its scores")
    try:
        # numpy leaves a file that it cannot read open
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = json.loads(arrays["meta"].tobytes())
        if int(meta["format"]) > FORMAT:
            raise InputError(path, f"calibration format {meta['format']}, this qad reads up to {FORMAT}; update qad")
        return _from_arrays(meta, arrays)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(path, f"not a readable calibration: {type(error).__name__}: {error}") from None


def _from_arrays(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> Calibration:
    scatters = tuple(
        Scatter(int(item["width"]), int(item["bin_pixels"]), arrays[f"tau2_{index}"])
        for index, item in enumerate(meta.pop("scatters"))
    )
    features = tuple(
        FeaturePopulation(float(floor), coef, float(low), float(high), limits)
        for coef, (floor, low, high), limits in zip(
            arrays["feature_coef"], arrays["feature_shape"], arrays["feature_limits"], strict=True
        )
    )
    views = {
        name: ViewCalibration(
            arrays[f"view_{name}"],
            Tail(
                arrays[f"tail_{name}"][0],
                arrays[f"tail_{name}"][1],
                float(tail["threshold"]),
                float(tail["scale"]),
                float(tail["shape"]),
            ),
        )
        for name, tail in meta.pop("views").items()
    }
    latent = arrays["latent"].astype(float)
    null = NullLaw(**{key: float(value) for key, value in meta.pop("null").items()})
    highest = float(meta.pop("highest"))
    return Calibration(meta, scatters, arrays["snr"], arrays["z"], latent, features, views, null, highest)


def _tail_json(tail: Tail) -> dict[str, float]:
    return {"threshold": tail.threshold, "scale": tail.scale, "shape": tail.shape}
