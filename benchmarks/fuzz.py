"""A coverage-guided fuzzer on what reads FITS files: is there a crash, a hang, a blow-up, any error but ours?

::

    pip install atheris
    python benchmarks/fuzz.py --seconds 300                 begin with the corpus of the tests, and with small files
    python benchmarks/fuzz.py --seconds 300 --seed 7        another chance
    python benchmarks/fuzz.py --seconds 300 --keep          put what reached new code into the corpus of the tests

atheris (libFuzzer) watches which lines of ``qad.desi`` an input reaches and goes on from those that reach new ones; its
mutator knows of header cards (``tests/desi/mutating/fuzzing.py``).  An input that takes more than 5 seconds or lets the process
grow beyond 1 GB counts as a finding.  Prints the runs and the findings; exits 1 if there is one.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

TESTS = Path(__file__).parents[1] / "tests" / "desi"
CORPUS = TESTS / "corpus.zip"
sys.path.insert(0, str(TESTS))


def fuzz(arguments: list[str], work: Path) -> None:
    """Fuzz until libFuzzer is done: what a process of its own runs."""
    import atheris

    with atheris.instrument_imports(include=["qad.desi"]):
        from mutating import fuzzing

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        drawn = random.Random(seed)
        changed = atheris.Mutate(data, max_size) if drawn.random() < 0.25 else fuzzing.mutated(data, drawn)
        return changed[:max_size]

    path = work / "file.fits"
    atheris.Setup([sys.argv[0], *arguments], lambda data: fuzzing.explore(data, path), custom_mutator=mutate)
    atheris.Fuzz()


def main() -> int:
    """Fuzz in a process of its own, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--keep", action="store_true", help="write the inputs that reach new code into the tests' corpus"
    )
    arguments = parser.parse_args()
    from mutating import fuzzing

    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as name:
        folder = Path(name)
        corpus, found = folder / "corpus", folder / "found"
        corpus.mkdir()
        found.mkdir()
        known = fuzzing.read_corpus(CORPUS) if CORPUS.exists() else []
        for i, data in enumerate([*fuzzing.seeds(), *known]):
            (corpus / f"seed-{i:04}").write_bytes(data)
        limits = ["-max_len=70000", "-timeout=5", "-rss_limit_mb=1024", f"-artifact_prefix={found}/"]
        options = [f"-max_total_time={arguments.seconds}", f"-seed={arguments.seed}", "-len_control=0", *limits]
        log = run([*options, str(corpus)], folder)
        runs = re.search(r"Done (\d+) runs|stat::number_of_executed_units:\s+(\d+)", log)
        n_runs = next((int(group) for group in runs.groups() if group), 0) if runs else 0
        covered = [int(n) for n in re.findall(r"cov: (\d+)", log)]
        print(f"{n_runs:,} runs, {max(covered, default=0)} places reached, {len(list(corpus.iterdir()))} inputs kept")
        findings = sorted(found.iterdir())
        for finding in findings:
            kept = shutil.copy(finding, Path(tempfile.gettempdir()) / finding.name)
            print(f"finding: {kept}, {finding.stat().st_size} bytes\n{log[-3000:]}")
        if arguments.keep and not findings:
            inputs = covering([path.read_bytes() for path in corpus.iterdir()], folder / "file.fits")
            fuzzing.write_corpus(CORPUS, inputs)
            print(f"corpus: {len(inputs)} inputs, {CORPUS.stat().st_size:,} bytes")
        return int(bool(findings) or not n_runs)


def covering(inputs: list[bytes], path: Path) -> list[bytes]:
    """Return the smallest inputs that together go every way through ``qad.desi`` that all of them go."""
    from mutating import fuzzing

    kept: list[bytes] = []
    known: set[tuple[str, int, int]] = set()
    for data in sorted(inputs, key=lambda item: (len(item), item)):
        steps = steps_of(lambda data=data: fuzzing.explore(data, path))
        if steps - known:
            known |= steps
            kept.append(data)
    return kept


def steps_of(call: Callable[[], None]) -> set[tuple[str, int, int]]:
    """Return the steps from line to line, by file, that a call takes in ``qad.desi``."""
    steps: set[tuple[str, int, int]] = set()
    last: dict[FrameType, int] = {}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        file = frame.f_code.co_filename
        if "/qad/desi/" not in file:
            return None
        if event in ("call", "line", "return", "exception"):
            steps.add((file, last.get(frame, 0), frame.f_lineno))
            last[frame] = frame.f_lineno
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return steps


def run(options: list[str], work: Path) -> str:
    """Run libFuzzer, and return what it said."""
    command = [sys.executable, __file__, "--inside", str(work), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.stdout.decode(errors="replace")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        fuzz(sys.argv[3:], Path(sys.argv[2]))
    else:
        raise SystemExit(main())
