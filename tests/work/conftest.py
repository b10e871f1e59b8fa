"""A real Dask cluster on the loopback address: a scheduler and two workers, each a process with a nanny."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path.insert(0, str(HERE))  # cluster_units, which the workers import too
WAIT_S = 60.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait until something holds."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < WAIT_S, f"waited in vain for {what}"
        time.sleep(0.05)


class DaskCluster:
    """Processes of a cluster, and its address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        self._processes: list[subprocess.Popen[bytes]] = []
        # one more try after the first death, so that a poison unit is found soon
        self.scheduler = self._start(
            "scheduler", "--port=0", "--no-dashboard", f"--scheduler-file={self.file}", allowed_failures=1
        )
        wait_for(self.file.exists, "the scheduler")
        self.address = str(json.loads(self.file.read_text())["address"])

    def _start(
        self, what: str, *arguments: str, path: Path = REPOSITORY, allowed_failures: int = 3
    ) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{path}:{HERE}",
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures),
            "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False",
        }
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--host=127.0.0.1", *arguments]
        log = (self.folder / f"{what}-{len(self._processes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(process)
        return process

    def add_worker(self, path: Path = REPOSITORY) -> subprocess.Popen[bytes]:
        """Start a worker, which imports qad from `path`."""
        options = ("--nthreads=1", "--nworkers=1", "--no-dashboard", "--memory-limit=0", "--death-timeout=60")
        return self._start("worker", self.address, *options, path=path)

    def stop(self) -> None:
        """End all processes, those that nannies started too."""
        for process in reversed(self._processes):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait()


@pytest.fixture(scope="session")
def dask_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A scheduler and two workers; nothing that a test does to a worker outlasts it, since nannies start new ones."""
    pytest.importorskip("distributed", reason="Dask is not installed")
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"))
    try:
        cluster.add_worker()
        cluster.add_worker()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    """A scheduler without workers, for tests that end it."""
    pytest.importorskip("distributed", reason="Dask is not installed")
    cluster = DaskCluster(tmp_path)
    try:
        yield cluster
    finally:
        cluster.stop()
