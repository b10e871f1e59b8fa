"""The second simulation of the benchmarks: files that `qad extract` takes as they stand, made by code of its own."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qad
from qad.schema import TRUTH
from qad.storage.parquet import read_frame

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a module of the second simulation."""
    if not (BENCHMARKS / "detecting").is_dir():
        pytest.skip(f"no second simulation at {BENCHMARKS}: the tests run without the benchmarks beside them")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: importlib.import_module(f"detecting.second_{name}")


def test_it_uses_nothing_of_the_first() -> None:
    for path in BENCHMARKS.glob("detecting/second_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith(("qad.simulation", "qad.lines", "qad.desi"))], (
                path.name
            )


def test_every_class_and_fault_is_finite_and_changes_something(second: Any) -> None:
    quasars, sky = second("quasars"), second("sky")
    for name in quasars.ANOMALIES:
        light = quasars.light_of(
            quasars.draw_anomaly(np.random.default_rng(1), name, 0.8), sky.MERGED, np.random.default_rng(2)
        )
        assert np.isfinite(light).all()
        assert light.min() >= 0
        assert light.mean() > 0
    light = quasars.light_of(quasars.draw_source(np.random.default_rng(1)), sky.MERGED, np.random.default_rng(2))
    for fault in sky.FAULTS.values():
        plain, spoiled = (sky.observe(light, np.random.default_rng(3), 1.0) for _ in range(2))
        fault(spoiled, 0.8, np.random.default_rng(4))
        assert any((plain.flux[camera] != spoiled.flux[camera]).any() for camera in sky.CAMERAS)


def test_a_release_is_extracted_whole_and_made_again_the_same(second: Any, tmp_path: Path) -> None:
    write = second("release").write_release
    truth = write(tmp_path / "release", 30, 0.3, 0.2, 1)
    result = qad.extract(root=tmp_path / "data", source=tmp_path / "release", jobs=1)
    assert not result.failures
    assert qad.build_grid(root=tmp_path / "data", dloglam=1e-3, shards=1, jobs=1).counts["out"] == 30
    rows = read_frame(truth, TRUTH, ["anomaly", "artefact"])
    assert rows["anomaly"].is_not_null().sum() == 9
    assert rows["artefact"].is_not_null().sum() == 6
    again = write(tmp_path / "again", 30, 0.3, 0.2, 1)
    assert again.read_bytes() == truth.read_bytes()
