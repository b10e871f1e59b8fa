"""Small `spectra` tables of quasar-like spectra, written as extract writes them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# importlib mode does not put this folder on the path, and what is imported from it is no test
sys.path.append(str(Path(__file__).parents[1] / "foundation"))

from qad.config import Config, load_config
from qad.schema import N_WAVE, SPECTRA, WAVE_START, WAVE_STEP
from qad.storage.parquet import make_table, write_table
from qad.storage.provenance import Provenance

WAVE = WAVE_START + WAVE_STEP * np.arange(N_WAVE)


def quasar_columns(n_rows: int, seed: int = 0, first_targetid: int = 39627700000000000) -> dict[str, Any]:
    """Columns of `spectra`: power laws with noise and a few masked pixels, redshifts 0.5 to 4."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.5, 4.0, n_rows)
    level = rng.lognormal(0.5, 0.7, n_rows)
    ivar = np.full((n_rows, N_WAVE), 4.0, np.float32)
    ivar[rng.uniform(size=ivar.shape) < 0.02] = 0
    shape = (WAVE / (1 + z[:, None]) / 2500.0) ** -1.5
    noise = rng.normal(0, 0.5, ivar.shape)
    flux = np.where(ivar > 0, level[:, None] * shape + noise, 0).astype(np.float32)
    return {
        "targetid": np.sort(first_targetid + rng.choice(10**6, n_rows, replace=False)),
        "survey": ["main"] * n_rows,
        "program": ["dark"] * n_rows,
        "healpix": np.full(n_rows, 100 + seed, np.int32),
        "ra": rng.uniform(0, 360, n_rows),
        "dec": rng.uniform(-30, 80, n_rows),
        "z": z,
        "zwarn": np.zeros(n_rows, np.int64),
        "spectype": ["QSO"] * n_rows,
        "coadd_fiberstatus": np.zeros(n_rows, np.int32),
        "snr": np.full(n_rows, 3.0, np.float32),
        "ebv": np.full(n_rows, 0.05, np.float32),
        "n_good": (ivar > 0).sum(axis=1).astype(np.int32),
        "flux": flux,
        "ivar": ivar,
    }


def write_spectra(path: Path, columns: dict[str, Any]) -> None:
    """Write a `spectra` table."""
    provenance = Provenance("extract", {}, release="dr1", specprod="iron")
    write_table(path, make_table(SPECTRA, columns), SPECTRA, provenance)


@pytest.fixture
def quasars() -> Callable[..., dict[str, Any]]:
    """The maker of columns."""
    return quasar_columns


@pytest.fixture
def put_spectra() -> Callable[[Path, dict[str, Any]], None]:
    """The writer of tables."""
    return write_spectra


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work directory with three healpix of 20, 5 and 0 quasars."""
    for healpix, n_rows in enumerate((20, 5, 0)):
        columns = quasar_columns(n_rows, seed=healpix, first_targetid=39627700000000000 + healpix * 10**7)
        write_spectra(tmp_path / "spectra" / f"main-dark-{100 + healpix}.parquet", columns)
    return tmp_path


@pytest.fixture
def configured() -> Callable[..., Config]:
    """The configuration of a work directory, with 4 shards unless a key of ``build_grid`` says else."""

    def make(root: Path, **keys: Any) -> Config:
        overrides = {f"build_grid.{key}": value for key, value in ({"shards": 4} | keys).items()}
        return load_config(None, {"paths.root": str(root), **overrides}, environ={})

    return make
