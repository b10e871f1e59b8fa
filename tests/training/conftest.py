"""Grids to train on, and settings that train in a second."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# test modules are imported by path, so that the helper module beside them must be told of
sys.path.insert(0, str(Path(__file__).parent))

from toygrid import Toy, make_toy, write_toy_grid

from qad.config import Config, load_config
from qad.results import RunOptions
from qad.workspace import Workspace

SMALL = {
    "train.n_latent": 3,
    "train.hidden": [16, 8],
    "train.mlp_hidden": [16, 8],
    "train.encoding_dim": 4,
    "train.mlp_pixels": 40,
    "train.epochs": 4,
    "train.batch_size": 32,
    "train.em_iterations": 4,
}


@pytest.fixture(scope="session", autouse=True)
def _compiled_programs_stay_here(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Programs that tests compile do not land in the user's own cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("jax")))
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    yield
    patch.undo()


@pytest.fixture(scope="session")
def toy() -> Toy:
    """A small sample."""
    return make_toy(n=240, n_rest=200, n_obs=80)


@pytest.fixture
def workspace(tmp_path: Path, toy: Toy) -> Workspace:
    """A work directory that holds the small sample."""
    return write_toy_grid(tmp_path / "data", toy)


@pytest.fixture
def settings(workspace: Workspace) -> Callable[..., Config]:
    """Return a function from keys of ``[train]`` to a configuration for the small sample."""

    def make(**keys: Any) -> Config:
        overrides = {"paths.root": str(workspace.root), **SMALL}
        return load_config(None, {**overrides, **{f"train.{key}": value for key, value in keys.items()}}, environ={})

    return make


@pytest.fixture
def options() -> RunOptions:
    """Default options."""
    return replace(RunOptions(), jobs=1)
