"""Units on a Dask cluster: the scheduler moves a lost worker's units to others, and this module keeps the promises around it.

A unit whose worker dies is tried again by the scheduler, ``distributed.scheduler.allowed-failures`` times (3).  It blames every
unit that a dead worker held, so one that it gives up on is then tried alone: who kills a worker again is at fault, and fails.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import queue
import secrets
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic

import qad
from qad.errors import ConfigError, QadError, ServiceError
from qad.parallel import Cluster
from qad.storage.atomic import make_folder, storage_errors
from qad.work.outcome import Outcome, Unit, Value, attempt, outcome_of

AHEAD = 3
"""Units under way for each thread of the cluster: none waits for us, and the scheduler never holds a million of them."""
LOOK_SECONDS = 2.0
"""How often workers are counted, and how long an answer may take before we look whether the scheduler is there."""
CLOSE_SECONDS = 2
ALIKE = ("numpy", "scipy", "pyarrow", "polars", "jax")
"""Packages whose version decides bytes that qad writes."""


def run_on_cluster(
    work: Callable[[Unit], Value], units: Sequence[Unit], cluster: Cluster
) -> Iterator[Outcome[Unit, Value]]:
    """Yield an outcome per unit, in the order of completion; see :func:`qad.work.engine.run_units`.

    Raises
    ------
    ConfigError
        If Dask is not installed here, or a worker has other versions than we or does not see the work directory.
    ServiceError
        If the scheduler does not answer, or has no worker.
    """
    with _token(cluster.shared) as token, _client(cluster) as client:
        run = _Run(client, cluster, Expected(describe(), token), work)
        try:
            run.wait_for_workers()
            run.check_workers()
        except (TimeoutError, OSError) as error:
            raise ServiceError(f"{cluster.scheduler}: the cluster does not answer ({_first_line(error)})") from None
        yield from run.outcomes(units)


class Expected:
    """What a worker must be like: its versions, and a file that it must see."""

    def __init__(self, versions: dict[str, str], token: Path) -> None:
        self.versions = versions
        self.token = token

    def complaint(self) -> str | None:
        """Return what is wrong with the process that runs this, None if nothing is."""
        differing = [
            f"{name} {found} (here: {self.versions[name]})"
            for name, found in describe().items()
            if found != self.versions[name]
        ]
        if differing:
            return f"has {', '.join(differing)}; install the same versions there"
        if not self.token.exists():
            return f"does not see {self.token.parent.parent}; put the work directory on a file system that all workers share"
        return None


def describe() -> dict[str, str]:
    """Return the versions of this process that must agree with those of the others."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"qad": qad.__version__, "python": python, **{name: _version(name) for name in ALIKE}}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


_fit_for: set[Path] = set()
"""Tokens of the runs that this worker process was found fit for."""


def do_unit(expected: Expected, work: Callable[[Unit], Value], unit: Unit) -> tuple[Value | None, Exception | None]:
    """Do a unit; what runs on a worker, which may have come when the others had been checked."""
    if expected.token not in _fit_for:
        complaint = expected.complaint()
        if complaint is not None:
            return None, Unfit(complaint)
        _fit_for.add(expected.token)
    return attempt(work, unit)


class Unfit(QadError):
    """A worker that must not be used."""


class _Run(Generic[Unit, Value]):
    """One run of units on a connected cluster."""

    def __init__(self, client: Any, cluster: Cluster, expected: Expected, work: Callable[[Unit], Value]) -> None:
        self._client, self._cluster, self._expected, self._work = client, cluster, expected, work
        self._name = secrets.token_hex(4)
        self._n_submitted = 0
        self._under_way: dict[Any, Unit] = {}
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._suspects: deque[Unit] = deque()
        self._n_threads = 1
        self._looked = self._seen = time.monotonic()

    def wait_for_workers(self) -> None:
        """Wait until there is a worker."""
        started = time.monotonic()
        while not self._count_threads():
            if time.monotonic() - started > self._cluster.timeout_s:
                raise ServiceError(
                    f"{self._cluster.scheduler}: the scheduler has no worker after {self._cluster.timeout_s:g} s; "
                    f"start one with `dask worker {self._cluster.scheduler}`"
                )
            time.sleep(0.2)

    def check_workers(self) -> None:
        """Refuse the cluster if a worker is not fit."""
        answers = self._ask(self._client._run, self._expected.complaint, on_error="return")
        for address, answer in sorted(answers.items()):
            if isinstance(answer, ImportError):
                self._refuse(address, f"has no qad ({answer}); install it there")
            if isinstance(answer, BaseException):
                self._refuse(address, f"cannot be asked for its versions ({type(answer).__name__}: {answer})")
            if answer is not None:
                self._refuse(address, answer)

    def outcomes(self, units: Sequence[Unit]) -> Iterator[Outcome[Unit, Value]]:
        """Yield an outcome per unit."""
        from distributed.scheduler import KilledWorker

        waiting = deque(units)
        alone: Unit | None = None
        while waiting or self._under_way or self._suspects:
            while waiting and len(self._under_way) < AHEAD * max(self._n_threads, 1):
                self._submit(waiting.popleft())
            if not self._under_way:
                alone = self._suspects.popleft()
                self._submit(alone)
            future = self._next_finished()
            try:
                value, error = future.result(timeout=LOOK_SECONDS)
            except TimeoutError:  # its result was lost with the worker that held it, and is made again
                future.add_done_callback(self._finished.put)
                continue
            except KilledWorker:
                unit = self._under_way.pop(future)
                if unit is not alone:
                    self._suspects.append(unit)
                    continue
                yield Outcome(unit, error="it kills the worker that does it, each time; out of memory?")
            else:
                unit = self._under_way.pop(future)
                if isinstance(error, Unfit):
                    raise ConfigError(f"{self._cluster.scheduler}: a worker {error}")
                future.release()
                yield outcome_of(unit, value, error)

    def _submit(self, unit: Unit) -> None:
        key = f"qad-{self._name}-{self._n_submitted}"
        self._n_submitted += 1
        future = self._client.submit(do_unit, self._expected, self._work, unit, key=key, pure=False)
        self._under_way[future] = unit
        future.add_done_callback(self._finished.put)

    def _next_finished(self) -> Any:
        """Return a future that is finished; raises if nobody is left who could finish one."""
        while True:
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._look()
            try:
                future = self._finished.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if future.status in ("cancelled", "lost"):
                raise self._gone()
            return future

    def _look(self) -> None:
        """See how many workers there are, and give up when there have been none for too long."""
        n_threads = 0
        with suppress(TimeoutError, OSError):
            n_threads = self._count_threads()
        self._looked = time.monotonic()
        if n_threads:
            self._seen = self._looked
        elif self._looked - self._seen > self._cluster.timeout_s:
            if self._client.status != "running":
                raise self._gone()
            units = ", ".join(str(unit) for unit in list(self._under_way.values())[:AHEAD])
            raise ServiceError(
                f"{self._cluster.scheduler}: no worker is left, after {self._cluster.timeout_s:g} s none has come back "
                f"(under way: {units}); finished units are kept, run again"
            )

    def _count_threads(self) -> int:
        self._n_threads = sum(self._ask(self._client.scheduler.ncores).values())
        return self._n_threads

    def _ask(self, question: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if self._client.status != "running":
            raise self._gone()
        return self._client.sync(question, *arguments, **options, callback_timeout=self._cluster.timeout_s)

    def _gone(self) -> ServiceError:
        return ServiceError(
            f"{self._cluster.scheduler}: the Dask scheduler has gone; finished units are kept, run again"
        )

    def _refuse(self, address: str, complaint: str) -> None:
        raise ConfigError(f"{self._cluster.scheduler}: worker {address} {complaint}")


@contextmanager
def _client(cluster: Cluster) -> Iterator[Any]:
    """Connect to the scheduler; what is still under way there when the block ends is dropped."""
    try:
        import distributed
        from distributed.comm import get_address_host_port
    except ImportError as error:
        raise ConfigError(f"--scheduler needs Dask ({error}): pip install 'desi-qad[dask]'") from None
    # it reports what we report, with tracebacks
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    where = {"address": cluster.scheduler}
    if "://" not in cluster.scheduler and Path(cluster.scheduler).is_file():
        where = {"scheduler_file": cluster.scheduler}
    else:
        try:
            get_address_host_port(cluster.scheduler)
        except ValueError as error:
            raise ConfigError(
                f"cluster.scheduler = {cluster.scheduler!r}: neither an address such as tcp://host:8786 nor a scheduler file "
                f"({_first_line(error)})"
            ) from None
    connect = partial(distributed.Client, **where, timeout=cluster.timeout_s, set_as_default=False)
    client = _in_time(connect, cluster)
    try:
        yield client
    finally:
        with suppress(OSError, TimeoutError):
            client.close(timeout=CLOSE_SECONDS)


def _in_time(connect: Callable[[], Any], cluster: Cluster) -> Any:
    """Connect from a thread of its own: Dask waits for ever where a port is open and nobody speaks."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def call() -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of versions: we compare those that matter, and refuse
                answers.put(connect())
        except Exception as error:  # noqa: BLE001  raised below, where somebody can see it
            answers.put(error)

    threading.Thread(target=call, daemon=True).start()
    try:
        found = answers.get(timeout=cluster.timeout_s + CLOSE_SECONDS)
    except queue.Empty:
        found = TimeoutError(f"no answer within {cluster.timeout_s:g} s")
    if isinstance(found, OSError | ValueError):  # TimeoutError too
        raise ServiceError(
            f"{cluster.scheduler}: no Dask scheduler answers ({_first_line(found)}); start one with `dask scheduler`"
        )
    if isinstance(found, Exception):
        raise found
    return found


@contextmanager
def _token(shared: Path) -> Iterator[Path]:
    """Put a file into the work directory that only those see who share it; a name that nobody has looked for before."""
    token = shared / ".qad" / f"cluster-{secrets.token_hex(8)}"
    with storage_errors(token):
        make_folder(token.parent)
        token.touch()
    try:
        yield token
    finally:
        with suppress(OSError):
            token.unlink()


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
