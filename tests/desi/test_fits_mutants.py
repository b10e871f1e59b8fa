"""Damaged pairs of files, some of each mutation: refused by name, or read as they must; never anything else.

``benchmarks/mutants.py`` makes thousands.  What each mutation does, and what must become of it, stands beside it.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from mutating import MAX_RISE, MUTATIONS, Judge, Pair, draw

SEEDS = range(7)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, pairs: list[Pair]) -> Iterator[Judge]:
    """A judge in a process whose address space cannot grow by much: a size that is believed ends in a MemoryError."""
    judge = Judge(tmp_path_factory.mktemp("judged") / "pair")
    for pair in pairs:
        judge.result_of(pair)
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 4 * int(MAX_RISE), before[1]))
    yield judge
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_must_become_of_a_mutant_does(judge: Judge, pairs: list[Pair], name: str) -> None:
    where = MUTATIONS[name].__module__.rpartition(".")[2]
    usable = pairs[2:] if where == "tiles" else pairs[:2] if where == "values" else pairs
    outcomes: Counter[str] = Counter()
    for seed in SEEDS:
        pair = usable[seed % len(usable)]
        mutant = draw(name, seed, pair)
        if mutant is not None:
            verdict = judge.judge(mutant, pair)
            # what a refusal costs is measured in benchmarks/mutants.py, not here
            problem = "" if verdict.problem.startswith("refused after") else verdict.problem
            assert not problem, f"{mutant.what}: {verdict.outcome}, {problem}"
            outcomes[verdict.outcome] += 1
    assert outcomes.total() > 0


def test_real_spectra_are_no_other(shared_data: Path, tmp_path: Path) -> None:
    from mutating import pairs_below

    pairs = [pair for pair in pairs_below(shared_data / "release", "real") if len(pair.coadd) < 2e6]
    judge = Judge(tmp_path / "pair")
    for i, name in enumerate(MUTATIONS):
        pair = pairs[i % len(pairs)]
        mutant = draw(name, i, pair)
        if mutant is not None:
            verdict = judge.judge(mutant, pair)
            assert not verdict.problem, f"{name}: {mutant.what}: {verdict.outcome}, {verdict.problem}"
