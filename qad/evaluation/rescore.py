"""Planted spectra through `qad build-grid` and `qad score` themselves, by the user's model, calibration and settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.config import Config
from qad.errors import InputError
from qad.gridding.stage import build_grid
from qad.results import RunOptions, StageResult
from qad.schema import GRID, SCORES
from qad.scoring.stage import calibration_path, score
from qad.settings import BuildGrid, Paths, Score
from qad.storage.flatcache import find_shards
from qad.storage.parquet import read_frame, read_metadata
from qad.storage.provenance import hash_file
from qad.storage.receipts import read_receipt

if TYPE_CHECKING:
    import polars as pl

SHARDS = 4


@dataclass(frozen=True)
class Scorer:
    """How the user's spectra were gridded and scored, so that others can be scored alike.

    Attributes
    ----------
    config : Config
    name : str
        Of the scores.
    model : Path
        Folder of the model.
    calibration : Path
    grid_settings, score_settings : BuildGrid, Score
        As they were then, whatever the configuration says now.
    """

    config: Config
    name: str
    model: Path
    calibration: Path
    grid_settings: BuildGrid
    score_settings: Score

    @property
    def is_own_model(self) -> bool:
        """Whether the model was trained on the grid of this work directory."""
        return self.model.resolve().parent == self.config.workspace.models.resolve()

    def score(self, root: Path, options: RunOptions) -> tuple[pl.DataFrame, tuple[StageResult, StageResult]]:
        """Grid and score the `spectra` tables below `root`, and return the scalar columns of their scores."""
        inner = replace(
            self.config,
            paths=Paths(root=str(root)),
            build_grid=self.grid_settings.model_copy(update={"shards": SHARDS}),
            score=self.score_settings,
        )
        quiet = replace(options, force=False, share=None, cluster=None)  # too little work to send away
        results = build_grid(inner, quiet), score(inner, quiet)
        path = inner.workspace.scores_file(self.name)
        if any(result.failures for result in results) or not path.is_file():
            reasons = [failure.reason for result in results for failure in result.failures]
            raise InputError(root, f"the planted spectra cannot be scored: {'; '.join(reasons)}")
        columns = ("targetid", "z", "snr", "score", "p_value", "artefact")
        return read_frame(path, SCORES, columns), results


def find_scorer(config: Config, name: str) -> Scorer:
    """Return how the scores of this name were made.

    Raises
    ------
    InputError
        If there are no scores, or the model, calibration or grid that they were made with is gone.
    """
    workspace = config.workspace
    scores = workspace.scores_file(name)
    if not scores.is_file():
        raise InputError(scores, "no scores to evaluate; run `qad score` first, or name others with --name")
    calibration = calibration_path(scores)
    if not calibration.is_file():
        raise InputError(calibration, "the calibration of these scores is missing; run `qad score` again")
    metadata = read_metadata(scores, SCORES)
    model = _find_model(config, name, {item["name"]: item["sha256"] for item in metadata.get("qad.inputs", [])})
    recorded: dict[str, Any] = metadata.get("qad.config", {})
    scored_with = {**recorded, "name": name, "model": str(model.absolute()), "calibration": str(calibration)}
    grid_made_with = read_metadata(find_shards(workspace)[0], GRID).get("qad.config", {})
    return Scorer(
        config,
        name,
        model.absolute(),
        calibration,
        BuildGrid.model_validate(grid_made_with),
        config.score.model_copy(update=scored_with),
    )


def _find_model(config: Config, name: str, inputs: dict[str, str]) -> Path:
    """Return the folder of the model that made the scores, by the hash that they record.

    Its own place comes first: a work directory may have been copied or moved.
    """
    workspace = config.workspace
    known = read_receipt(workspace.receipt("score", name)).get("model")
    named = [str(known)] if known else []
    named += [config.score.model] if config.score.model else []
    places = [workspace.model(name), *(Path(text).expanduser() for text in named)]
    wanted = {sha256 for file, sha256 in inputs.items() if file.endswith("/model.json")}
    for place in places:
        if (place / "model.json").is_file() and hash_file(place / "model.json") in wanted:
            return place
    scores = workspace.scores_file(name)
    raise InputError(
        places[-1], f"the model that made {scores} is not here, or was trained again; run `qad score` again"
    )
