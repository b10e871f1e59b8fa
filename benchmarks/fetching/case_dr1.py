"""What all of DR1 would take, computed from the figures that ``rows`` kept."""

from __future__ import annotations

from typing import Any

from fetching.bench import MODES, Bench, table

COADD_ROWS = 28_425_963
QUASARS = 1_702_694
"""Rows of DR1's healpix coadds, and those with SPECTYPE QSO and ZWARN 0 (desihub/dr1paper, count-dr1-targets)."""
COADD_BYTES, REDROCK_BYTES = 12.7e12, 25e9
"""Of all files, from rows and their size."""


def main(bench: Bench) -> None:
    """Print bytes and hours of each mode and line."""
    measured = bench.saved("rows")
    if not measured:
        raise SystemExit("run the case rows first, with the same options")
    rows, results = [], {}
    for name, line in measured.items():
        for mode in MODES:
            if mode in line["modes"]:
                n_bytes = _bytes(mode, line)
                figures = line["modes"][mode]
                rate = figures["wire_bytes"]["median"] / figures["seconds"]["median"]
                hours = n_bytes / rate / 3600
                results[f"{name}.{mode}"] = {"bytes": n_bytes, "bytes_per_s": rate, "hours": hours}
                speed = f"{line['rate'] * 8 / 1e6:.0f} Mb/s, {name}"
                rows.append([mode, speed, _size(n_bytes), f"{rate / 1e6:.1f}", _time(hours)])
    # the start of the process is a large part of a run of seconds: more pixels give a figure nearer to that of days
    title = (
        f"DR1 ({COADD_ROWS:,} rows, {QUASARS:,} quasars): computed from runs on few made pixels, their start included"
    )
    table(title, ["", "line", "bytes", "MB/s on the wire", "time"], rows)
    bench.save("dr1", results)


def _bytes(mode: str, line: dict[str, Any]) -> float:
    """Scale the bytes on the wire beyond the redrock files: by rows, or of the mode rows by quasars."""
    wire = line["modes"][mode]["wire_bytes"]["median"]
    if mode == "files":
        return COADD_BYTES + REDROCK_BYTES
    beyond = wire - line["redrock_bytes"]
    return REDROCK_BYTES + (
        beyond / line["quasars"] * QUASARS if mode == "rows" else beyond / line["targets"] * COADD_ROWS
    )


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e12:.2f} TB" if n_bytes >= 1e12 else f"{n_bytes / 1e9:.0f} GB"


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
