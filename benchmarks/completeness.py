"""Does `qad evaluate` tell the truth?  What it says of a search, beside what the search finds of objects made from scratch.

A sample of normal simulated quasars is searched, and evaluated by planting into its held-out spectra.  A second sample, half of
which are anomalies simulated from scratch at the same redshifts and magnitudes, is scored by the same model and calibration, and
judged by its truth.  Printed are both completenesses at 1 % false positives, and by how many standard errors they differ::

    python benchmarks/completeness.py --quasars 3000

Nothing of the second sample goes into the first.  The classes are the same, so this checks the planting, not the classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import qad

CRITERION = "fpr_0.01"


def main() -> None:
    """Run both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("completeness-benchmark"), help="work directory, kept")
    parser.add_argument("--quasars", type=int, default=3000)
    parser.add_argument("--spectra", type=int, default=1500, help="spectra to plant into")
    parser.add_argument("--arch", default="factor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=0)
    options = parser.parse_args()
    planted, scratch = _both(options)
    print(f"{'':22}{'planted':>16}{'from scratch':>16}{'difference':>12}")
    told = {(entry["by"], entry["cell"]): entry for entry in scratch["completeness"]}
    pulls = []
    for entry in planted["completeness"]:
        other = told.get((entry["by"], entry["cell"]))
        if entry["by"] not in ("all", "class", "snr", "z") or other is None:
            continue
        first, second = entry[CRITERION], other[CRITERION]
        pull = (first["value"] - second["value"]) / np.hypot(first["error"], second["error"])
        pulls += [pull] if entry["by"] == "class" else []
        shown = "".join(f"{figure['value']:9.2f} ± {figure['error']:.2f}" for figure in (first, second))
        print(f"{entry['by'] + ' ' + entry['cell']:22}{shown}{pull:+10.1f} s")
    print(f"root mean square difference over classes: {np.sqrt(np.mean(np.square(pulls))):.2f} standard errors")


def _both(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the evaluation by planting, and that of objects from scratch."""
    normal = {"contaminants": 0.0, "artefact_rate": 0.0, "resolution": False, "jobs": options.jobs}
    n_pixels = max(2, options.quasars // 250)
    first, second = options.directory / "normal", options.directory / "scratch"
    qad.simulate(
        first / "release", quasars=options.quasars, healpix=n_pixels, anomaly_rate=0.0, seed=options.seed, **normal
    )
    other = {
        "quasars": options.quasars // 2,
        "healpix": max(2, n_pixels // 2),
        "anomaly_rate": 0.5,
        "seed": options.seed + 1,
    }
    qad.simulate(second / "release", **other, **normal)
    for place in (first, second):
        qad.extract(root=place / "data", source=place / "release", jobs=options.jobs)
        qad.build_grid(root=place / "data", jobs=options.jobs)
    qad.train(root=first / "data", arch=options.arch, jobs=options.jobs)
    qad.score(root=first / "data", jobs=options.jobs)
    trained = {
        "model": first / "data" / "models" / "default",
        "calibration": first / "data" / "scores" / "default.calibration.npz",
    }
    qad.score(root=second / "data", jobs=options.jobs, **trained)
    planted = qad.evaluate(root=first / "data", spectra=options.spectra, truth="none", jobs=options.jobs)
    scratch = qad.evaluate(root=second / "data", truth=str(second / "release" / "truth.parquet"))
    return dict(planted.details["evaluation"]), dict(scratch.details["evaluation"])


if __name__ == "__main__":
    main()
