"""What becomes of a unit of work, and how that travels home from whoever did it."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from qad.errors import QadError, StorageError

Unit = TypeVar("Unit")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Outcome(Generic[Unit, Value]):
    """What became of a unit: its `value`, or the `error` that failed it (then `value` is None)."""

    unit: Unit
    value: Value | None = None
    error: str | None = None


def attempt(work: Callable[[Unit], Value], unit: Unit) -> tuple[Value | None, Exception | None]:
    """Do a unit and return its value, or the error that it raised, which can be pickled."""
    try:
        return work(unit), None
    except Exception as error:  # noqa: BLE001  whatever it is goes home, where it is told apart
        error.add_note(traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001  an exception that cannot travel goes as text
            return None, RuntimeError(f"{type(error).__name__}: {error}")
        return None, error


def outcome_of(unit: Unit, value: Value | None, error: Exception | None) -> Outcome[Unit, Value]:
    """Return what became of an attempt; raises what must end the run."""
    if error is None:
        return Outcome(unit, value=value)
    if isinstance(error, QadError) and not isinstance(error, StorageError):
        return Outcome(unit, error=str(error))
    raise error
