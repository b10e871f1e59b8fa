"""``build_grid`` on bad days: tables of another version or form, flipped bits, a sudden end, a full disk, wild numbers."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crashing
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.config import Config
from qad.errors import InputError
from qad.gridding import stage
from qad.gridding.blocks import read_rows
from qad.gridding.stage import build_grid
from qad.gridding.windows import Rows, WindowMaker
from qad.results import RunOptions
from qad.schema import N_WAVE, SPECTRA
from qad.settings import BuildGrid

Configured = Callable[..., Config]
Put = Callable[[Path, dict[str, Any]], None]
Quasars = Callable[..., dict[str, Any]]
OTHER_TYPE = {
    "int64": pa.int32(),
    "int32": pa.int64(),
    "int16": pa.int32(),
    "uint8": pa.int8(),
    "float32": pa.float64(),
    "float64": pa.float32(),
}
N_FLIPS = 400


@pytest.fixture
def spectra(tmp_path: Path, quasars: Quasars, put_spectra: Put) -> Path:
    """A `spectra` table of four quasars."""
    path = tmp_path / "spectra" / "main-dark-1.parquet"
    put_spectra(path, quasars(4))
    return path


def rewritten(path: Path, field: pa.Field | None, name: str) -> None:
    """Put another field in a column's place, or none."""
    table = pq.read_table(path)
    index = table.schema.get_field_index(name)
    if field is None:
        table = table.remove_column(index)
    else:
        column = table.column(index)
        values = column if field.type == column.type else pa.nulls(table.num_rows, field.type)
        table = table.set_column(index, field, values)
    pq.write_table(table, path)


@pytest.mark.parametrize("column", SPECTRA.columns, ids=lambda column: column.name)
def test_a_column_missing_or_of_another_type_or_unit_is_named_with_both(spectra: Path, column: Any) -> None:
    whole = spectra.read_bytes()
    field = pq.read_schema(spectra).field(column.name)
    other_type = pa.list_(pa.field("item", pa.float64()), 5) if column.is_vector else OTHER_TYPE.get(column.dtype, pa.float64())  # fmt: skip
    changed_unit = field.with_metadata({**(field.metadata or {}), b"unit": b"furlong"})
    for new, words in (
        (None, ["is missing"]),
        (
            field.with_type(other_type).with_nullable(True),
            ["double" if column.is_vector else str(other_type), column.dtype],
        ),
        (changed_unit, ["'furlong'", repr(column.unit or "no unit")]),
    ):
        spectra.write_bytes(whole)
        rewritten(spectra, new, column.name)
        with pytest.raises(InputError) as caught:
            list(read_rows(spectra))
        text = str(caught.value)
        assert all(word in text for word in (str(spectra), f"column {column.name}", *words)), text


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("qad.table", "spectra/2", ["spectra/2", "spectra/1", "update qad"]),
        ("qad.table", "spectra/0", ["spectra/0", "spectra/1"]),
        ("qad.table", "spectra/" + "9" * 5000, ["expected spectra/1"]),
        ("qad.table", "spectra/one", ["spectra/one", "spectra/1"]),
        ("qad.table", "grid/1", ["grid/1", "spectra/1"]),
        ("qad.table", "", ["no table of qad", "spectra/1"]),
        ("qad.config", "{", ["not JSON"]),
        ("qad.config", "[" * 100_000, ["not JSON"]),
    ],
)
def test_another_version_or_table_is_named(spectra: Path, key: str, value: str, words: list[str]) -> None:
    table = pq.read_table(spectra)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, key.encode(): value.encode()}), spectra)
    with pytest.raises(InputError) as caught:
        list(read_rows(spectra))
    assert all(word in str(caught.value) for word in words), str(caught.value)[:500]


def content(path: Path) -> str:
    """All that is read of a table."""
    parts = [(rows.flux.tobytes(), rows.ivar.tobytes(), {k: list(v) for k, v in rows.scalars.items()}) for rows in read_rows(path)]  # fmt: skip
    return repr(parts)


def test_a_flipped_bit_or_a_cut_is_never_taken_for_data(spectra: Path) -> None:
    """Without checksums of pages nine of ten flips came out as other fluxes."""
    whole, expected, drawn = spectra.read_bytes(), content(spectra), random.Random(11)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    n_refused = 0
    for i in range(N_FLIPS):
        raw = bytearray(whole)
        if i % 5 == 4:
            raw = raw[: drawn.randrange(len(raw))]
        else:
            first, end = (4, footer) if i % 2 else (footer, len(raw))
            raw[drawn.randrange(first, end)] ^= 1 << drawn.randrange(8)
        spectra.write_bytes(raw)
        try:
            assert content(spectra) == expected, f"mutant {i}"
        except InputError as error:
            n_refused += 1
            assert str(spectra) in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
    assert n_refused > N_FLIPS * 0.7, "the rest lies where nothing is read: statistics, provenance"


def finals(root: Path) -> dict[str, bytes]:
    """The files of a grid, by name."""
    return crashing.finals(root / "grid")


def test_a_flipped_bit_fails_its_file_through_the_command(work: Path) -> None:
    bad = work / "spectra" / "main-dark-101.parquet"
    raw = bytearray(bad.read_bytes())
    raw[len(raw) // 2] ^= 4
    bad.write_bytes(raw)
    done = crashing.run("build-grid", "--root", work, "--shards", 2, "--json")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert [(f["unit"], str(bad) in f["reason"]) for f in document["failures"]] == [(bad.name, True)]
    assert document["counts"]["out"] == 20
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("when", ["blocks", "shards"])
def test_killed_at_any_moment_goes_on_to_the_same_bytes(work: Path, configured: Configured, when: str) -> None:
    build_grid(configured(work, shards=60), RunOptions(jobs=1))
    expected = finals(work)
    for file in (work / "grid").iterdir():
        file.unlink()
    drawn = random.Random(when)
    for _ in range(2):
        process = crashing.start("build-grid", "--root", work, "--shards", 60)
        if when == "shards":
            crashing.wait_for(process, work / "grid", 10)
        crashing.kill_while_writing(process, work / "grid", drawn, 0.05)
        there = finals(work)
        assert there.items() <= expected.items()
        assert "grid.json" not in there or there == expected
    done = crashing.run("build-grid", "--root", work, "--shards", 60)
    assert done.returncode == 0, done.stderr
    assert finals(work) == expected


def test_a_killed_worker_is_named_and_running_again_mends_it(
    work: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_grid(configured(work, shards=40), RunOptions(jobs=1))
    expected = finals(work)
    for file in (work / "grid").iterdir():
        file.unlink()
    monkeypatch.setattr(stage, "POOL_BYTES", 0)
    killed: list[int] = []

    def kill() -> None:
        until = time.monotonic() + 60
        while not killed and time.monotonic() < until:
            if len(list((work / "grid").glob("grid-*.parquet"))) >= 3:
                children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
                for child in " ".join(path.read_text() for path in children).split():
                    if not killed and b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                        os.kill(int(child), signal.SIGKILL)
                        killed.append(int(child))
            time.sleep(0.001)

    thread = threading.Thread(target=kill)
    thread.start()
    result = build_grid(configured(work, shards=40), RunOptions(jobs=2))
    thread.join()
    assert killed
    assert [f.reason for f in result.failures] == ["its worker process died (exit code -9); out of memory?"]
    assert not (work / "grid" / "grid.json").exists()
    assert finals(work).items() <= expected.items()
    again = build_grid(configured(work, shards=40), RunOptions(jobs=2))
    assert again.failures == ()
    assert finals(work) == expected


def test_a_small_disk_that_fills_up_is_exit_5_and_goes_on_when_there_is_room(
    work: Path, configured: Configured
) -> None:
    build_grid(configured(work, shards=8), RunOptions(jobs=1))
    expected = finals(work)
    size = sum(map(len, expected.values()))
    for file in (work / "grid").iterdir():
        file.unlink()
    for share in (0.3, 1.6):  # while blocks are written, and while shards are
        with crashing.small_disk(work / "grid", int(size * share)) as is_mounted:
            if not is_mounted:
                pytest.skip("no file system may be mounted here")
            done = crashing.run("build-grid", "--root", work, "--shards", 8)
            assert done.returncode == 5, (share, done.stderr)
            assert "no space left" in done.stderr
            assert "Traceback" not in done.stderr
            there = finals(work)
            assert there.items() <= expected.items()
            assert "grid.json" not in there
            assert not crashing.parts(work / "grid")
            crashing.make_room(work / "grid", 8 * size)
            assert crashing.run("build-grid", "--root", work, "--shards", 8).returncode == 0
            assert finals(work) == expected


WILD = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=40, deadline=None)
@given(
    flux=st.lists(WILD, min_size=1, max_size=8),
    ivar=st.lists(WILD, min_size=1, max_size=8),
    scale=st.integers(-38, 38),
    z=st.floats(-2, 80, allow_nan=False) | WILD,
    ebv=st.floats(-1, 5, width=32) | WILD,
)
def test_whatever_the_numbers_are_what_comes_out_is_finite_and_counted(
    flux: list[float], ivar: list[float], scale: int, z: float, ebv: float
) -> None:
    rng = np.random.default_rng(1)
    with np.errstate(over="ignore"):
        fluxes = rng.normal(2, 1, (3, N_WAVE)).astype(np.float32) * np.float32(10.0**scale)
    weights = np.full((3, N_WAVE), 1, np.float32)
    fluxes[0, : 800 * len(flux)] = np.repeat(np.array(flux, np.float32), 800)[:N_WAVE]
    weights[0, : 800 * len(ivar)] = np.repeat(np.array(ivar, np.float32), 800)[:N_WAVE]
    scalars = {
        "targetid": np.array([3, 2, 1]), "survey": np.array(["main"] * 3), "program": np.array(["dark"] * 3),
        "healpix": np.zeros(3, np.int32), "ra": np.zeros(3), "dec": np.zeros(3), "z": np.array([z, 1.0, 2.0]),
        "zwarn": np.zeros(3, np.int64), "snr": np.zeros(3, np.float32), "ebv": np.array([ebv, 0.1, np.nan], np.float32),
    }  # fmt: skip
    windows = WindowMaker(BuildGrid()).make(Rows(scalars, fluxes, weights))
    for name in ("flux", "ivar", "norm", "coverage", "ebv"):
        assert np.isfinite(windows.columns[name]).all(), name
    assert (windows.columns["ivar"] >= 0).all()
    assert (windows.columns["norm"] > 0).all()
    counts = windows.counts
    assert counts["in"] == counts["out"] + sum(n for name, n in counts.items() if name.startswith("dropped.")) == 3
