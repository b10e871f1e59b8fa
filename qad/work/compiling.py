"""Compiling with Numba, and keeping what was compiled where it can be kept."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function compiled for the arguments that it is first called with.

    What was compiled is kept in the user's cache folder, or where ``NUMBA_CACHE_DIR`` says.  A folder that cannot be
    written, a full disk or a damaged file cost the time to compile again, and nothing else.
    """
    import numba

    folder = _cache_folder()
    uncached = numba.njit(nogil=True, error_model="numpy")(function)
    if folder is None:
        return uncached
    # numba makes the names of this module as it is imported, unseen by a type checker
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    cached = numba.njit(cache=True, nogil=True, error_model="numpy")(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> None:
        try:
            cached(*arguments)
        except (OSError, EOFError, pickle.UnpicklingError):  # of the cache: compiled loops raise none of them
            uncached(*arguments)

    return call


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function compiled into those compiled loops of its module that call it."""
    import numba

    return numba.njit(nogil=True, error_model="numpy", inline="never")(function)


def _cache_folder() -> Path | None:
    """Return the folder of compiled loops, or None where none can be written."""
    import platformdirs

    named = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(named) if named else Path(platformdirs.user_cache_dir("qad")) / "numba"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
