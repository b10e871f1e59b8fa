"""Arrow columns as PostgreSQL's binary COPY format, without a Python step per row.

The format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".  A row is the number of fields
(int16), and per field its length in bytes (int32, -1 for null) and its bytes, all big-endian.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
CHUNK_ROWS = 4096
"""Rows encoded at once: while the server takes them in, the next are made."""

SQL_TYPES = {
    "int64": "bigint",
    "int32": "integer",
    "int16": "smallint",
    "uint8": "smallint",
    "uint32": "bigint",
    "float32": "real",
    "float64": "double precision",
    "bool": "boolean",
    "string": "text",
    "dictionary": "text",
}
"""PostgreSQL's type for each type of :mod:`qad.schema`; an unsigned number takes the next wider signed one."""
_BYTES = {
    "bigint": ">i8",
    "integer": ">i4",
    "smallint": ">i2",
    "real": ">f4",
    "double precision": ">f8",
    "boolean": "u1",
}


def encode_copy(columns: Sequence[tuple[str, pa.ChunkedArray]], n_rows: int) -> Iterator[bytes]:
    """Yield a whole COPY stream: header, rows (:func:`encode_rows`) and trailer."""
    yield HEADER
    for part, _ends in encode_rows(columns, n_rows):
        yield bytes(part)
    yield TRAILER


def encode_rows(columns: Sequence[tuple[str, pa.ChunkedArray]], n_rows: int) -> Iterator[tuple[memoryview, np.ndarray]]:
    """Yield the rows of a COPY stream, and where in the bytes each ends.

    Parameters
    ----------
    columns : sequence of (str, ChunkedArray)
        PostgreSQL type (``bigint``, ``text``, ``jsonb``, …) and values; for ``jsonb``, JSON as text.
    n_rows : int
    """
    for start in range(0, n_rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, n_rows - start)
        yield _encode_rows([_field(kind, values.slice(start, count)) for kind, values in columns], count)


def _field(kind: str, values: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the length of each value (-1 for null) and the bytes of those that are not null, joined."""
    import pyarrow as pa
    import pyarrow.compute as pc

    valid = pc.is_valid(values).to_numpy()
    if kind in _BYTES:
        dtype = np.dtype(_BYTES[kind])
        numbers = values.drop_null().to_numpy().astype(dtype)
        return np.where(valid, dtype.itemsize, -1), numbers.view(np.uint8)
    texts = clean_text(values).drop_null().cast(pa.large_binary()).combine_chunks()
    if kind == "jsonb":
        version, nothing = (pa.scalar(value, pa.large_binary()) for value in (b"\x01", b""))
        texts = pc.binary_join_element_wise(version, texts, nothing)
    lengths = np.full(len(values), -1)
    lengths[valid] = pc.binary_length(texts).to_numpy(zero_copy_only=False)
    return lengths, _content(texts)


def _content(texts: pa.LargeBinaryArray) -> np.ndarray:
    """Return the bytes of an array without nulls, joined."""
    _valid, places, data = texts.buffers()
    if data is None or not len(texts):
        return np.empty(0, np.uint8)
    ends = np.frombuffer(places, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]


def clean_text(values: Any) -> Any:
    """Return text as PostgreSQL can hold it: a NUL becomes the replacement character."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(values.type):
        values = values.cast(pa.string())
    return pc.replace_substring(values, "\x00", "\ufffd")


def _encode_rows(fields: list[tuple[np.ndarray, np.ndarray]], n_rows: int) -> tuple[memoryview, np.ndarray]:
    sizes = 2 + sum((4 + np.maximum(lengths, 0) for lengths, _ in fields), np.zeros(n_rows, np.int64))
    ends = np.cumsum(sizes)
    out = np.empty(int(ends[-1]), np.uint8)
    place = ends - sizes
    _put(out, place, np.full(n_rows, len(fields)).astype(">i2"))
    place += 2
    for lengths, content in fields:
        _put(out, place, lengths.astype(">i4"))
        place += 4
        n_bytes = np.maximum(lengths, 0)
        before = np.cumsum(n_bytes) - n_bytes
        out[np.arange(len(content)) + np.repeat(place - before, n_bytes)] = content
        place += n_bytes
    return out.data, ends


def _put(out: np.ndarray, place: np.ndarray, values: np.ndarray) -> None:
    out[place[:, None] + np.arange(values.itemsize)] = values.view(np.uint8).reshape(len(values), -1)
