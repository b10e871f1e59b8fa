"""The pieces of a file in the making: what was written comes back, and what was damaged does not."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.errors import QadError
from qad.fetching.partial import open_partial
from qad.fetching.rangelog import RangeLog

SIZE = 600
WHOLE = bytes((7 * i + i // 251) % 256 for i in range(SIZE))
"""The remote file."""
NAME = ".coadd.fits.0.qad-part"
Add = tuple[int, list[tuple[int, int]]]
"""Where a span begins, and its pieces: how far behind what came before, and how long."""

ADDS = st.lists(
    st.tuples(st.integers(0, SIZE), st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40)), max_size=4)),
    max_size=12,
)


def write(log: RangeLog, adds: list[Add]) -> list[tuple[int, int]]:
    """Add what nobody has added before, as requests do, and return the pieces."""
    written = []
    for start, widths in adds:
        pieces, place = [], start
        for gap, length in widths:
            first, last = min(place + gap, SIZE), min(place + gap + length, SIZE)
            pieces += log.missing(first, last)
            place = last
        log.add(start, place, sum(WHOLE[start:place]), [(a, WHOLE[a:b]) for a, b in pieces])
        written += pieces
    return written


def check(log: RangeLog, written: list[tuple[int, int]], bounds: list[tuple[int, int]]) -> None:
    """Assert that whatever the log says it has is right, and that it has nothing that was never written."""
    held = {i for a, b in written for i in range(a, b)}
    for start, stop in [(0, SIZE), *bounds]:
        missing = log.missing(start, stop)
        assert all(start <= a < b <= stop for a, b in missing)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(missing))
        lacking = {i for a, b in missing for i in range(a, b)}
        assert set(range(start, stop)) - lacking <= held
        place = start
        for a, b in [*missing, (stop, stop)]:
            assert b"".join(log.read(place, a)) == WHOLE[place:a]
            place = b
        for a, b in missing:
            with pytest.raises(QadError, match="has not come"):
                b"".join(log.read(a, b))


@settings(max_examples=80, deadline=None)
@given(adds=ADDS, bounds=st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=4))
def test_what_was_written_comes_back_also_in_the_next_run(
    tmp_path_factory: pytest.TempPathFactory, adds: list[Add], bounds: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("log") / NAME
    with open_partial(path) as opened:
        log = RangeLog(opened)
        written = write(log, adds)
        check(log, written, bounds)
        missing = log.missing(0, SIZE)
    with open_partial(path) as opened:
        again = RangeLog(opened)
        assert again.n_taken_up == sum(b - a for a, b in written)
        assert again.missing(0, SIZE) == missing
        check(again, written, bounds)
        written += write(again, [(0, [(0, SIZE)])])
        assert again.missing(0, SIZE) == []
        check(again, written, bounds)


@settings(max_examples=120, deadline=None)
@given(adds=ADDS, more=ADDS, data=st.data())
def test_a_log_that_was_damaged_never_gives_wrong_bytes(
    tmp_path_factory: pytest.TempPathFactory, adds: list[Add], more: list[Add], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / NAME
    with open_partial(path) as opened:
        written = write(RangeLog(opened), adds)
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    for _ in range(data.draw(st.integers(0, 3)) if raw else 0):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    raw += data.draw(st.binary(max_size=60))
    path.write_bytes(raw)
    with open_partial(path) as opened:
        log = RangeLog(opened)
        check(log, written, [])
        assert opened.size <= len(raw), "what follows the damage is cut off"
        check(log, written + write(log, more), [])
    with open_partial(path) as opened:
        check(RangeLog(opened), [(0, SIZE)], [])


@pytest.mark.parametrize("length", [0, 1, 39, 40, 41, 100])
def test_a_log_that_another_process_has_cut_is_noticed(tmp_path: Path, length: int) -> None:
    with open_partial(tmp_path / NAME) as opened:
        log = RangeLog(opened)
        log.add(0, SIZE, 0, [(0, WHOLE)])
        log.flush()
        opened.truncate(length)
        with pytest.raises(QadError, match="has been cut"):
            b"".join(log.read(0, SIZE))


@settings(max_examples=40, deadline=None)
@given(cuts=st.sets(st.integers(1, SIZE // 4 - 1), max_size=8), lost=st.sets(st.integers(0, 8)))
def test_spans_tell_which_words_of_a_unit_have_been_added_up(
    tmp_path_factory: pytest.TempPathFactory, cuts: set[int], lost: set[int]
) -> None:
    edges = [0, *(4 * cut for cut in sorted(cuts)), SIZE]
    spans = [pair for i, pair in enumerate(itertools.pairwise(edges)) if i not in lost]
    with open_partial(tmp_path_factory.mktemp("log") / NAME) as opened:
        log = RangeLog(opened)
        for start, stop in spans:
            log.add(start, stop, stop - start, [])
        left = log.unasked(0, SIZE)
        assert log.span_sum(0, SIZE) == SIZE - sum(b - a for a, b in left)
        for start, stop in left:
            log.add(start, stop, stop - start, [])
        assert (log.unasked(0, SIZE), log.span_sum(0, SIZE)) == ([], SIZE)
        assert log.missing(0, SIZE) == [(0, SIZE)], "no piece of it was kept"
