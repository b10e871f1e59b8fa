"""Worker processes on this machine, each with a pipe of its own."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from typing import Generic

from qad.work.outcome import Outcome, Unit, Value, attempt, outcome_of

STOP_SECONDS = 2.0
"""Time that a worker gets to end itself."""


def run_in_pool(work: Callable[[Unit], Value], units: Iterable[Unit], n_jobs: int) -> Iterator[Outcome[Unit, Value]]:
    """Yield an outcome per unit, done by `n_jobs` processes; see :func:`qad.work.engine.run_units`."""
    waiting = iter(units)
    workers = [_Worker(work, unit) for unit in itertools.islice(waiting, n_jobs)]
    try:
        while workers:
            ready = connection.wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                yield worker.outcome()
                workers.remove(worker)
                workers.extend(worker.next(unit) for unit in itertools.islice(waiting, 1))
                if worker not in workers:
                    worker.stop()
    finally:
        for worker in workers:
            worker.stop()


class _Worker(Generic[Unit, Value]):
    """A process that does one unit at a time, with a pipe of its own.

    Pools whose workers share a queue can lose a unit, and then wait for ever, when a worker is killed at the wrong moment.
    Here nothing is shared: a worker that dies closes its pipe, and that is its answer.
    """

    def __init__(self, work: Callable[[Unit], Value], unit: Unit) -> None:
        context = multiprocessing.get_context("spawn")
        self._work = work
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self._process.start()
        theirs.close()
        self._give(unit)

    def _give(self, unit: Unit) -> None:
        self.unit = unit
        # a worker that is already gone is found when its answer is read
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send(unit)

    def next(self, unit: Unit) -> _Worker[Unit, Value]:
        """Return the worker that does `unit`: this one, or another if this one has died."""
        if self._process.exitcode is None and not self.pipe.closed:
            self._give(unit)
            return self
        return _Worker(self._work, unit)

    def outcome(self) -> Outcome[Unit, Value]:
        """Return what became of the unit; raises what must end the run."""
        try:
            value, error = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.pipe.close()
            self._process.join()
            code = self._process.exitcode
            return Outcome(self.unit, error=f"its worker process died (exit code {code}); out of memory?")
        return outcome_of(self.unit, value, error)

    def stop(self) -> None:
        """End the process."""
        self.pipe.close()
        self._process.terminate()
        self._process.join(STOP_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()


def _serve(pipe: connection.Connection, work: Callable[[Unit], Value]) -> None:
    """Do units until the pipe closes: what a worker process runs."""
    # Ctrl-C is for the parent, which stops its workers: they would only print tracebacks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            pipe.send(attempt(work, pipe.recv()))
