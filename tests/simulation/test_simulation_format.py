"""The files of a simulated release are those of DR1, HDU by HDU and column by column."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from qad.desi import datamodel, layout
from qad.simulation.instrument import convolve, kernel, resolution
from qad.simulation.release import simulate
from qad.work.units import Pixel

IRON_TILE = "real/desi/dr1/spectro/redux/iron/tiles/cumulative/80613/20210324"
UNPUBLISHED = {"ENCODING", "CHECKSUM", "DATASUM", "TDIM6"}


def structure(path: Path) -> list[tuple]:
    """Return name, type, rank and pixel or column formats of each HDU, whatever its number of rows."""
    with fits.open(path) as hdus:
        found = []
        for hdu in hdus:
            if hdu.data is None:
                found.append((hdu.name, "primary"))
            elif hdu.is_image:
                shape = hdu.shape[1:] if hdu.data.ndim > 1 else hdu.shape
                units = hdu.header.get("BUNIT")
                found.append((hdu.name, hdu.header["BITPIX"], hdu.data.ndim, shape, units, "BZERO" in hdu.header))
            else:
                found.append((hdu.name, tuple((c.name, c.format, c.unit, c.null) for c in hdu.columns)))
        return found


def files(release: Path, kind: str) -> list[Path]:
    """Return the coadd or redrock files of a release, sorted."""
    return sorted(release.rglob(f"{kind}-*.fits"))


@pytest.mark.parametrize("kind", ["coadd", "redrock"])
def test_main_survey_files_have_the_structure_of_dr1(small_release: Path, real_release: Path, kind: str) -> None:
    real = next(path for path in files(real_release, kind) if path.name == f"{kind}-main-dark-47.fits")
    for path in files(small_release, kind):
        assert structure(path) == structure(real)


@pytest.mark.parametrize("kind", ["coadd", "redrock"])
@pytest.mark.parametrize("survey", ["sv1", "sv3"])
def test_survey_validation_files_carry_their_own_target_bits(
    tmp_path: Path, real_release: Path, kind: str, survey: str
) -> None:
    simulate(tmp_path, quasars=2, healpix=1, survey=survey)
    real = next(path for path in files(real_release, kind) if f"-{survey}-" in path.name)
    assert structure(files(tmp_path, kind)[0]) == structure(real)


def test_without_resolution_the_hdus_are_those_of_the_real_file_without(tmp_path: Path, real_release: Path) -> None:
    simulate(tmp_path, quasars=2, healpix=1, program="bright", resolution=False)
    real = next(path for path in files(real_release, "coadd") if path.name == "coadd-main-bright-47.fits")
    assert structure(files(tmp_path, "coadd")[0]) == structure(real)


def test_shared_columns_have_the_formats_of_the_genuine_iron_pair(small_release: Path, shared_data: Path) -> None:
    for kind in ("coadd", "redrock"):
        real = next((shared_data / IRON_TILE).glob(f"{kind}-*.fits"))
        with fits.open(real) as iron, fits.open(files(small_release, kind)[0]) as made:
            assert [hdu.name for hdu in made] == [hdu.name for hdu in iron]
            for hdu in made[1:]:
                if hdu.is_image:
                    assert hdu.data.dtype == iron[hdu.name].data.dtype
                    assert hdu.data.ndim == iron[hdu.name].data.ndim
                    assert hdu.header.get("BUNIT") == iron[hdu.name].header.get("BUNIT")
                else:
                    formats = {column.name: column.format for column in iron[hdu.name].columns}
                    shared = [column for column in hdu.columns if column.name in formats]
                    assert len(shared) >= len(hdu.columns) - 1  # SCND_TARGET is that of healpix files
                    assert all(column.format == formats[column.name] for column in shared)


def test_primary_header_names_pixel_and_production(small_release: Path) -> None:
    for path in files(small_release, "coadd"):
        _, pixel = layout.parse_file_name(path.name) or pytest.fail(f"{path.name} is no name of DESI's")
        header = fits.getheader(path)
        assert (header["SPGRP"], header["SPGRPVAL"], header["HPXPIXEL"]) == ("healpix", pixel.healpix, pixel.healpix)
        assert (header["HPXNSIDE"], header["HPXNEST"]) == (64, "True")
        assert (header["SURVEY"], header["PROGRAM"]) == (pixel.survey, pixel.program)
        names = {header[key]: header[f"DEPVER{key[6:]}"] for key in header if key.startswith("DEPNAM")}
        assert names["SPECPROD"] == "iron"


@pytest.mark.filterwarnings("error")
def test_every_hdu_passes_its_checksums_and_the_standard(small_release: Path) -> None:
    for path in small_release.rglob("*.fits"):
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
            for hdu in hdus:
                assert hdu.verify_checksum() == 1
                assert hdu.verify_datasum() == 1


def test_checksum_lists_hold_for_their_folders(small_release: Path) -> None:
    healpix = layout.locate_healpix(small_release)
    pixels = layout.find_pixels(healpix)
    assert {pixel.program for pixel in pixels} == {"dark", "bright"}
    for pixel in pixels:
        folder = layout.pixel_folder(healpix, pixel)
        lines = (folder / layout.checksum_name(pixel)).read_text().splitlines()
        listed = dict(reversed(line.split("  ")) for line in lines)
        assert set(listed) == {layout.coadd_name(pixel), layout.redrock_name(pixel)}
        for name, digest in listed.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_wavelengths_are_those_of_the_merged_grid(small_release: Path) -> None:
    with fits.open(files(small_release, "coadd")[0]) as hdus:
        for camera, first in datamodel.CAMERA_FIRST.items():
            wave = hdus[f"{camera.upper()}_WAVELENGTH"].data
            assert np.allclose(wave, 3600 + 0.8 * (first + np.arange(datamodel.CAMERA_PIXELS[camera])), atol=1e-6)
            assert wave[0] == pytest.approx(datamodel.CAMERA_START[camera])


def test_tables_list_the_same_targets_in_the_same_order(small_release: Path) -> None:
    for coadd, redrock in zip(files(small_release, "coadd"), files(small_release, "redrock"), strict=True):
        with fits.open(coadd) as one, fits.open(redrock) as two:
            targetid = one["FIBERMAP"].data["TARGETID"]
            assert len(set(targetid.tolist())) == len(targetid)
            for table in (one["SCORES"], two["REDSHIFTS"], two["FIBERMAP"], two["TSNR2"]):
                assert np.array_equal(table.data["TARGETID"], targetid)
            assert set(one["EXP_FIBERMAP"].data["TARGETID"]) == set(targetid)
            assert len(one["B_FLUX"].data) == len(targetid)


@pytest.mark.parametrize("camera", ["b", "r", "z"])
def test_resolution_bands_act_as_the_convolution_and_keep_a_constant(camera: str) -> None:
    from scipy.sparse import dia_matrix

    bands = resolution(camera, 5)
    n_wave = datamodel.CAMERA_PIXELS[camera]
    matrix = dia_matrix((bands, np.arange(5, -6, -1)), shape=(n_wave, n_wave))
    assert np.allclose(matrix @ np.ones(n_wave), 1.0, atol=1e-5)
    flux = np.random.default_rng(1).normal(size=n_wave)
    assert np.allclose(matrix @ flux, convolve(flux, camera, 5), atol=1e-5)
    assert np.allclose(kernel(camera, 0).sum(axis=1), 1.0)


def test_resolution_widths_are_those_of_desi() -> None:
    """R rises from about 2000 at 3600 Å to 5500 at 9800 Å."""
    offsets = np.arange(-5, 6)
    for camera, place, low, high in (("b", 0, 1600, 2400), ("z", 2870, 4800, 6200)):
        shares = kernel(camera, 8)[min(max(place, 10), len(kernel(camera, 8)) - 10)]
        fwhm = 2.355 * 0.8 * np.sqrt(shares @ offsets**2)
        wave = datamodel.CAMERA_START[camera] + 0.8 * place
        assert low < wave / fwhm < high


def test_positions_lie_in_their_pixel(small_release: Path) -> None:
    from astropy_healpix import lonlat_to_healpix

    for path in files(small_release, "coadd"):
        fibermap = fits.getdata(path, "FIBERMAP")
        from astropy import units

        ra, dec = fibermap["TARGET_RA"] * units.deg, fibermap["TARGET_DEC"] * units.deg
        assert set(lonlat_to_healpix(ra, dec, 64, order="nested")) == {fits.getheader(path)["HPXPIXEL"]}


def test_tilepix_lists_every_pixel(small_release: Path) -> None:
    path = layout.locate_healpix(small_release) / "tilepix.fits"
    table = fits.getdata(path, "TILEPIX")
    header = fits.getheader(path, "TILEPIX")
    assert header["HPXNSIDE"] == 64
    assert header["HPXNEST"] is True
    listed = {Pixel(s, p, int(h)) for s, p, h in zip(table["SURVEY"], table["PROGRAM"], table["HEALPIX"], strict=True)}
    assert listed == set(layout.find_pixels(layout.locate_healpix(small_release)))
