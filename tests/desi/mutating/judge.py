"""Extract a damaged pair as `qad extract` does, and say whether that came of it which must."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mutating.expect import (
    ANY,
    CHANGED,
    REJECT,
    SAME,
    UNCHANGED,
    Expect,
    Mutant,
    Pair,
    Rows,
    difference,
    law_broken,
    rows_of,
)
from qad.desi import layout
from qad.errors import InputError
from qad.extraction.unit import Unit, extract_unit
from qad.schema import SPECTRA
from qad.settings import Extract
from qad.storage.parquet import read_table

MAX_SECONDS, MAX_RISE = 1.0, 150e6
"""What a refusal may take, and by how many bytes the resident memory may grow meanwhile."""


MAX_WAIT = 10.0
"""Seconds after which a mutant counts as one that hangs."""


def _hang(number: int, frame: object) -> None:
    raise TimeoutError(f"hangs: {MAX_WAIT} s without an answer")


class Result(NamedTuple):
    """What came of a pair that was read."""

    rows: Rows
    counts: Mapping[str, float]
    law: str


@dataclass(frozen=True)
class Verdict:
    """The judgement on a mutant: what came of it, and what is wrong with that (empty: nothing)."""

    outcome: str
    problem: str
    seconds: float
    rise: int
    message: str = ""


class Judge:
    """Extracts pairs in a folder of its own.

    Parameters
    ----------
    folder : Path
        Empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Pair, Result] = {}
        signal.signal(signal.SIGALRM, _hang)

    def judge(self, mutant: Mutant, original: Pair) -> Verdict:
        """Extract a mutant, and compare what comes of it with what must."""
        before = self.result_of(mutant.expect.like or original)
        with self._unit(mutant) as unit:
            rise = _Rise()
            signal.setitimer(signal.ITIMER_REAL, MAX_WAIT)
            began = time.perf_counter()
            message, result, trace = "", None, ""
            try:
                result = self._extract(unit, timed=True)
                seconds = self._seconds
            except InputError as error:
                seconds, message = time.perf_counter() - began, str(error)
            except Exception:  # noqa: BLE001  whatever else it is, it is a bug, and is reported as one
                seconds, trace = time.perf_counter() - began, traceback.format_exc()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            n_bytes = rise.value
            left = sorted(path.name for path in unit.output.parent.iterdir()) if result is None else []
        if trace:
            return Verdict("traceback", trace, seconds, n_bytes)
        if result is None:
            problem = refusal_wrong(mutant, message, left) or cost(seconds, n_bytes)
            return Verdict(REJECT, problem, seconds, n_bytes, message)
        outcome, problem = self._accepted(mutant.expect, before, result)
        return Verdict(outcome, problem, seconds, n_bytes)

    def result_of(self, pair: Pair) -> Result:
        """Return what comes of a pair that is right."""
        if pair not in self._known:
            if len(self._known) > 20:
                del self._known[next(iter(self._known))]
            with self._unit(Mutant("", "coadd", pair, UNCHANGED)) as unit:
                result = self._extract(unit)
            assert not result.law, result.law
            self._known[pair] = result
        return self._known[pair]

    def _extract(self, unit: Unit, timed: bool = False) -> Result:
        began = time.perf_counter()
        report = extract_unit(unit, Extract(), force=True)
        self._seconds = time.perf_counter() - began
        table = read_table(unit.output, SPECTRA)
        return Result(rows_of(table), report.counts, law_broken(table, report.counts))

    def _accepted(self, expect: Expect, before: Result, after: Result) -> tuple[str, str]:
        is_same = after.rows == before.rows and not expect.like
        outcome = SAME if is_same else CHANGED
        if after.law:
            return outcome, after.law
        if ANY in expect.kinds:
            return outcome, ""
        if outcome not in expect.kinds and not (outcome == SAME and CHANGED in expect.kinds and not expect.gone):
            told = difference(expect, before.rows, after.rows, after.counts, before.counts)
            return outcome, f"{outcome}, expected {expect.label}; {told}"
        return outcome, difference(expect, before.rows, after.rows, after.counts, before.counts)

    @contextmanager
    def _unit(self, mutant: Mutant) -> Any:
        shutil.rmtree(self._folder, ignore_errors=True)
        pixel = mutant.pair.pixel
        folder, output = self._folder / "in", self._folder / "out"
        folder.mkdir(parents=True)
        output.mkdir()
        paths = {"coadd": folder / layout.coadd_name(pixel), "redrock": folder / layout.redrock_name(pixel)}
        for which, path in paths.items():
            special = mutant.special if which == mutant.which else ""
            put(path, mutant.pair.file(which), special)
        yield Unit(pixel, paths["coadd"], paths["redrock"], output / "table.parquet", self._folder / "receipt.json")


def put(path: Path, raw: bytes, special: str) -> None:
    """Write a file, or what stands in its place."""
    match special.split():
        case ["absent"]:
            return
        case ["folder"]:
            path.mkdir()
        case ["link"]:
            path.symlink_to("nowhere")
        case ["pipe"]:
            os.mkfifo(path)
        case ["sparse", size]:
            path.write_bytes(raw)
            os.truncate(path, int(size))
        case _:
            path.write_bytes(raw)


def refusal_wrong(mutant: Mutant, message: str, left: list[str]) -> str:
    """Return what is wrong with a refusal: unexpected, does not name file and place, several lines, something left."""
    expect = mutant.expect
    if REJECT not in expect.kinds and ANY not in expect.kinds:
        return f"refused, expected {expect.label}: {message}"
    pixel = mutant.pair.pixel
    name = (layout.coadd_name if mutant.which == "coadd" else layout.redrock_name)(pixel)
    if name not in message:
        return f"the file {name} is not named: {message}"
    if expect.words and not any(word in message for word in expect.words):
        return f"none of {expect.words} is named: {message}"
    if "\n" in message or not message.isprintable():
        return f"more than one line, or control characters: {message!r}"
    return f"left behind: {left}" if left else ""


def cost(seconds: float, rise: int) -> str:
    """Return what is wrong with the cost of a refusal."""
    if seconds > MAX_SECONDS:
        return f"refused after {seconds:.1f} s"
    return f"refused after taking {rise / 1e6:.0f} MB" if rise > MAX_RISE else ""


class _Rise:
    """How far the resident memory of this process rises from now on; 0 where the system does not tell."""

    def __init__(self) -> None:
        self._is_told = sys.platform == "linux"
        if self._is_told:
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:
                self._is_told = False
        self._before = self._status("VmRSS")

    @property
    def value(self) -> int:
        """Bytes."""
        return max(self._status("VmHWM") - self._before, 0)

    def _status(self, key: str) -> int:
        if not self._is_told:
            return 0
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))
