"""Damaged and hostile inputs: the unit fails by name, the others are done, and nothing is half written."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from astropy.io import fits

from qad.desi.cards import header_block
from qad.desi.fits import FitsFile
from qad.errors import InputError
from qad.extraction import identity
from qad.extraction.healpix import extract_pixel
from qad.schema import SPECTRA
from qad.settings import Extract
from qad.storage.parquet import read_table, vectors
from qad.work.units import Pixel

PIXEL, OTHER = Pixel("main", "dark", 47), Pixel("main", "dark", 9144)


def frame(path: Path) -> pl.DataFrame:
    names = [column.name for column in SPECTRA.columns if not column.is_vector]
    return pl.DataFrame(pl.from_arrow(read_table(path, SPECTRA, names)))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 16
    path.write_bytes(raw)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut off": (cut, "cut off"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "html": (lambda path: path.write_text("<html>" * 1000), "HTML"),
    "not fits": (lambda path: path.write_text("no" * 4000), "not a FITS file"),
    "flipped bit": (flip, "damaged"),
    "gone": (lambda path: path.unlink(), "no such file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "no such file"),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("which", ["coadd", "redrock"])
def test_a_damaged_file_fails_its_unit_by_name_and_the_others_are_done(kit: Any, name: str, which: str) -> None:
    damage, reason = DAMAGE[name]
    paths = dict(zip(("coadd", "redrock"), kit.release.add(PIXEL), strict=True))
    kit.release.add(OTHER)
    damage(paths[which])
    result = kit.extract()
    assert [failure.unit for failure in result.failures] == ["main/dark/47"]
    assert reason in result.failures[0].reason
    assert paths[which].name in result.failures[0].reason
    assert [path.name for path in result.paths] == ["main-dark-9144.parquet"]
    assert {path.name for path in (kit.folder / "work/spectra").iterdir()} == {"main-dark-9144.parquet"}


def test_damage_in_an_hdu_that_is_never_read_is_found_where_nobody_vouches_for_the_file(kit: Any) -> None:
    def edit(coadd: dict[str, Any], _: dict[str, Any]) -> None:
        coadd["B_RESOLUTION"] = fits.ImageHDU(np.ones((3, 2, 2751), np.float32))

    coadd, _ = kit.release.add(PIXEL, edit=edit)
    raw = bytearray(coadd.read_bytes())
    with FitsFile(coadd) as file:
        raw[file.hdu("B_RESOLUTION").offset + 100] ^= 1
    coadd.write_bytes(raw)
    assert "B_RESOLUTION: the data do not match" in kit.extract().failures[0].reason
    assert kit.extract(verify_datasum=False).failures == ()


def test_a_table_of_an_earlier_run_stays_and_is_told(kit: Any) -> None:
    coadd, _ = kit.release.add(PIXEL)
    before = kit.extract().paths[0].read_bytes()
    cut(coadd)
    result = kit.extract()
    assert "main-dark-47.parquet of an earlier run stays" in result.failures[0].reason
    assert (kit.folder / "work/spectra/main-dark-47.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("hdu", "reason"),
    [
        ("FIBERMAP", "FIBERMAP is missing"),
        ("R_FLUX", "R_FLUX is missing"),
        ("REDSHIFTS", "REDSHIFTS is missing"),
    ],
)
def test_a_missing_hdu_is_named(kit: Any, hdu: str, reason: str) -> None:
    kit.release.add(PIXEL, edit=lambda coadd, redrock: (coadd.pop(hdu, None), redrock.pop(hdu, None)))
    assert reason in kit.extract().failures[0].reason


def test_an_hdu_name_that_stands_twice_is_refused(kit: Any) -> None:
    def edit(coadd: dict[str, Any], _: dict[str, Any]) -> None:
        coadd["AGAIN"] = coadd["B_FLUX"].copy()
        coadd["AGAIN"].header["EXTNAME"] = "B_FLUX"

    kit.release.add(PIXEL, edit=edit)
    assert "B_FLUX stands twice" in kit.extract().failures[0].reason


def test_the_order_of_hdus_does_not_matter(kit: Any) -> None:
    def shuffle(coadd: dict[str, Any], redrock: dict[str, Any]) -> None:
        for hdus in (coadd, redrock):
            names = list(hdus)[1:]
            random.Random(3).shuffle(names)
            for name in names:
                hdus[name] = hdus.pop(name)

    kit.release.add(PIXEL)
    plain = read_table(kit.extract("plain").paths[0], SPECTRA)
    kit.release.add(PIXEL, edit=shuffle)
    assert read_table(kit.extract("shuffled").paths[0], SPECTRA).equals(plain)


@pytest.mark.parametrize("form", ["unsigned", "tiled", "absent", "scaled"])
def test_every_form_of_mask_that_desi_has_used_gives_the_same_spectra(kit: Any, form: str) -> None:
    def edit(coadd: dict[str, Any], _: dict[str, Any]) -> None:
        for camera in "BRZ":
            mask = coadd[f"{camera}_MASK"].data
            if form == "absent":
                coadd[f"{camera}_IVAR"].data[mask != 0] = 0
                del coadd[f"{camera}_MASK"]
            elif form == "tiled":
                coadd[f"{camera}_MASK"] = fits.CompImageHDU(mask)
            else:
                coadd[f"{camera}_MASK"] = fits.ImageHDU(mask.astype(np.uint32 if form == "unsigned" else np.int64))

    kit.release.add(PIXEL)
    plain = read_table(kit.extract("plain").paths[0], SPECTRA)
    kit.release.add(PIXEL, edit=edit)
    assert read_table(kit.extract("other").paths[0], SPECTRA).equals(plain)


def test_values_that_cannot_be_lose_their_pixel_only_and_are_counted(kit: Any) -> None:
    bad = {"B_FLUX": np.nan, "R_FLUX": np.inf, "Z_FLUX": -np.inf, "B_IVAR": -1.0, "R_IVAR": np.inf, "Z_IVAR": np.nan}
    place = {name: 260 + 20 * i for i, name in enumerate(bad)}

    def edit(coadd: dict[str, Any], _: dict[str, Any]) -> None:
        for name, value in bad.items():
            coadd[name].data[0, place[name]] = value

    kit.release.add(PIXEL)
    plain = read_table(kit.extract("plain").paths[0], SPECTRA)
    kit.release.add(PIXEL, edit=edit)
    result = kit.extract("bad")
    spoilt = read_table(result.paths[0], SPECTRA)
    assert result.counts["pixels_impossible"] == 6
    pixels = [kit.CAMERAS[name[0]][0] + place[name] for name in bad]
    for name in ("flux", "ivar"):
        before, after = vectors(plain, name), vectors(spoilt, name)
        assert np.isfinite(after).all()
        assert not after[0, pixels].any()
        others = np.setdiff1d(np.arange(7781), pixels)
        np.testing.assert_array_equal(before[0, others], after[0, others])
        np.testing.assert_array_equal(before[1], after[1])
    assert (vectors(spoilt, "ivar") >= 0).all()


def test_huge_numbers_stay_finite(kit: Any) -> None:
    def edit(coadd: dict[str, Any], _: dict[str, Any]) -> None:
        for camera in "BRZ":
            coadd[f"{camera}_FLUX"].data[:] = 3e38
            coadd[f"{camera}_IVAR"].data[:] = 3e38

    kit.release.add(PIXEL, edit=edit)
    table = read_table(kit.extract().paths[0], SPECTRA)
    assert np.isfinite(vectors(table, "flux")).all()
    assert np.isfinite(vectors(table, "ivar")).all()
    assert np.isfinite(table.column("snr").to_numpy()).all()


def test_a_dead_row_is_dropped_with_its_reason(kit: Any) -> None:
    def edit(coadd: dict[str, Any], _: dict[str, Any]) -> None:
        for camera in "BRZ":
            for what in ("FLUX", "IVAR", "MASK"):
                coadd[f"{camera}_{what}"].data[0] = 0

    kit.release.add(PIXEL, edit=edit)
    result = kit.extract()
    assert result.counts == {"rows_in": 3, "dropped.no_data": 1, "dropped.spectype": 1, "rows_out": 1}
    assert frame(result.paths[0])["targetid"].to_list() == [kit.SECOND.targetid]


def test_a_row_without_a_position_is_dropped_with_its_reason(kit: Any) -> None:
    bad = [{"ra": float("nan")}, {"ra": -0.5}, {"ra": 1e6}, {"dec": 91.0}, {"dec": float("inf")}]
    targets = [kit.Target(100 + i, **place) for i, place in enumerate(bad)]
    kit.release.add(PIXEL, [*targets, kit.Target(99)])
    result = kit.extract()
    assert result.counts == {"rows_in": 6, "dropped.bad_position": 5, "rows_out": 1}


def test_a_camera_missing_for_the_whole_file_is_null(kit: Any) -> None:
    def edit(coadd: dict[str, Any], _: dict[str, Any]) -> None:
        for name in [name for name in coadd if name.startswith("B_")]:
            del coadd[name]

    kit.release.add(PIXEL, edit=edit)
    path = kit.extract().paths[0]
    assert frame(path)["snr_b"].to_list() == [None, None]
    assert frame(path)["snr_z"].null_count() == 0
    assert not vectors(read_table(path, SPECTRA), "ivar")[:, :2700].any()


def test_hostile_text_is_kept_as_data(kit: Any) -> None:
    evil = "\x1b[2J<script>'\""
    kit.release.add(PIXEL, [kit.replace(kit.QUASAR, subtype=evil)])
    assert frame(kit.extract().paths[0])["subtype"].to_list() == [evil]


def test_missing_tables_and_columns_are_null(kit: Any) -> None:
    def edit(coadd: dict[str, Any], redrock: dict[str, Any]) -> None:
        del coadd["EXP_FIBERMAP"], coadd["SCORES"]
        table = coadd["FIBERMAP"].data
        kept = ("TARGETID", "TARGET_RA", "TARGET_DEC")
        columns = [kit.column(name, "D" if name != "TARGETID" else "K", table[name]) for name in kept]
        coadd["FIBERMAP"] = fits.BinTableHDU.from_columns(columns)

    kit.release.add(PIXEL, edit=edit)
    found = frame(kit.extract().paths[0])
    assert found.height == 2
    for name in ("objtype", "ebv", "fiber", "tsnr2_qso", "chi2", "coadd_numexp"):
        assert found[name].null_count() == 2
    assert found["coadd_fiberstatus"].to_list() == [0, 0]


def test_a_file_of_no_rows_is_an_empty_table(kit: Any) -> None:
    kit.release.add(PIXEL, [])
    result = kit.extract()
    assert result.failures == ()
    assert read_table(result.paths[0], SPECTRA).num_rows == 0


def test_only_our_error_leaves_a_mutated_pair(kit: Any) -> None:
    """Flipped bytes in the headers of files without checksums: refused, or read as the tables they still are."""
    coadd, redrock = kit.release.add(PIXEL)
    for path, make in ((coadd, kit.coadd_hdus), (redrock, kit.redrock_hdus)):
        hdus = make(kit.TARGETS)
        for name in [name for name in hdus if name[:2] in ("R_", "Z_")]:
            del hdus[name]
        for name in [name for name in hdus if name.startswith("B_")]:
            data = hdus[name].data[..., :50]
            hdus[name] = fits.ImageHDU(data)
        kit.write_hdus(path, hdus)
    originals = {path: path.read_bytes() for path in (coadd, redrock)}
    chance = random.Random(99)
    n_read = 0
    for round_ in range(150):
        path = (coadd, redrock)[round_ % 2]
        raw = bytearray(originals[path])
        places = [i for i in range(len(raw)) if raw[i] not in (0, 32)]
        for place in chance.sample(places, 1 + round_ % 3):
            raw[place] ^= 1 << chance.randrange(8)
        path.write_bytes(raw)
        try:
            table = extract_pixel(PIXEL, coadd, redrock, Extract(verify_datasum=False)).table
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            n_read += 1
            assert np.isfinite(vectors(table, "flux")).all()
            assert table.schema.names == [column.name for column in SPECTRA.columns]
        path.write_bytes(originals[path])
    assert n_read > 10


@pytest.mark.parametrize("what", ["nothing behind its end", "an HDU of 50 GB"])
def test_a_file_whose_size_lies_is_refused_before_it_is_hashed(
    kit: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    coadd, _ = kit.release.add(PIXEL)
    if what == "an HDU of 50 GB":
        more = {"XTENSION": "IMAGE", "BITPIX": 8, "NAXIS": 1, "NAXIS1": 50 * 10**9, "PCOUNT": 0, "GCOUNT": 1}
        with coadd.open("ab") as file:
            file.write(header_block(more))
    size = coadd.stat().st_size + 50 * 10**9
    os.truncate(coadd, size + -size % 2880)
    monkeypatch.setattr(identity, "hash_file", lambda path: pytest.fail(f"{path} is hashed"))
    reason = kit.extract().failures[0].reason
    assert ("too large" if what == "an HDU of 50 GB" else "is not an HDU") in reason


@pytest.mark.parametrize(
    ("first", "second"), [("FIBERMAP", "SCORES"), ("FIBERMAP", "EXP_FIBERMAP"), ("B_FLUX", "B_IVAR")]
)
def test_hdus_with_each_others_names_are_refused(kit: Any, first: str, second: str) -> None:
    def edit(coadd: dict[str, Any], _: dict[str, Any]) -> None:
        columns = [kit.column("TARGETID", "K", [t.targetid for t in kit.TARGETS])]
        coadd["SCORES"] = fits.BinTableHDU.from_columns([*columns, kit.column("TSNR2_LRG", "E", [1.0] * 3)])
        coadd["EXP_FIBERMAP"] = fits.BinTableHDU.from_columns([*columns, kit.column("EXPID", "J", [1] * 3)])
        for camera in "BRZ":
            coadd[f"{camera}_FLUX"].header["BUNIT"] = "10**-17 erg/(s cm2 Angstrom)"
            coadd[f"{camera}_IVAR"].header["BUNIT"] = "10**+34 (s2 cm4 Angstrom2) / erg2"
        coadd[first].header["EXTNAME"], coadd[second].header["EXTNAME"] = second, first

    kit.release.add(PIXEL, edit=edit)
    assert "the names of HDUs are mixed up" in kit.extract().failures[0].reason
