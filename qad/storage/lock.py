"""One process at a time in a stage of a work directory: a clear message for the second, not a guard of truth.

Shared file systems can grant a lock twice, so nothing rests on it: temporary names are unique and outputs
deterministic, and the worst of a broken lock is work done twice.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qad.errors import ConfigError
from qad.storage.atomic import make_folder, storage_errors


@contextmanager
def stage_lock(folder: Path, stage: str) -> Iterator[None]:
    """Hold the lock of `stage` in `folder`.

    Raises
    ------
    ConfigError
        If another process holds it; the message names its process id.
    """
    path = folder / f"{stage}.lock"
    with storage_errors(path):
        make_folder(folder)
        handle = path.open("a+")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            raise ConfigError(
                f"another qad {stage} (process {owner}) works in {folder.parent.parent}; wait for it, or use another --root"
            ) from None
        handle.seek(0)
        handle.truncate()
        handle.write(str(os.getpid()))
        handle.flush()
        yield
