"""`qad evaluate` on a small release: strong plants are found and absurd ones not, the truth is told, errors are one line."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qad
from qad.config import load_config
from qad.errors import ConfigError, InputError
from qad.evaluation import sheets
from qad.evaluation.metrics import auroc, average_precision, precision_at
from qad.evaluation.rescore import find_scorer
from qad.evaluation.stage import find_truth, read_evaluation
from qad.results import RunOptions
from qad.schema import SCORES, TRUTH
from qad.storage.parquet import read_frame

pytestmark = pytest.mark.timeout(280)
SPECTRA = 120


def cell(document: dict, by: str, name: str) -> dict:
    return next(entry for entry in document["completeness"] if (entry["by"], entry["cell"]) == (by, name))


def copied(root: Path, to: Path) -> Path:
    """Return a work directory with the same content, and without evaluations."""
    shutil.copytree(root, to, ignore=shutil.ignore_patterns("evaluation"))
    return to


@pytest.fixture(scope="module")
def document(evaluated_root: Path) -> dict:
    result = qad.evaluate(root=evaluated_root, spectra=SPECTRA, truth="none", top=[20], jobs=1)
    return dict(result.details["evaluation"])


def test_strong_plants_are_found_more_often_than_mild_ones(document: dict) -> None:
    assert document["mode"] == "planted"
    assert document["n"]["anomalies"] + document["n"]["artefacts"] + document["n"]["lost"] == SPECTRA
    shares = [cell(document, "strength", f"{level}")["top_20"] for level in (0.1, 0.3, 0.5, 0.7, 0.9)]
    for mild, strong in itertools.pairwise(shares):
        assert strong["value"] >= mild["value"] - 2 * np.hypot(strong["error"], mild["error"])
    assert shares[-1]["value"] > shares[0]["value"]
    assert document["ranking"]["auroc"]["value"] > 0.6
    everything = cell(document, "all", "all")
    assert everything["fpr_0.001"]["value"] is None  # 260 spectra cannot tell
    assert 0 < everything["fpr_0.01"]["value"] < 1


def test_an_absurdly_weak_plant_is_not_found(
    evaluated_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = copied(evaluated_root, tmp_path / "data")
    weak = functools.partial(sheets.plant_anomaly, dilution=1e-3)
    monkeypatch.setattr(sheets, "plant_anomaly", weak)
    classes = ["reddened", "star", "strong_feii"]
    result = qad.evaluate(root=root, spectra=60, classes=classes, truth="none", top=[20], jobs=1)
    assert cell(dict(result.details["evaluation"]), "all", "all")["fpr_0.01"]["value"] <= 0.05
    monkeypatch.undo()
    result = qad.evaluate(root=root, spectra=60, classes=classes, truth="none", top=[20], jobs=1, force=True)
    assert cell(dict(result.details["evaluation"]), "all", "all")["fpr_0.01"]["value"] > 0.3


def test_spectra_without_a_plant_score_as_in_the_list(evaluated_root: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated_root / "spectra", tmp_path / "spectra")
    config = load_config(overrides={"paths.root": str(evaluated_root)})
    again, _ = find_scorer(config, "default").score(tmp_path, RunOptions(jobs=1))
    before = read_frame(evaluated_root / "scores" / "default.parquet", SCORES, ["targetid", "score", "p_value"])
    joined = before.join(again, on="targetid", suffix="_again")
    assert joined.height == before.height
    np.testing.assert_allclose(joined["score_again"], joined["score"], rtol=1e-4, atol=1e-4)


def test_same_seed_same_bytes_on_any_number_of_processes(evaluated_root: Path, document: dict, tmp_path: Path) -> None:
    root = copied(evaluated_root, tmp_path / "data")
    result = qad.evaluate(root=root, spectra=SPECTRA, truth="none", top=[20], jobs=2)
    for path in result.paths:
        assert path.read_bytes() == (evaluated_root / "evaluation" / path.name).read_bytes()
    assert result.paths[1].read_bytes().startswith(b"\x89PNG")
    assert not list((root / "evaluation").glob(".*"))
    other = qad.evaluate(root=root, spectra=SPECTRA, truth="none", top=[20], jobs=1, seed=1)
    assert other.details["evaluation"]["completeness"] != document["completeness"]


def test_a_second_run_is_recognised_and_the_scores_stay(evaluated_root: Path, document: dict) -> None:
    scores = evaluated_root / "scores" / "default.parquet"
    before = scores.read_bytes()
    again = qad.evaluate(root=evaluated_root, spectra=SPECTRA, truth="none", top=[20])
    assert (again.n_done, again.n_skipped) == (0, 1)
    assert dict(again.details["evaluation"]) == document == read_evaluation(again.paths[0])
    assert scores.read_bytes() == before
    assert qad.evaluate(root=evaluated_root, spectra=30, truth="none", dry_run=True).n_done == 30


def test_with_a_truth_the_figures_are_a_direct_computation(evaluated_root: Path, tmp_path: Path) -> None:
    root = copied(evaluated_root, tmp_path / "data")
    truth_file = evaluated_root.parent / "release" / "truth.parquet"
    result = qad.evaluate(root=root, truth=str(truth_file), top=[20])
    found = result.details["evaluation"]
    assert found["mode"] == "truth"
    rows = read_frame(root / "scores" / "default.parquet", SCORES, ["targetid", "rank", "snr"])
    truth = read_frame(truth_file, TRUTH, ["targetid", "anomaly", "artefact"])
    joined = rows.join(truth, on="targetid", how="left").sort("rank")
    score, is_odd = -joined["rank"].to_numpy().astype(float), joined["anomaly"].is_not_null().to_numpy()
    ranking = found["ranking"]
    assert ranking["ap"]["value"] == pytest.approx(average_precision(score, is_odd), abs=1e-5)
    assert ranking["auroc"]["value"] == pytest.approx(auroc(score, is_odd), abs=1e-5)
    assert ranking["precision_at_20"]["value"] == pytest.approx(precision_at(score, is_odd, 20), abs=1e-5)
    first = joined.head(20)["artefact"].is_not_null().mean()
    assert ranking["artefacts_in_20"]["value"] == pytest.approx(first, abs=1e-5)
    assert found["n"]["anomalies"] == int(is_odd.sum())


def test_the_truth_beside_an_extracted_release_is_found(evaluated_root: Path, tmp_path: Path) -> None:
    root = copied(evaluated_root, tmp_path / "data")
    config = tmp_path / "qad.toml"
    config.write_text(f'[extract]\nsource = "{evaluated_root.parent / "release"}"\n')
    assert qad.evaluate(root=root, config=config, top=[20]).details["evaluation"]["mode"] == "truth"


def test_the_truth_of_a_release_named_in_the_file_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project" / "release").mkdir(parents=True)
    (tmp_path / "project" / "release" / "truth.parquet").touch()
    (tmp_path / "project" / "qad.toml").write_text('[extract]\nsource = "release"\n')
    monkeypatch.chdir(tmp_path)
    config = load_config(tmp_path / "project" / "qad.toml")
    assert find_truth(config) == tmp_path / "project" / "release" / "truth.parquet"


def test_what_is_missing_is_named(evaluated_root: Path, tmp_path: Path) -> None:
    root = copied(evaluated_root, tmp_path / "data")
    with pytest.raises(ConfigError, match="no class 'dragon'; known: hibal"):
        qad.evaluate(root=root, classes=["dragon"])
    with pytest.raises(InputError, match=r"other.parquet: no scores to evaluate; run `qad score`"):
        qad.evaluate(root=root, name="other")
    with pytest.raises(InputError, match="no such truth"):
        qad.evaluate(root=root, truth=str(tmp_path / "absent.parquet"))
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        qad.evaluate(root=root, truth=str(tmp_path / "bad.parquet"))
    shutil.rmtree(root / "spectra")
    with pytest.raises(InputError, match=r"no spectra here; .*run `qad extract` again"):
        qad.evaluate(root=root, spectra=20, truth="none", jobs=1)
    assert not list((root / "evaluation").glob("*"))
    model = root / "models" / "default" / "model.json"
    model.write_text(model.read_text() + " ")
    shutil.rmtree(root / ".qad")
    with pytest.raises(InputError, match=r"is not here, or was trained again; run `qad score` again"):
        qad.evaluate(root=root, spectra=20, truth="none")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "qad", "evaluate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def test_the_command_prints_tables_or_json_and_one_line_for_an_error(
    evaluated_root: Path, document: dict, tmp_path: Path
) -> None:
    same = ["--root", str(evaluated_root), "--spectra", str(SPECTRA), "--top", "20", "--truth", "none"]
    shown = run(*same, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    for text in (
        "Completeness",
        "1 % FPR",
        "first 20",
        "average precision",
        "felobal",
        "evaluation/default.png",
    ):
        assert text in shown.stdout
    told = json.loads(run(*same, "--json", cwd=tmp_path).stdout)
    assert told["evaluation"] == document
    wrong = run("--root", str(tmp_path / "none"), "--quiet", cwd=tmp_path)
    assert wrong.returncode == 3
    (line,) = wrong.stderr.splitlines()
    assert "run `qad score`" in line
    assert run("--root", str(evaluated_root), "--class", "dragon", cwd=tmp_path).returncode == 2
