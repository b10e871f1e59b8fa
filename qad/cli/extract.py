"""``qad extract``."""

from __future__ import annotations

from typing import Annotated

import typer

from qad.cli.options import BY_NAME, command, pixels, spread, words
from qad.cli.runtime import Run


def extract(
    run: Run,
    source: Annotated[
        str | None, typer.Option(metavar="DIR", help="Local release tree; default: what fetch has put below raw/.")
    ] = None,
    survey: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this survey (main, sv3, ...); repeatable, or a,b.")
    ] = None,
    program: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this program (dark, bright, ...); repeatable, or a,b."),
    ] = None,
    healpix: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST|@FILE", help="Only these pixels: 47,9144 or a file with one per line; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, metavar="N", help="Stop after N pixels; 0: all.")] = None,
    spectype: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="Redrock class to keep; repeatable. [default: QSO]")
    ] = None,
    zwarn: Annotated[
        int | None, typer.Option(min=0, metavar="BITS", help="ZWARN bits that may be set (4: small delta chi2).")
    ] = None,
    objtype: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="OBJTYPE to keep; repeatable. [default: TGT]")
    ] = None,
    fiberstatus: Annotated[
        int | None, typer.Option(min=0, metavar="BITS", help="COADD_FIBERSTATUS bits that may be set. [default: 8]")
    ] = None,
    z_min: Annotated[float | None, typer.Option(help="Lowest redshift.")] = None,
    z_max: Annotated[float | None, typer.Option(help="Highest redshift.")] = None,
    min_wave: Annotated[float | None, typer.Option(help="Shortest observed wavelength, Å.")] = None,
    max_wave: Annotated[float | None, typer.Option(help="Longest observed wavelength, Å.")] = None,
    verify_datasum: Annotated[
        bool | None, typer.Option("--verify-datasum/--no-verify-datasum", help="Refuse HDUs that miss their DATASUM.")
    ] = None,
) -> None:
    """Extract quasar spectra and metadata into Parquet tables.

    Each healpix gives one table, spectra/<survey>-<program>-<healpix>.parquet: redrock's fit, photometry and quality of
    every wanted row, and its flux and ivar with the cameras merged on one grid of 0.8 Å.
    """
    config = run.load(
        {
            "extract.source": source,
            "extract.survey": words(survey),
            "extract.program": words(program),
            "extract.healpix": None if healpix is None else pixels(healpix),
            "extract.limit": limit,
            "extract.spectype": words(spectype),
            "extract.zwarn": zwarn,
            "extract.objtype": words(objtype),
            "extract.fiberstatus": fiberstatus,
            "extract.z_min": z_min,
            "extract.z_max": z_max,
            "extract.min_wave": min_wave,
            "extract.max_wave": max_wave,
            "extract.verify_datasum": verify_datasum,
        }
    )
    from qad.extraction.stage import extract

    run.stage("extract", extract, config)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "extract",
        examples=[
            "qad extract",
            "qad extract --source /data/dr1 --survey main --program dark",
            "qad extract --source /data/dr1 --healpix 23040,23041 --z-min 1.8 --jobs 8",
            "qad extract --zwarn 4 --dry-run",
            "qad extract --scheduler tcp://head:8786",
        ],
        shared=spread(BY_NAME),
    )(extract)
