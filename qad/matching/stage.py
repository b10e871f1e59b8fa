"""The stage `crossmatch`: candidates against catalogues by position, one `matches` table per catalogue."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.config import Config
from qad.errors import ConfigError, InputError
from qad.matching.catalogs import catalog_files, catalog_name
from qad.matching.columns import Wanted
from qad.matching.source import read_errors
from qad.results import Failure, RunOptions, StageResult, add_counts
from qad.schema import MATCHES, SCORES
from qad.storage.atomic import remove_stale_parts
from qad.storage.parquet import read_frame, read_metadata, write_table
from qad.storage.provenance import InputFile, Provenance
from qad.storage.receipts import hashes_of, read_receipt, write_receipt
from qad.work.engine import run_units

if TYPE_CHECKING:
    import polars as pl

_CANDIDATE = ("rank", "targetid", "survey", "program", "healpix", "ra", "dec")


@dataclass(frozen=True)
class CatalogUnit:
    """One catalogue to match: the unit of work."""

    name: str
    path: Path
    scores: Path
    output: Path
    receipt: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know."""

    section: dict[str, Any]
    force: bool
    verify: bool
    dry_run: bool


@dataclass(frozen=True)
class UnitReport:
    """What became of one catalogue."""

    is_done: bool
    counts: dict[str, int]
    notes: tuple[str, ...] = ()


def crossmatch(config: Config, options: RunOptions) -> StageResult:
    """Match the candidates of a model with every catalogue of ``crossmatch.catalogs``.

    Raises
    ------
    ConfigError
        If no catalogue is named, or two would be written to one file.
    InputError
        If the model has no scores.
    """
    section = config.crossmatch
    if not section.catalogs:
        raise ConfigError("no catalogue to match with: name one, `qad crossmatch CATALOG`, or set crossmatch.catalogs")
    scores = config.workspace.scores_file(section.name)
    if not scores.is_file():
        raise InputError(scores, f"no scores of model {section.name!r}; `qad score --name {section.name}` makes them")
    n_candidates = len(read_candidates(scores, section.top))
    units = _units(config, scores)
    units = list(options.share.of(units)) if options.share else units
    if not options.dry_run:
        remove_stale_parts(config.workspace.matches)
    settings = Settings(config.section("crossmatch"), options.force, options.verify, options.dry_run)
    reports, failures = _match_all(units, settings, options)
    done = [report for report in reports.values() if report.is_done]
    return StageResult(
        "crossmatch",
        n_done=len(done),
        n_skipped=len(reports) - len(done),
        failures=tuple(sorted(failures, key=lambda failure: failure.unit)),
        paths=tuple(unit.output for unit in units),
        counts=_sum_counts(n_candidates, list(reports.values())),
        dry_run=options.dry_run,
        details={"catalogs": {name: reports[name].counts for name in sorted(reports)}},
    )


def _match_all(
    units: list[CatalogUnit], settings: Settings, options: RunOptions
) -> tuple[dict[str, UnitReport], list[Failure]]:
    # workers of their own only say when a catalogue is done; here its rows can be watched
    here = options.cluster is None and (options.jobs == 1 or len(units) == 1)
    options.progress.start("crossmatch", None if here else len(units), "rows" if here else "catalogues")
    work = partial(match_unit, settings=settings, advance=options.progress.advance if here else None)
    reports: dict[str, UnitReport] = {}
    failures = []
    for outcome in run_units(work, units, options.jobs, options.cluster):
        if not here:
            options.progress.advance()
        if outcome.value is None:
            failures.append(Failure(str(outcome.unit), outcome.error or "no result"))
            continue
        reports[outcome.unit.name] = outcome.value
        for note in outcome.value.notes:
            options.progress.note(note)
    return reports, failures


def read_candidates(scores: Path, top: int) -> pl.DataFrame:
    """Return the key, position and rank of the candidates to match; `top` 0 means all."""
    import polars as pl

    frame = read_frame(scores, SCORES, _CANDIDATE).sort("rank")
    return frame.filter(pl.col("rank") <= top) if top else frame


def match_unit(unit: CatalogUnit, settings: Settings, advance: Callable[[float], None] | None = None) -> UnitReport:
    """Match one catalogue, unless its table was made from the same files with the same settings.

    `advance` is told of the rows that have passed.

    Raises
    ------
    InputError
        If the catalogue cannot be used.
    """
    files = catalog_files(unit.path)
    inputs = [unit.scores, *files]
    if settings.dry_run and not unit.output.exists():
        return UnitReport(True, {"bytes": sum(file.stat().st_size for file in files)})
    with read_errors(unit.path, ""):
        hashes = hashes_of(inputs, unit.receipt, settings.verify)
    provenance = _provenance(unit, settings.section, files, hashes)
    if not settings.force and _is_done(unit.output, provenance):
        if not settings.dry_run:
            write_receipt(unit.receipt, inputs, hashes, counts=_known_counts(unit.receipt))
        return UnitReport(False, _known_counts(unit.receipt))
    if settings.dry_run:
        return UnitReport(True, {"bytes": sum(file.stat().st_size for file in files)})
    from qad.matching.report import match_catalog

    section = settings.section
    wanted = Wanted(section["ra_column"], section["dec_column"], section["id_column"], tuple(section["columns"]))
    candidates = read_candidates(unit.scores, section["top"])
    matches = match_catalog(
        candidates, unit.path, unit.name, wanted, section["radius_arcsec"], section["keep_unmatched"], advance
    )
    write_table(unit.output, matches.table, MATCHES, provenance)
    write_receipt(unit.receipt, inputs, hashes, counts=matches.counts)
    return UnitReport(True, matches.counts, matches.notes)


def _units(config: Config, scores: Path) -> list[CatalogUnit]:
    section, workspace = config.crossmatch, config.workspace
    units: dict[str, CatalogUnit] = {}
    from_file = config.file is not None and config.origins.get("crossmatch.catalogs") == str(config.file)
    base = config.file.parent if from_file and config.file is not None else Path.cwd()
    for text in section.catalogs:
        path = base / Path(os.path.expandvars(text)).expanduser()
        name = catalog_name(path)
        if name in units and units[name].path != path:
            raise ConfigError(f"{units[name].path} and {path} would both be written as catalogue {name!r}; rename one")
        output = workspace.matches_file(section.name, name)
        receipt = workspace.receipt("crossmatch", f"{section.name}-{name}")
        units[name] = CatalogUnit(name, path, scores, output, receipt)
    return list(units.values())


def _provenance(unit: CatalogUnit, section: dict[str, Any], files: list[Path], hashes: list[str]) -> Provenance:
    # the other catalogues of a run have no part in this table
    config = {key: value for key, value in section.items() if key != "catalogs"}
    base = unit.path if unit.path.is_dir() else unit.path.parent
    names = [f"scores/{unit.scores.name}", *(str(file.relative_to(base)) for file in files)]
    inputs = [InputFile(name, sha256) for name, sha256 in zip(names, hashes, strict=True)]
    return Provenance("crossmatch", config, inputs)


def _is_done(output: Path, provenance: Provenance) -> bool:
    if not output.exists():
        return False
    try:
        found = read_metadata(output, MATCHES)
    except InputError:
        return False
    expected = provenance.as_dict(MATCHES.tag)
    return all(found.get(key) == expected[key] for key in ("qad.table", "qad.config", "qad.inputs"))


def _known_counts(receipt: Path) -> dict[str, int]:
    counts = read_receipt(receipt).get("counts", {})
    return counts if isinstance(counts, dict) else {}


def _sum_counts(n_candidates: int, reports: list[UnitReport]) -> dict[str, float]:
    total: dict[str, float] = {}
    for report in reports:
        add_counts(total, report.counts)
    return {**total, "candidates": n_candidates}
