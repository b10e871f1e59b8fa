"""Second pass: the rows of one shard, from all blocks, become one sorted file of the `grid` table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.gridding.blocks import shard_rows
from qad.schema import GRID, SPECTRUM_KEY
from qad.storage.parquet import make_table, vectors, write_table
from qad.storage.provenance import Provenance

if TYPE_CHECKING:
    import pyarrow as pa

VECTORS = ("flux", "ivar")


@dataclass(frozen=True)
class Piece:
    """Rows `first` to `end` of a block."""

    block: Path
    first: int
    end: int


@dataclass(frozen=True)
class Shard:
    """A file of the `grid` table, and where its rows lie."""

    output: Path
    pieces: tuple[Piece, ...]

    def __str__(self) -> str:
        return self.output.name


def write_shard(shard: Shard, n_obs: int, provenance: Provenance) -> int:
    """Write a shard and return its rows; of rows with the same key the first, by file, is kept."""
    tables = [shard_rows(piece.block, piece.first, piece.end) for piece in shard.pieces if piece.end > piece.first]
    columns = _scalars(tables)
    order = _order(columns)
    columns = {
        name: [values[i] for i in order] if isinstance(values, list) else values[order]
        for name, values in columns.items()
    }
    for name in VECTORS:
        columns[name] = _gather(tables, name, order, n_obs)
    write_table(shard.output, make_table(GRID, columns, n_obs=n_obs), GRID, provenance)
    return len(order)


def _scalars(tables: list[pa.Table]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for column in GRID.columns:
        if column.is_vector:
            continue
        parts = [table.column(column.name) for table in tables]
        if column.dtype == "dictionary":
            columns[column.name] = [text for part in parts for text in part.to_pylist()]
        else:
            empty = np.empty(0, column.dtype)
            columns[column.name] = np.concatenate([empty, *(part.to_numpy() for part in parts)])
    return columns


def _order(columns: dict[str, Any]) -> np.ndarray:
    """Return the rows in the order of the key, the first of each key only."""
    keys = [np.asarray(columns[name]) for name in SPECTRUM_KEY]
    order = np.lexsort(keys[::-1])  # stable: of equal keys the first by file comes first
    if len(order) == 0:
        return order
    repeated = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    return order[np.concatenate([[True], ~repeated])]


def _gather(tables: list[pa.Table], name: str, order: np.ndarray, n_obs: int) -> np.ndarray:
    """Return a vector column in the order asked for, copied once from the mapped blocks."""
    n_rows = sum(table.num_rows for table in tables)
    place = np.full(n_rows, -1)
    place[order] = np.arange(len(order))
    values = np.empty((len(order), n_obs), np.float32)
    begin = 0
    for table in tables:
        target = place[begin : begin + table.num_rows]
        begin += table.num_rows
        values[target[target >= 0]] = vectors(table, name)[target >= 0]
    return values
