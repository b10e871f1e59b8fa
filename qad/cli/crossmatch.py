"""``qad crossmatch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qad.cli.options import command, spread
from qad.cli.runtime import Run, path_list
from qad.errors import ConfigError

EXAMPLES = (
    "qad crossmatch milliquas.fits --column NAME --column Z",
    "qad crossmatch gaia/ first.csv.gz --radius 2 --top 500 --keep-unmatched",
    "qad crossmatch survey.vot --ra-column ALPHA --dec-column DELTA --id-column OBJ --all",
)


def crossmatch(
    run: Run,
    catalogs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CATALOG",
            help="FITS, Parquet (a file or a folder), CSV or VOTable; default: the configured ones.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="MODEL", help="Model whose candidates are matched.")] = None,
    radius: Annotated[float | None, typer.Option(metavar="ARCSEC", help="Largest separation, arcsec.")] = None,
    top: Annotated[int | None, typer.Option(min=1, metavar="N", help="Match the first N candidates.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Match every scored spectrum.")] = False,
    ra_column: Annotated[str | None, typer.Option(metavar="NAME", help="Right ascension column.")] = None,
    dec_column: Annotated[str | None, typer.Option(metavar="NAME", help="Declination column.")] = None,
    id_column: Annotated[str | None, typer.Option(metavar="NAME", help="Identifier column.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Carry this catalogue column over as cat_NAME; repeatable.")
    ] = None,
    keep_unmatched: Annotated[
        bool | None,
        typer.Option("--keep-unmatched/--drop-unmatched", help="Write a row for candidates without a match, or none."),
    ] = None,
) -> None:
    """Match the candidates with catalogues by position.

    Every catalogue entry within the radius of a candidate becomes a row of matches/MODEL-CATALOG.parquet, the nearest
    marked as best.  Position columns are found by name; degrees, hours and sexagesimal text are understood.
    """
    if everything and top is not None:
        raise ConfigError("--top and --all exclude each other")
    config = run.load(
        {
            "crossmatch.catalogs": path_list(catalogs),
            "crossmatch.name": name,
            "crossmatch.radius_arcsec": radius,
            "crossmatch.top": 0 if everything else top,
            "crossmatch.ra_column": ra_column,
            "crossmatch.dec_column": dec_column,
            "crossmatch.id_column": id_column,
            "crossmatch.columns": column or None,
            "crossmatch.keep_unmatched": keep_unmatched,
        }
    )
    from qad.matching.stage import crossmatch

    run.stage("crossmatch", crossmatch, config)


def register(app: typer.Typer) -> None:
    """Add the command."""
    shared = spread("A shard matches every N-th of the catalogues; no shard waits for another.")
    command(app, "crossmatch", examples=EXAMPLES, shared=shared)(crossmatch)
