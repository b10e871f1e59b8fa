"""Positions at another epoch are those of astropy's apply_space_motion, at the poles too, and matching uses them."""

from __future__ import annotations

import warnings

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.coordinates import Distance, SkyCoord
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.config import load_config
from qad.matching.motion import moved, shift_arcsec
from qad.matching.sky import separation_arcsec
from qad.matching.stage import crossmatch
from qad.results import RunOptions


def by_astropy(ra, dec, pmra, pmdec, years):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = SkyCoord(
            ra * u.deg,
            dec * u.deg,
            pm_ra_cosdec=pmra * u.mas / u.yr,
            pm_dec=pmdec * u.mas / u.yr,
            distance=Distance(1, u.pc),  # far ones of this motion would be faster than light, which ERFA stops
            obstime=Time(2016.0, format="jyear", scale="tdb"),
        )
        end = start.apply_space_motion(new_obstime=Time(2016.0 + years, format="jyear", scale="tdb"))
    return end.ra.deg, end.dec.deg


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0, 359.999),
    st.one_of(st.floats(-89.9, 89.9), st.sampled_from([89.99999, -89.99999, 0.0])),
    st.floats(-2000, 2000),
    st.floats(-2000, 2000),
    st.floats(-20, 20),
)
def test_moved_positions_equal_astropys(ra, dec, pmra, pmdec, years):
    got = moved(*(np.array([value]) for value in (ra, dec, pmra, pmdec)), years)
    want = by_astropy(ra, dec, pmra, pmdec, years)
    assert separation_arcsec(*got, *want)[0] < 1e-6


def test_a_star_crosses_the_pole_and_ra_zero():
    ra, dec = moved(
        np.array([10.0, 0.0]), np.array([90 - 1 / 3600, 0.0]), np.array([0.0, -1000.0]), np.array([2000.0, 0.0]), 1.0
    )
    assert ra == pytest.approx([190.0, 360 - 1 / 3600])
    assert dec == pytest.approx([90 - 1 / 3600, 0.0])


def test_a_source_without_a_motion_stays_to_the_last_bit():
    ra, dec = np.array([123.456789, 1.0]), np.array([-7.654321, 89.5])
    for pm in (np.nan, 0.0):
        got = moved(ra, dec, np.array([pm, pm]), np.array([0.0, 0.0]), 16.0)
        assert (got[0] == ra).all()
        assert (got[1] == dec).all()
    assert shift_arcsec(np.array([3000.0, np.nan]), np.array([4000.0, 1.0]), -2.0).tolist() == [10.0, 0.0]


@pytest.mark.parametrize("unit", ["mas/yr", "arcsec/yr"])
def test_stars_are_matched_where_they_were_at_the_candidates_epoch(unit, tmp_path, scores_at):
    """Gaia's positions are of 2016.0; candidates' of 2000.0 here: a star with 500 mas/yr is 8 arcsec away, one at the pole too."""
    from astropy.table import Table

    ra, dec = np.array([0.0002, 150.0, 10.0, 20.0]), np.array([10.0, 89.9999, -89.9999, 20.0])
    pmra, pmdec = np.array([500.0, 300.0, -400.0, 60_000.0]), np.array([0.0, 400.0, 300.0, 0.0])
    then = moved(ra, dec, pmra, pmdec, -16.0)
    scores_at(tmp_path / "work", *then)
    scale = {"mas/yr": 1.0, "arcsec/yr": 1e-3}[unit]
    table = Table({"ra": ra, "dec": dec, "source_id": np.arange(4), "pmra": pmra * scale, "pmdec": pmdec * scale})
    table["pmra"].unit = table["pmdec"].unit = unit
    table.write(tmp_path / "g.fits")

    def matched(epoch):
        keys = {"paths.root": str(tmp_path / "work"), "crossmatch.catalogs": [f"gaia_dr3:{tmp_path / 'g.fits'}"]}
        result = crossmatch(load_config(overrides={**keys, "crossmatch.epoch": epoch}), RunOptions(jobs=1))
        assert not result.failures
        return pl.read_parquet(result.paths[0])

    assert matched(2016.0).is_empty()
    table = matched(2000.0)
    assert table["catalog_id"].to_list() == ["0", "1", "2", "3"]
    assert table["sep_arcsec"].max() < 1e-6
    assert table["cat_pmra"].to_list() == pytest.approx(pmra.tolist())


def test_each_row_can_have_its_own_epoch(tmp_path, scores_at):
    scores_at(tmp_path / "work", np.array([10.0, 20.0]), np.array([0.0, 0.0]))
    frame = pl.DataFrame(
        {
            "ra": [10.0 + 2 / 3600, 20.0],
            "dec": [0.0, 0.0],
            "ls_id": [1, 2],
            "pmra": ["2000", "2000"],
            "pmdec": ["+0", "0"],
            "ref_epoch": [2016.5, 0.0],
        }
    )
    frame.write_csv(tmp_path / "ls.csv")
    keys = {"paths.root": str(tmp_path / "work"), "crossmatch.catalogs": [f"ls_dr10:{tmp_path / 'ls.csv'}"]}
    result = crossmatch(load_config(overrides=keys), RunOptions(jobs=1))
    table = pl.read_parquet(result.paths[0])
    assert table["catalog_id"].to_list() == [
        "1",
        "2",
    ]  # the first one is 2 arcsec away in 2016.5, the other has no epoch
    frame.with_columns(pmra=pl.lit("fast")).write_csv(tmp_path / "ls.csv")
    result = crossmatch(load_config(overrides=keys), RunOptions(jobs=1))
    assert "row 1, column pmra: 'fast' is no number" in result.failures[0].reason
