"""The same bytes from one process, two, a real Dask cluster, and shards that share a work directory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import qad as api
from qad.errors import ConfigError
from qad.parallel import Share
from qad.storage.lock import stage_lock

from .conftest import REPOSITORY, DaskCluster

# Dask's own clean-up: its loop's thread may close a socket after the test has gone on
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
QUASARS = 90
N_PIXELS = 6
GRID = ("--dloglam", "5e-4", "--shards", "6")
BATCH = 16
Runs = list[dict[str, Any]]


def qad(*arguments: object, code: int = 0, **environ: str) -> dict[str, Any]:
    """Run the executable and return its report."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environ}
    command = [sys.executable, "-m", "qad", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == code, done.stderr
    return dict(json.loads(done.stdout)) if code in (0, 1) else {"error": done.stderr}


def digests(root: Path) -> dict[str, str]:
    """The bytes of all tables, by file."""
    files = [path for folder in ("spectra", "grid", "scores", "matches") for path in (root / folder).rglob("*")]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and "cache" not in path.parts
    }


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "release"
    qad("simulate", folder, "--quasars", QUASARS, "--healpix", N_PIXELS, "--seed", 5, "--no-resolution")
    return folder


@pytest.fixture(scope="module")
def catalogues(release: Path) -> list[Path]:
    paths = [release.parent / f"{name}.csv" for name in ("first", "second", "third")]
    for path in paths:
        path.write_text("name,ra,dec\na,10.0,0.0\n")
    return paths


@pytest.fixture(scope="module", autouse=True)
def _small_units() -> Iterator[None]:
    """Cut this small sample into many units."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qad.gridding.blocks.BLOCK_BYTES", 1)
        patch.setattr("qad.gridding.stage.POOL_BYTES", 0)
        patch.setattr("qad.scoring.parts.PART_ROWS", BATCH)
        yield


@pytest.fixture(scope="module")
def stages(release: Path, catalogues: list[Path]) -> Callable[..., Path]:
    """Run the stages in a new work directory, each once for every set of options; the first trains the model for all."""
    trained: list[Path] = []
    names = [str(path) for path in catalogues]

    def run(root: Path, extract: Runs, build: Runs, score: Runs, match: Runs) -> Path:
        for options in extract:
            api.extract(source=str(release), root=root, **options)
        for options in build:
            api.build_grid(root=root, dloglam=5e-4, shards=6, **options)
        if trained:
            shutil.copytree(trained[0], root / "models" / "default")
        else:
            api.train(root=root, arch="factor", em_iterations=3, n_latent=3)
            trained.append(root / "models" / "default")
        for options in score:
            api.score(root=root, batch_size=BATCH, **options)
        for options in match:
            api.crossmatch(catalogs=names, keep_unmatched=True, root=root, **options)
        return root

    return run


@pytest.fixture(scope="module")
def alone(stages: Callable[..., Path], release: Path) -> Path:
    """What one process makes."""
    return stages(release.parent / "one", *[[{"jobs": 1}]] * 4)


def test_two_processes_write_the_same_bytes(stages: Callable[..., Path], alone: Path, tmp_path: Path) -> None:
    assert digests(stages(tmp_path / "two", *[[{"jobs": 2}]] * 4)) == digests(alone)


def test_cluster_writes_the_same_bytes(
    stages: Callable[..., Path], alone: Path, dask_cluster: DaskCluster, tmp_path: Path
) -> None:
    root = stages(tmp_path / "cluster", *[[{"scheduler": dask_cluster.address}]] * 4)
    assert digests(root) == digests(alone)
    assert len(digests(root)) == N_PIXELS + 7 + 2 + 3


def test_shards_and_a_last_run_write_the_same_bytes(stages: Callable[..., Path], alone: Path, tmp_path: Path) -> None:
    shards = [{"shard": f"{i}/3", "jobs": 1} for i in (0, 2, 1)]
    joined = [*shards, {"jobs": 1}]
    root = stages(tmp_path / "shards", shards, joined, joined, shards)
    assert digests(root) == digests(alone)
    assert not list((root / "scores").glob(".*"))


def test_last_run_does_what_a_shard_has_left(release: Path, alone: Path, tmp_path: Path) -> None:
    root = tmp_path / "work"
    shutil.copytree(alone / "spectra", root / "spectra")
    half = api.build_grid(root=root, dloglam=5e-4, shards=6, shard="1/2", jobs=1)
    assert half.n_done == N_PIXELS // 2
    made = {path: path.stat().st_mtime_ns for path in (root / "grid" / ".work").rglob("*.arrow")}
    assert len(made) == half.n_done
    assert api.build_grid(root=root, dloglam=5e-4, shards=6, shard="1/2", jobs=1).n_skipped == half.n_done
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert not (root / "grid" / "grid.json").exists()
    api.build_grid(root=root, dloglam=5e-4, shards=6, jobs=1)
    grid = {name: digest for name, digest in digests(alone).items() if name.startswith("grid/")}
    assert {name: digest for name, digest in digests(root).items() if name.startswith("grid/")} == grid


def test_two_shards_work_side_by_side_and_nobody_beside_a_whole_run(tmp_path: Path) -> None:
    with stage_lock(tmp_path, "extract", Share(0, 2)), stage_lock(tmp_path, "extract", Share(1, 2)):
        for share, text in ((Share(1, 2), "extract --shard 1/2"), (None, "another qad extract")):
            with pytest.raises(ConfigError, match=text), stage_lock(tmp_path, "extract", share):
                pass
    with (
        stage_lock(tmp_path, "extract"),
        pytest.raises(ConfigError, match="another qad extract"),
        stage_lock(tmp_path, "extract", Share(0, 2)),
    ):
        pass


def test_stage_without_units_refuses_a_shard(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train cannot be done in shards"):
        api.train(root=tmp_path, shard="0/2")


def test_shards_share_the_pixels_out(release: Path, tmp_path: Path) -> None:
    reports = [api.extract(source=str(release), root=tmp_path, shard=f"{i}/3", jobs=1) for i in range(3)]
    assert sum(report.n_done for report in reports) == N_PIXELS
    assert qad("extract", "--source", release, "--root", tmp_path, "--shard", "1/3")["n_skipped"] == reports[1].n_done
    assert qad("extract", "--source", release, "--root", tmp_path)["n_skipped"] == N_PIXELS


def test_shards_of_fetch_and_extract_go_on_together(release: Path, alone: Path, tmp_path: Path) -> None:
    for i in range(12):  # more shards than pixels: some have none, the first before anything is there
        api.fetch(source=str(release), mode="files", root=tmp_path, shard=f"{i}/12")
        api.extract(root=tmp_path, shard=f"{i}/12", jobs=1)
    assert {path.name for path in (tmp_path / "spectra").iterdir()} == {
        path.name for path in (alone / "spectra").iterdir()
    }


def test_shards_of_a_finished_grid_have_nothing_to_do(alone: Path) -> None:
    before = digests(alone)
    again = qad("build-grid", "--root", alone, *GRID, "--shard", "0/2")
    assert (again["n_done"], again["n_failed"]) == (0, 0)
    assert qad("score", "--root", alone, "--shard", "1/2", "--set", f"score.batch_size={BATCH}")["n_done"] == 0
    assert digests(alone) == before


def test_batch_system_names_the_shard(release: Path, tmp_path: Path) -> None:
    kubernetes = {"JOB_COMPLETION_INDEX": "1", "QAD_SHARDS": "2"}
    command = ("extract", "--source", release, "--root", tmp_path, "--shard", "auto", "--dry-run")
    assert qad(*command, **kubernetes)["shard"] == "1/2"
    slurm = {
        f"SLURM_ARRAY_TASK_{name}": value for name, value in (("ID", "5"), ("MIN", "1"), ("MAX", "7"), ("STEP", "2"))
    }
    assert qad(*command, **slurm)["shard"] == "2/4"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--shard", "2/2"), "I counts from 0 to 1"),
        (("--shard", "auto"), "neither JOB_COMPLETION_INDEX"),
        (("--shard", "half"), "write I/N"),
        (("--shard", "0/2", "--scheduler", "tcp://127.0.0.1:1"), "exclude each other"),
    ],
)
def test_wrong_shard_is_one_line_and_a_usage_error(release: Path, tmp_path: Path, flags: Any, text: str) -> None:
    error = qad("extract", "--source", release, "--root", tmp_path / "work", *flags, code=2)["error"]
    assert text in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "work" / "spectra").exists()


def test_dead_scheduler_is_one_line_and_exit_code_4(release: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed")
    flags = ("--scheduler", "tcp://127.0.0.1:1", "--set", "cluster.timeout_s=0.5", "--quiet")
    error = qad("extract", "--source", release, "--root", tmp_path, *flags, code=4)["error"]
    assert "no Dask scheduler answers" in error
    assert len(error.strip().splitlines()) == 1


def test_interrupt_drops_what_is_under_way(release: Path, dask_cluster: DaskCluster, tmp_path: Path) -> None:
    import signal
    import time

    command = [sys.executable, "-m", "qad", "extract", "--source", release, "--root", tmp_path, "--scheduler"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.Popen(
        [*map(str, command), dask_cluster.address], stderr=subprocess.PIPE, text=True, env=environment
    )
    # its token lies there from the moment it connects until it has ended
    while not list((tmp_path / ".qad").glob("cluster-*")):
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 143
    assert errors.strip().splitlines()[-1].startswith("qad extract: stopped by SIGTERM")
    assert "Traceback" not in errors
    assert not list((tmp_path / ".qad").glob("cluster-*"))
    assert qad("extract", "--source", release, "--root", tmp_path)["n_failed"] == 0
