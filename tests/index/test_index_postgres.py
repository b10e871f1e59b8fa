"""The PostgreSQL tables hold what the files hold; the files stay the truth."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qad.errors import ConfigError, InputError, ServiceError
from qad.index.binary import SQL_TYPES
from qad.index.migrations import migrations
from qad.index.stage import index, index_status, sync
from qad.index.tables import TARGETS
from qad.results import RunOptions
from qad.schema import SPECTRA

OPTIONS = RunOptions(jobs=1)
PASSWORD = "pass-w0rd-of-the-test"


def file_rows(path: Path, names: list[str]) -> list[tuple]:
    table = pq.read_table(path, columns=names)
    columns = [table.column(name).to_pylist() for name in names]
    return list(zip(*columns, strict=True))


def test_every_value_of_spectra_arrives(work, database):
    path = work.spectra(40)
    result = index(work.config(database.dsn), OPTIONS)
    assert (result.n_done, result.counts["rows"]) == (1, 40)
    names = [column.name for column in SPECTRA.columns if not column.is_vector]
    found = database.rows(f"SELECT {', '.join(names)} FROM qad.spectrum ORDER BY targetid")
    expected = file_rows(path, names)
    assert len(found) == 40
    types = {column.name: column.dtype for column in SPECTRA.columns}
    for row, other in zip(found, expected, strict=True):
        for name, value, true in zip(names, row, other, strict=True):
            value = np.float32(value) if types[name] == "float32" and value is not None else value
            assert value == true, name
    assert found[0][0] == -(2**63)
    assert found[-1][0] == 2**63 - 1


def test_tables_have_the_columns_of_the_schema(work, database):
    """A column that `schema.py` gains needs a migration; this says so."""
    work.spectra(1)
    index(work.config(database.dsn), OPTIONS)
    for target in TARGETS:
        if target.spec is None:
            continue
        rows = database.rows(
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns"
            " WHERE table_schema = 'qad' AND table_name = %s",
            target.name,
        )
        found = {name: (kind, nullable == "YES") for name, kind, nullable in rows}
        for column in target.spec.columns:
            if not column.is_vector:
                assert found.pop(column.name) == (SQL_TYPES[column.dtype], column.nullable), column.name
        assert set(found) <= {"file", "name", "ordinal", "views", "columns", "zone"}


def test_scores_and_matches_arrive_with_their_open_columns(work, database):
    work.scores(30)
    work.matches(15)
    index(work.config(database.dsn), OPTIONS)
    rows = database.rows(
        "SELECT rank, targetid, score, flags, views FROM qad.score WHERE name = 'default' ORDER BY rank"
    )
    assert [row[1] for row in rows] == [39_627_000_000_000_001 + 2 * i for i in range(30)]
    assert rows[3][3] == 2**32 - 1
    assert rows[5][4]["view_global"] is None
    assert math.isclose(rows[6][4]["view_global"], np.float32(6 / 7), rel_tol=1e-6)
    matches = database.rows(
        "SELECT rank, ordinal, catalog_id, sep_arcsec, best, columns FROM qad.match ORDER BY rank, ordinal"
    )
    assert len(matches) == 30
    assert [row[1] for row in matches] == [0, 1] * 15
    assert matches[0][2:4] == (None, None)
    assert [row[5]["cat_source_id"] for row in matches] == [4_611_686_018_427_387_905 + i for i in range(30)]
    assert matches[1][5]["cat_note"] == 'nul\ufffd and \\u0000 and "quote"'


def test_indexing_again_changes_nothing(work, database):
    work.spectra(25)
    work.scores(30)
    work.matches(15)
    config = work.config(database.dsn)
    index(config, OPTIONS)
    query = "SELECT xmin::text, ctid::text FROM qad.spectrum UNION ALL SELECT xmin::text, ctid::text FROM qad.score ORDER BY 1, 2"
    before = database.rows(query)
    second = index(config, OPTIONS)
    assert (second.n_done, second.n_skipped) == (0, 3)
    forced = index(config, RunOptions(jobs=1, force=True))
    assert forced.n_done == 3
    assert database.rows(query) == before
    assert (database.count("spectrum"), database.count("score"), database.count("match")) == (25, 30, 30)


def test_a_changed_file_replaces_its_rows_and_leaves_others(work, database):
    work.spectra(25, healpix=47)
    work.spectra(10, healpix=48)
    work.scores(30)
    work.scores(12, name="other")
    config = work.config(database.dsn)
    index(config, OPTIONS)
    work.spectra(20, healpix=47, seed=1)
    work.scores(8)
    result = index(config, OPTIONS)
    assert (result.n_done, result.n_skipped) == (2, 2)
    assert database.count("spectrum") == 30
    assert dict(database.rows("SELECT name, count(*) FROM qad.score GROUP BY name")) == {"default": 8, "other": 12}


def test_a_file_that_is_gone_takes_its_rows_along(work, database):
    work.spectra(5, healpix=47)
    gone = work.spectra(5, healpix=48)
    config = work.config(database.dsn)
    index(config, OPTIONS)
    gone.unlink()
    assert index_status(config)["tables"]["spectrum"] == {"files": 1, "behind": 0, "gone": 1, "rows": 10}
    assert index(config, OPTIONS).counts["files_gone"] == 1
    assert database.count("spectrum") == 5
    assert database.count("source_file") == 1


def test_another_work_directory_does_not_empty_the_index_by_mistake(work, database, tmp_path):
    work.spectra(5, healpix=47)
    index(work.config(database.dsn), OPTIONS)
    other = type(work)(tmp_path / "other")
    other.spectra(3, healpix=1)
    with pytest.raises(ConfigError, match="another work directory"):
        index(other.config(database.dsn), OPTIONS)
    assert database.count("spectrum") == 5
    assert index(other.config(database.dsn), RunOptions(jobs=1, force=True)).n_done == 1
    assert database.count("spectrum") == 3


def test_a_touched_file_is_not_loaded_again(work, database):
    path = work.spectra(5)
    config = work.config(database.dsn)
    index(config, OPTIONS)
    os.utime(path)
    result = index(config, OPTIONS)
    assert (result.n_done, result.n_skipped) == (0, 1)
    assert database.rows("SELECT mtime_ns FROM qad.source_file")[0][0] == path.stat().st_mtime_ns


def test_sql_in_names_is_stored_as_text(work, database):
    hostile = "'; DROP TABLE qad.spectrum; --"
    work.spectra(5, survey=hostile, program='"); DELETE FROM qad.score; --')
    work.scores(4)
    work.matches(3, catalog="x'); DROP SCHEMA qad CASCADE; --")
    index(work.config(database.dsn), OPTIONS)
    assert database.rows("SELECT DISTINCT survey FROM qad.spectrum") == [(hostile,)]
    assert database.rows("SELECT DISTINCT catalog FROM qad.match") == [("x'); DROP SCHEMA qad CASCADE; --",)]
    assert (database.count("spectrum"), database.count("score"), database.count("match")) == (5, 4, 6)


def test_a_hostile_schema_name_is_only_a_name(work, database):
    work.spectra(3)
    name = 'odd"; DROP TABLE x; --'
    index(work.config(database.dsn, db_schema=name), OPTIONS)
    found = database.rows("SELECT count(*) FROM pg_tables WHERE schemaname = %s", name)
    assert found == [(7,)]


def test_a_damaged_file_fails_alone(work, database):
    work.spectra(5, healpix=47)
    (work.root / "spectra" / "main-dark-48.parquet").write_bytes(b"PAR1 no")
    work.scores(4)
    result = index(work.config(database.dsn), OPTIONS)
    assert result.n_done == 2
    assert [failure.unit for failure in result.failures] == ["spectra/main-dark-48.parquet"]
    assert index(work.config(database.dsn), OPTIONS).failures


def test_a_file_with_a_row_twice_is_refused(work, database):
    from qad.storage.parquet import write_table
    from qad.storage.provenance import Provenance

    path = work.spectra(5)
    table = pq.read_table(path)
    write_table(path, pa.concat_tables([table, table.slice(0, 1)]), SPECTRA, Provenance("extract", {}))
    result = index(work.config(database.dsn), OPTIONS)
    assert "1 rows have the key of another" in result.failures[0].reason
    assert database.count("spectrum") == 0


def test_server_down_leaves_the_files_and_says_so_in_one_line(work, tmp_path):
    path = work.spectra(5)
    content = path.read_bytes()
    dsn = f"postgresql://qad_user:{PASSWORD}@127.0.0.1:{free_port()}/qad"
    environment = {**os.environ, "QAD_INDEX__DSN": dsn}
    run = subprocess.run(
        [sys.executable, "-m", "qad", "index", "--root", work.root],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 4
    assert len(run.stderr.strip().splitlines()) == 1
    assert "PostgreSQL at 127.0.0.1" in run.stderr
    assert path.read_bytes() == content
    everything = run.stdout + run.stderr + "".join(log.read_text() for log in (work.root / "log").glob("*"))
    assert PASSWORD not in everything
    with pytest.raises(ServiceError, match="the files are complete"):
        sync(work.config(dsn), OPTIONS)


def test_a_silent_server_is_given_up_after_the_timeout(work):
    work.spectra(1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dsn = f"postgresql://qad_user:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/qad"
        with pytest.raises(ServiceError, match="timeout") as caught:
            index(work.config(dsn, timeout_s=1.0), OPTIONS)
    assert PASSWORD not in str(caught.value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "dsn", [f"postgresql://u:{PASSWORD}@h:notaport/d", f"passwort={PASSWORD} host=x", f"{PASSWORD}"]
)
def test_a_wrong_connection_string_is_never_quoted(dsn, work):
    with pytest.raises((ConfigError, ServiceError)) as caught:
        index(work.config(dsn, timeout_s=1.0), OPTIONS)
    assert PASSWORD not in str(caught.value)


def test_a_refused_password_is_not_shown(work, database):
    dsn = database.dsn.replace(PASSWORD, "wrong-" + PASSWORD)
    with pytest.raises(ServiceError) as caught:
        index(work.config(dsn), OPTIONS)
    assert "authentication failed" in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_the_password_is_in_no_output_log_or_table(work, database, tmp_path):
    work.spectra(5)
    environment = {**os.environ, "QAD_INDEX__DSN": database.dsn}
    for arguments in (
        ["index", "--json"],
        ["index", "--status"],
        ["index", "--status", "--json"],
        ["index", "--verbose", "--force"],
    ):
        run = subprocess.run(
            [sys.executable, "-m", "qad", *arguments, "--root", work.root],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert PASSWORD not in run.stdout + run.stderr
        if "--json" in arguments:
            json.loads(run.stdout)
    logs = list((work.root / "log").glob("*"))
    assert logs
    assert not any(PASSWORD in path.read_text() for path in logs)


def test_a_connection_cut_in_the_middle_of_a_copy_shows_nothing_then_catches_up(work, database, cutting_proxy):
    work.spectra(3, healpix=46)
    work.scores(20_000)
    proxy = cutting_proxy(database.server.port, cut_after=400_000, n_cuts=99)
    dsn = database.dsn.replace(str(database.server.port), str(proxy.port))
    with pytest.raises(ServiceError, match="1 of 2 files are not in the index"):
        index(work.config(dsn), OPTIONS)
    assert proxy.cuts == 3
    assert database.count("score") == 0
    assert database.count("spectrum") == 3
    result = index(work.config(database.dsn), OPTIONS)
    assert (result.n_done, result.n_skipped) == (1, 1)
    assert database.count("score") == 20_000


def test_a_connection_cut_once_is_made_again(work, database, cutting_proxy):
    work.scores(20_000)
    proxy = cutting_proxy(database.server.port, cut_after=400_000, n_cuts=1)
    result = index(work.config(database.dsn.replace(str(database.server.port), str(proxy.port))), OPTIONS)
    assert proxy.cuts == 1
    assert result.n_done == 1
    assert database.count("score") == 20_000


def test_a_connection_cut_at_commit_leaves_equal_counts(work, database, cutting_proxy):
    work.spectra(30)
    work.scores(500)
    proxy = cutting_proxy(database.server.port, n_cuts=2, cut_behind=b"COMMIT")
    result = index(work.config(database.dsn.replace(str(database.server.port), str(proxy.port))), OPTIONS)
    assert proxy.cuts == 2
    assert not result.failures
    assert (database.count("spectrum"), database.count("score"), database.count("source_file")) == (30, 500, 2)
    assert index(work.config(database.dsn), OPTIONS).n_skipped == 2


def test_a_server_that_restarts_is_caught_up_with(work, database):
    work.spectra(5, healpix=47)
    config = work.config(database.dsn)
    index(config, OPTIONS)
    work.spectra(5, healpix=48)
    database.server.stop()
    try:
        with pytest.raises(ServiceError):
            index(config, OPTIONS)
    finally:
        database.server.start()
    assert database.count("spectrum") == 5
    assert index(config, OPTIONS).n_done == 1
    assert database.count("spectrum") == 10


def test_newer_tables_are_refused_with_both_versions(work, database):
    work.spectra(5)
    config = work.config(database.dsn)
    index(config, OPTIONS)
    newest = max(migrations())
    database.rows("INSERT INTO qad.schema_version VALUES (%s)", newest + 7)
    for call in (lambda: index(config, OPTIONS), lambda: index_status(config), lambda: sync(config, OPTIONS)):
        with pytest.raises(InputError, match=f"version {newest + 7}, this qad knows up to {newest}"):
            call()
    assert database.count("spectrum") == 5


def test_migrations_are_numbered_and_go_forward_in_one_transaction(work, database, monkeypatch):
    steps = migrations()
    assert list(steps) == list(range(1, len(steps) + 1))
    broken = {**steps, len(steps) + 1: "CREATE TABLE more (x int); SELECT 1 / 0"}
    monkeypatch.setattr("qad.index.connection.migrations", lambda: broken)
    with pytest.raises(Exception, match="division by zero"):
        index(work.config(database.dsn), OPTIONS)
    assert database.rows("SELECT count(*) FROM pg_tables WHERE schemaname = 'qad'") == [(0,)]
    monkeypatch.undo()
    index(work.config(database.dsn), OPTIONS)
    later = {**steps, len(steps) + 1: "CREATE TABLE more (x int)"}
    monkeypatch.setattr("qad.index.connection.migrations", lambda: later)
    index(work.config(database.dsn), OPTIONS)
    assert database.rows("SELECT max(version) FROM qad.schema_version") == [(len(steps) + 1,)]
    assert database.count("more") == 0


def test_two_indexers_at_once_end_with_equal_counts(work, database):
    for healpix in range(6):
        work.spectra(50, healpix=healpix, seed=healpix)
    work.scores(3000)
    errors: list[BaseException] = []

    def run(force: bool) -> None:
        try:
            assert not index(work.config(database.dsn), RunOptions(jobs=1, force=force)).failures
        except BaseException as error:  # noqa: BLE001 - whatever it is, the main thread shows it
            errors.append(error)

    threads = [threading.Thread(target=run, args=(force,)) for force in (False, True, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert (database.count("spectrum"), database.count("score")) == (300, 3000)


def test_dry_run_and_status_change_nothing(work, database):
    work.spectra(5)
    config = work.config(database.dsn)
    status = index_status(config)
    assert status["schema_version"] == 0
    assert status["n_behind"] == 1
    assert PASSWORD not in json.dumps(status)
    result = index(config, RunOptions(jobs=1, dry_run=True))
    assert (result.n_done, result.dry_run) == (1, True)
    assert database.rows("SELECT count(*) FROM pg_namespace WHERE nspname = 'qad'") == [(0,)]
    index(config, OPTIONS)
    assert index_status(config)["n_behind"] == 0


def test_without_a_connection_string_there_is_no_index(work):
    config = work.config("")
    assert sync(config, OPTIONS) is None
    with pytest.raises(ConfigError, match="QAD_INDEX__DSN"):
        index(config, OPTIONS)


def test_sync_after_a_stage_brings_in_what_is_new(work, database):
    work.spectra(5)
    config = work.config(database.dsn)
    assert sync(config, OPTIONS).n_done == 1
    work.scores(3)
    assert sync(config, RunOptions(jobs=1, force=True)).n_done == 1


def test_an_empty_table_is_indexed(work, database):
    work.scores(0)
    work.spectra(0)
    assert index(work.config(database.dsn), OPTIONS).n_done == 2
    assert database.count("source_file") == 2


def test_a_user_without_the_right_to_create_is_told(work, database):
    database.rows(f"ALTER DATABASE {database.name} OWNER TO admin")
    with pytest.raises(ServiceError, match="permission denied"):
        index(work.config(database.dsn), OPTIONS)


def test_polars_reads_what_copy_wrote(work, database):
    """A float32 comes back as the same float32, a NaN score would be refused by the stage before."""
    path = work.scores(100)
    index(work.config(database.dsn), OPTIONS)
    found = pl.DataFrame(
        database.rows("SELECT rank, snr, score FROM qad.score ORDER BY rank"),
        schema=["rank", "snr", "score"],
        orient="row",
    )
    expected = pl.read_parquet(path, columns=["rank", "snr", "score"])
    assert found["score"].to_list() == expected["score"].to_list()
    assert found["snr"].cast(pl.Float32).to_list() == expected["snr"].to_list()
