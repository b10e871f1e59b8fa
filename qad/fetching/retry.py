"""Repeating requests: full jitter, Retry-After, a stated budget, and a stop at any moment.

Waiting before attempt n is uniform in [0, min(20, 0.25 · 2ⁿ)] s ("full jitter", AWS Architecture Blog, Brooker 2015), or
what the server's Retry-After asks for if that is longer (at most 60 s).  With the default 8 retries a request waits
26 s on average and 52 s at most, beside its own timeouts.

All requests draw on one budget of :data:`BUDGET` repeats, to which each good answer gives a tenth of one back: where a
tenth of the requests fails for good, the service is in trouble, and more requests would only add to it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import TypeVar

from qad.errors import QadError, ServiceError
from qad.fetching.source import TransientError

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 20.0
LONGEST_RETRY_AFTER_S = 60.0
BUDGET = 500.0
EARNED = 0.1
"""Repeats that a good answer gives back to the budget."""

Value = TypeVar("Value")


@dataclass
class Budget:
    """How many repeats are left to all requests; ``multiprocessing`` has its like for several processes.

    Attributes
    ----------
    value : float
    """

    value: float = BUDGET


class StoppedError(QadError):
    """Another thread, or a person, asked to stop."""


@dataclass
class Patience:
    """How often requests to one service are repeated; shared by all threads.

    Attributes
    ----------
    retries : int
        Attempts after the first.
    service : str
        What messages call the service.
    stop : Event
        Set by whoever wants every thread to end.
    is_up : callable
        Asks the service whether it is up; the source sets it.
    budget : Budget
        Repeats that are left.
    repeated : int
        Requests that had to be repeated so far.
    """

    retries: int
    service: str
    stop: Event = field(default_factory=Event)
    is_up: Callable[[], bool] = field(default=lambda: False)
    budget: Budget = field(default_factory=Budget)
    repeated: int = field(default=0, init=False)
    _answered_at: float = field(default=-1.0, init=False)
    _random: random.Random = field(default_factory=random.Random, init=False)

    def answered(self) -> None:
        """Note that the service gave a good answer: it is up, and a failure is that of one object."""
        self._answered_at = time.monotonic()
        self.budget.value = min(BUDGET, self.budget.value + EARNED)

    def spend(self) -> bool:
        """Take one repeat from the budget of all requests; False if it is used up."""
        if self.budget.value < 1:
            return False
        self.budget.value -= 1
        return True

    def answered_since(self, moment: float) -> bool:
        """Whether there was a good answer after a moment of the monotonic clock."""
        return self._answered_at >= moment

    def check(self) -> None:
        """Raise StoppedError if it is time to end."""
        if self.stop.is_set():
            raise StoppedError("stopped")

    def wait(self, attempt: int, error: TransientError) -> None:
        """Sleep before the next attempt, or raise StoppedError."""
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)
        delay = max(self._random.uniform(0, longest), min(error.retry_after_s, LONGEST_RETRY_AFTER_S))
        if self.stop.wait(delay):
            raise StoppedError("stopped")

    def attempts(self) -> Attempts:
        """Begin counting the attempts of one request."""
        return Attempts(self)

    def repeat(self, work: Callable[[], Value]) -> Value:
        """Return what `work` returns, repeating it while it raises TransientError."""
        attempts = self.attempts()
        while True:
            try:
                value = work()
            except TransientError as error:
                attempts.failed(error)
            else:
                self.answered()
                return value


class Attempts:
    """The attempts of one request."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._began = time.monotonic()
        self._count = 0

    def failed(self, error: TransientError, progressed: bool = False) -> None:
        """Wait for the next attempt.

        Parameters
        ----------
        error : TransientError
            How this one failed.
        progressed : bool
            It brought something: the whole budget comes back, so that a link that breaks again and again gets there.

        Raises
        ------
        ServiceError
            After the last attempt, if no request of any thread was answered since the first, nor is a small one now: the
            service is down.
        QadError
            After the last attempt otherwise: the matter of this object alone.
        StoppedError
            If somebody asked to stop.
        """
        self._patience.check()
        if progressed:
            self._began, self._count = time.monotonic(), 0
        may_repeat = progressed or self._patience.spend()
        if self._count >= self._patience.retries or not may_repeat:
            used_up = "" if may_repeat else f"; the run's {BUDGET:.0f} repeats are used up"
            tried = f"{error} ({self._count + 1} attempts{used_up})"
            if progressed or self._patience.answered_since(self._began) or self._patience.is_up():
                raise QadError(f"{tried}; run again to go on from there") from error
            raise ServiceError(
                f"{self._patience.service}: {tried}; check the network and --endpoint-url, then run again: "
                "what is fetched stays"
            ) from error
        self._patience.repeated += 1
        self._patience.wait(self._count, error)
        self._count += 1
