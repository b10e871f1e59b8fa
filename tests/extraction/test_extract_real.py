"""The thirteen real quasars of the release: which rows, at which redshift, and every pixel of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from astropy.io import fits

from qad.config import load_config
from qad.extraction.stage import extract
from qad.lines import LYA
from qad.results import RunOptions, StageResult
from qad.schema import SPECTRA
from qad.storage.parquet import read_table, vectors

SCALARS = [column.name for column in SPECTRA.columns if not column.is_vector]
CAMERAS = {"B": (0, 2751), "R": (2700, 2326), "Z": (4900, 2881)}


@pytest.fixture(scope="module")
def done(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> StageResult:
    root = tmp_path_factory.mktemp("real")
    config = load_config(None, {"paths.root": str(root), "extract.source": str(shared_data / "release")}, environ={})
    return extract(config, RunOptions(jobs=1))


@pytest.fixture(scope="module")
def truth(shared_data: Path) -> list[dict[str, str]]:
    with (shared_data / "release" / "truth.csv").open() as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def spectra(done: StageResult) -> list[dict[str, Any]]:
    rows = []
    for path in done.paths:
        table = read_table(path, SPECTRA)
        flux, ivar = vectors(table, "flux"), vectors(table, "ivar")
        for i, row in enumerate(pl.from_arrow(table.select(SCALARS)).to_dicts()):
            rows.append(row | {"flux": flux[i], "ivar": ivar[i]})
    return rows


def planes(real_release: Path, row: dict[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return flux, ivar and mask of a spectrum's cameras, as astropy reads them."""
    pixel, place = row["healpix"], f"{row['survey']}/{row['program']}/{row['healpix'] // 100}/{row['healpix']}"
    path = real_release / "spectro/redux/iron/healpix" / place / f"coadd-{row['survey']}-{row['program']}-{pixel}.fits"
    with fits.open(path) as hdus:
        index = list(hdus["FIBERMAP"].data["TARGETID"]).index(row["targetid"])
        parts = ("FLUX", "IVAR", "MASK")
        return {c: tuple(np.array(hdus[f"{c}_{part}"].data[index]) for part in parts) for c in CAMERAS}


def test_exactly_the_thirteen_good_quasar_rows_come_out(
    done: StageResult, spectra: list[dict[str, Any]], truth: list[dict[str, str]]
) -> None:
    wanted = [row for row in truth if row["spectype"] == "QSO" and row["zwarn"] == "0"]
    key = ("survey", "program", "healpix", "targetid")
    assert len(wanted) == 13
    assert sorted(tuple(str(row[k]) for k in key) for row in spectra) == sorted(
        tuple(row[k] for k in key) for row in wanted
    )
    redshift = {tuple(row[k] for k in key): float(row["z"]) for row in wanted}
    for row in spectra:
        assert row["z"] == pytest.approx(redshift[tuple(str(row[k]) for k in key)], abs=1e-12)
    assert done.counts == {"rows_in": 44, "dropped.spectype": 27, "dropped.zwarn": 4, "rows_out": 13}
    assert (done.n_done, done.n_skipped, done.failures) == (6, 0, ())


def test_pixels_without_a_quasar_give_an_empty_table_of_the_same_schema(done: StageResult) -> None:
    tables = {path.stem: read_table(path, SPECTRA) for path in done.paths}
    assert tables["sv1-bright-7108"].num_rows == tables["sv3-dark-26065"].num_rows == 0
    schemas = {str(table.schema.remove_metadata()) for table in tables.values()}
    assert len(schemas) == 1


def test_flux_and_ivar_are_the_files_bits_where_one_camera_covers(
    real_release: Path, spectra: list[dict[str, Any]]
) -> None:
    alone = {"B": (0, 2700), "R": (2751, 4900), "Z": (5026, 7781)}
    for row in spectra:
        for camera, (flux, ivar, mask) in planes(real_release, row).items():
            first, last = alone[camera]
            start = CAMERAS[camera][0]
            good = ((ivar > 0) & (mask == 0))[first - start : last - start]
            for name, stored in (("flux", flux), ("ivar", ivar)):
                expected = np.where(good, stored[first - start : last - start], 0).astype(np.float32)
                np.testing.assert_array_equal(row[name][first:last].view(np.int32), expected.view(np.int32))


def test_merged_spectra_equal_an_independent_reimplementation(
    real_release: Path, spectra: list[dict[str, Any]]
) -> None:
    for row in spectra:
        weighted, weight = np.zeros(7781), np.zeros(7781)
        for camera, (flux, ivar, mask) in planes(real_release, row).items():
            for i in range(len(flux)):
                if ivar[i] > 0 and mask[i] == 0:
                    k = CAMERAS[camera][0] + i
                    weighted[k] += float(flux[i]) * float(ivar[i])
                    weight[k] += float(ivar[i])
        mean = np.divide(weighted, weight, out=np.zeros(7781), where=weight > 0)
        np.testing.assert_allclose(row["flux"], mean, rtol=2e-7, atol=1e-12)
        np.testing.assert_allclose(row["ivar"], weight, rtol=2e-7)
        assert row["n_good"] == np.count_nonzero(weight)


def test_signal_to_noise_is_the_median_over_good_pixels(real_release: Path, spectra: list[dict[str, Any]]) -> None:
    for row in spectra:
        good = row["ivar"] > 0
        assert row["snr"] == pytest.approx(np.median(row["flux"][good] * np.sqrt(row["ivar"][good])), rel=1e-5)
        for camera, (flux, ivar, mask) in planes(real_release, row).items():
            good = (ivar > 0) & (mask == 0)
            if good.any():
                expected = np.median(flux[good] * np.sqrt(ivar[good]))
                assert row[f"snr_{camera.lower()}"] == pytest.approx(expected, rel=1e-5, abs=1e-6)
            else:
                assert row[f"snr_{camera.lower()}"] is None


def test_the_quasar_without_z_camera_ends_where_r_ends(spectra: list[dict[str, Any]]) -> None:
    row = next(row for row in spectra if (row["survey"], row["program"]) == ("main", "bright"))
    assert row["snr_z"] is None
    assert row["snr_b"] is not None
    assert not row["ivar"][5026:].any()
    assert not row["flux"][5026:].any()
    twin = next(r for r in spectra if r["targetid"] == row["targetid"] and r["program"] == "dark")
    np.testing.assert_array_equal(row["flux"][:4900], twin["flux"][:4900])


def test_columns_are_those_of_the_files(real_release: Path, spectra: list[dict[str, Any]]) -> None:
    for row in spectra:
        place = f"{row['survey']}/{row['program']}/{row['healpix'] // 100}/{row['healpix']}"
        folder = real_release / "spectro/redux/iron/healpix" / place
        name = f"{row['survey']}-{row['program']}-{row['healpix']}.fits"
        with fits.open(folder / f"coadd-{name}") as coadd, fits.open(folder / f"redrock-{name}") as redrock:
            fibermap = coadd["FIBERMAP"].data[coadd["FIBERMAP"].data["TARGETID"] == row["targetid"]][0]
            fit = redrock["REDSHIFTS"].data[redrock["REDSHIFTS"].data["TARGETID"] == row["targetid"]][0]
            exposures = coadd["EXP_FIBERMAP"].data
            exposure = exposures[exposures["TARGETID"] == row["targetid"]][0]
            scores = coadd["SCORES"].data[coadd["SCORES"].data["TARGETID"] == row["targetid"]][0]
        for ours, theirs in (("ra", "TARGET_RA"), ("ebv", "EBV"), ("flux_w1", "FLUX_W1"), ("photsys", "PHOTSYS")):
            assert row[ours] == fibermap[theirs]
        for ours in ("zerr", "chi2", "deltachi2", "npixels", "ncoeff", "subtype"):
            assert row[ours] == fit[ours.upper()]
        assert (row["fiber"], row["tileid"], row["night"]) == tuple(exposure[k] for k in ("FIBER", "TILEID", "NIGHT"))
        assert row["tsnr2_lya"] == scores["TSNR2_LYA"]
        assert row["desi_target"] == (fibermap["DESI_TARGET"] if row["survey"] == "main" else None)


@pytest.mark.parametrize(("line", "targetids"), [(LYA, {39633561174674576, 39633560331617316, 43977493144666216})])
def test_lyman_alpha_stands_where_the_redshift_puts_it(
    spectra: list[dict[str, Any]], line: float, targetids: set[int]
) -> None:
    wave = 3600 + 0.8 * np.arange(7781)
    for row in (row for row in spectra if row["targetid"] in targetids):
        rest = wave / (1 + row["z"])
        near = (np.abs(rest / line - 1) < 0.02) & (row["ivar"] > 0)
        beside = (rest > 1275) & (rest < 1295) & (row["ivar"] > 0)
        smooth = np.convolve(row["flux"], np.ones(15) / 15, "same")
        assert smooth[near].max() > 1.5 * np.median(row["flux"][beside])
        assert abs(rest[near][np.argmax(smooth[near])] / line - 1) < 0.012


def test_the_path_counts_where_a_real_header_says_another_survey(shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "healpix/main/dark/91/9144"
    folder.mkdir(parents=True)
    real = shared_data / "real/desi/edr/spectro/redux/fuji/healpix/main/dark/91/9144/coadd-main-dark-9144.fits"
    (folder / real.name).symlink_to(real)
    source = shared_data / "release/spectro/redux/iron/healpix/sv3/dark/91/9144"
    (folder / "redrock-main-dark-9144.fits").symlink_to(source / "redrock-sv3-dark-9144.fits")
    config = load_config(None, {"paths.root": str(tmp_path / "w"), "extract.source": str(tmp_path)}, environ={})
    result = extract(config, RunOptions(jobs=1))
    # this real coadd is trimmed: its FIBERMAP holds nothing but TARGETID, and redrock's copy has the positions
    assert result.failures == ()
    assert result.counts["rows_out"] == 1
    assert result.details["notes"] == ["main/dark/9144: its header says SURVEY = sv3, its path main"]
    table = read_table(result.paths[0], SPECTRA, ["targetid", "survey", "ra", "ebv", "objtype"])
    row = pl.from_arrow(table).to_dicts()[0]
    assert (row["targetid"], row["survey"], row["ebv"], row["objtype"]) == (39632936152073654, "main", None, None)
