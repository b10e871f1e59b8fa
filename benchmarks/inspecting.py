"""How long ``qad inspect`` takes with the scores of all of DR1: 1.7 million rows, each command a process of its own.

A small simulated release runs through every stage; its scores are then repeated to the wanted number of rows, with their
own views, latents and row groups, and with new TARGETIDs but for the real ones, which lie at the ends and in the middle.
Beside each wall time stands its ratio to that of a Python that only imports Polars.

    python benchmarks/inspecting.py [--rows 1700000] [--repeat 3]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from qad.schema import SCORES
from qad.storage.parquet import read_table, write_table
from qad.storage.provenance import Provenance

QAD = [sys.executable, "-m", "qad"]


def build(folder: Path) -> Path:
    """Run a small release through all stages, and return the work directory."""
    root = folder / "work"
    for arguments in (
        ["simulate", str(folder / "release"), "--quasars", "200", "--healpix", "2", "--seed", "3"],
        ["run", "--source", str(folder / "release"), "--root", str(root)],
    ):
        subprocess.run([*QAD, *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return root


def enlarge(root: Path, n_rows: int) -> int:
    """Repeat the scores to `n_rows`, and return the TARGETID of the last row."""
    path = root / "scores" / "default.parquet"
    small = read_table(path, SCORES)
    n = small.num_rows
    rng = np.random.default_rng(1)
    targetid = rng.choice(np.int64(2) ** 52, n_rows, replace=False) + np.int64(39_600_000_000_000_000)
    # the real targets: one first, one last, the others in the middle
    own = small.column("targetid").to_numpy()
    places = np.r_[0, n_rows // 2 + np.arange(n - 2), n_rows - 1]
    order = np.arange(n_rows)
    order[places] = np.arange(n)
    table = small.take(pa.array(order % n))
    targetid[places] = own
    table = table.set_column(
        table.schema.get_field_index("targetid"), table.schema.field("targetid"), pa.array(targetid)
    )
    rank = pa.array(np.arange(1, n_rows + 1))
    table = table.set_column(table.schema.get_field_index("rank"), table.schema.field("rank"), rank)
    write_table(path, table, SCORES, Provenance("benchmark", {}))
    return int(own[-1])


def seconds(command: list[str], repeat: int) -> float:
    """Return the best wall time of a process."""
    best = float("inf")
    for _ in range(repeat):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "120"})
        best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_700_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder to build in, used again if it is there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.keep or Path(scratch)
        made = folder / "targetid"
        if not made.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            made.write_text(str(enlarge(build(folder), chosen.rows)))
        measure(folder / "work", made.read_text(), chosen.repeat)


def measure(root: Path, targetid: str, repeat: int) -> None:
    """Time the commands and print them."""
    size = (root / "scores" / "default.parquet").stat().st_size / 1e6
    print(f"{root / 'scores' / 'default.parquet'}: {size:.0f} MB")
    floor = seconds([sys.executable, "-c", "import polars, pyarrow.parquet, rich.table"], repeat)
    print(f"{'python: imports of polars, pyarrow, rich':58} {floor:6.2f} s")
    inspect = [*QAD, "inspect", "--root", str(root)]
    for name, arguments in (
        ("first table", []),
        ("first 1,000 as CSV", ["--top", "1000", "--format", "csv"]),
        ("details by TARGETID", [targetid]),
        ("plot by TARGETID", [targetid, "--plot"]),
        ("where over all rows", ["--where", "z > 2 and snr > 3 and artefact < 0.5", "--sort", "-snr"]),
    ):
        taken = seconds([*inspect, *arguments], repeat)
        print(f"{name:58} {taken:6.2f} s  {taken / floor:5.1f} x")


if __name__ == "__main__":
    main()
