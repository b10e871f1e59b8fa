"""The line to the server: how many requests may be under way, and what it is measured to carry.

*How many.*  A limit that a server's SlowDown halves and good answers bring back one by one (additive increase,
multiplicative decrease; Chiu & Jain 1989, Computer Networks 17, 1).  Of large answers a quarter of it at most: a few of
them fill a line.  Where this process is what they wait for, more of them at once only cost more of its time, and fewer
are begun.

*How wide a gap between two wanted ranges is worth fetching.*  A request occupies one of n connections for a round
trip, so leaving one out saves ``latency / n`` seconds of the run, and its gap costs ``gap / rate`` seconds.  Rate and
latency are measured as the run goes.  The rate counts only where the line is full, which shows in answers that take
much longer than the line's latency while this process is not busy itself; otherwise the line is taken for faster than
what is asked of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Lock

LARGE_BYTES = 1 << 20
LARGE_FILE_BYTES = 4 << 20
LARGE_SHARE = 4
FIRST_LARGE, FEWEST_LARGE = 8, 3
"""Large answers at once: before anything is measured, and where the process is busy."""
FIRST_RATE = 125e6
"""Bytes a second that a line is taken for before it is measured: 1 Gb/s."""
FIRST_LATENCY_S = 0.03
REQUEST_CPU_S = 2.5e-4
"""What a request costs in this process's time, measured with ``benchmarks/fetch.py clients``: on a line without latency it
is the processor that requests compete for."""
MAX_GAP_BYTES = 64 << 10
"""A wider gap saves no time on lines up to 1 Gb/s, and moves bytes that nobody wants on faster ones."""
WINDOW_S = 0.25
STEP = 0.5
"""How much of a new measurement is believed at once."""
TICK_S = 0.2
FULL = 3.0
"""The line is full when answers take this many times its latency, ..."""
FULL_WINDOWS = 2
"""... for so many windows on end: connecting, and a moment of other work, look the same for one."""
BUSY = 0.5
"""From this share of one core on the process itself may be what answers wait for."""


class Line:
    """What all threads know of the line; every method may be called from any of them.

    Parameters
    ----------
    connections : int
        Most requests under way at once.
    """

    def __init__(self, connections: int) -> None:
        self.connections = connections
        lock = Lock()
        self._free, self._free_large, self._free_file = Condition(lock), Condition(lock), Condition(lock)
        self._limit = float(connections)
        self._n = self._n_large = 0
        self._slowed_at = 0.0
        self._most_large = max(1, connections // LARGE_SHARE)
        self._large = min(FIRST_LARGE, self._most_large)
        self._n_files = self._n_waiting = self._n_parts = 0
        self._measured = Lock()
        self._latency_s = float("inf")
        self._rate = FIRST_RATE
        self._window_began, self._cpu_began = time.monotonic(), time.process_time()
        self._bytes = self._requests = 0
        self._spent_s = 0.0
        self._n_full = 0

    def share(self, n_processes: int) -> int:
        """Leave the other processes their part of the connections, and return how many that are of each."""
        self.connections = max(1, self.connections // n_processes)
        self._rate /= n_processes
        self._limit = min(self._limit, float(self.connections))
        self._most_large = max(1, self.connections // LARGE_SHARE)
        self._large = min(self._large, self._most_large)
        return self.connections

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._n

    @property
    def latency_s(self) -> float:
        """The shortest time in which a request was answered."""
        return self._latency_s if self._latency_s < float("inf") else FIRST_LATENCY_S

    @property
    def rate(self) -> float:
        """Bytes a second that the line is taken to carry."""
        return self._rate

    @property
    def gap_bytes(self) -> int:
        """The widest gap between two wanted ranges that costs no more than a request of its own."""
        seconds = max(self.latency_s / self.connections, REQUEST_CPU_S)
        return min(int(self._rate * seconds), MAX_GAP_BYTES)

    @contextmanager
    def slot(self, n_bytes: int, check: Callable[[], None]) -> Iterator[None]:
        """Hold the right to one request for `n_bytes`.

        Parameters
        ----------
        n_bytes : int
        check : callable
            Called a few times a second while waiting; raises to end it.
        """
        large = n_bytes >= LARGE_BYTES
        free = self._free_large if large else self._free
        with free:
            while not self._has_room(large):
                free.wait(TICK_S)
                check()
            self._n += 1
            self._n_large += large
        try:
            yield
        finally:
            with free:
                self._n -= 1
                self._n_large -= large
                self._free.notify()
                self._free_large.notify()

    @contextmanager
    def file(self, n_bytes: int, check: Callable[[], None]) -> Iterator[None]:
        """Hold the right to fetch one file: of large ones no more are begun than can be under way."""
        if n_bytes < LARGE_FILE_BYTES:
            yield
            return
        with self._free_file:
            self._n_waiting += 1
            try:
                while self._n_files >= self._large:
                    self._free_file.wait(TICK_S)
                    check()
            finally:
                self._n_waiting -= 1
            self._n_files += 1
        try:
            yield
        finally:
            with self._free_file:
                self._n_files -= 1
                self._free_file.notify()

    @contextmanager
    def spare(self) -> Iterator[bool]:
        """Hold the right to bring a part of a large file that another thread is fetching; yields whether there is one.

        A part is written twice, first aside and then to its place: it is worth that only where the files in work, each
        read by its own thread, are too few to fill the line.
        """
        with self._free:
            given = not self._n_waiting and self._n_files + self._n_parts < self._large
            self._n_parts += given
        try:
            yield given
        finally:
            with self._free:
                self._n_parts -= given

    def slow_down(self) -> None:
        """Take the server at its word: half as many requests, at most once a second."""
        with self._free:
            now = time.monotonic()
            if now - self._slowed_at < 1:
                return
            self._slowed_at = now
            self._limit = max(1.0, self._limit / 2)

    def answered(self, first_byte_s: float, seconds: float, n_bytes: int) -> None:
        """Note a good answer: when its head came, when its last byte, and how many bytes there were."""
        if self._limit < self.connections:
            with self._free:
                self._limit = min(float(self.connections), self._limit + 1 / self._limit)
        with self._measured:
            self._latency_s = min(self._latency_s, first_byte_s)
            self._bytes += n_bytes
            self._requests += 1
            self._spent_s += seconds
            now = time.monotonic()
            if now - self._window_began >= WINDOW_S:
                self._end_window(now - self._window_began)
                self._window_began = now

    @property
    def large_limit(self) -> float:
        """How many large answers may be under way."""
        return max(1.0, min(self._large, self._limit / LARGE_SHARE))

    def _has_room(self, large: bool) -> bool:
        return self._n < self._limit and not (large and self._n_large >= self.large_limit)

    def _end_window(self, seconds: float) -> None:
        carried, mean_s = self._bytes / seconds, self._spent_s / self._requests
        cpu, self._cpu_began = time.process_time() - self._cpu_began, time.process_time()
        is_busy = cpu > BUSY * seconds
        self._large = max(
            min(FEWEST_LARGE, self._most_large), min(self._most_large, self._large + (-1 if is_busy else 1))
        )
        self._n_full = self._n_full + 1 if mean_s > FULL * self.latency_s and not is_busy else 0
        if self._n_full >= FULL_WINDOWS:
            self._rate += STEP * (carried - self._rate)
        elif not self._n_full:
            self._rate = max(self._rate, carried)
        self._bytes = self._requests = 0
        self._spent_s = 0.0
