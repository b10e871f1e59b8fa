"""``qad publish``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qad.cli.options import STAGE, Where, command
from qad.cli.runtime import Run

EXAMPLES = (
    "qad publish catalogue",
    "qad publish catalogue --top 1000 --where 'snr > 2' --title 'Strange quasars' --author 'Doe, Jane'",
    "qad publish catalogue --label interesting --author 'Doe, Jane' --author 'Roe, Richard'",
    "SOURCE_DATE_EPOCH=1767225600 qad publish catalogue",
)


def publish(
    run: Run,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the catalogue.")],
    name: Annotated[str | None, typer.Option(metavar="MODEL", help="Model whose candidates are published.")] = None,
    top: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Publish the first N; 0: all that are left.")
    ] = None,
    where: Where = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Only candidates with this label; repeatable.")
    ] = None,
    artefact_max: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="P", help="Highest artefact probability of a candidate.")
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Title of the catalogue.")] = None,
    author: Annotated[
        list[str] | None, typer.Option(metavar="'FAMILY, GIVEN'", help="Author of the catalogue; repeatable, in order.")
    ] = None,
    catalogue_version: Annotated[
        str | None, typer.Option("--catalogue-version", metavar="TEXT", help="Version of the catalogue.")
    ] = None,
) -> None:
    """Write a catalogue for publication: tables, spectra, figures, README, citations, checksums.

    Candidates and measurements as FITS, VOTable, ECSV, Parquet and CDS tables, with units and UCDs; what a deposit at Zenodo or the
    CDS needs.  `qad measure` adds the measurements, `qad evaluate` the completeness.
    """
    config = run.load(
        {
            "publish.name": name,
            "publish.top": top,
            "publish.where": where,
            "publish.labels": label or None,
            "publish.artefact_max": artefact_max,
            "publish.title": title,
            "publish.authors": author or None,
            "publish.version": catalogue_version,
        }
    )
    from qad.publishing.stage import publish

    run.stage("publish", lambda settings, options: publish(settings, options, folder), config)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "publish", examples=EXAMPLES, shared=STAGE)(publish)
