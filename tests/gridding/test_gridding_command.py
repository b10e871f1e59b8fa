"""The command ``qad build-grid``: flags, JSON, exit codes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest


def qad(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the executable."""
    command = [sys.executable, "-m", "qad", "build-grid", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"NO_COLOR": "1"})


def test_flags_reach_the_grid(work: Path) -> None:
    flags = ["--dloglam", "5e-4", "--rest-min", "900", "--rest-max", "5000", "--no-deredden", "--shards", "2"]
    done = qad("--root", work, "--json", "--min-good", "100", *flags)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["n_done"], report["counts"]["out"]) == (2, 25)
    grid = json.loads((work / "grid" / "grid.json").read_text())
    assert (grid["dloglam"], grid["deredden"], grid["qad.config"]["min_good"]) == (5e-4, False, 100)
    assert 10 ** grid["loglam0"] == pytest.approx(900)


def test_observed_frame_by_flag_and_second_run_skips(work: Path) -> None:
    assert qad("--root", work, "--frame", "observed", "--shards", "2").returncode == 0
    again = qad("--root", work, "--frame", "observed", "--shards", "2")
    assert "0 done, 2 already done" in again.stdout


def test_dry_run_writes_nothing(work: Path) -> None:
    done = qad("--root", work, "--dry-run", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["n_done"] == 128
    assert [p.name for p in work.iterdir()] == ["spectra"]


def test_failed_file_is_exit_1(work: Path) -> None:
    (work / "spectra" / "bad.parquet").write_bytes(b"junk")
    done = qad("--root", work, "--shards", "2")
    assert done.returncode == 1
    assert "bad.parquet failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_input_is_exit_3(tmp_path: Path) -> None:
    done = qad("--root", tmp_path)
    assert done.returncode == 3
    assert "qad extract" in done.stderr


@pytest.mark.parametrize(
    "flags", [["--frame", "moon"], ["--dloglam", "1"], ["--rest-min", "9000", "--rest-max", "1000"]]
)
def test_impossible_setting_is_exit_2(work: Path, flags: list[str]) -> None:
    done = qad("--root", work, *flags)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def limit_file_size() -> None:
    """Let no file grow beyond 100 kB: what a full disk does, as far as a program can tell."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_full_disk_is_exit_5_and_leaves_nothing_half_written(work: Path) -> None:
    command = [sys.executable, "-m", "qad", "build-grid", "--root", str(work), "--shards", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit_file_size)
    assert done.returncode == 5, done.stderr
    assert "no space left" in done.stderr
    assert not [p for p in (work / "grid").rglob("*") if p.is_file()]
    assert qad("--root", work, "--shards", "2").returncode == 0


def test_unwritable_grid_is_exit_5(work: Path) -> None:
    (work / "grid").write_text("a file where the folder should be")
    done = qad("--root", work)
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
