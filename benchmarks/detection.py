"""What detects anomalous quasars: the experiment that the defaults of ``qad score`` rest on.

Simulates a release with planted, labelled anomalies and artefacts, runs every stage on it with the default settings for the
architectures rest-frame, factor and mlp, and prints how well each view and the score recover what was planted::

    python benchmarks/detection.py --quasars 5000 --seed 1 --json detection.json

With ``compare`` it prints, as a table in Markdown, our default ranking beside what others rank by (reduced chi2 of a plain
autoencoder, weighted principal components, isolation forest, nearest neighbours, spender, trees that learned the truth of
half)::

    pip install scikit-learn
    python benchmarks/detection.py compare --quasars 5000 --seed 1
    python benchmarks/detection.py compare --simulation second --quasars 20000 --spender spender-env/bin/python

``--simulation second`` is one that shares no code with `qad simulate` (``benchmarks/detecting/second_*.py``).  spender brings
PyTorch and wants an environment of its own: see ``benchmarks/detecting/spender_run.py``.

Finished stages are recognised and skipped, so that a second run with the same directory only evaluates.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import qad
from qad.config import Config, load_config
from qad.evaluation.metrics import (
    auroc,
    average_precision,
    bootstrap,
    precision_at,
    rank_correlation,
    recall_at_fpr,
    recall_of,
)
from qad.schema import SCORES, SPECTRUM_KEY, TRUTH
from qad.storage.parquet import read_frame, read_table

ARCHITECTURES = ("rest-frame", "factor", "mlp")
VIEWS = ("p_global", "p_local", "p_latent", "p_line")
SNR_BANDS = (0.0, 1.0, 2.0, 4.0, 8.0, np.inf)


def main() -> None:
    """Run the experiment and print its table."""
    options = _arguments()
    root = options.directory / "data"
    started = time.monotonic()
    truth = _prepare(options, root)
    if options.what == "compare":
        _compare(options, root, truth, started)
        return
    document: dict[str, Any] = {"settings": {key: str(value) for key, value in vars(options).items()}, "scores": {}}
    for arch in options.arch:
        qad.train(root=root, name=arch, arch=arch, jobs=options.jobs)
        qad.score(root=root, name=arch, jobs=options.jobs, force=options.rescore)
        _say(started, f"{arch}: trained and scored")
        document["scores"] |= _evaluate(root, arch, truth)
    _print(document["scores"])
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("views", "compare"), default="views")
    parser.add_argument("--simulation", choices=("first", "second"), default="first")
    parser.add_argument(
        "--spender", default="", metavar="PYTHON", help="interpreter that has spender; empty: without it"
    )
    parser.add_argument("--spender-seconds", type=float, default=120.0, help="how long spender is trained")
    parser.add_argument("--directory", type=Path, default=Path("detection-benchmark"), help="work directory, kept")
    parser.add_argument("--quasars", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--anomaly-rate", type=float, default=0.02)
    parser.add_argument("--artefact-rate", type=float, default=0.01)
    parser.add_argument("--arch", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--rescore", action="store_true", help="score again although nothing changed")
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def _compare(options: argparse.Namespace, root: Path, truth: Path, started: float) -> None:
    from detecting.compare import compare, markdown

    for arch in ARCHITECTURES:
        qad.train(root=root, name=arch, arch=arch, jobs=options.jobs)
        qad.score(root=root, name=arch, jobs=options.jobs, force=options.rescore)
        _say(started, f"{arch}: trained and scored")
    document = compare(root, truth, options.spender, options.spender_seconds)
    _say(started, "compared")
    print(markdown(document))
    if options.json:
        settings = {key: str(value) for key, value in vars(options).items()}
        options.json.write_text(json.dumps({"settings": settings, **document}, indent=2) + "\n")


def _prepare(options: argparse.Namespace, root: Path) -> Path:
    """Make release and grid, and return the truth."""
    release = options.directory / "release"
    if options.simulation == "second":
        from detecting.second_release import write_release

        write_release(release, options.quasars, options.anomaly_rate, options.artefact_rate, options.seed)
    else:
        _simulate(options, release)
    qad.extract(root=root, source=release, jobs=options.jobs)
    qad.build_grid(root=root, jobs=options.jobs)
    return release / "truth.parquet"


def _simulate(options: argparse.Namespace, release: Path) -> None:
    qad.simulate(
        release,
        quasars=options.quasars,
        healpix=max(2, options.quasars // 250),
        anomaly_rate=options.anomaly_rate,
        artefact_rate=options.artefact_rate,
        seed=options.seed,
        resolution=False,
        jobs=options.jobs,
    )


def _evaluate(root: Path, arch: str, truth_file: Path) -> dict[str, Any]:
    """Return the figures of every view and of the score of one model."""
    config: Config = load_config(overrides={"paths.root": str(root)})
    table = read_table(config.workspace.scores_file(arch), SCORES)
    truth = read_frame(truth_file, TRUTH, [*SPECTRUM_KEY, "anomaly", "artefact"]).unique(SPECTRUM_KEY)
    keys = read_frame(config.workspace.scores_file(arch), SCORES, [*SPECTRUM_KEY, "snr", "rank"])
    joined = keys.join(truth, on=list(SPECTRUM_KEY), how="left", maintain_order="left")
    anomaly = joined["anomaly"].fill_null("").to_numpy().astype(str)
    artefact = joined["artefact"].fill_null("").to_numpy().astype(str)
    snr = joined["snr"].to_numpy()
    values = {f"{arch}: plain chi2": table["chi2_dof"].to_numpy().astype(float)}
    for view in VIEWS:
        values[f"{arch}: {view}"] = -np.log(table[view].to_numpy())
    values[f"{arch}: score"] = table["score"].to_numpy()
    values[f"{arch}: rank"] = -table["rank"].to_numpy().astype(float)
    p_value = table["p_value"].to_numpy()
    found = {name: _figures(score, anomaly, artefact, snr) for name, score in values.items()}
    normal = (anomaly == "") & (artefact == "")
    found[f"{arch}: rank"]["false_positive_rate_at_1_percent"] = _by_snr(p_value < 0.01, normal, snr)
    found[f"{arch}: rank"]["anomalies_called_artefacts"] = float(
        np.mean(table["artefact"].to_numpy()[anomaly != ""] >= config.score.artefact_threshold)
    )
    return found


def _figures(score: np.ndarray, anomaly: np.ndarray, artefact: np.ndarray, snr: np.ndarray) -> dict[str, Any]:
    truth = anomaly != ""
    first = np.argsort(-score, kind="stable")[:100]
    return {
        "auroc": auroc(score, truth),
        "ap": average_precision(score, truth),
        "ap_error": bootstrap(average_precision, score, truth, n_draws=50),
        "precision_at_100": precision_at(score, truth, 100),
        "recall_at_1_percent": recall_at_fpr(score, truth),
        "rank_correlation_with_snr": rank_correlation(score, snr),
        "artefacts_in_100": int((artefact[first] != "").sum()),
        "recall_by_class": {
            name: recall_of(score, truth, anomaly == name) for name in sorted(set(anomaly.tolist()) - {""})
        },
        "ap_by_snr": {
            f"{low:g}-{high:g}": average_precision(score[band], truth[band])
            for low, high in itertools.pairwise(SNR_BANDS)
            for band in [(snr >= low) & (snr < high)]
            if truth[band].any()
        },
    }


def _by_snr(is_positive: np.ndarray, normal: np.ndarray, snr: np.ndarray) -> dict[str, float]:
    bands = {"all": normal}
    for low, high in itertools.pairwise(SNR_BANDS):
        bands[f"{low:g}-{high:g}"] = normal & (snr >= low) & (snr < high)
    return {name: float(is_positive[band].mean()) for name, band in bands.items() if band.sum() >= 100}


def _print(scores: dict[str, Any]) -> None:
    columns = {
        "AUROC": "auroc",
        "AP": "ap",
        "error": "ap_error",
        "P@100": "precision_at_100",
        "rec@1%FPR": "recall_at_1_percent",
        "rho(S/N)": "rank_correlation_with_snr",
    }
    print(f"{'':26}" + "".join(f"{name:>12}" for name in (*columns, "artef@100")))
    for name, figures in scores.items():
        numbers = [figures[key] for key in columns.values()]
        print(f"{name:26}" + "".join(f"{value:12.3f}" for value in numbers) + f"{figures['artefacts_in_100']:12d}")
    for name, figures in scores.items():
        if not name.endswith("rank"):
            continue
        classes = ", ".join(f"{kind} {recall:.2f}" for kind, recall in figures["recall_by_class"].items())
        print(f"\n{name}: recall at 1 % false positives: {classes}")
        print(f"  AP by S/N: { {k: round(v, 2) for k, v in figures['ap_by_snr'].items()} }")
        flat = {k: round(v, 4) for k, v in figures["false_positive_rate_at_1_percent"].items()}
        print(f"  false positives at nominal 1 %: {flat}")
        print(f"  anomalies called artefacts: {figures['anomalies_called_artefacts']:.3f}")


def _say(started: float, text: str) -> None:
    print(f"[{time.monotonic() - started:6.0f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
