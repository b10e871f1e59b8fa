"""Files in the making: named by what they will hold, found again by the next run, renamed when they are verified."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from qad.errors import QadError
from qad.fetching.receipt import regular_status
from qad.fetching.source import RemoteFile
from qad.storage.atomic import remove_stale_parts, storage_errors

SUFFIX = ".qad-part"
STALE_RECEIPT_S = 0.5
"""Writing a receipt takes milliseconds: one that was begun so long ago by a process that is gone was left behind."""
CHUNK_BYTES = 1 << 20
Buffer = bytes | bytearray | memoryview
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Partial:
    """An open partial file; writing to one that has been closed is an error, never a write to another file.

    Attributes
    ----------
    path : Path
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._lock = Lock()

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return os.fstat(self._descriptor).st_size

    def beside(self, what: str) -> Path:
        """Return the name of something else in the making of the same file."""
        return self.path.with_name(f"{self.path.name.removesuffix(SUFFIX)}-{what}{SUFFIX}")

    def truncate(self, size: int = 0) -> None:
        """Throw away what lies behind `size`."""
        os.ftruncate(self._descriptor, size)

    def write(self, data: Buffer, offset: int) -> None:
        """Write at an offset."""
        view = memoryview(data)
        while view:
            with self._lock:
                if self._descriptor < 0:
                    raise QadError(f"{self.path.name} has been closed")
                n_written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[n_written:], offset + n_written

    def read(self, n_bytes: int, offset: int) -> bytes:
        """Return bytes at an offset; fewer where the file ends."""
        return os.pread(self._descriptor, n_bytes, offset)

    def chunks(self, start: int, stop: int, check: Callable[[], None]) -> Iterator[memoryview]:
        """Yield the bytes [start, stop), each piece overwritten by the next; `check` may raise to end it."""
        buffer = memoryview(bytearray(min(CHUNK_BYTES, max(stop - start, 0))))
        while start < stop and (n_read := os.preadv(self._descriptor, [buffer[: stop - start]], start)):
            check()
            yield buffer[:n_read]
            start += n_read

    def commit(self, final: Path, size: int) -> None:
        """Give verified bytes their name; whoever writes the folder's receipt syncs the folder after it."""
        os.fsync(self._descriptor)
        ours, named = os.fstat(self._descriptor), regular_status(self.path)
        # where locks do not hold, another process may have begun the file again: then this one has nothing to give
        if named is None or ours.st_size != size or not os.path.samestat(ours, named):
            raise QadError("another process touched the partial file; run again")
        self.path.replace(final)

    def close(self) -> None:
        """Close it."""
        with self._lock:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def open_partial(path: Path, resume: bool = True) -> Iterator[Partial]:
    """Open a partial file for this process alone.

    Parameters
    ----------
    path : Path
    resume : bool
        Keep what an earlier run left.
    """
    try:
        descriptor = os.open(path, _FLAGS, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        path.unlink()  # a symbolic link that somebody planted
        descriptor = os.open(path, _FLAGS, 0o666)
    partial = Partial(path, descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):  # any other: a file system without locks
                raise QadError("another process is fetching it; run again when that one is done") from None
        if not resume:
            partial.truncate()
        yield partial
    finally:
        partial.close()


def partial_path(final: Path, file: RemoteFile, what: str = "") -> Path:
    """Return where the bytes of this version of a file wait; `what` tells which of its bytes, if not all."""
    key = hashlib.sha256(f"{file.etag} {file.size}{what and ' '}{what}".encode()).hexdigest()[:16]
    return final.with_name(f".{final.name}.{key}{SUFFIX}")


def remove_partials(folder: Path, stem: str = "") -> None:
    """Remove what is left in a folder of files in the making, or of one partial file's parts."""
    try:
        with storage_errors(folder / stem), os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(stem or ".")]
            for name in names:
                if name.endswith(SUFFIX):
                    (folder / name).unlink(missing_ok=True)
            if any(name.endswith(".part") for name in names):
                remove_stale_parts(folder, STALE_RECEIPT_S)
    except FileNotFoundError:
        return
