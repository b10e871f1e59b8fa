"""The place that a TARGETID tells: against the rows of real files, and against the definition of bricks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.desi.sky import healpix_of
from qad.desi.targetid import (
    MARGIN_DEG,
    brick_bounds,
    brick_of,
    candidate_pixels,
    decode_targetid,
    n_bricks,
)

RA = st.floats(0, 360, exclude_max=True)
DEC = st.floats(-90, 90)


def encode(release: int, brickid: int, objid: int = 7, sky: int = 0, gaia: int = 0) -> int:
    return gaia << 60 | sky << 59 | release << 42 | brickid << 22 | objid


def pixels_of(targetid: int) -> set[int]:
    return set(candidate_pixels(np.array([targetid]))[1].tolist())


def real_rows(shared_data: Path) -> list[tuple[int, float, float, int | None]]:
    """TARGETID, position and, where there is one, BRICKID of every row of real tables."""
    rows = []
    paths = [*(shared_data / "real/desi").rglob("*.fits"), *(shared_data / "real/desi/catalogs").glob("QSO*.fits.gz")]
    for path in paths:
        with fits.open(path) as file:
            for hdu in file[1:]:
                names = hdu.columns.names if isinstance(hdu, fits.BinTableHDU) else ()
                if {"TARGETID", "TARGET_RA", "TARGET_DEC"} <= set(names):
                    bricks = hdu.data["BRICKID"] if "BRICKID" in names else [None] * len(hdu.data)
                    rows += zip(
                        hdu.data["TARGETID"], hdu.data["TARGET_RA"], hdu.data["TARGET_DEC"], bricks, strict=True
                    )
    return [(int(t), float(ra), float(dec), None if b is None else int(b)) for t, ra, dec, b in rows]


def test_real_targets_lie_in_the_brick_and_a_pixel_that_their_number_tells(shared_data: Path) -> None:
    rows = [row for row in real_rows(shared_data) if row[0] >= 0]
    placed = [row for row in rows if int(decode_targetid(np.array([row[0]])).release[0]) != 8888]
    assert len(placed) > 190
    for targetid, ra, dec, brickid in placed:
        parts = decode_targetid(np.array([targetid]))
        assert parts.release[0] in (9010, 9011)
        assert int(parts.brickid[0]) == int(brick_of(np.array([ra]), np.array([dec]))[0])
        assert brickid in (None, int(parts.brickid[0]))
        assert int(healpix_of(np.array([ra]), np.array([dec]))[0]) in pixels_of(targetid)


def test_what_tells_no_place_has_no_pixel(shared_data: Path) -> None:
    lost = [row[0] for row in real_rows(shared_data) if row[0] < 0 or row[0] >> 42 & 0xFFFF == 8888]
    assert len(lost) >= 3  # fibres without a target, and a target of a tertiary program, whose brick is its number
    for targetid in [*lost, -1, encode(9010, 0), encode(9010, n_bricks() + 1), encode(0, 5, gaia=1), 10_000]:
        assert not pixels_of(targetid)


@settings(deadline=None, max_examples=300)
@given(RA, DEC, st.sampled_from([0, 50, 9010, 9011, 9999]), st.integers(0, 2**22 - 1))
def test_the_pixel_of_a_target_is_always_a_candidate(ra: float, dec: float, release: int, objid: int) -> None:
    here = np.array([ra]), np.array([dec])
    brickid = int(brick_of(*here)[0])
    pixels = pixels_of(encode(release, brickid, objid))
    assert int(healpix_of(*here)[0]) in pixels
    assert 1 <= len(pixels) <= 12


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 662_174), st.floats(0, 1), st.floats(0, 1), st.sampled_from("nesw"))
def test_a_target_on_the_very_edge_of_its_brick_is_not_missed(brickid: int, x: float, y: float, side: str) -> None:
    west, east, south, north = (float(value[0]) for value in brick_bounds(np.array([brickid])))
    x, y = {"n": (x, 1.0), "s": (x, 0.0), "e": (1.0, y), "w": (0.0, y)}[side]
    ra, dec = west + x * (east - west), south + y * (north - south)
    # a little over the edge, as a star's proper motion may carry it
    dec = float(np.clip(dec + {"n": MARGIN_DEG / 2, "s": -MARGIN_DEG / 2}.get(side, 0), -90, 90))
    assert int(healpix_of(np.array([ra % 360]), np.array([dec]))[0]) in pixels_of(encode(9010, brickid))


def test_millions_of_places_are_found_at_once_and_none_is_missed() -> None:
    rng = np.random.default_rng(1)
    ra, dec = 360 * rng.random(50_000), np.degrees(np.arcsin(2 * rng.random(50_000) - 1))
    targetid = np.int64(9011) << 42 | brick_of(ra, dec) << 22
    row, healpix = candidate_pixels(targetid)
    hit = np.zeros(len(ra), bool)
    hit[row[healpix == healpix_of(ra, dec)[row]]] = True
    assert hit.all()
    assert len(row) < 2.2 * len(ra)


@settings(deadline=None)
@given(RA, DEC)
def test_bricks_are_those_of_their_definition(ra: float, dec: float) -> None:
    brickid = brick_of(np.array([ra]), np.array([dec]))
    assert 1 <= brickid[0] <= n_bricks()
    west, east, south, north = (float(value[0]) for value in brick_bounds(brickid))
    assert west - 1e-9 <= ra <= east + 1e-9
    assert south - 1e-9 <= dec <= north + 1e-9
    assert north - south <= 0.25 + 1e-9
    if abs(dec) < 89.8:  # the round bricks at the poles are one column
        equatorward = min(abs(south), abs(north)) if south * north > 0 else 0.0
        assert (east - west) * np.cos(np.radians(equatorward)) <= 0.25 + 1e-9


def test_bricks_are_numbered_as_the_legacy_surveys_do() -> None:
    # the release's whole sky has 662,174 bricks (survey-bricks.fits of the Legacy Surveys)
    assert n_bricks() == 662_174
    assert brick_of(np.array([0.0, 359.99, 0.0]), np.array([-90.0, 90.0, -89.8])).tolist() == [1, 662_174, 2]


@pytest.mark.parametrize(("release", "sky", "gaia"), [(0, 0, 2), (0, 0, 3)])
def test_a_target_of_gaia_alone_lies_in_the_pixel_of_gaias_file(release: int, sky: int, gaia: int) -> None:
    position = np.array([217.3]), np.array([-3.2])
    brickid = int(healpix_of(*position, nside=32)[0])
    pixels = pixels_of(encode(release, brickid, sky=sky, gaia=gaia))
    assert pixels == {4 * brickid + i for i in range(4)}
    assert int(healpix_of(*position)[0]) in pixels


def test_a_sky_place_with_gaias_bits_is_looked_for_in_its_brick_too() -> None:
    position = np.array([217.3]), np.array([-3.2])
    brickid = int(brick_of(*position)[0])
    assert int(healpix_of(*position)[0]) in pixels_of(encode(0, brickid, sky=1, gaia=2))
