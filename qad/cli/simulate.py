"""``qad simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qad.cli.options import STAGE, command
from qad.cli.runtime import Run


def simulate(
    run: Run,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that receives the release and truth.parquet.")
    ],
    quasars: Annotated[int, typer.Option(metavar="N", help="Quasars in all.")] = 1000,
    healpix: Annotated[int, typer.Option(metavar="K", help="Pixels over which they are spread.")] = 4,
    anomaly_rate: Annotated[
        float, typer.Option(metavar="R", help="Share of the quasars with a planted anomaly, 0 to 1.")
    ] = 0.02,
    anomaly: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="Plant only this class, such as hibal; repeatable.")
    ] = None,
    artefact_rate: Annotated[
        float, typer.Option(metavar="R", help="Share of the quasars with a planted artefact, 0 to 1.")
    ] = 0.01,
    contaminants: Annotated[
        float, typer.Option(metavar="R", help="Stars, galaxies, sky and dead fibres per quasar.")
    ] = 0.2,
    repeats: Annotated[
        float, typer.Option(metavar="R", help="Share of the quasars that a second program observes again, 0 to 1.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of every random number.")] = 0,
    survey: Annotated[str, typer.Option(help="Survey: main, sv1, sv2, sv3 or special.")] = "main",
    program: Annotated[str, typer.Option(help="Program: dark, bright, backup or other.")] = "dark",
    resolution: Annotated[
        bool,
        typer.Option("--resolution/--no-resolution", help="Write the resolution matrices, four fifths of the bytes."),
    ] = True,
) -> None:
    """Write a simulated release in the format of DR1.

    It holds planted, labelled anomalies and artefacts.
    The spectra lie below DIR/spectro/redux/iron/healpix, what is planted in which of them in DIR/truth.parquet.
    """
    run.load()  # nothing of it matters here, but a wrong setting is an error in every command
    from qad.simulation.release import simulate

    common = run.common
    arguments: dict[str, Any] = {
        "quasars": quasars,
        "healpix": healpix,
        "anomaly_rate": anomaly_rate,
        "anomalies": tuple(anomaly or ()),
        "artefact_rate": artefact_rate,
        "contaminants": contaminants,
        "repeats": repeats,
        "seed": seed,
        "survey": survey,
        "program": program,
        "resolution": resolution,
        "jobs": common.jobs,
        "force": common.force,
        "dry_run": common.dry_run,
        "verify": common.verify,
    }
    with run.progress() as progress:
        result = simulate(directory, progress=progress, **arguments)
    run.report(result)
    if result.failures:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = [
        "qad simulate release",
        "qad simulate release --quasars 5000 --healpix 20 --anomaly-rate 0.02 --seed 7",
        "qad simulate bals --quasars 2000 --anomaly-rate 0.1 --anomaly hibal --anomaly lobal",
        "qad simulate small --quasars 100 --healpix 1 --no-resolution",
        "qad run --source release",
    ]
    command(app, "simulate", examples=examples, shared=STAGE)(simulate)
