"""Crossmatch against astropy's `search_around_sky`: time, memory and the set of pairs, in one run.

::

    python benchmarks/crossmatch.py                       100,000 positions x 1,000,000, 1.5 arcsec
    python benchmarks/crossmatch.py --long 10000000 --only qad

Each method runs in a process of its own, on the same positions, after a first warm-up on few of them; the best of
`--repeat` runs counts.  Memory is the peak above what the process held with the positions loaded.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

Sky = tuple[np.ndarray, np.ndarray]
RADIUS_ARCSEC = 1.5
BLOCK_ROWS = 1 << 17


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


def match_qad(short: Sky, long: Sky) -> Sky:
    """Return the pairs found by qad, the long list streamed."""
    from qad.matching.sky import SkyIndex, normal_ra

    index = SkyIndex(*short, RADIUS_ARCSEC)
    left, right = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(long[0]), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        for pairs in index.pairs(normal_ra(long[0][block]), long[1][block]):
            left.append(pairs.left)
            right.append(pairs.right + start)
    return np.concatenate(left), np.concatenate(right)


def match_astropy(short: Sky, long: Sky) -> Sky:
    """Return the pairs found by astropy."""
    import astropy.units as u
    from astropy.coordinates import SkyCoord, search_around_sky

    first, second = SkyCoord(*short, unit="deg"), SkyCoord(*long, unit="deg")
    left, right, _, _ = search_around_sky(first, second, RADIUS_ARCSEC * u.arcsec)
    return left, right


METHODS: dict[str, Callable[[Sky, Sky], Sky]] = {"qad": match_qad, "astropy": match_astropy}


def measure(method: str, options: argparse.Namespace) -> dict[str, float | int]:
    """Run one method in this process and return seconds, MB, and a sum over its pairs that tells sets apart."""
    short, long = make_lists(options.short, options.long, options.clustered)
    match = METHODS[method]
    match((short[0][:100], short[1][:100]), (long[0][:100], long[1][:100]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, left, right = np.inf, np.empty(0), np.empty(0)
    for _ in range(options.repeat):
        start = time.perf_counter()
        left, right = match(short, long)
        seconds = min(seconds, time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pairs = np.sort(np.asarray(left, np.uint64) * np.uint64(options.long) + np.asarray(right, np.uint64))
    digest = int((pairs * np.arange(1, len(pairs) + 1, dtype=np.uint64)).sum() % np.uint64(2**53))
    return {"seconds": seconds, "extra_mb": (peak - before) / 1024, "pairs": len(pairs), "digest": digest}


def main() -> int:
    """Run the methods, print a table, and return 1 if they found different pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", type=int, default=100_000)
    parser.add_argument("--long", type=int, default=1_000_000)
    parser.add_argument("--clustered", action="store_true", help="the short list in 200 clusters of half a degree")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=sorted(METHODS))
    parser.add_argument("--measure", choices=sorted(METHODS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options)))
        return 0
    found = {}
    for method in [options.only] if options.only else list(METHODS):
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", method]
        found[method] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        row = found[method]
        print(f"{method:8} {row['seconds']:8.3f} s  {row['extra_mb']:8.0f} MB  {row['pairs']:9,} pairs")
    if len(found) < 2:
        return 0
    ratio = found["astropy"]["seconds"] / found["qad"]["seconds"]
    memory = found["qad"]["extra_mb"] / found["astropy"]["extra_mb"]
    same = found["astropy"]["digest"] == found["qad"]["digest"]
    print(f"{ratio:.1f} x as fast as astropy, {memory:.2f} of its memory, pairs {'equal' if same else 'DIFFER'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
