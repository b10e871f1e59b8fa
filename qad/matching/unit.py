"""One unit of `crossmatch`: a catalogue is matched, unless its table was made from the same files with the same settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qad.matching.catalogs import catalog_files, open_answers, open_catalog
from qad.matching.epochs import PAD_ARCSEC
from qad.matching.hats import hats_root, near, partitions
from qad.matching.plan import CatalogUnit, Settings, UnitReport, read_candidates
from qad.matching.service import asked_radius
from qad.matching.source import read_errors
from qad.schema import MATCHES
from qad.storage.parquet import was_made_so, write_table
from qad.storage.provenance import InputFile, Provenance
from qad.storage.receipts import hashes_of, read_receipt, write_receipt

_NOT_OF_THE_TABLE = ("catalogs", "xmatch_url", "tap_url", "chunk", "retries", "timeout_s")
"""Settings that make no difference to a table: the other catalogues of a run, and how a service is asked."""


def match_unit(unit: CatalogUnit, settings: Settings, advance: Callable[[float], None] | None = None) -> UnitReport:
    """Match one catalogue; `advance` is told of the rows that have passed.

    Raises
    ------
    InputError
        If the catalogue cannot be used.
    """
    if unit.n_questions:
        return UnitReport(True, {"questions": unit.n_questions})
    files = _files(unit, settings)
    inputs = [unit.scores, *files]
    if settings.dry_run and not unit.output.exists():
        return UnitReport(True, {"bytes": sum(file.stat().st_size for file in files)})
    with read_errors(unit.reference.path or unit.folder, ""):
        hashes = hashes_of(inputs, unit.receipt, settings.verify)
    provenance = _provenance(unit, settings, files, hashes)
    if not settings.force and was_made_so(unit.output, MATCHES, provenance):
        if not settings.dry_run:
            write_receipt(unit.receipt, inputs, hashes, counts=_known_counts(unit.receipt))
        return UnitReport(False, _known_counts(unit.receipt))
    if settings.dry_run:
        return UnitReport(True, {"bytes": sum(file.stat().st_size for file in files)})
    from qad.matching.density import AnnulusCounts
    from qad.matching.report import Task, match_catalog

    section = settings.section
    wanted = settings.wanted(unit.reference)
    candidates = read_candidates(unit.scores, section["top"])
    task = Task(unit.name, unit.radius_arcsec, section["epoch"], section["keep_unmatched"], unit.reference.path is None)
    if unit.reference.path is not None:
        matches = match_catalog(candidates, open_catalog(unit.reference.path, wanted), task, advance)
    else:
        sky = candidates["ra"].to_numpy(), candidates["dec"].to_numpy()
        counter = AnnulusCounts(*sky, unit.radius_arcsec, asked_radius(unit, settings))
        matches = match_catalog(candidates, open_answers(files, wanted), task, advance, counter)
    write_table(unit.output, matches.table, MATCHES, provenance)
    write_receipt(unit.receipt, inputs, hashes, counts=matches.counts)
    return UnitReport(True, matches.counts, matches.notes)


def _files(unit: CatalogUnit, settings: Settings) -> list[Path]:
    """Return the files that are read: answers, a file, a folder's; of a HATS catalogue the partitions near the candidates."""
    path = unit.reference.path
    if path is None:
        return list(unit.answers)
    with read_errors(path, ""):
        root = hats_root(path) if path.is_dir() else None
    if root is None:
        return catalog_files(path)
    sky = read_candidates(unit.scores, settings.section["top"])
    chosen = near(partitions(root), sky["ra"].to_numpy(), sky["dec"].to_numpy(), unit.radius_arcsec + PAD_ARCSEC)
    return [part.path for part in chosen]


def _provenance(unit: CatalogUnit, settings: Settings, files: list[Path], hashes: list[str]) -> Provenance:
    section: dict[str, Any] = {key: value for key, value in settings.section.items() if key not in _NOT_OF_THE_TABLE}
    reference = unit.reference
    section |= {"radius_arcsec": unit.radius_arcsec, "preset": reference.preset, "service": reference.service}
    if reference.path is None:
        section["table"] = reference.table
        base = unit.folder
    else:
        base = reference.path if reference.path.is_dir() else reference.path.parent
    names = [f"scores/{unit.scores.name}", *(str(file.relative_to(base)) for file in files)]
    inputs = [InputFile(name, sha256) for name, sha256 in zip(names, hashes, strict=True)]
    return Provenance("crossmatch", section, inputs)


def _known_counts(receipt: Path) -> dict[str, int]:
    counts = read_receipt(receipt).get("counts", {})
    return counts if isinstance(counts, dict) else {}
