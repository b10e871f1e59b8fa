"""The command ``qad extract``: exit codes, one-line errors, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from qad.work.units import Pixel

PIXEL, OTHER = Pixel("main", "dark", 47), Pixel("main", "dark", 9144)


def qad_extract(kit: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qad", "extract", "--root", str(kit.folder / "work"), "--jobs", "1", *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QAD_")} | {"HOME": str(kit.folder)}
    return subprocess.run(command, capture_output=True, text=True, cwd=kit.folder, env=environment, check=False)


@pytest.fixture
def source(kit: Any) -> str:
    kit.release.add(PIXEL)
    kit.release.add(OTHER)
    return str(kit.release.root)


def test_all_done_is_exit_0_with_counts_on_stdout(kit: Any, source: str) -> None:
    done = qad_extract(kit, "--source", source)
    assert done.returncode == 0, done.stderr
    assert "extract: 2 done" in done.stdout
    assert "rows_out" in done.stdout
    again = qad_extract(kit, "--source", source)
    assert "0 done, 2 already done" in again.stdout


def test_json_is_one_document_with_targetids_as_strings(kit: Any, source: str) -> None:
    kit.release.add(PIXEL, kit.TARGETS, redrock_targets=[kit.QUASAR, kit.QUASAR, kit.SECOND, kit.GALAXY])
    done = qad_extract(kit, "--source", source, "--json", "--healpix", "47", "--survey", "main,sv3")
    document = json.loads(done.stdout)
    assert document["counts"]["rows_in"] == 4
    assert document["counts"]["rows_out"] + document["counts"]["dropped.duplicate"] + 1 == 4
    assert document["duplicate_targetids"] == [f"main/dark/47: {kit.QUASAR.targetid}"]
    assert document["paths"] == [str(kit.folder / "work/spectra/main-dark-47.parquet")]
    assert document["failures"] == []


def test_a_failed_unit_is_exit_1_and_named_on_stderr(kit: Any, source: str) -> None:
    kit.release.paths(OTHER)[0].write_bytes(b"<html>")
    done = qad_extract(kit, "--source", source)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "failed" in line]
    assert len(lines) == 1
    assert "main/dark/9144 failed" in lines[0]
    assert "HTML" in lines[0]
    assert "Traceback" not in done.stderr
    assert (kit.folder / "work/spectra/main-dark-47.parquet").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--z-min", "high"),
        ("--z-min", "3", "--z-max", "2"),
        ("--min-wave", "-1"),
        ("--healpix", "47,x"),
        ("--healpix", "@absent.txt"),
        ("--no-such-flag",),
    ],
)
def test_wrong_usage_is_exit_2(kit: Any, source: str, arguments: tuple[str, ...]) -> None:
    done = qad_extract(kit, "--source", source, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (kit.folder / "work/spectra").exists()


def test_an_unusable_source_is_exit_3_with_one_line(kit: Any) -> None:
    done = qad_extract(kit, "--source", str(kit.folder / "nowhere"))
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "nowhere: no such folder" in done.stderr
    done = qad_extract(kit)
    assert done.returncode == 3
    assert str(Path("work") / "raw" / "dr1") in done.stderr
    assert "run `qad fetch` first" in done.stderr


def test_a_dry_run_leaves_no_trace(kit: Any, source: str) -> None:
    done = qad_extract(kit, "--source", source, "--dry-run")
    assert done.returncode == 0
    assert "2 to do" in done.stdout
    assert not (kit.folder / "work").exists()


def test_killed_at_any_moment_leaves_whole_tables_and_goes_on(kit: Any, source: str) -> None:
    reference = qad_extract(kit, "--source", source, "--root", str(kit.folder / "reference"))
    assert reference.returncode == 0
    expected = {path.name: path.read_bytes() for path in (kit.folder / "reference/spectra").iterdir()}
    command = [
        sys.executable,
        "-m",
        "qad",
        "extract",
        "--source",
        source,
        "--root",
        str(kit.folder / "work"),
        "-j",
        "1",
    ]
    for wait_s in (0.3, 0.5, 0.6, 0.8):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=kit.folder) as process:
            time.sleep(wait_s)
            process.kill()
        for path in (kit.folder / "work/spectra").glob("*.parquet"):
            assert path.read_bytes() == expected[path.name]
    done = qad_extract(kit, "--source", source)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (kit.folder / "work/spectra").glob("*.parquet")} == expected


def test_flags_reach_the_stage_and_a_file_gives_pixels(kit: Any, source: str) -> None:
    (kit.folder / "pixels.txt").write_text("47\n9144\n")
    done = qad_extract(
        kit, "--source", source, "--healpix", "@pixels.txt", "--spectype", "GALAXY", "--spectype", "QSO",
        "--zwarn", "4", "--objtype", "TGT", "--fiberstatus", "8", "--z-min", "0.2", "--z-max", "1.5",
        "--min-wave", "4000", "--max-wave", "9000", "--no-verify-datasum", "--program", "dark", "--limit", "1", "--json",
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert document["n_done"] == 1
    assert document["counts"] == {"rows_in": 3, "dropped.z_range": 1, "rows_out": 2}
