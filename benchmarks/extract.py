"""How fast `extract` reads the wanted rows of a coadd, beside what others do on the same file, in one run.

::

    python benchmarks/extract.py warm       file in memory: qad, a bare memory map, astropy, fitsio, desispec
    python benchmarks/extract.py cold       file dropped from memory before each read, by share of wanted rows
    python benchmarks/extract.py layout --root WORK    Parquet layouts, on the tables of a work directory

The coadd has DR1's layout, size (1,323 targets, 591 MB) and 156 wanted rows, made from random numbers.  The order of the
readers alternates; the median counts; all results are compared.  fitsio and desispec are left out where they are not installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from extracting import case_layout
from extracting.readers import READERS
from fetching.bench import Missing, in_turn, say, shown, spread, table
from fetching.objects import BIG, Sizes, make_objects

TARGETS, WANTED = 1323, 156
BARE = "numpy memory map, bare"
SHARES = (0.01, 0.03, 0.06, 0.12, 0.25, 0.5)


def main() -> None:
    """Run one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=("warm", "cold", "layout"))
    parser.add_argument("--directory", type=Path, default=Path("extract-benchmark"), help="work directory, kept")
    parser.add_argument("--root", type=Path, help="a work directory of qad with spectra/ and grid/")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    if options.case == "layout":
        files = [sorted((options.root / name).glob("*.parquet")) for name in ("spectra", "grid")]
        case_layout.main(options.directory, files[0][:30], files[1], options.repeat)
        return
    sizes = Sizes(pixels=1, targets=TARGETS, tiny=0)
    objects = make_objects(options.directory.absolute() / "objects", sizes, say)[BIG]
    coadd = next((objects.root).rglob("coadd-*.fits"))
    warm(coadd, options.repeat) if options.case == "warm" else cold(coadd, options.repeat)


def wanted_rows(n: int) -> np.ndarray:
    """Return rows spread at random."""
    return np.sort(np.random.default_rng(0).choice(TARGETS, n, replace=False))


def warm(coadd: Path, repeat: int) -> None:
    """Compare the readers on a file in memory."""
    os.environ.setdefault("DESI_LOGLEVEL", "error")
    rows = wanted_rows(WANTED)
    expected = READERS[BARE](coadd, rows)

    def once(name: str) -> float:
        try:
            started = time.perf_counter()
            found = READERS[name](coadd, rows)
            seconds = time.perf_counter() - started
        except ImportError as error:
            raise Missing(str(error)) from None
        if not all(np.array_equal(found[plane], expected[plane]) for plane in expected if plane != "TARGETID"):
            raise SystemExit(f"{name} reads other values")
        return seconds

    in_turn(list(READERS), 1, once)  # imports, and the file into memory
    times = {name: spread(seconds) for name, seconds in in_turn(list(READERS), repeat, once).items()}
    lines = [
        [
            name,
            shown({key: 1e3 * value for key, value in figures.items()}, ".1f"),
            f"{WANTED / figures['median']:,.0f}",
            *(f"{figures['median'] / times[mine]['median']:.2f}" for mine in ("qad, rows", "qad, checked (default)")),
        ]
        for name, figures in times.items()
    ]
    head = ["", "ms", "quasars/s", "qad rows: x as fast", "qad checked: x as fast"]
    table(f"warm: {WANTED} of {TARGETS} rows, nine planes", head, lines)


def cold(coadd: Path, repeat: int) -> None:
    """Compare rows and whole planes, and what qad chooses, on a file dropped from memory."""
    from qad.desi import fits

    chosen = fits.DENSE_SHARE
    lines = []
    for share in SHARES:
        rows = wanted_rows(round(share * TARGETS))
        times = {}
        for name, dense in (("rows", 2.0), ("planes", 0.0), ("chosen", chosen)):
            fits.DENSE_SHARE = dense
            seconds = []
            for _ in range(repeat):
                forget(coadd)
                started = time.perf_counter()
                READERS["qad, rows"](coadd, rows)
                seconds.append(time.perf_counter() - started)
            times[name] = spread(seconds)
        lines.append([f"{share:.0%}", *(shown({k: 1e3 * v for k, v in t.items()}, ".0f") for t in times.values())])
    fits.DENSE_SHARE = chosen
    table("cold: ms by share of wanted rows", ["", *(f"{name} ms" for name in ("rows", "planes", "chosen"))], lines)


def forget(path: Path) -> None:
    """Drop a file from memory."""
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


if __name__ == "__main__":
    main()
