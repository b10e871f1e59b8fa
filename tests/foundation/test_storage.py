"""Files appear whole or not at all, carry their provenance, and are refused when they are not what they claim."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.errors import ConfigError, InputError, StorageError
from qad.schema import GRID, SPECTRA, TABLES
from qad.storage import atomic
from qad.storage.lock import stage_lock
from qad.storage.parquet import make_table, read_frame, read_metadata, read_table, vectors, write_table
from qad.storage.provenance import InputFile, Provenance, hash_file
from qad.storage.receipts import hashes_of, write_receipt

N_OBS = 7
PROVENANCE = Provenance("build-grid", {"dloglam": 2e-4}, [InputFile("a.parquet", "0" * 64)], release="dr1")


def grid_table(targetids: list[int], seed: int = 0) -> pa.Table:
    n, random = len(targetids), np.random.default_rng(seed)
    columns = {
        "targetid": targetids,
        "survey": ["main"] * n,
        "program": ["dark"] * n,
        "healpix": [47] * n,
        **{name: random.random(n) for name in ("ra", "dec", "z", "snr", "ebv", "norm", "coverage")},
        **{name: [0] * n for name in ("zwarn", "split", "start")},
        "flux": random.normal(size=(n, N_OBS)),
        "ivar": random.random((n, N_OBS)),
    }
    return make_table(GRID, columns, n_obs=N_OBS)


def test_failed_write_leaves_the_old_file_and_no_stray(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    atomic.write_json(path, {"a": 1})

    def write_half() -> None:
        with atomic.atomic_path(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["x.json"]


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for content in ("one", "two"):
        with atomic.atomic_folder(folder) as partial:
            (partial / content).write_text(content)
    assert [item.name for item in folder.iterdir()] == ["two"]
    with pytest.raises(RuntimeError), atomic.atomic_folder(folder) as partial:
        raise RuntimeError
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_kill_while_writing_leaves_no_final_name(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from qad.storage.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); print('ready', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "x.txt"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not path.exists()
    (part,) = tmp_path.iterdir()
    assert atomic.remove_stale_parts(tmp_path) == 0, "a fresh part may belong to another machine"
    os.utime(part, (time.time() - 2 * atomic.STALE_SECONDS,) * 2)
    assert atomic.remove_stale_parts(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_and_full_disk_are_storage_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write") as caught:
        atomic.write_text(tmp_path / "file" / "x", "text")
    assert caught.value.exit_code == 5
    full = Path("/dev/full")
    with pytest.raises(StorageError, match="no space left"), atomic.atomic_path(tmp_path / "x"):
        full.write_bytes(b"x")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def _hold(folder: Path, ready: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    with stage_lock(folder, "fetch"):
        ready.set()
        done.wait(30)


def test_second_process_in_a_stage_is_told_of_the_first(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready, done))
    process.start()
    assert ready.wait(30)
    with pytest.raises(ConfigError, match=f"process {process.pid}"), stage_lock(tmp_path, "fetch"):
        pass
    with stage_lock(tmp_path, "extract"):
        pass
    done.set()
    process.join()
    with stage_lock(tmp_path, "fetch"):
        pass


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_table_reads_back_as_written(tmp_path_factory: pytest.TempPathFactory, targetids: list[int], seed: int) -> None:
    path = tmp_path_factory.mktemp("table") / "grid.parquet"
    table = grid_table(targetids, seed)
    write_table(path, table, GRID, PROVENANCE)
    back = read_table(path, GRID)
    assert back.column("targetid").to_pylist() == targetids
    assert np.array_equal(vectors(back, "flux"), vectors(table, "flux"))
    assert vectors(back, "flux").shape == (len(targetids), N_OBS)
    assert read_frame([path, path], GRID, ["targetid", "survey"]).height == 2 * len(targetids)


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / name, grid_table([3, 1, 2]), GRID, PROVENANCE)
    assert hash_file(tmp_path / "a") == hash_file(tmp_path / "b")


def test_file_carries_units_descriptions_and_provenance(tmp_path: Path) -> None:
    path = tmp_path / "grid.parquet"
    write_table(path, grid_table([1]), GRID, PROVENANCE)
    metadata = read_metadata(path, GRID)
    assert metadata["qad.table"] == "grid/1"
    assert metadata["qad.config"] == {"dloglam": 2e-4}
    assert metadata["qad.inputs"] == [{"name": "a.parquet", "sha256": "0" * 64}]
    field = pq.read_schema(path).field("ra")
    assert field.metadata[b"unit"] == b"deg"
    assert b"right ascension" in field.metadata[b"description"]
    assert pl.read_parquet(path).schema["flux"] == pl.Array(pl.Float32, N_OBS), "any Parquet reader opens it"


def test_every_column_is_described() -> None:
    for table in TABLES.values():
        names = [column.name for column in table.columns]
        assert len(names) == len(set(names))
        assert all(column.description for column in table.columns)
        assert set(table.sort) <= set(names)


def _refused(path: Path, spec: object = GRID) -> str:
    with pytest.raises(InputError) as caught:
        read_table(path, spec)  # type: ignore[arg-type]
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_wrong_table_newer_version_and_damage_are_named(tmp_path: Path) -> None:
    path = tmp_path / "grid.parquet"
    assert "no such file" in _refused(path)
    path.write_text("<html>not parquet</html>")
    assert "not a readable Parquet file" in _refused(path)
    table = grid_table([1, 2])
    write_table(path, table, GRID, PROVENANCE)
    assert "holds grid/1, expected spectra/1" in _refused(path, SPECTRA)
    newer = table.replace_schema_metadata({"qad.table": "grid/9"})
    pq.write_table(newer, path)
    assert "grid/9" in _refused(path)
    assert "grid/1" in _refused(path)
    pq.write_table(table.replace_schema_metadata({}), path)
    assert "no table of qad" in _refused(path)


def test_missing_or_changed_column_is_named_with_both_types(tmp_path: Path) -> None:
    path, table = tmp_path / "grid.parquet", grid_table([1, 2])
    tag = {"qad.table": "grid/1"}
    pq.write_table(table.drop_columns("norm").replace_schema_metadata(tag), path)
    assert "column norm is missing" in _refused(path)
    index = table.schema.get_field_index("z")
    changed = table.set_column(index, "z", table.column("z").cast(pa.float32())).replace_schema_metadata(tag)
    pq.write_table(changed, path)
    assert "column z is float, expected float64" in _refused(path)
    field = table.schema.field("ra").with_metadata({"unit": "hourangle"})
    index = table.schema.get_field_index("ra")
    pq.write_table(table.set_column(index, field, table.column("ra")).replace_schema_metadata(tag), path)
    assert "column ra is in 'hourangle', expected 'deg'" in _refused(path)


def test_writer_refuses_a_table_that_breaks_the_contract(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="column z is missing"):
        write_table(tmp_path / "x", grid_table([1]).drop_columns("z"), GRID, PROVENANCE)
    assert list(tmp_path.iterdir()) == []


def test_hash_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, receipt = tmp_path / "x", tmp_path / "receipt.json"
    file.write_text("one")
    first = hashes_of([file], receipt)
    write_receipt(receipt, [file], ["remembered"])
    assert hashes_of([file], receipt) == ["remembered"]
    assert hashes_of([file], receipt, verify=True) == first
    file.write_text("other")
    assert hashes_of([file], receipt) == [hash_file(file)]
    receipt.write_text("{ torn")
    assert hashes_of([file], receipt) == [hash_file(file)]
