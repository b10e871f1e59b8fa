"""The flat cache: equal to the shards, rebuilt when they change, and never believed when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toygrid import Toy, make_toy, write_toy_grid

from qad.errors import InputError
from qad.schema import GRID
from qad.storage.flatcache import open_grid
from qad.storage.parquet import read_table, vectors
from qad.workspace import Workspace


def folders(workspace: Workspace) -> list[Path]:
    return sorted((workspace.grid / "cache").iterdir())


def test_cache_holds_the_rows_of_all_shards_in_order(workspace: Workspace, toy: Toy) -> None:
    cache = open_grid(workspace)
    tables = [read_table(path, GRID) for path in sorted(workspace.grid.glob("*.parquet"))]
    np.testing.assert_array_equal(cache.flux, np.concatenate([vectors(table, "flux") for table in tables]))
    np.testing.assert_array_equal(cache.ivar, np.concatenate([vectors(table, "ivar") for table in tables]))
    targetid = np.concatenate([table.column("targetid").to_numpy() for table in tables])
    np.testing.assert_array_equal(cache.table["targetid"].to_numpy(), targetid)
    assert cache.table["targetid"].dtype.is_integer()
    assert len(cache) == len(toy.flux)
    assert (cache.n_rest, cache.n_obs) == (200, 80)
    assert isinstance(cache.flux, np.memmap)
    assert not cache.flux.flags.writeable


def test_cache_is_built_once_and_again_when_the_grid_changes(workspace: Workspace) -> None:
    first = open_grid(workspace)
    [folder] = folders(workspace)
    made = (folder / "flux.f32").stat().st_mtime_ns
    open_grid(workspace)
    assert (folder / "flux.f32").stat().st_mtime_ns == made
    write_toy_grid(workspace.root, make_toy(n=90, n_rest=200, n_obs=80, seed=9))
    second = open_grid(workspace)
    assert len(second) == 90
    assert second.key != first.key
    assert len(folders(workspace)) == 1


def test_a_damaged_cache_is_built_again(workspace: Workspace) -> None:
    flux = np.array(open_grid(workspace).flux)
    [folder] = folders(workspace)
    for name in ("flux.f32", "table.arrow", "cache.json"):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-7])
        np.testing.assert_array_equal(open_grid(workspace).flux, flux)


def test_an_empty_grid_opens(tmp_path: Path) -> None:
    toy = make_toy(n=3, n_rest=200, n_obs=80)
    empty = Toy(*(values[:0] for values in (toy.flux, toy.ivar, toy.start)), toy.mean, toy.loading, toy.psi, toy.latent)
    cache = open_grid(write_toy_grid(tmp_path, empty))
    assert cache.flux.shape == (0, 80)
    assert len(cache) == 0


def test_no_grid_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `qad build-grid` first"):
        open_grid(Workspace(tmp_path))


def test_a_missing_shard_is_named(workspace: Workspace) -> None:
    workspace.grid_file(1, 3).unlink()
    with pytest.raises(InputError, match="incomplete set"):
        open_grid(workspace)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"n_rest": 3}'])
def test_a_grid_json_that_lacks_keys_is_refused(workspace: Workspace, content: str) -> None:
    workspace.grid_json.write_text(content)
    with pytest.raises(InputError, match="--force"):
        open_grid(workspace)


def test_windows_of_another_length_than_grid_json_says_are_refused(workspace: Workspace) -> None:
    grid = json.loads(workspace.grid_json.read_text())
    workspace.grid_json.write_text(json.dumps(grid | {"n_obs": 81}))
    with pytest.raises(InputError, match="windows of 80 pixels"):
        open_grid(workspace)


@pytest.mark.parametrize(("name", "value"), [("flux", np.nan), ("ivar", np.inf), ("ivar", -1.0)])
def test_a_value_that_cannot_be_is_refused_with_its_target(tmp_path: Path, toy: Toy, name: str, value: float) -> None:
    values = {"flux": toy.flux.copy(), "ivar": toy.ivar.copy()}
    values[name][4, 5] = value
    workspace = write_toy_grid(
        tmp_path, Toy(values["flux"], values["ivar"], toy.start, toy.mean, toy.loading, toy.psi, toy.latent)
    )
    with pytest.raises(InputError, match="TARGETID 39627000000000004"):
        open_grid(workspace)
