"""A work directory with candidates, and catalogues around them in every format."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qad.schema import SCORES
from qad.storage.parquet import make_table, write_table
from qad.storage.provenance import Provenance
from qad.workspace import Workspace


def write_scores(root: Path, ra: np.ndarray, dec: np.ndarray, name: str = "default") -> Path:
    """Write a `scores` table of candidates at these positions, ranked in their order; TARGETIDs are made large and odd."""
    n = len(ra)
    columns = {
        "rank": np.arange(1, n + 1),
        "targetid": 39_627_000_000_000_001 + 2 * np.arange(n) if n else np.empty(0, np.int64),
        "survey": ["main"] * n,
        "program": ["dark"] * n,
        "healpix": np.full(n, 47, np.int32),
        "ra": np.asarray(ra, float),
        "dec": np.asarray(dec, float),
        "z": np.full(n, 2.0),
        "snr": np.full(n, 3.0, np.float32),
        "score": np.linspace(9, 1, n),
        "p_value": np.linspace(0, 1, n),
        "artefact": np.zeros(n, np.float32),
        "reason": ["a line"] * n,
        "chi2_dof": np.ones(n, np.float32),
        "n_good": np.full(n, 2000, np.int32),
        "flags": np.zeros(n, np.uint32),
        "model": [name] * n,
        "latent": np.zeros((n, 2), np.float32),
    }
    path = Workspace(root).scores_file(name)
    write_table(path, make_table(SCORES, columns, n_latent=2), SCORES, Provenance("score", {"name": name}))
    return path


def random_sky(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions spread evenly over the sphere, degrees."""
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


def scatter(
    rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray, sigma_arcsec: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions moved on the sphere by about `sigma_arcsec`, right at the poles too."""
    theta, phi = np.radians(dec), np.radians(ra)
    unit = np.stack([np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), np.sin(theta)], 1)
    unit += rng.normal(0, np.radians(sigma_arcsec / 3600), unit.shape)
    x, y, z = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).T
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


@dataclass(frozen=True)
class Field:
    """Candidates, and a catalogue near them: positions, 19-digit identifiers and magnitudes."""

    root: Path
    ra: np.ndarray
    dec: np.ndarray
    catalog_ra: np.ndarray
    catalog_dec: np.ndarray
    ids: np.ndarray
    mag: np.ndarray

    def matches(self, catalog: str, model: str = "default") -> pa.Table:
        """Return the table that a run left."""
        return pq.read_table(Workspace(self.root).matches_file(model, catalog))


@pytest.fixture(autouse=True)
def _settings_folder_exists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """astropy warns if XDG_CONFIG_HOME names a folder that is not there."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.fixture
def sky_field(tmp_path: Path) -> Field:
    rng = np.random.default_rng(5)
    ra, dec = random_sky(rng, 60)
    ra[:4], dec[:4] = [0.00001, 359.99999, 10.0, 200.0], [3.0, -20.0, 89.99995, -89.99995]
    near = np.repeat(np.arange(60), 2)
    near_ra, near_dec = scatter(rng, ra[near], dec[near], 0.8)
    far_ra, far_dec = random_sky(rng, 400)
    catalog_ra, catalog_dec = np.concatenate([near_ra, far_ra]), np.concatenate([near_dec, far_dec])
    order = rng.permutation(len(catalog_ra))
    ids = 4_611_686_018_427_387_905 + np.arange(len(order))
    root = tmp_path / "work"
    write_scores(root, ra, dec)
    return Field(root, ra, dec, catalog_ra[order], catalog_dec[order], ids, rng.normal(20, 1, len(order)))


@pytest.fixture
def qad(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the executable, as a user would."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "qad", *(str(argument) for argument in arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture
def scores_at() -> Callable[..., Path]:
    """Return the function that writes candidates."""
    return write_scores
