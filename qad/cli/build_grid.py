"""``qad build-grid``."""

from __future__ import annotations

from typing import Annotated

import typer

from qad.cli.options import command, spread
from qad.cli.runtime import Run


def build_grid(
    run: Run,
    frame: Annotated[
        str | None, typer.Option(metavar="rest|observed", help="Frame of the grid. Default: rest.")
    ] = None,
    dloglam: Annotated[
        float | None,
        typer.Option(metavar="STEP", help="Pixel width in log10 of wavelength; 1e-4 is 69 km/s. Default: 2e-4."),
    ] = None,
    rest_min: Annotated[
        float | None, typer.Option(metavar="WAVE", help="Blue end of the rest-frame grid, Angstrom. Default: 800.")
    ] = None,
    rest_max: Annotated[
        float | None, typer.Option(metavar="WAVE", help="Red end of the rest-frame grid, Angstrom. Default: 9824.")
    ] = None,
    deredden: Annotated[
        bool | None, typer.Option("--deredden/--no-deredden", help="Undo Galactic extinction, from EBV. Default: yes.")
    ] = None,
    min_good: Annotated[
        int | None, typer.Option(metavar="N", help="Drop spectra with fewer good grid pixels. Default: 200.")
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(metavar="N", help="Files to split the table over, by a hash of TARGETID. Default: 128."),
    ] = None,
) -> None:
    """Put spectra on a common log-wavelength grid, normalised.

    Reads the spectra tables of `qad extract` and writes grid/grid-*.parquet and grid/grid.json. A rest-frame grid stores of
    each spectrum the window that was observed, and where it starts. Flux is conserved, inverse variance propagated, and
    spectra that had to be dropped are counted by reason.
    """
    config = run.load(
        {
            "build_grid.frame": frame,
            "build_grid.dloglam": dloglam,
            "build_grid.rest_min": rest_min,
            "build_grid.rest_max": rest_max,
            "build_grid.deredden": deredden,
            "build_grid.min_good": min_good,
            "build_grid.shards": shards,
        }
    )
    from qad.gridding.stage import build_grid

    run.stage("build-grid", build_grid, config)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "build-grid",
        examples=[
            "qad build-grid",
            "qad build-grid --dloglam 1e-4 --jobs 8",
            "qad build-grid --frame observed --no-deredden --root work",
            "qad build-grid --dry-run",
            "qad build-grid --scheduler tcp://head:8786",
        ],
        shared=spread(
            "A shard resamples every N-th block of tables; the same command without --shard, run after all shards, does what "
            "is missing and writes the grid."
        ),
    )(build_grid)
