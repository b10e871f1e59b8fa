"""How qad runs JAX: memory by need, compiled programs kept, and no chatter on stderr."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from pathlib import Path
from typing import Any


def start_jax() -> Any:
    """Import JAX with qad's settings and return it; what the user has set in the environment stays."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a shared card's memory is not ours to take whole
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import jax

    logging.getLogger("jax").setLevel(logging.ERROR)
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        folder = cache_folder()
        if folder is not None:
            jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # by default only what takes a second to compile is kept; ours are many small programs
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return jax


def cache_folder() -> Path | None:
    """Return the folder of compiled programs for this kind of machine, or None where none can be written."""
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("qad")) / "jax" / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _machine() -> str:
    """Return a name for the processor: a shared home serves machines whose compiled programs do not run on each other."""
    flags = ""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
        flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:12]}"
