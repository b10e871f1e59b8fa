"""Progress on stderr: a bar with rate and time left on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from qad.results import BYTES, format_bytes
from qad.terminal.console import error_console, is_plain, printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, TaskID

    from qad.results import Progress

PLAIN_INTERVAL_S = 10.0
WIDE = 100
"""Columns from which on a bar has room for more than amount, rate and time left."""
SPEED_WINDOW_S = 20.0
"""A bar shows the rate of this long."""


class PlainProgress:
    """Progress for logs: one line every few seconds, and one at the end of each task."""

    def __init__(self, interval_s: float = PLAIN_INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._description = self._state = ""
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
        self._state = ""
        self._started = self._shown = time.monotonic()

    def expect(self, total: float) -> None:
        """Change what is expected."""
        self._total = total

    def tell(self, state: str) -> None:
        """Take the words for the next line."""
        self._state = state

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
        is_running = self._total and rate and self._done < self._total
        left = f", {format_duration((self._total - self._done) / rate)} left" if self._total and is_running else ""
        state = f"; {self._state}" if self._state else ""
        line = f"{self._description}: {_amount(self._done, self._total, self._unit)}, {_rate(rate, self._unit)}"
        print(printable(f"{line}, {format_duration(elapsed)}{left}{state}"), file=sys.stderr, flush=True)


class BarProgress:
    """Progress for people: a Rich bar with rate and time left."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        def text(field: str) -> TextColumn:
            return TextColumn(f"{{task.fields[{field}]}}", table_column=Column(no_wrap=True), markup=False)

        console = error_console()
        columns: list[ProgressColumn] = [text("amount"), text("rate"), text("left")]
        if console.width >= WIDE:
            columns = [*columns[:2], TimeElapsedColumn(), columns[2], text("state")]
        self._bar: RichProgress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None),
            *columns,
            console=console,
            expand=True,
        )
        self._task: TaskID | None = None
        self._unit = ""
        self._recent: deque[tuple[float, float]] = deque()

    def __enter__(self) -> BarProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, description: str, total: float | None = None, unit: str = "") -> None:
        """Begin a task."""
        self._unit = unit
        self._recent = deque([(time.monotonic(), 0.0)])
        amount = _amount(0, total, unit)
        self._task = self._bar.add_task(printable(description), total=total, amount=amount, rate="", left="", state="")

    def expect(self, total: float) -> None:
        """Change the length of the bar."""
        if self._task is not None:
            self._bar.update(self._task, total=total)

    def tell(self, state: str) -> None:
        """Show the words behind the bar."""
        if self._task is not None:
            self._bar.update(self._task, state=printable(state))

    def advance(self, amount: float = 1) -> None:
        """Move the bar."""
        if self._task is None:
            return
        self._bar.advance(self._task, amount)
        task = self._bar.tasks[self._task]
        # not Rich's own speed, which forgets everything whenever the total changes
        speed = self._speed(task.completed)
        is_running = speed and task.total is not None and task.completed < task.total
        self._bar.update(
            self._task,
            amount=_amount(task.completed, task.total, self._unit),
            rate=_rate(speed, self._unit) if speed else "",
            left=f"{format_duration((task.total - task.completed) / speed)} left" if task.total and is_running else "",
        )

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(printable(message), markup=False)

    def _speed(self, done: float) -> float:
        """Return units a second over the last while."""
        now = time.monotonic()
        self._recent.append((now, done))
        while len(self._recent) > 2 and now - self._recent[1][0] > SPEED_WINDOW_S:
            self._recent.popleft()
        began, before = self._recent[0]
        return (done - before) / (now - began) if now > began else 0.0


def terminal_progress() -> AbstractContextManager[Progress]:
    """Return the progress that suits stderr; use it as a context manager."""
    return PlainProgress() if is_plain(sys.stderr) else BarProgress()


def format_duration(seconds: float) -> str:
    """Return seconds as people read them: 12 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _amount(done: float, total: float | None, unit: str) -> str:
    """Return how much is done of how much."""
    if unit == BYTES:
        return f"{format_bytes(done)} of {format_bytes(total)}" if total is not None else format_bytes(done)
    share = f"{done:.0f}/{total:.0f}" if total is not None else f"{done:.0f}"
    return f"{share} {unit}".rstrip()


def _rate(rate: float, unit: str) -> str:
    return f"{format_bytes(rate)}/s" if unit == BYTES else f"{rate:.3g}/s"
