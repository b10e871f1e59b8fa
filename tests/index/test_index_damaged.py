"""Damaged tables of the work directory are refused by name before anything reaches the database; no server is needed."""

from __future__ import annotations

import contextlib

import numpy as np
import pyarrow.parquet as pq
import pytest

from qad.errors import InputError
from qad.index.binary import HEADER, TRAILER, encode_copy
from qad.index.rows import SourceFile, read_rows
from qad.index.tables import TARGETS


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bytes_give_the_rows_or_a_named_error(seed, work):
    rng = np.random.default_rng(seed)
    kind = seed % 2
    path = work.matches(5) if kind else work.scores(5)
    content = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 4)):
        content[rng.integers(len(content))] = rng.integers(256)
    path.write_bytes(content)
    file = SourceFile(path, path.name, TARGETS[1 + kind])
    with contextlib.suppress(InputError):
        rows = read_rows(file)
        stream = b"".join(encode_copy(list(rows.columns.values()), rows.n_rows))
        assert stream.startswith(HEADER)
        assert stream.endswith(TRAILER)


@pytest.mark.parametrize("config", [b'{"na\xe3e":"default"}', b'{"name"', b'["default"]', b"default", b'{"name":7}'])
def test_metadata_that_do_not_say_the_model_are_named(config, work):
    path = work.matches(5)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"qad.table": b"matches/1", b"qad.config": config}), path)
    with pytest.raises(InputError, match=r"default-cat\.parquet"):
        read_rows(SourceFile(path, path.name, TARGETS[2]))


def test_copy_stream_of_known_values_is_postgresqls():
    """Byte for byte the example one gets by hand from the format's description."""
    import pyarrow as pa

    columns = [
        ("bigint", pa.chunked_array([pa.array([-2, None])])),
        ("text", pa.chunked_array([pa.array(["é\x00", ""])])),
        ("boolean", pa.chunked_array([pa.array([True, None])])),
        ("jsonb", pa.chunked_array([pa.array(["{}", None], pa.string())])),
    ]
    expected = (
        HEADER
        + b"\x00\x04"
        + b"\x00\x00\x00\x08\xff\xff\xff\xff\xff\xff\xff\xfe"
        + b"\x00\x00\x00\x05\xc3\xa9\xef\xbf\xbd"
        + b"\x00\x00\x00\x01\x01"
        + b"\x00\x00\x00\x03\x01{}"
        + b"\x00\x04"
        + b"\xff\xff\xff\xff"
        + b"\x00\x00\x00\x00"
        + b"\xff\xff\xff\xff"
        + b"\xff\xff\xff\xff"
        + TRAILER
    )
    assert b"".join(encode_copy(columns, 2)) == expected
