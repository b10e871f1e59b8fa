"""The whole pipeline by the executable, on a simulated release whose anomalies are known."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qad.evaluation.metrics import average_precision
from qad.schema import GRID, SCORES, SPECTRA
from qad.storage.parquet import read_metadata, read_table

Qad = Callable[..., "subprocess.CompletedProcess[str]"]
KEY = ["targetid", "survey", "program", "healpix"]

pytestmark = pytest.mark.slow


def plain(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path).with_columns(pl.col(pl.Categorical).cast(pl.String))


@pytest.fixture(scope="module")
def scores(survey) -> pl.DataFrame:
    return plain(survey.root / "scores" / "default.parquet")


@pytest.fixture(scope="module")
def truth(survey) -> pl.DataFrame:
    return plain(survey.release / "truth.parquet")


def n_rows(folder: Path) -> int:
    return int(pl.scan_parquet(folder / "*.parquet").select(pl.len()).collect().item())


def test_stages_run_in_order_and_account_for_every_row(survey) -> None:
    stages = survey.report["stages"]
    assert [stage["stage"] for stage in stages] == ["extract", "build-grid", "train", "score"]
    assert all(stage["n_failed"] == 0 for stage in stages)
    rows = [n_rows(survey.root / folder) for folder in ("spectra", "grid", "scores")]
    assert rows[0] >= rows[1] >= rows[2] > 0
    extract = stages[0]["counts"]
    dropped = sum(value for name, value in extract.items() if name.startswith("dropped."))
    assert extract["rows_in"] == extract["rows_out"] + dropped
    assert extract["rows_out"] == rows[0]


def test_every_good_quasar_is_extracted_and_nothing_else(survey, truth: pl.DataFrame) -> None:
    spectra = pl.concat([plain(path) for path in (survey.root / "spectra").glob("*.parquet")])
    spectra = spectra.select(*KEY, "zwarn", "spectype", "z")
    assert (spectra["zwarn"] == 0).all()
    assert (spectra["spectype"] == "QSO").all()
    kinds = spectra.join(truth, on=KEY, how="left")
    assert kinds["kind"].null_count() == 0
    assert set(kinds["kind"]) <= {"qso", "star", "galaxy"}
    normal = kinds.filter((pl.col("kind") == "qso") & pl.col("anomaly").is_null() & pl.col("artefact").is_null())
    error = ((normal["z"] - normal["z_true"]).abs() / (1 + normal["z_true"])).median()
    assert error < 300 / 299_792


def test_planted_anomalies_rank_above_chance_and_above_plain_chi2(scores: pl.DataFrame, truth: pl.DataFrame) -> None:
    planted = truth.select(*KEY, "anomaly", fault="artefact")
    known = scores.join(planted, on=KEY, how="left").filter(pl.col("fault").is_null())
    is_anomaly = known["anomaly"].is_not_null().to_numpy()
    assert is_anomaly.sum() >= 10
    ours = average_precision(known["score"].to_numpy(), is_anomaly)
    assert ours > 3 * is_anomaly.mean()
    assert ours > average_precision(known["chi2_dof"].to_numpy(), is_anomaly)


def test_scores_table_keeps_its_contract(survey, scores: pl.DataFrame) -> None:
    assert scores["rank"].to_list() == list(range(1, scores.height + 1))
    assert np.isfinite(scores["score"].to_numpy()).all()
    for column in ("p_value", "artefact"):
        assert scores[column].is_between(0, 1).all()
    for view in ("local", "latent", "line", "global"):
        assert {f"view_{view}", f"p_{view}"} <= set(scores.columns)
    assert (scores["reason"].str.len_chars() > 0).all()
    assert read_metadata(survey.root / "scores" / "default.parquet", SCORES)["qad.stage"] == "score"


def digests(root: Path) -> dict[str, str]:
    files = [path for folder in ("spectra", "grid", "models", "scores") for path in (root / folder).rglob("*")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}


def test_running_again_does_nothing_and_changes_no_byte(survey, qad: Qad) -> None:
    before = digests(survey.root)
    done = qad("run", "--source", survey.release, "--root", survey.root, "--json", cwd=survey.root)
    assert done.returncode == 0, done.stderr
    assert all(stage["n_done"] == 0 for stage in json.loads(done.stdout)["stages"])
    assert digests(survey.root) == before


def test_tables_of_one_survey_agree(survey) -> None:
    spectra = [read_table(path, SPECTRA, ["targetid"]) for path in (survey.root / "spectra").glob("*.parquet")]
    shards = sorted((survey.root / "grid").glob("grid-*.parquet"))
    grid = [read_table(path, GRID, ["targetid", "split"]) for path in shards]
    assert len(spectra) == 3
    assert len(grid) == 128
    splits = np.concatenate([table.column("split").to_numpy() for table in grid])
    assert 0.8 < (splits == 0).mean() < 0.97


def test_candidates_are_matched_with_a_catalogue(survey, qad: Qad, scores: pl.DataFrame, tmp_path: Path) -> None:
    catalogue = tmp_path / "known.csv"
    top = scores.head(20)
    names = [f"J{i}" for i in range(20)]
    pl.DataFrame({"name": names, "ra": top["ra"], "dec": top["dec"] + 0.5 / 3600}).write_csv(catalogue)
    done = qad("crossmatch", catalogue, "--root", survey.root, "--top", 50, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    best = pl.read_parquet(survey.root / "matches" / "default-known.parquet").filter("best")
    assert set(top["targetid"]) <= set(best["targetid"])
    assert np.allclose(best["sep_arcsec"].to_numpy()[:20], 0.5, atol=1e-3)


def test_candidates_are_shown_in_every_form(survey, qad: Qad, scores: pl.DataFrame, tmp_path: Path) -> None:
    first = str(scores["targetid"][0])

    def inspect(*arguments: object) -> str:
        done = qad("inspect", *arguments, "--root", survey.root, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert first in inspect("--top", 5)
    listed = json.loads(inspect("--top", 5, "--format", "json"))
    rows = listed if isinstance(listed, list) else listed["rows"]
    assert [row["targetid"] for row in rows] == [str(value) for value in scores["targetid"][:5]]
    assert "deltachi2" in inspect(first).lower()
    assert len(inspect(first, "--plot").splitlines()) > 15
    inspect("--top", 10, "--html", tmp_path / "gallery")
    pages = [path.read_text() for path in (tmp_path / "gallery").rglob("*") if path.suffix in (".html", ".js")]
    assert any(first in page for page in pages)


def test_status_counts_what_is_there(survey, qad: Qad) -> None:
    stages = json.loads(qad("status", "--root", survey.root, "--json", cwd=survey.root).stdout)["stages"]
    by_name = {stage["stage"]: stage for stage in stages}
    assert by_name["extract"]["n_files"] == 3
    assert by_name["train"]["names"] == ["default"]
    assert by_name["score"]["n_rows"] > 0


def test_dry_run_ends_at_the_first_stage_with_work_and_writes_nothing(survey, qad: Qad, tmp_path: Path) -> None:
    done = qad("run", "--source", survey.release, "--root", tmp_path / "work", "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (extract,) = json.loads(done.stdout)["stages"]
    assert (extract["stage"], extract["n_done"], extract["dry_run"]) == ("extract", 3, True)
    assert not (tmp_path / "work").exists()


def test_sample_too_small_to_train_on_is_scored_by_simulated_quasars(qad: Qad, tmp_path: Path) -> None:
    made = qad("simulate", "few", "--quasars", 25, "--healpix", 1, "--no-resolution", "--quiet", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    done = qad("run", "--source", "few", "--root", "work", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "simulated quasars" in done.stderr
    stages = [stage["stage"] for stage in json.loads(done.stdout)["stages"]]
    assert stages == ["extract", "build-grid", "simulate", "extract", "build-grid", "train", "score", "score"]
    scores = plain(tmp_path / "work" / "scores" / "default.parquet")
    assert 15 < scores.height <= 25
    plot = qad("inspect", "--root", "work", "--plot", cwd=tmp_path)
    assert plot.returncode == 0, plot.stderr
    assert "model" in plot.stdout
    assert "no reconstruction" not in plot.stdout + plot.stderr
