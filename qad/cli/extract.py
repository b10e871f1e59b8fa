"""``qad extract``."""

from __future__ import annotations

from typing import Annotated

import typer

from qad.cli.options import command
from qad.cli.runtime import Run


def extract(
    run: Run,
    source: Annotated[
        str | None, typer.Option(metavar="DIR", help="Local release tree; default: what fetch has put below raw/.")
    ] = None,
    z_min: Annotated[float | None, typer.Option(help="Lowest redshift.")] = None,
) -> None:
    """Extract quasar spectra into Parquet tables."""
    config = run.load({"extract.source": source, "extract.z_min": z_min})
    from qad.extraction.stage import extract

    run.stage("extract", extract, config)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "extract", examples=["qad extract --source /data/dr1"])(extract)
