"""Units run apart: one unit's failure, or the death of its worker, is its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from qad.errors import InputError, Interrupted, StorageError
from qad.work.engine import Outcome, run_units


def work(unit: str) -> int:
    if unit == "bad":
        raise InputError("file.fits", "is damaged", where="HDU B_FLUX")
    if unit == "full":
        raise StorageError("no space left")
    if unit.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if unit == "bug":
        raise KeyError(unit)
    return len(unit)


def outcomes(units: list[str], jobs: int) -> dict[str, Outcome[str, int]]:
    return {outcome.unit: outcome for outcome in run_units(work, units, jobs)}


@pytest.mark.parametrize("jobs", [1, 2])
def test_bad_unit_fails_alone_and_by_name(jobs: int) -> None:
    found = outcomes(["a", "bad", "ccc"], jobs)
    assert (found["a"].value, found["ccc"].value) == (1, 3)
    assert found["bad"].error == "file.fits: HDU B_FLUX: is damaged"


@pytest.mark.parametrize("jobs", [1, 2])
def test_files_of_the_next_units_are_read_while_these_are_done(jobs: int, tmp_path: Path) -> None:
    units = [name * 3 for name in "abcdef"]
    for name in units:
        forget(tmp_path / name)
    asked: list[str] = []

    def files(unit: str) -> list[Path]:
        asked.append(unit)
        return [tmp_path / unit, tmp_path / "absent"]

    results = run_units(work, units, jobs, files=files)
    next(results)
    assert asked == units[jobs : 2 * jobs]  # those of the first are being read by who does it
    assert sum(outcome.value or 0 for outcome in results) == 3 * (len(units) - 1)
    assert asked == units[jobs:]
    stop_at = time.monotonic() + 30
    while not all(is_in_memory(tmp_path / name) for name in asked) and time.monotonic() < stop_at:
        time.sleep(0.01)
    assert all(is_in_memory(tmp_path / name) for name in asked)


def forget(path: Path) -> None:
    """Write a file, and drop it from memory."""
    with path.open("wb") as file:
        file.write(bytes(1 << 16))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def is_in_memory(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1 << 16)], 0, os.RWF_NOWAIT) == 1 << 16
        except BlockingIOError:
            return False


def test_death_of_a_worker_fails_its_unit_only() -> None:
    units = ["a", "die", "bb", *(f"die {i}" for i in range(6)), "ccc", "dddd"]
    found = outcomes(units, 2)
    assert set(found) == set(units)
    assert {unit for unit, outcome in found.items() if outcome.error} == {unit for unit in units if "die" in unit}
    assert "died (exit code -9)" in str(found["die"].error)


def test_workers_end_with_the_run() -> None:
    results = run_units(work, ["a", "bb", "ccc", "dddd"], 2)
    next(results)
    assert multiprocessing.active_children()
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("jobs", [1, 2])
def test_full_disk_ends_the_run(jobs: int) -> None:
    with pytest.raises(StorageError):
        outcomes(["a", "full", "b"], jobs)


@pytest.mark.parametrize("jobs", [1, 2])
def test_bug_is_not_swallowed(jobs: int) -> None:
    with pytest.raises(KeyError):
        outcomes(["a", "bug"], jobs)


@pytest.mark.parametrize("error", [InputError("x.fits", "why", where="HDU 1"), Interrupted(15), StorageError("full")])
def test_errors_survive_the_way_home_from_a_worker(error: Any) -> None:
    import pickle

    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.exit_code == error.exit_code


def test_nothing_to_do_is_done() -> None:
    assert list(run_units(work, [], 4)) == []
