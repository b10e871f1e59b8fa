"""``qad score``."""

from __future__ import annotations

from typing import Annotated

import typer

from qad.cli.options import command, spread
from qad.cli.runtime import Run

TOP_COLUMNS = ("rank", "targetid", "survey", "program", "z", "snr", "score", "p_value", "artefact", "reason")


def score(
    run: Run,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model below models/, and name of the scores.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of a model trained elsewhere; default: models/<name>.")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Calibration of another run, scores/<name>.calibration.npz."),
    ] = None,
    neighbours: Annotated[
        int | None, typer.Option(metavar="N", help="Spectra of like S/N and redshift that calibrate each one.")
    ] = None,
    keep_artefacts: Annotated[
        bool | None,
        typer.Option(
            "--keep-artefacts/--no-keep-artefacts", help="Rank probable artefacts by score alone, not after the rest."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=0, metavar="N", help="Print the first N candidates.")] = 0,
) -> None:
    """Score every spectrum and rank it by strangeness.

    Residuals at several scales, rarity in the model's latent space, and line strengths, each calibrated against spectra of
    like S/N and redshift, are combined into one score.
    """
    config = run.load(
        {
            "score.name": name,
            "score.model": model,
            "score.calibration": calibration,
            "score.neighbours": neighbours,
            "score.keep_artefacts": keep_artefacts,
        }
    )
    from qad.scoring.stage import score

    if not top:
        run.stage("score", score, config)
        return
    from dataclasses import replace

    from qad.scoring.stage import top_rows

    result = run.work("score", score, config)
    rows = [] if result.dry_run else top_rows(result.paths[0], top, TOP_COLUMNS)
    if run.common.json:
        result = replace(result, details={**result.details, "top": rows})
    run.report(result)
    if not run.common.json:
        _print_rows(rows)


def _print_rows(rows: list[dict[str, object]]) -> None:
    from qad.terminal.console import printable

    shown = [{key: _text(value) for key, value in row.items()} for row in rows]
    widths = {key: max(len(key), *(len(row[key]) for row in shown)) for key in (shown[0] if shown else {})}
    for row in [{key: key for key in widths}, *shown] if shown else []:
        print(printable("  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip()))


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "score",
        examples=[
            "qad score",
            "qad score --top 20",
            "qad score --name mlp --keep-artefacts",
            "qad score --model /other/root/models/default --root few-spectra",
            "qad score --scheduler tcp://head:8786",
        ],
        shared=spread(
            "A shard measures every N-th block of spectra; the same command without --shard, run after all shards, does what "
            "is missing and writes the scores."
        ),
    )(score)
