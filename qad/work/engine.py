"""Run independent units on the cores of this machine: one unit's failure, or its worker's death, is its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qad.errors import Interrupted, QadError, StorageError

Unit = TypeVar("Unit")
Value = TypeVar("Value")


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
    import concurrent.futures
    import multiprocessing

    import pebble

    waiting = iter(units)
    running: dict[Any, Unit] = {}
    pool = pebble.ProcessPool(
        max_workers=n_jobs, context=multiprocessing.get_context("spawn"), initializer=_quiet_worker
    )
    finished = False
    try:
        while True:
            # a few units ahead keep the workers busy; a million futures would only fill memory
            while len(running) < 4 * n_jobs and (unit := next(waiting, _END)) is not _END:
                running[pool.schedule(work, args=[unit])] = unit
            if not running:
                break
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                yield _outcome(running.pop(future), future)
        finished = True
    finally:
        if finished:
            pool.close()
        else:
            pool.stop()
        pool.join()


def _outcome(unit: Unit, future: Any) -> Outcome[Unit, Any]:
    import pebble

    try:
        return Outcome(unit, value=future.result())
    except (StorageError, Interrupted):
        raise
    except pebble.ProcessExpired as error:
        return Outcome(unit, error=f"its worker process died (exit code {error.exitcode}); out of memory?")
    except QadError as error:
        return Outcome(unit, error=str(error))


def _quiet_worker() -> None:
    """Leave Ctrl-C to the parent, which stops the pool: a worker would only print a traceback."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


_END: Any = object()
