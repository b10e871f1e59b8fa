"""A small work directory with known spectra, a known model and hostile words in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from qad.config import Config, load_config
from qad.lines import EMISSION_LINES, LIGHT_SPEED_KMS
from qad.models.directory import write_model
from qad.models.sizes import Sizes
from qad.schema import GRID, MATCHES, N_WAVE, SCORES, SPECTRA, WAVE_START, WAVE_STEP
from qad.storage.parquet import make_table, write_table
from qad.storage.provenance import Provenance, hash_file
from qad.workspace import Workspace

N = 40
FIRST_ID = 39627612345678901
LOGLAM0, DLOGLAM, N_REST, N_OBS = 2.95, 8e-4, 1300, 545
TROUGH = 5
"""Row whose C IV is absorbed."""
HOSTILE = 7
TWICE = (3, 4)
"""Rows of one target in two surveys."""
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m"
MARKUP = "</script><script>window.owned=1</script><img src=x onerror=window.owned=2>[bold]@DATA@"
FORMULA = '=HYPERLINK("http://x","y")'
PROVENANCE = Provenance("test", {})


def rest_spectrum(wave: np.ndarray) -> np.ndarray:
    """A power law with the emission lines of a quasar, 1 at 2000 Å."""
    flux = (wave / 2000) ** -1.2
    for line in EMISSION_LINES:
        if line.broad and not line.name.startswith("Fe"):
            sigma = line.wave * 2000 / LIGHT_SPEED_KMS
            flux = flux + line.ew / (sigma * 2.5) * np.exp(-0.5 * ((wave - line.wave) / sigma) ** 2)
    return flux


def absorbed(flux: np.ndarray, wave: np.ndarray) -> np.ndarray:
    return flux * (1 - 0.9 * np.exp(-0.5 * ((wave - 1510) / 12) ** 2))


class Made:
    """What the tables were made of."""

    n = N
    first_id = FIRST_ID
    trough, hostile, twice = TROUGH, HOSTILE, TWICE
    escapes, markup, formula = ESCAPES, MARKUP, FORMULA

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.targetid = FIRST_ID + 7 * np.arange(N, dtype=np.int64)
        self.targetid[TWICE[1]] = self.targetid[TWICE[0]]
        self.survey = ["main"] * N
        self.survey[TWICE[1]] = "sv1"
        self.program = ["dark"] * N
        self.healpix = np.array([1000 + i % 3 for i in range(N)], np.int32)
        self.healpix[TWICE[1]] = self.healpix[TWICE[0]]
        self.z = np.round(rng.uniform(1.6, 3.2, N), 4)
        self.z[TROUGH] = 2.2
        self.snr = rng.uniform(1, 20, N).astype(np.float32)
        self.norm = rng.uniform(0.5, 5, N).astype(np.float32)
        self.rng = rng
        wave_obs = WAVE_START + WAVE_STEP * np.arange(N_WAVE)
        self.flux = np.stack([self._flux(i, wave_obs / (1 + self.z[i])) for i in range(N)])
        self.ivar = np.repeat((10.0 / self.norm[:, None]) ** 2, N_WAVE, axis=1)
        self.start = np.ceil((np.log10(WAVE_START / (1 + self.z)) - LOGLAM0) / DLOGLAM).astype(np.int32)

    def _flux(self, i: int, rest: np.ndarray) -> np.ndarray:
        flux = rest_spectrum(rest)
        return self.norm[i] * (absorbed(flux, rest) if i == TROUGH else flux)

    def key(self) -> dict[str, object]:
        return {
            "targetid": self.targetid,
            "survey": self.survey,
            "program": self.program,
            "healpix": self.healpix,
            "ra": np.linspace(0, 359, N),
            "dec": np.linspace(-80, 80, N),
            "z": self.z,
            "snr": self.snr,
        }

    def spectra(self) -> dict[str, object]:
        subtype = ["QSO"] * N
        subtype[HOSTILE] = ESCAPES + MARKUP
        return {
            **self.key(),
            "zwarn": np.where(np.arange(N) == TROUGH, 4, 0),
            "spectype": ["QSO"] * N,
            "subtype": subtype,
            "coadd_fiberstatus": np.where(np.arange(N) == TROUGH, 8, 0).astype(np.int32),
            "flux_g": np.full(N, 10.0, np.float32),
            "flux_ivar_g": np.full(N, 100.0, np.float32),
            "flux_r": np.where(np.arange(N) == 0, -1.0, 100.0).astype(np.float32),
            "ebv": np.full(N, 0.03, np.float32),
            "n_good": np.full(N, N_WAVE, np.int32),
            "flux": self.flux.astype(np.float32),
            "ivar": self.ivar.astype(np.float32),
        }

    def grid(self) -> dict[str, object]:
        loglam = LOGLAM0 + (self.start[:, None] + np.arange(N_OBS)) * DLOGLAM
        flux = np.stack([self._flux(i, 10 ** loglam[i]) / self.norm[i] for i in range(N)])
        ivar = np.full((N, N_OBS), 100.0)
        ivar[:, -5:] = 0
        noise = self.rng.standard_normal((N, N_OBS)) * 0.1
        return {
            **self.key(),
            "zwarn": np.zeros(N, np.int64),
            "ebv": np.full(N, 0.03, np.float32),
            "split": np.zeros(N, np.uint8),
            "norm": self.norm,
            "start": self.start,
            "coverage": np.ones(N, np.float32),
            "flux": np.where(ivar > 0, flux + noise, 0).astype(np.float32),
            "ivar": ivar.astype(np.float32),
        }

    def scores(self) -> dict[str, object]:
        reason = ["strong C IV, EW 80.0 Å (+4.1 σ)"] * N
        reason[HOSTILE] = ESCAPES + MARKUP
        reason[9] = FORMULA
        worst = np.full(N, np.nan, np.float32)
        worst[TROUGH] = 1510
        return {
            "rank": np.arange(1, N + 1),
            **self.key(),
            "score": np.linspace(20, 1, N),
            "p_value": np.geomspace(1e-6, 0.5, N),
            "artefact": np.where(np.arange(N) == 2, 0.9, 0.1).astype(np.float32),
            "reason": reason,
            "chi2_dof": np.ones(N, np.float32),
            "n_good": np.full(N, N_OBS - 5, np.int32),
            "worst_wave_rest": worst,
            "flags": np.where(np.arange(N) == TROUGH, 5, 0).astype(np.uint32),
            "model": ["default"] * N,
            "latent": np.zeros((N, 2), np.float32),
            "view_local": np.linspace(9, 1, N),
            "p_local": np.linspace(0, 1, N),
        }


def build(root: Path) -> Workspace:
    made, workspace = Made(), Workspace(root)
    spectra, n = made.spectra(), np.arange(N)
    for place in sorted({(made.survey[i], made.program[i], int(made.healpix[i])) for i in n}):
        rows = [i for i in n if (made.survey[i], made.program[i], int(made.healpix[i])) == place]
        write_table(workspace.spectra_file(*place), make_table(SPECTRA, pick(spectra, rows)), SPECTRA, PROVENANCE)
    for shard in range(2):
        rows = [i for i in n if made.targetid[i] % 2 == shard]
        table = make_table(GRID, pick(made.grid(), rows), n_obs=N_OBS)
        write_table(workspace.grid_file(shard, 2), table, GRID, PROVENANCE)
    grid = {"format": 1, "frame": "rest", "loglam0": LOGLAM0, "dloglam": DLOGLAM, "n_rest": N_REST, "n_obs": N_OBS}
    grid |= {"normalisation": "test", "deredden": True, "geometry_hash": "a" * 64}
    workspace.grid_json.write_text(json.dumps(grid))
    rest = 10 ** (LOGLAM0 + np.arange(N_REST) * DLOGLAM)
    weights = {
        "mean": rest_spectrum(rest).astype(np.float32),
        "loading": np.zeros((N_REST, 2), np.float32),
        "variance": np.full(N_REST, 1e-4, np.float32),
    }
    workspace.model("default").mkdir(parents=True)
    write_model(workspace.model("default"), Sizes("factor", N_REST, N_OBS, 2), weights, grid, {})
    digits = hash_file(workspace.model("default") / "model.json")[:12]
    scores = make_table(SCORES, made.scores() | {"model": [f"default@{digits}"] * N}, n_latent=2)
    write_table(workspace.scores_file("default"), scores, SCORES, PROVENANCE)
    matches = {
        "rank": [1, 1, 2],
        "targetid": made.targetid[[0, 0, 1]],
        "survey": ["main"] * 3,
        "program": ["dark"] * 3,
        "healpix": made.healpix[[0, 0, 1]],
        "catalog": ["dr16q"] * 3,
        "catalog_id": ["J0001", "J0002", None],
        "sep_arcsec": [0.2, 1.1, None],
        "n_within": np.array([2, 2, 0], np.int32),
        "best": [True, False, False],
        "cat_z": [2.5, 0.4, None],
    }
    path = workspace.matches_file("default", "dr16q")
    write_table(path, make_table(MATCHES, matches), MATCHES, PROVENANCE)
    return workspace


def pick(columns: dict[str, object], rows: list[int]) -> dict[str, object]:
    return {name: np.asarray(values)[rows] for name, values in columns.items()}


@pytest.fixture(scope="session")
def made() -> Made:
    return Made()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory that tests only read."""
    folder = tmp_path_factory.mktemp("inspect") / "work"
    build(folder)
    return folder


@pytest.fixture
def own_root(root: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(root, tmp_path / "work"))


@pytest.fixture
def config(root: Path) -> Config:
    return load_config(None, {"paths.root": str(root)})
