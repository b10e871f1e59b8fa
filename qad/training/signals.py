"""Stop signals that wait until a step is finished and saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopFlag:
    """Whether a stop signal has come."""

    def __init__(self) -> None:
        self.number = 0

    def __bool__(self) -> bool:
        return self.number != 0

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Remember a signal."""
        self.number = number


@contextmanager
def deferred_signals() -> Iterator[StopFlag]:
    """Hold back stop signals while the block runs; the first one is delivered at its end.

    The block looks at the flag and ends when it is set.  Outside the main thread nothing is held back: signals do not
    come there.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    previous: dict[signal.Signals, Any] = {
        name: signal.signal(name, flag.note) for name in SIGNALS if signal.getsignal(name) is not signal.SIG_IGN
    }
    try:
        yield flag
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
        if flag:
            signal.raise_signal(flag.number)
