"""The flat cache of the grid: its vectors as two plain arrays that are memory-mapped, rebuilt whenever the grid changes.

Parquet's fixed-size lists read at a few hundred MB/s, a mapped array at memory speed: training and scoring read this.
The grid table stays the truth; the cache can be deleted at any time.

Its folder is named by a hash of all that went into it, so that changed shards, another ``grid.json`` or another version of
qad's cache never meet an old one.  Several processes may build it at once: each writes aside, the first to finish names it.

The vectors are float32 as in the table.  float16 would take half of the space, but numpy widens it more slowly than it reads
float32 (``benchmarks/arrays.py``: a quarter of the rate), and the ivar of the brightest quasars overflows it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.errors import InputError
from qad.schema import GRID
from qad.storage.atomic import atomic_folder, check_space, remove_stale_parts
from qad.storage.parquet import read_batches, read_frame, vectors
from qad.storage.provenance import hash_document
from qad.storage.receipts import hashes_of, stat_inputs, write_receipt
from qad.workspace import Workspace

if TYPE_CHECKING:
    import polars as pl

CACHE_FORMAT = 1
BUILD_ROWS = 1024
"""Spectra in memory at a time while the cache is built, whatever the size of the shards."""
ATTEMPTS = 3
"""Times that a cache is built before we give up: another process may remove it in between."""
SCALARS = tuple(column.name for column in GRID.columns if not column.is_vector)
_NEEDED = ("loglam0", "dloglam", "n_rest", "n_obs", "geometry_hash")


@dataclass(frozen=True)
class GridCache:
    """The grid as training and scoring read it; row i of every member is the same spectrum.

    Attributes
    ----------
    flux, ivar : ndarray, shape (n_spectra, n_obs), float32
        Normalised flux and its inverse variance, mapped from disk and read-only; ``ivar == 0``: do not use.
    table : polars.DataFrame
        The scalar columns of the grid table.
    grid : dict
        ``grid.json``.
    key : str
        SHA-256 that stands for the content of all shards and of ``grid.json``.
    """

    flux: np.ndarray
    ivar: np.ndarray
    table: pl.DataFrame
    grid: dict[str, Any]
    key: str

    @property
    def geometry_hash(self) -> str:
        """Identifies the wavelength grid and the normalisation, not the data."""
        return str(self.grid["geometry_hash"])

    @property
    def n_rest(self) -> int:
        """Pixels of the whole grid."""
        return int(self.grid["n_rest"])

    @property
    def n_obs(self) -> int:
        """Pixels of a window."""
        return int(self.grid["n_obs"])

    @property
    def start(self) -> np.ndarray:
        """First grid pixel of each window, int32."""
        return self.table["start"].to_numpy()

    def __len__(self) -> int:
        return int(self.flux.shape[0])


def open_grid(workspace: Workspace, verify: bool = False) -> GridCache:
    """Open the grid, (re)building its flat cache where it is missing or older than the shards.

    Parameters
    ----------
    workspace : Workspace
    verify : bool
        Hash the shards again instead of trusting their sizes and times.

    Raises
    ------
    InputError
        If there is no grid, a shard is missing or damaged, or a value is not finite.
    """
    grid = read_grid_json(workspace.grid_json)
    shards = find_shards(workspace)
    key = _key(workspace, shards, verify)
    folder = workspace.grid / "cache" / key[:32]
    for _ in range(ATTEMPTS):
        cache = _open(folder, grid, key)
        if cache is not None:
            return cache
        _build(folder, shards, grid, key)
    raise InputError(folder, "the cache is removed as soon as it is built: another process works on another grid here")


def reopen_grid(workspace: Workspace, key: str) -> GridCache:
    """Open the flat cache that :func:`open_grid` found or built, by its key, without looking at the shards.

    Raises
    ------
    InputError
        If it is gone.
    """
    folder = workspace.grid / "cache" / key[:32]
    cache = _open(folder, read_grid_json(workspace.grid_json), key)
    if cache is None:
        raise InputError(folder, "the grid's cache is gone; run again")
    return cache


def read_grid_json(path: Path) -> dict[str, Any]:
    """Return the description of the grid.

    Raises
    ------
    InputError
        If it is missing, not JSON, or lacks a key.
    """
    if not path.is_file():
        raise InputError(path, "no grid here; run `qad build-grid` first")
    try:
        grid = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(path, f"not JSON: {error}; run `qad build-grid --force`") from None
    missing = [key for key in _NEEDED if not isinstance(grid, dict) or key not in grid]
    if missing:
        raise InputError(path, f"lacks {', '.join(missing)}; run `qad build-grid --force`")
    return dict(grid)


def find_shards(workspace: Workspace) -> list[Path]:
    """Return the files of the grid table in order.

    Raises
    ------
    InputError
        If there is none, or the set is not complete.
    """
    found = sorted(workspace.grid.glob("grid-*-of-*.parquet"))
    if not found:
        raise InputError(workspace.grid, "no grid here; run `qad build-grid` first")
    totals = {path.stem.rpartition("-")[2] for path in found}
    if len(totals) > 1 or len(found) != int(totals.pop()):
        raise InputError(workspace.grid, f"{len(found)} shards of an incomplete set; run `qad build-grid` again")
    return found


def _key(workspace: Workspace, shards: list[Path], verify: bool) -> str:
    receipt = workspace.receipt("flatcache", "grid")
    hashes = hashes_of(shards, receipt, verify)
    write_receipt(receipt, shards, hashes)
    return hash_document(
        {"format": CACHE_FORMAT, "grid": json.loads(workspace.grid_json.read_bytes()), "shards": hashes}
    )


def _build(folder: Path, shards: list[Path], grid: dict[str, Any], key: str) -> None:
    """Write the cache, a few spectra at a time."""
    table = read_frame(shards, GRID, SCALARS)
    shape = (table.height, int(grid["n_obs"]))
    before = stat_inputs(shards)
    with atomic_folder(folder, keep=lambda: _open(folder, grid, key) is not None) as partial:
        check_space(folder, 8 * shape[0] * shape[1])
        with (partial / "flux.f32").open("wb") as flux, (partial / "ivar.f32").open("wb") as ivar:
            for shard in shards:
                for rows in read_batches(shard, GRID, ["targetid", "flux", "ivar"], BUILD_ROWS):
                    for name, handle in (("flux", flux), ("ivar", ivar)):
                        handle.write(_checked(shard, rows, name, shape[1]).data)
        table.write_ipc(partial / "table.arrow")
        (partial / "cache.json").write_text(json.dumps({"format": CACHE_FORMAT, "shape": shape}) + "\n")
        if stat_inputs(shards) != before:
            raise InputError(folder.parent.parent, "the grid was changed while it was read; run again")
    remove_stale_parts(folder.parent)
    for other in folder.parent.iterdir():
        if other != folder and not other.name.startswith("."):
            shutil.rmtree(other, ignore_errors=True)


def _checked(shard: Path, table: Any, name: str, n_obs: int) -> np.ndarray:
    values = np.ascontiguousarray(vectors(table, name), np.float32)
    if values.shape[1] != n_obs:
        raise InputError(shard, f"windows of {values.shape[1]} pixels, grid.json says {n_obs}", where=name)
    wrong = ~np.isfinite(values).all(axis=1)
    if name == "ivar":
        wrong |= (values < 0).any(axis=1)
    if wrong.any():
        targetid = table.column("targetid")[int(np.argmax(wrong))].as_py()
        raise InputError(
            shard, "a value is not finite or an ivar is negative; run `qad build-grid --force`", f"TARGETID {targetid}"
        )
    return values


def _open(folder: Path, grid: dict[str, Any], key: str) -> GridCache | None:
    """Return the cache, or None if it is not there or not whole: then it is built again."""
    import polars as pl

    try:
        shape = tuple(json.loads((folder / "cache.json").read_bytes())["shape"])
        sizes = {name: (folder / f"{name}.f32").stat().st_size for name in ("flux", "ivar")}
        if any(size != 4 * shape[0] * shape[1] for size in sizes.values()):
            return None
        table = pl.read_ipc(folder / "table.arrow")
        if table.height != shape[0]:
            return None
        if shape[0] == 0:
            empty = np.empty(shape, np.float32)
            return GridCache(empty, empty, table, grid, key)
        mapped = {name: np.memmap(folder / f"{name}.f32", np.float32, "r", shape=shape) for name in sizes}
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError):
        return None
    return GridCache(mapped["flux"], mapped["ivar"], table, grid, key)
