"""``qad train``."""

from __future__ import annotations

from typing import Annotated

import typer

from qad.cli.options import command
from qad.cli.runtime import Run


def train(
    run: Run,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the model, below models/.")] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="ARCH",
            help="rest-frame: decoder of the rest frame on a factor model; factor: the factor model alone; mlp: the plain baseline.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Passes over the training spectra.")] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Spectra in a step.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="RATE", help="Peak learning rate; 0: what suits the architecture.")
    ] = None,
    n_latent: Annotated[int | None, typer.Option(metavar="N", help="Size of the latent space.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of every random number.")] = None,
    resume: Annotated[
        bool | None, typer.Option("--resume/--no-resume", help="Go on from the last checkpoint, or start anew.")
    ] = None,
    vae: Annotated[
        bool | None, typer.Option("--vae/--no-vae", help="Variational: sample the latents, add the KL divergence.")
    ] = None,
) -> None:
    """Train a model of normal quasars on the grid.

    The model lands in models/NAME.  A stopped run goes on from its last checkpoint and ends with the same weights.
    """
    flags = {
        "name": name,
        "arch": arch,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "n_latent": n_latent,
        "seed": seed,
        "resume": resume,
        "vae": vae,
    }
    config = run.load({f"train.{key}": value for key, value in flags.items()})
    from qad.training.stage import train

    run.stage("train", train, config)


EXAMPLES = (
    "qad train",
    "qad train --name baseline --arch mlp --epochs 30",
    "qad train --name quick --arch factor --n-latent 12",
    "qad train --seed 1 --batch-size 128 --no-resume --json",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "train", examples=EXAMPLES)(train)
