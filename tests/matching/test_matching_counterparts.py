"""What all catalogues say of a candidate together, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qad.config import load_config
from qad.matching.quantities import (
    colour,
    continuum_mjy,
    motion_significance,
    parallax_significance,
    radio_loudness,
    velocity_difference_kms,
)
from qad.matching.stage import crossmatch
from qad.results import RunOptions
from qad.schema import COUNTERPARTS
from qad.storage.parquet import read_table

BRIGHT = {f"flux_{band}": np.array([100.0]) for band in ("g", "r", "z", "w1")}
IVARS = {f"flux_ivar_{band}": np.array([1.0]) for band in ("g", "r", "z", "w1")}


def test_radio_loudness_of_a_flat_source_is_the_ratio_of_what_is_observed():
    """At z = 1 rest 5 GHz is observed at 2.5 GHz: from 1.4 GHz with nu^-0.5 a factor of (2.5 / 1.4)^-0.5."""
    one = np.array([1.0])
    optical = continuum_mjy({**BRIGHT, **IVARS, "ebv": np.array([0.0])}, one, 2500.0)
    assert optical == pytest.approx(0.3631)
    assert radio_loudness(np.array([10.0]), np.array([1.4]), optical, one) == pytest.approx(
        10 * (2.5 / 1.4) ** -0.5 / 0.3631
    )


def test_continuum_runs_between_bands_and_on_beyond_them():
    photometry = {**BRIGHT, **IVARS, "ebv": np.array([0.1])}
    photometry["flux_r"] = np.array([400.0])
    wave = np.sqrt(4810.0 * 6420.0)
    dust = [10 ** (0.04 * 3.214), 10 ** (0.04 * 2.165)]
    between = continuum_mjy(photometry, np.array([0.0]), float(wave))
    assert between == pytest.approx(0.3631 * np.sqrt(dust[0] * 4 * dust[1]))
    blueward = continuum_mjy(photometry, np.array([0.0]), 2405.0)
    assert blueward == pytest.approx(0.3631 * dust[0] * 0.5**0.44)
    photometry["flux_g"] = np.array([np.nan])
    assert continuum_mjy(photometry, np.array([0.0]), 3210.0) == pytest.approx(4 * 0.3631 * dust[1] * 0.5**0.44)
    none = {name: np.array([-1.0]) for name in BRIGHT}
    assert np.isnan(continuum_mjy({**none, **IVARS, "ebv": np.array([0.0])}, np.array([1.0]), 2500.0))[0]


def test_motion_parallax_colours_and_velocities():
    value = motion_significance(*(np.array([v]) for v in (3.0, 1.0, 4.0, 1.0, 0.0)))
    assert value == pytest.approx(5.0)
    covariance = np.array([[1.0, 0.5], [0.5, 1.0]])
    mu = np.array([3.0, 4.0])
    value = motion_significance(*(np.array([v]) for v in (3.0, 1.0, 4.0, 1.0, 0.5)))
    assert value == pytest.approx(np.sqrt(mu @ np.linalg.inv(covariance) @ mu))
    assert parallax_significance(np.array([0.983]), np.array([0.5])) == pytest.approx(2.0)
    difference, error = colour(
        *(np.array([a, b]) for a, b in ((15.0, 15.0), (0.03, 0.03), (14.0, 14.0), (0.04, np.nan)))
    )
    assert difference[0] == 1.0
    assert error[0] == pytest.approx(0.05)
    assert np.isnan(difference[1])
    assert velocity_difference_kms(np.array([2.03]), np.array([2.0])) == pytest.approx(2997.92458)


@pytest.fixture
def catalogues(tmp_path, scores_at):
    """Five candidates at z = 2, 0.1 degrees apart, and what five catalogues have of them."""
    ra, dec = 150.0 + 0.1 * np.arange(5), np.full(5, 2.0)
    scores_at(tmp_path / "work", ra, dec)

    def write(catalog, who, **columns):
        pl.DataFrame({"ra": ra[who] + 1e-5, "dec": dec[who], **columns}).write_parquet(tmp_path / f"{catalog}.parquet")
        return f"{catalog}:{tmp_path / catalog}.parquet"

    return [
        write("gaia_dr3", [0, 1], source_id=[11, 12], parallax=[0.0, 4.983], parallax_error=[0.1, 0.5], pmra=[0.0, 30.0],
              pmra_error=[0.1, 1.0], pmdec=[0.0, 40.0], pmdec_error=[0.1, 1.0], pmra_pmdec_corr=[0.0, 0.0]),
        write("sdss_dr16q", [0, 2], sdss_name=["A", "B"], z=[2.0, 1.5]),
        write("milliquas", [0, 3], name=["M0", "M3"], type=["Q", "QR"], z=[1.0, 2.1]),
        write("first", [2, 3], first=["F2", "F3"], fint=[5.0, 50.0], rms=[0.1, 0.1]),
        write("erass1", [4], iauname=["1eRASS"], ml_flux_1=[2e-13]),
    ]  # fmt: skip


def run(tmp_path, *catalogs, **keys):
    more = {f"crossmatch.{key}": value for key, value in keys.items()}
    overrides = {"paths.root": str(tmp_path / "work"), "crossmatch.catalogs": list(catalogs), **more}
    return crossmatch(load_config(overrides=overrides), RunOptions(jobs=1))


def test_a_row_each_says_what_is_known(catalogues, tmp_path):
    result = run(tmp_path, *catalogues)
    assert not result.failures, result.failures
    path = Path(result.details["counterparts"])
    table = pl.DataFrame(pl.from_arrow(read_table(path, COUNTERPARTS)))
    assert table["rank"].to_list() == [1, 2, 3, 4, 5]
    assert table["n_searched"].to_list() == [5] * 5
    assert table["matched"].to_list() == [
        "gaia_dr3, milliquas, sdss_dr16q",
        "gaia_dr3",
        "first, sdss_dr16q",
        "first, milliquas",
        "erass1",
    ]
    assert table["known"].to_list() == [True, False, True, True, False]
    assert table["known_catalog"].to_list() == ["sdss_dr16q", None, "sdss_dr16q", "milliquas", None]
    assert table["known_type"].to_list() == [None, None, None, "QR", None]
    assert table["delta_z"].to_list() == pytest.approx([0.0, None, 0.5, -0.1, None])
    assert table["pm_sig"].to_list() == pytest.approx([0.0, 50.0, None, None, None])
    assert table["parallax_sig"].to_list() == pytest.approx([0.17, 10.0, None, None, None])
    assert table["radio_detected"].to_list() == [False, False, True, True, False]
    assert table["radio_flux"].to_list() == [None, None, 5.0, 50.0, None]
    assert table["radio_loudness"].null_count() == 5  # there are no spectra here, and so no photometry
    assert table["xray_detected"].to_list() == [False] * 4 + [True]
    assert table["xray_flux"][4] == 2e-13
    assert table["xray_band"][4] == "0.2-2.3 keV"
    assert result.counts["known"] == 3
    first = path.read_bytes()
    again = run(tmp_path, *catalogues)
    assert again.counts == result.counts
    assert path.read_bytes() == first


def test_catalogues_of_several_runs_come_together(catalogues, tmp_path):
    one = run(tmp_path, catalogues[1])
    table = pl.read_parquet(one.details["counterparts"])
    assert table["radio_detected"].null_count() == 5  # none was searched
    assert table["w1_w2"].null_count() == 5
    two = run(tmp_path, catalogues[3], top=3)
    table = pl.read_parquet(two.details["counterparts"])
    assert table["n_searched"].to_list() == [2, 2, 2, 1, 1]
    assert table["radio_detected"].to_list() == [False, False, True, None, None]
    assert table["known"].sum() == 2


def test_matches_of_older_scores_are_left_out(catalogues, tmp_path, scores_at):
    run(tmp_path, catalogues[1])
    scores_at(tmp_path / "work", np.array([150.0, 150.3]), np.array([2.0, 2.0]))
    table = pl.read_parquet(run(tmp_path, catalogues[2]).details["counterparts"])
    assert table["known_catalog"].to_list() == ["milliquas", "milliquas"]
    assert table["n_searched"].to_list() == [1, 1]


def test_radio_loudness_takes_the_photometry_of_the_spectra(catalogues, tmp_path):
    from qad.schema import N_WAVE, SPECTRA
    from qad.storage.parquet import make_table, write_table
    from qad.storage.provenance import Provenance
    from qad.workspace import Workspace

    n = 4  # the fifth spectrum is not there
    given = {
        "targetid": 39_627_000_000_000_001 + 2 * np.arange(n),
        "survey": ["main"] * n,
        "program": ["dark"] * n,
        "spectype": ["QSO"] * n,
        "ebv": np.zeros(n, np.float32),
        "flux": np.zeros((n, N_WAVE), np.float32),
        "ivar": np.zeros((n, N_WAVE), np.float32),
        **{f"flux_{band}": np.full(n, 100.0, np.float32) for band in ("g", "r", "z", "w1")},
        **{f"flux_ivar_{band}": np.full(n, 1.0, np.float32) for band in ("g", "r", "z", "w1")},
    }
    numbers = {
        "healpix": 47,
        "ra": 0.0,
        "dec": 0.0,
        "z": 2.0,
        "zwarn": 0,
        "snr": 1.0,
        "n_good": 1,
        "coadd_fiberstatus": 0,
    }
    needed = [column for column in SPECTRA.columns if not column.nullable and column.name not in given]
    given |= {column.name: np.full(n, numbers.get(column.name, 0)).astype(column.dtype) for column in needed}
    path = Workspace(tmp_path / "work").spectra_file("main", "dark", 47)
    write_table(path, make_table(SPECTRA, given), SPECTRA, Provenance("extract", {}))
    table = pl.read_parquet(run(tmp_path, *catalogues).details["counterparts"])
    expected = [flux * (5 / 3 / 1.4) ** -0.5 / 0.3631 for flux in (5.0, 50.0)]
    assert table["radio_loudness"].null_count() == 3
    assert table["radio_loudness"].to_list()[2:4] == pytest.approx(expected)
    assert table["radio_loud"].to_list() == [None, None, True, True, None]
    assert table["radio_loudness_4400"].null_count() == 3
