"""One file from a source to its final name: by ranges, resumed at the byte, hashed while it passes, verified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Event, Lock, local

from qad.fetching.checksums import MismatchError
from qad.fetching.crew import Crew
from qad.fetching.line import Line
from qad.fetching.partial import SUFFIX, Buffer, Partial, open_partial, partial_path, remove_partials
from qad.fetching.receipt import regular_status
from qad.fetching.retry import Patience
from qad.fetching.source import DeniedError, Readable, RemoteFile, Source, SourceError, TransientError
from qad.storage.atomic import check_space, storage_errors

STOP_TICK_S = 0.2

BUFFER_BYTES = 256 << 10
PROGRESS_BYTES = 64 << 10
"""An attempt that brought at least this much gives the retry budget back."""
MAX_ROUNDS = 3
"""How often a file whose bytes do not agree with their checksum is fetched before it is given up."""
_of_thread = local()


@dataclass
class Meter:
    """What all threads have moved so far, in bytes."""

    received: int = 0
    resumed: int = 0
    kept: int = 0
    _lock: Lock = field(default_factory=Lock)

    def add(self, received: int = 0, resumed: int = 0, kept: int = 0) -> None:
        """Count."""
        with self._lock:
            self.received += received
            self.resumed += resumed
            self.kept += kept

    @property
    def handled(self) -> int:
        """Bytes that need no more work."""
        return self.received + self.resumed + self.kept


@dataclass(frozen=True)
class Transfer:
    """How files are moved.

    Attributes
    ----------
    source : Source
    patience : Patience
    line : Line
    crew : Crew
    part_bytes : int
        Size of one range request.
    resume : bool
        Go on with partial files.
    meter : Meter
    """

    source: Source
    patience: Patience
    line: Line
    crew: Crew
    part_bytes: int
    resume: bool
    meter: Meter


class Hashes:
    """The hashes of a file's bytes as they pass."""

    def __init__(self, with_md5: bool) -> None:
        self._sha256 = hashlib.sha256()
        # not for security: S3 gives the MD5 of an object as its ETag
        self._md5 = hashlib.md5(usedforsecurity=False) if with_md5 else None

    def update(self, data: Buffer) -> None:
        """Take the next bytes."""
        self._sha256.update(data)
        if self._md5 is not None:
            self._md5.update(data)

    @property
    def sha256(self) -> str:
        """The SHA-256 so far."""
        return self._sha256.hexdigest()

    @property
    def md5(self) -> str:
        """The MD5 so far, empty if nobody asked for it."""
        return self._md5.hexdigest() if self._md5 is not None else ""


Verify = Callable[[Hashes, Path], str]
"""Says how bytes are verified, or raises MismatchError."""


def download(transfer: Transfer, file: RemoteFile, final: Path, verify: Verify, with_md5: bool) -> tuple[str, str]:
    """Fetch `file` as `final`, and return its SHA-256 and how it was verified.

    The bytes wait as ``.<name>.<key>.qad-part``, where the key is a hash of ETag and size: another version of the
    object can never continue them.  Parts of a large file that other threads bring wait beside it, with their first
    byte in the name.  What such a file holds is its size: a killed process leaves it, and the next one goes on from its
    last byte.

    Raises
    ------
    MismatchError
        If the bytes do not agree with their checksum and come again the same, or differ each of three times; nothing
        is kept.
    SourceError, ServiceError, StorageError, StoppedError
        The partial file is kept.
    """
    before = ""
    place = partial_path(final, file)
    if not transfer.resume and file.size > transfer.part_bytes:
        remove_partials(final.parent, place.name.removesuffix(SUFFIX))
    for _ in range(MAX_ROUNDS):
        with storage_errors(final), open_partial(place, transfer.resume) as partial:
            with transfer.line.file(file.size, transfer.patience.check):
                hashes = _Filling(transfer, file, partial, with_md5).fill()
            try:
                verified = verify(hashes, partial.path)
            except MismatchError as error:
                partial.path.unlink(missing_ok=True)
                # the same bytes twice were not spoilt on the way
                if hashes.sha256 == before:
                    raise MismatchError(
                        f"{error}; the source gives the same bytes again: damaged there, or its list is"
                    ) from None
                before, mismatch = hashes.sha256, error
                continue
            partial.commit(final, file.size)
            return hashes.sha256, verified
    raise MismatchError(
        f"{mismatch}; other bytes came each of {MAX_ROUNDS} times: is something in between spoiling them?"
    )


def read_range(
    transfer: Transfer, file: RemoteFile, start: int, stop: int, take: Callable[[memoryview, int], None]
) -> None:
    """Give the bytes [start, stop) of a file to `take`, piece by piece in order, each with its offset.

    A piece is overwritten by the next one.
    """
    buffer = _own_buffer()

    def attempt(at: _Place) -> None:
        with transfer.source.open(file, at.offset, stop) as body:
            transfer.patience.answered()
            while at.offset < stop:
                n_bytes = _next_piece(transfer, body, buffer[: stop - at.offset], stop - at.offset)
                take(buffer[:n_bytes], at.offset)
                at.offset += n_bytes

    _persist(transfer, start, stop, attempt)


def read_bytes(transfer: Transfer, file: RemoteFile, start: int, stop: int) -> bytes:
    """Return the bytes [start, stop) of a file."""
    data = bytearray(stop - start)
    view = memoryview(data)

    def attempt(at: _Place) -> None:
        with transfer.source.open(file, at.offset, stop) as body:
            transfer.patience.answered()
            while at.offset < stop:
                at.offset += _next_piece(transfer, body, view[at.offset - start :], stop - at.offset)

    _persist(transfer, start, stop, attempt)
    return bytes(data)


@dataclass
class _Place:
    """How far a range has come."""

    offset: int


def _persist(transfer: Transfer, start: int, stop: int, attempt: Callable[[_Place], None]) -> None:
    """Repeat attempts until a range has come, each from the byte after the last one that came."""
    attempts = transfer.patience.attempts()
    was_denied = False
    at = _Place(start)
    while at.offset < stop:
        began = at.offset
        transfer.patience.check()
        try:
            attempt(at)
        except (TransientError, DeniedError) as error:
            if isinstance(error, DeniedError) and was_denied:
                raise
            was_denied = isinstance(error, DeniedError)
            passing = error if isinstance(error, TransientError) else TransientError(str(error))
            attempts.failed(passing, progressed=at.offset - began >= PROGRESS_BYTES)


def _next_piece(transfer: Transfer, body: Readable, buffer: memoryview, n_left: int) -> int:
    n_bytes = body.readinto(buffer)
    if not n_bytes:
        raise TransientError(f"the connection ended {n_left:,} bytes early")
    transfer.meter.add(received=n_bytes)
    transfer.patience.check()
    return n_bytes


def _own_buffer() -> memoryview:
    """Return the buffer of this thread: allocating one for each piece takes longer than filling it."""
    buffer: memoryview | None = getattr(_of_thread, "buffer", None)
    if buffer is None:
        buffer = _of_thread.buffer = memoryview(bytearray(BUFFER_BYTES))
    return buffer


class _Filling:
    """Bringing a partial file to its full size: its own thread from the front, others where they have a hand free."""

    def __init__(self, transfer: Transfer, file: RemoteFile, partial: Partial, with_md5: bool) -> None:
        self._transfer, self._file, self._partial = transfer, file, partial
        self._hashes = Hashes(with_md5)
        self._offset = 0

    def fill(self) -> Hashes:
        """Bring every byte that is missing, and return the hashes of all."""
        self._take_up()
        if self._file.size > self._transfer.part_bytes:
            check_space(self._partial.path, self._file.size - self._offset)
        segments = self._segments()
        # from the end, where the thread of this file comes last
        lent = self._transfer.crew.lend([segment.bring for segment in reversed(segments[1:])])
        try:
            for segment in segments:
                if segment.claim():
                    self._transfer.meter.add(resumed=segment.n_held)
                    self._read(segment)
                else:
                    segment.wait()
                    self._copy(segment)
                    if self._offset < segment.stop:  # whoever brought it has failed: see for ourselves
                        self._read(segment)
        finally:
            self._transfer.crew.withdraw(lent)
        return self._hashes

    def _take_up(self) -> None:
        """Hash what an earlier run left."""
        size = self._partial.size
        if size > self._file.size:
            self._partial.truncate()
            return
        for data in self._partial.chunks(0, size, self._transfer.patience.check):
            self._hashes.update(data)
            self._offset += len(data)
        self._transfer.meter.add(resumed=self._offset)

    def _segments(self) -> list[_Segment]:
        """Cut what is missing at multiples of the part size."""
        size, part = self._file.size, self._transfer.part_bytes
        cuts = range((self._offset // part + 1) * part, size, part) if self._offset < size else ()
        starts = [self._offset, *cuts] if self._offset < size else []
        return [_Segment(self._transfer, self._file, self._partial, *ends) for ends in pairwise([*starts, size])]

    def _read(self, segment: _Segment) -> None:
        """Bring a segment in this thread: what somebody left of it first."""
        self._copy(segment)
        read_range(self._transfer, self._file, self._offset, segment.stop, self._take)

    def _copy(self, segment: _Segment) -> None:
        if segment.path.exists():
            with segment.opened() as brought:
                size = min(brought.size, segment.stop - segment.start)
                for data in brought.chunks(self._offset - segment.start, size, self._transfer.patience.check):
                    self._take(data, self._offset)
            segment.path.unlink(missing_ok=True)

    def _take(self, data: Buffer, offset: int) -> None:
        self._partial.write(data, offset)
        self._hashes.update(data)
        self._offset = offset + len(memoryview(data))


class _Segment:
    """A part of a large file that another thread may bring, into a partial file of its own."""

    def __init__(self, transfer: Transfer, file: RemoteFile, partial: Partial, start: int, stop: int) -> None:
        self._transfer, self._file = transfer, file
        self.start, self.stop = start, stop
        self.path = partial.beside(str(start))
        self._claimed = Lock()
        self._done = Event()

    def claim(self) -> bool:
        """Take the segment, unless somebody has."""
        return self._claimed.acquire(blocking=False)

    @property
    def n_held(self) -> int:
        """Bytes that an earlier run left."""
        status = regular_status(self.path)
        return min(status.st_size, self.stop - self.start) if status is not None else 0

    def wait(self) -> None:
        """Return when whoever took it is done with it."""
        while not self._done.wait(STOP_TICK_S):
            self._transfer.patience.check()

    def bring(self) -> None:
        """Bring the segment, unless somebody has begun it; what it cannot bring the file's own thread meets again."""
        if not self.claim():
            return
        try:
            with storage_errors(self.path), self.opened() as partial:
                offset = min(partial.size, self.stop - self.start)
                self._transfer.meter.add(resumed=offset)
                read_range(
                    self._transfer,
                    self._file,
                    self.start + offset,
                    self.stop,
                    lambda data, at: partial.write(data, at - self.start),
                )
        except SourceError:
            pass
        finally:
            self._done.set()

    def opened(self) -> AbstractContextManager[Partial]:
        """Open its partial file."""
        return open_partial(self.path)
