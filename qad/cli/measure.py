"""``qad measure``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qad.cli.options import STAGE, command
from qad.cli.runtime import Run
from qad.errors import ConfigError

if TYPE_CHECKING:
    from qad.config import Config

EXAMPLES = (
    "qad measure",
    "qad measure --top 5000 --templates redrock-templates",
    "qad measure 39627612345678901",
    "qad measure 39627612345678901 --png drawings --templates redrock-templates",
)


def measure(
    run: Run,
    targetid: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGETID]...", help="Measure these and print; the table is not touched."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="MODEL", help="Model whose candidates are measured.")] = None,
    top: Annotated[int | None, typer.Option(min=0, metavar="N", help="Measure the first N candidates; 0: all.")] = None,
    templates: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Redrock's templates (rrtemplate-QSO-*.fits), for other redshifts and drawings."
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With TARGETIDs: draw each spectrum with its fits into this folder."),
    ] = None,
) -> None:
    """Measure lines, continuum, absorption and other redshifts of the candidates.

    Flux, equivalent width, FWHM and shift of 31 emission lines, complexes fitted together; slopes, luminosities, AI and BI of
    C IV, and whether another redshift fits better: one row a candidate of measures/MODEL.parquet.
    """
    config = run.load(
        {"measure.name": name, "measure.top": top, "measure.templates": None if templates is None else str(templates)}
    )
    if targetid:
        _show(run, config, targetid, png)
        return
    if png is not None:
        raise ConfigError("--png draws single spectra: name their TARGETIDs")
    from qad.analysis.stage import measure

    run.stage("measure", measure, config)


def _show(run: Run, config: Config, targetids: list[str], png: Path | None) -> None:
    from qad.analysis.target import measure_targets
    from qad.inspection.view import parse_targetids

    documents = measure_targets(config, parse_targetids(targetids), png)
    if run.common.json:
        run.print_json({"targets": documents})
        return
    for document in documents:
        _print(document)


def _print(document: dict[str, Any]) -> None:
    from qad.terminal.console import printable

    place = "/".join(str(document[key]) for key in ("survey", "program", "healpix"))
    print(printable(f"TARGETID {document['targetid']}  {place}  z {document['z']:.5f}  rank {document['rank']}"))
    print(f"{'line':24}{'flux':>18}{'rest EW [Å]':>18}{'FWHM [km/s]':>16}{'shift [km/s]':>16}")
    for line in document["lines"]:
        width = _value(line, "ew", 2) if line["ew_limit"] is None else f"< {line['ew_limit']:.2f}"
        print(
            f"{line['name'][:23]:24}{_value(line, 'flux', 2):>18}{width:>18}"
            f"{_value(line, 'fwhm', 0):>16}{_value(line, 'shift', 0):>16}"
        )
    for part in ("continuum", "absorption"):
        values = document[part]
        shown = [
            f"{key} {_value(values, key, 3)}" for key in values if f"{key}_err" in values and values[key] is not None
        ]
        if shown:
            print(f"{part:12}{'  '.join(shown)}")
    other = document["redshift"]
    if other["z_alt"] is not None:
        text = f"z {other['z_alt']:.4f} ({other['z_alt_lines']}), chi2 lower by {other['z_alt_dchi2']:.1f}"
        print(f"{'other z':12}{text if other['z_alt_dchi2'] > 0 else 'none fits better'}")
    redrock = document["redrock"]
    coeff = " ".join(f"{value:.4g}" for value in redrock["coeff"] if value is not None)
    print(
        printable(
            f"{'redrock':12}{redrock['template']}  chi2 {redrock['chi2']:.1f} of {redrock['npixels']} pixels  deltachi2 {redrock['deltachi2']:.1f}  coeff {coeff}"
            if redrock["chi2"] is not None
            else f"{'redrock':12}{redrock['template']}"
        )
    )
    if "png" in document:
        print(printable(f"{'drawing':12}{document['png']}"))


def _value(values: dict[str, Any], name: str, digits: int) -> str:
    value, error = values.get(name), values.get(f"{name}_err")
    if value is None:
        return ""
    return f"{value:.{digits}f}" if error is None else f"{value:.{digits}f} ± {error:.{digits}f}"


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "measure", examples=EXAMPLES, shared=STAGE)(measure)
