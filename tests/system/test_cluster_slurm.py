"""The Slurm scripts of the examples, run by a real Slurm of one node; skipped, with the reason, where there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .slurm_server import slurm, why_not

Qad = Callable[..., "subprocess.CompletedProcess[str]"]
REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = REPOSITORY / "examples" / "slurm"
N_PIXELS = 5
SETTINGS = """
[build_grid]
dloglam = 5e-4
shards = 4
[train]
arch = "factor"
n_latent = 3
em_iterations = 3
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def slurm_environment() -> Iterator[dict[str, str]]:
    reason = why_not()
    if reason:
        pytest.skip(f"no Slurm here: {reason}")
    # pytest's own folders are closed to the user that munged runs as
    folder = Path(tempfile.mkdtemp(prefix="qad-slurm-"))
    folder.chmod(0o755)
    try:
        with slurm(folder) as environment:
            yield environment
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_scripts_are_plain_shell() -> None:
    for script in sorted(SCRIPTS.glob("*.sh")):
        assert subprocess.run(["sh", "-n", script], check=False).returncode == 0


def test_pipeline_runs_as_array_jobs(slurm_environment: dict[str, str], qad: Qad, tmp_path: Path) -> None:
    made = qad(
        "simulate", "release", "--quasars", 90, "--healpix", N_PIXELS, "--no-resolution", "--quiet", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    root, programs = tmp_path / "work", tmp_path / "bin"
    root.mkdir()
    programs.mkdir()
    (root / "qad.toml").write_text(SETTINGS)
    (programs / "qad").write_text(f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}" -m qad "$@"\n')
    (programs / "qad").chmod(0o755)
    environment = {
        **slurm_environment,
        "PATH": f"{programs}:{slurm_environment['PATH']}",
        "QAD_ROOT": str(root),
        "QAD_SOURCE": str(tmp_path / "release"),
    }
    submit = ["sh", str(SCRIPTS / "submit.sh"), "2", "--mem-per-cpu=500"]
    submitted = subprocess.run(submit, capture_output=True, text=True, check=False, env=environment)
    assert submitted.returncode == 0, submitted.stderr
    numbers = submitted.stdout.split()
    assert len(numbers) == 3
    states = _wait_for(numbers, environment)
    logs = {path.name: path.read_text() for path in (root / "log").glob("slurm-*.out")}
    assert set(states.values()) == {"COMPLETED"}, (states, logs)
    assert len(logs) == 2 + 2 + 1
    assert "extract (shard 0/2)" in "".join(logs.values())
    assert "build-grid (shard 1/2)" in "".join(logs.values())
    again = qad("extract", "--source", tmp_path / "release", "--root", root, "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["n_skipped"] == N_PIXELS
    assert json.loads(qad("build-grid", "--json", "--root", root, cwd=root).stdout)["n_done"] == 0
    assert len((root / "candidates.csv").read_text().splitlines()) > 60


def _wait_for(numbers: list[str], environment: dict[str, str]) -> dict[str, str]:
    """Wait until jobs have ended, and return the state of each task."""
    started = time.monotonic()
    while True:
        shown = [
            subprocess.run(
                ["scontrol", "-o", "show", "job", number], capture_output=True, text=True, env=environment, check=True
            )
            for number in numbers
        ]
        words = [
            dict(word.partition("=")[::2] for word in line.split())
            for done in shown
            for line in done.stdout.splitlines()
        ]
        states = {word["JobId"]: word["JobState"] for word in words}
        if not set(states.values()) & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}:
            return states
        assert time.monotonic() - started < 240, states
        time.sleep(0.5)
