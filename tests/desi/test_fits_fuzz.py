"""The corpus of the fuzzer (``benchmarks/fuzz.py``), and some thousand mutants of it: no error but ours, in bounded memory."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest
from mutating import fuzzing

CORPUS = Path(__file__).with_name("corpus.zip")
MUTANTS = 3000


@pytest.fixture(scope="module")
def corpus() -> list[bytes]:
    """The inputs that reached new code, and those that the fuzzer began with."""
    return [*fuzzing.seeds(), *fuzzing.read_corpus(CORPUS)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the file lies."""
    return tmp_path_factory.mktemp("fuzz") / "file.fits"


def test_what_the_fuzzer_found_makes_no_error_but_ours(corpus: list[bytes], place: Path) -> None:
    assert len(corpus) > 90
    for data in corpus:
        fuzzing.explore(data, place)


def test_a_small_file_never_asks_for_much_memory(corpus: list[bytes], place: Path) -> None:
    """70 kB at the most: nothing that it says of itself may make more of it than some megabytes."""
    tracemalloc.start()
    try:
        for data in corpus:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            fuzzing.explore(data, place)
            assert tracemalloc.get_traced_memory()[1] - before < 20e6
    finally:
        tracemalloc.stop()


def test_mutants_of_the_corpus_make_no_error_but_ours(corpus: list[bytes], place: Path) -> None:
    drawn = random.Random(20261125)
    for _ in range(MUTANTS):
        data = fuzzing.mutated(drawn.choice(corpus), drawn)
        fuzzing.explore(data, place)
