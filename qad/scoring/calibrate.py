"""The calibration: everything that is learned from a population, applied to any spectrum, kept in one file.

``scores/<name>.calibration.npz`` holds plain arrays and one JSON text; it lets a dozen spectra be judged by the population that
their model was trained on.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qad.errors import InputError
from qad.scoring.combine import combine
from qad.scoring.conditional import Neighbours, Tail, ViewCalibration
from qad.scoring.population import FeaturePopulation, covariates, fit_features
from qad.scoring.residuals import Scatter
from qad.scoring.views import (
    Measured,
    extent_views,
    global_view,
    latent_view,
    line_deviations,
    line_view,
    peak_views,
)
from qad.scoring.widths import Widths, feature_names
from qad.storage.atomic import write_bytes

FORMAT = 1
MAIN_VIEWS = ("global", "local", "latent", "line")


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
    """

    meta: Mapping[str, Any]
    scatters: tuple[Scatter, ...]
    snr: np.ndarray
    z: np.ndarray
    latent: np.ndarray
    features: tuple[FeaturePopulation, ...]
    views: Mapping[str, ViewCalibration]

    @property
    def n_reference(self) -> int:
        """Spectra of the reference population."""
        return len(self.snr)

    def apply(self, measured: Measured) -> Scored:
        """Return calibrated views and score of spectra."""
        neighbours = Neighbours(self.snr, self.z, int(self.meta["neighbours"])).of(measured.snr, measured.z)
        learned = _Learned(self.latent, self.features, self.meta["windows_kms"], self.meta["weights"])
        return _score(measured, neighbours, learned, lambda name, _values: self.views[name])


def fit_calibration(reference: Measured, scatters: Sequence[Scatter], meta: Mapping[str, Any]) -> Calibration:
    """Return the calibration on a reference population."""
    neighbours = Neighbours(reference.snr, reference.z, int(meta["neighbours"])).of(reference.snr, reference.z)
    widths = Widths(feature_names(), reference.width, reference.width_error)
    features = tuple(fit_features(widths, covariates(reference.norm, reference.z)))
    latent = reference.latent.astype(np.float32).astype(float)
    learned = _Learned(latent, features, meta["windows_kms"], meta["weights"])
    views: dict[str, ViewCalibration] = {}

    def learn(name: str, values: np.ndarray) -> ViewCalibration:
        views[name] = ViewCalibration.fit(values, neighbours)
        return views[name]

    _score(reference, neighbours, learned, learn)
    full = {**meta, "format": FORMAT, "n_reference": len(reference)}
    return Calibration(full, tuple(scatters), reference.snr, reference.z, latent, features, views)


@dataclass(frozen=True)
class _Learned:
    latent: np.ndarray
    features: Sequence[FeaturePopulation]
    windows_kms: Sequence[float]
    weights: Mapping[str, float]


def _score(measured: Measured, neighbours: np.ndarray, learned: _Learned, calibration: Any) -> Scored:
    """Compute every view in turn; `calibration` gives (or learns from the values) how a view is calibrated."""
    raw: dict[str, np.ndarray] = {}
    log_p: dict[str, np.ndarray] = {}

    def take(name: str, values: np.ndarray) -> np.ndarray:
        raw[name] = values
        log_p[name] = calibration(name, values).log_p(values, neighbours)
        return log_p[name]

    take("global", global_view(measured))
    names = [f"{kms:.0f}" for kms in learned.windows_kms]
    peaks = [take(f"local_{name}", values) for name, values in zip(names, peak_views(measured).T, strict=True)]
    extents = [take(f"extent_{name}", values) for name, values in zip(names, extent_views(measured).T, strict=True)]
    take("local", -np.min([*peaks, *extents], axis=0))
    take("latent", latent_view(measured, learned.latent, neighbours))
    deviation = line_deviations(measured, learned.features)
    take("line", line_view(deviation))
    score = combine(log_p, learned.weights)
    log_p_score = calibration("score", score).log_p(score, neighbours)
    return Scored(raw, log_p, score, log_p_score, deviation)


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration, whole; the same calibration gives the same bytes."""
    meta = {
        **calibration.meta,
        "views": {name: _tail_json(view.tail) for name, view in calibration.views.items()},
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
    for name, view in calibration.views.items():
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
        with np.load(path, allow_pickle=False) as stored:
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
    return Calibration(meta, scatters, arrays["snr"], arrays["z"], latent, features, views)


def _tail_json(tail: Tail) -> dict[str, float]:
    return {"threshold": tail.threshold, "scale": tail.scale, "shape": tail.shape}
