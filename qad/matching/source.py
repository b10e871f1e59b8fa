"""What the readers of the catalogue formats have in common."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from qad.errors import InputError
from qad.matching.columns import Block, Field
from qad.matching.density import Counter
from qad.matching.sky import Floats

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_ROWS = 1 << 17
BLOCK_BYTES = 1 << 26
"""A block is at most this many rows, and about this many bytes: what a catalogue takes in memory, however long it is."""
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Source:
    """One table of a catalogue file, not read yet.

    Attributes
    ----------
    path : Path
    where : str
        The place in the file, for messages.
    fields : tuple of Field
    read : callable
        Takes the names of columns and yields blocks of rows that have them.
    around : callable or None
        Takes RA and dec of candidates and a radius in arcsec, and returns the source of a part that has every row within
        it of any of them: a catalogue that knows where its rows lie need not be read whole.
    counter : Counter or None
        Knows the density of the catalogue better than the rows that are read tell.
    """

    path: Path
    where: str
    fields: tuple[Field, ...]
    read: Callable[[Sequence[str]], Iterator[Block]]
    around: Callable[[Floats, Floats, float], Source] | None = None
    counter: Counter | None = None


@dataclass(frozen=True)
class ArrowBlock:
    """Rows that are in memory as Arrow columns."""

    columns: dict[str, Any]
    n_rows: int

    def values(self, name: str, rows: np.ndarray | None = None) -> pa.Array:
        """Return a column, or chosen rows of it."""
        column = self.columns[name]
        return column if rows is None else column.take(_as_index(rows))


def _as_index(rows: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(rows)


def is_gzip(path: Path) -> bool:
    """Whether a file is gzip-compressed, by its first bytes."""
    with path.open("rb") as handle:
        return handle.read(2) == GZIP_MAGIC


def open_stream(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacking gzip on the way."""
    return cast(IO[bytes], gzip.open(path, "rb")) if is_gzip(path) else path.open("rb")


@contextmanager
def read_errors(path: Path, where: str) -> Iterator[None]:
    """Turn the errors of reading and unpacking a file into InputError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(path, f"damaged gzip file: {error}", where=where) from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror or error}", where=where) from None


def as_array(values: np.ndarray) -> pa.Array:
    """Return a numpy column, perhaps masked, as Arrow: masked is null, text that is not str is decoded."""
    import pyarrow as pa

    mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else None
    data = np.ma.getdata(values)
    if data.dtype.kind in "OSU":
        texts = [
            value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value) for value in data
        ]
        return pa.array(texts, pa.string(), mask=None if mask is None else mask)
    return pa.array(np.ascontiguousarray(data), mask=mask if mask is not None and mask.any() else None)
