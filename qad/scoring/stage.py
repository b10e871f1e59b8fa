"""``qad score``: measure every spectrum against its reconstruction, calibrate, combine, rank and explain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.config import Config
from qad.errors import InputError
from qad.results import Progress, RunOptions, StageResult
from qad.schema import SCORES
from qad.scoring.calibrate import Calibration, Scored, fit_calibration
from qad.scoring.calibration_file import load_calibration, save_calibration
from qad.scoring.evidence import find_faults
from qad.scoring.geometry import Geometry
from qad.scoring.residuals import Batch, ScatterSample
from qad.scoring.table import build_table
from qad.scoring.views import Measured, measure
from qad.storage.flatcache import GridCache, open_grid, read_grid_json
from qad.storage.parquet import read_metadata, write_table
from qad.storage.provenance import InputFile, Provenance, hash_file
from qad.storage.receipts import write_receipt

if TYPE_CHECKING:
    from qad.models.base import SpectrumModel

MAX_REFERENCE = 20_000
"""Most spectra that a calibration keeps: the tail beyond them is extrapolated, and the file stays small."""
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
    if not options.force and _is_done(path, own_calibration, provenance):
        return StageResult("score", n_skipped=len(cache), paths=(path, own_calibration))
    run = _Run(config, cache, folder, options.progress)
    calibration, measured, scored, rows = run.scores(calibration_file)
    table, counts = build_table(
        cache, measured, scored, rows, calibration, settings, model_tag(folder), calibration_file is not None
    )
    counts = {"in": len(cache), "out": table.num_rows, "dropped.not_finite": len(cache) - table.num_rows, **counts}
    save_calibration(own_calibration, calibration)
    write_table(path, table, SCORES, provenance)
    model_json = folder / "model.json"
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


def _is_done(path: Path, calibration: Path, provenance: Provenance) -> bool:
    if not (path.is_file() and calibration.is_file()):
        return False
    try:
        found = read_metadata(path, SCORES)
    except InputError:
        return False
    wanted = provenance.as_dict(SCORES.tag)
    return all(found.get(key) == wanted[key] for key in ("qad.table", "qad.version", "qad.config", "qad.inputs"))


@dataclass
class _Run:
    """One run over the grid: what the passes share."""

    config: Config
    cache: GridCache
    folder: Path
    progress: Progress

    def scores(self, calibration_file: Path | None) -> tuple[Calibration, Measured, Scored, np.ndarray]:
        """Return the calibration, what was measured of the rows that can be scored, their scores and their indices."""
        from qad.models.directory import load_model

        self.model: SpectrumModel = load_model(self.folder)
        self.geometry = Geometry.of(self.cache.grid)
        if calibration_file is not None:
            calibration = self._checked(load_calibration(calibration_file), calibration_file)
            measured = self._measure(np.arange(len(self.cache)), calibration.scatters, "score")
        else:
            calibration, measured = self._calibrated()
        rows = np.flatnonzero(measured.is_finite)
        measured = measured.rows(rows)
        return calibration, measured, calibration.apply(measured), rows

    def _calibrated(self) -> tuple[Calibration, Measured]:
        settings = self.config.score
        chosen = reference_rows(self.cache)
        sample = ScatterSample(self.geometry, settings.windows_kms)
        for batch, _, _ in self._batches(chosen, "score: population"):
            sample.add(batch.without(find_faults(batch, self.geometry)[0]))
        scatters = sample.fit()
        measured = self._measure(np.arange(len(self.cache)), scatters, "score: views")
        usable = chosen[measured.is_finite[chosen]]
        if usable.size == 0:
            raise InputError(
                self.config.workspace.grid, "no spectrum can be scored: every one has a value that is not finite"
            )
        meta = {
            "geometry_hash": self.cache.geometry_hash,
            "model": hash_file(self.folder / "model.json"),
            "windows_kms": list(settings.windows_kms),
            "neighbours": settings.neighbours,
            "weights": dict(settings.weights),
        }
        return fit_calibration(measured.rows(usable), scatters, meta), measured

    def _checked(self, calibration: Calibration, path: Path) -> Calibration:
        settings = self.config.score
        for key, value, what in (
            ("geometry_hash", self.cache.geometry_hash, "grid"),
            ("model", hash_file(self.folder / "model.json"), "model"),
            ("windows_kms", list(settings.windows_kms), "score.windows_kms"),
            ("weights", dict(settings.weights), "score.weights"),
        ):
            if calibration.meta.get(key) != value:
                raise InputError(path, f"made with {what} {calibration.meta.get(key)}, not {value}")
        return calibration

    def _measure(self, rows: np.ndarray, scatters: Any, what: str) -> Measured:
        return Measured.join(
            [
                measure(
                    batch,
                    self.geometry,
                    scatters,
                    z=self._column("z", part),
                    snr=self._column("snr", part),
                    norm=self._column("norm", part),
                    latent=latent,
                )
                for batch, latent, part in self._batches(rows, what)
            ]
        )

    def _batches(self, rows: np.ndarray, what: str) -> Iterator[tuple[Batch, np.ndarray, np.ndarray]]:
        self.progress.start(what, total=len(rows), unit="spectra")
        size = self.config.score.batch_size
        for first in range(0, len(rows), size):
            part = rows[first : first + size]
            flux, ivar = np.asarray(self.cache.flux[part]), np.asarray(self.cache.ivar[part])
            start, z = self.cache.start[part], self._column("z", part)
            found = self.model.infer(flux, ivar, start)
            yield (
                Batch(
                    flux,
                    ivar,
                    found.recon,
                    found.intrinsic_var,
                    self.geometry.rest_start(start, z),
                    self.geometry.first_observed(start, z),
                ),
                found.latent,
                part,
            )
            self.progress.advance(len(part))

    def _column(self, name: str, rows: np.ndarray) -> np.ndarray:
        return self.cache.table[name].to_numpy()[rows]


def reference_rows(cache: GridCache) -> np.ndarray:
    """Return the rows that calibrate: all, or MAX_REFERENCE chosen by a hash of the target, whatever the order of rows."""
    n = len(cache)
    if n <= MAX_REFERENCE:
        return np.arange(n)
    identity = cache.table["targetid"].to_numpy().astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = (identity ^ (identity >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.sort(np.lexsort((identity, mixed))[:MAX_REFERENCE])


def top_rows(path: Path, n: int, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the first `n` candidates of a scores table as JSON types; a TARGETID is a string."""
    from qad.storage.parquet import read_table

    rows = read_table(path, SCORES, columns).slice(0, n).to_pylist()
    return [{**row, "targetid": str(row["targetid"])} for row in rows]
