"""qad's modes on the same pixels: quasars a second, and bytes on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fetching.bench import Bench, Run, in_turn, shown, spread, table
from fetching.objects import BIG, ROW_BYTES, Objects

LINES = ("tls", "plain", "slow")
"""The line of the options with TLS, as the public bucket has it; without; and with TLS at a tenth of the rate."""
SLOW_PIXELS = 4
"""On the slow line: whole files of more would take minutes."""


def main(bench: Bench, lines: Sequence[str], modes: Sequence[str]) -> None:
    """Measure the modes over each line."""
    results: dict[str, Any] = bench.saved("rows") or {}
    for line in lines:
        objects = bench.objects(BIG)
        objects = objects.first(SLOW_PIXELS) if line == "slow" else objects
        rate = bench.rate / 10 if line == "slow" else bench.rate
        found = _measure(bench, line != "plain", rate, objects, modes)
        results[line] = {
            "rate": rate,
            "targets": objects.targets * len(objects.quasars),
            "quasars": sum(objects.quasars),
            "redrock_bytes": objects.bytes_of("redrock"),
            "modes": {mode: _figures(runs, objects) for mode, runs in found.items()},
        }
        _print(bench, line, results[line])
        bench.save("rows", results)


def _measure(bench: Bench, tls: bool, rate: float, objects: Objects, modes: Sequence[str]) -> dict[str, list[Run]]:
    with bench.nginx() as server, bench.line(server.tls_port if tls else server.port, rate) as line:
        base = f"{'https' if tls else 'http'}://127.0.0.1:{line.port}"

        def once(mode: str) -> Run:
            before = line.bytes_down
            cost = bench.fetch(base, objects, mode, "--limit", str(len(objects.quasars)))
            return Run(cost, line.bytes_down - before)

        return in_turn(modes, bench.repeat, once)


def _figures(runs: list[Run], objects: Objects) -> dict[str, Any]:
    n_quasars = sum(objects.quasars)
    return {
        "seconds": spread([run.cost.seconds for run in runs]),
        "quasars_per_s": spread([n_quasars / run.cost.seconds for run in runs]),
        "wire_bytes": spread([run.wire for run in runs]),
        "to_bare_rows": spread([run.wire / (n_quasars * ROW_BYTES) for run in runs]),
        "cpu_seconds": spread([run.cost.cpu_seconds for run in runs]),
        "rss_mb": spread([run.cost.rss_mb for run in runs]),
    }


def _print(bench: Bench, line: str, result: dict[str, Any]) -> None:
    whole = result["modes"].get("files")
    rows = []
    for mode, row in result["modes"].items():
        cells = [mode, shown(row["seconds"], ".1f"), shown(row["quasars_per_s"])]
        cells += [f"{row['wire_bytes']['median'] / 1e6:.1f}", f"{row['to_bare_rows']['median']:.2f}"]
        if whole:
            faster = whole["seconds"]["median"] / row["seconds"]["median"]
            fewer = whole["wire_bytes"]["median"] / row["wire_bytes"]["median"]
            cells += [f"{faster:.1f}", f"{fewer:.1f}"]
        else:
            cells += ["-", "-"]
        rows.append([*cells, shown(row["cpu_seconds"], ".1f"), shown(row["rss_mb"])])
    speed = f"{bench.rtt_ms:g} ms, {result['rate'] * 8 / 1e6:.0f} Mb/s"
    title = f"{line}: {speed}, {result['quasars']} quasars of {result['targets']} targets"
    head = ["", "s", "quasars/s", "wire MB", "x bare rows", "x faster", "x fewer bytes", "CPU s", "peak MB"]
    table(title, head, rows)
