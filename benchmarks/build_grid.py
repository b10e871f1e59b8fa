"""How fast `build-grid` resamples, beside NumPy and desispec on the same spectra, in one run; and how stages scale.

::

    python benchmarks/build_grid.py resample                  one core, and two processes
    python benchmarks/build_grid.py stages --source RELEASE --pixels 8,40,160,400
                                                              extract and build-grid: time, bytes, memory, and their growth

The NumPy loop takes float64 running sums and finds edges by arithmetic; it knows neither masked pixels nor errors.
desispec (``resample_flux`` with ivar) is left out where it is not installed; it defines its result otherwise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))
from fetching.bench import Missing, in_turn, shown, spread, table
from fetching.measure import Cost, run

from qad.gridding.resample import resample
from qad.gridding.wavelength import FIRST_EDGE, grid_of
from qad.schema import N_WAVE, WAVE_START, WAVE_STEP
from qad.settings import BuildGrid

N_SPECTRA = 16
"""As many as build-grid resamples together."""
SECONDS = 1.0


class Spectra:
    """Spectra at random redshifts, and the edges of their windows."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        grid, z = grid_of(BuildGrid()), rng.uniform(0.5, 3.5, N_SPECTRA)
        shape = N_SPECTRA, N_WAVE
        self.flux = rng.normal(1, 1, shape).astype(np.float32)
        self.ivar = rng.uniform(0.5, 2.0, shape).astype(np.float32)
        self.edges = grid.edges(grid.start(z), z)


def by_qad(data: Spectra) -> None:
    """What `build-grid` does."""
    resample(data.flux, data.ivar, data.edges)


def by_numpy(data: Spectra) -> None:
    """Running sums, and edges by arithmetic."""
    for flux, ivar, edges in zip(data.flux, data.ivar, data.edges, strict=True):
        weight, total = np.zeros(N_WAVE + 1), np.zeros(N_WAVE + 1)
        np.cumsum(ivar, dtype=np.float64, out=weight[1:])
        np.cumsum(ivar * flux.astype(np.float64), out=total[1:])
        position = np.clip((edges - FIRST_EDGE) / WAVE_STEP, 0, N_WAVE)
        index = np.minimum(position.astype(np.int64), N_WAVE - 1)
        share = position - index
        weight = weight[index] + share * (weight[index + 1] - weight[index])
        total = total[index] + share * (total[index + 1] - total[index])
        ivar_out = np.diff(weight)
        np.diff(total) / np.maximum(ivar_out, 1e-200)


def by_desispec(data: Spectra) -> None:
    """DESI's own."""
    try:
        from desispec.interpolation import resample_flux
    except ImportError as error:
        raise Missing(str(error)) from None
    wave = WAVE_START + WAVE_STEP * np.arange(N_WAVE)
    for flux, ivar, edges in zip(data.flux, data.ivar, data.edges, strict=True):
        resample_flux((edges[1:] + edges[:-1]) / 2, wave, flux.astype(float), ivar.astype(float))


METHODS = {"qad": by_qad, "numpy loop": by_numpy, "desispec resample_flux": by_desispec}


def rate_of(name: str, seconds: float = SECONDS) -> float:
    """Return spectra a second on this core."""
    data, n, started = Spectra(), 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        METHODS[name](data)
        n += N_SPECTRA
    return n / passed


def rates(repeat: int) -> None:
    """Compare the methods, and one process with two."""
    in_turn(list(METHODS), 1, lambda name: rate_of(name, 0.01))
    found = {name: spread(values) for name, values in in_turn(list(METHODS), repeat, rate_of).items()}
    lines = [
        [name, shown(figures), f"{found['qad']['median'] / figures['median']:.1f}"] for name, figures in found.items()
    ]
    table(f"resampling {N_WAVE} pixels, one core", ["", "spectra/s", "qad: x as fast"], lines)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(rate_of, ["qad"] * 2, 1)
        two = sum(pool.map(rate_of, ["qad"] * 2, 1))
    print(f"two processes: {two:,.0f} spectra/s, {two / found['qad']['median']:.2f} x one")


def stages(source: Path, root: Path, jobs: int, pixels: list[int]) -> None:
    """Run extract and build-grid from nothing, as commands, on the first pixels of a release; see how the cost grows."""
    lines, costs = [], {}
    for limit in pixels:
        for command, more in (
            ("extract", ["--source", str(source.absolute()), "--limit", str(limit)]),
            ("build-grid", []),
        ):
            n, size, cost = stage(root / f"{limit}", command, [*more, "--jobs", str(jobs)])
            costs.setdefault(command, []).append((n, cost.seconds))
            figures = [f"{n:,}", f"{cost.seconds:.1f}", f"{n / cost.seconds:,.0f}", f"{n / cost.cpu_seconds:,.0f}"]
            lines.append([command, *figures, f"{size / 1e6:,.0f}", f"{cost.rss_mb:.0f}"])
        shutil.rmtree(root / f"{limit}")
    head = ["", "quasars", "s", "quasars/s", "quasars/CPU s", "MB", "peak MB"]
    table(f"{jobs} processes", head, lines)
    for command, found in costs.items():
        if len(found) > 2:
            print(f"{command}: {growth(*np.array(found).T)}")


def stage(root: Path, command: str, options: list[str]) -> tuple[int, int, Cost]:
    """Run a stage; return the quasars and bytes of its tables, and its cost."""
    root.mkdir(parents=True, exist_ok=True)
    cost = run([sys.executable, "-m", "qad", command, *options, "--root", str(root), "--json"], os.environ, root)
    if cost.status:
        raise SystemExit(f"{command} failed: {(cost.errors + cost.output)[-1500:]}")
    files = list((root / ("spectra" if command == "extract" else "grid")).glob("*.parquet"))
    n = sum(pq.read_metadata(path).num_rows for path in files)
    return n, sum(path.stat().st_size for path in files), cost


def growth(n: np.ndarray, seconds: np.ndarray) -> str:
    """Return how the time grows with the quasars: the start-up, the time of each further one, and the power."""
    # relative errors count: the small runs would have no say beside the large ones
    each, start = np.polyfit(n, seconds, 1, w=1 / seconds)
    power = np.polyfit(np.log(n), np.log(seconds - start), 1)[0]
    return f"{start:.2f} s + {1e3 * each:.3f} ms a quasar; without the start-up the time grows as n^{power:.3f}"


def main() -> None:
    """Run one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=("resample", "stages"))
    parser.add_argument("--source", type=Path, help="a release, such as `qad simulate` makes")
    parser.add_argument("--root", type=Path, default=Path("grid-benchmark"), help="work directory, kept")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--pixels", default="0", help="numbers of pixels to run one after the other; 0: all")
    options = parser.parse_args()
    if options.case == "resample":
        rates(options.repeat)
    else:
        stages(options.source, options.root, options.jobs, [int(number) for number in options.pixels.split(",")])


if __name__ == "__main__":
    main()
