"""Run work that waits for the network on threads, with results and signals in the main thread."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Lock, Thread
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from qad.errors import ConfigError, Interrupted, QadError, ServiceError, StorageError
from qad.fetching.crew import TICK_S, Crew
from qad.fetching.retry import StoppedError

STOP_WAIT_S = 0.5
"""How long to wait for threads to end; one that hangs in a read is left behind: it cannot give a file its name any more."""

Item = TypeVar("Item")
Value = TypeVar("Value")
Take = Callable[[], Item | None]
"""Gives the next item, or None where there is none at the moment."""
Give = Callable[[Item, Value | None, BaseException | None], None]
"""Takes what became of an item: its value, or the error."""

FATAL = (StorageError, ServiceError, ConfigError, Interrupted, StoppedError)
"""No other unit would fare better."""


class Done(NamedTuple, Generic[Item, Value]):
    """What became of an item: its value, or the error that failed it."""

    item: Item
    value: Value | None = None
    error: QadError | None = None


class Mate(Protocol[Item]):
    """Another process that takes items and gives what becomes of them."""

    def serve(self, take: Take[Item], give: Give[Item, Any]) -> None:
        """Hand it items as it asks for them, until it ends; what it had in hand then has failed."""

    def end(self, at_once: bool) -> None:
        """Tell it to end, unless `at_once` with time to put away what it has in hand."""

    def wait(self, seconds: float) -> None:
        """See it end."""


class Shares(Generic[Item]):
    """Items dealt out to several parties; who has done his share takes of the others'.

    A party that has not begun yet is left its share: it takes longer to start a process than to take every item there is.
    """

    def __init__(self, items: Sequence[Item], n_parties: int) -> None:
        self._of = [deque(items[party::n_parties]) for party in range(n_parties)]
        self._open = {0}
        self._lock = Lock()

    def take(self, party: int) -> Item | None:
        """Return the party's next item, else another's last one, else None."""
        with self._lock:
            self._open.add(party)
            if self._of[party]:
                return self._of[party].popleft()
            richest = max((self._of[other] for other in self._open), key=len)
            return richest.pop() if richest else None

    def leave(self, party: int) -> None:
        """Let the others have what is left of a party's share."""
        with self._lock:
            self._open.add(party)


def run_threads(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    n_threads: int,
    stop: Event,
    tick: Callable[[], None] = lambda: None,
    crew: Crew | None = None,
    mates: Sequence[Mate[Item]] = (),
) -> Iterator[Done[Item, Value]]:
    """Yield what becomes of each item, in the order of completion.

    Parameters
    ----------
    work : callable
        Looks at `stop` often and raises when it is set.
    items : sequence
        None of them is None.
    n_threads : int
    stop : Event
        Set on a fatal error, a signal, or when the caller stops iterating.
    tick : callable
        Called in this thread a few times a second.
    crew : Crew, optional
        Through it the threads help each other: all of them run, however few the items are.
    mates : sequence of Mate
        Processes that share the items with these threads.

    Raises
    ------
    StorageError, ServiceError, ConfigError
        If an item met one: the run ends.
    Interrupted
        If a signal asked to stop.

    Notes
    -----
    The main thread only waits: a signal's exception raised inside a library would be taken for a network error and
    retried.  The threads are daemons, because one that is stuck in a read must not hold up the end of the process.
    """
    shares = Shares(items, 1 + len(mates))
    results: queue.SimpleQueue[tuple[Item, Value | None, BaseException | None]] = queue.SimpleQueue()
    ended = Event()

    def give(item: Item, value: Value | None, error: BaseException | None) -> None:
        results.put((item, value, error))

    def serve(party: int, mate: Mate[Item]) -> None:
        try:
            mate.serve(lambda: None if stop.is_set() else shares.take(party), give)
        finally:
            shares.leave(party)

    n_threads = min(n_threads, len(items)) if crew is None else n_threads
    hands = (work, lambda: shares.take(0), give, stop, ended, crew)
    threads = [Thread(target=labour, args=hands, daemon=True) for _ in range(n_threads)]
    threads += [Thread(target=serve, args=(1 + i, mate), daemon=True) for i, mate in enumerate(mates)]
    is_done = False
    try:
        for thread in threads:
            thread.start()
        for _ in items:
            item, value, error = _next(results, stop, tick)
            if error is not None and (isinstance(error, FATAL) or not isinstance(error, QadError)):
                raise error
            yield Done(item, value, error)
        tick()
        is_done = True
    finally:
        if not is_done:
            stop.set()
        ended.set()
        if crew is not None:
            crew.wake()
        stop_at = time.monotonic() + STOP_WAIT_S
        for mate in mates:
            mate.end(at_once=is_done)
        for mate in mates:
            mate.wait(max(0.0, stop_at - time.monotonic()))
        for thread in threads:
            if thread.is_alive():  # a signal may have come before all were started
                thread.join(max(0.0, stop_at - time.monotonic()))


def labour(
    work: Callable[[Item], Value],
    take: Take[Item],
    give: Give[Item, Value],
    stop: Event,
    ended: Event,
    crew: Crew | None = None,
) -> None:
    """Do items until there are none, or, with a crew, until somebody says that the work has ended: what a thread runs."""
    while not (stop.is_set() or ended.is_set()):
        if crew is not None and crew.help_once():
            continue
        item = take()
        if item is not None:
            try:
                value = work(item)
            except BaseException as error:  # noqa: BLE001 - every error is handed to the main thread, which judges it
                give(item, None, error)
            else:
                give(item, value, None)
        elif crew is None:
            return
        else:
            crew.help_or_wait()


def _next(results: queue.SimpleQueue[Value], stop: Event, tick: Callable[[], None]) -> Value:
    while True:
        try:
            return results.get(timeout=TICK_S)
        except queue.Empty:
            if stop.is_set():
                raise StoppedError("stopped") from None
            tick()
