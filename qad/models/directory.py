"""Model directories: ``model.json`` and plain arrays; nothing in them is ever executed.

``weights.npz`` holds arrays by path and is read without pickle; its hash, and the name and shape of each array, must agree with
``model.json`` before anything is used.
"""

from __future__ import annotations

import importlib.metadata
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qad.errors import InputError
from qad.models.base import SpectrumModel
from qad.models.decoder import Decoder
from qad.models.layers import Weights
from qad.models.sizes import Sizes
from qad.models.trained import build_model
from qad.storage.provenance import hash_document, hash_file

FORMAT = 1
MODEL_JSON = "model.json"
WEIGHTS = "weights.npz"
HISTORY = "history.parquet"


@dataclass(frozen=True)
class StoredModel:
    """A model directory, read and checked.

    Attributes
    ----------
    sizes : Sizes
    weights : mapping of str to ndarray
    info : dict
        ``model.json``.
    """

    sizes: Sizes
    weights: Weights
    info: dict[str, Any]

    @property
    def grid_hash(self) -> str:
        """Identifies the geometry of the grid that the model was trained on."""
        return str(self.info["grid_hash"])


def load_model(folder: Path) -> SpectrumModel:
    """Return the model of a directory, ready to infer.

    Raises
    ------
    InputError
        If the directory is missing, damaged, or of a newer qad.
    """
    stored = read_model(folder)
    return build_model(stored.sizes, stored.weights, stored.grid_hash)


def load_decoder(folder: Path) -> Decoder:
    """Return the decoder of a model directory, in numpy; JAX is not loaded.

    Raises
    ------
    InputError
        If the directory is missing, damaged, or of a newer qad.
    """
    stored = read_model(folder)
    return Decoder(stored.sizes, stored.weights, stored.grid_hash)


def read_model(folder: Path) -> StoredModel:
    """Read and check a model directory.

    Raises
    ------
    InputError
        If the directory is missing, damaged, or of a newer qad.
    """
    info = read_info(folder)
    path = folder / MODEL_JSON
    try:
        sizes = Sizes.from_json(info["sizes"])
    except (ValueError, TypeError) as error:
        raise InputError(path, str(error), "sizes") from None
    if sizes.arch != info["arch"]:
        raise InputError(path, f"is of architecture {info['arch']!r}, its sizes of {sizes.arch!r}", "arch")
    weights = read_arrays(folder / WEIGHTS, str(info["files"][WEIGHTS]))
    check_shapes(folder / WEIGHTS, weights, sizes.shapes())
    return StoredModel(sizes, weights, info)


def read_info(folder: Path) -> dict[str, Any]:
    """Return ``model.json`` of a model directory, without looking at the weights.

    Raises
    ------
    InputError
        If it is missing, damaged, or of a newer qad.
    """
    path = folder / MODEL_JSON
    if not path.is_file():
        raise InputError(folder, "no model here; run `qad train` first, or name the folder that holds model.json")
    try:
        info = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(path, f"not JSON: {error}") from None
    if not isinstance(info, dict) or type(info.get("format")) is not int:
        raise InputError(path, "not the description of a model")
    if info["format"] > FORMAT:
        raise InputError(path, f"format {info['format']}, this qad reads up to {FORMAT}; update qad")
    missing = [key for key in ("arch", "sizes", "grid_hash", "files", "model_hash") if key not in info]
    if missing or not isinstance(info["files"], dict) or WEIGHTS not in info["files"]:
        raise InputError(path, f"lacks {', '.join(missing) or f'the hash of {WEIGHTS}'}")
    if info["model_hash"] != model_hash(info):
        raise InputError(path, "was changed after it was written: its own hash does not agree")
    return info


def write_model(
    folder: Path, sizes: Sizes, weights: Weights, grid: Mapping[str, Any], more: Mapping[str, Any]
) -> dict[str, Any]:
    """Fill a folder with ``weights.npz`` and, last, ``model.json``; return the latter.

    Parameters
    ----------
    folder : Path
        Exists; the caller gives it its final name.
    sizes : Sizes
    weights : mapping of str to ndarray
    grid : mapping
        ``grid.json`` of the grid that the model was trained on.
    more : mapping
        Further entries: provenance, configuration, validation loss.
    """
    write_arrays(folder / WEIGHTS, {name: weights[name] for name in sizes.shapes()})
    geometry = ("frame", "loglam0", "dloglam", "n_rest", "n_obs", "normalisation", "deredden", "r_v")
    info: dict[str, Any] = {
        "format": FORMAT,
        "arch": sizes.arch,
        "sizes": sizes.as_json(),
        "grid_hash": grid.get("geometry_hash", ""),
        "grid": {key: grid[key] for key in geometry if key in grid},
        "versions": {name: importlib.metadata.version(name) for name in ("flax", "jax", "numpy")},
        **more,
        "files": {WEIGHTS: hash_file(folder / WEIGHTS)},
    }
    info["model_hash"] = model_hash(info)
    (folder / MODEL_JSON).write_text(json.dumps(info, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return info


def model_hash(info: Mapping[str, Any]) -> str:
    """Return the SHA-256 that identifies a model: of everything that ``model.json`` says but this hash itself."""
    return hash_document({key: value for key, value in info.items() if key != "model_hash"})


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as an uncompressed npz; the same arrays give the same bytes."""
    np.savez(path, allow_pickle=False, **{name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})


def read_arrays(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Read an npz whose bytes have this hash.

    Raises
    ------
    InputError
        If it is missing, its hash differs, or it holds anything but plain arrays.
    """
    if not path.is_file():
        raise InputError(path, "missing from the model directory")
    found = hash_file(path)
    if found != sha256:
        raise InputError(path, f"damaged: SHA-256 {found[:12]}…, recorded was {sha256[:12]}…")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("a member that is no array")  # numpy hands such bytes out as they are
        return arrays
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(path, f"holds something other than plain arrays: {str(error).splitlines()[0]}") from None


def check_shapes(path: Path, weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise InputError unless the arrays are float32 or float64 of these names and shapes, and finite."""
    odd = sorted(set(weights) ^ set(shapes))
    if odd:
        raise InputError(path, f"array {odd[0]} is missing or unknown: of another architecture")
    for name, shape in shapes.items():
        array = weights[name]
        if array.shape != shape or array.dtype != np.float32:
            raise InputError(path, f"is {array.dtype}{list(array.shape)}, expected float32{list(shape)}", name)
        if not np.isfinite(array).all():
            raise InputError(path, "holds values that are not finite", name)
