"""``qad build-grid``: the `spectra` tables become the `grid` table, its shards and ``grid.json``.

Two passes with flat memory: blocks of input files are resampled into temporary files (:mod:`qad.gridding.blocks`), then each
shard collects its rows from them (:mod:`qad.gridding.assemble`).  Rows are sorted within a shard, so neither the order nor
the grouping of the inputs leaves a trace.  ``grid.json`` is removed before the first shard changes and written after the
last: where it stands, all shards belong together.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import qad
from qad.config import Config
from qad.gridding.assemble import Piece, Shard, write_shard
from qad.gridding.blocks import Block, BlockSummary, build_block, plan_blocks
from qad.gridding.describe import counts_of, geometry_hash, grid_document, provenance_of
from qad.gridding.inputs import Inputs, find_inputs, known_inputs, list_files, remember
from qad.gridding.wavelength import grid_of
from qad.parallel import Share
from qad.results import Failure, RunOptions, StageResult
from qad.schema import GRID
from qad.storage.atomic import remove_stale_parts, storage_errors, write_json
from qad.storage.parquet import was_made_so
from qad.storage.provenance import hash_document
from qad.storage.receipts import read_receipt, stat_inputs
from qad.work.engine import run_units

POOL_BYTES = 256 * 2**20
"""Inputs smaller than this are done in one process: starting workers would take longer than the work."""
WORK_FOLDER = ".work"
"""Folder of the temporary blocks, below ``grid/``."""


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
    build = _Build(config, options)
    if options.share is not None:
        return build.run_share(options.share)
    inputs = find_inputs(config.workspace, options)
    done = set() if options.force else build.done_shards(inputs)
    if build.is_complete(inputs, done):
        return build.finished(inputs)
    if options.dry_run:
        return build.plan(inputs, done)
    return build.run(inputs, done)


class _Build:
    """The grid of one work directory with one set of settings."""

    def __init__(self, config: Config, options: RunOptions) -> None:
        self.workspace, self.settings, self.options = config.workspace, config.build_grid, options
        n_shards = self.settings.shards
        self.shards = [self.workspace.grid_file(shard, n_shards) for shard in range(n_shards)]

    def done_shards(self, inputs: Inputs) -> set[Path]:
        """Return the shards made of these inputs with these settings."""
        provenance = provenance_of(self.settings, inputs)
        return {shard for shard in self.shards if was_made_so(shard, GRID, provenance, "qad.wave")}

    def is_complete(self, inputs: Inputs, done: set[Path]) -> bool:
        """Return whether all shards are done and ``grid.json`` stands for them."""
        document = read_receipt(self.workspace.grid_json)
        return len(done) == len(self.shards) and document.get("inputs_hash") == inputs.hash

    def finished(self, inputs: Inputs) -> StageResult:
        """Return the result of a run that had nothing to do."""
        if not self.options.dry_run:
            remember(self.workspace, inputs, {})
        counts = read_receipt(self.workspace.grid_json)["counts"]
        return self._result(inputs, n_skipped=len(self.shards), counts=self._flat(counts))

    def plan(self, inputs: Inputs, done: set[Path]) -> StageResult:
        """Return what a run would do."""
        n_rows = sum(_n_rows(file) for file in inputs.files)
        n_todo = len(self.shards) - len(done)
        # flux and ivar are 8 bytes a pixel; zstd on split bytes leaves 0.78 of noisy floats
        size = round(0.78 * 8 * n_rows * grid_of(self.settings).n_obs * n_todo / len(self.shards))
        counts = {"in": n_rows, "files": len(inputs.files), "bytes": size}
        return self._result(inputs, n_done=n_todo, n_skipped=len(done), counts=counts)

    def run(self, inputs: Inputs, done: set[Path]) -> StageResult:
        """Do what is left to do."""
        remove_stale_parts(self.workspace.grid)
        jobs = self.options.jobs if inputs.n_bytes >= POOL_BYTES else 1
        summaries, lost = self._make_blocks(plan_blocks(inputs.listed, self._work_folder(inputs.listed)), jobs)
        if lost:
            return self._result(inputs, failures=lost)
        unusable = _unusable(summaries, inputs.unusable)
        used = inputs.without(unusable)
        remember(self.workspace, inputs, unusable, self.options.force)
        if unusable and not self.options.force:
            done = self.done_shards(used)
        n_written, failures = self._make_shards(used, summaries, done, jobs)
        counts = {} if failures else self._finish(used, summaries)
        return self._result(used, n_done=n_written, n_skipped=len(done), failures=failures, counts=self._flat(counts))

    def run_share(self, share: Share) -> StageResult:
        """Do a share of the blocks; a run without a share finds them, does what is missing, and writes the shards."""
        known = None if self.options.force or self.options.verify else known_inputs(self.workspace)
        is_complete = known is not None and self.is_complete(known, self.done_shards(known))
        files = list_files(self.workspace)
        work = self._work_name(files) if self.options.dry_run or is_complete else self._work_folder(files)
        blocks = share.of(plan_blocks(files, work))
        if (self.options.force or self.options.verify) and not self.options.dry_run:
            for block in blocks:
                block.output.unlink(missing_ok=True)
        done = [block for block in blocks if is_complete or block.output.exists()]
        result = StageResult("build-grid", len(blocks) - len(done), len(done), dry_run=self.options.dry_run)
        if self.options.dry_run or is_complete:
            return result
        n_bytes = sum(file.stat().st_size for block in blocks for file in block.files)
        summaries, lost = self._make_blocks(blocks, self.options.jobs if n_bytes >= POOL_BYTES else 1)
        unusable = tuple(Failure(name, why) for name, why in sorted(_unusable(summaries, {}).items()))
        self.options.progress.note("`qad build-grid` without --shard writes the grid when all shards are done")
        total: Counter[str] = sum((summary.counts for summary in summaries.values()), Counter())
        n_done = len(blocks) - len(done) - len(lost)
        return replace(result, n_done=n_done, failures=(*unusable, *lost), paths=tuple(summaries), counts=dict(total))

    def _work_name(self, files: list[Path]) -> Path:
        """Return the folder of the blocks of these files: by size and time, not by content, which a share does not know."""
        states = [
            [file.name, item["size"], item["mtime_ns"]] for file, item in zip(files, stat_inputs(files), strict=True)
        ]
        made_of = [self.settings.model_dump(mode="json"), geometry_hash(self.settings), qad.__version__, states]
        return self.workspace.grid / WORK_FOLDER / hash_document(made_of)[:16]

    def _work_folder(self, files: list[Path]) -> Path:
        """Make the folder of the blocks of these files, and remove those of others, which shards may be at work in."""
        folder = self._work_name(files)
        renew = self.options.force or self.options.verify
        with storage_errors(folder.parent):
            folder.mkdir(parents=True, exist_ok=True)
            for other in folder.parent.iterdir() if self.options.share is None else ():
                if renew or other != folder:
                    shutil.rmtree(other)
            folder.mkdir(exist_ok=True)
        return folder

    def _make_blocks(self, blocks: Sequence[Block], jobs: int) -> tuple[dict[Path, BlockSummary], tuple[Failure, ...]]:
        """Return the blocks by file, and those whose worker died: without them no shard can be written."""
        self.options.progress.start("resample", sum(len(block.files) for block in blocks), "files")
        summaries, lost = {}, []
        work = partial(build_block, settings=self.settings)
        for outcome in run_units(work, blocks, jobs, self.options.cluster, lambda block: block.files):
            if outcome.value is None:
                lost.append(Failure(str(outcome.unit), f"{outcome.error}; run again, finished blocks are kept"))
            else:
                summaries[outcome.unit.output] = outcome.value
            self.options.progress.advance(len(outcome.unit.files))
        return dict(sorted(summaries.items())), tuple(lost)

    def _make_shards(
        self, inputs: Inputs, summaries: dict[Path, BlockSummary], done: set[Path], jobs: int
    ) -> tuple[int, tuple[Failure, ...]]:
        """Write the shards that are not done, and return how many, and which failed."""
        todo = [
            Shard(path, tuple(Piece(block, *summary.offsets[i : i + 2]) for block, summary in summaries.items()))
            for i, path in enumerate(self.shards)
            if path not in done
        ]
        if todo:
            self.workspace.grid_json.unlink(missing_ok=True)
        self.options.progress.start("write shards", len(todo), "shards")
        n_written, failures = 0, []
        n_obs, provenance = grid_of(self.settings).n_obs, provenance_of(self.settings, inputs)
        for outcome in run_units(
            partial(write_shard, n_obs=n_obs, provenance=provenance), todo, jobs, self.options.cluster
        ):
            if outcome.value is None:
                failures.append(Failure(str(outcome.unit), outcome.error or "failed"))
            else:
                n_written += 1
            self.options.progress.advance()
        return n_written, tuple(failures)

    def _finish(self, inputs: Inputs, summaries: dict[Path, BlockSummary]) -> dict[str, Any]:
        """Remove what is not of this grid, write ``grid.json``, and return the counts."""
        for other in set(self.workspace.grid.glob("grid-*-of-*.parquet")) - set(self.shards):
            other.unlink()
        total: Counter[str] = sum((summary.counts for summary in summaries.values()), Counter())
        counts = counts_of(total, sum(_n_rows(shard) for shard in self.shards))
        write_json(self.workspace.grid_json, grid_document(self.settings, inputs, counts))
        shutil.rmtree(self.workspace.grid / WORK_FOLDER)
        return counts

    def _flat(self, counts: dict[str, Any]) -> dict[str, float]:
        """Return the counts of ``grid.json`` by flat names, and the bytes of the shards."""
        flat: dict[str, float] = {}
        for name, value in counts.items():
            flat |= {f"{name}.{key}": n for key, n in value.items()} if isinstance(value, dict) else {name: value}
        return flat | {"bytes": sum(shard.stat().st_size for shard in self.shards)} if counts else flat

    def _result(self, inputs: Inputs, failures: tuple[Failure, ...] = (), **more: Any) -> StageResult:
        paths = (self.workspace.grid_json, *self.shards)
        failures = (*inputs.failures, *failures)
        return StageResult("build-grid", failures=failures, paths=paths, dry_run=self.options.dry_run, **more)


def _unusable(summaries: dict[Path, BlockSummary], known: Mapping[str, str]) -> dict[str, str]:
    """Return the files that blocks could not use, with the reason, less those that are known."""
    found = {name: why for summary in summaries.values() for name, why in summary.failures.items()}
    return {name: why for name, why in found.items() if name not in known}


def _n_rows(file: Path) -> int:
    """Return the rows of a table file, 0 where it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError):
        return 0
