"""The stage on a small simulated release: counts, ranks, provenance, reuse of a calibration, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import qad
from qad.errors import InputError
from qad.results import StageResult
from qad.schema import GRID, SCORES, TRUTH
from qad.storage.parquet import read_frame, read_metadata, read_table

pytestmark = pytest.mark.timeout(280)
N_QUASARS = 240


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory with a grid and a factor model."""
    folder = tmp_path_factory.mktemp("scoring")
    release = folder / "release"
    qad.simulate(
        release, quasars=N_QUASARS, healpix=2, anomaly_rate=0.05, contaminants=0.05, seed=3, resolution=False, jobs=1
    )
    root = folder / "data"
    qad.extract(root=root, source=release, jobs=1)
    qad.build_grid(root=root, dloglam=5e-4, shards=4, jobs=1)
    qad.train(root=root, name="default", arch="factor", n_latent=4, em_iterations=6, jobs=1)
    return root


@pytest.fixture(scope="module")
def scored(root: Path) -> StageResult:
    return qad.score(root=root)


def _copy(root: Path, to: Path, *parts: str) -> Path:
    for part in parts:
        shutil.copytree(root / part, to / part)
    return to


def test_every_spectrum_of_the_grid_has_one_row_or_is_counted(root: Path, scored: StageResult) -> None:
    table = read_table(scored.paths[0], SCORES)
    n_grid = sum(read_table(path, GRID, ["targetid"]).num_rows for path in (root / "grid").glob("*.parquet"))
    assert scored.counts["in"] == n_grid == scored.counts["out"] + scored.counts["dropped.not_finite"]
    assert table.num_rows == scored.counts["out"]
    assert table["rank"].to_pylist() == list(range(1, table.num_rows + 1))
    rows = list(zip(*(table[name].to_pylist() for name in ("targetid", "survey", "program", "healpix")), strict=True))
    assert len(set(rows)) == len(rows)


def test_scores_are_finite_and_ranked_with_artefacts_behind(scored: StageResult) -> None:
    table = read_table(scored.paths[0], SCORES)
    score, artefact = table["score"].to_numpy(), table["artefact"].to_numpy() >= 0.5
    assert np.isfinite(score).all()
    assert np.all(np.diff(score[~artefact]) <= 0)
    assert not artefact[: int((~artefact).sum())].any()
    p = table["p_value"].to_numpy()
    assert ((p > 0) & (p <= 1)).all()
    assert all(table["reason"].to_pylist())


def test_every_view_has_a_raw_value_and_a_p_value(scored: StageResult) -> None:
    names = set(read_table(scored.paths[0], SCORES).column_names)
    for view in ("global", "local", "latent", "line", "local_300", "local_4500", "local_38000"):
        assert {f"view_{view}", f"p_{view}"} <= names


def test_planted_anomalies_rank_before_chance(root: Path, scored: StageResult) -> None:
    from qad.evaluation.metrics import auroc

    ranks = read_frame(scored.paths[0], SCORES, ["targetid", "rank"])
    truth = read_frame(root.parent / "release" / "truth.parquet", TRUTH, ["targetid", "anomaly"]).unique("targetid")
    joined = ranks.join(truth, on="targetid", how="left")
    assert auroc(-joined["rank"].to_numpy().astype(float), joined["anomaly"].is_not_null().to_numpy()) > 0.7


def test_a_small_population_is_flagged(scored: StageResult) -> None:
    from qad.scoring.rank import SMALL_POPULATION

    assert (read_table(scored.paths[0], SCORES)["flags"].to_numpy() & SMALL_POPULATION).all()


def test_provenance_names_the_model_and_the_grid(scored: StageResult) -> None:
    inputs = {item["name"] for item in read_metadata(scored.paths[0], SCORES)["qad.inputs"]}
    assert {"grid", "models/default/model.json"} <= inputs


def test_a_second_run_is_skipped_and_a_forced_one_gives_the_same_bytes(root: Path, scored: StageResult) -> None:
    before = [path.read_bytes() for path in scored.paths]
    again = qad.score(root=root)
    assert (again.n_done, again.n_skipped) == (0, scored.n_done)
    qad.score(root=root, force=True)
    assert [path.read_bytes() for path in scored.paths] == before


def test_other_settings_score_again(root: Path, scored: StageResult, tmp_path: Path) -> None:
    copy = _copy(root, tmp_path, "grid", "models", "scores")
    kept = qad.score(root=copy, keep_artefacts=True)
    assert kept.n_done == scored.n_done
    score = read_table(kept.paths[0], SCORES)["score"].to_numpy()
    assert np.all(np.diff(score) <= 0)


def test_dry_run_writes_nothing(root: Path, tmp_path: Path) -> None:
    copy = _copy(root, tmp_path, "grid", "models")
    shutil.rmtree(copy / "grid" / "cache", ignore_errors=True)
    result = qad.score(root=copy, dry_run=True)
    assert result.dry_run
    assert result.n_done > 0
    assert not (copy / "scores").exists()
    assert not (copy / "grid" / "cache").exists()


def test_a_model_of_another_grid_is_refused_with_both_hashes(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other"
    shutil.copytree(root / "spectra", copy / "spectra")
    qad.build_grid(root=copy, dloglam=1e-3, shards=2, jobs=1)
    with pytest.raises(InputError) as error:
        qad.score(root=copy, model=root / "models" / "default")
    import json

    for folder in (root, copy):
        assert json.loads((folder / "grid" / "grid.json").read_text())["geometry_hash"] in str(error.value)
    assert error.value.exit_code == 3
    assert not (copy / "scores").exists()


def test_a_missing_model_is_one_clear_error(root: Path) -> None:
    with pytest.raises(InputError) as error:
        qad.score(root=root, name="nobody")
    assert "qad train" in str(error.value)


def test_few_spectra_are_judged_by_the_population_of_their_model(
    root: Path, scored: StageResult, tmp_path: Path
) -> None:
    from qad.scoring.rank import FOREIGN_CALIBRATION

    copy = _copy(root, tmp_path, "grid")
    shards = sorted((copy / "grid").glob("grid-*.parquet"))
    few = qad.score(root=copy, model=root / "models" / "default")
    assert few.details["calibration"] == str(root / "scores" / "default.calibration.npz")
    first, second = (read_table(result.paths[0], SCORES) for result in (scored, few))
    assert len(shards) == 4
    assert second["targetid"].to_pylist() == first["targetid"].to_pylist()
    np.testing.assert_allclose(second["score"].to_numpy(), first["score"].to_numpy(), rtol=1e-5)
    assert (second["flags"].to_numpy() & FOREIGN_CALIBRATION).all()


def test_a_calibration_of_another_model_is_refused(root: Path, scored: StageResult, tmp_path: Path) -> None:
    copy = _copy(root, tmp_path, "grid", "models")
    qad.train(root=copy, name="second", arch="factor", n_latent=3, em_iterations=2, jobs=1)
    with pytest.raises(InputError) as error:
        qad.score(root=copy, name="second", calibration=scored.paths[1])
    assert "made with model" in str(error.value)


def test_a_spectrum_whose_score_is_not_finite_is_left_out_and_counted(
    root: Path, scored: StageResult, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    copy = _copy(root, tmp_path, "grid", "models")
    shutil.rmtree(copy / "grid" / "cache", ignore_errors=True)
    shard = sorted((copy / "grid").glob("grid-*.parquet"))[0]
    table = pq.read_table(shard)
    norm = table["norm"].to_numpy().copy()
    norm[0] = np.nan
    index = table.schema.get_field_index("norm")
    pq.write_table(table.set_column(index, table.schema.field("norm"), pa.array(norm)), shard)
    lost = str(table["targetid"][0].as_py())
    result = qad.score(root=copy)
    assert result.counts["dropped.not_finite"] == 1
    assert result.counts["out"] == scored.counts["out"] - 1
    assert lost not in [str(value) for value in read_table(result.paths[0], SCORES)["targetid"].to_pylist()]


def test_the_command_prints_the_top_with_identifiers_as_text(root: Path, scored: StageResult) -> None:
    import json
    import subprocess
    import sys

    def run(*more: str) -> str:
        words = [sys.executable, "-m", "qad", "score", "--root", str(root), "--top", "3", *more]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    rows = json.loads(run("--json"))["top"]
    first = read_table(scored.paths[0], SCORES)
    assert [row["targetid"] for row in rows] == [str(value) for value in first["targetid"].to_pylist()[:3]]
    plain = run("--quiet").splitlines()
    assert plain[0].split()[:2] == ["rank", "targetid"]
    assert rows[0]["targetid"] in plain[1]
