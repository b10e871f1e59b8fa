"""HATS catalogues give the pairs of the same rows in one file, and only the partitions near the candidates are read."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from qad.config import load_config
from qad.desi.sky import healpix_of
from qad.errors import InputError
from qad.matching.hats import hats_root, near, partitions
from qad.matching.sky import SkyIndex
from qad.matching.stage import crossmatch
from qad.results import RunOptions


def write_hats(root, frame, orders=(0, 1, 3), as_folders=False):
    """Write a HATS catalogue as hats-import does: a sky divided into pixels of several orders."""
    (root / "dataset").mkdir(parents=True)
    (root / "hats.properties").write_text(
        "#HATS catalog\ncatalog_type=object\nhats_order=3\nhats_col_ra=ra\nhats_col_dec=dec\n"
    )
    (root / "partition_info.csv").write_text("Norder,Npix\n")
    base = healpix_of(frame["ra"].to_numpy(), frame["dec"].to_numpy(), 1)
    for number in range(12):
        order = orders[number % len(orders)]
        part = frame.filter(pl.Series(base == number))
        pixel = healpix_of(part["ra"].to_numpy(), part["dec"].to_numpy(), 1 << order)
        for value in np.unique(pixel):
            place = root / "dataset" / f"Norder={order}" / f"Dir={value // 10_000 * 10_000}" / f"Npix={value}"
            path = place / "part0.parquet" if as_folders else place.with_suffix(".parquet")
            path.parent.mkdir(parents=True, exist_ok=True)
            part.filter(pl.Series(pixel == value)).write_parquet(path)
    (root / "dataset" / "_metadata").write_bytes(b"PAR1")


@pytest.fixture
def catalogue(sky_field):
    rng = np.random.default_rng(9)
    more = rng.uniform(0, 360, 4000), np.degrees(np.arcsin(rng.uniform(-1, 1, 4000)))
    ra, dec = (np.concatenate(pair) for pair in zip((sky_field.catalog_ra, sky_field.catalog_dec), more, strict=True))
    return pl.DataFrame({"ra": ra, "dec": dec, "id": 10**18 + np.arange(len(ra)), "mag": rng.normal(20, 1, len(ra))})


def run(field, path, **keys):
    more = {f"crossmatch.{key}": value for key, value in keys.items()}
    overrides = {
        "paths.root": str(field.root),
        "crossmatch.catalogs": [str(path)],
        "crossmatch.columns": ["mag"],
        **more,
    }
    return crossmatch(load_config(overrides=overrides), RunOptions(jobs=1))


@pytest.mark.parametrize("as_folders", [False, True])
def test_pairs_are_those_of_one_file(as_folders, sky_field, catalogue, tmp_path):
    write_hats(tmp_path / "sky", catalogue, as_folders=as_folders)
    catalogue.write_parquet(tmp_path / "flat.parquet")
    one, many = run(sky_field, tmp_path / "flat.parquet"), run(sky_field, tmp_path / "sky")
    assert not many.failures, many.failures
    tables = [pl.read_parquet(result.paths[0]) for result in (one, many)]
    for column in ("rank", "catalog_id", "sep_arcsec", "n_within", "best", "cat_mag"):
        assert tables[0][column].to_list() == tables[1][column].to_list()
    assert tables[1]["chance_p"].null_count() == 0
    assert run(sky_field, tmp_path / "sky").n_skipped == 1


def test_a_collection_names_its_catalogue(sky_field, catalogue, tmp_path):
    write_hats(tmp_path / "all" / "inner", catalogue)
    (tmp_path / "all" / "collection.properties").write_text("obs_collection=all\nhats_primary_table_url=inner\n")
    assert hats_root(tmp_path / "all") == tmp_path / "all" / "inner"
    assert run(sky_field, tmp_path / "all").counts["matched"] > 0
    (tmp_path / "all" / "collection.properties").write_text("hats_primary_table_url=../../etc\n")
    assert "no HATS catalogue" in run(sky_field, tmp_path / "all", radius_arcsec=1.0).failures[0].reason


def test_partitions_far_from_the_candidates_are_not_read(catalogue, tmp_path, scores_at):
    write_hats(tmp_path / "sky", catalogue, orders=(3,))
    scores_at(tmp_path / "work", np.array([10.0]), np.array([20.0]))
    parts = partitions(tmp_path / "sky")
    kept = near(parts, np.array([10.0]), np.array([20.0]), 31.5)
    assert 1 <= len(kept) <= 4
    for part in set(parts[1:]) - set(kept):  # the first one says which columns there are
        part.path.write_bytes(b"damaged")
    keys = {"paths.root": str(tmp_path / "work"), "crossmatch.catalogs": [str(tmp_path / "sky")]}
    result = crossmatch(load_config(overrides=keys), RunOptions(jobs=1))
    assert not result.failures
    assert result.counts["catalog_rows"] < 400


@pytest.mark.parametrize("radius", [0.5, 60.0, 3600.0])
def test_no_pair_is_lost_at_the_edge_of_a_pixel(radius, tmp_path):
    rng = np.random.default_rng(int(radius))
    frame = pl.DataFrame({"ra": rng.uniform(0, 360, 3000), "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))})
    write_hats(tmp_path / "sky", frame, orders=(3, 4, 2))
    ra, dec = frame["ra"].to_numpy(), frame["dec"].to_numpy()
    for _ in range(20):
        k = rng.integers(3000)
        place = (
            np.array([ra[k] + rng.normal(0, radius / 7200)]),
            np.array([np.clip(dec[k] + rng.normal(0, radius / 7200), -90, 90)]),
        )
        rows = pl.concat([pl.read_parquet(part.path) for part in near(partitions(tmp_path / "sky"), *place, radius)])
        found = {
            (rows["ra"][int(j)], rows["dec"][int(j)])
            for pairs in SkyIndex(*place, radius).pairs(rows["ra"].to_numpy(), rows["dec"].to_numpy())
            for j in pairs.right
        }
        want = {(ra[j], dec[j]) for pairs in SkyIndex(*place, radius).pairs(ra, dec) for j in pairs.right}
        assert found == want


def test_what_is_no_partition_is_named(tmp_path):
    (tmp_path / "sky" / "dataset" / "Norder=1").mkdir(parents=True)
    (tmp_path / "sky" / "properties").write_text("catalog_type=object\n")
    with pytest.raises(InputError, match="without Parquet files"):
        partitions(tmp_path / "sky")
    (tmp_path / "sky" / "dataset" / "Norder=1" / "Npix=48.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="pixel 48 of order 1"):
        partitions(tmp_path / "sky")
