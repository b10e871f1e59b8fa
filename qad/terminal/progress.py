"""Progress on stderr: a bar with rate and time left on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from qad.terminal.console import error_console, is_plain, printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from qad.results import Progress

PLAIN_INTERVAL_S = 10.0


class PlainProgress:
    """Progress for logs: one line every few seconds, and one at the end of each task."""

    def __init__(self, interval_s: float = PLAIN_INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._description = ""
        self._total: float | None = None
        self._unit = ""
        self._done = 0.0
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self, description: str, total: float | None = None, unit: str = "") -> None:
        """Begin a task."""
        self._end()
        self._description, self._total, self._unit, self._done = description, total, unit, 0.0
        self._started = self._shown = time.monotonic()

    def advance(self, amount: float = 1) -> None:
        """Count, and print when it is time."""
        self._done += amount
        if time.monotonic() - self._shown >= self._interval_s:
            self._print()

    def note(self, message: str) -> None:
        """Print a line."""
        print(printable(message), file=sys.stderr, flush=True)

    def _end(self) -> None:
        if self._description and self._done:
            self._print()
        self._description = ""

    def _print(self) -> None:
        self._shown = time.monotonic()
        elapsed = max(self._shown - self._started, 1e-9)
        rate = self._done / elapsed
        share = f"{self._done:.0f}/{self._total:.0f}" if self._total is not None else f"{self._done:.0f}"
        left = (
            f", {_duration((self._total - self._done) / rate)} left"
            if self._total and rate and self._done < self._total
            else ""
        )
        unit = f" {self._unit}" if self._unit else ""
        print(
            f"{self._description}: {share}{unit}, {rate:.3g}/s, {_duration(elapsed)}{left}", file=sys.stderr, flush=True
        )


class BarProgress:
    """Progress for people: a Rich bar with rate and time left."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar: RichProgress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]} {task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=error_console(),
            expand=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> BarProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, description: str, total: float | None = None, unit: str = "") -> None:
        """Begin a task."""
        self._task = self._bar.add_task(printable(description), total=total, unit=unit, rate="")

    def advance(self, amount: float = 1) -> None:
        """Move the bar."""
        if self._task is None:
            return
        self._bar.advance(self._task, amount)
        task = self._bar.tasks[self._task]
        speed = task.speed or task.finished_speed
        self._bar.update(self._task, rate=f"{speed:.3g}/s" if speed else "")

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(printable(message), markup=False)


def terminal_progress() -> AbstractContextManager[Progress]:
    """Return the progress that suits stderr; use it as a context manager."""
    return PlainProgress() if is_plain(sys.stderr) else BarProgress()


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
