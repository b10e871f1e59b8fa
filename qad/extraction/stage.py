"""The stage ``extract``: every healpix of a release tree into one `spectra` table each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from qad.config import Config
from qad.desi import layout
from qad.errors import InputError
from qad.extraction.identity import input_hashes, known_hashes
from qad.extraction.unit import Unit, check_pair, extract_files, extract_unit, is_done
from qad.parallel import chosen
from qad.results import Failure, RunOptions, StageResult, add_counts
from qad.settings import Extract
from qad.storage.atomic import remove_stale_parts
from qad.work.engine import run_units
from qad.work.units import Pixel

SHOWN_NOTES = 20
_log = logging.getLogger(__name__)


def extract(config: Config, options: RunOptions) -> StageResult:
    """Extract quasar spectra from a release tree.

    Raises
    ------
    InputError
        If the source has no pixels, or none of those that are wanted.
    StorageError
        If the disk is full.
    """
    try:
        healpix = layout.locate_healpix(source_folder(config))
        every = wanted_pixels(healpix, config.extract)
    except InputError as error:
        if options.share is None or config.extract.source:
            raise
        # the other shards are still fetching, and there are fewer pixels than shards: this one has none
        options.progress.note(f"nothing fetched for shard {options.share}: {error}")
        return StageResult("extract", dry_run=options.dry_run)
    pixels = chosen(options.share, every)
    workspace = config.workspace
    units = [
        Unit(
            pixel,
            layout.pixel_folder(healpix, pixel) / layout.coadd_name(pixel),
            layout.pixel_folder(healpix, pixel) / layout.redrock_name(pixel),
            workspace.spectra_file(pixel.survey, pixel.program, pixel.healpix),
            workspace.receipt("extract", pixel.name),
        )
        for pixel in pixels
    ]
    if options.dry_run:
        return _plan(units, config.extract, options)
    remove_stale_parts(workspace.spectra)
    absent = (
        sorted(set(config.extract.healpix) - {pixel.healpix for pixel in every}) if not config.extract.limit else []
    )
    if absent:
        options.progress.note(f"not in {healpix}: {len(absent)} of the pixels asked for, such as {absent[0]}")
    result = run_extraction(units, config.extract, options)
    outputs = {unit.output.name for unit in units}
    others = sum(path.name not in outputs for path in workspace.spectra.glob("*.parquet")) if not options.share else 0
    # build-grid reads whatever lies in the folder: say so when that is more than was asked for here
    more = {"absent_pixels": absent, "other_tables": others}
    return replace(result, details={**result.details, **{key: value for key, value in more.items() if value}})


def extract_qso_tile_to_parquet(
    data_dir: str | Path, output_dir: str | Path, min_wave: float = 3600.0, max_wave: float = 9824.0
) -> list[Path]:
    """Extract the quasars of every coadd and redrock pair below a folder into `spectra` tables.

    Parameters
    ----------
    data_dir : path-like
        Searched for ``coadd-<name>.fits`` with ``redrock-<name>.fits`` beside it: of a healpix, or of a tile
        (``coadd-<petal>-<tile>-thru<night>.fits``).
    output_dir : path-like
        Receives ``<name>.parquet``.
    min_wave, max_wave : float
        Observed wavelengths to keep, Å; pixels outside get ivar 0.

    Returns
    -------
    list of Path
        The tables, sorted.

    Raises
    ------
    InputError
        If there is no pair, or a pair cannot be read: the first one's reason, after all others have been done.
    """
    settings = Extract(min_wave=min_wave, max_wave=max_wave)
    if not min_wave < max_wave:
        raise ValueError(f"min_wave {min_wave} must lie below max_wave {max_wave}")
    output = Path(output_dir)
    units = [
        Unit(pixel, coadd, redrock, output / f"{name}.parquet", output / ".qad" / f"{name}.json")
        for name, pixel, coadd, redrock in _find_pairs(Path(data_dir))
    ]
    result = run_extraction(units, settings, RunOptions(jobs=1))
    if result.failures:
        raise InputError(data_dir, f"{len(result.failures)} failed, the first: {result.failures[0].reason}")
    return list(result.paths)


def source_folder(config: Config) -> Path:
    """Return the folder to read: ``extract.source``, relative to ``qad.toml`` if it stands there, or fetch's folder."""
    text = config.extract.source
    if not text:
        folder = config.workspace.raw(config.fetch.release)
        if not folder.is_dir():
            raise InputError(folder, "no such folder; run `qad fetch` first, or name a release tree with --source")
        return folder
    if "://" in text:
        raise InputError(
            text,
            f"extract reads local folders; run `qad fetch --source {text}` first (with the same --shard, where there are shards), then extract without --source",
        )
    return config.path_of("extract.source")


def wanted_pixels(healpix: Path, settings: Extract) -> list[Pixel]:
    """Return the pixels of a tree that the settings choose, sorted."""
    found = layout.find_pixels(healpix)
    if not found:
        raise InputError(healpix, "holds no pixel folders (<survey>/<program>/<group>/<pixel>)")
    chosen = [
        pixel
        for pixel in found
        if (not settings.survey or pixel.survey in settings.survey)
        and (not settings.program or pixel.program in settings.program)
        and (not settings.healpix or pixel.healpix in settings.healpix)
    ]
    if not chosen:
        raise InputError(healpix, f"none of its {len(found)} pixels has the survey, program and healpix asked for")
    return chosen[: settings.limit or None]


def run_extraction(units: Sequence[Unit], settings: Extract, options: RunOptions) -> StageResult:
    """Extract units that are not done yet; failures are recorded by name."""
    work = partial(extract_unit, settings=settings, force=options.force, verify=options.verify)
    counts: dict[str, float] = {}
    failures, paths = [], []
    details: dict[str, Any] = {"duplicate_targetids": [], "notes": []}
    n_done = n_skipped = 0
    options.progress.start("extract", len(units), "pixels")
    for outcome in run_units(work, units, options.jobs, options.cluster, lambda unit: unit.inputs):
        options.progress.advance()
        name = outcome.unit.name
        if outcome.value is None:
            failures.append(Failure(name, outcome.error or "unknown"))
            _log.warning("pixel failed", extra={"unit": name, "reason": outcome.error})
            continue
        report = outcome.value
        n_skipped, n_done = n_skipped + report.skipped, n_done + (not report.skipped)
        paths.append(outcome.unit.output)
        add_counts(counts, report.counts)
        details["duplicate_targetids"] += [f"{name}: {targetid}" for targetid in report.duplicates]
        for note in report.notes:
            details["notes"].append(f"{name}: {note}")
            if not report.skipped and len(details["notes"]) <= SHOWN_NOTES:
                options.progress.note(f"{name}: {note}")
        _log.info("pixel", extra={"unit": name, "skipped": report.skipped, "counts": report.counts})
    return StageResult(
        "extract",
        n_done,
        n_skipped,
        tuple(sorted(failures, key=lambda failure: failure.unit)),
        tuple(sorted(paths)),
        _ordered(counts),
        details={key: sorted(values) for key, values in details.items() if values},
    )


def _find_pairs(folder: Path) -> list[tuple[str, Pixel | None, Path, Path]]:
    """Return name, pixel (None: of a tile) and files of every coadd below a folder."""
    if not folder.is_dir():
        raise InputError(folder, "no such folder")
    pairs: dict[str, tuple[str, Pixel | None, Path, Path]] = {}
    for coadd in sorted(folder.rglob("coadd-*.fits")):
        name = coadd.stem.removeprefix("coadd-")
        parsed = layout.parse_file_name(coadd.name)
        if name in pairs:
            first = pairs[name][2].relative_to(folder)
            raise InputError(folder, f"{first} and {coadd.relative_to(folder)} have the same name")
        pairs[name] = (name, parsed[1] if parsed else None, coadd, coadd.with_name(f"redrock-{name}.fits"))
    if not pairs:
        raise InputError(folder, "holds no coadd-<survey>-<program>-<pixel>.fits or coadd-<petal>-<tile>-<night>.fits")
    return list(pairs.values())


def _plan(units: Sequence[Unit], settings: Extract, options: RunOptions) -> StageResult:
    """Say what would be done, from sizes and times unless `verify` is set; of pixels without a coadd from redrock."""
    todo, n_bytes, failures = 0, 0, []
    for unit in units:
        try:
            is_todo = _is_todo(unit, settings, options)
        except InputError as error:
            failures.append(Failure(unit.name, str(error)))
            continue
        if is_todo:
            todo += 1
            n_bytes += sum(path.stat().st_size for path in unit.present)
    return StageResult(
        "extract",
        todo,
        len(units) - todo - len(failures),
        tuple(failures),
        tuple(unit.output for unit in units),
        {"pixels": len(units), "bytes_in": n_bytes},
        dry_run=True,
    )


def _is_todo(unit: Unit, settings: Extract, options: RunOptions) -> bool:
    check_pair(unit)
    paths, receipt = unit.inputs, unit.receipt
    identity = input_hashes(paths, receipt, True) if options.verify else known_hashes(paths, receipt)
    if not options.force and identity is not None and is_done(unit, settings, identity):
        return False
    if unit.present != unit.inputs:
        extract_files(unit, settings)  # fails if the coadd is needed
    return True


def _ordered(counts: dict[str, float]) -> dict[str, float]:
    """Return counts in the order of the data: in, dropped by reason, out, the rest."""
    first = {name: counts[name] for name in ("rows_in",) if name in counts}
    dropped = {name: counts[name] for name in sorted(counts) if name.startswith("dropped.")}
    return {**first, **dropped, **{name: counts[name] for name in sorted(counts) if name not in {**first, **dropped}}}
