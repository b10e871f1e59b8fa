"""Doing a unit, or finding it done: its table is there, and names the same inputs and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qad.desi import layout
from qad.desi.fits import FitsFile
from qad.errors import InputError
from qad.extraction.identity import Identity, input_hashes
from qad.schema import N_WAVE, SPECTRA, WAVE_START, WAVE_STEP
from qad.settings import Extract
from qad.storage import receipts
from qad.storage.parquet import read_metadata, read_table, write_table
from qad.storage.provenance import InputFile, Provenance
from qad.work.units import Pixel

WAVE = {"start": WAVE_START, "step": WAVE_STEP, "n": N_WAVE, "unit": "Angstrom", "frame": "vacuum, barycentric"}
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


def extract_unit(unit: Unit, settings: Extract, force: bool = False, verify: bool = False) -> UnitReport:
    """Extract one unit unless its table is there and was made from the same inputs with the same settings."""
    check_pair(unit)
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


def check_pair(unit: Unit) -> None:
    """Raise InputError unless both files of a unit are there."""
    for path, other in ((unit.coadd, unit.redrock), (unit.redrock, unit.coadd)):
        if not path.is_file():
            beside = f"; {other.name} is there" if other.is_file() else f"; nor is {other.name}"
            raise InputError(path, f"no such file{beside}")
