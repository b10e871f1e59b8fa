"""A small grid of spectra drawn from a known factor model: what training tests learn from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qad.schema import GRID
from qad.storage.atomic import write_json
from qad.storage.parquet import make_table, write_table
from qad.storage.provenance import Provenance, hash_document
from qad.workspace import Workspace


@dataclass(frozen=True)
class Toy:
    """Spectra and the model that made them."""

    flux: np.ndarray
    ivar: np.ndarray
    start: np.ndarray
    mean: np.ndarray
    loading: np.ndarray
    psi: np.ndarray
    latent: np.ndarray


def smooth_random(rng: np.random.Generator, n: int, length: int, width: float) -> np.ndarray:
    """Return smooth random curves of unit scatter, shape (n, length)."""
    from scipy.ndimage import gaussian_filter1d

    curves = gaussian_filter1d(rng.standard_normal((n, length)), width, axis=1, mode="nearest")
    return curves / curves.std(axis=1, keepdims=True)


def make_toy(n: int = 600, n_rest: int = 400, n_obs: int = 160, k: int = 3, seed: int = 1, snr: float = 8.0) -> Toy:
    """Draw spectra from mean + loading h + intrinsic scatter + noise, with masked pixels."""
    rng = np.random.default_rng(seed)
    mean = 1 + 0.3 * smooth_random(rng, 1, n_rest, n_rest / 20)[0]
    loading = 0.2 * smooth_random(rng, k, n_rest, n_rest / 15).T
    psi = 0.05**2 * (1 + (np.arange(n_rest) > n_rest / 2))
    start = rng.integers(0, n_rest - n_obs + 1, n).astype(np.int32)
    latent = rng.standard_normal((n, k))
    pixels = start[:, None] + np.arange(n_obs)
    truth = mean[pixels] + np.einsum("npk,nk->np", loading[pixels], latent)
    ivar = (snr * rng.lognormal(0, 0.5, (n, 1)) * np.ones((n, n_obs))) ** 2
    ivar[rng.random((n, n_obs)) < 0.05] = 0
    noise = rng.standard_normal((n, n_obs)) * np.sqrt(psi[pixels] + 1 / np.where(ivar > 0, ivar, 1))
    flux = np.where(ivar > 0, truth + noise, 0)
    return Toy(flux.astype(np.float32), ivar.astype(np.float32), start, mean, loading, psi, latent)


def write_toy_grid(root: Path, toy: Toy, shards: int = 3, dloglam: float = 2e-3) -> Workspace:
    """Write a toy as the grid table of a work directory."""
    workspace = Workspace(root)
    n, n_obs = toy.flux.shape
    geometry = {
        "frame": "rest",
        "loglam0": float(np.log10(900.0)),
        "dloglam": dloglam,
        "n_rest": len(toy.mean),
        "n_obs": n_obs,
        "normalisation": "toy",
        "deredden": False,
    }
    targetid = np.arange(39_627_000_000_000_000, 39_627_000_000_000_000 + n, dtype=np.int64)
    for shard in range(shards):
        rows = np.arange(n)[np.arange(n) % shards == shard]
        columns = {
            "targetid": targetid[rows],
            "survey": ["main"] * len(rows),
            "program": ["dark"] * len(rows),
            "healpix": np.full(len(rows), 23040, np.int32),
            "ra": rows * 0.01,
            "dec": rows * -0.01,
            "z": 3600.0 / (10 ** (geometry["loglam0"] + toy.start[rows] * dloglam)) - 1,
            "zwarn": np.zeros(len(rows), np.int64),
            "snr": np.sqrt(np.median(toy.ivar[rows], axis=1)),
            "ebv": np.zeros(len(rows), np.float32),
            "split": np.where(rows % 10 == 0, 1, 0).astype(np.uint8),
            "norm": np.ones(len(rows), np.float32),
            "start": toy.start[rows],
            "coverage": (toy.ivar[rows] > 0).mean(axis=1).astype(np.float32),
            "flux": toy.flux[rows],
            "ivar": toy.ivar[rows],
        }
        table = make_table(GRID, columns, n_obs=n_obs)
        write_table(workspace.grid_file(shard, shards), table, GRID, Provenance("build-grid", {}))
    grid = {
        "format": 1,
        **geometry,
        "r_v": 3.1,
        "geometry_hash": hash_document(geometry),
        "counts": {"in": n, "out": n},
        "n_spectra": n,
        "shards": shards,
        "inputs_hash": hash_document(json.loads(json.dumps(targetid.tolist()))),
    }
    write_json(workspace.grid_json, grid)
    return workspace
