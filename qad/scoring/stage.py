"""``qad score``: measure every spectrum against its reconstruction, calibrate, combine, rank and explain."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qad.config import Config
from qad.errors import InputError, QadError
from qad.parallel import Share
from qad.results import Failure, RunOptions, StageResult
from qad.schema import SCORES
from qad.scoring.calibrate import Calibration, Scored, fit_calibration
from qad.scoring.calibration_file import load_calibration, save_calibration
from qad.scoring.geometry import Geometry
from qad.scoring.parts import (
    Part,
    Spread,
    Task,
    do_part,
    plan_parts,
    read_population,
    read_spread,
    read_views,
    reference_rows,
    write_spread,
)
from qad.scoring.table import build_table
from qad.scoring.views import Measured
from qad.storage.flatcache import GridCache, open_grid, read_grid_json
from qad.storage.parquet import was_made_so, write_table
from qad.storage.provenance import InputFile, Provenance, hash_document, hash_file
from qad.storage.receipts import write_receipt
from qad.work.engine import run_units

POOL_ROWS = 40_000
"""Fewer spectra are done in one process unless --jobs says otherwise: each worker loads JAX and the model first."""
WORK_FOLDER = ".work"
"""Folder of the parts, below ``scores/``."""
CONFIG_KEYS = ("windows_kms", "neighbours", "weights", "artefact_threshold", "keep_artefacts", "min_population")
"""Keys that decide the content of the scores: the batch size and the place of files do not."""


def score(config: Config, options: RunOptions) -> StageResult:
    """Score and rank every spectrum of the grid with one model.

    Raises
    ------
    InputError
        If there is no grid or model, or the model was trained on another grid.
    """
    workspace, settings = config.workspace, config.score
    path = workspace.scores_file(settings.name)
    folder = Path(settings.model).expanduser() if settings.model else workspace.model(settings.name)
    if options.dry_run:
        n = int(read_grid_json(workspace.grid_json).get("n_spectra", 0))
        return StageResult("score", n_done=n, paths=(path,), counts={"in": n}, dry_run=True)
    cache = open_grid(workspace, verify=options.verify)
    check_grid(folder, cache, workspace.grid_json)
    calibration_file = find_calibration(config, folder, len(cache))
    provenance = _provenance(config, cache, folder, calibration_file)
    own_calibration = calibration_path(path)
    if not options.force and own_calibration.is_file() and was_made_so(path, SCORES, provenance, "qad.version"):
        return StageResult("score", n_skipped=len(cache), paths=(path, own_calibration))
    key = hash_document([provenance.as_dict(SCORES.tag), config.score.batch_size])[:16]
    run = _Run(config, options, cache, folder, calibration_file, key)
    try:
        if options.share is not None:
            return run.share(options.share)
        calibration, measured, scored, rows = run.scores()
    except _PartsFailed as failed:
        return StageResult("score", failures=failed.failures, paths=(path, own_calibration))
    table, counts = build_table(
        cache, measured, scored, rows, calibration, settings, model_tag(folder), calibration_file is not None
    )
    counts = {"in": len(cache), "out": table.num_rows, "dropped.not_finite": len(cache) - table.num_rows, **counts}
    save_calibration(own_calibration, calibration)
    write_table(path, table, SCORES, provenance)
    model_json = folder / "model.json"
    run.finish()
    receipt = workspace.receipt("score", settings.name)
    write_receipt(receipt, [model_json], [hash_file(model_json)], model=str(folder.absolute()))
    details = {
        "model": str(folder),
        "calibration": str(calibration_file or own_calibration),
        "n_reference": calibration.n_reference,
    }
    return StageResult("score", n_done=table.num_rows, paths=(path, own_calibration), counts=counts, details=details)


def calibration_path(scores: Path) -> Path:
    """Return the calibration's file beside a scores table."""
    return scores.with_name(f"{scores.stem}.calibration.npz")


def model_tag(folder: Path) -> str:
    """Return a model's name and the start of its hash, as the column `model` holds it."""
    return f"{folder.name}@{hash_file(folder / 'model.json')[:12]}"


def check_grid(folder: Path, cache: GridCache, grid_json: Path) -> None:
    """Raise InputError unless the model was trained on a grid of this geometry."""
    from qad.models.directory import read_model

    if not (folder / "model.json").is_file():
        raise InputError(folder, "no trained model here; run `qad train`, or name one with --model")
    trained_on = read_model(folder).grid_hash
    if trained_on != cache.geometry_hash:
        raise InputError(
            folder / "model.json",
            f"trained on grid {trained_on}, but {grid_json} is grid {cache.geometry_hash}; "
            "train on this grid, or build the grid with the settings of that model",
        )


def find_calibration(config: Config, folder: Path, n_spectra: int) -> Path | None:
    """Return the calibration to use instead of one fitted on these spectra, or None.

    That is the one asked for, or, with fewer than ``score.min_population`` spectra, the one that lies beside a model trained
    elsewhere (``<folder>/../../scores/<name>.calibration.npz``), if it was made with this very model.
    """
    if config.score.calibration:
        return Path(config.score.calibration).expanduser()
    if n_spectra >= config.score.min_population:
        return None
    beside = calibration_path(folder.absolute().parent.parent / "scores" / f"{folder.absolute().name}.parquet")
    own = calibration_path(config.workspace.scores_file(config.score.name))
    if not beside.is_file() or beside.resolve() == own.resolve():
        return None
    made_with = load_calibration(beside).meta.get("model")
    return beside if made_with == hash_file(folder / "model.json") else None


def _provenance(config: Config, cache: GridCache, folder: Path, calibration: Path | None) -> Provenance:
    inputs = [
        InputFile("grid", cache.key),
        InputFile(f"models/{folder.name}/model.json", hash_file(folder / "model.json")),
    ]
    if calibration is not None:
        if not calibration.is_file():
            raise InputError(calibration, "no such calibration; `qad score` writes one beside its scores")
        inputs.append(InputFile(calibration.name, hash_file(calibration)))
    section = config.section("score")
    return Provenance(
        "score",
        {key: section[key] for key in CONFIG_KEYS},
        inputs,
        str(cache.grid.get("release", "")),
        str(cache.grid.get("specprod", "")),
        {key: cache.grid[key] for key in ("frame", "loglam0", "dloglam", "n_rest", "n_obs") if key in cache.grid},
    )


class _PartsFailed(QadError):
    """Parts of a pass failed: nothing can be made of the others yet."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        self.failures = tuple(failures)
        super().__init__(f"{len(failures)} parts failed")


class _Run:
    """One run over the grid: the parts of its passes, and what is made of them."""

    def __init__(
        self, config: Config, options: RunOptions, cache: GridCache, folder: Path, calibration: Path | None, key: str
    ):
        self.config, self.options, self.cache = config, options, cache
        self.calibration_file = calibration
        settings = config.score
        self.task = Task(
            config.root,
            cache.key,
            folder.absolute(),
            hash_file(folder / "model.json"),
            tuple(settings.windows_kms),
            settings.batch_size,
            config.workspace.scores / WORK_FOLDER / f"{settings.name}-{key}",
        )
        self.geometry = Geometry.of(cache.grid)
        self.views = plan_parts(self.task, "views", len(cache))

    def scores(self) -> tuple[Calibration, Measured, Scored, np.ndarray]:
        """Return the calibration, what was measured of the rows that can be scored, their scores and their indices."""
        self._remove_others()
        foreign = self._foreign_calibration()
        spread = self._spread(foreign)
        self._do("score: views", self.views)
        measured = read_views(self.views)
        calibration = foreign or self._fitted(measured, spread)
        rows = np.flatnonzero(measured.is_finite)
        measured = measured.rows(rows)
        return calibration, measured, calibration.apply(measured), rows

    def share(self, share: Share) -> StageResult:
        """Do a share of the parts; a run without a share finds them, does what is missing, and writes the scores."""
        parts = share.of(self.views)
        if self.options.force:
            for part in parts:
                part.output.unlink(missing_ok=True)
        done = [part for part in parts if part.output.is_file()]
        self._spread(self._foreign_calibration())
        self._do("score: views", parts)
        self.options.progress.note("`qad score` without --shard writes the scores when all shards are done")
        n_done = sum(map(len, parts)) - sum(map(len, done))
        return StageResult("score", n_done, sum(map(len, done)), paths=tuple(part.output for part in parts))

    def finish(self) -> None:
        """Remove the parts: the scores are written."""
        shutil.rmtree(self.task.folder, ignore_errors=True)
        with suppress(OSError):
            self.task.folder.parent.rmdir()

    def _remove_others(self) -> None:
        """Remove the parts of other grids, models or settings under this name; with --force all."""
        name = self.config.score.name
        for other in self.task.folder.parent.glob(f"{name}-*"):
            # a name may begin with ours: the key has no dash
            is_ours = other.name.rpartition("-")[0] == name
            if is_ours and (self.options.force or other != self.task.folder):
                shutil.rmtree(other, ignore_errors=True)

    def _foreign_calibration(self) -> Calibration | None:
        path = self.calibration_file
        return None if path is None else self._checked(load_calibration(path), path)

    def _spread(self, foreign: Calibration | None) -> Spread:
        """Return the population's spread, and leave it to those who measure.

        Every shard needs all of it: each begins in another place of the parts and passes over those that others have done.
        """
        path = self.task.spread_file
        if foreign is not None:
            write_spread(path, Spread(foreign.scatters, foreign.shapes))
        elif not path.is_file():
            parts = plan_parts(self.task, "population", len(reference_rows(self.cache)))
            share = self.options.share
            first = len(parts) * share.index // share.count if share else 0
            self._do("score: population", [*parts[first:], *parts[:first]])
            write_spread(path, read_population(parts, self.geometry, self.task.windows_kms))
        return read_spread(path)

    def _do(self, what: str, parts: Sequence[Part]) -> None:
        options = self.options
        options.progress.start(what, total=sum(map(len, parts)), unit="spectra")
        n_jobs = options.jobs or (0 if sum(map(len, parts)) >= POOL_ROWS else 1)
        failures = []
        for outcome in run_units(partial(do_part, task=self.task), parts, n_jobs, options.cluster):
            if outcome.value is None:
                failures.append(Failure(str(outcome.unit), f"{outcome.error}; run again, finished parts are kept"))
            options.progress.advance(len(outcome.unit))
        if failures:
            raise _PartsFailed(failures)

    def _fitted(self, measured: Measured, spread: Spread) -> Calibration:
        chosen = reference_rows(self.cache)
        usable = chosen[measured.is_finite[chosen]]
        if usable.size == 0:
            raise InputError(
                self.config.workspace.grid, "no spectrum can be scored: every one has a value that is not finite"
            )
        settings = self.config.score
        meta = {
            "geometry_hash": self.cache.geometry_hash,
            "model": self.task.model_hash,
            "windows_kms": list(settings.windows_kms),
            "neighbours": settings.neighbours,
            "weights": dict(settings.weights),
        }
        return fit_calibration(measured.rows(usable), spread.scatters, meta, spread.shapes)

    def _checked(self, calibration: Calibration, path: Path) -> Calibration:
        settings = self.config.score
        for key, value, what in (
            ("geometry_hash", self.cache.geometry_hash, "grid"),
            ("model", self.task.model_hash, "model"),
            ("windows_kms", list(settings.windows_kms), "score.windows_kms"),
            ("weights", dict(settings.weights), "score.weights"),
        ):
            if calibration.meta.get(key) != value:
                raise InputError(path, f"made with {what} {calibration.meta.get(key)}, not {value}")
        return calibration


def top_rows(path: Path, n: int, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the first `n` candidates of a scores table as JSON types; a TARGETID is a string."""
    from qad.storage.parquet import read_table

    rows = read_table(path, SCORES, columns).slice(0, n).to_pylist()
    return [{**row, "targetid": str(row["targetid"])} for row in rows]
