"""One file from a source to its final name: by ranges, resumed at the byte, hashed while it passes, verified."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from qad.errors import QadError
from qad.fetching.checksums import MismatchError
from qad.fetching.receipt import regular_status
from qad.fetching.retry import Patience
from qad.fetching.source import DeniedError, RemoteFile, Source, TransientError
from qad.storage.atomic import storage_errors, sync

BUFFER_BYTES = 256 << 10
HASH_BUFFER_BYTES = 1 << 20
PROGRESS_BYTES = 64 << 10
"""An attempt that brought at least this much gives the retry budget back."""
MAX_ROUNDS = 3
"""How often a file whose bytes do not agree with their checksum is fetched before it is given up."""


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
    part_bytes : int
        Size of one range request.
    resume : bool
        Go on with partial files.
    meter : Meter
    """

    source: Source
    patience: Patience
    part_bytes: int
    resume: bool
    meter: Meter


class Hashes:
    """The hashes of a file's bytes as they pass."""

    def __init__(self, with_md5: bool) -> None:
        self._sha256 = hashlib.sha256()
        # not for security: S3 gives the MD5 of an object as its ETag
        self._md5 = hashlib.md5(usedforsecurity=False) if with_md5 else None

    def update(self, data: memoryview) -> None:
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
    object can never continue them.  A killed process leaves that file, and the next one goes on from its last byte.

    Raises
    ------
    MismatchError
        If the bytes do not agree with their checksum and come again the same, or differ each of three times; nothing
        is kept.
    SourceError, ServiceError, StorageError, StoppedError
        The partial file is kept.
    """
    before = ""
    for _ in range(MAX_ROUNDS):
        with storage_errors(final), _partial(transfer, file, final) as (descriptor, path):
            hashes = _fill(transfer, file, descriptor, with_md5)
            try:
                verified = verify(hashes, path)
            except MismatchError as error:
                path.unlink(missing_ok=True)
                # the same bytes twice were not spoilt on the way
                if hashes.sha256 == before:
                    raise MismatchError(
                        f"{error}; the source gives the same bytes again: damaged there, or its list is"
                    ) from None
                before, mismatch = hashes.sha256, error
                continue
            _commit(descriptor, path, final, file.size)
            return hashes.sha256, verified
    raise MismatchError(
        f"{mismatch}; other bytes came each of {MAX_ROUNDS} times: is something in between spoiling them?"
    )


def partial_path(final: Path, file: RemoteFile) -> Path:
    """Return where the bytes of this version of a file wait."""
    key = hashlib.sha256(f"{file.etag} {file.size}".encode()).hexdigest()[:16]
    return final.with_name(f".{final.name}.{key}.qad-part")


def remove_partials(final: Path, but: Path | None = None) -> None:
    """Remove what is left of other versions of a file."""
    with storage_errors(final):
        for path in final.parent.glob(f".{final.name}.*.qad-part"):
            if path != but:
                path.unlink(missing_ok=True)


@contextmanager
def _partial(transfer: Transfer, file: RemoteFile, final: Path) -> Iterator[tuple[int, Path]]:
    """Open the partial file for this process alone."""
    path = partial_path(final, file)
    remove_partials(final, but=path if transfer.resume and not path.is_symlink() else None)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):  # any other: a file system without locks
                raise QadError("another process is fetching it; run again when that one is done") from None
        yield descriptor, path
    finally:
        os.close(descriptor)


def _fill(transfer: Transfer, file: RemoteFile, descriptor: int, with_md5: bool) -> Hashes:
    """Bring the partial file to its full size, and return the hashes of all its bytes."""
    hashes = Hashes(with_md5)
    offset = _take_up(transfer, file, descriptor, hashes)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    attempts = transfer.patience.attempts()
    was_denied = False
    while offset < file.size:
        began = offset
        stop = min(offset + transfer.part_bytes, file.size)
        try:
            with closing(_pieces(transfer, file, offset, stop, buffer)) as pieces:
                for piece in pieces:
                    _write(descriptor, piece, offset)
                    hashes.update(piece)
                    offset += len(piece)
                    transfer.meter.add(received=len(piece))
        except (TransientError, DeniedError) as error:
            if isinstance(error, DeniedError) and was_denied:
                raise
            was_denied = isinstance(error, DeniedError)
            passing = error if isinstance(error, TransientError) else TransientError(str(error))
            attempts.failed(passing, progressed=offset - began >= PROGRESS_BYTES)
        else:
            attempts = transfer.patience.attempts()
    return hashes


def _pieces(
    transfer: Transfer, file: RemoteFile, start: int, stop: int, buffer: memoryview
) -> Generator[memoryview, None, None]:
    """Yield the bytes [start, stop) of a file as they come; each piece is overwritten by the next."""
    transfer.patience.check()
    with transfer.source.open(file, start, stop) as body:
        transfer.patience.answered()
        while start < stop:
            n_got = body.readinto(buffer[: stop - start])
            if n_got == 0:
                raise TransientError(f"the connection ended {stop - start:,} bytes early")
            yield buffer[:n_got]
            start += n_got
            transfer.patience.check()


def _take_up(transfer: Transfer, file: RemoteFile, descriptor: int, hashes: Hashes) -> int:
    """Hash what an earlier run left, and return how much that is."""
    size = os.fstat(descriptor).st_size
    if size > file.size:
        os.ftruncate(descriptor, 0)
        return 0
    buffer = memoryview(bytearray(HASH_BUFFER_BYTES))
    offset = 0
    while offset < size and (n_read := os.preadv(descriptor, [buffer], offset)):
        transfer.patience.check()
        hashes.update(buffer[:n_read])
        offset += n_read
    transfer.meter.add(resumed=offset)
    return offset


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        n_written = os.pwrite(descriptor, data, offset)
        data, offset = data[n_written:], offset + n_written


def _commit(descriptor: int, path: Path, final: Path, size: int) -> None:
    """Give verified bytes their name, so that a power cut cannot part the two."""
    os.fsync(descriptor)
    ours, named = os.fstat(descriptor), regular_status(path)
    # where locks do not hold, another process may have begun the file again: then this one has nothing to give
    if named is None or ours.st_size != size or not os.path.samestat(ours, named):
        raise QadError("another process touched the partial file; run again")
    path.replace(final)
    sync(final.parent)
