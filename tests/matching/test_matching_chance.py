"""The probability of a chance match is the rate at which unrelated positions find one."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from qad.matching.catalogs import open_catalog
from qad.matching.columns import Wanted
from qad.matching.density import AnnulusCounts, Grid, SkyCounts, chance_probability
from qad.matching.report import Task, match_catalog

SKY_DEG2 = 41252.961


def random_sky(rng, n):
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


def candidates(ra, dec):
    n = len(ra)
    return pl.DataFrame(
        {
            "rank": np.arange(1, n + 1),
            "targetid": np.arange(n),
            "survey": ["main"] * n,
            "program": ["dark"] * n,
            "healpix": np.zeros(n, np.int32),
            "ra": ra,
            "dec": dec,
        }
    )


def matched(tmp_path, ra, dec, sky, radius):
    pl.DataFrame({"ra": ra, "dec": dec}).write_parquet(tmp_path / "cat.parquet")
    catalog = open_catalog(tmp_path / "cat.parquet", Wanted())
    table = match_catalog(candidates(*sky), catalog, Task("cat", radius, 2015.5, keep_unmatched=True)).table
    return pl.DataFrame(pl.from_arrow(table))


@pytest.mark.parametrize("level", [0, 1, 4, 7])
def test_cells_cover_the_sphere_once_and_nest(level):
    grid = Grid(level)
    rng = np.random.default_rng(level)
    ra, dec = random_sky(rng, 20_000)
    ra[:4], dec[:4] = [0.0, 359.9999999, 10.0, 20.0], [0.0, 0.0, 90.0, -90.0]
    cells = grid.cell(ra, dec)
    assert cells.min() >= 0
    assert cells.max() < grid.n_cells
    assert grid.areas().sum() == pytest.approx(SKY_DEG2)
    share = np.bincount(cells, minlength=grid.n_cells) / len(ra) * SKY_DEG2
    if level <= 4:
        assert share == pytest.approx(grid.areas(), abs=6 * np.sqrt(grid.areas().max() * SKY_DEG2 / len(ra)))
    if level:
        parent, within = grid.coarser()
        assert (within[cells] == parent.cell(ra, dec)).all()


@pytest.mark.parametrize("n", [3000, 60_000, 600_000])
def test_unrelated_positions_match_as_often_as_predicted(n, tmp_path):
    """From 0.07 to 15 entries a square degree: the sum of the predicted rates equals the number found, within its error."""
    rng = np.random.default_rng(n)
    radius = 60.0 * np.sqrt(600_000 / n)
    sky = random_sky(rng, 8000)
    table = matched(tmp_path, *random_sky(rng, n), sky, radius)
    first = table.unique("rank")
    predicted = chance_probability(np.full(8000, radius), first["chance_density"].to_numpy()).sum()
    found = table["best"].sum()
    assert found > 50
    assert abs(found - predicted) < 4 * np.sqrt(predicted)


def test_probabilities_of_unrelated_matches_are_even(tmp_path):
    from scipy.stats import kstest

    rng = np.random.default_rng(7)
    sky = random_sky(rng, 8000)
    table = matched(tmp_path, *random_sky(rng, 400_000), sky, 300.0).filter("best")
    largest = chance_probability(np.full(len(table), 300.0), table["chance_density"].to_numpy())
    assert len(table) > 1000
    assert kstest(table["chance_p"].to_numpy() / largest, "uniform").pvalue > 1e-3


def test_true_counterparts_do_not_make_chance_more_likely(tmp_path):
    """Every candidate has a counterpart in a catalogue that has little else: they are not counted as unrelated."""
    rng = np.random.default_rng(3)
    sky = random_sky(rng, 3000)
    other = random_sky(rng, 3000)
    ra, dec = np.concatenate([sky[0], other[0]]), np.concatenate([sky[1], other[1]])
    table = matched(tmp_path, ra, dec, sky, 2.0)
    assert table["best"].sum() == 3000
    assert table["chance_density"].mean() == pytest.approx(3000 / SKY_DEG2, rel=0.15)
    assert table["chance_p"].max() < 1e-12


def test_the_edge_of_a_survey_is_not_sparse():
    rng = np.random.default_rng(4)
    ra, dec = random_sky(rng, 400_000)
    inside = (ra > 100) & (ra < 160) & (dec > 0) & (dec < 40)
    counts = SkyCounts()
    counts.add(ra[inside], dec[inside])
    edge = np.linspace(100.02, 159.98, 50), np.full(50, 39.98)
    empty = np.empty(0), np.empty(0)
    assert np.median(counts.density(empty, *edge, 1.0)) == pytest.approx(400_000 / SKY_DEG2, rel=0.25)


def test_rings_around_candidates_measure_the_same_density():
    rng = np.random.default_rng(5)
    sky = random_sky(rng, 4000)
    ra, dec = random_sky(rng, 2_000_000)
    ra[:4000], dec[:4000] = sky  # counterparts
    counts = AnnulusCounts(*sky, 5.0, 400.0)
    for start in range(0, len(ra), 300_000):
        counts.add(ra[start : start + 300_000], dec[start : start + 300_000])
    found = counts.density((np.empty(0), np.empty(0)), *sky, 5.0)
    assert np.isfinite(found).all()
    assert found.mean() == pytest.approx(1_996_000 / SKY_DEG2, rel=0.03)


def test_a_catalogue_of_matches_alone_says_nothing_of_chance(tmp_path):
    sky = np.array([10.0, 200.0]), np.array([5.0, -5.0])
    table = matched(tmp_path, *sky, sky, 1.0)
    assert table["chance_p"].null_count() == 2
    assert table["best"].all()


def test_a_candidate_without_a_position_has_no_probability(tmp_path):
    rng = np.random.default_rng(6)
    sky = random_sky(rng, 50)
    sky[0][7] = np.nan
    ra, dec = random_sky(rng, 300_000)
    pl.DataFrame({"ra": ra, "dec": dec}).write_parquet(tmp_path / "cat.parquet")
    catalog = open_catalog(tmp_path / "cat.parquet", Wanted())
    for counter in (None, AnnulusCounts(*sky, 1.0, 3000.0)):
        task = Task("cat", 1.0, 2015.5, keep_unmatched=True)
        table = match_catalog(candidates(*sky), catalog, task, counter=counter).table
        absent = [
            rank
            for rank, value in zip(*(table[name].to_pylist() for name in ("rank", "chance_density")), strict=True)
            if value is None
        ]
        assert absent == [8]
