"""Running crossmatch again is safe and cheap, one bad catalogue never ends the run, and the command says what it did."""

from __future__ import annotations

import json
import os
import shutil

import polars as pl
import pyarrow.parquet as pq
import pytest

from qad.config import load_config
from qad.errors import ConfigError, InputError
from qad.matching.stage import crossmatch
from qad.results import RunOptions
from qad.schema import MATCHES
from qad.storage.parquet import read_metadata, read_table


@pytest.fixture
def catalog(sky_field, tmp_path):
    path = tmp_path / "cat.csv"
    pl.DataFrame(
        {"ra": sky_field.catalog_ra, "dec": sky_field.catalog_dec, "id": sky_field.ids, "mag": sky_field.mag}
    ).write_csv(path)
    return path


def configured(field, *paths, **keys):
    settings = {f"crossmatch.{key}": value for key, value in keys.items()}
    return load_config(
        overrides={"paths.root": str(field.root), "crossmatch.catalogs": [str(path) for path in paths], **settings}
    )


def test_a_second_run_skips_and_still_counts(sky_field, catalog):
    config = configured(sky_field, catalog)
    first = crossmatch(config, RunOptions(jobs=1))
    content = first.paths[0].read_bytes()
    written = first.paths[0].stat().st_mtime_ns
    second = crossmatch(config, RunOptions(jobs=1))
    assert (first.n_done, first.n_skipped) == (1, 0)
    assert (second.n_done, second.n_skipped) == (0, 1)
    assert second.counts == first.counts
    assert first.paths[0].stat().st_mtime_ns == written
    forced = crossmatch(config, RunOptions(jobs=1, force=True))
    assert forced.n_done == 1
    assert first.paths[0].read_bytes() == content


def test_what_changed_is_matched_again(sky_field, catalog, tmp_path, scores_at):
    config = configured(sky_field, catalog)
    crossmatch(config, RunOptions(jobs=1))
    assert crossmatch(configured(sky_field, catalog, radius_arcsec=1.0), RunOptions(jobs=1)).n_done == 1
    assert crossmatch(config, RunOptions(jobs=1)).n_done == 1
    catalog.write_text(catalog.read_text() + "1,1,1,1\n")
    assert crossmatch(config, RunOptions(jobs=1)).n_done == 1
    scores_at(sky_field.root, sky_field.ra[:50], sky_field.dec[:50])
    assert crossmatch(config, RunOptions(jobs=1)).n_done == 1
    os.utime(catalog)
    assert crossmatch(config, RunOptions(jobs=1)).n_skipped == 1
    config.workspace.matches_file("default", "cat").write_bytes(b"PAR1 damaged")
    assert crossmatch(config, RunOptions(jobs=1)).n_done == 1


def test_a_changed_byte_with_an_old_time_is_found_by_verify(sky_field, catalog):
    config = configured(sky_field, catalog)
    crossmatch(config, RunOptions(jobs=1))
    status = catalog.stat()
    content = catalog.read_text()
    last = content.rstrip("\n")[-1]
    catalog.write_text(content.rstrip("\n")[:-1] + ("1" if last != "1" else "2") + "\n")
    os.utime(catalog, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert crossmatch(config, RunOptions(jobs=1)).n_skipped == 1
    assert crossmatch(config, RunOptions(jobs=1, verify=True)).n_done == 1


def test_another_catalogue_in_the_list_redoes_nothing(sky_field, catalog, tmp_path):
    crossmatch(configured(sky_field, catalog), RunOptions(jobs=1))
    other = tmp_path / "other.csv"
    shutil.copy(catalog, other)
    result = crossmatch(configured(sky_field, catalog, other), RunOptions(jobs=2))
    assert (result.n_done, result.n_skipped) == (1, 1)
    assert sorted(result.details["catalogs"]) == ["cat", "other"]


def test_a_bad_catalogue_fails_alone(sky_field, catalog, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("x,y\n1,2\n")
    result = crossmatch(configured(sky_field, bad, catalog, tmp_path / "absent.fits"), RunOptions(jobs=1))
    assert result.n_done == 1
    assert [failure.unit for failure in result.failures] == [str(tmp_path / "absent.fits"), str(bad)]
    assert len(list(result.paths[0].parent.glob("*.parquet"))) == 1


def test_dry_run_writes_nothing(sky_field, catalog):
    before = sorted(sky_field.root.rglob("*"))
    result = crossmatch(configured(sky_field, catalog), RunOptions(jobs=1, dry_run=True))
    assert result.n_done == 1
    assert result.counts["bytes"] == catalog.stat().st_size
    assert sorted(sky_field.root.rglob("*")) == before
    crossmatch(configured(sky_field, catalog), RunOptions(jobs=1))
    assert crossmatch(configured(sky_field, catalog), RunOptions(jobs=1, dry_run=True)).n_skipped == 1


def test_the_table_has_the_schema_and_its_provenance(sky_field, catalog):
    result = crossmatch(configured(sky_field, catalog, columns=["mag"]), RunOptions(jobs=1))
    table = read_table(result.paths[0], MATCHES)
    assert table.num_rows == result.counts["pairs"]
    metadata = read_metadata(result.paths[0], MATCHES)
    assert metadata["qad.stage"] == "crossmatch"
    assert metadata["qad.config"]["radius_arcsec"] == 1.5
    assert [item["name"] for item in metadata["qad.inputs"]] == ["scores/default.parquet", "cat.csv"]
    assert str(sky_field.root) not in str(metadata)


def test_no_scores_and_no_catalogue_and_equal_names_are_named(sky_field, catalog, tmp_path):
    with pytest.raises(InputError, match="no scores of model 'other'"):
        crossmatch(configured(sky_field, catalog, name="other"), RunOptions(jobs=1))
    with pytest.raises(ConfigError, match="no catalogue"):
        crossmatch(configured(sky_field), RunOptions(jobs=1))
    (tmp_path / "b").mkdir()
    with pytest.raises(ConfigError, match="rename one"):
        crossmatch(configured(sky_field, catalog, tmp_path / "b" / "cat.fits"), RunOptions(jobs=1))


def test_catalogues_of_a_configuration_lie_beside_it(sky_field, catalog, tmp_path, monkeypatch):
    (tmp_path / "qad.toml").write_text(f'[paths]\nroot = "{sky_field.root}"\n[crossmatch]\ncatalogs = ["cat.csv"]\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert crossmatch(load_config(), RunOptions(jobs=1)).n_done == 1


def test_command_matches_and_reports(sky_field, catalog, qad):
    run = qad(
        "crossmatch", catalog, "--root", sky_field.root, "--radius", "1", "--top", "30", "--column", "mag", "--json"
    )
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["stage"] == "crossmatch"
    assert document["counts"]["candidates"] == 30
    table = pq.read_table(document["paths"][0])
    assert table.num_rows == document["counts"]["pairs"]
    assert max(table["sep_arcsec"].to_pylist()) <= 1
    assert "cat_mag" in table.column_names
    again = qad("crossmatch", catalog, "--root", sky_field.root, "--radius", "1", "--top", "30", "--column", "mag")
    assert again.returncode == 0
    assert "1 already done" in again.stdout


def test_command_reports_failures_with_exit_code_1(sky_field, catalog, qad, tmp_path):
    run = qad("crossmatch", catalog, tmp_path / "absent.csv", "--root", sky_field.root)
    assert run.returncode == 1
    lines = [line for line in run.stderr.splitlines() if "failed" in line]
    assert len(lines) == 1
    assert "absent.csv" in lines[0]
    assert "no such file" in lines[0]


def test_command_says_what_is_wrong_with_usage(sky_field, catalog, qad):
    for arguments, code, text in (
        ((catalog, "--top", "3", "--all"), 2, "exclude each other"),
        ((), 2, "no catalogue"),
        ((catalog, "--radius", "-1"), 2, "radius_arcsec"),
        ((catalog, "--name", "other"), 3, "no scores of model"),
        ((catalog, "--name", "../other"), 2, "model name"),
    ):
        run = qad("crossmatch", *arguments, "--root", sky_field.root)
        assert run.returncode == code, run.stderr
        assert text in run.stderr
        assert len(run.stderr.strip().splitlines()) == 1


def test_command_matches_all_with_named_columns(sky_field, catalog, qad, tmp_path):
    text = catalog.read_text().replace("ra,dec,id,mag", "alpha_x,delta_x,label,mag", 1)
    odd = tmp_path / "odd.csv"
    odd.write_text(text)
    run = qad("crossmatch", odd, "--root", sky_field.root, "--all")
    assert run.returncode == 1
    assert "--ra-column" in run.stderr
    names = ("--ra-column", "ALPHA_X", "--dec-column", "delta_x", "--id-column", "label")
    run = qad("crossmatch", odd, "--root", sky_field.root, "--all", "--keep-unmatched", *names, "--json")
    assert run.returncode == 0, run.stderr
    table = pq.read_table(json.loads(run.stdout)["paths"][0])
    assert set(table["rank"].to_pylist()) == set(range(1, 61))
    assert set(table["catalog_id"].drop_null().to_pylist()) <= {str(i) for i in sky_field.ids}
