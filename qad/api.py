"""The public Python functions: what the subcommands do, with the configuration's keys as arguments.

Each takes the keys of its section of ``qad.toml`` (``qad.extract(z_min=1.5)``), and beside them `root`, `config` (a path),
`force`, `dry_run`, `verify`, `jobs`, `progress`, `scheduler` and `shard` as the command's options.  Each prints nothing and returns a frozen
:class:`~qad.results.StageResult`, or a subclass with more to tell.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from qad.config import load_config
from qad.errors import ConfigError
from qad.index import INDEXED_STAGES
from qad.parallel import parse_share
from qad.results import RunOptions, StageResult

STAGES = {
    "fetch": "qad.fetching.stage",
    "extract": "qad.extraction.stage",
    "build_grid": "qad.gridding.stage",
    "train": "qad.training.stage",
    "score": "qad.scoring.stage",
    "measure": "qad.analysis.stage",
    "crossmatch": "qad.matching.stage",
    "inspect": "qad.inspection.stage",
    "evaluate": "qad.evaluation.stage",
    "publish": "qad.publishing.stage",
}
"""Section and function name of each stage, and the module that holds the function."""
SHARED_STAGES = ("fetch", "extract", "build_grid", "score", "crossmatch")
"""Those that do a share of their units."""


def fetch(**options: Any) -> StageResult:
    """Fetch coadd and redrock files of a release; the keys of ``[fetch]``."""
    return _call("fetch", options)


def extract(**options: Any) -> StageResult:
    """Extract quasar spectra into `spectra` tables; the keys of ``[extract]``."""
    return _call("extract", options)


def build_grid(**options: Any) -> StageResult:
    """Resample and normalise spectra into the `grid` table; the keys of ``[build_grid]``."""
    return _call("build_grid", options)


def train(**options: Any) -> StageResult:
    """Train a model on the grid; the keys of ``[train]``."""
    return _call("train", options)


def score(**options: Any) -> StageResult:
    """Score and rank every spectrum of the grid; the keys of ``[score]``."""
    return _call("score", options)


def measure(**options: Any) -> StageResult:
    """Measure lines, continuum and absorption of the candidates; the keys of ``[measure]``."""
    return _call("measure", options)


def crossmatch(**options: Any) -> StageResult:
    """Match candidates with catalogues by position; the keys of ``[crossmatch]``."""
    return _call("crossmatch", options)


def inspect(**options: Any) -> StageResult:
    """Return the top candidates, or everything known of some; the keys of ``[inspect]``."""
    return _call("inspect", options)


def evaluate(**options: Any) -> StageResult:
    """Measure how well the scores find planted anomalies; the keys of ``[evaluate]``."""
    return _call("evaluate", options)


def publish(directory: str | Path, **options: Any) -> StageResult:
    """Write a catalogue for publication into a folder; the keys of ``[publish]``."""
    return _call("publish", options, Path(directory))


def simulate(directory: str | Path, **options: Any) -> StageResult:
    """Write a simulated release; see :func:`qad.simulation.release.simulate`."""
    from qad.simulation.release import simulate as write

    return write(Path(directory), **options)


def _call(verb: str, options: dict[str, Any], *arguments: Any) -> StageResult:
    from qad.index.stage import sync
    from qad.storage.lock import stage_lock

    root, scheduler = options.pop("root", None), options.pop("scheduler", None)
    share = parse_share(options.pop("shard", None))
    run = RunOptions(**{f.name: options.pop(f.name) for f in fields(RunOptions) if f.name in options})
    overrides = {f"{verb}.{key}": value for key, value in options.items()}
    for name, value in overrides.items():
        if isinstance(value, Path):
            overrides[name] = str(value)
    config_file = overrides.pop(f"{verb}.config", None)
    given = {"paths.root": None if root is None else str(root), "cluster.scheduler": scheduler}
    config = load_config(config_file, {**given, **overrides})
    if share is not None and verb not in SHARED_STAGES:
        raise ConfigError(f"{verb} cannot be done in shards; those that can: {', '.join(SHARED_STAGES)}")
    run = replace(run, share=share, cluster=config.cluster_for(share, scheduler is not None))
    started = time.monotonic()
    function: Callable[..., StageResult] = getattr(importlib.import_module(STAGES[verb]), verb)
    if verb == "inspect" or run.dry_run:
        result = function(config, run, *arguments)
    else:
        locked = (
            nullcontext()
            if config.is_locked_by_its_stage(verb)
            else stage_lock(config.workspace.locks, verb.replace("_", "-"), share)
        )
        with locked:
            result = function(config, run, *arguments)
        if verb in INDEXED_STAGES:
            sync(config, run)
    return replace(result, seconds=time.monotonic() - started)
