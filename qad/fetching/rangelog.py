"""What has come of a remote file so far: its wanted pieces in the order of their coming, each with its own checksum.

Ranges of many places come in any order, so no size tells how far a file is.  They are appended to one partial file,
record after record; a killed process leaves at most one torn record, which the next one cuts off.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from types import TracebackType

from qad.errors import QadError
from qad.fetching.partial import Buffer, Partial

_HEAD = struct.Struct("<4sQQQII")  # magic, start, stop, sum, number of pieces, CRC of all but itself
_PIECE = struct.Struct("<QQ")  # offset in the remote file, length
_MAGIC = b"qadR"
MAX_PIECES = 1 << 20
WAITING_BYTES = 256 << 10
"""Records are written together: what a killed process loses of them is asked for again."""


class RangeLog:
    """Pieces of a remote file in a partial file; methods may be called from several threads.

    A *span* is what a request asked for, a *piece* what was kept of it: gaps between wanted rows are not.  Use it as a
    context manager: at its end everything is written.

    Parameters
    ----------
    partial : Partial
        Its records are taken up; what follows the last sound one is cut off.
    check : callable
        Raises to end a long read.
    """

    def __init__(self, partial: Partial, check: Callable[[], None] = lambda: None) -> None:
        self._partial = partial
        self._lock = Lock()
        self._pieces: list[tuple[int, int, int]] = []  # offset, stop, place in the partial file; sorted
        self._spans: list[tuple[int, int, int]] = []  # start, stop, sum; sorted
        self._end = self._written = 0
        self._waiting: list[bytes] = []
        self.n_taken_up = 0
        self._take_up(check)
        self._written = self._end

    def __enter__(self) -> RangeLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def add(self, start: int, stop: int, total: int, pieces: Sequence[tuple[int, Buffer]]) -> None:
        """Keep pieces of the span [start, stop), whose 32-bit words add up to `total`."""
        table = b"".join(_PIECE.pack(offset, len(data)) for offset, data in pieces)
        payload = b"".join(data for _, data in pieces)
        head = _HEAD.pack(_MAGIC, start, stop, total, len(pieces), 0)[:-4]
        crc = zlib.crc32(payload, zlib.crc32(table, zlib.crc32(head)))
        record = b"".join((head, struct.pack("<I", crc), table, payload))
        with self._lock:
            self._waiting.append(record)
            self._note(start, stop, total, [(offset, len(data)) for offset, data in pieces], self._end)
            self._end += len(record)
            if self._end - self._written >= WAITING_BYTES:
                self._write()

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            self._write()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._partial.truncate()
            self._pieces, self._spans, self._waiting = [], [], []
            self._end = self._written = 0

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the intervals of [start, stop) of which there are no pieces."""
        return _uncovered(self._pieces, start, stop)

    def unasked(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the intervals of [start, stop) that no span covers."""
        return _uncovered(self._spans, start, stop)

    def span_sum(self, start: int, stop: int) -> int:
        """Return the sum of the words of the spans within [start, stop)."""
        with self._lock:
            return sum(total for begin, end, total in self._spans if start <= begin and end <= stop)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes [start, stop), all of which must be there."""
        self.flush()
        place = bisect_right(self._pieces, (start, 1 << 63, 0)) - 1
        while start < stop:
            offset, end, position = self._pieces[place] if 0 <= place < len(self._pieces) else (0, 0, 0)
            if not offset <= start < end:
                raise QadError(f"byte {start:,} has not come")
            n_bytes = min(stop, end) - start
            data = self._partial.read(n_bytes, position + start - offset)
            if len(data) != n_bytes:
                raise QadError(f"{self._partial.path.name} has been cut; run again")
            yield data
            start += n_bytes
            place += 1

    def _write(self) -> None:
        if self._waiting:
            data, self._waiting = b"".join(self._waiting), []
            self._partial.write(data, self._written)
            self._written += len(data)

    def _take_up(self, check: Callable[[], None]) -> None:
        size = self._partial.size
        while (record := self._record_at(self._end, size)) is not None:
            check()
            start, stop, total, table, n_bytes = record
            self._note(start, stop, total, table, self._end)
            self.n_taken_up += sum(length for _, length in table)
            self._end += n_bytes
        self._partial.truncate(self._end)

    def _record_at(self, place: int, size: int) -> tuple[int, int, int, list[tuple[int, int]], int] | None:
        """Return span, sum, pieces and size of the record at `place`; None if there is no sound one."""
        head = self._partial.read(_HEAD.size, place)
        if len(head) < _HEAD.size:
            return None
        magic, start, stop, total, n_pieces, crc = _HEAD.unpack(head)
        if magic != _MAGIC or n_pieces > MAX_PIECES:
            return None
        raw = self._partial.read(n_pieces * _PIECE.size, place + _HEAD.size)
        table = list(_PIECE.iter_unpack(raw[: len(raw) // _PIECE.size * _PIECE.size]))
        n_bytes = sum(length for _, length in table)
        end = place + _HEAD.size + n_pieces * _PIECE.size + n_bytes
        if len(table) < n_pieces or end > size:
            return None
        payload = self._partial.read(n_bytes, end - n_bytes)
        if zlib.crc32(payload, zlib.crc32(raw, zlib.crc32(head[:-4]))) != crc:
            return None
        return start, stop, total, [(offset, length) for offset, length in table], end - place

    def _note(self, start: int, stop: int, total: int, table: Sequence[tuple[int, int]], place: int) -> None:
        position = place + _HEAD.size + len(table) * _PIECE.size
        insort(self._spans, (start, stop, total))
        for offset, length in table:
            insort(self._pieces, (offset, offset + length, position))
            position += length


def _uncovered(intervals: Sequence[tuple[int, int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """Return what sorted intervals leave of [start, stop)."""
    left = []
    place = max(bisect_right(intervals, (start, 1 << 63, 0)) - 1, 0)
    for begin, end, _ in intervals[place:]:
        if begin >= stop:
            break
        if begin > start:
            left.append((start, begin))
        start = max(start, end)
    if start < stop:
        left.append((start, stop))
    return left
