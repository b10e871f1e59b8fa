"""Whole files: qad and its peers on the same objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fetching.bench import Bench, in_turn, shown, spread, table
from fetching.measure import Cost
from fetching.objects import BIG, TINY, Objects

PLACES = ("line", "nginx", "seaweedfs", "tiny")
THREADS, TINY_THREADS = 16, 64
"""Of the peers that are loops of our own: for files of 118 MB, and for those of 20 kB."""


def main(bench: Bench, places: Sequence[str], tools: Sequence[str]) -> None:
    """Measure each place in turn."""
    results: dict[str, Any] = bench.saved("files") or {}
    for place in places:
        results |= _PLACES[place](bench, tools)
        bench.save("files", results)


def _line(bench: Bench, tools: Sequence[str]) -> dict[str, Any]:
    with bench.nginx() as server, bench.line(server.port) as line:
        name = f"{bench.rtt_ms:g} ms, {bench.rate * 8 / 1e9:g} Gb/s"
        return {"line": _compare(bench, name, line.port, bench.objects(BIG), tools, THREADS)}


def _nginx(bench: Bench, tools: Sequence[str]) -> dict[str, Any]:
    with bench.nginx() as server:
        return {"nginx": _compare(bench, "unlimited, nginx", server.port, bench.objects(BIG), tools, THREADS)}


def _seaweedfs(bench: Bench, tools: Sequence[str]) -> dict[str, Any]:
    with bench.seaweedfs(BIG) as port:
        return {"seaweedfs": _compare(bench, "unlimited, SeaweedFS", port, bench.objects(BIG), tools, THREADS)}


def _tiny(bench: Bench, tools: Sequence[str]) -> dict[str, Any]:
    with bench.nginx() as server, bench.line(server.port, 0.0) as line:
        name = f"many small files, {bench.rtt_ms:g} ms"
        return {"tiny": _compare(bench, name, line.port, bench.objects(TINY), tools, TINY_THREADS)}


_PLACES = {"line": _line, "nginx": _nginx, "seaweedfs": _seaweedfs, "tiny": _tiny}


def _compare(
    bench: Bench, name: str, port: int, objects: Objects, tools: Sequence[str], n_threads: int
) -> dict[str, Any]:
    base = f"http://127.0.0.1:{port}"
    found = in_turn(tools, bench.repeat, lambda tool: bench.copy(tool, base, objects, n_threads))
    results = {tool: _figures(runs, objects) for tool, runs in found.items()}
    anchor = results.get("s5cmd", {}).get("mb_per_s", {}).get("median")
    rows = []
    for tool, row in results.items():
        row["ratio_to_s5cmd"] = row["mb_per_s"]["median"] / anchor if anchor else None
        ratio = f"{row['ratio_to_s5cmd']:.2f}" if anchor else "-"
        forms = {"mb_per_s": ".0f", "files_per_s": ".0f", "cpu_s_per_gb": ".2f", "rss_mb": ".0f"}
        rows.append([tool, *(shown(row[key], form) for key, form in forms.items()), ratio])
    title = f"{name}: {len(objects.files)} files, {objects.n_bytes / 1e6:.0f} MB"
    table(title, ["", "MB/s", "files/s", "CPU s/GB", "peak MB", "to s5cmd"], rows)
    return results


def _figures(runs: list[Cost], objects: Objects) -> dict[str, Any]:
    return {
        "seconds": spread([run.seconds for run in runs]),
        "mb_per_s": spread([objects.n_bytes / run.seconds / 1e6 for run in runs]),
        "files_per_s": spread([len(objects.files) / run.seconds for run in runs]),
        "cpu_s_per_gb": spread([1e9 * run.cpu_seconds / objects.n_bytes for run in runs]),
        "rss_mb": spread([run.rss_mb for run in runs]),
    }
