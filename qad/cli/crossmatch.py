"""``qad crossmatch``."""

from __future__ import annotations

from typing import Annotated

import typer

from qad.cli.options import command, spread
from qad.cli.runtime import Run
from qad.errors import ConfigError

EXAMPLES = (
    "qad crossmatch milliquas.fits --column NAME --column Z",
    "qad crossmatch gaia/ first.csv.gz --radius 2 --top 500 --keep-unmatched",
    "qad crossmatch survey.vot --ra-column ALPHA --dec-column DELTA --id-column OBJ --all",
    "qad crossmatch gaia_dr3:gaia/ first:first_14dec17.fits    # known catalogues from files",
    "qad crossmatch milliquas allwise simbad                   # the same, asked of CDS X-Match",
    "qad crossmatch --list                                     # which are known",
)


def crossmatch(
    run: Run,
    catalogs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CATALOG",
            help="A file (FITS, Parquet, CSV, VOTable) or folder (Parquet, HATS); PRESET:FILE, a known catalogue in a file; "
            "PRESET, PRESET@tap, vizier:TABLE or tap:URL#TABLE, asked of a service; NAME= before it names it. "
            "Default: the configured ones.",
        ),
    ] = None,
    list_presets: Annotated[
        bool, typer.Option("--list", help="Show the known catalogues with radius, epoch and citation.")
    ] = False,
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
    marked as best, with the probability that it is there by chance.  Position columns are found by name; degrees, hours
    and sexagesimal text are understood.  What known catalogues say together (radio loudness, X-rays, colours, proper
    motion, known redshift) is a row of counterparts/MODEL.parquet.
    """
    if list_presets:
        show_presets(run)
        return
    if everything and top is not None:
        raise ConfigError("--top and --all exclude each other")
    config = run.load(
        {
            "crossmatch.catalogs": catalogs or None,
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


def show_presets(run: Run) -> None:
    """Print the known catalogues: a line each, or JSON."""
    from qad.matching.presets import described

    presets = described()
    if run.common.json:
        run.print_json({"presets": presets})
        return
    rows = [("name", "radius", "epoch", "motion", "asked of", "cite", "catalogue")]
    rows += [
        (
            str(preset["name"]),
            f'{preset["radius_arcsec"]:g}"',
            "" if preset["epoch"] is None else f"{preset['epoch']:.2f}",
            "yes" if preset["proper_motion"] else "",
            f"{preset['service']} {preset['vizier'] or preset['tap']['table']}",
            str(preset["bibcode"]),
            str(preset["title"]),
        )
        for preset in presets
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def register(app: typer.Typer) -> None:
    """Add the command."""
    shared = spread("A shard matches every N-th of the catalogues; no shard waits for another.")
    command(app, "crossmatch", examples=EXAMPLES, shared=shared)(crossmatch)
