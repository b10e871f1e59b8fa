"""Connections cut at any byte, servers killed, processes killed: never half a file, and equal counts in the end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest

from qad.errors import ServiceError
from qad.index.migrations import migrations
from qad.index.query import Question, ask, open_engine
from qad.index.stage import index, index_status
from qad.results import RunOptions
from qad.simulation.release import simulate

OPTIONS = RunOptions(jobs=1)
PASSWORD = "pass-w0rd-of-the-test"
FIRST = 39_627_000_000_000_001
TABLES = {"spectra": "spectrum", "scores": "score", "matches": "match", "inspect": "label"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr("qad.index.connection.RETRY_WAIT_S", 0.01)
    monkeypatch.setattr("qad.index.stage.BATCH_FILES", 2)


@pytest.fixture(scope="module")
def filled(shared_work):
    for place in range(5):
        shared_work.spectra(60, healpix=place, seed=place, targetid=FIRST + 60 * place + np.arange(60))
    shared_work.scores(900)
    shared_work.matches(20)
    shared_work.label((FIRST, "known"), (FIRST + 1, "boring"))
    return shared_work


def counts(database) -> dict[str, int]:
    """Return the rows of each table, after checking that every file is there whole or not at all."""
    if not database.rows("SELECT 1 FROM pg_tables WHERE schemaname = 'qad' AND tablename = 'source_file'"):
        return {}
    for folder, table in TABLES.items():
        found = dict(database.rows(f"SELECT file, count(*) FROM qad.{table} GROUP BY file"))
        said = dict(database.rows("SELECT path, n_rows FROM qad.source_file WHERE kind = %s AND n_rows > 0", folder))
        assert found == said
    assert database.rows("SELECT file FROM qad.pixel EXCEPT SELECT file FROM qad.spectrum") == []
    return {table: database.count(table) for table in (*TABLES.values(), "pixel", "source_file")}


WHOLE = {"spectrum": 300, "score": 900, "match": 40, "label": 2, "pixel": 5, "source_file": 8}


def through(database, proxy) -> str:
    return database.dsn.replace(str(database.server.port), str(proxy.port))


@pytest.mark.parametrize("seed", range(20))
def test_connection_cut_at_any_byte_or_at_commit_leaves_whole_files_only(
    seed, filled, database, cutting_proxy, quick
) -> None:
    rng = np.random.default_rng(seed)
    how = {"cut_behind": b"COMMIT"} if seed % 4 == 3 else {"cut_after": int(10 ** rng.uniform(2.3, 5.4))}
    proxy = cutting_proxy(database.server.port, n_cuts=int(rng.choice([1, 2, 99])), **how)
    with contextlib.suppress(ServiceError):
        index(filled.config(through(database, proxy)), OPTIONS)
    assert proxy.cuts > 0
    counts(database)
    assert not index(filled.config(database.dsn), OPTIONS).failures
    assert counts(database) == WHOLE


@pytest.mark.parametrize("seed", range(5))
def test_backend_that_is_terminated_is_replaced(seed, filled, database, quick) -> None:
    """An administrator ends the connection a few times at moments of chance."""
    rng = np.random.default_rng(seed)
    stop = threading.Event()

    def terminate() -> None:
        for _ in range(2):
            time.sleep(rng.uniform(0, 0.08))
            database.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'qad_user'")
        stop.set()

    thread = threading.Thread(target=terminate)
    thread.start()
    config = filled.config(database.dsn)
    while not stop.is_set():
        with contextlib.suppress(ServiceError):
            index(config, RunOptions(jobs=1, force=True))
    thread.join()
    assert not index(config, OPTIONS).failures
    assert counts(database) == WHOLE
    assert index_status(config)["n_behind"] == 0


def test_server_that_crashes_during_a_load_is_caught_up_with(filled, database, quick) -> None:
    config = filled.config(database.dsn)
    index(config, OPTIONS)
    failed = threading.Event()

    def load() -> None:
        try:
            for _ in range(1000):
                index(config, RunOptions(jobs=1, force=True))
        except ServiceError:
            failed.set()

    thread = threading.Thread(target=load)
    thread.start()
    time.sleep(0.3)
    database.server.control("-m", "immediate", "stop")
    thread.join()
    database.server.start()
    assert failed.is_set()
    counts(database)
    assert not index(config, OPTIONS).failures
    assert counts(database) == WHOLE


@pytest.mark.parametrize("seed", range(3))
def test_killed_indexer_leaves_whole_files_only(seed, filled, database) -> None:
    environment = {**os.environ, "QAD_INDEX__DSN": database.dsn}
    command = [sys.executable, "-m", "qad", "index", "sync", "--force", "--quiet", "--root", str(filled.root)]
    index(filled.config(database.dsn), OPTIONS)
    process = subprocess.Popen(command, env=environment, cwd=filled.root.parent, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        if database.rows("SELECT 1 FROM pg_stat_activity WHERE usename = 'qad_user' AND backend_xid IS NOT NULL"):
            break
    time.sleep(0.005 * seed)
    process.send_signal(signal.SIGKILL)
    process.wait()
    counts(database)
    assert not index(filled.config(database.dsn), RunOptions(jobs=1, force=True)).failures
    assert counts(database) == WHOLE


def test_extract_whose_index_is_cut_keeps_its_files_and_says_what_catches_up(
    database, cutting_proxy, tmp_path: Path
) -> None:
    simulate(tmp_path / "release", quasars=12, healpix=2, contaminants=0.3, seed=4, resolution=False)
    root = tmp_path / "work"

    def qad(*words: str, dsn: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "qad", *words, "--root", str(root), "--json"]
        environment = {**os.environ, "QAD_INDEX__DSN": dsn}
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    proxy = cutting_proxy(database.server.port, n_cuts=99, cut_behind=b"COPY")
    done = qad("extract", "--source", str(tmp_path / "release"), dsn=through(database, proxy))
    assert done.returncode == 4, done.stderr
    assert proxy.cuts == 3
    assert "the files are complete" in done.stderr
    assert "`qad index sync` catches up" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    n_rows = json.loads(done.stdout)["counts"]["rows_out"]
    assert counts(database)["spectrum"] == 0
    caught_up = qad("index", "sync", dsn=database.dsn)
    assert json.loads(caught_up.stdout)["counts"]["rows"] == n_rows == database.count("spectrum")


def test_password_is_in_nothing_that_is_written(work, database, tmp_path: Path) -> None:
    """Success and failure, settings shown, tracebacks asked for: every byte of every file and stream is searched."""
    work.spectra(5)
    work.scores(5)
    secret = "p@ss:w/ord 1%"
    with psycopg.connect(f"postgresql://admin@127.0.0.1:{database.server.port}/{database.name}") as connection:
        connection.execute("DROP ROLE IF EXISTS odd_user")
        connection.execute(f"CREATE ROLE odd_user LOGIN PASSWORD '{secret}' IN ROLE qad_user")
    encoded = "p%40ss%3Aw%2Ford%201%25"
    good = f"postgresql://odd_user:{encoded}@127.0.0.1:{database.server.port}/{database.name}"
    words = f"host=127.0.0.1 port={database.server.port} user=odd_user password='{secret}' dbname={database.name}"
    outputs = []
    for dsn, commands in (
        (
            good,
            [
                "index sync --json --verbose",
                "index query --json",
                "index query SELECT.nosuch",
                "config",
                "config --json",
            ],
        ),
        (words, ["index status"]),
        (good.replace("odd_user", "nobody"), ["index sync"]),
        (good.replace(database.name, "absent"), ["index query --engine postgres"]),
        (good + "?x=1", ["index sync"]),
    ):
        for arguments in (command.split() for command in commands):
            done = subprocess.run(
                [sys.executable, "-m", "qad", *arguments, "--root", str(work.root)],
                env={**os.environ, "QAD_INDEX__DSN": dsn, "QAD_TRACEBACK": "1"},
                cwd=tmp_path,
                capture_output=True,
                check=False,
            )
            outputs.append(done.stdout + done.stderr)
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    for content in [*outputs, *files]:
        assert secret.encode() not in content
        assert encoded.encode() not in content
    with psycopg.connect(f"postgresql://admin@127.0.0.1:{database.server.port}/{database.name}") as connection:
        connection.execute("REASSIGN OWNED BY odd_user TO qad_user")
        connection.execute("DROP OWNED BY odd_user")
        connection.execute("DROP ROLE odd_user")


HOSTILE = ["'; DROP TABLE qad.label; --", '"); DELETE FROM qad.spectrum; --', "\\'; \\x00 %s {} $1", "nul\x00", "🤖 é"]


def test_sql_in_labels_is_stored_and_found_as_text(work, database) -> None:
    work.spectra(5, targetid=FIRST + np.arange(5))
    work.label(*((FIRST + place, text) for place, text in enumerate(HOSTILE)))
    config = work.config(database.dsn)
    assert not index(config, OPTIONS).failures
    expected = [text.replace("\x00", "\ufffd") for text in HOSTILE]
    assert [row[0] for row in database.rows("SELECT label FROM qad.label ORDER BY targetid")] == expected
    for engine_name in ("postgres", "files"):
        with open_engine(config, engine_name) as (engine, _):
            frame = ask(engine, Question(table="label", columns=["label"]))
            assert frame["label"].to_list() == expected
            quoted = HOSTILE[0].replace("'", "''")
            assert ask(engine, Question(where=f"label = '{quoted}'")).height == 1
            assert ask(engine, Question(name=HOSTILE[0], columns=["targetid", "rank"])).height == 5
    assert database.count("spectrum") == 5


def test_last_label_counts_and_only_what_changed_is_written(work, database) -> None:
    work.spectra(3)
    work.label((1, "known"), (2, "boring"))
    config = work.config(database.dsn)
    index(config, OPTIONS)
    query = "SELECT targetid, label, xmin::text FROM qad.label ORDER BY targetid"
    before = database.rows(query)
    work.label((2, "interesting"), (3, "known"))
    assert index(config, OPTIONS).n_done == 1
    after = database.rows(query)
    assert [row[:2] for row in after] == [(1, "known"), (2, "interesting"), (3, "known")]
    assert after[0] == before[0]


def test_tables_of_the_first_version_are_brought_forward_with_their_rows(work, database) -> None:
    path = work.spectra(4, targetid=FIRST + np.arange(4), dec=[-90.0, -0.05, 0.05, 90.0])
    config = work.config(database.dsn)
    index(config, OPTIONS)
    names = [row[0] for row in database.rows(
        "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'qad' AND table_name = 'spectrum'"
    ) if row[0] != "zone"]  # fmt: skip
    whole = database.rows(f"SELECT {', '.join(names)}, zone FROM qad.spectrum ORDER BY targetid")
    database.rows("ALTER SCHEMA qad RENAME TO now")
    listed = ", ".join(names)
    with psycopg.connect(database.dsn) as connection:
        connection.execute("CREATE SCHEMA qad")
        connection.execute("SET search_path TO qad")
        connection.execute(migrations()[1].encode())
        connection.execute("CREATE TABLE schema_version (version integer PRIMARY KEY)")
        connection.execute("INSERT INTO schema_version VALUES (1)")
        connection.execute(f"INSERT INTO spectrum ({listed}) SELECT {listed} FROM now.spectrum".encode())
        status = path.stat()
        connection.execute(
            "INSERT INTO source_file VALUES (%s, 'spectra', %s, %s, 'of the file', 4)",
            [f"spectra/{path.name}", status.st_size, status.st_mtime_ns],
        )
    with open_engine(config, "auto") as (_, reason):
        assert "version 1" in reason
    assert index_status(config)["schema_version"] == 1
    assert index(config, OPTIONS).n_done == 1
    assert index_status(config)["schema_version"] == max(migrations())
    assert database.rows(f"SELECT {', '.join(names)}, zone FROM qad.spectrum ORDER BY targetid") == whole
    assert [row[-1] for row in whole] == [-900, -1, 0, 900]
    assert database.count("pixel") == 1
