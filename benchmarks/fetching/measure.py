"""Run a command and say what it cost; run as a program by itself, so that the memory of its parent does not count.

::

    python measure.py COMMAND ARGUMENT...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What a command took, with all processes that it started.

    Attributes
    ----------
    seconds, cpu_seconds, rss_mb : float
        Start-up included; the memory is the peak of the largest process.
    status : int
        Exit status, negative for a signal.
    output, errors : str
        The ends of what it said.
    """

    seconds: float
    cpu_seconds: float
    rss_mb: float
    status: int
    output: str
    errors: str


def run(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Cost:
    """Run a command to its end; what it says goes through files in `folder`."""
    out, err = folder / "stdout", folder / "stderr"
    with out.open("w") as stdout, err.open("w") as stderr:
        figures = subprocess.run(
            [sys.executable, "-S", __file__, str(out), str(err), *command],
            env=dict(environment),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            stderr=stderr,
        ).stdout
        stdout.flush()
    return Cost(**json.loads(figures), output=_end(out), errors=_end(err))


def _end(path: Path) -> str:
    return path.read_text(errors="replace")[-20_000:]


def _measure(out: str, err: str, command: list[str]) -> dict[str, float | int]:
    files = [(os.POSIX_SPAWN_OPEN, n, path, os.O_WRONLY | os.O_TRUNC, 0o644) for n, path in ((1, out), (2, err))]
    started = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=files)
    _, status, usage = os.wait4(pid, 0)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "rss_mb": usage.ru_maxrss / 1024,
        "status": os.waitstatus_to_exitcode(status),
    }


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], sys.argv[2], sys.argv[3:])))
