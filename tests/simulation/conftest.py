"""A small release, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from qad.simulation.release import simulate


@pytest.fixture(scope="session")
def small_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of 60 quasars in 2 pixels, with anomalies, artefacts, contaminants and repeats."""
    folder = tmp_path_factory.mktemp("release")
    simulate(folder, quasars=60, healpix=2, anomaly_rate=0.3, artefact_rate=0.1, contaminants=0.4, repeats=0.1, seed=3)
    return folder
