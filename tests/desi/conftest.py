"""Fixtures for the files of DESI: pairs that are right, to be damaged."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# importlib mode does not put this folder on the path, and the package of mutations is no test
sys.path.insert(0, str(Path(__file__).parent))

from mutating import Pair, simulated_pairs, tiled_pair


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """A simulated pair with resolution matrices, one without, and one with masks in tiles."""
    (whole,) = simulated_pairs(tmp_path_factory.mktemp("whole"), quasars=3)
    (small,) = simulated_pairs(tmp_path_factory.mktemp("small"), quasars=2, resolution=False)
    return [whole, small, tiled_pair(small)]
