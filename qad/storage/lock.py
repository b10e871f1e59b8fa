"""One process at a time in a stage of a work directory: a clear message for the second, not a guard of truth.

Shards of one stage work side by side, each in its part: they hold the stage's lock together, and each the lock of its shard.
Shared file systems can grant a lock twice, or none at all, so nothing rests on it: temporary names are unique and outputs
deterministic, and the worst of a broken lock is work done twice.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from qad.errors import ConfigError
from qad.parallel import Share
from qad.storage.atomic import make_folder, storage_errors

_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


@contextmanager
def stage_lock(folder: Path, stage: str, share: Share | None = None) -> Iterator[None]:
    """Hold the lock of `stage` in `folder`; of one of its shards, if `share` is given.

    Raises
    ------
    ConfigError
        If another process holds it; the message names its process id and host.
    """
    with ExitStack() as stack:
        if share is None:
            stack.enter_context(_lock(folder, stage, stage, fcntl.LOCK_EX))
        else:
            stack.enter_context(_lock(folder, stage, stage, fcntl.LOCK_SH))
            name = f"{stage}-{share.index}-of-{share.count}"
            stack.enter_context(_lock(folder, name, f"{stage} --shard {share}", fcntl.LOCK_EX))
        yield


@contextmanager
def _lock(folder: Path, name: str, command: str, kind: int) -> Iterator[None]:
    path = folder / f"{name}.lock"
    with storage_errors(path):
        make_folder(folder)
        handle = path.open("a+")
    with handle:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except OSError as error:
            # a file system that knows no locks (ENOLCK, ENOSYS, EOPNOTSUPP) is no reason to stop
            if error.errno in _HELD:
                handle.seek(0)
                owner = handle.read().strip() or "unknown"
                raise ConfigError(
                    f"another qad {command} (process {owner}) works in {folder.parent.parent}; wait for it, or use another --root"
                ) from None
        handle.seek(0)
        handle.truncate()
        handle.write(f"{os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield
