"""Units of work that a cluster's workers import in the tests: named by what they do to their worker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from qad.errors import InputError, StorageError


def work(unit: str, folder: Path) -> int:
    """Do a unit: fail, die, wait, or return the length of its name; every try leaves a file."""
    (folder / f"{unit}-{os.getpid()}-{time.monotonic_ns()}").touch()
    kind = unit.split("_")[0]
    if kind == "bad":
        raise InputError("file.fits", "is damaged", where="HDU B_FLUX")
    if kind == "full":
        raise StorageError("/data: no space left")
    if kind == "bug":
        raise KeyError(unit)
    if kind == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "slow":
        time.sleep(1.0)
    if kind == "endless":
        time.sleep(60.0)
    return len(unit)


def tries(folder: Path, unit: str) -> list[int]:
    """Return the process ids of those who tried a unit."""
    return [int(path.name.removeprefix(f"{unit}-").split("-")[0]) for path in folder.glob(f"{unit}-*")]
