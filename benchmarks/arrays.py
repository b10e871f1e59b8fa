"""The training arrays: how fast Parquet, plain .npy maps and the flat cache of the grid give them, in one run.

::

    python benchmarks/arrays.py                         20,000 spectra x 1,000 pixels, random batches of 1,024
    python benchmarks/arrays.py --pixels 4000 --spectra 5000

Every way gives contiguous float32 arrays of flux and ivar, page cache warm.  *In order*: all rows once, in batches, as at the
start of an epoch.  *Random*: whole epochs of shuffled batches.  The median of `--repeat` rounds counts, the ways taking turns,
so that other work on the machine strikes all alike.  *Shuffled blocks* read blocks of 1,024 rows whole and mix rows within
16 of them: a weaker shuffle, and all that a disk slower than memory allows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np

BATCH = 1024
SHARDS = 8
Pair = tuple[np.ndarray, np.ndarray]
Batches = Callable[[], Iterator[Pair]]


def make_spectra(n: int, pixels: int) -> Pair:
    """Return spectra of normalised quasars: flux near 1, S/N per pixel from 0.5 to 30, a tenth of the pixels masked."""
    rng = np.random.default_rng(0)
    snr = np.exp(rng.uniform(np.log(0.5), np.log(30), (n, 1))).astype(np.float32)
    ivar = np.repeat(snr * snr, pixels, axis=1) * rng.uniform(0.5, 2, (n, pixels)).astype(np.float32)
    flux = 1 + rng.standard_normal((n, pixels), np.float32) / np.sqrt(ivar)
    masked = rng.random((n, pixels), np.float32) < 0.1
    return np.where(masked, np.float32(0), flux), np.where(masked, np.float32(0), ivar)


def write_grid(root: Path, flux: np.ndarray, ivar: np.ndarray) -> None:
    """Write spectra as the grid table of a work directory."""
    from qad.schema import GRID
    from qad.storage.atomic import write_json
    from qad.storage.parquet import make_table, write_table
    from qad.storage.provenance import Provenance
    from qad.workspace import Workspace

    workspace = Workspace(root)
    for shard, rows in enumerate(np.array_split(np.arange(len(flux)), SHARDS)):
        n = len(rows)
        plain = {
            "healpix": np.zeros(n, np.int32),
            "zwarn": np.zeros(n, np.int64),
            "split": np.zeros(n, np.uint8),
            "start": np.zeros(n, np.int32),
        }
        ones = {name: np.ones(n) for name in ("ra", "dec", "z", "snr", "ebv", "norm", "coverage")}
        columns = {"targetid": rows + 1, "survey": ["main"] * n, "program": ["dark"] * n, **plain}
        columns |= {
            name: values.astype(np.float32) for name, values in ones.items() if name in ("ebv", "norm", "coverage")
        }
        columns |= {name: values for name, values in ones.items() if name not in ("ebv", "norm", "coverage")}
        table = make_table(GRID, {**columns, "flux": flux[rows], "ivar": ivar[rows]}, n_obs=flux.shape[1])
        write_table(workspace.grid_file(shard, SHARDS), table, GRID, Provenance("build-grid", {}))
    grid = {
        "loglam0": 3.0,
        "dloglam": 2e-4,
        "n_rest": flux.shape[1],
        "n_obs": flux.shape[1],
        "geometry_hash": "benchmark",
    }
    write_json(workspace.grid_json, grid)


def in_order(flux: np.ndarray, ivar: np.ndarray) -> Batches:
    """Return batches of neighbouring rows."""

    def batches() -> Iterator[Pair]:
        for first in range(0, len(flux), BATCH):
            rows = slice(first, first + BATCH)
            yield flux[rows].astype(np.float32), ivar[rows].astype(np.float32)

    return batches


def at_random(flux: np.ndarray, ivar: np.ndarray, is_sorted: bool) -> Batches:
    """Return batches of shuffled rows, each read in the order of the shuffle or of the data."""

    def batches() -> Iterator[Pair]:
        order = np.random.default_rng(1).permutation(len(flux))
        for first in range(0, len(flux) - BATCH + 1, BATCH):
            rows = order[first : first + BATCH]
            rows = np.sort(rows) if is_sorted else rows
            yield flux[rows].astype(np.float32, copy=False), ivar[rows].astype(np.float32, copy=False)

    return batches


def shuffled_blocks(flux: np.ndarray, ivar: np.ndarray) -> Batches:
    """Return batches mixed from 16 blocks at a time."""

    def batches() -> Iterator[Pair]:
        rng = np.random.default_rng(1)
        blocks = rng.permutation(len(flux) // BATCH)
        for first in range(0, len(blocks), 16):
            starts = blocks[first : first + 16] * BATCH
            held = [np.concatenate([array[start : start + BATCH] for start in starts]) for array in (flux, ivar)]
            order = rng.permutation(len(held[0]))
            for begin in range(0, len(order), BATCH):
                rows = order[begin : begin + BATCH]
                yield held[0][rows].astype(np.float32, copy=False), held[1][rows].astype(np.float32, copy=False)

    return batches


def parquet(root: Path) -> Batches:
    """Return the shards' vectors, read back in order."""
    from qad.schema import GRID
    from qad.storage.parquet import read_table, vectors

    def batches() -> Iterator[Pair]:
        for path in sorted((root / "grid").glob("*.parquet")):
            table = read_table(path, GRID, ["flux", "ivar"])
            yield vectors(table, "flux"), vectors(table, "ivar")

    return batches


def cache(root: Path, is_random: bool) -> Batches:
    """Return batches as the trainer's feed assembles them, from the flat cache opened anew."""
    from qad.storage.flatcache import open_grid
    from qad.training.batches import epoch_order, fixed_batches
    from qad.training.feed import take
    from qad.workspace import Workspace

    def batches() -> Iterator[Pair]:
        grid = open_grid(Workspace(root))
        order = epoch_order(np.arange(len(grid)), 0, 0) if is_random else np.arange(len(grid))
        for rows, _ in fixed_batches(order[: len(order) // BATCH * BATCH], BATCH):
            batch = take({"flux": grid.flux, "ivar": grid.ivar}, rows)
            yield batch["flux"], batch["ivar"]

    return batches


def on_device(root: Path) -> Batches:
    """Return the same batches, shuffled, as the feed leaves them on the device (a processor: in JAX's arrays)."""
    from qad.models.runtime import start_jax

    start_jax()
    from qad.storage.flatcache import open_grid
    from qad.training.batches import epoch_order
    from qad.training.devices import Devices
    from qad.training.feed import Feed
    from qad.workspace import Workspace

    def batches() -> Iterator[Pair]:
        grid = open_grid(Workspace(root))
        task = SimpleNamespace(arrays={"flux": grid.flux, "ivar": grid.ivar})
        feed = Feed(task, Devices.choose(1), BATCH, resident=False)
        for _, batch in feed.batches(epoch_order(np.arange(len(grid)), 0, 0)):
            yield batch["flux"].block_until_ready(), batch["ivar"].block_until_ready()

    return batches


def rate(batches: Batches) -> tuple[float, float]:
    """Return bytes of float32 and spectra a second."""
    started, n_bytes, n = time.perf_counter(), 0, 0
    for flux, ivar in batches():
        n_bytes += 4 * (flux.size + ivar.size)
        n += len(flux)
    seconds = time.perf_counter() - started
    return n_bytes / seconds, n / seconds


def half_precision_loss(flux: np.ndarray, ivar: np.ndarray) -> dict[str, float]:
    """Return how far float16 moves the mean chi2 of spectra around 1, and the worst spectrum's, relative; and what overflows."""
    half = [array.astype(np.float16).astype(np.float32) for array in (flux, ivar)]
    chi2 = [(w * (f - 1) ** 2).sum(axis=1, dtype=np.float64) for f, w in ((flux, ivar), half)]
    change = np.abs(chi2[1] / chi2[0] - 1)
    bright = ivar * (300 / 30) ** 2  # a quasar of S/N 300 per pixel, as DESI's brightest
    with np.errstate(over="ignore"):
        lost = np.isinf(bright.astype(np.float16)).mean()
    return {"mean": float(change.mean()), "worst": float(change.max()), "overflow at S/N 300": float(lost)}


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=20_000)
    parser.add_argument("--pixels", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=7)
    arguments = parser.parse_args()
    flux, ivar = make_spectra(arguments.spectra // BATCH * BATCH, arguments.pixels)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_grid(root, flux, ivar)
        maps = {}
        for kind in (np.float32, np.float16):
            for name, array in (("flux", flux), ("ivar", ivar)):
                path = root / f"{name}-{np.dtype(kind).name}.npy"
                np.save(path, array.astype(kind))
                maps[name, kind] = np.load(path, mmap_mode="r")
        full = (maps["flux", np.float32], maps["ivar", np.float32])
        half = (maps["flux", np.float16], maps["ivar", np.float16])
        ways = {
            "in order: Parquet read back": parquet(root),
            "in order: .npy map float32": in_order(*full),
            "in order: .npy map float16": in_order(*half),
            "in order: flat cache, opened": cache(root, False),
            "random: .npy map float32": at_random(*full, False),
            "random: .npy map float32, sorted": at_random(*full, True),
            "random: .npy map float16, sorted": at_random(*half, True),
            "random: shuffled blocks float32": shuffled_blocks(*full),
            "random: flat cache, opened": cache(root, True),
            "random: flat cache, on the device": on_device(root),
        }
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for turn in range(arguments.repeat + 1):
            for name, batches in ways.items():
                measured = rate(batches)
                if turn:  # the first turn warms up
                    rates[name].append(measured)
    print(f"{len(flux):,} spectra x {arguments.pixels} pixels, flux and ivar; batches of {BATCH}")
    print(f"{'':36}{'GB/s':>8}{'spectra/s':>12}{'to the float32 map':>20}")
    for name, values in rates.items():
        n_bytes, n = (median(column) for column in zip(*values, strict=True))
        plain = "in order: .npy map float32" if name.startswith("in order") else "random: .npy map float32"
        base = median(value for value, _ in rates[plain])
        print(f"{name:36}{n_bytes / 1e9:8.2f}{n:12,.0f}{n_bytes / base:20.2f}")
    changes = half_precision_loss(flux, ivar)
    print("float16 changes a spectrum's chi2 by " + ", ".join(f"{key} {value:.1e}" for key, value in changes.items()))


if __name__ == "__main__":
    main()
