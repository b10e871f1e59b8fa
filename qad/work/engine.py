"""Run independent units on the cores of this machine: one unit's failure, or its worker's death, is its own."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Generic, TypeVar

from qad.errors import Interrupted, QadError, StorageError

Unit = TypeVar("Unit")
Value = TypeVar("Value")
STOP_SECONDS = 2.0
"""Time that a worker gets to end itself."""


@dataclass(frozen=True)
class Outcome(Generic[Unit, Value]):
    """What became of a unit: its `value`, or the `error` that failed it (then `value` is None)."""

    unit: Unit
    value: Value | None = None
    error: str | None = None


def run_units(work: Callable[[Unit], Value], units: Sequence[Unit], jobs: int = 0) -> Iterator[Outcome[Unit, Value]]:
    """Yield an outcome per unit, in the order of completion.

    Parameters
    ----------
    work : callable
        Picklable (a module-level function, or a `functools.partial` of one); what it returns is small.
    units : sequence
    jobs : int
        Processes; 0 means one per core.  With 1, or a single unit, the work runs in this process.

    Raises
    ------
    StorageError
        If a unit found the disk full: no other would do better.
    Interrupted
        If a signal asked to stop; running units are dropped.

    Notes
    -----
    An error of :class:`~qad.errors.QadError`, and the death of a worker process, fail the unit; any other exception is a
    bug and is reported with its type.  Workers are spawned, not forked: a fork after Polars or JAX have started threads hangs.
    """
    n_jobs = min(jobs or available_cores(), len(units))
    if n_jobs <= 1:
        yield from _run_here(work, units)
    else:
        yield from _run_in_pool(work, units, n_jobs)


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _run_here(work: Callable[[Unit], Value], units: Sequence[Unit]) -> Iterator[Outcome[Unit, Value]]:
    for unit in units:
        try:
            value = work(unit)
        except (StorageError, Interrupted):
            raise
        except QadError as error:
            yield Outcome(unit, error=str(error))
        else:
            yield Outcome(unit, value=value)


def _run_in_pool(work: Callable[[Unit], Value], units: Sequence[Unit], n_jobs: int) -> Iterator[Outcome[Unit, Value]]:
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
        if error is None:
            return Outcome(self.unit, value=value)
        if isinstance(error, QadError) and not isinstance(error, StorageError | Interrupted):
            return Outcome(self.unit, error=str(error))
        raise error

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
            pipe.send(_attempt(work, pipe.recv()))


def _attempt(work: Callable[[Unit], Value], unit: Unit) -> tuple[Value | None, Exception | None]:
    try:
        return work(unit), None
    except Exception as error:  # noqa: BLE001  whatever it is goes home, where it is told apart
        error.add_note(traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001  an exception that cannot travel goes as text
            return None, RuntimeError(f"{type(error).__name__}: {error}")
        return None, error
