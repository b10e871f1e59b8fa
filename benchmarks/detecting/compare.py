"""Our ranking beside the baselines, on one simulation: figures with bootstrap errors, and a table in Markdown."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from detecting import baselines
from qad.config import load_config
from qad.evaluation.metrics import average_precision, rank_correlation, recall_of
from qad.schema import SCORES, SPECTRUM_KEY, TRUTH
from qad.storage.flatcache import GridCache, open_grid
from qad.storage.parquet import read_table

SNR_EDGES = (0.0, 1.0, 2.0, 4.0, np.inf)
FIRST = 100
N_DRAWS = 200
OURS = "qad, default ranking"


def compare(root: Path, truth_file: Path, spender: str, spender_seconds: float) -> dict[str, Any]:
    """Return the figures of all rankings of one simulation, by name."""
    config = load_config(overrides={"paths.root": str(root)})
    cache = open_grid(config.workspace)
    known = _truth(cache, truth_file)
    snr, z = cache.table["snr"].to_numpy().astype(float), cache.table["z"].to_numpy()
    scores = {OURS: -_column(config, cache, "rest-frame", "rank")}
    scores["qad, score without the artefact rule"] = _column(config, cache, "rest-frame", "score")
    for view in ("local", "latent", "line", "global"):
        scores[f"qad, {view} view"] = -np.log(_column(config, cache, "rest-frame", f"p_{view}"))
    for name in ("factor", "mlp"):
        scores[f"qad, with the `{name}` model"] = -_column(config, cache, name, "rank")
    scores |= _both("reduced chi2 of `mlp`", np.log(_column(config, cache, "mlp", "chi2_dof")), snr, z)
    spectra = baselines.RestFrame(cache)
    pca = baselines.WeightedPca(spectra)
    scores |= _both("ivar-weighted PCA, chi2", np.log(pca.chi2), snr, z)
    scores |= _both("isolation forest on PCA", baselines.isolation(pca.coefficients), snr, z)
    scores |= _both("k-nearest neighbours in PCA", baselines.neighbour_distance(pca.coefficients), snr, z)
    notes: dict[str, Any] = {}
    if spender:
        found = _spender(cache, z, spender, spender_seconds, root)
        scores |= _both("`spender`, chi2", np.log(found["chi2"] + 1e-9), snr, z)
        scores |= _both("`spender`, neighbours in its latents", baselines.neighbour_distance(found["latent"]), snr, z)
        notes["spender"] = {
            key: float(found[key]) for key in ("epochs", "train_seconds", "score_seconds", "parameters")
        }
    is_anomaly = known["anomaly"] != ""
    views = _view_features(config, cache, snr, z)
    scores["boosted trees on our views, truth of half"] = baselines.boosted(views, is_anomaly)
    pixels = baselines.pixel_features(spectra, pca.coefficients, snr, z)
    scores["boosted trees on pixels and PCA, truth of half"] = baselines.boosted(pixels, is_anomaly)
    missing = {name: int((~np.isfinite(values)).sum()) for name, values in scores.items()}
    keep = np.all([np.isfinite(values) for values in scores.values()], axis=0)
    known = {name: values[keep] for name, values in known.items()}
    figures = {name: _figures(values[keep], known, snr[keep]) for name, values in scores.items()}
    counts = {"spectra": int(keep.sum()), "anomalies": int((known["anomaly"] != "").sum())}
    counts |= {"artefacts": int((known["artefact"] != "").sum()), "median_snr": float(np.median(snr))}
    return {
        "counts": counts,
        "not_finite": {k: v for k, v in missing.items() if v},
        "notes": notes,
        "rankings": figures,
    }


def _both(name: str, score: np.ndarray, snr: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
    return {name: score, f"{name}, calibrated": baselines.calibrated(score, snr, z)}


def _keys(cache: GridCache) -> pl.DataFrame:
    return cache.table.select(list(SPECTRUM_KEY)).with_columns(pl.col(pl.Categorical).cast(pl.String))


def _truth(cache: GridCache, path: Path) -> dict[str, np.ndarray]:
    table = pl.from_arrow(read_table(path, TRUTH, [*SPECTRUM_KEY, "anomaly", "artefact"]))
    table = table.with_columns(pl.col(pl.Categorical).cast(pl.String)).unique(list(SPECTRUM_KEY), keep="first")
    joined = _keys(cache).join(table, on=list(SPECTRUM_KEY), how="left", maintain_order="left")
    return {name: joined[name].fill_null("").to_numpy().astype(str) for name in ("anomaly", "artefact")}


def _column(config: Any, cache: GridCache, name: str, column: str) -> np.ndarray:
    """Return a column of scores in the order of the grid; nan where a spectrum has no score."""
    table = pl.from_arrow(read_table(config.workspace.scores_file(name), SCORES, [*SPECTRUM_KEY, column]))
    table = table.with_columns(pl.col(pl.Categorical).cast(pl.String))
    joined = _keys(cache).join(table, on=list(SPECTRUM_KEY), how="left", maintain_order="left")
    return joined[column].cast(pl.Float64).fill_null(np.nan).to_numpy()


def _view_features(config: Any, cache: GridCache, snr: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return what the classifier learns from: every view's value and p-value, and the artefact probability."""
    import pyarrow.parquet as pq

    names = pq.read_schema(config.workspace.scores_file("rest-frame")).names
    wanted = [name for name in names if name.startswith(("view_", "p_"))]
    columns = [_column(config, cache, "rest-frame", name) for name in wanted]
    columns = [np.log(c) if name.startswith("p_") else c for name, c in zip(wanted, columns, strict=True)]
    return np.column_stack([*columns, _column(config, cache, "rest-frame", "artefact"), snr, z])


def _spender(cache: GridCache, z: np.ndarray, python: str, seconds: float, root: Path) -> dict[str, np.ndarray]:
    """Train and apply spender in another interpreter, or return what an earlier run kept."""
    kept = root / f"spender-{cache.key[:16]}-{seconds:.0f}.npz"
    if not kept.is_file():
        _run_spender(cache, z, python, seconds, kept)
    with np.load(kept) as found:
        return {name: found[name] for name in found.files}


def _run_spender(cache: GridCache, z: np.ndarray, python: str, seconds: float, output: Path) -> None:
    loglam = float(cache.grid["loglam0"]) + float(cache.grid["dloglam"]) * np.arange(cache.n_obs)
    # one observed axis for all: the window's rest-frame start moves by whole pixels, its remainder is below a pixel
    first = np.log10(3600.0)
    wave = 10 ** (first + loglam - loglam[0])
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "spectra.npz"
        observed = loglam[0] + cache.start * float(cache.grid["dloglam"]) + np.log10(1 + z)
        z_used = 10 ** (np.log10(1 + z) + first - observed) - 1
        np.savez(given, flux=np.asarray(cache.flux), ivar=np.asarray(cache.ivar), wave=wave, z=z_used)
        script = Path(__file__).with_name("spender_run.py")
        command = [python, str(script), str(given), str(output), "--seconds", str(seconds)]
        print(f"training spender for {seconds:.0f} s", file=sys.stderr, flush=True)
        subprocess.run(command, check=True)


def _figures(score: np.ndarray, known: dict[str, np.ndarray], snr: np.ndarray) -> dict[str, Any]:
    anomaly, artefact = known["anomaly"], known["artefact"]
    truth = anomaly != ""
    order = np.argsort(-score, kind="stable")
    sorted_truth, sorted_fault = truth[order], artefact[order] != ""
    rng = np.random.default_rng(1)
    draws = [np.bincount(rng.integers(0, len(score), len(score)), minlength=len(score)) for _ in range(N_DRAWS)]
    found = {}
    for name, figure in (("ap", _weighted_ap), ("auroc", _weighted_auroc), ("precision_at_100", _weighted_precision)):
        values = [figure(sorted_truth, draw[order]) for draw in draws]
        found[name] = figure(sorted_truth, np.ones(len(score)))
        found[f"{name}_error"] = float(np.std(values))
    bands = list(itertools.pairwise(SNR_EDGES))
    return {
        **found,
        "artefacts_in_100": int(sorted_fault[:FIRST].sum()),
        "rank_correlation_with_snr": rank_correlation(score, snr),
        "recall_by_class": {
            name: recall_of(score, truth, anomaly == name) for name in sorted(set(anomaly.tolist()) - {""})
        },
        "ap_by_snr": {
            f"{low:g}-{high:g}": average_precision(score[band], truth[band])
            for low, high in bands
            for band in [(snr >= low) & (snr < high)]
            if truth[band].any()
        },
    }


def _weighted_ap(truth: np.ndarray, count: np.ndarray) -> float:
    hits, total = np.cumsum(truth * count), np.cumsum(count)
    return float(np.sum(truth * count * hits / np.maximum(total, 1)) / max(hits[-1], 1))


def _weighted_auroc(truth: np.ndarray, count: np.ndarray) -> float:
    hits, misses = np.cumsum(truth * count), np.cumsum(~truth * count)
    return float(np.sum(hits * ~truth * count) / max(hits[-1] * misses[-1], 1))


def _weighted_precision(truth: np.ndarray, count: np.ndarray) -> float:
    return float(np.interp(FIRST, np.cumsum(count), np.cumsum(truth * count)) / FIRST)


def markdown(document: dict[str, Any]) -> str:
    """Return the table for the README, and below it our completeness by class and precision by S/N."""
    counts = document["counts"]
    lines = [
        f"{counts['spectra']:,} spectra, {counts['anomalies']} anomalies, {counts['artefacts']} artefacts, "
        f"median S/N {counts['median_snr']:.1f}",
        "",
        "| ranked by | AP | AUROC | anomalies in the first 100 | artefacts in them | rank correlation with S/N |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, f in document["rankings"].items():
        label = f"**{name}**" if name == OURS else name
        lines.append(
            f"| {label} | {f['ap']:.3f} ± {f['ap_error']:.3f} | {f['auroc']:.3f} ± {f['auroc_error']:.3f} "
            f"| {100 * f['precision_at_100']:.0f} ± {100 * f['precision_at_100_error']:.0f} "
            f"| {f['artefacts_in_100']} | {f['rank_correlation_with_snr']:+.2f} |"
        )
    shown = [name for name in document["rankings"] if name == OURS or "calibrated" in name or "boosted" in name]
    for title, key in (("recall at 1 % false positives", "recall_by_class"), ("AP by S/N", "ap_by_snr")):
        cells = list(document["rankings"][OURS][key])
        lines += ["", f"| {title} | " + " | ".join(cells) + " |", "| --- |" + " --- |" * len(cells)]
        for name in shown:
            values = document["rankings"][name][key]
            lines.append(f"| {name} | " + " | ".join(f"{values[cell]:.2f}" for cell in cells) + " |")
    return "\n".join(lines)
