"""``build_grid``: what comes out, what is dropped and counted, and that running again changes nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import qad
from qad.config import Config
from qad.desi.dust import transmission
from qad.errors import InputError
from qad.gridding import blocks, stage
from qad.gridding.resample import resample
from qad.gridding.shards import shard_of, split_of
from qad.gridding.stage import build_grid
from qad.gridding.wavelength import grid_of
from qad.results import RunOptions
from qad.schema import GRID, N_WAVE, SPECTRA, SPECTRUM_KEY, WAVE_START, WAVE_STEP
from qad.storage.parquet import read_frame, read_metadata, read_table, vectors
from qad.storage.provenance import hash_document

Configured = Callable[..., Config]
Put = Callable[[Path, dict[str, Any]], None]
Quasars = Callable[..., dict[str, Any]]
ONE = RunOptions(jobs=1)


def digests(root: Path) -> dict[str, str]:
    """The bytes of the grid, by file."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (root / "grid").glob("grid*") if p.is_file()}


def document(root: Path) -> dict[str, Any]:
    """``grid.json``."""
    return json.loads((root / "grid" / "grid.json").read_text())


def rows(root: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    """The grid table in the order of its shards: scalar columns, flux, ivar."""
    files = sorted((root / "grid").glob("grid-*.parquet"))
    scalars = [column.name for column in GRID.columns if not column.is_vector]
    tables = [read_table(file, GRID) for file in files]
    flux = np.concatenate([vectors(table, "flux") for table in tables])
    ivar = np.concatenate([vectors(table, "ivar") for table in tables])
    return read_frame(files, GRID, scalars), flux, ivar


def test_every_spectrum_is_in_its_shard_sorted_by_key(work: Path, configured: Configured) -> None:
    result = build_grid(configured(work), ONE)
    assert (result.n_done, result.n_skipped, result.failures) == (4, 0, ())
    assert (result.counts["in"], result.counts["out"]) == (25, 25)
    for shard in range(4):
        frame = read_frame(work / "grid" / f"grid-{shard:05d}-of-00004.parquet", GRID, SPECTRUM_KEY)
        assert (shard_of(frame["targetid"].to_numpy(), 4) == shard).all()
        assert frame.equals(frame.sort(SPECTRUM_KEY))
    frame, _, _ = rows(work)
    assert frame.height == 25
    assert (frame["split"].to_numpy() == split_of(frame["targetid"].to_numpy(), 0.05, 0.05)).all()


def test_vectors_are_the_resampled_dereddened_spectra(work: Path, configured: Configured) -> None:
    """Undoing the norm gives what the definition gives, to float32."""
    config = configured(work)
    build_grid(config, ONE)
    frame, flux, ivar = rows(work)
    grid = grid_of(config.build_grid)
    wave = WAVE_START + WAVE_STEP * np.arange(N_WAVE)
    for file in sorted((work / "spectra").iterdir()):
        table = read_table(file, SPECTRA)
        for i in range(table.num_rows):
            targetid = table.column("targetid")[i].as_py()
            row = frame["targetid"].to_list().index(targetid)
            z = np.array([table.column("z")[i].as_py()])
            passed = transmission(wave, [table.column("ebv")[i].as_py()])
            clean = vectors(table, "flux")[i].astype(float) / passed
            weight = vectors(table, "ivar")[i].astype(float) * passed**2
            expected, expected_ivar = resample(clean, weight, grid.edges(grid.start(z), z))
            norm = frame["norm"][row]
            np.testing.assert_allclose(flux[row] * norm, expected[0], rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(ivar[row] / norm**2, expected_ivar[0], rtol=1e-6)
            assert frame["start"][row] == grid.start(z)[0]
            assert frame["coverage"][row] == pytest.approx((expected_ivar > 0).mean())


def test_normalised_quasars_are_alike(work: Path, configured: Configured) -> None:
    build_grid(configured(work, deredden=False), ONE)
    frame, flux, ivar = rows(work)
    grid = grid_of(configured(work).build_grid)
    wave_rest = grid.wave_rest(frame["start"].to_numpy(), frame["z"].to_numpy())
    near = (np.abs(wave_rest - 2500) < 100) & (ivar > 0)
    means = [flux[i][near[i]].mean() for i in range(len(flux)) if near[i].sum() > 50]
    assert len(means) > 10
    assert max(abs(mean - 1) for mean in means) < 0.15


def test_grid_json_says_what_a_reader_needs(work: Path, configured: Configured) -> None:
    config = configured(work)
    build_grid(config, ONE)
    found = document(work)
    geometry = ("frame", "loglam0", "dloglam", "n_rest", "n_obs", "normalisation", "deredden")
    assert found["geometry_hash"] == hash_document({key: found[key] for key in geometry})
    assert (found["format"], found["shards"], found["n_spectra"], found["r_v"]) == (1, 4, 25, 3.1)
    counted = {"in": 25, "out": 25, "dropped": {}, "no_ebv": 0, "pixels_out_of_range": 0}
    assert found["counts"] == counted
    shard = read_metadata(work / "grid" / "grid-00000-of-00004.parquet", GRID)
    assert shard["qad.inputs"] == [{"name": "spectra", "sha256": found["inputs_hash"]}]
    assert (shard["qad.release"], shard["qad.specprod"], shard["qad.stage"]) == ("dr1", "iron", "build-grid")
    assert shard["qad.wave"]["n"] == found["n_obs"] == 2181
    assert not (work / "grid" / ".work").exists()


def test_geometry_hash_is_of_the_grid_and_not_of_the_data(
    tmp_path: Path, configured: Configured, quasars: Quasars, put_spectra: Put
) -> None:
    hashes = {}
    for name, seed, keys in (
        ("a", 1, {}),
        ("b", 2, {"shards": 2}),
        ("c", 1, {"dloglam": 3e-4}),
        ("d", 1, {"deredden": False}),
    ):
        put_spectra(tmp_path / name / "spectra" / "main-dark-1.parquet", quasars(3, seed))
        build_grid(configured(tmp_path / name, **keys), ONE)
        hashes[name] = document(tmp_path / name)["geometry_hash"]
    assert hashes["a"] == hashes["b"]
    assert len(set(hashes.values())) == 3


def test_every_dropped_row_has_its_reason(
    tmp_path: Path, configured: Configured, quasars: Quasars, put_spectra: Put
) -> None:
    columns = quasars(9)
    columns["z"][:3] = [np.nan, -1.5, 80.0]
    columns["ivar"][3] = 0
    columns["ivar"][4, 300:] = 0
    columns["flux"][5] = 0
    columns["flux"][6] = np.where(columns["ivar"][6] > 0, 1e30, 0)
    put_spectra(tmp_path / "spectra" / "main-dark-1.parquet", columns)
    result = build_grid(configured(tmp_path), ONE)
    counts = document(tmp_path)["counts"]
    assert counts["dropped"] == {"bad_z": 2, "no_signal": 1, "too_few_pixels": 3, "z_outside_grid": 1}
    assert counts["in"] == counts["out"] + sum(counts["dropped"].values()) == 9
    assert result.counts["dropped.bad_z"] == 2
    frame, flux, ivar = rows(tmp_path)
    assert sorted(frame["targetid"].to_list()) == columns["targetid"][7:].tolist()
    assert np.isfinite(flux).all()
    assert np.isfinite(ivar).all()


@pytest.mark.parametrize("exponent", [-15, 15, 20])
def test_scaled_flux_gives_the_same_grid(
    tmp_path: Path, configured: Configured, quasars: Quasars, put_spectra: Put, exponent: int
) -> None:
    columns = quasars(4)
    put_spectra(tmp_path / "a" / "spectra" / "main-dark-1.parquet", columns)
    factor = 10.0**exponent
    scaled = columns | {"flux": columns["flux"] * factor, "ivar": columns["ivar"].astype(float) / factor**2}
    put_spectra(tmp_path / "b" / "spectra" / "main-dark-1.parquet", scaled)
    for name in "ab":
        build_grid(configured(tmp_path / name), ONE)
    plain, flux, ivar = rows(tmp_path / "a")
    other, flux_scaled, ivar_scaled = rows(tmp_path / "b")
    # ivar of 1e-40 is a subnormal float32, with few digits
    rtol = 1e-3 if exponent == 20 else 1e-5
    np.testing.assert_allclose(other["norm"].to_numpy() / factor, plain["norm"].to_numpy(), rtol=rtol)
    np.testing.assert_allclose(flux_scaled, flux, rtol=rtol, atol=1e-6)
    np.testing.assert_allclose(ivar_scaled, ivar, rtol=rtol)


def test_flux_beyond_any_range_is_dropped_not_overflown(
    tmp_path: Path, configured: Configured, quasars: Quasars, put_spectra: Put
) -> None:
    """Flux scaled by 1e±20 with ivar left as it was: finite, or dropped and counted."""
    columns = quasars(3)
    columns["flux"][0] *= np.float32(1e20)
    columns["flux"][1] *= np.float32(1e-20)
    put_spectra(tmp_path / "spectra" / "main-dark-1.parquet", columns)
    build_grid(configured(tmp_path), ONE)
    assert document(tmp_path)["counts"]["dropped"] == {"too_few_pixels": 1}
    frame, flux, ivar = rows(tmp_path)
    assert frame.height == 2
    assert np.isfinite(flux).all()
    assert np.isfinite(ivar).all()
    assert np.isfinite(frame["norm"].to_numpy()).all()


def test_one_spike_costs_one_pixel(tmp_path: Path, configured: Configured, quasars: Quasars, put_spectra: Put) -> None:
    columns = quasars(2)
    columns["ivar"][:, 3990:4010] = 4.0
    put_spectra(tmp_path / "a" / "spectra" / "main-dark-1.parquet", columns)
    columns["flux"][:, 4000] = 1e30
    put_spectra(tmp_path / "b" / "spectra" / "main-dark-1.parquet", columns)
    for name in "ab":
        build_grid(configured(tmp_path / name), ONE)
    (plain, flux, ivar), (hit, flux_hit, ivar_hit) = rows(tmp_path / "a"), rows(tmp_path / "b")
    np.testing.assert_allclose(hit["norm"].to_numpy(), plain["norm"].to_numpy(), rtol=1e-3)
    assert (((ivar > 0) & (ivar_hit == 0)).sum(axis=1) <= 2).all()
    both = (ivar > 0) & (ivar_hit > 0)
    np.testing.assert_allclose(flux_hit[both], flux[both], rtol=2e-3, atol=1e-5)
    assert 2 <= document(tmp_path / "b")["counts"]["pixels_out_of_range"] <= 4


def test_missing_ebv_is_counted_and_not_dereddened(
    tmp_path: Path, configured: Configured, quasars: Quasars, put_spectra: Put
) -> None:
    columns = quasars(4)
    columns["ebv"] = pa.array([0.1, None, float("nan"), float("inf")], pa.float32())
    put_spectra(tmp_path / "spectra" / "main-dark-1.parquet", columns)
    build_grid(configured(tmp_path), ONE)
    frame, _, _ = rows(tmp_path)
    assert document(tmp_path)["counts"]["no_ebv"] == 3
    by_target = dict(zip(frame["targetid"], frame["ebv"], strict=True))
    assert [by_target[t] for t in columns["targetid"]] == [pytest.approx(0.1), 0.0, 0.0, 0.0]


def test_running_again_does_nothing(work: Path, configured: Configured) -> None:
    first = build_grid(configured(work), ONE)
    before = {p: p.stat().st_mtime_ns for p in (work / "grid").rglob("*")}
    second = build_grid(configured(work), ONE)
    assert (second.n_done, second.n_skipped) == (0, 4)
    assert dict(second.counts) == dict(first.counts)
    assert before == {p: p.stat().st_mtime_ns for p in (work / "grid").rglob("*")}


def test_force_gives_the_same_bytes(work: Path, configured: Configured) -> None:
    build_grid(configured(work), ONE)
    before = digests(work)
    assert build_grid(configured(work), dataclasses.replace(ONE, force=True)).n_done == 4
    assert digests(work) == before


def test_changed_input_or_setting_redoes_the_grid(
    work: Path, configured: Configured, quasars: Quasars, put_spectra: Put
) -> None:
    build_grid(configured(work), ONE)
    before = digests(work)
    put_spectra(work / "spectra" / "main-dark-102.parquet", quasars(3, seed=2))
    assert build_grid(configured(work), ONE).counts["in"] == 28
    (work / "spectra" / "main-dark-102.parquet").unlink()
    put_spectra(work / "spectra" / "main-dark-102.parquet", quasars(0, seed=2))
    build_grid(configured(work, r_v=2.5), ONE)
    assert digests(work) != before
    build_grid(configured(work), ONE)
    assert digests(work) == before


def test_other_number_of_shards_leaves_no_old_ones(work: Path, configured: Configured) -> None:
    build_grid(configured(work), ONE)
    build_grid(configured(work, shards=3), ONE)
    assert len(list((work / "grid").glob("grid-*.parquet"))) == 3


def test_lost_shard_is_made_again(work: Path, configured: Configured) -> None:
    build_grid(configured(work), ONE)
    before = digests(work)
    (work / "grid" / "grid-00002-of-00004.parquet").unlink()
    (work / "grid" / "grid-00001-of-00004.parquet").write_bytes(b"PAR1 torn")
    result = build_grid(configured(work), ONE)
    assert (result.n_done, result.n_skipped) == (2, 2)
    assert digests(work) == before


def test_order_and_grouping_of_files_leave_no_trace(
    tmp_path: Path, configured: Configured, quasars: Quasars, put_spectra: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file a block of its own, or all files one block; files made in another order."""
    tables = {f"main-dark-{n}.parquet": quasars(6, n, 10**12 + 10**7 * n) for n in range(5)}
    for name in sorted(tables):
        put_spectra(tmp_path / "a" / "spectra" / name, tables[name])
    for name in sorted(tables, reverse=True):
        put_spectra(tmp_path / "b" / "spectra" / name, tables[name])
    build_grid(configured(tmp_path / "a"), ONE)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    monkeypatch.setattr(blocks, "READ_ROWS", 4)
    build_grid(configured(tmp_path / "b"), ONE)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_rows_may_be_spread_over_files_in_any_way(
    tmp_path: Path, configured: Configured, quasars: Quasars, put_spectra: Put
) -> None:
    columns = quasars(12)
    put_spectra(tmp_path / "a" / "spectra" / "x.parquet", columns)
    order = np.random.default_rng(0).permutation(12)
    for name, part in (("x", order[:5]), ("y", order[5:])):
        mixed = {key: [v[i] for i in part] if isinstance(v, list) else v[part] for key, v in columns.items()}
        put_spectra(tmp_path / "b" / "spectra" / f"{name}.parquet", mixed)
    for name in "ab":
        build_grid(configured(tmp_path / name), ONE)
    for one, other in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        assert one.equals(other) if hasattr(one, "equals") else (one == other).all()


def test_same_spectrum_in_two_files_is_kept_once(work: Path, configured: Configured) -> None:
    (work / "spectra" / "zz-copy.parquet").write_bytes((work / "spectra" / "main-dark-101.parquet").read_bytes())
    build_grid(configured(work), ONE)
    counts = document(work)["counts"]
    assert (counts["in"], counts["out"], counts["dropped"]) == (30, 25, {"duplicate": 5})
    assert build_grid(configured(work), ONE).n_skipped == 4


def test_two_processes_give_the_bytes_of_one(
    work: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    build_grid(configured(work), ONE)
    before = digests(work)
    monkeypatch.setattr(stage, "POOL_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    build_grid(configured(work), RunOptions(jobs=2, force=True))
    assert digests(work) == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_between_shards_goes_on_to_the_same_bytes(work: Path, configured: Configured, number: int) -> None:
    build_grid(configured(work, shards=300), ONE)
    expected = digests(work)
    for file in (work / "grid").iterdir():
        file.unlink()
    command = [sys.executable, "-m", "qad", "build-grid", "--root", str(work), "--shards", "300", "--jobs", "1", "-q"]
    process = subprocess.Popen(command, env=os.environ | {"QAD_CONFIG": ""}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list((work / "grid").glob("grid-*.parquet"))) < 40:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, number)
    _, stderr = process.communicate()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), stderr
    assert not (work / "grid" / "grid.json").exists()
    kept = digests(work)
    assert {name: expected[name] for name in kept} == kept
    result = build_grid(configured(work, shards=300), ONE)
    assert result.n_skipped == len(kept) >= 40
    assert digests(work) == expected


def test_work_of_a_killed_run_is_used_again(
    work: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of the same inputs and settings are not made twice."""

    def stop(*_args: object, **_keys: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stage, "write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            build_grid(configured(work), ONE)
    made = {p: p.stat().st_mtime_ns for p in (work / "grid" / ".work").rglob("*.arrow")}
    assert made
    monkeypatch.setattr(blocks, "WindowMaker", None)  # whoever makes a window now fails
    assert build_grid(configured(work), ONE).n_done == 4


def test_dry_run_writes_nothing(work: Path, configured: Configured) -> None:
    result = build_grid(configured(work), dataclasses.replace(ONE, dry_run=True))
    assert (result.n_done, result.dry_run, result.counts["in"]) == (4, True, 25)
    assert result.counts["bytes"] > 0
    assert [p.name for p in work.iterdir()] == ["spectra"]


def test_empty_tables_give_an_empty_grid(
    tmp_path: Path, configured: Configured, quasars: Quasars, put_spectra: Put
) -> None:
    put_spectra(tmp_path / "spectra" / "main-dark-1.parquet", quasars(0))
    result = build_grid(configured(tmp_path), ONE)
    assert result.counts["out"] == 0
    frame, flux, _ = rows(tmp_path)
    assert (frame.height, flux.shape) == (0, (0, 2181))


def test_observed_frame(work: Path, configured: Configured) -> None:
    build_grid(configured(work, frame="observed"), ONE)
    frame, _, ivar = rows(work)
    assert frame["start"].to_list() == [0] * 25
    found = document(work)
    assert found["n_rest"] == found["n_obs"]
    assert (ivar[:, 0] > 0).mean() > 0.8


def test_real_spectra_have_their_lines_where_they_belong(
    real_release: Path, tmp_path: Path, configured: Configured
) -> None:
    from qad.api import extract

    extract(root=tmp_path, source=str(real_release), jobs=1)
    build_grid(configured(tmp_path), ONE)
    frame, flux, ivar = rows(tmp_path)
    assert frame.height == 13
    assert (frame["norm"].to_numpy() > 0).all()
    grid = grid_of(configured(tmp_path).build_grid)
    wave_rest = grid.wave_rest(frame["start"].to_numpy(), frame["z"].to_numpy())
    good = ivar > 0
    seen = 0
    for i in np.flatnonzero(frame["snr"].to_numpy() > 4):
        line = good[i] & (np.abs(wave_rest[i] - 1549) < 8)
        sides = good[i] & (np.abs(wave_rest[i] - 1465) < 15) | (good[i] & (np.abs(wave_rest[i] - 1700) < 15))
        if line.sum() > 5 and sides.sum() > 10:
            seen += 1
            assert flux[i][line].mean() > 1.1 * np.median(flux[i][sides])
    assert seen >= 3


# bad input


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a table file in a way that qad's own writer would refuse."""
    table = change(pq.read_table(path))
    pq.write_table(table, path)


def with_field(table: pa.Table, name: str, **changes: Any) -> pa.Table:
    """Return the table with another type or unit of a column."""
    index = table.schema.get_field_index(name)
    field = table.schema.field(index)
    column = table.column(index)
    if "type" in changes:
        field, column = field.with_type(changes["type"]), column.cast(changes["type"], safe=False)
    if "unit" in changes:
        field = field.with_metadata({"unit": changes["unit"], "description": ""})
    return table.set_column(index, field, column)


def with_tag(table: pa.Table, tag: str) -> pa.Table:
    return table.replace_schema_metadata({**table.schema.metadata, b"qad.table": tag.encode()})


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (lambda t: with_tag(t, "spectra/2"), ["spectra/2", "spectra/1"]),
        (lambda t: with_tag(t, "scores/1"), ["scores/1", "spectra/1"]),
        (lambda t: t.drop_columns(["ivar"]), ["column ivar is missing"]),
        (lambda t: with_field(t, "z", type=pa.float32()), ["column z", "float", "float64"]),
        (lambda t: with_field(t, "targetid", type=pa.float64()), ["column targetid", "double", "int64"]),
        (lambda t: with_field(t, "flux", unit="Jy"), ["column flux", "Jy", "1e-17 erg"]),
        (lambda t: t.append_column("surprise", pa.nulls(t.num_rows)), ["column surprise"]),
    ],
)
def test_changed_table_is_refused_by_name_and_the_others_go_on(
    work: Path, configured: Configured, change: Callable[[pa.Table], pa.Table], texts: list[str]
) -> None:
    bad = work / "spectra" / "main-dark-101.parquet"
    rewrite(bad, change)
    result = build_grid(configured(work), ONE)
    assert [failure.unit for failure in result.failures] == [bad.name]
    assert all(text in result.failures[0].reason for text in texts), result.failures[0].reason
    assert result.counts["out"] == 20
    again = build_grid(configured(work), ONE)
    assert (again.n_skipped, [f.reason for f in again.failures]) == (4, [result.failures[0].reason])


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "html"])
def test_damaged_table_is_refused_by_name(work: Path, configured: Configured, damage: str) -> None:
    bad = work / "spectra" / "main-dark-100.parquet"
    content = bytearray(bad.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    broken = {"truncated": bytes(content[:middle]), "flipped": bytes(content), "empty": b"", "html": b"<html></html>"}
    bad.write_bytes(broken[damage])
    result = build_grid(configured(work), ONE)
    assert [failure.unit for failure in result.failures] == [bad.name]
    assert str(bad) in result.failures[0].reason
    assert document(work)["n_spectra"] == 5


def test_repaired_table_is_used_again(work: Path, configured: Configured) -> None:
    bad = work / "spectra" / "main-dark-101.parquet"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:1000])
    assert len(build_grid(configured(work), ONE).failures) == 1
    bad.write_bytes(whole)
    result = build_grid(configured(work), ONE)
    assert (result.failures, result.counts["out"]) == ((), 25)


def test_newer_qad_tries_again_what_an_older_could_not_read(
    work: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = work / "spectra" / "main-dark-101.parquet"
    rewrite(bad, lambda table: with_tag(table, "spectra/2"))
    build_grid(configured(work), ONE)
    monkeypatch.setattr(qad, "__version__", "99.0")
    monkeypatch.setattr(blocks, "SPECTRA", dataclasses.replace(SPECTRA, version=2))
    result = build_grid(configured(work), ONE)
    assert (result.failures, result.counts["out"]) == ((), 25)


def test_no_spectra_is_said_with_what_to_do(tmp_path: Path, configured: Configured) -> None:
    with pytest.raises(InputError, match="run `qad extract` first"):
        build_grid(configured(tmp_path), ONE)
    (tmp_path / "spectra").mkdir()
    (tmp_path / "spectra" / "x.parquet").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"no spectra table can be used; x\.parquet"):
        build_grid(configured(tmp_path), ONE)
