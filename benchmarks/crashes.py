"""What `qad extract` and `qad build-grid` leave when they end badly, many times over: is any file ever wrong?

::

    python benchmarks/crashes.py                       50 kills, 20 killed workers, 10 full disks of each command
    python benchmarks/crashes.py --runs 5 --seed 7     a tenth of that, other moments
    python benchmarks/crashes.py kill disk             some cases

``kill``: SIGKILL for all processes at a random moment from the first file on.  ``worker``: SIGKILL for one worker (of `extract`;
`build-grid` uses workers from 256 MB on).  ``disk``: a file system (root: a tmpfs is mounted) too small for the tables, for the
temporary blocks, or for all but the last file.  A file under a final name that is not that of a run without faults is *wrong*;
then the same command runs again, and where it does not end with exit code 0 and just those files the run is *unmended*.
*left* are files in the making that a killed or stopped process has left, which are removed a day later; *late* are kills that found
nothing to kill.  Exits 1 if any file was wrong, any run unmended,
or an exit code was not the one that is promised.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "foundation"))
import crashing

import qad

PIXELS, QUASARS = 24, 96
PROMISED = {"kill": {-9}, "worker": {1}, "disk": {5}}


@dataclass
class Line:
    """A line of the table."""

    codes: Counter[int] = field(default_factory=Counter)
    n_wrong: int = 0
    n_unmended: int = 0
    n_left: int = 0
    n_late: int = 0
    n_broken: int = 0

    def show(self, what: str) -> None:
        """Print it."""
        codes = " ".join(f"{code}:{n}" for code, n in sorted(self.codes.items()))
        print(
            f"{what:22} {self.codes.total():5} {codes:14} {self.n_wrong:6} {self.n_unmended:9} {self.n_left:5} "
            f"{self.n_late:5} {self.n_broken:7}",
            flush=True,
        )


class Campaign:
    """A release, and what each command makes of it without faults.

    Parameters
    ----------
    folder : Path
        Empty; for everything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.release = folder, folder / "release"
        qad.simulate(self.release, quasars=QUASARS, healpix=PIXELS, seed=11, resolution=False)
        self.right: dict[str, dict[str, bytes]] = {}
        self.seconds: dict[str, float] = {}
        clean = folder / "clean"
        for command in ("extract", "build-grid"):
            with crashing.start(*self.words(command, clean)) as process:
                crashing.wait_for(process, self.output(command, clean))
                began = time.monotonic()
                process.communicate()
            self.seconds[command] = time.monotonic() - began
            self.right[command] = crashing.finals(self.output(command, clean))
        self.clean = clean

    def words(self, command: str, root: Path) -> list[object]:
        """Return the words of a command."""
        own = ["--source", self.release, "--jobs", 2] if command == "extract" else ["--shards", 100]
        return [command, "--root", root, "--json", *own]

    def output(self, command: str, root: Path) -> Path:
        """Return the folder that a command writes."""
        return root / ("spectra" if command == "extract" else "grid")

    def root(self, command: str) -> Path:
        """Return an empty work directory, for `build-grid` with its spectra."""
        root = self.folder / "work"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        if command == "build-grid":
            shutil.copytree(self.clean / "spectra", root / "spectra")
        return root

    def judge(self, line: Line, command: str, root: Path) -> None:
        """Count what is wrong now."""
        folder = self.output(command, root)
        there = crashing.finals(folder) if folder.is_dir() else {}
        line.n_wrong += sum(self.right[command].get(name) != raw for name, raw in there.items())
        line.n_wrong += "grid.json" in there and there != self.right[command]
        line.n_left += len(crashing.parts(root))

    def mend(self, line: Line, command: str, root: Path) -> None:
        """Run again, and count what is not mended."""
        done = crashing.run(*self.words(command, root))
        if done.returncode or crashing.finals(self.output(command, root)) != self.right[command]:
            line.n_unmended += 1
            print(f"  {command}: exit {done.returncode}: {done.stderr[-500:]}")

    def kill(self, line: Line, command: str, drawn: random.Random) -> None:
        """Kill everything at a random moment."""
        root = self.root(command)
        process = crashing.start(*self.words(command, root))
        crashing.kill_while_writing(process, self.output(command, root), drawn, 0.8 * self.seconds[command])
        if process.returncode >= 0:
            line.n_late += 1
        else:
            line.codes[process.returncode] += 1
        self.judge(line, command, root)
        self.mend(line, command, root)

    def worker(self, line: Line, command: str, drawn: random.Random) -> None:
        """Kill one worker; its unit fails, and no other."""
        root = self.root(command)
        with crashing.start(*self.words(command, root)) as process:
            crashing.wait_for(process, self.output(command, root), drawn.randrange(1, PIXELS // 2))
            workers = crashing.workers_of(process)
            if workers:
                os.kill(drawn.choice(workers), signal.SIGKILL)
            stdout, stderr = process.communicate(timeout=60)
        if not workers or process.returncode == 0:
            line.n_late += 1  # it was between two units
        else:
            line.codes[process.returncode] += 1
            document = json.loads(stdout)
            n_failed = len(document["failures"])
            if n_failed != 1 or document["n_done"] != PIXELS - 1 or "Traceback" in stderr:
                line.n_broken += 1
                print(f"  {n_failed} failed, {document['n_done']} done, {stderr[-500:]}")
        self.judge(line, command, root)
        self.mend(line, command, root)

    def disk(self, line: Line, command: str, drawn: random.Random) -> None:
        """Give a run too little room."""
        root = self.root(command)
        size = sum(map(len, self.right[command].values()))
        most = size if command == "extract" else 2 * size  # the blocks lie beside the shards
        folder = self.output(command, root)
        with crashing.small_disk(folder, int(most * drawn.uniform(0.02, 0.95))) as is_mounted:
            if not is_mounted:
                raise SystemExit("disk: no file system may be mounted here")
            done = crashing.run(*self.words(command, root))
            line.codes[done.returncode] += 1
            line.n_broken += "Traceback" in done.stderr or "no space left" not in done.stderr
            self.judge(line, command, root)
            crashing.make_room(folder, 8 * size + (16 << 20))
            self.mend(line, command, root)


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", choices=[*PROMISED, []], metavar="CASE", help="kill, worker, disk")
    parser.add_argument("--runs", type=int, default=50, help="kills of each command; fewer of the other cases")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    numbers = {"kill": arguments.runs, "worker": -(-2 * arguments.runs // 5), "disk": -(-arguments.runs // 5)}
    commands = {"kill": ("extract", "build-grid"), "worker": ("extract",), "disk": ("extract", "build-grid")}
    n_bad = 0
    with tempfile.TemporaryDirectory() as name:
        campaign = Campaign(Path(name))
        print(
            f"{'case':22} {'runs':>5} {'exit codes':14} {'wrong':>6} {'unmended':>9} {'left':>5} {'late':>5} {'broken':>7}"
        )
        for case in arguments.cases or list(PROMISED):
            run: Callable[[Line, str, random.Random], None] = getattr(campaign, case)
            for command in commands[case]:
                line, drawn = Line(), random.Random(f"{case} {command} {arguments.seed}")
                for _ in range(numbers[case]):
                    run(line, command, drawn)
                line.show(f"{case} {command}")
                n_bad += line.n_wrong + line.n_unmended + line.n_broken + bool(set(line.codes) - PROMISED[case])
    return int(n_bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
