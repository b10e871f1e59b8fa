"""``qad evaluate``: how complete is a search?

Anomalies and artefacts are planted into copies of held-out spectra, which go through gridding and scoring as the user's own
did, and are looked up in the user's list.  Where a truth is known, as for a simulated release, the scores are judged by it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import qad
from qad.config import Config
from qad.errors import ConfigError, InputError
from qad.evaluation import figures
from qad.evaluation.judged import Judged, ranking_score
from qad.evaluation.levels import levels_of
from qad.evaluation.orders import Order, draw_orders
from qad.evaluation.plot import draw_plot
from qad.evaluation.rescore import Scorer, find_scorer
from qad.evaluation.sheets import cut_sheets, write_sheet
from qad.results import RunOptions, StageResult
from qad.schema import SCORES, SPECTRUM_KEY, TRUTH
from qad.simulation.anomalies import ANOMALIES
from qad.storage.atomic import storage_errors, write_bytes, write_json
from qad.storage.flatcache import GridCache, open_grid
from qad.storage.parquet import read_frame
from qad.storage.provenance import hash_document, hash_file
from qad.storage.receipts import read_receipt
from qad.work.engine import run_units

if TYPE_CHECKING:
    import polars as pl

USUAL_P = 0.05
"""Something is planted only into spectra that are not strange already: what is found must be what was planted."""
MIN_BASES = 50
"""With fewer held-out spectra the others are used too."""
TRAINED_ON = 0
"""The value of `split` of spectra that a model was trained on."""
NO_TRUTH = "none"
COLUMNS = (*SPECTRUM_KEY, "z", "snr", "score", "p_value", "artefact")


def evaluate(config: Config, options: RunOptions) -> StageResult:
    """Measure how well the scores of a model find anomalies, and write ``evaluation/<name>.json`` and ``.png``.

    Raises
    ------
    ConfigError
        If a class is not known.
    InputError
        If there are no scores, or what made them is gone, or no spectrum can be planted into.
    """
    settings = config.evaluate
    unknown = [name for name in settings.classes if name not in ANOMALIES]
    if unknown:
        raise ConfigError(f"evaluate.classes: no class {unknown[0]!r}; known: {', '.join(ANOMALIES)}")
    scorer = find_scorer(config, settings.name)
    truth = find_truth(config)
    path = config.workspace.evaluation_file(settings.name)
    paths = (path, path.with_suffix(".png"))
    inputs = _inputs(scorer, truth)
    if options.dry_run:
        return StageResult("evaluate", n_done=settings.spectra if truth is None else 0, paths=paths, dry_run=True)
    found = read_receipt(path)
    if found.get("inputs") == inputs and paths[1].is_file() and not options.force:
        return StageResult("evaluate", n_skipped=1, paths=paths, counts=found["n"], details={"evaluation": found})
    judged, counts = _planted(scorer, options) if truth is None else _by_truth(scorer, truth)
    options.progress.start("evaluate: bootstrap")
    document = {
        "format": figures.FORMAT,
        "qad.version": qad.__version__,
        "mode": "planted" if truth is None else "truth",
        "name": settings.name,
        "n": counts,
        "settings": config.section("evaluate"),
        **figures.document(judged, settings.top, settings.seed),
        "inputs": inputs,
    }
    write_bytes(paths[1], draw_plot(document))
    write_json(path, document)
    return StageResult("evaluate", n_done=1, paths=paths, counts=counts, details={"evaluation": document})


def find_truth(config: Config) -> Path | None:
    """Return the truth to judge by: the one asked for, or the one beside a simulated release that was extracted; else None.

    Raises
    ------
    InputError
        If the one asked for is not there.
    """
    named = config.evaluate.truth
    if named == NO_TRUTH:
        return None
    if named:
        path = config.path_of("evaluate.truth")
        if not path.is_file():
            raise InputError(path, "no such truth; `qad simulate` writes truth.parquet beside its release")
        return path
    source = config.extract.source
    beside = config.path_of("extract.source") / "truth.parquet" if source and "://" not in source else None
    return beside if beside is not None and beside.is_file() else None


def _inputs(scorer: Scorer, truth: Path | None) -> dict[str, str]:
    """Return the hashes of what the figures depend on."""
    workspace = scorer.config.workspace
    files = {
        "scores": workspace.scores_file(scorer.name),
        "calibration": scorer.calibration,
        "model": scorer.model / "model.json",
        "grid": workspace.grid_json,
        **({} if truth is None else {"truth": truth}),
    }
    section = {key: value for key, value in scorer.config.section("evaluate").items() if key != "truth"}
    missing = [path for path in files.values() if not path.is_file()]
    if missing:
        raise InputError(missing[0], "missing; run the stages before `qad evaluate` again")
    hashes = {name: hash_file(path) for name, path in files.items()}
    return {**hashes, "settings": hash_document([section, qad.__version__, figures.FORMAT])}


def _by_truth(scorer: Scorer, truth: Path) -> tuple[Judged, dict[str, int]]:
    """Return the scores with what is planted in each spectrum according to a truth table."""
    scores = read_frame(scorer.config.workspace.scores_file(scorer.name), SCORES, COLUMNS)
    wanted = [*SPECTRUM_KEY, "anomaly", "artefact", "strength"]
    known = read_frame(truth, TRUTH, wanted).unique(list(SPECTRUM_KEY), keep="first", maintain_order=True)
    joined = scores.join(known.rename({"artefact": "fault"}), on=list(SPECTRUM_KEY), how="inner", maintain_order="left")
    if joined.is_empty():
        raise InputError(truth, "names none of the scored spectra; it belongs to another release")
    n = joined.height
    judged = _judged(scorer, joined, np.ones(n, bool), np.ones(n), np.arange(n))
    return judged, {**_counts(judged), "without_truth": scores.height - n}


def _planted(scorer: Scorer, options: RunOptions) -> tuple[Judged, dict[str, int]]:
    """Return the user's list with the planted spectra, and counts."""
    settings, workspace = scorer.config.evaluate, scorer.config.workspace
    cache = open_grid(workspace, verify=options.verify)
    scores = read_frame(workspace.scores_file(scorer.name), SCORES, COLUMNS)
    bases, n_held_out = base_rows(scorer, cache, scores)
    if n_held_out < MIN_BASES and scorer.is_own_model:
        options.progress.note(f"only {n_held_out} held-out spectra: spectra that the model was trained on are used too")
    z = cache.table["z"].to_numpy()
    orders = draw_orders(z, bases, settings.spectra, settings.classes or list(ANOMALIES), settings.seed)
    if not any(not order.is_artefact for order in orders):
        raise InputError(workspace.spectra, "no spectrum lies at a redshift at which a class to plant would show")
    folder = workspace.evaluation / f".work-{scorer.name}"
    with storage_errors(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        _write_sheets(scorer, cache, orders, folder, options)
        found, _ = scorer.score(folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    judged = _joined(scorer, cache, scores, orders, found)
    counts = {**_counts(judged), "bases": len({order.base for order in orders}), "lost": len(orders) - found.height}
    return judged, counts


def base_rows(scorer: Scorer, cache: GridCache, scores: pl.DataFrame) -> tuple[np.ndarray, int]:
    """Return the grid rows that something may be planted into, and how many usual spectra are held out.

    Usual is what is not strange or an artefact already; held out is what the model was not trained on.
    """
    import polars as pl

    keys = cache.table.select([*SPECTRUM_KEY, "split"]).with_columns(pl.col(pl.Categorical).cast(pl.String))
    joined = keys.join(scores, on=list(SPECTRUM_KEY), how="left", maintain_order="left")
    threshold = scorer.score_settings.artefact_threshold
    usual = (joined["p_value"].fill_null(0.0) >= USUAL_P) & (joined["artefact"].fill_null(1.0) < threshold)
    is_usual = usual.to_numpy()
    held_out = is_usual & ((joined["split"].to_numpy() != TRAINED_ON) | (not scorer.is_own_model))
    chosen = held_out if held_out.sum() >= MIN_BASES else is_usual
    if not chosen.any():
        raise InputError(
            scorer.config.workspace.scores_file(scorer.name),
            f"no spectrum with a p_value of {USUAL_P} or more to plant into; calibrate on more spectra like these",
        )
    return np.flatnonzero(chosen), int(held_out.sum())


def _write_sheets(scorer: Scorer, cache: GridCache, orders: list[Order], folder: Path, options: RunOptions) -> None:
    """Plant what is ordered and write it as `spectra` tables below `folder`."""
    from qad.models.directory import load_model

    workspace = scorer.config.workspace
    rows = np.unique([row for order in orders for row in (order.base, order.partner) if row is not None])
    levels = dict(zip(rows.tolist(), levels_of(cache, load_model(scorer.model), rows), strict=True))
    keys = cache.table[rows].select(list(SPECTRUM_KEY)).to_dicts()
    sources = {
        row: (workspace.spectra_file(str(key["survey"]), str(key["program"]), key["healpix"]), key["targetid"])
        for row, key in zip(rows.tolist(), keys, strict=True)
    }
    missing = sorted({path for path, _ in sources.values() if not path.is_file()})
    if missing:
        raise InputError(missing[0], "no spectra here; planting needs the spectra themselves: run `qad extract` again")
    sheets = cut_sheets(orders, sources, levels, folder / "spectra", scorer.config.evaluate.seed)
    options.progress.start("evaluate: plant", total=len(orders), unit="spectra")
    for outcome in run_units(write_sheet, sheets, options.jobs):
        if outcome.value is None:
            raise InputError(workspace.spectra, str(outcome.error), "planting")
        options.progress.advance(len(outcome.unit))


def _joined(scorer: Scorer, cache: GridCache, scores: pl.DataFrame, orders: list[Order], found: pl.DataFrame) -> Judged:
    """Return the user's list, and after it the planted spectra, weighted as the stated prevalences say."""
    import polars as pl

    settings = scorer.config.evaluate
    by_number = {order.number: order for order in orders}
    placed = [by_number[number] for number in found["targetid"].to_list()]
    keys = cache.table.select(list(SPECTRUM_KEY)).with_columns(pl.col(pl.Categorical).cast(pl.String))
    places = scores.select(list(SPECTRUM_KEY)).with_row_index("place")
    unit_of = keys.join(places, on=list(SPECTRUM_KEY), how="left", maintain_order="left")["place"].to_numpy()
    plants = found.with_columns(
        pl.Series("anomaly", [None if order.is_artefact else order.name for order in placed], pl.String),
        pl.Series("fault", [order.name if order.is_artefact else None for order in placed], pl.String),
        pl.Series("strength", [order.strength for order in placed], pl.Float32),
    )
    plain = scores.with_columns(pl.lit(None, pl.String).alias("anomaly"), pl.lit(None, pl.String).alias("fault"))
    plain = plain.with_columns(pl.lit(None, pl.Float32).alias("strength"))
    both = pl.concat([plain.select(plants.columns), plants])
    n = scores.height
    is_fault = plants["fault"].is_not_null().to_numpy()
    shares = np.where(is_fault, settings.artefact_prevalence, settings.prevalence)
    many = np.where(is_fault, max(int(is_fault.sum()), 1), max(int((~is_fault).sum()), 1))
    rest = 1.0 - settings.prevalence - settings.artefact_prevalence
    weight = np.concatenate([np.full(n, rest), n * shares / many])
    unit = np.concatenate([np.arange(n), unit_of[[order.base for order in placed]]])
    return _judged(scorer, both, np.arange(both.height) < n, weight, unit)


def _judged(scorer: Scorer, rows: pl.DataFrame, in_list: np.ndarray, weight: np.ndarray, unit: np.ndarray) -> Judged:
    flagged = rows["artefact"].to_numpy() >= scorer.score_settings.artefact_threshold
    return Judged(
        score=ranking_score(rows["score"].to_numpy(), flagged, scorer.score_settings.keep_artefacts),
        p_value=rows["p_value"].to_numpy(),
        is_flagged=flagged,
        anomaly=rows["anomaly"].fill_null("").to_numpy().astype(str),
        artefact=rows["fault"].fill_null("").to_numpy().astype(str),
        strength=rows["strength"].fill_null(np.nan).to_numpy().astype(float),
        snr=rows["snr"].fill_null(0.0).to_numpy().astype(float),
        z=rows["z"].to_numpy(),
        in_list=in_list,
        weight=weight,
        unit=unit,
    )


def _counts(judged: Judged) -> dict[str, int]:
    return {
        "list": int(judged.in_list.sum()),
        "normal": int(judged.is_normal.sum()),
        "anomalies": int(judged.is_anomaly.sum()),
        "artefacts": int(judged.is_artefact.sum()),
    }


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return an evaluation that was written.

    Raises
    ------
    InputError
        If it is missing, damaged, or of a newer format.
    """
    if not path.is_file():
        raise InputError(path, "no evaluation; run `qad evaluate` first")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(path, f"not JSON: {error}; run `qad evaluate --force`") from None
    if not isinstance(found, dict) or not isinstance(found.get("format"), int):
        raise InputError(path, "not an evaluation; run `qad evaluate --force`")
    if found["format"] > figures.FORMAT:
        raise InputError(path, f"format {found['format']}, this qad reads up to {figures.FORMAT}; update qad")
    return found
