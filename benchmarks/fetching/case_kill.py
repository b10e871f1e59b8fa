"""SIGKILL in the middle, and again: what is fetched twice, and what is left lying about."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fetching.bench import Bench, Missing, qad_command, s5cmd, say, shown, spread, table
from fetching.line import Line
from fetching.objects import BIG, Objects
from fetching.servers import BUCKET, Nginx


def main(bench: Bench, modes: Sequence[str], fraction: float) -> None:
    """Kill each mode, and s5cmd, at a fraction of the bytes of an undisturbed run."""
    objects, results = bench.objects(BIG), {}
    with bench.nginx(log=True) as server:
        for tool in (*modes, "s5cmd"):
            with bench.line(server.tls_port) as line:
                try:
                    results[tool] = _figures(_repeat(bench, server, line, objects, tool, fraction))
                except Missing as error:
                    say(f"{tool}: left out: {error}")
    rows = [
        [tool, *(shown(row[key], form) for key, form in _FORMS.items()), str(len(row["stray"])), str(row["wrong"])]
        for tool, row in results.items()
    ]
    head = [
        "",
        "MB undisturbed",
        "MB more on the wire",
        "MB sent twice",
        "connections",
        "per connection",
        "stray files",
        "wrong files",
    ]
    table(f"killed at {fraction:.0%} of the bytes, run again; {bench.repeat} times", head, rows)
    bench.save("kill", {"fraction": fraction, "tools": results})


_FORMS = {
    "whole_mb": ".0f",
    "more_mb": ".1f",
    "twice_mb": ".1f",
    "connections": ".0f",
    "twice_mb_per_connection": ".2f",
}


def _repeat(
    bench: Bench, server: Nginx, line: Line, objects: Objects, tool: str, fraction: float
) -> list[dict[str, Any]]:
    target = bench.target()
    whole = _run(bench, line, _command(line, objects, target, tool))
    expected, anyway = _tree(target), _sent_twice(server)
    runs = []
    for _ in range(bench.repeat):
        target = bench.target()
        command = _command(line, objects, target, tool)
        first, n_open = _run_and_kill(bench, line, command, fraction * whole)
        second = _run(bench, line, command)
        found = _tree(target)
        runs.append(
            {
                "whole_mb": whole / 1e6,
                "more_mb": (first + second - whole) / 1e6,
                "twice_mb": (_sent_twice(server) - anyway) / 1e6,
                "connections": n_open,
                "stray": sorted(found.keys() - expected.keys()),
                "wrong": sum(found.get(name) != digest for name, digest in expected.items() if name.endswith(".fits")),
            }
        )
    return runs


def _figures(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **{name: spread([run[name] for run in runs]) for name in ("whole_mb", "more_mb", "twice_mb", "connections")},
        "twice_mb_per_connection": spread([run["twice_mb"] / max(run["connections"], 1) for run in runs]),
        "wrong": sum(run["wrong"] for run in runs),
        "stray": [name for run in runs for name in run["stray"]],
    }


def _command(line: Line, objects: Objects, target: Path, tool: str) -> list[str]:
    base = f"https://127.0.0.1:{line.port}"
    if tool != "s5cmd":
        return qad_command(base, objects, target, tool)
    command = [s5cmd(), "--no-sign-request", "--no-verify-ssl", "--endpoint-url", base]
    return [*command, "sync", f"s3://{BUCKET}/{objects.prefix}/*", f"{target}/"]


def _run(bench: Bench, line: Line, command: list[str]) -> int:
    """Run to the end, and return the bytes that passed."""
    before = line.bytes_down
    cost = bench.run(command)
    if cost.status == 2:
        raise Missing(cost.errors.strip().splitlines()[-1][:200])
    if cost.status:
        raise SystemExit(f"{command} failed (exit status {cost.status}): {cost.errors[-1500:]}")
    _settle(line)
    return line.bytes_down - before


def _run_and_kill(bench: Bench, line: Line, command: list[str], n_bytes: float) -> tuple[int, int]:
    """Kill when so many bytes have passed; return the bytes, and how many connections were open."""
    before = line.bytes_down
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=bench.environment(), start_new_session=True, **quiet)
    while line.bytes_down - before < n_bytes:
        if process.poll() is not None:
            raise SystemExit(f"{command[:4]} ended before it could be killed")
        time.sleep(0.002)
    n_open = line.n_open
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _settle(line)
    return line.bytes_down - before, n_open


def _settle(line: Line) -> None:
    """Wait until the line has no connection: nothing of this run can pass any more."""
    until = time.monotonic() + 5
    while line.n_open and time.monotonic() < until:
        time.sleep(0.01)


def _sent_twice(server: Nginx) -> int:
    """Return the bytes of objects that the server has sent more than once since it was last asked.

    It counts as sent what its kernel and the line still held when the client was killed: up to the window of the line and
    a connection.
    """
    time.sleep(0.5)
    ranges: dict[str, list[tuple[int, int]]] = {}
    for text in server.log.read_text().splitlines():
        target, asked, n_bytes = text.rsplit(" ", 2)
        if target.strip("/") == BUCKET:  # a listing
            continue
        match = re.fullmatch(r"bytes=(\d+)-\d+", asked)
        start = int(match[1]) if match else 0
        ranges.setdefault(target, []).append((start, start + int(n_bytes)))
    os.truncate(server.log, 0)
    twice = 0
    for parts in ranges.values():
        end = 0
        for start, stop in sorted(parts):
            twice += max(0, min(stop, end) - start)
            end = max(end, stop)
    return twice


def _tree(folder: Path) -> dict[str, str]:
    """Return a digest of each file by relative path; qad's own logs, one of each run, are not counted."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.parent != folder / "log":
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
