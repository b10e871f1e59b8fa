"""Run independent units, here or on a Dask cluster: one unit's failure, or its worker's death, is its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from qad.errors import QadError, StorageError
from qad.parallel import Cluster
from qad.storage.ahead import read_ahead
from qad.work.outcome import Outcome, Unit, Value
from qad.work.pool import run_in_pool


def run_units(
    work: Callable[[Unit], Value],
    units: Sequence[Unit],
    jobs: int = 0,
    cluster: Cluster | None = None,
    files: Callable[[Unit], Iterable[Path]] | None = None,
) -> Iterator[Outcome[Unit, Value]]:
    """Yield an outcome per unit, in the order of completion.

    Parameters
    ----------
    work : callable
        Picklable (a module-level function, or a `functools.partial` of one); what it returns is small.  It may be done more
        than once, so it writes its output whole, the same each time.
    units : sequence
    jobs : int
        Processes; 0 means one per core.  With 1, or a single unit, the work runs in this process.
    cluster : Cluster, optional
        Run the units there; `jobs` says nothing then.
    files : callable, optional
        The files that a unit reads: the system brings those of the next units into memory while these are done here.

    Raises
    ------
    StorageError
        If a unit found the disk full: no other would do better.
    Interrupted
        If a signal asked to stop; running units are dropped.
    ServiceError, ConfigError
        If the cluster does not answer, or cannot be used.

    Notes
    -----
    An error of :class:`~qad.errors.QadError`, and the death of a worker process, fail the unit; any other exception is a
    bug and is reported with its type.  Workers are spawned, not forked: a fork after Polars or JAX have started threads hangs.
    """
    n_jobs = min(jobs or available_cores(), len(units))
    if cluster is not None and units:
        from qad.work.cluster import run_on_cluster

        yield from run_on_cluster(work, units, cluster)
    elif n_jobs <= 1:
        yield from _run_here(work, _reading_ahead(units, files, 1))
    else:
        yield from run_in_pool(work, _reading_ahead(units, files, n_jobs), n_jobs)


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _reading_ahead(
    units: Sequence[Unit], files: Callable[[Unit], Iterable[Path]] | None, distance: int
) -> Iterator[Unit]:
    """Yield units, and of each that is `distance` further have the files read."""
    for i, unit in enumerate(units):
        if files is not None and i + distance < len(units):
            for path in files(units[i + distance]):
                read_ahead(path)
        yield unit


def _run_here(work: Callable[[Unit], Value], units: Iterable[Unit]) -> Iterator[Outcome[Unit, Value]]:
    for unit in units:
        try:
            value = work(unit)
        except StorageError:
            raise
        except QadError as error:
            yield Outcome(unit, error=str(error))
        else:
            yield Outcome(unit, value=value)
