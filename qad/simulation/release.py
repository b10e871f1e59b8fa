"""Write a release of simulated spectra in the format of DR1, and beside it the truth."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qad
from qad.desi import layout
from qad.results import Failure, NoProgress, Progress, StageResult, add_counts
from qad.schema import TRUTH
from qad.simulation.anomalies import ANOMALIES
from qad.simulation.files import write_pixel, write_tilepix
from qad.simulation.recipe import Recipe, Unit, check, units
from qad.simulation.rows import Row, make_rows
from qad.storage.atomic import storage_errors, write_json
from qad.storage.parquet import make_table, write_table
from qad.storage.provenance import Provenance, hash_document, hash_file
from qad.storage.receipts import read_receipt
from qad.work.engine import run_units
from qad.work.units import Pixel

HEALPIX_FOLDER = Path("spectro", "redux", layout.SPECPROD, "healpix")
BYTES_PER_ROW, RESOLUTION_BYTES = 97_700, 350_152
"""Size of a row in both files, and of its resolution matrices (7958 pixels, 11 diagonals)."""
TRUTH_NAME = "truth.parquet"
RECEIPTS = ".qad-simulate"
"""Holds a receipt per pixel: the recipe, the files, their truth."""


def simulate(
    directory: Path,
    *,
    quasars: int = 1000,
    healpix: int = 4,
    anomaly_rate: float = 0.02,
    artefact_rate: float = 0.01,
    contaminants: float = 0.2,
    repeats: float = 0.0,
    seed: int = 0,
    survey: str = "main",
    program: str = "dark",
    resolution: bool = True,
    anomalies: Sequence[str] = (),
    jobs: int = 1,
    progress: Progress | None = None,
    force: bool = False,
    dry_run: bool = False,
    verify: bool = False,
) -> StageResult:
    """Write a simulated release below `directory`, and its truth to ``directory/truth.parquet``.

    Broad absorption lines are planted only: normal quasars have none, though in nature one in ten at z > 1.6 has.

    Parameters
    ----------
    directory : Path
        Receives ``spectro/redux/iron/healpix/...``.  Pixels that are there and were made with the same arguments are
        kept, those of other arguments replaced; those of another survey or program stay, also in the truth.
    quasars, healpix : int
        Quasars in all, and pixels over which they are spread.
    anomaly_rate, artefact_rate : float
        Shares of the quasars that carry a planted anomaly, or a planted artefact.
    contaminants : float
        Stars, galaxies, sky fibres and dead fibres per quasar.
    repeats : float
        Share of the quasars that a second program (bright, or dark) observes again, under the same TARGETID.
    seed : int
    survey, program : str
    resolution : bool
        Whether to write the resolution matrices, four fifths of the bytes.
    anomalies : sequence of str
        Plant only these classes (:data:`qad.simulation.anomalies.ANOMALIES`); empty: all, equally often.
    jobs : int
        Worker processes; 0 means one per core.  The bytes do not depend on it.
    progress : Progress, optional
    force : bool
        Make pixels anew that are there already.
    dry_run : bool
        Say what would be made, and write nothing.
    verify : bool
        Recognise finished pixels by the SHA-256 of their files, not by size.

    Returns
    -------
    StageResult
        Units are pixels.

    Raises
    ------
    ConfigError
        If an argument is impossible.
    StorageError
        If the disk is full or not writable.
    """
    started = time.monotonic()
    directory = Path(directory)
    recipe = Recipe(
        quasars=quasars,
        healpix=healpix,
        anomaly_rate=anomaly_rate,
        artefact_rate=artefact_rate,
        contaminants=contaminants,
        repeats=repeats,
        seed=seed,
        survey=survey,
        program=program,
        resolution=resolution,
        classes=tuple(anomalies) or tuple(ANOMALIES),
    )
    check(recipe)
    planned = units(recipe)
    stale = _stale(directory, recipe, planned)
    waiting = [unit for unit in planned if force or not _is_done(directory, recipe, unit, verify)]
    if dry_run:
        return _dry_run(recipe, planned, waiting)

    report = progress or NoProgress()
    if stale:
        report.note(f"replacing {len(stale)} pixels that were made with other arguments")
    truth = directory / TRUTH_NAME
    with storage_errors(truth):
        if stale or waiting:
            truth.unlink(missing_ok=True)  # it must not outlive the files that it tells of
        for pixel in stale:
            _remove(directory, pixel)
    failures = _run(directory, recipe, waiting, jobs, report)
    counts = _write_truth(truth, directory, recipe)
    return StageResult(
        "simulate",
        n_done=len(waiting) - len(failures),
        n_skipped=len(planned) - len(waiting),
        failures=tuple(failures),
        paths=(directory / HEALPIX_FOLDER, truth),
        counts=counts,
        seconds=time.monotonic() - started,
    )


def _dry_run(recipe: Recipe, planned: list[Unit], waiting: list[Unit]) -> StageResult:
    first = [unit.index for unit in waiting if not unit.is_repeat]
    quasars = sum(map(recipe.share, first))
    rows = quasars + sum(map(recipe.extra, first)) + round(recipe.repeats * quasars)
    size = rows * (BYTES_PER_ROW + (RESOLUTION_BYTES if recipe.resolution else 0))
    counts = {"quasars": quasars, "rows": rows, "bytes": size}
    return StageResult("simulate", len(waiting), len(planned) - len(waiting), counts=counts, dry_run=True)


def _run(directory: Path, recipe: Recipe, waiting: list[Unit], jobs: int, progress: Progress) -> list[Failure]:
    n_quasars = sum(recipe.share(unit.index) for unit in waiting if not unit.is_repeat)
    progress.start("simulate", n_quasars, "quasars")
    failures = []
    for outcome in run_units(functools.partial(_simulate_unit, directory, recipe), waiting, jobs):
        if outcome.error is not None:
            failures.append(Failure(str(outcome.unit), outcome.error))
        if not outcome.unit.is_repeat:
            progress.advance(recipe.share(outcome.unit.index))
    return failures


def _simulate_unit(directory: Path, recipe: Recipe, unit: Unit) -> int:
    """Make one pixel, and return its rows."""
    rows, tiles = make_rows(recipe, unit)
    pixel = unit.pixel
    paths = write_pixel(_folder(directory, pixel), pixel, rows, recipe.resolution)
    document = {
        "recipe": _recipe_hash(recipe, unit),
        "pixel": [pixel.survey, pixel.program, pixel.healpix],
        "files": {path.name: {"size": path.stat().st_size, "sha256": hash_file(path)} for path in paths},
        "tiles": [[tile.tileid, tile.petal] for tile in tiles],
        "truth": _truth_columns(pixel, rows),
    }
    write_json(_receipt(directory, pixel), document)
    return len(rows)


def _folder(directory: Path, pixel: Pixel) -> Path:
    return layout.pixel_folder(directory / HEALPIX_FOLDER, pixel)


def _receipt(directory: Path, pixel: Pixel) -> Path:
    return directory / RECEIPTS / f"{pixel.name}.json"


def _recipe_hash(recipe: Recipe, unit: Unit) -> str:
    document = {**vars(recipe), "index": unit.index, "repeat": unit.is_repeat, "version": qad.__version__}
    return hash_document(document)


def _is_done(directory: Path, recipe: Recipe, unit: Unit, verify: bool) -> bool:
    """Whether a pixel's files are those of this recipe: the receipt says so, and names and sizes, or hashes, agree."""
    receipt = read_receipt(_receipt(directory, unit.pixel))
    if receipt.get("recipe") != _recipe_hash(recipe, unit):
        return False
    folder, files = _folder(directory, unit.pixel), receipt.get("files", {})
    if not files or not all(_is_same(folder / name, item["size"]) for name, item in files.items()):
        return False
    return not verify or all(hash_file(folder / name) == item["sha256"] for name, item in files.items())


def _is_same(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _receipts(directory: Path) -> list[dict[str, Any]]:
    found = [read_receipt(path) for path in sorted((directory / RECEIPTS).glob("*.json"))]
    return [receipt for receipt in found if "truth" in receipt]


def _stale(directory: Path, recipe: Recipe, planned: list[Unit]) -> list[Pixel]:
    """Return the pixels of this survey and its programs that another recipe has left in `directory`."""
    wanted = {unit.pixel: _recipe_hash(recipe, unit) for unit in planned}
    programs = {(recipe.survey, recipe.program)} | {(unit.pixel.survey, unit.pixel.program) for unit in planned}
    stale = []
    for receipt in _receipts(directory):
        pixel = Pixel(*receipt["pixel"])
        if (pixel.survey, pixel.program) in programs and wanted.get(pixel) != receipt["recipe"]:
            stale.append(pixel)
    return stale


def _remove(directory: Path, pixel: Pixel) -> None:
    """Remove the files that a receipt names, and the receipt; nothing else."""
    receipt = _receipt(directory, pixel)
    for name in read_receipt(receipt).get("files", {}):
        (_folder(directory, pixel) / Path(name).name).unlink(missing_ok=True)
    receipt.unlink(missing_ok=True)


def _truth_columns(pixel: Pixel, rows: list[Row]) -> dict[str, list[Any]]:
    planted = [row.order.anomaly or row.order.artefact for row in rows]
    return {
        "targetid": [str(row.targetid) for row in rows],
        "survey": [pixel.survey] * len(rows),
        "program": [pixel.program] * len(rows),
        "healpix": [pixel.healpix] * len(rows),
        "kind": [row.order.kind for row in rows],
        "z_true": [row.z_true for row in rows],
        "anomaly": [row.order.anomaly for row in rows],
        "artefact": [row.order.artefact for row in rows],
        "strength": [row.order.strength if name else None for row, name in zip(rows, planted, strict=True)],
        "snr_true": [row.snr_true for row in rows],
    }


def _write_truth(path: Path, directory: Path, recipe: Recipe) -> dict[str, float]:
    """Gather all pixels into ``truth.parquet`` and ``tilepix.fits``, and count."""
    receipts = _receipts(directory)
    columns: dict[str, list[Any]] = {column.name: [] for column in TRUTH.columns}
    for receipt in receipts:
        for name, values in receipt["truth"].items():
            columns[name] += values
    columns["targetid"] = [int(text) for text in columns["targetid"]]
    order = sorted(
        range(len(columns["targetid"])), key=lambda i: [columns[name][i] for name in ("targetid", "survey", "program")]
    )
    columns = {name: [values[i] for i in order] for name, values in columns.items()}
    write_table(path, make_table(TRUTH, columns), TRUTH, Provenance("simulate", vars(recipe), specprod=layout.SPECPROD))
    tilepix = [
        (tileid, receipt["pixel"][0], receipt["pixel"][1], petal, receipt["pixel"][2])
        for receipt in receipts
        for tileid, petal in receipt["tiles"]
    ]
    write_tilepix(directory / HEALPIX_FOLDER, sorted(tilepix))
    sizes = sum(item["size"] for receipt in receipts for item in receipt["files"].values())
    return {**_count(columns), "bytes": sizes}


def _count(columns: dict[str, list[Any]]) -> dict[str, float]:
    counts: dict[str, float] = {"rows": len(columns["targetid"])}
    for name in ("kind", "anomaly", "artefact"):
        for value in sorted(value for value in columns[name] if value is not None):
            add_counts(counts, {f"{name}.{value}": 1})
    return counts
