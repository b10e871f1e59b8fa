"""Checkpoints: all that a training run needs to go on as if it had not stopped.

::

    checkpoints/step-00012000/checkpoint.json   hashes, position, history
                              state.npz         parameters, optimiser, best parameters, factor model
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qad.errors import InputError
from qad.models.directory import read_arrays, write_arrays
from qad.storage.atomic import atomic_folder
from qad.storage.provenance import hash_document, hash_file

FORMAT = 1
KEPT = 2
_STATE = "state.npz"
_INFO = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """A moment of a training run.

    Attributes
    ----------
    step : int
        Steps done.
    arrays : mapping of str to ndarray
    info : mapping
        JSON types: epoch, position in the epoch, history.
    """

    step: int
    arrays: Mapping[str, np.ndarray]
    info: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a model.

    Attributes
    ----------
    folder : Path
    run : str
        Hash of the configuration, data and program versions: only checkpoints of the same run are taken up.
    """

    folder: Path
    run: str

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint whole, then remove all but the last two."""
        path = self.folder / f"step-{checkpoint.step:08d}"
        with atomic_folder(path) as partial:
            write_arrays(partial / _STATE, checkpoint.arrays)
            document = {
                "format": FORMAT,
                "run": self.run,
                "step": checkpoint.step,
                "sha256": hash_file(partial / _STATE),
                **checkpoint.info,
            }
            document["checkpoint_hash"] = hash_document(document)
            (partial / _INFO).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
        for old in self._folders()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def last(self) -> Checkpoint | None:
        """Return the last checkpoint of this run, None if there is none.

        Raises
        ------
        InputError
            If the last one is damaged; the one before is taken up once it is deleted.
        """
        folders = self._folders()
        return self._read(folders[-1]) if folders else None

    def clear(self) -> None:
        """Remove all checkpoints: a run that starts anew must not mix with them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    def _read(self, folder: Path) -> Checkpoint | None:
        try:
            info = json.loads((folder / _INFO).read_bytes())
            if not isinstance(info, dict):
                raise InputError(folder / _INFO, f"not a checkpoint; {_advice(folder)}")
            recorded = info.pop("checkpoint_hash", None)
        except (OSError, ValueError) as error:
            raise InputError(folder, f"damaged checkpoint: {error}; {_advice(folder)}") from None
        if type(info.get("format")) is int and info["format"] > FORMAT:
            raise InputError(folder / _INFO, f"format {info['format']}, this qad reads up to {FORMAT}; update qad")
        if recorded != hash_document(info):
            raise InputError(folder / _INFO, f"damaged: its own hash does not agree; {_advice(folder)}")
        if info["run"] != self.run:
            return None
        try:
            arrays = read_arrays(folder / _STATE, info["sha256"])
        except InputError as error:
            raise InputError(error.path, f"{error.reason}; {_advice(folder)}") from None
        return Checkpoint(int(info["step"]), arrays, info)


def _advice(folder: Path) -> str:
    return f"delete {folder} to go on from the checkpoint before it, or start anew with --no-resume"


def pack_tree(prefix: str, tree: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a pytree by name."""
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {f"{prefix}{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}


def unpack_tree(prefix: str, arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """Return a pytree of the form of `like` from the arrays that :func:`pack_tree` gave.

    Raises
    ------
    ValueError
        If an array is missing or of another shape or type.
    """
    import jax

    leaves, tree = jax.tree_util.tree_flatten_with_path(like)
    values = []
    for path, leaf in leaves:
        name = f"{prefix}{jax.tree_util.keystr(path)}"
        array = arrays.get(name)
        if array is None or array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise ValueError(f"array {name} is missing or of another architecture")
        values.append(array)
    return jax.tree_util.tree_unflatten(tree, values)
