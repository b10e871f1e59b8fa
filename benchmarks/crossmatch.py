"""Crossmatch against astropy's `search_around_sky` and STILTS `tmatch2`: time, memory and the set of pairs, on the same files.

::

    python benchmarks/crossmatch.py                                       100,000 positions x 1,000,000, 1.5 arcsec
    python benchmarks/crossmatch.py --short 1000000 --long 10000000 --repeat 1
    python benchmarks/crossmatch.py --long 10000000 --only qad            memory does not follow the long catalogue

Each method runs in a process of its own and goes from two FITS files to the pairs; the best of `--repeat` runs counts, after
a first run on few rows.  qad counts the density for chance probabilities on the way.  Memory is the peak above what the process
held with its libraries loaded; for STILTS, a Java program, all that the process holds, and its start-up is in its time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Sky = tuple[np.ndarray, np.ndarray]
RADIUS_ARCSEC = 1.5


def random_sky(rng: np.random.Generator, n: int) -> Sky:
    """Return positions spread evenly over the sphere, degrees."""
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


def make_lists(n_short: int, n_long: int, clustered: bool) -> tuple[Sky, Sky]:
    """Return two lists; a third of the first has a neighbour about an arcsecond away in the second."""
    rng = np.random.default_rng(0)
    short = random_sky(rng, n_short)
    if clustered:
        centre = rng.integers(0, 200, n_short)
        short = (
            short[0][centre] + rng.normal(0, 0.5, n_short),
            np.clip(short[1][centre] + rng.normal(0, 0.5, n_short), -90, 90),
        )
        short = np.mod(short[0], 360), short[1]
    ra, dec = random_sky(rng, n_long)
    n_near = min(n_short // 3, n_long)
    ra[:n_near] = short[0][:n_near] + rng.normal(0, 1 / 3600, n_near) / np.maximum(
        np.cos(np.radians(short[1][:n_near])), 1e-6
    )
    dec[:n_near] = np.clip(short[1][:n_near] + rng.normal(0, 1 / 3600, n_near), -90, 90)
    order = rng.permutation(n_long)
    return short, (np.mod(ra[order], 360), dec[order])


def write_fits(path: Path, sky: Sky) -> None:
    """Write positions and row numbers."""
    from astropy.io import fits

    columns = [fits.Column("RA", "D", array=sky[0]), fits.Column("DEC", "D", array=sky[1])]
    columns.append(fits.Column("ID", "K", array=np.arange(len(sky[0]))))
    fits.BinTableHDU.from_columns(columns).writeto(path, overwrite=True)


def match_qad(short: Path, long: Path) -> Sky:
    """Return the pairs found by qad, the long list streamed, as the command finds them."""
    import polars as pl
    from astropy.io import fits

    from qad.matching.catalogs import open_catalog
    from qad.matching.columns import Wanted
    from qad.matching.report import Task, match_catalog

    with fits.open(short) as hdus:
        data = hdus[1].data
        ra, dec = (np.asarray(data[name], np.float64) for name in ("RA", "DEC"))
    n = len(ra)
    key = {"survey": pl.repeat("main", n, eager=True), "program": pl.repeat("dark", n, eager=True)}
    candidates = pl.DataFrame({"rank": np.arange(n), "targetid": np.arange(n), **key, "healpix": np.zeros(n, np.int32)})
    candidates = candidates.with_columns(ra=pl.Series(ra), dec=pl.Series(dec))
    table = match_catalog(candidates, open_catalog(long, Wanted(id="ID")), Task("long", RADIUS_ARCSEC, 2015.5)).table
    return table["rank"].to_numpy(), table["catalog_id"].cast("int64").to_numpy()


def match_astropy(short: Path, long: Path) -> Sky:
    """Return the pairs found by astropy."""
    import astropy.units as u
    from astropy.coordinates import SkyCoord, search_around_sky
    from astropy.io import fits

    coordinates = []
    for path in (short, long):
        with fits.open(path) as hdus:
            coordinates.append(SkyCoord(hdus[1].data["RA"], hdus[1].data["DEC"], unit="deg"))
    left, right, _, _ = search_around_sky(*coordinates, RADIUS_ARCSEC * u.arcsec)
    return left, right


def match_stilts(short: Path, long: Path) -> Sky:
    """Return the pairs found by STILTS."""
    from astropy.io import fits

    output = short.with_name("stilts.fits")
    command = ["stilts", "tmatch2", f"in1={short}", f"in2={long}", "ifmt1=fits", "ifmt2=fits", "matcher=sky"]
    command += [
        f"params={RADIUS_ARCSEC}",
        "values1=RA DEC",
        "values2=RA DEC",
        "find=all",
        "join=1and2",
        "progress=none",
    ]
    command += ["ocmd=keepcols 'ID_1 ID_2'", f"out={output}", "ofmt=fits"]
    subprocess.run(command, check=True, capture_output=True)
    with fits.open(output) as hdus:
        return np.array(hdus[1].data["ID_1"]), np.array(hdus[1].data["ID_2"])


METHODS: dict[str, Callable[[Path, Path], Sky]] = {
    "qad": match_qad,
    "astropy": match_astropy,
    "stilts": match_stilts,
}


def measure(method: str, options: argparse.Namespace) -> dict[str, float | int]:
    """Run one method in this process and return seconds, MB, and a sum over its pairs that tells sets apart."""
    short, long = options.folder / "short.fits", options.folder / "long.fits"
    match = METHODS[method]
    if method != "stilts":  # a process of its own has nothing to warm up
        match(options.folder / "few.fits", options.folder / "few.fits")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, left, right = np.inf, np.empty(0), np.empty(0)
    for _ in range(options.repeat):
        start = time.perf_counter()
        left, right = match(short, long)
        seconds = min(seconds, time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if method == "stilts":
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    pairs = np.sort(np.asarray(left, np.uint64) * np.uint64(options.long) + np.asarray(right, np.uint64))
    digest = int((pairs * np.arange(1, len(pairs) + 1, dtype=np.uint64)).sum() % np.uint64(2**53))
    return {"seconds": seconds, "extra_mb": peak / 1024, "pairs": len(pairs), "digest": digest}


def main() -> int:
    """Run the methods, print a table, and return 1 if they found different pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", type=int, default=100_000)
    parser.add_argument("--long", type=int, default=1_000_000)
    parser.add_argument("--clustered", action="store_true", help="the short list in 200 clusters of half a degree")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=sorted(METHODS), action="append")
    parser.add_argument("--folder", type=Path, help="where the files are made, and kept")
    parser.add_argument("--measure", choices=sorted(METHODS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options)))
        return 0
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        if not (folder / "long.fits").exists():
            for name, sky in zip(
                ("short", "long"), make_lists(options.short, options.long, options.clustered), strict=True
            ):
                write_fits(folder / f"{name}.fits", sky)
            write_fits(folder / "few.fits", random_sky(np.random.default_rng(1), 100))
        return compare(folder, options)


def compare(folder: Path, options: argparse.Namespace) -> int:
    """Run the methods on the files of a folder."""
    found = {}
    for method in options.only or METHODS:
        if method == "stilts" and shutil.which("stilts") is None:
            print("stilts   is not installed (Debian: apt install stilts)")
            continue
        arguments = [sys.executable, __file__, "--measure", method, "--folder", str(folder)]
        arguments += ["--long", str(options.long), "--repeat", str(options.repeat)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        found[method] = row = json.loads(done.stdout)
        print(f"{method:8} {row['seconds']:8.3f} s  {row['extra_mb']:8.0f} MB  {row['pairs']:9,} pairs", flush=True)
    is_same = len({row["digest"] for row in found.values()}) == 1
    for method, row in found.items():
        if method != "qad" and "qad" in found:
            ratio, memory = row["seconds"] / found["qad"]["seconds"], found["qad"]["extra_mb"] / row["extra_mb"]
            print(f"{ratio:.1f} x as fast as {method}, {memory:.2f} of its memory")
    print(f"pairs {'equal' if is_same else 'DIFFER'}")
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
