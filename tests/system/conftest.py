"""One simulated survey, run through every stage by the executable, for all system tests."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

QUASARS = 400
SEED = 11


@dataclass(frozen=True)
class Survey:
    """A simulated release, and the work directory that ``qad run`` made of it."""

    release: Path
    root: Path
    report: dict[str, Any]


def run_qad(*arguments: object, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the executable."""
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", **environ}
    command = [sys.executable, "-m", "qad", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


@pytest.fixture(scope="session")
def qad() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The executable, as a function."""
    return run_qad


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """The survey; made once, however many processes run the tests."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder, done = base / "survey", base / "survey.json"
    with (base / "survey.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            done.write_text(json.dumps(make_survey(folder)))
    return Survey(folder / "release", folder / "work", json.loads(done.read_text()))


def make_survey(folder: Path) -> dict[str, Any]:
    """Simulate a release in `folder` and run every stage on it; return the report of ``qad run``."""
    flags = ("--quasars", QUASARS, "--healpix", 3, "--anomaly-rate", 0.05, "--seed", SEED, "--no-resolution")
    made = run_qad("simulate", folder / "release", *flags, cwd=folder.parent)
    assert made.returncode == 0, made.stderr
    done = run_qad("run", "--source", folder / "release", "--root", folder / "work", "--json", cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
