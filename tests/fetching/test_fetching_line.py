"""How many requests are under way, and how wide a gap is fetched along: bounds that hold whatever the line does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.fetching.line import FIRST_LARGE, LARGE_BYTES, LARGE_FILE_BYTES, LARGE_SHARE, MAX_GAP_BYTES, Line
from qad.fetching.retry import StoppedError

ANSWERS = st.lists(
    st.tuples(st.floats(0, 5), st.floats(0, 60), st.integers(0, 1 << 40), st.floats(0, 2)), min_size=1, max_size=40
)
"""First byte after, seconds in all, bytes, seconds till the next."""


class Clock:
    """A clock that stands still until it is told to go on, in a process that does nothing but wait."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def process_time(self) -> float:
        return 0.0


def never() -> None:
    pass


@settings(max_examples=100, deadline=None)
@given(connections=st.integers(1, 256), answers=ANSWERS)
def test_the_gap_is_never_above_its_cap_and_never_negative(
    connections: int, answers: list[tuple[float, float, int, float]]
) -> None:
    clock = Clock()
    with patch("qad.fetching.line.time", clock):
        line = Line(connections)
        for first, seconds, n_bytes, wait in answers:
            line.answered(first, first + seconds, n_bytes)
            clock.now += wait
            assert 0 <= line.gap_bytes <= MAX_GAP_BYTES
            assert line.rate > 0
            assert line.latency_s <= max(first for first, *_ in answers)


@settings(max_examples=60, deadline=None)
@given(
    connections=st.integers(1, 64),
    rate=st.floats(1e4, 1e10),
    latency=st.floats(0, 2),
    faster=st.floats(1, 10),
    slower=st.floats(1, 10),
)
def test_the_gap_grows_with_rate_and_latency(
    connections: int, rate: float, latency: float, faster: float, slower: float
) -> None:
    def gap(rate: float, latency: float) -> int:
        """Return the gap after a second on a full line of this rate and latency."""
        clock = Clock()
        with patch("qad.fetching.line.time", clock):
            line = Line(connections)
            for _ in range(60):
                clock.now += 0.3
                line.answered(latency, 10 * latency + 1, int(0.3 * rate))
            return line.gap_bytes

    assert gap(rate, latency) <= gap(rate * faster, latency)
    assert gap(rate, latency) <= gap(rate, latency * slower)


@settings(max_examples=60, deadline=None)
@given(connections=st.integers(1, 64), events=st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=60))
def test_slow_down_halves_and_good_answers_add(connections: int, events: list[tuple[bool, float]]) -> None:
    clock = Clock()
    with patch("qad.fetching.line.time", clock):
        line = Line(connections)
        expected, slowed_at = float(connections), float("-inf")
        for is_busy, wait in events:
            clock.now += wait
            if is_busy and clock.now - slowed_at >= 1:
                expected, slowed_at = max(1.0, expected / 2), clock.now
            elif not is_busy:
                expected = min(float(connections), expected + 1 / expected)
            line.slow_down() if is_busy else line.answered(0.01, 0.02, 1000)
            assert room(line, small=True) == most_under_way(expected)
            assert room(line, small=False) == most_under_way(line.large_limit)
            assert line.large_limit <= max(1.0, expected / LARGE_SHARE)


def most_under_way(limit: float) -> int:
    """Return how many requests a limit lets through."""
    return -int(-limit // 1)


def room(line: Line, small: bool) -> int:
    """Return how many requests get through at once."""

    def full() -> None:
        raise StoppedError("full")

    with ExitStack() as stack, patch("qad.fetching.line.TICK_S", 0):
        for n in range(1000):
            try:
                stack.enter_context(line.slot(1000 if small else LARGE_BYTES, full))
            except StoppedError:
                return n
    raise AssertionError("no limit at all")


@pytest.mark.parametrize("connections", [1, 3, 8])
def test_no_more_are_under_way_than_is_allowed(connections: int) -> None:
    line = Line(connections)
    lock = threading.Lock()
    seen: list[tuple[int, int]] = []
    now = [0, 0]

    def ask(n_bytes: int) -> None:
        for _ in range(30):
            with line.slot(n_bytes, never):
                with lock:
                    now[n_bytes >= LARGE_BYTES] += 1
                    seen.append((sum(now), now[1]))
                time.sleep(0.0002)
                with lock:
                    now[n_bytes >= LARGE_BYTES] -= 1
            line.slow_down()
            line.answered(0.001, 0.001, n_bytes)

    threads = [threading.Thread(target=ask, args=(size,)) for size in [1000, LARGE_BYTES] * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "everybody gets a turn"
    assert max(total for total, _ in seen) <= connections
    assert max(large for _, large in seen) <= max(1, -(-connections // LARGE_SHARE))
    assert line.in_flight == 0


@pytest.mark.parametrize(("what", "n_bytes"), [("slot", 1), ("slot", LARGE_BYTES), ("file", LARGE_FILE_BYTES)])
def test_whoever_waits_can_be_stopped_and_nothing_is_lost(what: str, n_bytes: int) -> None:
    line = Line(1)

    def stop() -> None:
        raise StoppedError("stopped")

    def hold(check: Callable[[], None]) -> AbstractContextManager[None]:
        held: AbstractContextManager[None] = getattr(line, what)(n_bytes, check)
        return held

    for _ in range(2):
        with hold(never), pytest.raises(StoppedError), hold(stop):
            pass
    with hold(never):
        assert line.in_flight == (what == "slot")
    assert line.in_flight == 0


def test_an_error_inside_gives_the_place_back() -> None:
    line = Line(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="x"), line.slot(1, never), line.file(LARGE_FILE_BYTES, never):
            raise ValueError("x")
    assert line.in_flight == 0


def test_parts_of_a_large_file_are_lent_only_where_the_files_in_work_leave_room() -> None:
    line = Line(64)
    with ExitStack() as files:
        for _ in range(FIRST_LARGE - 1):
            files.enter_context(line.file(LARGE_FILE_BYTES, never))
        with line.spare() as first, line.spare() as second:
            assert (first, second) == (True, False)
        with line.file(LARGE_FILE_BYTES, never), line.spare() as may:
            assert not may
    with line.spare() as may:
        assert may
