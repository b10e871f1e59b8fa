"""The layout of the Parquet tables: bytes, write rate, and the rate at which contiguous arrays come back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fetching.bench import table

from qad.storage.parquet import vectors

VECTORS = ("flux", "ivar")
LAYOUTS: dict[str, dict[str, Any]] = {
    "zstd 1, byte-stream-split": {"compression": "zstd", "compression_level": 1, "split": True},
    "zstd 3, byte-stream-split": {"compression": "zstd", "compression_level": 3, "split": True},
    "zstd -1, byte-stream-split": {"compression": "zstd", "compression_level": -1, "split": True},
    "zstd -5, byte-stream-split": {"compression": "zstd", "compression_level": -5, "split": True},
    "zstd 1, plain": {"compression": "zstd", "compression_level": 1, "split": False},
    "lz4, byte-stream-split": {"compression": "lz4", "split": True},
    "lz4, plain": {"compression": "lz4", "split": False},
    "none, plain": {"compression": "none", "split": False},
}


def main(directory: Path, spectra: list[Path], grid: list[Path], repeat: int) -> None:
    """Measure the layouts on tables that qad made."""
    for name, files in (("spectra", spectra), ("grid", grid)):
        joined = pa.concat_tables([pq.read_table(file, columns=list(VECTORS)) for file in files])
        n_rows = min(joined.num_rows, 4096)
        arrays = {column: vectors(joined, column)[:n_rows] for column in VECTORS}
        flat = pa.table({column: _column(values) for column, values in arrays.items()})
        for rows in (256, 1024, 4096):
            lines = [_line(directory / "layout.parquet", layout, flat, arrays, rows, repeat) for layout in LAYOUTS]
            head = ["", "bytes/spectrum", "share", "write MB/s", "read GB/s"]
            table(f"{name}: {n_rows} rows, row groups of {rows}", head, lines)


def _column(values: np.ndarray) -> pa.FixedSizeListArray:
    from qad.storage.parquet import vector_array

    return vector_array(values)


def _line(
    path: Path, name: str, flat: pa.Table, arrays: dict[str, np.ndarray], group_rows: int, repeat: int
) -> list[str]:
    layout = dict(LAYOUTS[name])
    split = layout.pop("split")
    n_bytes = sum(values.nbytes for values in arrays.values())
    write, read = [], []
    for _ in range(repeat):
        started = time.perf_counter()
        pq.write_table(
            flat,
            path,
            use_dictionary=False,
            write_statistics=False,
            row_group_size=group_rows,
            use_byte_stream_split=[f"{column}.list.element" for column in arrays] if split else False,
            **layout,
        )
        write.append(time.perf_counter() - started)
        started = time.perf_counter()
        back = pq.read_table(path, use_threads=False)
        found = {column: vectors(back, column) for column in arrays}
        read.append(time.perf_counter() - started)
        assert all(np.array_equal(found[column], values) for column, values in arrays.items())
    size = path.stat().st_size
    path.unlink()
    return [
        name,
        f"{size / flat.num_rows:,.0f}",
        f"{size / n_bytes:.3f}",
        f"{n_bytes / min(write) / 1e6:,.0f}",
        f"{n_bytes / min(read) / 1e9:.2f}",
    ]
