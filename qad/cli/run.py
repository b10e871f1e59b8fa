"""``qad run``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated

import typer

from qad.cli.options import command
from qad.cli.runtime import Run, summary
from qad.errors import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from qad.config import Config
    from qad.results import StageResult


def run_all(
    run: Run,
    source: Annotated[
        str | None,
        typer.Option(metavar="DIR|URL", help="Local release tree to read in place, or an s3:// URL to fetch from."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the model and its scores.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="Score with a model trained elsewhere instead of training one.")
    ] = None,
    arch: Annotated[str | None, typer.Option(metavar="ARCH", help="Architecture: rest-frame, factor or mlp.")] = None,
    catalog: Annotated[
        list[str] | None,
        typer.Option("--catalog", metavar="FILE", help="Catalogue to match the candidates with; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, metavar="N", help="Stop after this many pixels.")] = None,
) -> None:
    """Run all stages in order, skipping what is done.

    The stages: fetch, extract, build-grid, train, score, crossmatch.
    Finished work is skipped, so the command can be repeated after any interruption. A local --source is read in
    place and needs no fetch; crossmatch runs when a catalogue is given or configured.
    """
    remote = source is not None and source.startswith("s3://")
    flags = {
        "fetch.source": source if remote else None,
        "extract.source": None if remote else source,
        "fetch.limit": limit,
        "extract.limit": limit,
        "train.arch": arch,
        "score.model": model,
        "crossmatch.catalogs": catalog,
        **{f"{section}.name": name for section in ("train", "score", "crossmatch", "inspect")},
    }
    config = run.load(flags)
    results = [_one(run, stage, config) for stage in planned_stages(config)]
    if not run.common.dry_run:
        run.sync_index(config)
    if run.common.json:
        run.print_json({"stages": [result.as_json() for result in results]})
    elif not run.common.quiet:
        print(f"results below {config.root}; `qad inspect` shows the candidates")
    if any(result.failures for result in results):
        raise typer.Exit(EXIT_SOME_FAILED)


def planned_stages(config: Config) -> list[str]:
    """Return the stages that a run needs, in order."""
    stages = ["extract", "build_grid", "score"]
    if not config.extract.source:
        stages.insert(0, "fetch")
    if not config.score.model:
        stages.insert(-1, "train")
    if config.crossmatch.catalogs:
        stages.append("crossmatch")
    return stages


def _one(run: Run, stage: str, config: Config) -> StageResult:
    from qad.api import STAGES

    verb = stage.replace("_", "-")
    result = run.work(verb, getattr(importlib.import_module(STAGES[stage]), stage), config)
    if not run.common.json:
        run.report_failures(result)
        if not run.common.quiet:
            print(summary(result), flush=True)
    return result


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = [
        "qad run --source release",
        "qad run --source /data/desi/dr1 --root survey --catalog milliquas.fits",
        "qad run --source other-release --root other --model survey/models/default",
    ]
    command(app, "run", examples=examples)(run_all)
