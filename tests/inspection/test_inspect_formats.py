"""CSV, JSON, Parquet and FITS hold the same rows, exactly, and nothing that runs."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from qad.config import load_config
from qad.errors import ConfigError, StorageError
from qad.inspection.formats import FORMATS, encode, write
from qad.inspection.stage import inspect
from qad.inspection.tables import Tables
from qad.inspection.view import Wanted, output_format
from qad.results import RunOptions
from qad.workspace import Workspace


@pytest.fixture
def frame(root: Path) -> pl.DataFrame:
    columns = [
        "rank",
        "targetid",
        "survey",
        "z",
        "snr",
        "score",
        "flags",
        "reason",
        "mag_r",
        "worst_wave_rest",
        "n_matches",
    ]
    config = load_config(None, {"paths.root": str(root), "inspect.columns": columns, "inspect.top": 40})
    found = inspect(config, RunOptions()).frame
    assert found is not None
    return found


@pytest.fixture
def metadata(root: Path) -> dict[str, Any]:
    return Tables(Workspace(root), "default").metadata


def test_csv_keeps_targetids_and_disarms_formulas(frame: pl.DataFrame, made: Any) -> None:
    rows = list(csv.DictReader(io.StringIO(encode(frame, "csv", {}).decode())))
    assert [int(row["targetid"]) for row in rows] == made.targetid.tolist()
    assert [float(row["score"]) for row in rows] == frame["score"].to_list()
    assert rows[9]["reason"] == "'" + made.formula
    assert rows[made.hostile]["reason"].startswith(r"\x1b]0;owned\x07")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv_prefixes_what_a_spreadsheet_would_run(text: str) -> None:
    content = encode(pl.DataFrame({"reason": [text], "z": [-1.5]}), "csv", {}).decode()
    row = list(csv.reader(io.StringIO(content)))[1]
    assert row[0].startswith("'")
    assert row[1] == "-1.5"  # a number stays a number


def test_json_has_targetids_as_text_and_null_for_nan(frame: pl.DataFrame, made: Any) -> None:
    content = encode(frame, "json", {}).decode()
    rows = json.loads(content)
    assert [row["targetid"] for row in rows] == [str(targetid) for targetid in made.targetid]
    assert rows[0]["worst_wave_rest"] is None
    assert rows[0]["mag_r"] is None
    assert rows[made.hostile]["reason"] == made.escapes + made.markup
    assert "\x1b" not in content
    assert "\x9b" not in content


def test_parquet_round_trip_with_units_and_provenance(
    frame: pl.DataFrame, metadata: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "rows.parquet"
    write(path, frame, "parquet", metadata)
    assert pl.read_parquet(path).equals(frame)
    schema = pq.read_schema(path)
    assert schema.field("worst_wave_rest").metadata[b"unit"] == b"Angstrom"
    assert b"qad.version" in schema.metadata


def test_fits_round_trip(frame: pl.DataFrame, metadata: dict[str, Any], made: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.fits"
    write(path, frame, "fits", metadata)
    with fits.open(path, checksum=True) as hdus:
        table = hdus["CANDIDATES"]
        assert table.data["TARGETID"].dtype.kind == "i"
        assert table.data["TARGETID"].tolist() == made.targetid.tolist()
        assert table.data["SCORE"].tolist() == frame["score"].to_list()
        assert table.header[f"TUNIT{frame.columns.index('worst_wave_rest') + 1}"] == "Angstrom"
        assert table.data["REASON"][0] == "strong C IV, EW 80.0 A (+4.1 sigma)"
        assert "\x1b" not in table.data["REASON"][made.hostile]
        column = table.columns["N_MATCHES"]
        assert table.data["N_MATCHES"][1] == column.null


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_is_a_valid_file(frame: pl.DataFrame, form: Any) -> None:
    content = encode(frame.clear(), form, {})
    if form == "fits":
        with fits.open(io.BytesIO(content)) as hdus:
            assert len(hdus[1].data) == 0
    else:
        assert content


@pytest.mark.parametrize("form", FORMATS)
def test_same_rows_give_the_same_bytes(frame: pl.DataFrame, metadata: dict[str, Any], form: Any) -> None:
    first = encode(frame, form, metadata)
    # also in another second than the first: FITS checksums come with the time where nobody keeps it out
    time.sleep(1.1 if form == "fits" else 0)
    assert encode(frame, form, metadata) == first


def test_format_follows_the_file_name() -> None:
    assert output_format(Wanted(output=Path("a/b.FITS"))) == "fits"
    assert output_format(Wanted(form="csv", output=Path("rows.txt"))) == "csv"
    assert output_format(Wanted()) == "table"
    for wanted in (Wanted(output=Path("rows.txt")), Wanted(form="table", output=Path("rows.csv"))):
        with pytest.raises(ConfigError, match="--format"):
            output_format(wanted)


def test_unwritable_folder_is_a_storage_error(frame: pl.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write(tmp_path / "file" / "rows.csv", frame, "csv", {})
