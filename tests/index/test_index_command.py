"""`qad index` as people and scripts use it: exit codes, stdout, stderr, formats."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

FIRST = 39_627_000_000_000_001
PASSWORD = "pass-w0rd-of-the-test"


def qad(work, *arguments: object, dsn: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "QAD_INDEX__DSN": dsn, "COLUMNS": "160"}
    command = [sys.executable, "-m", "qad", "index", *map(str, arguments), "--root", str(work.root)]
    return subprocess.run(command, env=environment, cwd=work.root.parent, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def filled(shared_work):
    work = shared_work
    work.spectra(30, targetid=FIRST + 2 * np.arange(30), ra=np.linspace(350, 370, 30) % 360, dec=np.full(30, 1.0))
    work.scores(30)
    work.label((FIRST, "known"))
    return work


def test_query_gives_the_same_document_whoever_answers(filled, shared_database) -> None:
    arguments = ["query", "--json", "--cone", "0,1,5deg", "--sort", "-z", "--columns", "targetid,z,snr,rank,label"]
    files = qad(filled, *arguments)
    assert files.returncode == 0, files.stderr
    assert "rows from the files of" in files.stderr
    assert qad(filled, "sync", dsn=shared_database.dsn).returncode == 0
    asked = qad(filled, *arguments, dsn=shared_database.dsn)
    assert "rows from PostgreSQL at 127.0.0.1" in asked.stderr
    first, second = json.loads(files.stdout), json.loads(asked.stdout)
    assert first["rows"] == second["rows"]
    assert first["n_rows"] == len(first["rows"]) > 5
    assert first["columns"] == ["targetid", "z", "snr", "rank", "label"]
    assert all(isinstance(row["targetid"], str) for row in first["rows"])
    assert PASSWORD not in asked.stdout + asked.stderr


def test_statement_in_every_format(filled, tmp_path: Path) -> None:
    statement = "SELECT targetid, targetid AS other, z, snr FROM spectrum ORDER BY targetid LIMIT 3"
    expected = [FIRST, FIRST + 2, FIRST + 4]
    rows = list(csv.DictReader(io.StringIO(qad(filled, "query", statement, "--format", "csv").stdout)))
    assert [int(row["other"]) for row in rows] == expected
    document = json.loads(qad(filled, "query", statement, "--json").stdout)
    assert [row["other"] for row in document["rows"]] == [str(value) for value in expected]
    assert [row["targetid"] for row in json.loads(qad(filled, "query", statement, "--format", "json").stdout)] == [
        str(value) for value in expected
    ]
    done = qad(filled, "query", statement, "-o", tmp_path / "rows.parquet")
    assert "3 rows" in done.stdout
    assert pl.read_parquet(tmp_path / "rows.parquet")["targetid"].to_list() == expected
    assert qad(filled, "query", statement, "--quiet", "-o", tmp_path / "rows.fits").stderr == ""
    from astropy.io import fits

    with fits.open(tmp_path / "rows.fits") as hdus:
        assert hdus[1].data["TARGETID"].tolist() == expected
    table = qad(filled, "query", statement)
    assert len(table.stdout.splitlines()) == 4
    assert str(FIRST) in table.stdout


def test_table_is_short_unless_asked_for_more(filled) -> None:
    assert len(qad(filled, "query").stdout.splitlines()) == 21
    assert len(qad(filled, "query", "--top", "0").stdout.splitlines()) == 31
    assert len(qad(filled, "query", "--limit", "2").stdout.splitlines()) == 3
    assert len(json.loads(qad(filled, "query", "--json").stdout)["rows"]) == 30


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["query", "SELECT 1 AS a", "--where", "z > 2"], 2, "leave out --where"),
        (["query", "--cone", "1,2,3"], 2, "needs its unit"),
        (["query", "--cone", "1,2,3deg", "--box", "1,2,3,4"], 2, "one of them"),
        (["query", "--where", "redshif > 2"], 2, "redshif"),
        (["query", "DROP TABLE spectrum"], 2, "SELECT or WITH"),
        (["query", ""], 2, "empty"),
        (["query", "--from", "spectra"], 2, "spectra"),
        (["query", "-o", "rows.xyz"], 2, "--format"),
        (["query", "--engine", "postgres"], 2, "QAD_INDEX__DSN"),
        (["sync"], 2, "QAD_INDEX__DSN"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_mistake_is_one_line_with_the_right_code(filled, arguments: list[str], code: int, expected: str) -> None:
    done = qad(filled, *arguments)
    assert done.returncode == code, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_server_that_is_down_is_4_only_where_it_was_asked_for(filled) -> None:
    away = f"postgresql://me:{PASSWORD}@127.0.0.1:1/none"
    asked = qad(filled, "query", "--engine", "postgres", dsn=away)
    assert asked.returncode == 4
    other = qad(filled, "query", "--json", dsn=away)
    assert other.returncode == 0
    assert "rows from the files of" in other.stderr
    assert "127.0.0.1:1" in other.stderr
    assert PASSWORD not in asked.stderr + other.stderr


def test_index_alone_syncs_and_status_is_a_word_or_a_flag(work, database) -> None:
    work.spectra(5)
    assert "1 files behind" in qad(work, "--status", dsn=database.dsn).stdout
    assert json.loads(qad(work, "--json", dsn=database.dsn).stdout)["counts"]["rows"] == 5
    assert "up to date" in qad(work, "status", dsn=database.dsn).stdout
    assert json.loads(qad(work, "--status", "--json", dsn=database.dsn).stdout)["n_behind"] == 0
