"""``qad train``."""

from __future__ import annotations

from dataclasses import replace
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
    devices: Annotated[
        str | None, typer.Option(metavar="N|all", help="Devices to train on: each batch is split over them.")
    ] = None,
    coordinator: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Train with several processes that meet here; the first serves it.  auto: as Slurm, Kubernetes or MPI say.",
        ),
    ] = None,
    processes: Annotated[int | None, typer.Option(metavar="N", help="How many processes train together.")] = None,
    process_id: Annotated[int | None, typer.Option(metavar="I", help="Number of this process, from 0.")] = None,
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
        "devices": devices if devices is None else device_number(devices),
        "coordinator": coordinator,
        "processes": processes,
        "process_id": process_id,
    }
    config = run.load({f"train.{key}": value for key, value in flags.items()})
    from qad.training.peers import join
    from qad.training.stage import train

    if not run.common.dry_run and not join(config.train).is_first:
        run.common = replace(run.common, quiet=True, json=False)
    run.stage("train", train, config)


def device_number(text: str) -> int:
    """Return how many devices ``--devices`` asks for; 0 is all."""
    from qad.errors import ConfigError

    if text == "all":
        return 0
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ConfigError(f"--devices {text!r} is neither a number of devices nor all")
    return int(text)


EXAMPLES = (
    "qad train",
    "qad train --name baseline --arch mlp --epochs 30",
    "qad train --name quick --arch factor --n-latent 12",
    "qad train --seed 1 --batch-size 128 --no-resume --json",
    "qad train --devices 2",
    "srun --ntasks 4 qad train --coordinator auto",
    "qad train --coordinator node1:7654 --processes 2 --process-id 0",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "train", examples=EXAMPLES)(train)
