"""What a work directory holds: counted from the files themselves, no list of finished work is believed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qad.workspace import Workspace


@dataclass(frozen=True)
class StageStatus:
    """The files of a stage: their number, rows and bytes, and those that cannot be read."""

    stage: str
    n_files: int
    n_rows: int | None
    n_bytes: int
    unreadable: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the entry that ``qad status --json`` prints."""
        return asdict(self)


def workspace_status(workspace: Workspace) -> list[StageStatus]:
    """Return the status of every stage, in the order of the data."""
    return [
        _files("fetch", (path for path in _below(workspace.root / "raw", "**/*.fits"))),
        _tables("extract", _below(workspace.spectra, "*.parquet")),
        _tables("build-grid", _below(workspace.grid, "grid-*.parquet")),
        _models("train", workspace.models),
        _tables("score", _below(workspace.scores, "*.parquet"), named=True),
        _tables("measure", _below(workspace.root / "measures", "*.parquet"), named=True),
        _tables("crossmatch", _below(workspace.matches, "*.parquet"), named=True),
        _files("inspect", _below(workspace.root / "inspect", "*")),
        _files("evaluate", _below(workspace.evaluation, "*.json")),
    ]


def _below(folder: Path, pattern: str) -> list[Path]:
    found = folder.glob(pattern) if folder.is_dir() else iter(())
    return sorted(path for path in found if not path.name.startswith("."))


def _files(stage: str, paths: Iterable[Path]) -> StageStatus:
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    return StageStatus(stage, len(sizes), None, sum(sizes))


def _tables(stage: str, paths: list[Path], named: bool = False) -> StageStatus:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, unreadable = 0, []
    for path in paths:
        try:
            rows += pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError):
            unreadable.append(str(path))
    names = tuple(path.stem for path in paths) if named else ()
    return StageStatus(stage, len(paths), rows, sum(path.stat().st_size for path in paths), tuple(unreadable), names)


def _models(stage: str, folder: Path) -> StageStatus:
    finished = [path for path in _below(folder, "*") if (path / "model.json").is_file()]
    size = sum(item.stat().st_size for path in finished for item in path.rglob("*") if item.is_file())
    return StageStatus(stage, len(finished), None, size, names=tuple(path.name for path in finished))
