"""With a database configured, the stages' tables reach it without being asked; without one nothing is missed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qad.simulation.release import simulate


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    simulate(folder, quasars=12, healpix=2, contaminants=0.3, seed=4, resolution=False)
    return folder


def extract(release: Path, root: Path, dsn: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qad", "extract", "--source", str(release), "--root", str(root), "--json"]
    environment = {**os.environ, "QAD_INDEX__DSN": dsn}
    return subprocess.run(command, env=environment, cwd=root.parent, capture_output=True, text=True, check=False)


def test_extract_fills_the_index_when_one_is_configured(database, release: Path, tmp_path: Path) -> None:
    done = extract(release, tmp_path / "work", database.dsn)
    assert done.returncode == 0, done.stderr
    assert database.count("spectrum") == json.loads(done.stdout)["counts"]["rows_out"] > 0


def test_index_that_is_down_costs_no_file_and_is_caught_up(database, release: Path, tmp_path: Path) -> None:
    root = tmp_path / "work"
    away = extract(release, root, "postgresql://nobody@127.0.0.1:1/none")
    assert away.returncode == 4
    assert "the files are complete" in away.stderr
    assert json.loads(away.stdout)["n_done"] == len(list((root / "spectra").glob("*.parquet"))) == 2
    command = [sys.executable, "-m", "qad", "index", "--root", str(root), "--quiet"]
    subprocess.run(command, env={**os.environ, "QAD_INDEX__DSN": database.dsn}, check=True, cwd=tmp_path)
    assert database.count("spectrum") == json.loads(away.stdout)["counts"]["rows_out"]
