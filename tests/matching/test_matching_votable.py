"""VOTables of every serialisation pass in blocks: the same rows as astropy reads, in memory that does not follow the file."""

from __future__ import annotations

import gzip
import subprocess
import sys
import warnings

import numpy as np
import pytest
from astropy.io.votable import parse_single_table
from astropy.io.votable.tree import TableElement
from astropy.table import MaskedColumn, Table

from qad.errors import InputError
from qad.matching import votable, votable_binary
from qad.matching.votable import query_status, votable_sources

N = 700


@pytest.fixture(params=["tabledata", "binary", "binary2"])
def file(request, tmp_path, monkeypatch):
    """A table with every kind of column that can be read, longer than a block."""
    monkeypatch.setattr(votable, "BLOCK_ROWS", 256)
    monkeypatch.setattr(votable_binary, "BLOCK_ROWS", 256)
    monkeypatch.setattr(votable, "CHUNK_BYTES", 1000)
    rng = np.random.default_rng(1)
    table = Table(
        {
            "ra": rng.uniform(0, 360, N),
            "vector": rng.normal(0, 1, (N, 3)).astype(np.float32),
            "dec": rng.uniform(-90, 90, N),
            "flag": rng.integers(0, 2, N).astype(bool),
            "name": np.array([f"s{i} & <ä>" if i % 3 else "" for i in range(N)]),
            "mag": MaskedColumn(rng.normal(20, 1, N).astype(np.float32), mask=np.arange(N) % 7 == 0),
            "id": 4_611_686_018_427_387_905 + np.arange(N),
            "n": np.arange(N, dtype=np.int16),
        }
    )
    table["ra"].unit = "deg"
    path = tmp_path / "t.vot"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy remarks on whole numbers that are missing
        table.write(path, format="votable", tabledata_format=request.param)
    return path


def read(path, names):
    source = next(votable_sources(path))
    blocks = list(source.read(names))
    return {name: [value for block in blocks for value in block.values(name).to_pylist()] for name in names}, blocks


def test_rows_are_those_that_astropy_reads(file):
    names = ["name", "ra", "dec", "id", "mag", "n"]
    got, blocks = read(file, names)
    assert [block.n_rows for block in blocks] == [256, 256, 188]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        element: TableElement = parse_single_table(file)
    for name in names:
        want = element.array[name]
        hidden = np.ma.getmaskarray(want)
        for value, expected, is_hidden in zip(got[name], want.data, hidden, strict=True):
            if is_hidden or (isinstance(expected, float | np.floating) and np.isnan(expected)):
                assert value is None or value != value
            else:
                assert value == expected


def test_gzip_and_a_table_further_on(file, tmp_path):
    text = file.read_text()
    first = "<TABLE><FIELD name='x' datatype='int'/><DATA><TABLEDATA><TR><TD>1</TD></TR></TABLEDATA></DATA></TABLE>"
    packed = tmp_path / "t.vot.gz"
    packed.write_bytes(gzip.compress(text.replace("<TABLE", f"{first}<TABLE", 1).encode()))
    sources = list(votable_sources(packed))
    assert [len(source.fields) for source in sources] == [1, 8]
    want, _ = read(file, ["id"])
    assert [value for block in sources[1].read(["id"]) for value in block.values("id").to_pylist()] == want["id"]
    assert [block.values("x").to_pylist() for block in sources[0].read(["x"])] == [[1]]


def test_a_cut_or_damaged_file_is_named(file, tmp_path):
    content = file.read_bytes()
    for cut in (len(content) * 2 // 3, len(content) - 200):
        (tmp_path / "cut.vot").write_bytes(content[:cut])
        with pytest.raises(InputError, match=r"cut\.vot: TABLE 0: "):
            read(tmp_path / "cut.vot", ["ra", "id"])


@pytest.mark.parametrize(
    ("cell", "said"), [("12x", "row 2, column ra: '12x' is no double"), ("</TD><TD>", "row 2: 3 cells, expected 2")]
)
def test_a_wrong_cell_is_named_by_row_and_column(cell, said, tmp_path):
    rows = f"<TR><TD>1</TD><TD>2</TD></TR><TR><TD>{cell}</TD><TD>2</TD></TR>"
    (tmp_path / "t.vot").write_text(
        "<VOTABLE><RESOURCE><TABLE><FIELD name='ra' datatype='double'/><FIELD name='dec' datatype='double'/>"
        f"<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    )
    with pytest.raises(InputError, match=said):
        read(tmp_path / "t.vot", ["ra", "dec"])


def test_entities_are_refused_and_a_status_is_read(tmp_path):
    (tmp_path / "e.vot").write_text('<!DOCTYPE a [<!ENTITY b "c">]><VOTABLE><TABLE/></VOTABLE>')
    with pytest.raises(InputError, match="entities"):
        next(votable_sources(tmp_path / "e.vot"))
    (tmp_path / "s.vot").write_text(
        '<v:VOTABLE xmlns:v="x"><v:INFO name="QUERY_STATUS" value="ERROR">no\n way</v:INFO></v:VOTABLE>'
    )
    assert query_status(tmp_path / "s.vot") == {"QUERY_STATUS": "ERROR", "QUERY_STATUS text": "no\n way"}


def test_a_long_table_does_not_grow_the_memory(tmp_path):
    """300,000 rows, 60 MB of BINARY2: less than 60 MB above the start, where astropy holds them all."""
    n = 300_000
    table = Table({"ra": np.zeros(n), "dec": np.zeros(n), "pad": np.zeros((n, 16))})
    table.write(tmp_path / "t.vot", format="votable", tabledata_format="binary2")
    script = f"""
import resource, pathlib, pyarrow.compute
from qad.matching.votable import votable_sources
source = next(votable_sources(pathlib.Path({str(tmp_path / "t.vot")!r})))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert sum(block.n_rows for block in source.read(["ra", "dec"])) == {n}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 60
