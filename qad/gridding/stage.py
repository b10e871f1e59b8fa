"""``qad build-grid``: the `spectra` tables become the `grid` table, its shards and ``grid.json``.

Two passes with flat memory: blocks of input files are resampled into temporary files (:mod:`qad.gridding.blocks`), then each
shard collects its rows from them (:mod:`qad.gridding.assemble`).  Rows are sorted within a shard, so neither the order nor
the grouping of the inputs leaves a trace.  ``grid.json`` is removed before the first shard changes and written after the
last: where it stands, all shards belong together.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qad.config import BuildGrid, Config
from qad.errors import InputError
from qad.gridding.assemble import Piece, Shard, write_shard
from qad.gridding.blocks import BlockSummary, build_block, plan_blocks
from qad.gridding.normalize import rule
from qad.gridding.wavelength import Grid, grid_of
from qad.results import Failure, RunOptions, StageResult
from qad.schema import GRID, SPECTRA
from qad.storage.atomic import remove_stale_parts, storage_errors, write_json
from qad.storage.parquet import read_metadata
from qad.storage.provenance import InputFile, Provenance, hash_document
from qad.storage.receipts import hashes_of, read_receipt, write_receipt
from qad.work.engine import run_units
from qad.workspace import Workspace

FORMAT = 1
"""Version of ``grid.json``."""
POOL_BYTES = 256 * 2**20
"""Inputs smaller than this are done in one process: starting workers would take longer than the work."""


@dataclass(frozen=True)
class Inputs:
    """The `spectra` files that the grid is made of, by name, and why others are not used."""

    files: tuple[Path, ...]
    hashes: tuple[str, ...]
    unusable: dict[str, str]

    def without(self, unusable: dict[str, str]) -> Inputs:
        """Return the inputs less some files, given with the reason."""
        kept = [(f, h) for f, h in zip(self.files, self.hashes, strict=True) if f.name not in unusable]
        return Inputs(tuple(f for f, _ in kept), tuple(h for _, h in kept), {**self.unusable, **unusable})

    @property
    def hash(self) -> str:
        """One hash of all names and contents."""
        return hash_document([[file.name, sha256] for file, sha256 in zip(self.files, self.hashes, strict=True)])

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The unusable files as failures."""
        return tuple(Failure(name, reason) for name, reason in sorted(self.unusable.items()))


def build_grid(config: Config, options: RunOptions) -> StageResult:
    """Resample and normalise every spectrum of the work directory.

    Units are shards.  A `spectra` file that cannot be used is a failure by its name, and the grid is made of the others.

    Raises
    ------
    InputError
        If there is no `spectra` table, or none that can be used.
    StorageError
        If the disk is full or not writable.
    """
    build = _Build(config.workspace, config.build_grid, options)
    inputs = build.find_inputs()
    done = set() if options.force else build.done_shards(inputs)
    if build.is_complete(inputs, done):
        return build.finished(inputs)
    if options.dry_run:
        return build.plan(inputs, done)
    return build.run(inputs, done)


def geometry(grid: Grid, settings: BuildGrid) -> dict[str, Any]:
    """Return what a model must agree with: the part of ``grid.json`` that ``geometry_hash`` is the hash of."""
    return {
        "frame": grid.frame,
        "loglam0": grid.loglam0,
        "dloglam": grid.dloglam,
        "n_rest": grid.n_rest,
        "n_obs": grid.n_obs,
        "normalisation": rule(),
        "deredden": settings.deredden,
    }


class _Build:
    """The grid of one work directory with one set of settings."""

    def __init__(self, workspace: Workspace, settings: BuildGrid, options: RunOptions) -> None:
        self.workspace, self.settings, self.options = workspace, settings, options
        self.grid = grid_of(settings)
        self.shards = [workspace.grid_file(shard, settings.shards) for shard in range(settings.shards)]
        self.receipt = workspace.receipt("build-grid", "inputs")

    def find_inputs(self) -> Inputs:
        """List and hash the `spectra` files; those whose bytes are known to be unusable are set aside."""
        folder = self.workspace.spectra
        files = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
        if not files:
            raise InputError(folder, "holds no spectra tables; run `qad extract` first")
        hashes = hashes_of(files, self.receipt, self.options.verify)
        known = {} if self.options.force else read_receipt(self.receipt).get("unusable", {})
        unusable = {f.name: known[h] for f, h in zip(files, hashes, strict=True) if h in known}
        inputs = Inputs(tuple(files), tuple(hashes), {}).without(unusable)
        return _some(inputs, folder)

    def done_shards(self, inputs: Inputs) -> set[Path]:
        """Return the shards made of these inputs with these settings."""
        expected = self._provenance(inputs).as_dict(GRID.tag)
        return {shard for shard in self.shards if shard.exists() and _is_made_so(shard, expected)}

    def is_complete(self, inputs: Inputs, done: set[Path]) -> bool:
        """Return whether all shards are done and ``grid.json`` stands for them."""
        document = read_receipt(self.workspace.grid_json)
        return len(done) == len(self.shards) and document.get("inputs_hash") == inputs.hash

    def finished(self, inputs: Inputs) -> StageResult:
        """Return the result of a run that had nothing to do."""
        counts = read_receipt(self.workspace.grid_json)["counts"]
        return StageResult(
            "build-grid",
            n_skipped=len(self.shards),
            failures=inputs.failures,
            paths=(self.workspace.grid_json, *self.shards),
            counts=self._flat(counts),
            dry_run=self.options.dry_run,
        )

    def plan(self, inputs: Inputs, done: set[Path]) -> StageResult:
        """Return what a run would do."""
        import pyarrow.parquet as pq

        n_rows = sum(pq.read_metadata(file).num_rows for file in inputs.files if _opens(file))
        n_todo = len(self.shards) - len(done)
        # flux and ivar are 8 bytes a pixel; zstd on split bytes leaves 0.78 of noisy floats
        size = round(0.78 * 8 * n_rows * self.grid.n_obs * n_todo / len(self.shards))
        return StageResult(
            "build-grid",
            n_done=n_todo,
            n_skipped=len(done),
            failures=inputs.failures,
            paths=(self.workspace.grid_json, *self.shards),
            counts={"in": n_rows, "files": len(inputs.files), "bytes": size},
            dry_run=True,
        )

    def run(self, inputs: Inputs, done: set[Path]) -> StageResult:
        """Do what is left to do."""
        folder = self.workspace.grid
        remove_stale_parts(folder)
        work = self._work_folder(inputs)
        jobs = self.options.jobs if sum(f.stat().st_size for f in inputs.files) >= POOL_BYTES else 1
        summaries, lost = self._make_blocks(inputs, work, jobs)
        if lost:
            return StageResult("build-grid", failures=(*inputs.failures, *lost))
        unusable = {name: why for summary in summaries.values() for name, why in summary.failures.items()}
        used = _some(inputs.without(unusable), self.workspace.spectra)
        self._remember(inputs, unusable)
        if unusable and not self.options.force:
            done = self.done_shards(used)
        written, failures = self._make_shards(used, summaries, done, jobs)
        counts: dict[str, Any] = {}
        if not failures:
            counts = self._finish(used, summaries, work)
        return StageResult(
            "build-grid",
            n_done=written,
            n_skipped=len(done),
            failures=(*used.failures, *failures),
            paths=(self.workspace.grid_json, *self.shards),
            counts=self._flat(counts),
        )

    def _work_folder(self, inputs: Inputs) -> Path:
        """Return the folder of the blocks of these inputs, without those of others."""
        parent = self.workspace.grid / ".work"
        key = hash_document([self.settings.model_dump(mode="json"), inputs.hash])[:16]
        with storage_errors(parent):
            (parent / key).mkdir(parents=True, exist_ok=True)
            for other in parent.iterdir():
                if self.options.force or other.name != key:
                    shutil.rmtree(other)
            (parent / key).mkdir(exist_ok=True)
        return parent / key

    def _make_blocks(
        self, inputs: Inputs, work: Path, jobs: int
    ) -> tuple[dict[Path, BlockSummary], tuple[Failure, ...]]:
        blocks = plan_blocks(list(inputs.files), work)
        self.options.progress.start("resample", len(inputs.files), "files")
        summaries, lost = {}, []
        for outcome in run_units(partial(build_block, settings=self.settings), blocks, jobs):
            if outcome.value is None:
                lost.append(Failure(str(outcome.unit), outcome.error or "failed"))
            else:
                summaries[outcome.unit.output] = outcome.value
            self.options.progress.advance(len(outcome.unit.files))
        return dict(sorted(summaries.items())), tuple(lost)

    def _remember(self, inputs: Inputs, unusable: dict[str, str]) -> None:
        """Keep the hashes of the inputs, and by hash which of them cannot be used and why."""
        by_name = dict(zip((f.name for f in inputs.files), inputs.hashes, strict=True))
        known = read_receipt(self.receipt).get("unusable", {})
        known |= {by_name[name]: why for name, why in unusable.items()}
        write_receipt(self.receipt, list(inputs.files), list(inputs.hashes), unusable=known)

    def _make_shards(
        self, inputs: Inputs, summaries: dict[Path, BlockSummary], done: set[Path], jobs: int
    ) -> tuple[int, tuple[Failure, ...]]:
        todo = [
            Shard(path, tuple(Piece(block, *s.offsets[i : i + 2]) for block, s in summaries.items()))
            for i, path in enumerate(self.shards)
            if path not in done
        ]
        if todo:
            self.workspace.grid_json.unlink(missing_ok=True)
        self.options.progress.start("write shards", len(todo), "shards")
        written, failures = 0, []
        work = partial(write_shard, n_obs=self.grid.n_obs, provenance=self._provenance(inputs))
        for outcome in run_units(work, todo, jobs):
            if outcome.value is None:
                failures.append(Failure(str(outcome.unit), outcome.error or "failed"))
            else:
                written += 1
            self.options.progress.advance()
        return written, tuple(failures)

    def _finish(self, inputs: Inputs, summaries: dict[Path, BlockSummary], work: Path) -> dict[str, Any]:
        """Write ``grid.json``, remove what is not of this grid, and return the counts."""
        for other in self.workspace.grid.glob("grid-*-of-*.parquet"):
            if other not in self.shards:
                other.unlink()
        counts = self._counts(summaries)
        described = geometry(self.grid, self.settings)
        document = {
            "format": FORMAT,
            **described,
            "r_v": self.settings.r_v,
            "geometry_hash": hash_document(described),
            "counts": counts,
            "n_spectra": counts["out"],
            "shards": len(self.shards),
            "inputs_hash": inputs.hash,
            **self._provenance(inputs).as_dict(GRID.tag),
        }
        write_json(self.workspace.grid_json, document)
        shutil.rmtree(work.parent)
        return counts

    def _counts(self, summaries: dict[Path, BlockSummary]) -> dict[str, Any]:
        import pyarrow.parquet as pq

        total: Counter[str] = sum((summary.counts for summary in summaries.values()), Counter())
        n_rows = sum(pq.read_metadata(shard).num_rows for shard in self.shards)
        dropped = {name.partition(".")[2]: n for name, n in sorted(total.items()) if name.startswith("dropped.")}
        if total["out"] > n_rows:
            dropped["duplicate"] = total["out"] - n_rows
        noted = {name: total[name] for name in ("no_ebv", "pixels_out_of_range")}
        return {"in": total["in"], "out": n_rows, "dropped": dropped, **noted}

    def _flat(self, counts: dict[str, Any]) -> dict[str, float]:
        flat: dict[str, float] = {}
        for name, value in counts.items():
            flat |= {f"{name}.{key}": n for key, n in value.items()} if isinstance(value, dict) else {name: value}
        if counts:
            flat["bytes"] = sum(shard.stat().st_size for shard in self.shards)
        return flat

    def _provenance(self, inputs: Inputs) -> Provenance:
        grid = self.grid
        first = read_metadata(inputs.files[0], SPECTRA) if _opens(inputs.files[0]) else {}
        wave: dict[str, Any] = {"start": grid.loglam0, "step": grid.dloglam, "n": grid.n_obs, "n_rest": grid.n_rest}
        wave |= {"unit": "log10(Angstrom)", "frame": grid.frame}
        return Provenance(
            "build-grid",
            self.settings.model_dump(mode="json"),
            [InputFile("spectra", inputs.hash)],
            str(first.get("qad.release", "")),
            str(first.get("qad.specprod", "")),
            wave,
        )


def _some(inputs: Inputs, folder: Path) -> Inputs:
    """Return the inputs, or raise InputError if there are none that can be used."""
    if inputs.files:
        return inputs
    name, reason = min(inputs.unusable.items())
    raise InputError(folder, f"no spectra table can be used; {name}: {reason}")


def _is_made_so(shard: Path, expected: dict[str, Any]) -> bool:
    try:
        found = read_metadata(shard, GRID)
    except InputError:
        return False
    return all(found.get(key) == expected[key] for key in ("qad.table", "qad.config", "qad.inputs"))


def _opens(file: Path) -> bool:
    try:
        read_metadata(file, SPECTRA)
    except InputError:
        return False
    return True
