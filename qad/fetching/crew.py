"""Small tasks that the threads of several items share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from threading import Condition, Event, Lock

from qad.fetching.retry import StoppedError

TICK_S = 0.2
"""How often whoever waits looks whether it is time to end."""

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

    def help_once(self) -> bool:
        """Do one urgent task, if there is one."""
        return self._do_one(self._urgent)

    def help_or_wait(self) -> None:
        """Do one task of whatever is shared or lent, or wait a moment for one."""
        if self._do_one(self._urgent) or self._do_lent() or self._stop.is_set():
            return
        with self._changed:
            self._changed.wait(TICK_S)

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
