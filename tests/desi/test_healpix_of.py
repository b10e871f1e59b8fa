"""Pixel numbers against an independent implementation, and against real DESI targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.io import fits

from qad.desi.sky import healpix_of


@pytest.mark.parametrize("nside", [1, 2, 64, 1024])
def test_pixels_are_those_of_astropy_healpix(nside: int) -> None:
    healpix = pytest.importorskip("astropy_healpix.core")
    chance = np.random.default_rng(nside)
    ra = np.concatenate([chance.uniform(0, 360, 20_000), [0, 90, 180, 270, 359.999999, 12.3, 12.3, -10.0]])
    dec = np.degrees(np.arcsin(chance.uniform(-1, 1, 20_000)))
    dec = np.concatenate([dec, [41.8, -41.9, 10, 0.1, -0.1, 89.999, -89.999, 5.0]])
    expected = healpix.lonlat_to_healpix(ra * units.deg, dec * units.deg, nside, order="nested")
    np.testing.assert_array_equal(healpix_of(ra, dec, nside), expected)


@pytest.mark.parametrize("place", ["sv3/dark/91/9144", "sv1/dark/81/8139", "sv3/dark/260/26065", "sv1/bright/71/7108"])
def test_real_targets_lie_in_the_pixel_that_desi_says(real_release: Path, place: str) -> None:
    folder = real_release / "spectro/redux/iron/healpix" / place
    with fits.open(next(folder.glob("coadd-*.fits"))) as hdus:
        rows = hdus["FIBERMAP"].data
        rows = rows[(rows["TARGETID"] > 0) & np.isfinite(rows["TARGET_RA"])]
        found = healpix_of(rows["TARGET_RA"].astype(float), rows["TARGET_DEC"].astype(float))
    assert set(found.tolist()) == {int(folder.name)}
