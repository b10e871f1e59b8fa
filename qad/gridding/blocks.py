"""First pass: a block of `spectra` files becomes one temporary file of grid rows, sorted by shard.

Every shard needs rows of every healpix, and every healpix has rows for most shards.  Reading each input once per shard
would cost 128 times the reading; holding all rows would need tens of gigabytes.  So each input is read once, and the
windows wait on disk: a block is one uncompressed Arrow file, of which a shard later maps one contiguous piece.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.errors import InputError
from qad.gridding.shards import shard_of
from qad.gridding.windows import SCALARS, Rows, WindowMaker
from qad.schema import GRID, SPECTRA
from qad.settings import BuildGrid
from qad.storage.atomic import atomic_path
from qad.storage.parquet import make_table, read_table, vectors

if TYPE_CHECKING:
    import pyarrow as pa

READ_ROWS = 256
"""Rows decoded at a time: 16 MB of vectors."""
BLOCK_BYTES = 64 * 2**20
"""Size of the input files of a block: about 1,400 spectra, 25 MB of windows, of which a shard of 128 maps some 11 rows."""


@dataclass(frozen=True)
class Block:
    """Input files that one worker turns into the temporary file `output`."""

    files: tuple[Path, ...]
    output: Path

    def __str__(self) -> str:
        names = self.files[0].name if len(self.files) == 1 else f"{self.files[0].name} … {self.files[-1].name}"
        return f"{self.output.stem} ({names})"


@dataclass(frozen=True)
class BlockSummary:
    """What is in a block: where each shard's rows begin, the counts, and the files that could not be used."""

    offsets: tuple[int, ...]
    counts: Counter[str]
    failures: dict[str, str]


def plan_blocks(files: list[Path], folder: Path) -> list[Block]:
    """Group files, in their order, into blocks of about ``BLOCK_BYTES``."""
    groups: list[list[Path]] = []
    size = 0
    for file in files:
        if not groups or size >= BLOCK_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.stat().st_size
    return [Block(tuple(group), folder / f"block-{i:06d}.arrow") for i, group in enumerate(groups)]


def build_block(block: Block, settings: BuildGrid) -> BlockSummary:
    """Write a block, or find it written, and return what is in it; a file that cannot be used is named, not raised."""
    if block.output.exists():
        return read_summary(block.output)
    maker = WindowMaker(settings)
    counts: Counter[str] = Counter()
    parts: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    for file in block.files:
        try:
            windows = [maker.make(rows) for rows in read_rows(file)]
        except InputError as error:
            failures[file.name] = str(error)
            continue
        for part in windows:
            counts += part.counts
            parts.append(part.columns)
    columns = _joined(parts or [maker.make(_no_rows()).columns])
    order, offsets = _by_shard(columns["targetid"], settings.shards)
    summary = BlockSummary(tuple(offsets), counts, failures)
    _write(block.output, {name: columns.pop(name)[order] for name in list(columns)}, summary)
    return summary


def read_rows(file: Path) -> Iterator[Rows]:
    """Yield the rows of a `spectra` file, some at a time.

    Raises
    ------
    InputError
        If the file is damaged, of another table or a newer version, or a column lacks or has another type or unit.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    read_table(file, SPECTRA, [])  # checks every column
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            for batch in parquet.iter_batches(READ_ROWS, columns=[*SCALARS, "flux", "ivar"]):
                yield _rows(pa.Table.from_batches([batch]))
    except (pa.ArrowException, OSError) as error:
        raise InputError(file, f"damaged: {str(error).splitlines()[0]}; run `qad extract` again") from None


def _rows(table: pa.Table) -> Rows:
    scalars = {name: table.column(name).to_numpy() for name in SCALARS}
    return Rows(scalars, vectors(table, "flux"), vectors(table, "ivar"))


def _no_rows() -> Rows:
    return _rows(SPECTRA.arrow().empty_table())


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the columns of `parts`, letting go of each part's column as it is copied."""
    return {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}


def _by_shard(targetid: np.ndarray, n_shards: int) -> tuple[np.ndarray, list[int]]:
    """Return the order of rows by shard, and where each shard begins and the last ends."""
    shard = shard_of(targetid, n_shards)
    order = np.argsort(shard, kind="stable")
    offsets = np.searchsorted(shard[order], np.arange(n_shards + 1))
    return order, [int(offset) for offset in offsets]


def _write(path: Path, columns: dict[str, Any], summary: BlockSummary) -> None:
    import pyarrow as pa

    table = make_table(GRID, columns, n_obs=columns["flux"].shape[1])
    note = {"offsets": summary.offsets, "counts": summary.counts, "failures": summary.failures}
    table = table.replace_schema_metadata({"qad.block": json.dumps(note)})
    with (
        atomic_path(path) as partial,
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as out,
    ):
        out.write_table(table)


def read_summary(path: Path) -> BlockSummary:
    """Return what a block says of itself."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        note = json.loads(reader.schema.metadata[b"qad.block"])
    return BlockSummary(tuple(note["offsets"]), Counter(note["counts"]), note["failures"])


def shard_rows(path: Path, first: int, end: int) -> pa.Table:
    """Return rows of a block, mapped from the file, not read."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        return reader.read_all().slice(first, end - first)
