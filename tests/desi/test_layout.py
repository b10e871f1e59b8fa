"""Paths and keys of a release."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qad.desi import layout
from qad.errors import InputError
from qad.work.units import Pixel

PIXELS = st.builds(
    Pixel, st.sampled_from(layout.SURVEYS), st.sampled_from(layout.PROGRAMS), st.integers(0, layout.N_PIXELS - 1)
)


@pytest.mark.parametrize(
    ("pixel", "key"),
    [
        (Pixel("main", "dark", 47), "dr1/healpix/main/dark/0/47"),
        (Pixel("sv3", "bright", 9144), "dr1/healpix/sv3/bright/91/9144"),
        (Pixel("main", "dark", 23040), "dr1/healpix/main/dark/230/23040"),
    ],
)
def test_group_is_an_integer_division_and_numbers_are_not_padded(pixel: Pixel, key: str) -> None:
    assert layout.pixel_key("dr1/healpix", pixel) == key
    assert layout.pixel_key("dr1/healpix/", pixel) == key
    assert layout.pixel_folder(Path("/x"), pixel) == Path("/x") / key.removeprefix("dr1/healpix/")


def test_names_are_those_of_the_release(real_release: Path) -> None:
    healpix = real_release / "spectro/redux/iron/healpix"
    for pixel in layout.find_pixels(healpix):
        folder = layout.pixel_folder(healpix, pixel)
        expected = {layout.coadd_name(pixel), layout.redrock_name(pixel), layout.checksum_name(pixel)}
        assert expected == {path.name for path in folder.iterdir()}


def test_all_pixels_of_the_release_are_found_sorted(real_release: Path) -> None:
    found = layout.find_pixels(layout.locate_healpix(real_release))
    assert [str(pixel) for pixel in found] == [
        "main/bright/47",
        "main/dark/47",
        "sv1/bright/7108",
        "sv1/dark/8139",
        "sv3/dark/9144",
        "sv3/dark/26065",
    ]


@given(pixel=PIXELS)
def test_names_tell_the_pixel_they_were_made_from(pixel: Pixel) -> None:
    assert layout.parse_file_name(layout.coadd_name(pixel)) == ("coadd", pixel)
    assert layout.parse_file_name(layout.redrock_name(pixel)) == ("redrock", pixel)
    assert layout.parse_pixel_key(layout.pixel_key("any/prefix", pixel)) == pixel


@pytest.mark.parametrize(
    "name",
    [
        "coadd-main-dark-047.fits",
        "coadd-main-dark-49152.fits",
        "coadd-main-dark-47.fits.gz",
        "coadd-main-dark--47.fits",
        "coadd-../../etc-dark-47.fits",
        "coadd-4-80613-thru20210324.fits",
        "coadd-main-dark-47.fits\n",
        "spectra-main-dark-47.fits",
    ],
)
def test_other_file_names_are_no_pixel(name: str) -> None:
    assert layout.parse_file_name(name) is None


@pytest.mark.parametrize(
    "key", ["main/dark/1/47", "main/dark/0/047", "main/dark/0", "../dark/0/47", "Main/dark/0/47", "main/dark/0/x"]
)
def test_other_folders_are_no_pixel(key: str) -> None:
    assert layout.parse_pixel_key(key) is None


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "healpix",
        "iron/healpix",
        "redux/iron/healpix",
        "spectro/redux/iron/healpix",
        "dr1/spectro/redux/iron/healpix",
    ],
)
def test_a_release_is_found_from_any_of_its_folders(tmp_path: Path, inside: str) -> None:
    healpix = tmp_path / inside
    (healpix / "main" / "dark" / "0" / "47").mkdir(parents=True)
    assert layout.locate_healpix(tmp_path) == healpix


def test_an_empty_folder_named_healpix_is_accepted_and_holds_no_pixel(tmp_path: Path) -> None:
    (tmp_path / "healpix").mkdir()
    assert layout.find_pixels(layout.locate_healpix(tmp_path)) == []


def test_a_folder_without_a_release_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="spectro/redux/<specprod>/healpix"):
        layout.locate_healpix(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        layout.locate_healpix(tmp_path / "absent")


def test_two_productions_must_be_told_apart(tmp_path: Path) -> None:
    for specprod in ("fuji", "iron"):
        (tmp_path / "spectro/redux" / specprod / "healpix").mkdir(parents=True)
    with pytest.raises(InputError, match="more than one production"):
        layout.locate_healpix(tmp_path)


def test_strange_folders_and_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("main/dark/0/47", "main/dark/1/47", "main/dark/0/.tmp", "main/dark/x/48", ".git/dark/0/47"):
        (tmp_path / "healpix" / name).mkdir(parents=True)
    (tmp_path / "healpix" / "tilepix.fits").write_bytes(b"x")
    assert layout.find_pixels(tmp_path / "healpix") == [Pixel("main", "dark", 47)]


def test_specprod_is_read_from_the_path() -> None:
    assert layout.specprod_of(Path("/d/dr1/spectro/redux/iron/healpix")) == "iron"
    assert layout.specprod_of(Path("/d/raw/dr1/healpix")) == ""
