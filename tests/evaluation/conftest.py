"""A small simulated release, scored by a factor model."""

from __future__ import annotations

from pathlib import Path

import pytest

import qad

N_QUASARS = 260


@pytest.fixture(scope="session")
def evaluated_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory with spectra, grid, model and scores; its release lies beside it in ``release``."""
    folder = tmp_path_factory.mktemp("evaluation")
    release, root = folder / "release", folder / "data"
    qad.simulate(
        release, quasars=N_QUASARS, healpix=2, anomaly_rate=0.05, contaminants=0.0, seed=5, resolution=False, jobs=1
    )
    qad.extract(root=root, source=release, jobs=1)
    qad.build_grid(root=root, dloglam=5e-4, shards=2, test_share=0.4, jobs=1)
    qad.train(root=root, arch="factor", n_latent=4, em_iterations=6, jobs=1)
    qad.score(root=root, jobs=1, neighbours=60)
    return root
