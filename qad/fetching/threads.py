"""Run work that waits for the network on threads, with results and signals in the main thread."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from threading import Condition, Event, Lock, Thread
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


Task = Callable[[], None]


class Crew:
    """Small tasks of the items in work, which every thread with a free hand takes part in.

    An item's thread shares the ranges that it needs and works on them too; the others help.  So a single large item
    fills the line, and many threads do not need many items in work.

    Parameters
    ----------
    stop : Event
        Ends every wait.
    spare : callable
        A context in which a lent task may be done, if it yields True.
    """

    def __init__(self, stop: Event, spare: Callable[[], AbstractContextManager[bool]]) -> None:
        self._stop = stop
        self._spare = spare
        self._changed = Condition()
        self._urgent: deque[Group] = deque()
        self._patient: deque[Group] = deque()

    def run(self, tasks: Sequence[Task]) -> None:
        """Do all tasks, with whoever has a free hand; other threads prefer them to new items.

        Raises
        ------
        Exception
            The first that a task raises, when no task of the group is in work any more.
        """
        group = self._share(tasks, self._urgent)
        while group.n_left:
            # older groups first: what is begun is finished before more is begun
            if self._do_one(self._urgent) or self._do(group):
                continue
            with self._changed:
                if group.n_left:
                    self._changed.wait(TICK_S)
            if self._stop.is_set():
                raise StoppedError("stopped")
        if group.error is not None:
            raise group.error

    def lend(self, tasks: Sequence[Task]) -> Group:
        """Offer tasks to threads that have nothing else to do, until :meth:`withdraw`."""
        return self._share(tasks, self._patient)

    def withdraw(self, group: Group) -> None:
        """Take back the lent tasks that nobody has begun."""
        group.waiting.clear()
        with self._changed:
            if group in self._patient:
                self._patient.remove(group)

    def help(self, wanted: Callable[[], bool]) -> None:
        """Work on whatever is shared, and wait for more, as long as `wanted` says."""
        while not self._stop.is_set() and wanted():
            if self._do_one(self._urgent) or self._do_lent():
                continue
            with self._changed:
                self._changed.wait(TICK_S)

    def help_once(self) -> bool:
        """Do one urgent task, if there is one."""
        return self._do_one(self._urgent)

    def wake(self) -> None:
        """Let every waiting thread look again."""
        with self._changed:
            self._changed.notify_all()

    def _do_lent(self) -> bool:
        if not self._patient:
            return False
        with self._spare() as may:
            return may and self._do_one(self._patient)

    def _share(self, tasks: Sequence[Task], where: deque[Group]) -> Group:
        group = Group(tasks)
        if tasks:
            with self._changed:
                where.append(group)
                self._changed.notify(len(tasks))
        return group

    def _do_one(self, groups: deque[Group]) -> bool:
        """Do a task of the oldest group that has one nobody has begun."""
        while groups:
            try:
                group = groups[0]
            except IndexError:
                return False
            if self._do(group):
                return True
            with self._changed:
                if groups and groups[0] is group:
                    groups.popleft()
        return False

    def _do(self, group: Group) -> bool:
        """Do a task of a group that nobody has begun, if there is one."""
        try:
            task = group.waiting.popleft()
        except IndexError:
            return False
        try:
            if group.error is None:
                task()
        except BaseException as error:  # noqa: BLE001 - handed to the group's own thread, which judges it
            group.error = group.error or error
        finally:
            if group.count_down():
                self.wake()
        return True


class Group:
    """Tasks that one thread waits for; those that nobody has begun are in `waiting`."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.waiting = deque(tasks)
        self.n_left = len(self.waiting)
        self.error: BaseException | None = None
        self._lock = Lock()

    def count_down(self) -> bool:
        """Note that a task is done, and return whether it was the last."""
        with self._lock:
            self.n_left -= 1
            return not self.n_left


def run_threads(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    n_threads: int,
    stop: Event,
    tick: Callable[[], None] = lambda: None,
    crew: Crew | None = None,
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
    crew : Crew, optional
        Through it the threads help each other: all of them run, however few the items are.

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
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    results: queue.SimpleQueue[tuple[Item, Value | None, BaseException | None]] = queue.SimpleQueue()
    finished = False

    def labour() -> None:
        while not stop.is_set():
            if crew is not None and crew.help_once():
                continue
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                break
            try:
                results.put((item, work(item), None))
            except BaseException as error:  # noqa: BLE001 - every error is handed to the main thread, which judges it
                results.put((item, None, error))
        if crew is not None:
            crew.help(lambda: not finished)

    n_threads = min(n_threads, len(items)) if crew is None else n_threads
    threads = [Thread(target=labour, daemon=True) for _ in range(n_threads)]
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
            finished = True
        if crew is not None:
            crew.wake()
        stop_at = time.monotonic() + STOP_WAIT_S
        for thread in threads:
            if thread.is_alive():  # a signal may have come before all were started
                thread.join(max(0.0, stop_at - time.monotonic()))


def _next(results: queue.SimpleQueue[Value], stop: Event, tick: Callable[[], None]) -> Value:
    while True:
        try:
            return results.get(timeout=TICK_S)
        except queue.Empty:
            if stop.is_set():
                raise StoppedError("stopped") from None
            tick()
