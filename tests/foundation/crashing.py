"""Running the executable to end it badly: processes killed, disks that fill up; and what is left afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WAIT_SECONDS = 60.0


def start(*arguments: object, **keys: Any) -> subprocess.Popen[str]:
    """Start the executable in a session of its own, so that its workers can be killed with it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QAD_")}
    command = [sys.executable, "-m", "qad", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, env=environment, **(pipes | keys))


def run(*arguments: object, **keys: Any) -> subprocess.CompletedProcess[str]:
    """Run the executable to its end."""
    with start(*arguments, **keys) as process:
        try:
            stdout, stderr = process.communicate(timeout=WAIT_SECONDS)
        except BaseException:
            kill_all(process)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kill a process and its workers, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that do units for another."""
    found = []
    for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def finals(folder: Path) -> dict[str, bytes]:
    """Return the files that have a final name, below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def parts(folder: Path) -> list[Path]:
    """Return the files in the making, below a folder."""
    return list(folder.rglob(".*.part"))


def wait_for(process: subprocess.Popen[str], folder: Path, n_files: int = 1) -> None:
    """Wait until so many files are there or in the making, or the process has ended."""
    until = time.monotonic() + WAIT_SECONDS
    while process.poll() is None and time.monotonic() < until:
        if folder.is_dir() and sum(1 for path in folder.rglob("*") if path.is_file()) >= n_files:
            return
        time.sleep(0.001)


def kill_while_writing(process: subprocess.Popen[str], folder: Path, drawn: random.Random, seconds: float) -> bool:
    """Kill all of a process at a random moment from its first file on, and return whether it still ran."""
    wait_for(process, folder)
    time.sleep(drawn.uniform(0, seconds))
    is_running = process.poll() is None
    kill_all(process)
    return is_running


@contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[bool]:
    """Mount a file system of so many bytes on a folder, and yield whether that may be done here."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={max(n_bytes // 4096, 1) * 4096}"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    is_mounted = os.geteuid() == 0 and not subprocess.run(mount, check=False, capture_output=True).returncode
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)


def make_room(folder: Path, n_bytes: int) -> None:
    """Let a small disk grow."""
    subprocess.run(["mount", "-o", f"remount,size={n_bytes}", str(folder)], check=True)
