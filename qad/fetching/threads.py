"""Run work that waits for the network on threads, with results and signals in the main thread."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread
from typing import Generic, NamedTuple, TypeVar

from qad.errors import ConfigError, Interrupted, QadError, ServiceError, StorageError
from qad.fetching.retry import StoppedError

TICK_S = 0.2
STOP_WAIT_S = 0.5
"""How long to wait for threads to end; one that hangs in a read is left behind: it cannot give a file its name any more."""

Item = TypeVar("Item")
Value = TypeVar("Value")

FATAL = (StorageError, ServiceError, ConfigError, Interrupted, StoppedError)
"""No other unit would fare better."""


class Done(NamedTuple, Generic[Item, Value]):
    """What became of an item: its value, or the error that failed it."""

    item: Item
    value: Value | None = None
    error: QadError | None = None


def run_threads(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    n_threads: int,
    stop: Event,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Done[Item, Value]]:
    """Yield what becomes of each item, in the order of completion.

    Parameters
    ----------
    work : callable
        Looks at `stop` often and raises when it is set.
    items : sequence
    n_threads : int
    stop : Event
        Set on a fatal error, a signal, or when the caller stops iterating.
    tick : callable
        Called in this thread a few times a second.

    Raises
    ------
    StorageError, ServiceError, ConfigError
        If an item met one: the run ends.
    Interrupted
        If a signal asked to stop.

    Notes
    -----
    The main thread only waits: a signal's exception raised inside botocore would be taken for a network error and
    retried.  The threads are daemons, because one that is stuck in a read must not hold up the end of the process.
    """
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    results: queue.SimpleQueue[tuple[Item, Value | None, BaseException | None]] = queue.SimpleQueue()

    def labour() -> None:
        while not stop.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results.put((item, work(item), None))
            except BaseException as error:  # noqa: BLE001 - every error is handed to the main thread, which judges it
                results.put((item, None, error))

    threads = [Thread(target=labour, daemon=True) for _ in range(min(n_threads, len(items)))]
    finished = False
    try:
        for thread in threads:
            thread.start()
        for _ in items:
            item, value, error = _next(results, stop, tick)
            if error is not None and (isinstance(error, FATAL) or not isinstance(error, QadError)):
                raise error
            yield Done(item, value, error)
        tick()
        finished = True
    finally:
        if not finished:
            stop.set()
        stop_at = time.monotonic() + STOP_WAIT_S
        for thread in threads:
            thread.join(max(0.0, stop_at - time.monotonic()))


def _next(results: queue.SimpleQueue[Value], stop: Event, tick: Callable[[], None]) -> Value:
    while True:
        try:
            return results.get(timeout=TICK_S)
        except queue.Empty:
            if stop.is_set():
                raise StoppedError("stopped") from None
            tick()
