"""Coadd and redrock files: real ones of four productions, and what they may lack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from qad.desi.coadd import CoaddFile
from qad.desi.columns import TEXT, first_rows
from qad.desi.redrock import read_redshifts
from qad.errors import InputError

EDR = "real/desi/edr/spectro/redux/fuji/healpix"
STARTS = {"b": 0, "r": 2700, "z": 4900}


def test_a_trimmed_fuji_coadd_reads_with_null_columns(shared_data: Path) -> None:
    path = shared_data / EDR / "sv3/dark/91/9144/coadd-sv3-dark-9144.fits"
    with CoaddFile(path) as coadd, fits.open(path) as expected:
        assert coadd.targetid.tolist() == [39632936152072660, 39632936152073654]
        assert coadd.fibermap({"OBJTYPE": TEXT, "EBV": np.float32}) == {"OBJTYPE": None, "EBV": None}
        assert coadd.first_exposures({"NIGHT": np.int32}, coadd.targetid) == {"NIGHT": None}
        for name, start in STARTS.items():
            camera = coadd.camera(name, np.array([1, 0]))
            assert camera is not None
            assert camera.start == start
            for part in ("flux", "ivar", "mask"):
                stored = expected[f"{name}_{part}"].data[[1, 0]]
                np.testing.assert_array_equal(getattr(camera, part), stored)


def test_dead_rows_and_first_exposures_of_a_real_fibermap(shared_data: Path) -> None:
    path = shared_data / EDR / "sv3/dark/260/26065/coadd-sv3-dark-26065.fits"
    with CoaddFile(path) as coadd, fits.open(path) as expected:
        dead = coadd.camera("b", np.array([0, 1, 3]))
        assert dead is not None
        assert dead.mask is not None
        assert not dead.ivar.any()
        assert not dead.mask.any()
        assert coadd.targetid[0] < 0
        exposures = expected["EXP_FIBERMAP"].data
        found = coadd.first_exposures({"FIBER": np.int32, "NIGHT": np.int32}, coadd.targetid)
        for row, targetid in enumerate(coadd.targetid):
            first = exposures[exposures["TARGETID"] == targetid][0]
            assert (found["FIBER"][row], found["NIGHT"][row]) == (first["FIBER"], first["NIGHT"])
        absent = coadd.first_exposures({"FIBER": np.int32}, np.array([1]))["FIBER"]
        assert np.ma.getmaskarray(absent).all()


def test_scores_and_production_of_a_real_iron_coadd(real_release: Path) -> None:
    path = real_release / "spectro/redux/iron/healpix/main/dark/0/47/coadd-main-dark-47.fits"
    with CoaddFile(path) as coadd, fits.open(path) as expected:
        wanted = coadd.targetid[::-1]
        found = coadd.scores({"TSNR2_LYA": np.float32, "TSNR2_ABSENT": np.float32}, wanted)
        np.testing.assert_array_equal(found["TSNR2_LYA"], expected["SCORES"].data["TSNR2_LYA"][::-1])
        assert found["TSNR2_ABSENT"] is None
        assert coadd.specprod() == "iron"
        assert coadd.header_text("SURVEY") == "main"


def test_a_coadd_without_fibermap_is_refused(shared_data: Path) -> None:
    with pytest.raises(InputError, match="FIBERMAP is missing"):
        CoaddFile(shared_data / "real/desi/other/quasarnp_test_coadd.fits")


def test_redshifts_of_three_productions(shared_data: Path) -> None:
    iron = read_redshifts(
        shared_data
        / "real/desi/dr1/spectro/redux/iron/tiles/cumulative/80613/20210324/redrock-4-80613-thru20210324.fits"
    )
    assert iron.spectype == ["GALAXY"]
    assert iron.z[0] == pytest.approx(0.36874, abs=1e-5)
    loa = read_redshifts(
        shared_data / "real/desi/dr2/spectro/redux/loa/healpix/special/dark/272/27247/redrock-special-dark-27247.fits"
    )
    assert loa.coeff is not None
    assert loa.coeff.shape == (1, 10)
    test = read_redshifts(shared_data / "real/desi/other/redrock-0-100-thru20210505-test.fits")
    assert test.zwarn[0] == 1
    assert len(test.targetid) == 3


def write_redrock(path: Path, **changes: fits.Column | None) -> None:
    columns = {
        "TARGETID": fits.Column("TARGETID", "K", array=np.array([7, 8])),
        "Z": fits.Column("Z", "D", array=np.array([2.1, np.nan])),
        "ZWARN": fits.Column("ZWARN", "K", array=np.array([0, 4])),
        "SPECTYPE": fits.Column("SPECTYPE", "6A", array=["QSO", "GALAXY"]),
        "COEFF": fits.Column("COEFF", "4D", array=np.arange(8.0).reshape(2, 4)),
    } | changes
    table = fits.BinTableHDU.from_columns([column for column in columns.values() if column], name="REDSHIFTS")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)


def test_short_coefficients_are_padded_and_absent_columns_are_none(tmp_path: Path) -> None:
    path = tmp_path / "redrock.fits"
    write_redrock(path)
    found = read_redshifts(path)
    assert found.coeff is not None
    assert found.coeff.tolist() == [[0, 1, 2, 3, *[0] * 6], [4, 5, 6, 7, *[0] * 6]]
    assert found.subtype is None
    assert found.optional == {}
    assert np.isnan(found.z[1])
    write_redrock(path, COEFF=None)
    assert read_redshifts(path).coeff is None
    write_redrock(path, COEFF=fits.Column("COEFF", "D", array=np.array([1.0, 2.0])))
    assert read_redshifts(path).coeff[:, :2].tolist() == [[1, 0], [2, 0]]  # type: ignore[index]


@pytest.mark.parametrize("name", ["TARGETID", "Z", "ZWARN", "SPECTYPE"])
def test_a_redrock_file_without_a_needed_column_is_refused(tmp_path: Path, name: str) -> None:
    write_redrock(tmp_path / "redrock.fits", **{name: None})
    with pytest.raises(InputError, match=f"REDSHIFTS: column {name} is missing"):
        read_redshifts(tmp_path / "redrock.fits")


def write_coadd(path: Path, edit: Callable[[dict[str, fits.ImageHDU]], object]) -> None:
    """Write a coadd with two rows and short cameras."""
    fibermap = fits.BinTableHDU.from_columns([fits.Column("TARGETID", "K", array=np.array([7, 8]))], name="FIBERMAP")
    hdus = {}
    for camera, start in STARTS.items():
        prefix = camera.upper()
        hdus[f"{prefix}_WAVELENGTH"] = fits.ImageHDU(3600 + 0.8 * np.arange(start, start + 30))
        for what in ("FLUX", "IVAR"):
            hdus[f"{prefix}_{what}"] = fits.ImageHDU(np.ones((2, 30), np.float32))
        hdus[f"{prefix}_MASK"] = fits.ImageHDU(np.zeros((2, 30), np.int32))
    edit(hdus)
    for name, hdu in hdus.items():
        hdu.name = name
    fits.HDUList([fits.PrimaryHDU(), fibermap, *hdus.values()]).writeto(path, overwrite=True)


def test_a_missing_camera_is_none(tmp_path: Path) -> None:
    def edit(hdus: dict[str, fits.ImageHDU]) -> None:
        for name in [name for name in hdus if name.startswith("Z_")]:
            del hdus[name]

    write_coadd(tmp_path / "coadd.fits", edit)
    with CoaddFile(tmp_path / "coadd.fits") as coadd:
        assert coadd.cameras == ("b", "r")
        assert coadd.camera("z", np.array([0])) is None
        assert coadd.scores({"TSNR2_QSO": np.float32}, coadd.targetid) == {"TSNR2_QSO": None}


@pytest.mark.parametrize("missing", ["B_MASK", "B_MASK R_MASK", "Z_ B_MASK R_MASK", "B_MASK R_MASK Z_MASK"])
def test_masks_may_lack_in_a_whole_file_alone(tmp_path: Path, missing: str) -> None:
    """A file that lacks some was cut or damaged, and pixels that were bad would count."""

    def edit(hdus: dict[str, fits.ImageHDU]) -> None:
        for name in [name for name in hdus if name.startswith(tuple(missing.split()))]:
            del hdus[name]

    write_coadd(tmp_path / "coadd.fits", edit)
    if missing == "B_MASK R_MASK Z_MASK":
        with CoaddFile(tmp_path / "coadd.fits") as coadd:
            camera = coadd.camera("b", np.array([0]))
            assert camera is not None
            assert camera.mask is None
    else:
        with pytest.raises(InputError, match="B_MASK is missing"):
            CoaddFile(tmp_path / "coadd.fits")


@pytest.mark.parametrize(("hdu", "dtype"), [("B_FLUX", np.int32), ("R_IVAR", np.int32), ("Z_MASK", np.float32)])
def test_an_image_of_another_kind_of_number_is_refused(tmp_path: Path, hdu: str, dtype: Any) -> None:
    def edit(hdus: dict[str, fits.ImageHDU]) -> None:
        hdus[hdu] = fits.ImageHDU(hdus[hdu].data.astype(dtype))

    write_coadd(tmp_path / "coadd.fits", edit)
    with pytest.raises(InputError, match=f"{hdu}: holds"):
        CoaddFile(tmp_path / "coadd.fits")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("B_FLUX", "B_FLUX is missing while"),
        ("R_IVAR", "R_IVAR is missing"),
        ("Z_WAVELENGTH", "Z_WAVELENGTH is missing"),
    ],
)
def test_half_a_camera_is_refused_not_taken_for_a_missing_one(tmp_path: Path, name: str, reason: str) -> None:
    write_coadd(tmp_path / "coadd.fits", lambda hdus: hdus.pop(name))  # type: ignore[arg-type,return-value]
    with pytest.raises(InputError, match=reason):
        CoaddFile(tmp_path / "coadd.fits")


def test_a_coadd_without_any_camera_is_refused(tmp_path: Path) -> None:
    write_coadd(tmp_path / "coadd.fits", lambda hdus: hdus.clear())
    with pytest.raises(InputError, match="holds no camera"):
        CoaddFile(tmp_path / "coadd.fits")


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (3600 + 0.8 * np.arange(30) + 0.01, "not on DESI's grid"),
        (3600 + 0.81 * np.arange(30), "not on DESI's grid"),
        (3500 + 0.8 * np.arange(30), "not on DESI's grid"),
        (9820 + 0.8 * np.arange(30), "not on DESI's grid"),
        ((3600 + 0.8 * np.arange(30))[::-1], "not on DESI's grid"),
        (np.full(30, np.nan), "not finite"),
        (np.full(30, 1e300), "not on DESI's grid"),
        (np.zeros((2, 30)), "expected one axis"),
    ],
)
def test_wavelengths_off_the_grid_are_refused(tmp_path: Path, wave: np.ndarray, reason: str) -> None:
    def edit(hdus: dict[str, fits.ImageHDU]) -> None:
        hdus["B_WAVELENGTH"] = fits.ImageHDU(wave)

    write_coadd(tmp_path / "coadd.fits", edit)
    with pytest.raises(InputError, match=reason):
        CoaddFile(tmp_path / "coadd.fits")


def test_rounding_noise_of_wavelengths_is_accepted(tmp_path: Path) -> None:
    def edit(hdus: dict[str, fits.ImageHDU]) -> None:
        hdus["B_WAVELENGTH"] = fits.ImageHDU(3600 + 0.8 * np.arange(30) + 5e-5)

    write_coadd(tmp_path / "coadd.fits", edit)
    with CoaddFile(tmp_path / "coadd.fits") as coadd:
        assert coadd.cameras == ("b", "r", "z")


@pytest.mark.parametrize("shape", [(3, 30), (2, 29), (2, 30, 1), (60,)])
def test_planes_that_do_not_fit_the_fibermap_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    def edit(hdus: dict[str, fits.ImageHDU]) -> None:
        hdus["R_IVAR"] = fits.ImageHDU(np.zeros(shape, np.float32))

    write_coadd(tmp_path / "coadd.fits", edit)
    with pytest.raises(InputError, match="R_IVAR: has shape"):
        CoaddFile(tmp_path / "coadd.fits")


@given(
    targetid=st.lists(st.integers(-5, 5), max_size=12),
    wanted=st.lists(st.integers(-6, 6), max_size=12),
)
def test_first_rows_are_the_first(targetid: list[int], wanted: list[int]) -> None:
    found = first_rows(np.array(targetid, np.int64), np.array(wanted, np.int64))
    assert found.tolist() == [targetid.index(item) if item in targetid else -1 for item in wanted]
