"""Asking a TAP service, DaCHS on the loopback address: the pairs are those of the same table in a file; asked once, resumed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qad.config import load_config
from qad.matching.stage import crossmatch
from qad.results import RunOptions

pytest.importorskip("pyvo")
_spec = importlib.util.spec_from_file_location("dachs_service", Path(__file__).with_name("dachs.py"))
dachs = importlib.util.module_from_spec(_spec)
sys.modules["dachs_service"] = dachs
_spec.loader.exec_module(dachs)
pytestmark = pytest.mark.skipif(bool(dachs.why_not()), reason=dachs.why_not() or "never")


@pytest.fixture(scope="module")
def sky():
    """Candidates (a pole and RA 0 among them), and entries within an arcmin of them."""
    rng = np.random.default_rng(8)
    n = 40
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    ra[:3], dec[:3] = [0.00001, 77.0, 5.0], [1.0, 89.9999, -89.9999]
    near = np.repeat(np.arange(n), 5)
    size = np.where(np.arange(5 * n) % 5, 20.0, 0.3) / 3600
    theta, phi = np.radians(dec[near]), np.radians(ra[near])
    unit = np.stack([np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), np.sin(theta)], 1)
    unit += np.radians(size)[:, None] * rng.normal(0, 1, unit.shape)
    x, y, z = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).T
    rows = pl.DataFrame(
        {
            "source_id": 4_611_686_018_427_387_905 + np.arange(5 * n),
            "ra": np.degrees(np.arctan2(y, x)) % 360,
            "dec": np.degrees(np.arctan2(z, np.hypot(x, y))),
            "pmra": rng.normal(0, 30, 5 * n),
            "pmdec": rng.normal(0, 30, 5 * n),
            "parallax": rng.normal(0, 1, 5 * n),
            "parallax_error": np.full(5 * n, 0.5),
        }
    )
    return ra, dec, rows


@pytest.fixture(scope="module")
def service(sky, tmp_path_factory):
    with dachs.tap_service(tmp_path_factory.mktemp("tap") / "dachs", sky[2]) as address:
        yield address


def configured(root, *catalogs, **keys):
    more = {f"crossmatch.{key}": value for key, value in keys.items()}
    return load_config(overrides={"paths.root": str(root), "crossmatch.catalogs": list(catalogs), **more})


def test_answers_are_the_pairs_of_the_file_and_are_kept(sky, service, tmp_path, scores_at):
    root = tmp_path / "work"
    scores_at(root, sky[0], sky[1])
    sky[2].write_parquet(tmp_path / "sky.parquet")
    asked = configured(root, f"far=tap:{service}#sky.main", columns=["parallax"], chunk=15, radius_arcsec=1.0)
    result = crossmatch(asked, RunOptions(jobs=1))
    assert not result.failures, result.failures
    here = crossmatch(
        configured(root, f"far={tmp_path / 'sky.parquet'}", columns=["parallax"], radius_arcsec=1.0),
        RunOptions(jobs=1, force=True),
    )
    remote = pl.read_parquet(root / "matches" / "default-far.parquet")
    again = crossmatch(asked, RunOptions(jobs=1))
    assert again.n_done == 1  # the file's table stood under this name
    table = pl.read_parquet(again.paths[0])
    for column in ("catalog_id", "sep_arcsec", "n_within", "best", "cat_parallax"):
        assert table[column].to_list() == remote[column].to_list()
    assert here.counts["pairs"] == again.counts["pairs"] >= 40
    answers = sorted((root / "answers" / "far").glob("*.vot"))
    assert len(answers) == 3
    noted = json.loads(answers[0].with_suffix(".json").read_text())
    assert noted["question"]["url"] == service
    assert noted["question"]["table"] == "sky.main"
    assert len(noted["sha256"]) == 64
    before = [path.stat().st_mtime_ns for path in answers]
    assert crossmatch(asked, RunOptions(jobs=1)).n_skipped == 1
    answers[1].unlink()  # a run that was killed after two of three
    assert not crossmatch(asked, RunOptions(jobs=1)).failures
    after = [path.stat().st_mtime_ns for path in answers]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


def test_a_known_catalogue_is_asked_for_its_columns(sky, service, tmp_path, scores_at):
    root = tmp_path / "work"
    scores_at(root, sky[0], sky[1])
    target = f"tap:{service}#sky.main"
    result = crossmatch(configured(root, f"gaia_dr3={target}", columns=["parallax"]), RunOptions(jobs=1))
    assert not result.failures
    dry = crossmatch(configured(root, f"other={target}", chunk=10), RunOptions(jobs=1, dry_run=True))
    assert dry.counts["questions"] == 4
    assert not (root / "answers" / "other").exists()


def test_an_unknown_table_and_a_wrong_column_are_named(sky, service, tmp_path, scores_at):
    root = tmp_path / "work"
    scores_at(root, sky[0][:2], sky[1][:2])
    for catalog, keys, text in (
        (f"tap:{service}#sky.nothing", {}, "no such table"),
        (f"tap:{service}#sky.main", {"columns": ["paralax"]}, "did you mean parallax"),
    ):
        result = crossmatch(configured(root, catalog, retries=0, **keys), RunOptions(jobs=1))
        assert len(result.failures) == 1
        assert text in result.failures[0].reason
        assert "\n" not in result.failures[0].reason
