"""Release files in a local folder, read through the same door as a bucket's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock

from qad.errors import InputError
from qad.fetching.line import Line
from qad.fetching.retry import Patience
from qad.fetching.source import ChangedError, MissingError, RemoteFile, Reopen, SourceError, Transport, is_safe_key


class LocalSource:
    """A folder; symbolic links are followed only where they stay inside `root`.

    Parameters
    ----------
    root : Path
    boundary : Path, optional
        The folder that links must not leave; `root` itself by default.
    """

    transport: Transport = "disk"

    def __init__(self, root: Path, boundary: Path | None = None) -> None:
        self._root = root
        self._boundary = (boundary or root).resolve()
        self.url = str(root.absolute()) + "/"
        self.refused = 0
        self._lock = Lock()

    def below(self, prefix: str) -> LocalSource:
        """Return the source rooted at `prefix`."""
        return LocalSource(self._root / prefix, self._boundary)

    def reopen(self) -> Reopen:
        """Return what opens the folder in another process."""
        return partial(_reopen, self._root, self._boundary)

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly in `prefix`, sorted."""
        return sorted(entry.name for entry in self._scan(prefix) if entry.is_dir())

    def files(self, prefix: str) -> list[RemoteFile]:
        """Return every file whose key begins with `prefix`, sorted by key."""
        folder, slash, start = prefix.rpartition("/")
        found: list[RemoteFile] = []
        for entry in self._scan(folder + slash):
            if not entry.name.startswith(start):
                continue
            key = folder + slash + entry.name
            if entry.is_dir():
                found += self.files(key + "/")
            elif entry.is_file():
                status = entry.stat()
                found.append(RemoteFile(key, status.st_size, _tag(status)))
        return sorted(found, key=lambda file: file.key)

    @contextmanager
    def open(self, file: RemoteFile, start: int, stop: int) -> Iterator[_Window]:
        """Open the bytes [start, stop) of `file`.

        Raises
        ------
        ChangedError, MissingError, SourceError
        """
        path = self._root / file.key
        try:
            handle = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise MissingError(f"{path} is gone") from None
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from None
        with handle:
            status = os.fstat(handle.fileno())
            if _tag(status) != file.etag:
                raise ChangedError(f"{path} changed while it was copied")
            if not stat.S_ISREG(status.st_mode):
                raise SourceError(f"{path} is not a file")
            handle.seek(start)
            yield _Window(handle.fileno(), stop - start, path)

    def close(self) -> None:
        """Do nothing."""

    def _scan(self, prefix: str) -> Iterator[os.DirEntry[str]]:
        folder = self._root / prefix
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise InputError(folder, f"cannot be listed: {error.strerror}") from None
        for entry in listed:
            if entry.name.startswith("."):
                continue
            if is_safe_key(entry.name) and self._stays_inside(entry):
                yield entry
            else:
                with self._lock:
                    self.refused += 1

    def _stays_inside(self, entry: os.DirEntry[str]) -> bool:
        if not entry.is_symlink():
            return True
        try:
            return Path(entry.path).resolve(strict=True).is_relative_to(self._boundary)
        except (OSError, RuntimeError):  # a dangling link, or a loop
            return False


def _reopen(root: Path, boundary: Path, _patience: Patience, _line: Line) -> LocalSource:
    return LocalSource(root, boundary)


class _Window:
    """The next `length` bytes of an open file."""

    def __init__(self, descriptor: int, length: int, path: Path) -> None:
        self._descriptor = descriptor
        self._left = length
        self._path = path

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            n_bytes = os.readv(self._descriptor, [buffer[: self._left]])
        except OSError as error:
            raise SourceError(f"{self._path} cannot be read: {error.strerror}") from None
        self._left -= n_bytes
        return n_bytes


def _tag(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
