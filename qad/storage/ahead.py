"""Files on their way into memory before anybody asks for them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 64 << 20
"""Of larger files only some rows are wanted: they are left where they are."""


def read_ahead(path: Path) -> None:
    """Ask the system to bring a file into memory; it does so beside us, or not at all: nothing rests on it."""
    with suppress(OSError, AttributeError):  # no such file: who reads it says so; AttributeError: a system without it
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size <= MAX_BYTES:
                os.posix_fadvise(descriptor, 0, size, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
