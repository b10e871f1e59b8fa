"""What people said of candidates: JSON lines that are only ever appended to, safe for several people at once.

One label is one ``write`` to a file opened with O_APPEND, then fsync.  A torn last line (power cut, full disk) is skipped by
readers (:mod:`qad.storage.labels`) and closed off by the next writer.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from qad.errors import ConfigError
from qad.storage.atomic import storage_errors, sync
from qad.storage.labels import Label

USUAL_LABELS = ("interesting", "known", "artefact", "boring")
MAX_LABEL = 100
MAX_COMMENT = 2000


def new_labels(targetids: Iterable[int], label: str, comment: str = "", model: str = "") -> list[Label]:
    """Return labels by the current user, now.

    Raises
    ------
    ConfigError
        If label or comment are empty or too long.
    """
    label, comment = " ".join(label.split()), " ".join(comment.split())
    if not label or len(label) > MAX_LABEL:
        raise ConfigError(f"a label has 1 to {MAX_LABEL} characters, usually one of {', '.join(USUAL_LABELS)}")
    if len(comment) > MAX_COMMENT:
        raise ConfigError(f"a comment has at most {MAX_COMMENT} characters")
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return [Label(targetid, label, comment, user(), when, model) for targetid in targetids]


def append_labels(path: Path, labels: Iterable[Label]) -> None:
    """Append labels, each whole, and make them survive a power cut.

    Raises
    ------
    StorageError
        If the disk is full or not writable.
    """
    with storage_errors(path):
        is_new = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _wait_for_turn(descriptor)
            for label in labels:
                line = _line(label, after_torn=_is_torn(descriptor))
                if os.write(descriptor, line) < len(line):
                    raise OSError(errno.ENOSPC, "short write")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync(path.parent)


def _wait_for_turn(descriptor: int) -> None:
    """Hold the file until it is closed: O_APPEND alone is no promise over NFS, and nothing rests on the lock elsewhere."""
    # a file system that knows no locks (ENOLCK, ENOSYS, EOPNOTSUPP) is no reason to stop
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _line(label: Label, after_torn: bool) -> bytes:
    document = asdict(label) | {"targetid": str(label.targetid)}
    text = json.dumps(document, ensure_ascii=True)
    return (b"\n" if after_torn else b"") + text.encode() + b"\n"


def _is_torn(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def user() -> str:
    """Return who labels: the name of the user of this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        # a container's user id may have no name
        return str(os.getuid())
