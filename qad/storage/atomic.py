"""The only writer: a file or folder appears under its final name whole, or not at all.

A temporary ``.<name>.<pid>-<random>.part`` in the same folder is written, flushed, synced and renamed, and then the
folder is synced, so that a power cut after the rename cannot leave a final name without its bytes.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qad.errors import StorageError

STALE_SECONDS = 86_400.0
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EIO}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into a StorageError that names the folder."""
    try:
        yield
    except OSError as error:
        folder = path.parent
        if error.errno in _FULL:
            raise StorageError(f"{folder}: no space left to write {path.name}; make room and run again") from error
        if error.errno in _UNWRITABLE:
            raise StorageError(f"{folder}: cannot write {path.name}: {error.strerror}") from error
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, inside :func:`storage_errors`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # below /proc, say: the kernel has no such folder and makes none
        raise StorageError(f"{folder}: cannot be made: {error.strerror}") from error


def check_space(path: Path, n_bytes: int) -> None:
    """Raise StorageError unless `n_bytes` more can be written beside `path`.

    A file system may still fill up afterwards, or a quota be met: writing says so then.
    """
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        raise StorageError(
            f"{path.parent}: no space left to write {path.name}: {n_bytes / 1e6:,.1f} MB are needed and "
            f"{free / 1e6:,.1f} MB free; make room and run again"
        )


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` that no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it becomes `path` if the block ends without an error.

    Raises
    ------
    StorageError
        If the disk is full or the folder cannot be written.
    """
    with storage_errors(path):
        make_folder(path.parent)
        partial = temporary_name(path)
        try:
            yield partial
            sync(partial)
            partial.replace(path)
            sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, keep: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """Yield a temporary folder to fill; it becomes `path`, replacing it, if the block ends without an error.

    A folder cannot be swapped in one step: between two renames a crash leaves `path` absent and its older content
    beside it, as ``.<name>…old.part``, never a mixture.

    `keep` says, when all is written and `path` exists, whether that is as good: then it stays, and ours is removed.
    """
    with storage_errors(path):
        make_folder(path.parent)
        partial = temporary_name(path)
        partial.mkdir()
        try:
            yield partial
            for item in sorted(partial.rglob("*")):
                if item.is_file():
                    sync(item)
            sync(partial)
            while not _is_renamed(partial, path):
                if keep():
                    break
                # another process may have removed it just now
                with suppress(FileNotFoundError):
                    old = temporary_name(path.with_name(path.name + ".old"))
                    path.rename(old)
                    shutil.rmtree(old)
            sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _is_renamed(folder: Path, path: Path) -> bool:
    """Give a folder its final name, and return False where that is taken."""
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole."""
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a text file whole, as UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document whole; keys keep their order."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove_stale_parts(folder: Path, older_than_s: float = STALE_SECONDS) -> int:
    """Remove what killed processes left in `folder`, and return how many.

    Only ``.part`` names of :func:`temporary_name` count whose process is gone and that have not been touched for
    `older_than_s` seconds: on a shared disk the process may live on another machine.
    """
    removed = 0
    if not folder.is_dir():
        return 0
    for part in folder.glob(".*.part"):
        owner = part.name.removesuffix(".part").rpartition(".")[2].partition("-")[0]
        try:
            is_old = time.time() - part.lstat().st_mtime > older_than_s
        except FileNotFoundError:
            continue
        if not owner.isdigit() or not is_old or _is_running(int(owner)):
            continue
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
        removed += 1
    return removed


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
