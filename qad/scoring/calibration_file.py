"""A calibration in one file, plain arrays and one JSON text.

``scores/<name>.calibration.npz`` lets a dozen spectra be judged by the population that their model was trained on.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from qad.errors import InputError
from qad.scoring.calibrate import Calibration
from qad.scoring.combine import NullLaw
from qad.scoring.conditional import Tail, TailField, ViewCalibration
from qad.scoring.linelaw import LineLaw
from qad.scoring.matcher import ShapeSpread
from qad.scoring.population import FeaturePopulation
from qad.scoring.residuals import Scatter
from qad.storage.atomic import write_bytes

FORMAT = 2


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration, whole; the same calibration gives the same bytes."""
    meta = {
        **calibration.meta,
        "format": FORMAT,
        "views": sorted(calibration.views),
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
        "line_scale": calibration.lines.scale,
        "line_correlation": calibration.lines.correlation,
        "shapes_objects": calibration.shapes.objects,
        "shapes_faults": calibration.shapes.faults,
    }
    for index, scatter in enumerate(calibration.scatters):
        arrays[f"tau2_{index}"] = scatter.tau2
    for name, view in sorted(calibration.views.items()):
        arrays[f"view_{name}"] = view.reference
        arrays |= _tail_arrays(name, view.tail)
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
        if int(meta["format"]) != FORMAT:
            cure = "update qad" if int(meta["format"]) > FORMAT else "run `qad score` again where it was made"
            raise InputError(path, f"calibration format {meta['format']}, this qad reads {FORMAT}; {cure}")
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
    views = {name: ViewCalibration(arrays[f"view_{name}"], _tail_field(name, arrays)) for name in meta.pop("views")}
    lines = LineLaw(arrays["line_scale"], arrays["line_correlation"])
    latent = arrays["latent"].astype(float)
    null = NullLaw(**{key: float(value) for key, value in meta.pop("null").items()})
    highest = float(meta.pop("highest"))
    return Calibration(
        meta,
        scatters,
        arrays["snr"],
        arrays["z"],
        latent,
        features,
        lines,
        ShapeSpread(arrays["shapes_objects"], arrays["shapes_faults"]),
        views,
        null,
        highest,
    )


def _tail_arrays(name: str, field: TailField) -> dict[str, np.ndarray]:
    """Return the arrays of a field of tails: knots, quantiles, chances, and the law above them."""
    rows = [tail for row in field.tails for tail in row]
    return {
        f"knots_{name}_snr": field.snr,
        f"knots_{name}_z": field.z,
        f"tail_{name}": np.stack([tail.values for tail in rows]),
        f"chance_{name}": rows[0].chance,
        f"law_{name}": np.array([[tail.threshold, tail.scale, tail.shape] for tail in rows]),
    }


def _tail_field(name: str, arrays: dict[str, np.ndarray]) -> TailField:
    snr, z, chance = arrays[f"knots_{name}_snr"], arrays[f"knots_{name}_z"], arrays[f"chance_{name}"]
    tails = [
        Tail(values, chance, *(float(number) for number in law))
        for values, law in zip(arrays[f"tail_{name}"], arrays[f"law_{name}"], strict=True)
    ]
    return TailField(snr, z, tuple(tuple(tails[i * len(z) : (i + 1) * len(z)]) for i in range(len(snr))))
