"""Compiled loops: the same numbers as float64 arithmetic in full, whatever becomes of the folder they are kept in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qad.gridding.resample import resample
from qad.gridding.wavelength import FIRST_EDGE, grid_of
from qad.schema import N_WAVE, WAVE_STEP
from qad.settings import BuildGrid

PROGRAM = """
import hashlib
import numpy as np
from qad.gridding.resample import resample
from qad.gridding.wavelength import FIRST_EDGE
from qad.schema import N_WAVE, WAVE_STEP
flux = np.linspace(-1, 2, N_WAVE, dtype=np.float32)[None]
edges = FIRST_EDGE + WAVE_STEP * np.linspace(0, N_WAVE, 2001)[None]
print(hashlib.sha256(b"".join(part.tobytes() for part in resample(flux, np.ones_like(flux), edges))).hexdigest())
"""


def test_float32_spectra_come_out_as_a_float64_reference_within_a_millionth() -> None:
    rng = np.random.default_rng(5)
    grid, z = grid_of(BuildGrid()), np.array([0.4, 2.1, 5.0])
    flux = rng.normal(1, 3, (3, N_WAVE)).astype(np.float32)
    ivar = (rng.uniform(0.1, 3, (3, N_WAVE)) * (rng.uniform(size=(3, N_WAVE)) > 0.1)).astype(np.float32)
    brighter = np.exp(rng.uniform(0, 0.3, (3, 1)) * np.linspace(1, 0.4, N_WAVE))
    edges = grid.edges(grid.start(z), z)
    flux_out, ivar_out = resample(flux, ivar, edges, brighter)
    for row in range(3):
        weight = _overlaps(edges[row]) * (ivar[row] > 0)
        covered = weight.sum(axis=1)
        is_good = ivar_out[row] > 0
        true_flux, true_ivar = flux[row] * brighter[row], ivar[row] / brighter[row] ** 2
        variance = np.divide(1.0, true_ivar, where=true_ivar > 0, out=np.zeros(N_WAVE))
        expected = (weight @ true_flux)[is_good] / covered[is_good]
        np.testing.assert_allclose(flux_out[row][is_good], expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(
            ivar_out[row][is_good], covered[is_good] ** 2 / (weight**2 @ variance)[is_good], rtol=1e-6
        )


def _overlaps(edges: np.ndarray) -> np.ndarray:
    """Return the overlap of every output pixel with every input pixel, in input pixels."""
    left = FIRST_EDGE + WAVE_STEP * np.arange(N_WAVE)
    low, high = np.maximum(edges[:-1, None], left), np.minimum(edges[1:, None], left + WAVE_STEP)
    return np.clip((high - low) / WAVE_STEP, 0, None)


def _run(folder: Path) -> str:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.slow
def test_damaged_or_impossible_cache_costs_nothing_but_time(tmp_path: Path) -> None:
    expected = _run(tmp_path / "kept")
    kept = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        path.write_bytes(b"")
    assert _run(tmp_path / "kept") == expected
    for path in kept:
        path.unlink(missing_ok=True)
        path.mkdir()  # neither read nor written, even by root
    assert _run(tmp_path / "kept") == expected
    (tmp_path / "file").write_text("")
    assert _run(tmp_path / "file") == expected
