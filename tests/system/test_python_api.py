"""The public Python functions do what the subcommands do, print nothing, and return frozen results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import qad
from qad.errors import ConfigError, InputError

pytestmark = pytest.mark.slow


def test_stages_follow_each_other_and_print_nothing(
    survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    extracted = qad.extract(source=survey.release, root="work", jobs=1)
    assert (extracted.n_done, extracted.failures) == (3, ())
    assert qad.extract(source=survey.release, root="work", jobs=1).n_skipped == 3
    assert qad.build_grid(root="work", dloglam=4e-4, jobs=1).counts["out"] == extracted.counts["rows_out"]
    qad.train(root="work", arch="factor", em_iterations=3)
    scored = qad.score(root="work")
    assert scored.counts["out"] == extracted.counts["rows_out"]
    assert scored.paths[0] == tmp_path / "work" / "scores" / "default.parquet"
    rows = qad.inspect(root="work", top=3).rows
    assert len(rows) == 3
    assert isinstance(rows[0]["targetid"], str | int)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        scored.n_done = 0


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key extract\.zmin; did you mean z_min\?"):
        qad.extract(zmin=2.0, root=tmp_path)
    with pytest.raises(InputError, match="build-grid"):
        qad.score(root=tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'exract'"):
        qad.exract  # noqa: B018


def test_promised_names_are_there() -> None:
    assert callable(qad.extraction.extract_qso_tile_to_parquet)
    assert qad.models.QSOAutoencoder is qad.QSOAutoencoder
    assert {"fetch", "extract", "build_grid", "train", "score", "crossmatch", "inspect"} <= set(dir(qad))
