"""Bad catalogues: one clear line that names the file and what to do, the right exit code, nothing half written."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from qad.config import load_config
from qad.matching.stage import crossmatch
from qad.results import RunOptions
from qad.workspace import Workspace


def fits_bytes(**cards: int) -> bytes:
    """Return a small FITS catalogue whose table header says what it is told to."""
    import io

    from astropy.io import fits

    table = fits.BinTableHDU.from_columns(
        [fits.Column("RA", "D", array=np.arange(9.0)), fits.Column("DEC", "D", array=np.arange(9.0))], name="CAT"
    )
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(buffer)
    content = buffer.getvalue()
    for key, value in cards.items():
        start = content.index(f"{key:<8}=".encode(), 2880)
        content = content[:start] + f"{key:<8}= {value:>20}".encode().ljust(80) + content[start + 80 :]
    return content


VOTABLE = """<?xml version="1.0"?>
<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>
<FIELD name="ra" datatype="double" unit="deg"/><FIELD name="dec" datatype="double" unit="deg"/>
<DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>
"""
ROW = "<TABLEDATA><TR><TD>1</TD><TD>{dec}</TD></TR></TABLEDATA>"

CASES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("cat.csv", b"", "empty file"),
    "empty fits": ("cat.fits", b"", "not a FITS file"),
    "binary": ("cat.csv", bytes(range(256)) * 10, "not a catalogue"),
    "web page": ("cat.fits", b"<!DOCTYPE html><html>log in</html>", "web page"),
    "zip": ("cat.csv", b"PK\x03\x04" + b"x" * 100, "zip archive"),
    "utf-16": ("cat.csv", "ra,dec\n1,2\n".encode("utf-16"), "UTF-16"),
    "latin-1": ("cat.csv", "ra,dec,näme\n1,2,x\n".encode("latin-1"), "not UTF-8"),
    "latin-1 rows": ("cat.csv", b"ra,dec,id\n" + b"1,2,x\n" * 200_000 + b"1,2,n\xe4me\n", "not a readable CSV"),
    "no header": ("cat.csv", b"1.0,2.0\n3.0,4.0\n", "no header line"),
    "only comments": ("cat.csv", b"# a\n# b\n", "only comments"),
    "no positions": ("cat.csv", b"x,y,mag\n1,2,3\n", "found: x, y, mag"),
    "positions twice": ("cat.csv", b"ra,ra,dec\n1,2,3\n", "not unique"),
    "words": ("cat.csv", b"ra,dec\n1,2\nnorth,3\n", "row 2, column ra: 'north'"),
    "mixed": ("cat.csv", b"ra,dec\n12:00:00,2\n13.5,3\n", "row 2, column ra: '13.5'"),
    "hours above 24": ("cat.csv", b"ra,dec\n188:00:00,2\n", "0 to 24 h"),
    "minutes above 60": ("cat.csv", b"ra,dec\n18:61:00,2\n", "row 1, column ra"),
    "ragged": ("cat.csv", b"ra,dec\n1,2\n1,2,3\n", "Expected 2 columns, got 3"),
    "truncated gzip": ("cat.csv.gz", gzip.compress(b"ra,dec\n" + b"1.234567,2.345\n" * 9999)[:-20], ""),
    "truncated gzip fits": ("cat.fits.gz", gzip.compress(fits_bytes())[:-30], "gzip"),
    "truncated fits": ("cat.fits", fits_bytes()[: 2880 * 2 + 100], "cut off"),
    "cut header": ("cat.fits", fits_bytes()[: 2880 + 500], "header is cut off"),
    "only primary": ("cat.fits", fits_bytes()[:2880], "holds no table"),
    "negative rows": ("cat.fits", fits_bytes(NAXIS2=-5), "negative"),
    "negative groups": ("cat.fits", fits_bytes(GCOUNT=-1), "GCOUNT"),
    "huge rows": ("cat.fits", fits_bytes(NAXIS2=10**15), "cut off"),
    "wrong width": ("cat.fits", fits_bytes(NAXIS1=12), "NAXIS1"),
    "huge fields": ("cat.fits", fits_bytes(TFIELDS=10**9), "TFIELDS"),
    "no ra in fits": ("cat.fits", fits_bytes().replace(b"'RA      '", b"'RB      '", 1), "found: RB, DEC"),
    "damaged parquet": ("cat.parquet", b"PAR1" + b"\x00" * 50 + b"PAR1", "not a readable Parquet"),
    "not parquet": ("cat.parquet", b"hello\n", "not a Parquet file"),
    "xml but not votable": ("cat.xml", b"<?xml version='1.0'?><a><b/></a>", "holds no table"),
    "cut xml": ("cat.vot", VOTABLE.format(data=ROW.format(dec=1)).encode()[:-60], ""),
    "not well-formed xml": ("cat.vot", b"<?xml version='1.0'?><VOTABLE><TABLE></RESOURCE>", "VOTable"),
    "elsewhere": (
        "cat.vot",
        VOTABLE.format(data='<BINARY><STREAM href="file:///etc/passwd"/></BINARY>').encode(),
        "elsewhere",
    ),
    "fits in xml": (
        "cat.vot",
        VOTABLE.format(data='<FITS><STREAM href="http://x/"/></FITS>').encode(),
        "FITS inside XML",
    ),
    "entities": (
        "cat.vot",
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
        + b"]><VOTABLE><RESOURCE><DESCRIPTION>&j;</DESCRIPTION></RESOURCE></VOTABLE>",
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_catalogue_fails_by_name_and_leaves_nothing(case, sky_field, tmp_path):
    name, content, text = CASES[case]
    path = tmp_path / name
    path.write_bytes(content)
    config = load_config(overrides={"paths.root": str(sky_field.root), "crossmatch.catalogs": [str(path)]})
    result = crossmatch(config, RunOptions(jobs=1))
    assert [failure.unit for failure in result.failures] == [str(path)]
    assert str(path) in result.failures[0].reason
    assert text in result.failures[0].reason
    assert "\n" not in result.failures[0].reason
    assert not list(Workspace(sky_field.root).matches.glob("*"))


@pytest.mark.parametrize("seed", range(25))
def test_damaged_bytes_never_raise_anything_else(seed, sky_field, tmp_path):
    """Bytes flipped and cut at random in every format: a result or a named failure, never another exception."""
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({"ra": sky_field.catalog_ra, "dec": sky_field.catalog_dec, "id": sky_field.ids})
    sources = {
        "cat.csv": frame.write_csv().encode(),
        "cat.fits": fits_bytes(),
        "cat.vot": VOTABLE.format(data=ROW.format(dec=1) * 3).encode(),
    }
    frame.write_parquet(tmp_path / "x.parquet")
    sources["cat.parquet"] = (tmp_path / "x.parquet").read_bytes()
    paths = []
    for name, content in sources.items():
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        if rng.random() < 0.3:
            damaged = damaged[: rng.integers(len(damaged))]
        path = tmp_path / str(seed) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damaged)
        paths.append(path)
    for path in paths:
        config = load_config(overrides={"paths.root": str(sky_field.root), "crossmatch.catalogs": [str(path)]})
        result = crossmatch(config, RunOptions(jobs=1, force=True))
        assert result.n_done + len(result.failures) == 1


def test_what_is_no_file_is_refused(sky_field, tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "empty").mkdir()
    names = {
        "pipe.csv": "not a regular file",
        "empty": "without Parquet files",
        "x" * 300 + ".csv": "",
        "absent.csv": "no such file",
    }
    paths = [str(tmp_path / name) for name in names]
    for path, text in zip(paths, names.values(), strict=True):
        config = load_config(overrides={"paths.root": str(sky_field.root), "crossmatch.catalogs": [path]})
        result = crossmatch(config, RunOptions(jobs=1))
        assert text in result.failures[0].reason


def test_text_of_parquet_that_is_not_utf8_is_refused(sky_field, tmp_path):
    import pyarrow as pa

    raw = pa.array([b"fine", b"\xff\xfe"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    pq.write_table(pa.table({"ra": sky_field.ra[:2], "dec": sky_field.dec[:2], "id": text}), tmp_path / "cat.parquet")
    content = (tmp_path / "cat.parquet").read_bytes()
    (tmp_path / "name.parquet").write_bytes(content.replace(b"\x02id", b"\x02\xe3d"))
    assert (tmp_path / "name.parquet").read_bytes() != content
    for name in ("cat.parquet", "name.parquet"):
        config = load_config(
            overrides={"paths.root": str(sky_field.root), "crossmatch.catalogs": [str(tmp_path / name)]}
        )
        result = crossmatch(config, RunOptions(jobs=1))
        assert len(result.failures) == 1
        assert name in result.failures[0].reason


def test_vectors_cannot_be_positions_or_carried(sky_field, tmp_path, qad):
    from astropy.io import fits

    path = tmp_path / "cat.fits"
    fits.BinTableHDU.from_columns(
        [
            fits.Column("RA", "D", array=[1.0]),
            fits.Column("DEC", "D", array=[1.0]),
            fits.Column("MAGS", "5E", array=[np.ones(5)]),
        ]
    ).writeto(path)
    run = qad("crossmatch", path, "--root", sky_field.root, "--column", "MAGS")
    assert run.returncode == 1
    assert "column MAGS is a vector" in run.stderr
    run = qad("crossmatch", path, "--root", sky_field.root, "--ra-column", "MAGS", "--dec-column", "DEC")
    assert run.returncode == 1
    assert "column MAGS" in run.stderr


def test_unknown_units_are_refused(sky_field, tmp_path, qad):
    from astropy.table import Table

    for unit, column in (("m", "ra"), ("h", "dec")):
        table = Table({"ra": [1.0], "dec": [1.0]})
        table[column].unit = unit
        table.write(tmp_path / "cat.vot", format="votable", overwrite=True)
        run = qad("crossmatch", tmp_path / "cat.vot", "--root", sky_field.root)
        assert run.returncode == 1
        assert f"column {column}" in run.stderr


def test_hostile_text_is_only_data(sky_field, tmp_path, qad):
    texts = [
        "'; DROP TABLE spectrum; --",
        "<script>alert(1)</script>",
        "=1+1",
        "\x1b[31mred\x1b[0m",
        "a,b\nc\u202e",
        "x" * 10_000,
    ]
    n = len(texts)
    frame = pl.DataFrame(
        {"ra": sky_field.ra[4 : 4 + n], "dec": sky_field.dec[4 : 4 + n], "id": texts, "<b>'\";--": texts, "日本": texts}
    )
    frame.write_parquet(tmp_path / "x'; DROP TABLE match; --.parquet")
    frame.write_csv(tmp_path / "<img src=x onerror=alert(1)>.csv")
    files = sorted([*tmp_path.glob("x'*"), *tmp_path.glob("<img*")])
    columns = ["--column", "<b>'\";--", "--column", "日本"]
    run = qad("crossmatch", *files, "--root", sky_field.root, "--json", *columns)
    assert run.returncode == 0, run.stderr
    outputs = [Path(path) for path in json.loads(run.stdout)["paths"]]
    assert len(outputs) == 2
    for output in outputs:
        assert output.parent == sky_field.root / "matches"
        table = pq.read_table(output)
        assert table["catalog_id"].to_pylist() == [text.strip() for text in texts]
        assert table["cat_<b>'\";--"].to_pylist() == texts
        assert table["cat_日本"].to_pylist() == texts


def test_error_lines_cannot_steer_a_terminal(sky_field, tmp_path, qad):
    path = tmp_path / "cat.csv"
    path.write_text("ra,dec\n\x1b]0;owned\x07,2\n")
    run = qad("crossmatch", path, "--root", sky_field.root)
    assert run.returncode == 1
    assert "\x1b" not in run.stderr + run.stdout


def test_too_many_pairs_are_refused_before_memory_is_gone(sky_field, tmp_path, monkeypatch):
    monkeypatch.setattr("qad.matching.pairs.MAX_PAIRS", 50)
    pl.DataFrame({"ra": sky_field.catalog_ra, "dec": sky_field.catalog_dec}).write_parquet(tmp_path / "cat.parquet")
    config = load_config(
        overrides={
            "paths.root": str(sky_field.root),
            "crossmatch.catalogs": [str(tmp_path / "cat.parquet")],
            "crossmatch.radius_arcsec": 3600.0,
        }
    )
    result = crossmatch(config, RunOptions(jobs=1))
    assert "smaller --radius" in result.failures[0].reason


def test_a_long_catalogue_does_not_grow_the_memory(tmp_path, scores_at, qad):
    """Two million rows of 200 bytes, 400 MB on disk, pass through less than 300 MB above the start."""
    import subprocess
    import sys

    from astropy.io import fits

    scores_at(tmp_path / "work", np.array([10.0]), np.array([20.0]))
    n = 2_000_000
    header = fits.BinTableHDU.from_columns(
        [
            fits.Column("RA", "D", array=[0.0]),
            fits.Column("DEC", "D", array=[0.0]),
            fits.Column("X", "184B", array=[np.zeros(184)]),
        ]
    ).header
    header["NAXIS2"] = n
    path = tmp_path / "long.fits"
    row = struct.pack(">dd", 10.0, 20.0) + bytes(184)
    with path.open("wb") as file:
        file.write(fits_bytes()[:2880] + header.tostring().encode())
        file.write(row)
        file.truncate(file.tell() + (n - 1) * 200)
    script = f"""
import resource, sys
from qad.config import load_config
from qad.matching.stage import crossmatch
import qad.matching.report, pyarrow.parquet, polars, numpy, pyarrow.compute
from qad.results import RunOptions
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
config = load_config(overrides={{"paths.root": {str(tmp_path / "work")!r}, "crossmatch.catalogs": [{str(path)!r}]}})
result = crossmatch(config, RunOptions(jobs=1))
assert not result.failures and result.counts["catalog_rows"] == {n} and result.counts["pairs"] == 1, result
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    path.unlink()
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 300


def test_degrees_that_look_like_radians_are_pointed_out(tmp_path, scores_at):
    """Radians without a unit cannot be told from degrees near the origin: they are read as degrees, and it is said."""
    from qad.results import NoProgress

    class Notes(NoProgress):
        def __init__(self):
            self.lines = []

        def note(self, message):
            self.lines.append(message)

    rng = np.random.default_rng(0)
    scores_at(tmp_path / "work", np.array([10.0]), np.array([20.0]))
    pl.DataFrame({"ra": rng.uniform(0, 6.28, 2000), "dec": rng.uniform(-1.5, 1.5, 2000)}).write_csv(tmp_path / "r.csv")
    notes = Notes()
    keys = {"paths.root": str(tmp_path / "work"), "crossmatch.catalogs": [str(tmp_path / "r.csv")]}
    assert not crossmatch(load_config(overrides=keys), RunOptions(jobs=1, progress=notes)).failures
    assert any("radians" in line for line in notes.lines)


def test_rows_that_share_an_identifier_all_count(sky_field, tmp_path):
    frame = pl.DataFrame(
        {"ra": sky_field.catalog_ra, "dec": sky_field.catalog_dec, "id": ["same"] * len(sky_field.ids)}
    )
    frame.write_parquet(tmp_path / "cat.parquet")
    unique = frame.with_columns(id=pl.Series(sky_field.ids))
    unique.write_parquet(tmp_path / "own.parquet")
    config = load_config(
        overrides={
            "paths.root": str(sky_field.root),
            "crossmatch.catalogs": [str(tmp_path / name) for name in ("cat.parquet", "own.parquet")],
        }
    )
    tables = [pq.read_table(path) for path in crossmatch(config, RunOptions(jobs=1)).paths]
    assert tables[0]["n_within"].to_pylist() == tables[1]["n_within"].to_pylist()
    assert set(tables[0]["catalog_id"].to_pylist()) == {"same"}
