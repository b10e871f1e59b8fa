"""What one request costs a client, and what a large stream does: the figures that a client is chosen by."""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any

from fetching.bench import HERE, Bench, Missing, in_turn, shown, spread, table
from fetching.objects import BIG
from fetching.servers import BUCKET

CLIENTS = ("socket", "http.client", "urllib3", "boto3", "obstore")
WORKLOADS = (("small", 64), ("small", 8), ("large", 8))
"""Ranges of 12 kB or of 8 MiB, and the threads that read them."""
SECONDS = 3.0


def main(bench: Bench) -> None:
    """Measure each client against nginx without latency."""
    objects = bench.objects(BIG)
    key, size = max(objects.files.items(), key=lambda item: item[1])
    results: dict[str, Any] = {}
    with bench.nginx() as server:
        for scheme, port in (("http", server.port), ("https", server.tls_port)):
            url = f"{scheme}://127.0.0.1:{port}/{BUCKET}/{BIG}/{key}"
            for what, n_threads in WORKLOADS:
                name = f"{scheme}, {what} ranges, {n_threads} connections"
                found = in_turn(
                    CLIENTS, bench.repeat, lambda client, a=(what, url, size, n_threads): _once(bench, client, *a)
                )
                results[name] = {client: _figures(runs) for client, runs in found.items()}
                _print(name, results[name])
    bench.save("clients", results)


def _once(bench: Bench, client: str, what: str, url: str, size: int, n_threads: int) -> dict[str, float]:
    if client in ("urllib3", "boto3", "obstore") and importlib.util.find_spec(client) is None:
        raise Missing("not installed")
    command = [sys.executable, str(HERE / "clients.py"), client, what, url, "--size", str(size)]
    cost = bench.run([*command, "--threads", str(n_threads), "--seconds", str(SECONDS)])
    if cost.status:
        raise SystemExit(f"{client} failed: {cost.errors[-1500:]}")
    return json.loads(cost.output)


def _figures(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        "requests_per_s": spread([run["requests"] / run["seconds"] for run in runs]),
        "mb_per_s": spread([run["bytes"] / run["seconds"] / 1e6 for run in runs]),
        "cpu_ms_per_request": spread([1e3 * run["cpu_seconds"] / run["requests"] for run in runs]),
        "cpu_s_per_gb": spread([1e9 * run["cpu_seconds"] / run["bytes"] for run in runs]),
    }


def _print(name: str, results: dict[str, Any]) -> None:
    forms = {"requests_per_s": ".0f", "mb_per_s": ".0f", "cpu_ms_per_request": ".3f", "cpu_s_per_gb": ".2f"}
    rows = [[client, *(shown(row[key], form) for key, form in forms.items())] for client, row in results.items()]
    table(name, ["", "requests/s", "MB/s", "CPU ms/request", "CPU s/GB"], rows)
