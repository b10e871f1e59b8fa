"""What the emulated line itself does: whether the other cases measure the tools or the line."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fetching.bench import HERE, Bench, table
from fetching.line import WINDOW_BYTES, Line
from fetching.objects import BIG
from fetching.servers import BUCKET

_TICK = os.sysconf("SC_CLK_TCK")


def main(bench: Bench) -> None:
    """Measure latency, rates, the line's own CPU time, and what it sends to a client that does not read."""
    objects = bench.objects(BIG)
    key, size = max(objects.files.items(), key=lambda item: item[1])
    path, rows, results = f"/{BUCKET}/{BIG}/{key}", [], {}
    with bench.nginx() as server:
        for rtt_ms, rate in (
            (0.0, 0.0),
            (bench.rtt_ms, 0.0),
            (bench.rtt_ms, bench.rate),
            (bench.rtt_ms, bench.rate / 10),
        ):
            with Line(bench.directory, server.port, rtt_ms, rate) as line:
                first, later = _latencies(line, path)
                small = _load(bench, line, path, size, "small", 256)
                large = _load(bench, line, path, size, "large", 8)
                unread = _unread(line, path)
            name = f"{rtt_ms:g} ms, " + (f"{rate * 8 / 1e6:.0f} Mb/s" if rate else "no limit")
            results[name] = {"first_ms": first, "later_ms": later, "small": small, "large": large, "unread": unread}
            cells = [f"{first:.1f}", f"{later:.1f}", f"{small['requests_per_s']:.0f}", f"{small['line_cpu']:.2f}"]
            cells += [f"{large['wire_mb_per_s']:.1f}", f"{large['line_cpu']:.2f}", f"{unread / 1e6:.1f}"]
            rows.append([name, *cells])
    head = ["", "first ms", "next ms", "12 kB ranges/s", "CPU s/s", "of 8 MB: MB/s", "CPU s/s", "unread MB"]
    table(f"the line; a window has {WINDOW_BYTES / 1e6:.1f} MB", head, rows)
    bench.save("line", results)


def _latencies(line: Line, path: str) -> tuple[float, float]:
    """Return the milliseconds of a connection's first request, connecting included, and of its next."""
    moments = [time.perf_counter()]
    connection = http.client.HTTPConnection("127.0.0.1", line.port)
    for _ in range(2):
        connection.request("GET", path, headers={"Range": "bytes=0-99"})
        connection.getresponse().read()
        moments.append(time.perf_counter())
    connection.close()
    return 1e3 * (moments[1] - moments[0]), 1e3 * (moments[2] - moments[1])


def _load(bench: Bench, line: Line, path: str, size: int, what: str, n_threads: int) -> dict[str, float]:
    """Return what passes, and the line's share of a core, in two seconds in the middle of a load."""
    command = [sys.executable, str(HERE / "clients.py"), "socket", what, f"http://127.0.0.1:{line.port}{path}"]
    command += ["--size", str(size), "--threads", str(n_threads), "--seconds", "3"]
    process = subprocess.Popen(command, env=bench.environment(), stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    before, cpu, started = line.bytes_down, _cpu_seconds(line.pid), time.perf_counter()
    time.sleep(2)
    seconds = time.perf_counter() - started
    wire, cpu = line.bytes_down - before, _cpu_seconds(line.pid) - cpu
    figures: dict[str, Any] = json.loads(process.communicate()[0])
    return {
        "requests_per_s": figures["requests"] / figures["seconds"],
        "wire_mb_per_s": wire / seconds / 1e6,
        "line_cpu": cpu / seconds,
    }


def _unread(line: Line, path: str) -> int:
    """Return the bytes that pass to a client that asks for a file and does not read."""
    before = line.bytes_down
    with socket.create_connection(("127.0.0.1", line.port)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: line\r\n\r\n".encode())
        time.sleep(2)
        return line.bytes_down - before


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK
