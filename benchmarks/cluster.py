"""What a second worker brings: `extract` and `build-grid` on a Dask cluster of one and of two workers, the local pool beside it.

    python benchmarks/cluster.py [--quasars 9600] [--release DIR] [--repeat 1]

Scheduler, workers and client share this machine, so two workers can show no more than two free cores give.  Workers are warm (they
have done each stage once), as those of a cluster are; the local pool starts its processes anew for each stage.  Blocks of build-grid
are cut to a quarter of their usual size: a sample this small would be three blocks, which two workers cannot share evenly.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qad
from qad.gridding import blocks, stage

BLOCK_BYTES = 16 * 2**20
START_S = 60.0


@contextmanager
def cluster(folder: Path, n_workers: int) -> Iterator[str]:
    """Run a scheduler and workers of one thread each, and yield the address."""
    file = folder / f"scheduler-{n_workers}.json"
    processes = [_start("scheduler", "--port=0", "--no-dashboard", f"--scheduler-file={file}")]
    try:
        _wait(file.exists)
        address = str(json.loads(file.read_text())["address"])
        options = ("--nthreads=1", "--no-dashboard", "--no-nanny", f"--local-directory={folder}")
        processes += [_start("worker", address, *options) for _ in range(n_workers)]
        yield address
    finally:
        for process in reversed(processes):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _start(what: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--host=127.0.0.1", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def _wait(condition: Any) -> None:
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > START_S:
            raise SystemExit("the scheduler did not start")
        time.sleep(0.05)


def seconds(release: Path, root: Path, repeat: int, **how: Any) -> tuple[float, float]:
    """Return the best times of both stages, each from nothing."""
    best = [float("inf")] * 2
    for _ in range(repeat):
        shutil.rmtree(root, ignore_errors=True)
        os.sync()  # what the run before has written must not be flushed in this one's time
        results = [qad.extract(source=str(release), root=root, **how), qad.build_grid(root=root, **how)]
        assert not any(result.failures for result in results)
        best = [min(old, result.seconds) for old, result in zip(best, results, strict=True)]
    return best[0], best[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quasars", type=int, default=9600)
    parser.add_argument("--release", type=Path, help="a release tree that is here; default: simulated")
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    blocks.BLOCK_BYTES, stage.POOL_BYTES = BLOCK_BYTES, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        release = options.release or folder / "release"
        if options.release is None:
            qad.simulate(release, quasars=options.quasars, healpix=32, seed=3, resolution=False)
        found = {}
        for n_workers in (1, 2):
            with cluster(folder, n_workers) as address:
                seconds(release, folder / "work", 1, scheduler=address)  # warms workers and page cache
                found[f"dask, {n_workers} workers"] = seconds(
                    release, folder / "work", options.repeat, scheduler=address
                )
        for jobs in (1, 2):
            found[f"local, {jobs} processes"] = seconds(release, folder / "work", options.repeat, jobs=jobs)
    print(f"{'':20}{'extract':>12}{'build-grid':>12}{'both':>12}")
    for name, (first, second) in found.items():
        print(f"{name:20}{first:>10.2f} s{second:>10.2f} s{first + second:>10.2f} s")
    for kind, word in (("dask", "workers"), ("local", "processes")):
        one, two = found[f"{kind}, 1 {word}"], found[f"{kind}, 2 {word}"]
        ratios = [one[0] / two[0], one[1] / two[1], sum(one) / sum(two)]
        print(f"{kind}, two over one: " + ", ".join(f"{ratio:.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
