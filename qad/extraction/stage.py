"""The stage ``extract``: every healpix of a release tree into one `spectra` table each."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from qad.config import Config, Extract
from qad.desi import layout
from qad.desi.fits import FitsFile
from qad.errors import InputError
from qad.extraction.identity import Identity, input_hashes, known_hashes
from qad.results import Failure, RunOptions, StageResult, add_counts
from qad.schema import N_WAVE, SPECTRA, WAVE_START, WAVE_STEP
from qad.storage import receipts
from qad.storage.atomic import remove_stale_parts
from qad.storage.parquet import read_metadata, read_table, write_table
from qad.storage.provenance import InputFile, Provenance
from qad.work.engine import run_units
from qad.work.units import Pixel

WAVE = {"start": WAVE_START, "step": WAVE_STEP, "n": N_WAVE, "unit": "Angstrom", "frame": "vacuum, barycentric"}
SHOWN_NOTES = 20
_log = logging.getLogger(__name__)
CHOICE = ("source", "survey", "program", "healpix", "limit")
"""Settings that choose which pixels are done; the others decide what a table holds."""


@dataclass(frozen=True)
class Unit:
    """A coadd and redrock file, and where their table and receipt go; `pixel` is None for files of a tile."""

    pixel: Pixel | None
    coadd: Path
    redrock: Path
    output: Path
    receipt: Path

    @property
    def name(self) -> str:
        """What failures call the unit."""
        return self.output.stem if self.pixel is None else str(self.pixel)

    @property
    def inputs(self) -> list[Path]:
        """The two files."""
        return [self.coadd, self.redrock]

    @property
    def input_names(self) -> list[str]:
        """Their names below the production, the same wherever the release lies."""
        folder = "" if self.pixel is None else f"{layout.pixel_key('healpix', self.pixel)}/"
        return [f"{folder}{path.name}" for path in self.inputs]


@dataclass(frozen=True)
class UnitReport:
    """What became of a unit."""

    skipped: bool
    counts: dict[str, float] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def extract(config: Config, options: RunOptions) -> StageResult:
    """Extract quasar spectra from a release tree.

    Raises
    ------
    InputError
        If the source has no pixels, or none of those that are wanted.
    StorageError
        If the disk is full.
    """
    healpix = layout.locate_healpix(source_folder(config))
    pixels = wanted_pixels(healpix, config.extract)
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
        sorted(set(config.extract.healpix) - {pixel.healpix for pixel in pixels}) if not config.extract.limit else []
    )
    if absent:
        options.progress.note(f"not in {healpix}: {len(absent)} of the pixels asked for, such as {absent[0]}")
    result = run_extraction(units, config.extract, options)
    outputs = {unit.output.name for unit in units}
    others = sum(path.name not in outputs for path in workspace.spectra.glob("*.parquet"))
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
        raise InputError(text, "extract reads local folders; run `qad fetch --source` first")
    path = Path(os.path.expandvars(text)).expanduser()
    from_file = config.file is not None and config.origins.get("extract.source") == str(config.file)
    return config.file.parent / path if from_file and config.file is not None else path


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
    for outcome in run_units(work, units, options.jobs):
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


def extract_unit(unit: Unit, settings: Extract, force: bool = False, verify: bool = False) -> UnitReport:
    """Extract one unit unless its table is there and was made from the same inputs with the same settings."""
    _check_pair(unit)
    before = receipts.stat_inputs(unit.inputs)
    identity = input_hashes(unit.inputs, unit.receipt, verify)
    if not force and is_done(unit, settings, identity.hashes):
        return _skipped(unit, settings, identity.hashes)
    try:
        report = _write_unit(unit, settings, before, identity)
    except InputError as error:
        stays = f" ({unit.output.name} of an earlier run stays)" if unit.output.is_file() else ""
        raise InputError(error.path, error.reason + stays, error.where) from None
    _remember(unit, settings, identity.hashes, report)
    return report


def _write_unit(unit: Unit, settings: Extract, before: list[dict[str, Any]], identity: Identity) -> UnitReport:
    from qad.extraction.healpix import extract_pixel

    if settings.verify_datasum:
        for path in identity.read:  # nobody vouches for it, and its bytes are in memory now
            with FitsFile(path) as file:
                file.check_data()
    extracted = extract_pixel(unit.pixel, unit.coadd, unit.redrock, settings)
    if receipts.stat_inputs(unit.inputs) != before:
        raise InputError(unit.coadd.parent, "a file changed while it was read; run again")
    inputs = [InputFile(name, sha256) for name, sha256 in zip(unit.input_names, identity.hashes, strict=True)]
    provenance = Provenance(
        "extract",
        content_settings(settings),
        inputs,
        release=layout.RELEASES.get(extracted.specprod, ""),
        specprod=extracted.specprod,
        wave=WAVE,
    )
    write_table(unit.output, extracted.table, SPECTRA, provenance)
    duplicates = [str(targetid) for targetid in extracted.duplicates]
    return UnitReport(False, dict(extracted.counts), duplicates, identity.notes + extracted.notes)


def _skipped(unit: Unit, settings: Extract, hashes: Sequence[str]) -> UnitReport:
    """Report a finished unit from its receipt; without one (it is only a memory) from the table."""
    receipt = receipts.read_receipt(unit.receipt)
    if receipt.get("settings") == content_settings(settings):
        return UnitReport(True, receipt.get("counts", {}), receipt.get("duplicates", []), receipt.get("notes", []))
    report = UnitReport(True, {"rows_out": read_table(unit.output, SPECTRA, ["targetid"]).num_rows})
    _remember(unit, settings, hashes, report)
    return report


def _remember(unit: Unit, settings: Extract, hashes: Sequence[str], report: UnitReport) -> None:
    receipts.write_receipt(
        unit.receipt,
        unit.inputs,
        list(hashes),
        settings=content_settings(settings),
        counts=report.counts,
        duplicates=report.duplicates,
        notes=report.notes,
    )


def is_done(unit: Unit, settings: Extract, hashes: Sequence[str]) -> bool:
    """Whether the unit's table exists, opens, and names these inputs and settings."""
    if not unit.output.is_file():
        return False
    try:
        metadata = read_metadata(unit.output, SPECTRA)
    except InputError:
        return False
    inputs = [{"name": name, "sha256": sha256} for name, sha256 in zip(unit.input_names, hashes, strict=True)]
    return (
        metadata.get("qad.table") == SPECTRA.tag
        and metadata.get("qad.inputs") == inputs
        and metadata.get("qad.config") == content_settings(settings)
    )


def content_settings(settings: Extract) -> dict[str, Any]:
    """Return the settings that decide what a table holds, as JSON types."""
    return settings.model_dump(mode="json", exclude=set(CHOICE))


def _check_pair(unit: Unit) -> None:
    for path, other in ((unit.coadd, unit.redrock), (unit.redrock, unit.coadd)):
        if not path.is_file():
            beside = f"; {other.name} is there" if other.is_file() else f"; nor is {other.name}"
            raise InputError(path, f"no such file{beside}")


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
    """Say what would be done, from sizes and times alone unless `verify` is set."""
    todo, n_bytes, failures = 0, 0, []
    for unit in units:
        try:
            _check_pair(unit)
        except InputError as error:
            failures.append(Failure(unit.name, str(error)))
            continue
        hashes = (
            input_hashes(unit.inputs, unit.receipt, True).hashes
            if options.verify
            else known_hashes(unit.inputs, unit.receipt)
        )
        if options.force or hashes is None or not is_done(unit, settings, hashes):
            todo += 1
            n_bytes += sum(path.stat().st_size for path in unit.inputs)
    return StageResult(
        "extract",
        todo,
        len(units) - todo - len(failures),
        tuple(failures),
        tuple(unit.output for unit in units),
        {"pixels": len(units), "bytes_in": n_bytes},
        dry_run=True,
    )


def _ordered(counts: dict[str, float]) -> dict[str, float]:
    """Return counts in the order of the data: in, dropped by reason, out, the rest."""
    first = {name: counts[name] for name in ("rows_in",) if name in counts}
    dropped = {name: counts[name] for name in sorted(counts) if name.startswith("dropped.")}
    return {**first, **dropped, **{name: counts[name] for name in sorted(counts) if name not in {**first, **dropped}}}
