"""Doing a unit, or finding it done: its table is there, and names the same inputs and settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.desi import layout
from qad.desi.fits import FitsFile
from qad.errors import InputError
from qad.extraction.identity import Identity, holds_no_target, input_hashes, listed_specprod
from qad.schema import N_WAVE, SPECTRA, WAVE_START, WAVE_STEP
from qad.settings import Extract
from qad.storage import receipts
from qad.storage.parquet import read_metadata, read_table, write_table
from qad.storage.provenance import InputFile, Provenance
from qad.work.units import Pixel

if TYPE_CHECKING:
    from qad.extraction.healpix import Extracted

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
    def present(self) -> list[Path]:
        """Those of them that are there."""
        return [path for path in self.inputs if path.exists()]

    def named(self, hashes: Mapping[str, str]) -> list[InputFile]:
        """Return files by their names below the production, the same wherever the release lies."""
        folder = "" if self.pixel is None else f"{layout.pixel_key('healpix', self.pixel)}/"
        return [InputFile(f"{folder}{name}", sha256) for name, sha256 in hashes.items()]


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
    before = receipts.stat_inputs(unit.present)
    try:
        identity = input_hashes(unit.inputs, unit.receipt, verify)
        if not force and is_done(unit, settings, identity):
            return _skipped(unit, settings, identity)
        report = _write_unit(unit, settings, before, identity)
    except InputError as error:
        stays = f" ({unit.output.name} of an earlier run stays)" if unit.output.is_file() else ""
        raise InputError(error.path, error.reason + stays, error.where) from None
    _remember(unit, settings, identity, report)
    return report


def extract_files(unit: Unit, settings: Extract) -> Extracted:
    """Return what a unit's files give, and write nothing.

    Raises
    ------
    InputError
        If one of the files is damaged, or the coadd is not there although it is needed.
    """
    from qad.extraction.healpix import extract_pixel, extract_without_coadd

    if unit.coadd.exists():
        return extract_pixel(unit.pixel, unit.coadd, unit.redrock, settings)
    return replace(extract_without_coadd(unit.coadd, unit.redrock, settings), specprod=_specprod(unit))


def _write_unit(unit: Unit, settings: Extract, before: list[dict[str, Any]], identity: Identity) -> UnitReport:
    if settings.verify_datasum:
        for path in identity.read:  # nobody vouches for it, and its bytes are in memory now
            with FitsFile(path) as file:
                file.check_data()
    extracted = extract_files(unit, settings)
    if receipts.stat_inputs(unit.present) != before:
        raise InputError(unit.coadd.parent, "a file changed while it was read; run again")
    # a cut that lacks wanted rows must not pass for the whole file, which would then seem to be done
    named = identity.origins if extracted.is_complete else identity.present
    provenance = Provenance(
        "extract",
        content_settings(settings),
        unit.named(named),
        release=layout.RELEASES.get(extracted.specprod, ""),
        specprod=extracted.specprod,
        wave=WAVE,
    )
    write_table(unit.output, extracted.table, SPECTRA, provenance)
    duplicates = [str(targetid) for targetid in extracted.duplicates]
    return UnitReport(False, dict(extracted.counts), duplicates, identity.notes + extracted.notes)


def _specprod(unit: Unit) -> str:
    """Return the production of a pixel whose coadd was left out: redrock's header does not tell it."""
    above = unit.coadd.absolute().parents
    return listed_specprod(unit.coadd) or (layout.specprod_of(above[4]) if len(above) > 4 else "")


def _skipped(unit: Unit, settings: Extract, identity: Identity) -> UnitReport:
    """Report a finished unit from its receipt; without one (it is only a memory) from the table."""
    receipt = receipts.read_receipt(unit.receipt)
    if receipt.get("settings") == content_settings(settings):
        return UnitReport(True, receipt.get("counts", {}), receipt.get("duplicates", []), receipt.get("notes", []))
    report = UnitReport(True, {"rows_out": read_table(unit.output, SPECTRA, ["targetid"]).num_rows})
    _remember(unit, settings, identity, report)
    return report


def _remember(unit: Unit, settings: Extract, identity: Identity, report: UnitReport) -> None:
    receipts.write_receipt(
        unit.receipt,
        identity.paths,
        identity.hashes,
        origins=identity.origins,
        settings=content_settings(settings),
        counts=report.counts,
        duplicates=report.duplicates,
        notes=report.notes,
    )


def is_done(unit: Unit, settings: Extract, identity: Identity) -> bool:
    """Whether the unit's table exists, opens, and names these inputs and settings.

    A table names the release's files.  Where something else is there - a coadd that was cut, or none - the unit's
    receipt must remember besides that the table was made from just these bytes.
    """
    if not unit.output.is_file():
        return False
    try:
        metadata = read_metadata(unit.output, SPECTRA)
    except InputError:
        return False
    possible = [identity.origins, identity.own]
    if identity.n_absent and holds_no_target(unit.coadd):
        possible.append(identity.present)
    named = [[asdict(file) for file in unit.named(hashes)] for hashes in possible]
    return (
        metadata.get("qad.table") == SPECTRA.tag
        and metadata.get("qad.inputs") in named
        and metadata.get("qad.config") == content_settings(settings)
        and (identity.is_whole or _is_remembered(unit, settings, identity))
    )


def _is_remembered(unit: Unit, settings: Extract, identity: Identity) -> bool:
    receipt = receipts.read_receipt(unit.receipt)
    known = list(receipts.remembered(unit.receipt).values())
    return known == identity.hashes and receipt.get("settings") == content_settings(settings)


def content_settings(settings: Extract) -> dict[str, Any]:
    """Return the settings that decide what a table holds, as JSON types."""
    return settings.model_dump(mode="json", exclude=set(CHOICE))


def check_pair(unit: Unit) -> None:
    """Raise InputError unless both files of a unit are there, or redrock's alone: fetch may leave a coadd out."""
    for path, other in ((unit.coadd, unit.redrock), (unit.redrock, unit.coadd)):
        is_left_out = path == unit.coadd and other.is_file() and not os.path.lexists(path)
        if not path.is_file() and not is_left_out:
            beside = f"; {other.name} is there" if other.is_file() else f"; nor is {other.name}"
            raise InputError(path, f"no such file{beside}")
