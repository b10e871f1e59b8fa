"""The flat cache: equal to the shards, rebuilt when they change, and never believed when damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toygrid import Toy, make_toy, write_toy_grid

from qad.errors import InputError
from qad.schema import GRID
from qad.storage import flatcache
from qad.storage.flatcache import open_grid
from qad.storage.parquet import make_table, read_table, vectors, write_table
from qad.storage.provenance import Provenance
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


def rewrite_shard(workspace: Workspace, number: int = 1, factor: float = 2.0) -> None:
    """Multiply the flux of one shard: the same rows, the same size to within compression."""
    path = workspace.grid_file(number, 3)
    table = read_table(path, GRID)
    columns = {name: table.column(name).to_pylist() for name in table.column_names if name not in ("flux", "ivar")}
    columns |= {"flux": vectors(table, "flux") * np.float32(factor), "ivar": vectors(table, "ivar")}
    write_table(path, make_table(GRID, columns, n_obs=80), GRID, Provenance("build-grid", {}))


def test_one_changed_shard_is_enough_to_build_it_again(workspace: Workspace) -> None:
    flux = np.array(open_grid(workspace).flux)
    rewrite_shard(workspace)
    again = open_grid(workspace)
    changed = (again.flux != flux).any(axis=1)
    assert changed.sum() == 80
    np.testing.assert_array_equal(again.flux[changed], 2 * flux[changed])
    assert len(folders(workspace)) == 1


def test_other_settings_of_the_grid_are_another_cache(workspace: Workspace) -> None:
    first = open_grid(workspace)
    grid = json.loads(workspace.grid_json.read_text())
    workspace.grid_json.write_text(json.dumps(grid | {"r_v": 3.3}))
    second = open_grid(workspace)
    assert second.key != first.key
    assert second.grid["r_v"] == 3.3
    assert len(folders(workspace)) == 1


def test_a_cache_of_another_version_of_qad_is_not_believed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_grid(workspace)
    [old] = folders(workspace)
    (old / "flux.f32").write_bytes(bytes((old / "flux.f32").stat().st_size))
    monkeypatch.setattr(flatcache, "CACHE_FORMAT", flatcache.CACHE_FORMAT + 1)
    second = open_grid(workspace)
    assert second.key != first.key
    assert np.abs(second.flux).max() > 0
    assert not old.exists()


def test_a_shard_damaged_after_it_was_hashed_is_named_and_leaves_no_cache(workspace: Workspace) -> None:
    open_grid(workspace)
    [folder] = folders(workspace)
    shutil.rmtree(folder)
    path = workspace.grid_file(1, 3)
    status, content = path.stat(), bytearray(path.read_bytes())
    content[100:4000] = bytes(3900)
    path.write_bytes(bytes(content))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputError, match=r"grid-00001-of-00003.parquet: .*damaged"):
        open_grid(workspace)
    assert folders(workspace) == []


def test_shards_that_change_while_they_are_read_leave_no_cache(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = flatcache.read_batches

    def while_another_writes(path: Path, *arguments: Any) -> Iterator[Any]:
        yield from real(path, *arguments)
        if path == workspace.grid_file(2, 3):
            rewrite_shard(workspace, 0)

    monkeypatch.setattr(flatcache, "read_batches", while_another_writes)
    with pytest.raises(InputError, match="was changed while it was read; run again"):
        open_grid(workspace)
    assert folders(workspace) == []
    monkeypatch.undo()
    assert len(open_grid(workspace)) == 240


OPEN = """
import sys, time
from pathlib import Path
import numpy as np
from qad.storage.flatcache import open_grid
from qad.workspace import Workspace
print("ready", flush=True)
sys.stdin.readline()
cache = open_grid(Workspace(Path(sys.argv[1])))
print(float(np.abs(cache.flux).sum(dtype=np.float64)), flush=True)
"""


def test_processes_that_build_it_at_once_all_get_it_whole(workspace: Workspace) -> None:
    command = [sys.executable, "-c", OPEN, str(workspace.root)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = [process.communicate("go\n", timeout=60) for process in processes]
    assert [errors for _, errors in said] == [""] * 3
    expected = float(np.abs(open_grid(workspace).flux).sum(dtype=np.float64))
    assert [float(out) for out, _ in said] == [expected] * 3
    assert len(list((workspace.grid / "cache").iterdir())) == 1


def test_who_finishes_second_keeps_the_cache_of_the_first(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process builds the same cache while this one reads: what others have mapped is not replaced."""
    real = flatcache.read_batches
    made: list[int] = []

    def overtaken(path: Path, *arguments: Any) -> Iterator[Any]:
        yield from real(path, *arguments)
        if path == workspace.grid_file(2, 3) and not made:
            made.append(0)
            open_grid(workspace)
            [folder] = [path for path in folders(workspace) if not path.name.startswith(".")]
            made.append((folder / "flux.f32").stat().st_ino)

    monkeypatch.setattr(flatcache, "read_batches", overtaken)
    open_grid(workspace)
    [folder] = folders(workspace)
    assert (folder / "flux.f32").stat().st_ino == made[1]


MEMORY = """
import resource, sys
from pathlib import Path
from qad.storage.flatcache import open_grid
from qad.workspace import Workspace
import polars, pyarrow.parquet
open_grid(Workspace(Path(sys.argv[1])))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
open_grid(Workspace(Path(sys.argv[2])))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_building_holds_few_spectra_in_memory_however_large_a_shard_is(tmp_path: Path, workspace: Workspace) -> None:
    rng = np.random.default_rng(0)
    shape = (16_384, 1000)
    toy = make_toy(n=10, n_rest=1000, n_obs=100)
    large = Toy(
        rng.standard_normal(shape, np.float32),
        np.ones(shape, np.float32),
        np.zeros(shape[0], np.int32),
        toy.mean,
        toy.loading,
        toy.psi,
        toy.latent,
    )
    write_toy_grid(tmp_path / "large", large, shards=1)
    command = [sys.executable, "-c", MEMORY, str(workspace.root), str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 0.5 * 8 * shape[0] * shape[1]


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
