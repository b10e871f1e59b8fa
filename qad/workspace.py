"""Where everything that qad writes lies below one root; nobody else joins these path strings.

::

    raw/<release>/healpix/<survey>/<program>/<healpix//100>/<healpix>/   what fetch keeps, under the release's names
    spectra/<survey>-<program>-<healpix>.parquet                         extract
    grid/grid-00017-of-00128.parquet  grid/grid.json  grid/cache/        build-grid
    models/<name>/                                                       train
    scores/<model>.parquet                                               score
    measures/<model>.parquet                                             measure
    matches/<model>-<catalog>.parquet                                    crossmatch
    evaluation/<model>.json  evaluation/<model>.png                      evaluate
    counterparts/<model>.parquet                                         crossmatch: all catalogues, a row a candidate
    answers/<catalog>/                                                   what services said to crossmatch
    inspect/labels.jsonl  inspect/gallery/                               inspect
    log/<time>-<stage>.jsonl  .qad/ (locks, receipts)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from qad.errors import ConfigError

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


def safe_name(name: str, what: str) -> str:
    """Return `name` if it can stand in a file name, else raise ConfigError: it becomes part of a path."""
    if not _SAFE_NAME.match(name) or ".." in name:
        raise ConfigError(f"{what} {name!r} is not a name: use letters, digits, '.', '_' and '-' (at most 100)")
    return name


@dataclass(frozen=True)
class Workspace:
    """The paths below `root`."""

    root: Path

    def raw(self, release: str) -> Path:
        """Return the folder that mirrors a release; ``healpix/`` lies in it."""
        return self.root / "raw" / safe_name(release, "release")

    @property
    def spectra(self) -> Path:
        """The folder of the `spectra` tables, one file per healpix."""
        return self.root / "spectra"

    def spectra_file(self, survey: str, program: str, healpix: int) -> Path:
        """Return the `spectra` table of one healpix."""
        return self.spectra / f"{survey}-{program}-{healpix}.parquet"

    @property
    def grid(self) -> Path:
        """The folder of the `grid` shards, ``grid.json`` and the flat cache."""
        return self.root / "grid"

    def grid_file(self, shard: int, n_shards: int) -> Path:
        """Return the file of one shard of the `grid` table, counted from 0."""
        return self.grid / f"grid-{shard:05d}-of-{n_shards:05d}.parquet"

    @property
    def grid_json(self) -> Path:
        """The description of the grid."""
        return self.grid / "grid.json"

    @property
    def models(self) -> Path:
        """The folder that holds one folder per model."""
        return self.root / "models"

    def model(self, name: str) -> Path:
        """Return the folder of a model."""
        return self.models / safe_name(name, "model name")

    @property
    def scores(self) -> Path:
        """The folder of the `scores` tables."""
        return self.root / "scores"

    def scores_file(self, name: str) -> Path:
        """Return the `scores` table of a model."""
        return self.scores / f"{safe_name(name, 'model name')}.parquet"

    def measures_file(self, name: str) -> Path:
        """Return the `measures` table of a model's candidates."""
        return self.root / "measures" / f"{safe_name(name, 'model name')}.parquet"

    @property
    def matches(self) -> Path:
        """The folder of the `matches` tables."""
        return self.root / "matches"

    def matches_file(self, name: str, catalog: str) -> Path:
        """Return the `matches` table of a model's candidates with a catalogue."""
        return self.matches / f"{safe_name(name, 'model name')}-{safe_name(catalog, 'catalogue name')}.parquet"

    def counterparts_file(self, name: str) -> Path:
        """Return the `counterparts` table of a model's candidates."""
        return self.root / "counterparts" / f"{safe_name(name, 'model name')}.parquet"

    def answers(self, catalog: str) -> Path:
        """Return the folder of what a service said about a catalogue."""
        return self.root / "answers" / safe_name(catalog, "catalogue name")

    @property
    def evaluation(self) -> Path:
        """The folder of the evaluations."""
        return self.root / "evaluation"

    def evaluation_file(self, name: str) -> Path:
        """Return the figures of a model's evaluation; the plot lies beside it."""
        return self.evaluation / f"{safe_name(name, 'model name')}.json"

    @property
    def labels(self) -> Path:
        """The labels that people gave, one JSON document a line."""
        return self.root / "inspect" / "labels.jsonl"

    @property
    def gallery(self) -> Path:
        """The default folder of the HTML gallery."""
        return self.root / "inspect" / "gallery"

    @property
    def log(self) -> Path:
        """The folder of the logs, one file per run of a stage."""
        return self.root / "log"

    @property
    def locks(self) -> Path:
        """The folder of the lock files."""
        return self.root / ".qad" / "locks"

    def receipt(self, stage: str, unit: str) -> Path:
        """Return the receipt that says from which inputs a unit was made."""
        return self.root / ".qad" / "receipts" / stage / f"{unit}.json"
