"""Every table is read back, without a warning, by the programs that people read it with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.io.votable import parse
from astropy.io.votable.ucd import check_ucd
from astropy.table import Table

from qad.publishing.columns import designation

TABLES = ("candidates", "measures")


@pytest.fixture(scope="module")
def rows(catalogue: Path) -> dict[str, pl.DataFrame]:
    return {name: pl.read_parquet(catalogue / f"{name}.parquet") for name in TABLES}


def same(table: Table, frame: pl.DataFrame, rtol: float = 1e-12) -> None:
    """The values are those of the frame, and what is missing is masked or nan."""
    assert len(table) == frame.height
    assert [name.lower() for name in table.colnames] == frame.columns
    for name, column in zip(frame.columns, table.itercols(), strict=True):
        series = frame[name]
        missing = np.ma.getmaskarray(np.ma.asarray(column))
        if series.dtype.is_float():
            values = np.ma.filled(np.ma.asarray(column).astype(float), np.nan)
            expected = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
            assert np.allclose(
                values,
                expected,
                rtol=rtol,
                atol=0 if rtol < 1e-9 else 6e-6 if name == "z_alt" else 1e-7,
                equal_nan=True,
            ), name
        elif series.dtype.is_integer():
            assert [
                None if gone else int(value) for value, gone in zip(column, missing, strict=True)
            ] == series.to_list(), name
        else:
            texts = ["" if gone else str(value).strip() for value, gone in zip(column, missing, strict=True)]
            assert len(texts) == series.len()
            assert all(
                (text == "") == (value is None or value == "") for text, value in zip(texts, series, strict=True)
            ), name


@pytest.mark.parametrize("name", TABLES)
def test_fits_is_read_by_astropy_with_units_and_ucds(catalogue: Path, rows: dict[str, pl.DataFrame], name: str) -> None:
    path = catalogue / f"{name}.fits"
    same(Table.read(path, unit_parse_strict="raise"), rows[name])
    with fits.open(path, checksum=True) as file:
        header = file[name.upper()].header
        assert header["TTYPE3"] == "TARGETID"
        assert header["TFORM3"] == "K"
        assert header["TUCD3"] == "meta.id;meta.main"
        assert header["RADESYS"] == "ICRS"
        assert all(header[f"TCOMM{i}"] for i in range(1, header["TFIELDS"] + 1))


@pytest.mark.parametrize("name", TABLES)
def test_ecsv_and_parquet_keep_units_and_what_is_missing(
    catalogue: Path, rows: dict[str, pl.DataFrame], name: str
) -> None:
    same(Table.read(catalogue / f"{name}.ecsv"), rows[name])
    schema = pq.read_schema(catalogue / f"{name}.parquet")
    assert schema.field("targetid").metadata[b"ucd"] == b"meta.id;meta.main"
    assert all(field.metadata[b"description"] for field in schema)


def test_votable_is_valid_and_read_by_astropy_pyvo_and_stilts(catalogue: Path, rows: dict[str, pl.DataFrame]) -> None:
    path = catalogue / "candidates.vot"
    file = parse(path, verify="exception")
    assert file.version == "1.4"
    for table, name in zip(file.iter_tables(), TABLES, strict=True):
        assert table.name == name
        same(table.to_table(use_names_over_ids=True), rows[name], 1e-6)
        for field in table.fields:
            assert field.ucd is None or check_ucd(field.ucd, check_controlled_vocabulary=True), field.name
            assert field.description
    pyvo = pytest.importorskip("pyvo")
    results = pyvo.dal.DALResults(parse(path))
    assert results[0]["targetid"] == rows["candidates"]["targetid"][0]
    assert results.getdesc("ra").ucd == "pos.eq.ra;meta.main"
    if shutil.which("stilts"):
        done = subprocess.run(["stilts", "votlint", f"votable={path}"], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert done.stdout + done.stderr == ""
        read = f"in={catalogue / 'candidates.fits'}"
        done = subprocess.run(["stilts", "tpipe", read, "omode=count"], capture_output=True, text=True, check=False)
        assert done.stdout.split() == [
            "columns:",
            str(rows["candidates"].width),
            "rows:",
            str(rows["candidates"].height),
        ]


@pytest.mark.parametrize("name", TABLES)
def test_cds_table_is_read_by_its_readme(catalogue: Path, rows: dict[str, pl.DataFrame], name: str) -> None:
    table = Table.read(catalogue / "cds" / f"{name}.dat", format="ascii.cds", readme=str(catalogue / "cds" / "ReadMe"))
    same(table, rows[name], 1e-5)
    if name == "measures":
        assert table["mgii_flux"].unit == u.Unit("1e-17 erg s-1 cm-2")
    lines = (catalogue / "cds" / "ReadMe").read_text("ascii").splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("?" in line and "Authors" in line for line in lines)


def test_spectra_are_those_of_the_work_directory(catalogue: Path, work: Path, rows: dict[str, pl.DataFrame]) -> None:
    parts = [
        pl.read_parquet(path, columns=["targetid", "flux", "ivar"]) for path in (work / "spectra").glob("*.parquet")
    ]
    known = {row[0]: row[1:] for row in pl.concat(parts).iter_rows()}
    with fits.open(catalogue / "spectra.fits", checksum=True) as file:
        objects, flux, ivar = file["OBJECTS"].data, file["FLUX"].data, file["IVAR"].data
        assert u.Unit(file["FLUX"].header["BUNIT"]) ** -2 == u.Unit(file["IVAR"].header["BUNIT"])
        assert file["WAVELENGTH"].data[[0, -1]] == pytest.approx([3600, 9824])
        assert objects["TARGETID"].tolist() == rows["candidates"]["targetid"].to_list()
        for i, targetid in enumerate(objects["TARGETID"]):
            assert np.array_equal(flux[i], np.array(known[targetid][0], np.float32))
            assert np.array_equal(ivar[i], np.array(known[targetid][1], np.float32))


@pytest.mark.parametrize(
    ("ra", "dec", "name"),
    [
        (0.0, 0.0, "DESI J000000.00+000000.0"),
        (359.99999999, -0.00001, "DESI J235959.99-000000.0"),
        (180.0 + 15 * 1.999 / 3600, 45.51999, "DESI J120001.99+453111.9"),
        (10.684708, 41.26875, "DESI J004244.32+411607.5"),
    ],
)
def test_designation_truncates(ra: float, dec: float, name: str) -> None:
    assert designation(ra, dec) == name
