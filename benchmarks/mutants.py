"""What `qad extract` makes of thousands of damaged files: is a wrong one ever taken, a right one ever refused?

::

    python benchmarks/mutants.py                              60 seeds of each mutation, simulated spectra
    python benchmarks/mutants.py --seeds 200 --first 1000     others
    python benchmarks/mutants.py --real data/release          and a release tree of real spectra
    python benchmarks/mutants.py --only flipped_bit burst     some mutations
    python benchmarks/mutants.py --by mutation                a row per mutation, not per class

A mutant is made from a pair of right files by a mutation of ``tests/desi/mutating`` and a seed, always the same, and
comes with what must become of it: ``reject`` (one line that names file and place), ``same`` (the table is that of the right
files, byte for byte), ``changed`` (a row dropped with its reason, a column null, and all else as it was), ``any`` (bytes that
nothing could tell from right ones: read or refused, but finite, sorted and counted).  They are extracted in a process whose
address space may grow by half a gigabyte; one that dies or hangs is counted, and another goes on with the next mutant.

A refusal is dear if it takes more than a second, or 150 MB of memory above what the process had.  Exits 1 if anything was
not as expected.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "desi"))
from mutating import MUTATIONS, Judge, Pair, draw, pairs_below, simulated_pairs, tiled_pair

ROOM = 512 << 20
"""Bytes by which the address space of a worker may grow."""
PATIENCE = 30.0
"""Seconds without a word after which a worker is killed."""
FRUITLESS = ("values",)
"""Modules of mutations that change pixels of masks, which tiles do not have in the open."""


@dataclass
class Line:
    """A line of the table."""

    number: int = 0
    wrong_taken: int = 0
    wrong_refused: int = 0
    otherwise: int = 0
    tracebacks: int = 0
    died: int = 0
    seconds: list[float] = field(default_factory=list)
    rises: list[int] = field(default_factory=list)

    def add(self, found: dict[str, Any]) -> None:
        """Count a verdict."""
        self.number += 1
        outcome, is_wrong = found["outcome"], bool(found["problem"])
        self.tracebacks += outcome == "traceback"
        self.died += outcome == "died"
        self.wrong_taken += is_wrong and outcome in ("same", "changed")
        self.wrong_refused += is_wrong and outcome == "reject" and "expected" in found["problem"]
        self.otherwise += is_wrong and outcome == "reject" and "expected" not in found["problem"]
        if outcome == "reject":
            self.seconds.append(found["seconds"])
            self.rises.append(found["rise"])

    @property
    def n_wrong(self) -> int:
        """Mutants of which not that came which must."""
        return self.wrong_taken + self.wrong_refused + self.otherwise + self.tracebacks + self.died

    def show(self, name: str) -> None:
        """Print it."""
        share = f"{100 * (self.number - self.n_wrong) / max(self.number, 1):6.2f} %"
        cost = f"{max(self.seconds):7.2f} s {max(self.rises) / 1e6:6.0f} MB" if self.seconds else ""
        print(
            f"{name:26} {self.number:7,} {share:>10} {self.wrong_taken:6} {self.wrong_refused:8} {self.otherwise:6} "
            f"{self.tracebacks:10} {self.died:5} {cost}"
        )


def plan(names: list[str], seeds: range, pairs: list[Pair]) -> Iterator[tuple[str, int, Pair]]:
    """Yield the mutants: name, seed and pair."""
    for seed in seeds:
        for i, name in enumerate(names):
            pair = pairs[(seed + i) % len(pairs)]
            module = MUTATIONS[name].__module__.rpartition(".")[2]
            if "tiles" in pair.name and module in FRUITLESS:
                pair = pairs[0]
            if module == "tiles":
                pair = next(pair for pair in pairs if "tiles" in pair.name)
            yield name, seed, pair


def load(folder: Path, real: Path | None) -> list[Pair]:
    """Return the pairs: simulated with and without masks in tiles, and real ones."""
    pairs = pairs_below(folder / "simulated", "simulated")
    small = pairs_below(folder / "small", "small")[0]
    return [*pairs, small, tiled_pair(small), *(pairs_below(real, "real") if real else [])]


def work(arguments: argparse.Namespace) -> None:
    """Judge mutants from `skip` on, and print a line for each: what a worker process runs."""
    folder = Path(arguments.work)
    pairs = load(folder, arguments.real)
    judge = Judge(folder / "judged")
    for pair in pairs:
        judge.result_of(pair)  # whatever is imported or allocated once is now
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    for i, (name, seed, pair) in enumerate(plan(arguments.only or list(MUTATIONS), seeds, pairs)):
        if i < arguments.skip:
            continue
        print(json.dumps({"i": i, "name": name, "seed": seed, "pair": pair.name}), flush=True)
        mutant = draw(name, seed, pair)
        if mutant is None:
            continue
        told = {"what": mutant.what, "class": mutant.expect.label}
        print(json.dumps(told), flush=True)
        verdict = judge.judge(mutant, pair)
        cost = {"seconds": verdict.seconds, "rise": verdict.rise}
        print(json.dumps({"outcome": verdict.outcome, "problem": verdict.problem, **cost}), flush=True)
    print(json.dumps({"end": True}), flush=True)


def verdicts(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what became of each mutant, with another worker wherever one has died."""
    skip = 0
    while True:
        command = [sys.executable, __file__, *sys.argv[1:], "--work", str(folder), "--skip", str(skip)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
            found: dict[str, Any] = {}
            for line in lines(worker):
                found |= json.loads(line)
                if "end" in found:
                    return
                if "i" in found and found["i"] >= skip:
                    skip = found["i"] + 1
                if "outcome" in found:
                    yield found
                    found = {}
            worker.kill()
            code = worker.wait()
        if "class" not in found:
            raise SystemExit(f"a worker ended with {code} before it began: {found}")
        yield found | {"outcome": "died", "problem": f"the process died or hung: {code}", "seconds": 0, "rise": 0}


def lines(worker: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Yield the lines of a worker until it ends or is silent for too long."""
    assert worker.stdout is not None
    descriptor, rest = worker.stdout.fileno(), b""
    while select.select([descriptor], [], [], PATIENCE)[0]:
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=60, help="mutants of each mutation")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--real", type=Path, help="a release tree of real spectra")
    parser.add_argument("--only", nargs="+", choices=list(MUTATIONS), metavar="MUTATION", help="some mutations")
    parser.add_argument("--by", choices=("class", "mutation"), default="class", help="what a row of the table is")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments)
        return 0
    table: dict[str, Line] = {}
    total, began = Line(), time.monotonic()
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as name:
        folder = Path(name)
        simulated_pairs(folder / "simulated")
        simulated_pairs(folder / "small", quasars=2, resolution=False)
        for found in verdicts(folder):
            table.setdefault(found["class" if arguments.by == "class" else "name"], Line()).add(found)
            total.add(found)
            if found["problem"]:
                print(f"{found['name']} {found['seed']} ({found['pair']}) {found['what']}: {found['outcome']}")
                print(f"    {found['problem'][-2000:]}", flush=True)
    print(
        f"{arguments.by:26} {'mutants':>7} {'as exp.':>10} {'taken':>6} {'refused':>8} {'unsaid':>6} tracebacks  died refusals: slowest, most memory"
    )
    for name, line in sorted(table.items()):
        line.show(name)
    total.show("all")
    print(f"{len(MUTATIONS)} mutations, {time.monotonic() - began:.0f} s")
    return int(total.n_wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
