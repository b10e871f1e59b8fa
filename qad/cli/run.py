"""``qad run``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qad.cli.options import SCHEDULER, STAGE, command
from qad.cli.runtime import Run, summary
from qad.errors import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from qad.config import Config
    from qad.results import StageResult

SIMULATED = "simulated"
SIMULATED_QUASARS = 2000
SIMULATION: dict[str, Any] = {
    "quasars": SIMULATED_QUASARS,
    "healpix": 8,
    "anomaly_rate": 0.0,
    "artefact_rate": 0.0,
    "contaminants": 0.0,
    "resolution": False,
    "seed": 1,
}
"""The normal quasars that stand in for a sample too small to train on."""


def run_all(
    run: Run,
    source: Annotated[
        str | None,
        typer.Option(metavar="DIR|URL", help="Local release tree to read in place, or an s3:// URL to fetch from."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the model and its scores.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|simulated",
            help="Score with a model trained elsewhere, or on simulated quasars, instead of training one.",
        ),
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
    place and needs no fetch; crossmatch runs when a catalogue is given or configured. A sample too small to train on
    is scored by a model of simulated quasars, made below simulated/ in the work directory.
    """
    remote = source is not None and source.startswith("s3://")
    flags = {
        "fetch.source": source if remote else None,
        "extract.source": None if remote else source,
        "fetch.limit": limit,
        "extract.limit": limit,
        "train.arch": arch,
        "score.model": None if model == SIMULATED else model,
        "crossmatch.catalogs": catalog,
        **{f"{section}.name": name for section in ("train", "score", "crossmatch", "inspect")},
    }
    results = _all(run, flags, model == SIMULATED)
    config = run.load(flags)
    if not run.common.dry_run:
        run.sync_index(config)
    if run.common.json:
        run.print_json({"stages": [result.as_json() for result in results]})
    elif run.common.dry_run and not run.common.quiet:
        print("the stages after it depend on what it writes" if results[-1].n_done else "nothing to do")
    elif not run.common.quiet:
        print(f"results below {config.root}; `qad inspect` shows the candidates")
    if any(result.failures for result in results):
        raise typer.Exit(EXIT_SOME_FAILED)


def _all(run: Run, flags: dict[str, Any], from_simulated: bool) -> list[StageResult]:
    """Run the stages; a dry run ends at the first that has something to do, since the others depend on it."""
    config = run.load(flags)
    results: list[StageResult] = []
    for stage in planned_stages(config):
        if stage == "train" and (from_simulated or _is_too_small(config)):
            if run.common.dry_run:
                break
            model, made = _train_on_simulated(run, config, flags)
            results += made
            config = run.load({**flags, "score.model": str(model)})
            continue
        results.append(_one(run, stage, config))
        if run.common.dry_run and results[-1].n_done:
            break
    return results


def _is_too_small(config: Config) -> bool:
    from qad.storage.flatcache import read_grid_json
    from qad.training.split import needed_spectra

    n_spectra = read_grid_json(config.workspace.grid_json).get("n_spectra", 0)
    return bool(n_spectra < needed_spectra(config.train.n_latent))


def _train_on_simulated(run: Run, config: Config, flags: dict[str, Any]) -> tuple[Path, list[StageResult]]:
    """Make a model and its calibration from simulated normal quasars, with the settings of this run."""
    from qad.simulation.release import simulate

    place = config.root / SIMULATED
    with run.progress() as progress:
        progress.note(f"training on {SIMULATED_QUASARS:,} simulated quasars; p-values only rank real ones")
        simulated = simulate(place / "release", **SIMULATION, jobs=run.common.jobs, progress=progress)
    everything: dict[str, Any] = {f"extract.{key}": [] for key in ("survey", "program", "healpix")} | {
        "extract.limit": 0
    }
    ours = {"paths.root": str(place / "work"), "extract.source": str(place / "release")}
    inner = run.load({**flags, **everything, **ours})
    results = [_one(run, stage, inner) for stage in ("extract", "build_grid", "train", "score")]
    return inner.workspace.model(inner.train.name), [simulated, *results]


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
        "qad run --source few --root few-work --model survey/models/default",
        "qad run --source few --root few-work --model simulated",
        "qad run --source /data/desi/dr1 --root survey --scheduler tcp://head:8786",
    ]
    command(app, "run", examples=examples, shared={**STAGE, "scheduler": SCHEDULER})(run_all)
