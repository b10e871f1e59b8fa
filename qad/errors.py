"""The one exception family of qad, and the exit code that each member means.

::

    QadError                    1   a unit of work failed
    ├── ConfigError             2   the command line or qad.toml is wrong
    ├── InputError              3   a file or table cannot be used
    ├── ServiceError            4   S3 or PostgreSQL is not reachable after retries
    └── StorageError            5   the disk is full or not writable

    KeyboardInterrupt
    └── Interrupted       128 + n   a signal asked us to stop; what is done is kept

Raise one of these where the cause is known; catch it where something can be done: per unit of work (record it
and go on), and at the command line (one line and the exit code).  Anything else that reaches the command line is
a bug of ours.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_SERVICE = 4
EXIT_STORAGE = 5
EXIT_BUG = 70  # EX_SOFTWARE of sysexits(3)


class QadError(Exception):
    """Any failure that qad foresaw; the text is one line for the user."""

    exit_code = EXIT_SOME_FAILED


class ConfigError(QadError):
    """The command line, the environment or ``qad.toml`` asks for something impossible."""

    exit_code = EXIT_USAGE


class InputError(QadError):
    """An input cannot be used.

    Parameters
    ----------
    path : path-like
        The file or folder.
    reason : str
        What is wrong, and where it helps what to do about it.
    where : str
        The place inside: an HDU, a row, a column, a key.
    """

    exit_code = EXIT_INPUT

    def __init__(self, path: object, reason: str, where: str = "") -> None:
        self.path = str(path)
        self.reason = reason
        self.where = where
        super().__init__(f"{self.path}: {where + ': ' if where else ''}{reason}")

    def __reduce__(self) -> tuple[object, ...]:
        # the default rebuilds from the joined text, and a worker process could not send the error home
        return type(self), (self.path, self.reason, self.where)


class ServiceError(QadError):
    """A server did not answer, or refused, after all retries."""

    exit_code = EXIT_SERVICE


class StorageError(QadError):
    """The disk is full, or a folder cannot be written."""

    exit_code = EXIT_STORAGE


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to stop; finished work is kept and the command can be repeated.

    No Exception: it can be raised inside any library, and one that catches Exception to repeat a request or to undo half
    a step (``threading.Thread.start`` takes back a thread that already runs) must not take it for an error of its own.
    """

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
        super().__init__(f"stopped by signal {signal_number}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.signal_number,)
