"""The units of `crossmatch`: which catalogues, with what settings, from and to which files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.config import Config
from qad.errors import ConfigError
from qad.matching.columns import Wanted
from qad.matching.references import Reference, parse_reference, reference_preset
from qad.schema import SCORES
from qad.storage.parquet import read_frame

if TYPE_CHECKING:
    import polars as pl

_CANDIDATE = ("rank", "targetid", "survey", "program", "healpix", "ra", "dec")


@dataclass(frozen=True)
class CatalogUnit:
    """One catalogue to match: the unit of work.

    Attributes
    ----------
    name : str
    reference : Reference
    radius_arcsec : float
    scores, output, receipt : Path
    folder : Path
        Where the answers of its service are kept.
    answers : tuple of Path
        Those answers, once there are any.
    n_questions : int
        How many would be asked, in a dry run.
    """

    name: str
    reference: Reference
    radius_arcsec: float
    scores: Path
    output: Path
    receipt: Path
    folder: Path
    answers: tuple[Path, ...] = ()
    n_questions: int = 0

    def __str__(self) -> str:
        return str(self.reference)


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know."""

    section: dict[str, Any]
    force: bool
    verify: bool
    dry_run: bool

    def wanted(self, reference: Reference) -> Wanted:
        """Return the columns that are wanted of a catalogue."""
        section = self.section
        return Wanted(
            section["ra_column"],
            section["dec_column"],
            section["id_column"],
            tuple(section["columns"]),
            reference_preset(reference),
        )


@dataclass(frozen=True)
class UnitReport:
    """What became of one catalogue."""

    is_done: bool
    counts: dict[str, int]
    notes: tuple[str, ...] = ()


def read_candidates(scores: Path, top: int) -> pl.DataFrame:
    """Return the key, position and rank of the candidates to match; `top` 0 means all."""
    import polars as pl

    frame = read_frame(scores, SCORES, _CANDIDATE).sort("rank")
    return frame.filter(pl.col("rank") <= top) if top else frame


def plan_units(config: Config, scores: Path) -> list[CatalogUnit]:
    """Return a unit for each catalogue.

    Raises
    ------
    ConfigError
        If one is not understood, or two would be written to one file.
    """
    section, workspace = config.crossmatch, config.workspace
    base = config.base_of("crossmatch.catalogs")
    units: dict[str, CatalogUnit] = {}
    for text in section.catalogs:
        reference = parse_reference(text, base)
        name = reference.name
        if name in units and units[name].reference != reference:
            raise ConfigError(
                f"{units[name]} and {reference} would both be written as catalogue {name!r}; rename one (NAME=...)"
            )
        preset = reference_preset(reference)
        is_set = "crossmatch.radius_arcsec" in config.origins
        units[name] = CatalogUnit(
            name,
            reference,
            section.radius_arcsec if preset is None or is_set else preset.radius_arcsec,
            scores,
            workspace.matches_file(section.name, name),
            workspace.receipt("crossmatch", f"{section.name}-{name}"),
            workspace.answers(name),
        )
    return list(units.values())
