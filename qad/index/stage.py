"""The stage `index`: the PostgreSQL tables follow the files of one work directory; nothing else needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.config import Config
from qad.errors import ConfigError, InputError, ServiceError
from qad.index.connection import Database, lock, migrate, schema_version
from qad.index.copy import batches, load, remove_files, touch
from qad.index.migrations import migrations
from qad.index.plan import Plan, make_plan
from qad.index.rows import Rows, SourceFile, read_rows
from qad.index.tables import TARGETS, Target
from qad.results import Failure, RunOptions, StageResult

if TYPE_CHECKING:
    import psycopg

BATCH_ROWS = 32_768
BATCH_FILES = 512
"""Rows and files of a transaction at most, but a file whole: a pixel holds some hundred spectra, too few to commit alone."""
READ_AHEAD = 64
"""Files read while others are on their way to the server."""
FRESH_SHARE = 0.1
"""Once such a share of a table is new, the planner's statistics are renewed."""


def index(config: Config, options: RunOptions) -> StageResult:
    """Bring the tables of the database up to the files of the work directory.

    Raises
    ------
    ConfigError
        If there is no connection string, or the tables belong to another work directory.
    ServiceError
        If the server cannot be reached; the files are not touched, and a later call catches up.
    InputError
        If the tables are newer than this qad.
    """
    with Database(config.index) as database:
        if not options.dry_run:
            migrate(database)
        plan = make_plan(database, config.root, options)
        if plan.known and not options.force and not plan.known.keys() & plan.present.keys():
            raise ConfigError(
                f"{database.place}, schema {database.schema}: none of its {len(plan.known):,} files lies in {config.root}; "
                "it seems to belong to another work directory: choose another --schema, or --force to replace it"
            )
        if options.dry_run:
            n_bytes = sum(plan.present[name][0].stat().st_size for name in plan.behind)
            counts = {"files": len(plan.present), "files_gone": len(plan.gone), "bytes": n_bytes}
            n_skipped = len(plan.present) - len(plan.behind)
            return StageResult("index", len(plan.behind), n_skipped, counts=counts, dry_run=True)
        return _catch_up(database, plan, options)


def sync(config: Config, options: RunOptions) -> StageResult | None:
    """Catch up after another stage if there is an index, else return None.

    Raises
    ------
    ServiceError
        As :func:`index`: the files of the stage before are complete all the same, and the message says so.
    """
    if not config.index.dsn.get_secret_value():
        return None
    try:
        return index(config, replace(options, force=False, verify=False))
    except ServiceError as error:
        raise ServiceError(
            f"{error}; the files are complete, only the index is behind: `qad index sync` catches up"
        ) from None


def index_status(config: Config) -> dict[str, Any]:
    """Return how far the tables are behind the files: JSON types, nothing is changed.

    Raises
    ------
    ConfigError, ServiceError, InputError
        As :func:`index`.
    """
    with Database(config.index) as database:
        plan = make_plan(database, config.root, RunOptions())
        version = database.transaction(lambda connection: schema_version(connection, database.schema))
        return {
            "database": database.place,
            "schema": database.schema,
            "schema_version": version,
            "schema_version_known": max(migrations()),
            "n_behind": len(plan.behind) + len(plan.gone),
            "tables": {target.name: _table_status(plan, target) for target in TARGETS},
        }


def _table_status(plan: Plan, target: Target) -> dict[str, int]:
    def count(names: Any) -> int:
        return sum(name.startswith(f"{target.folder}/") for name in names)

    rows = sum(known.n_rows for name, known in plan.known.items() if name.startswith(f"{target.folder}/"))
    return {"files": count(plan.present), "behind": count(plan.behind), "gone": count(plan.gone), "rows": rows}


def _catch_up(database: Database, plan: Plan, options: RunOptions) -> StageResult:
    failures: list[Failure] = []
    n_rows = n_done = 0
    options.progress.start("index", len(plan.behind) + len(plan.gone), "files")
    try:
        _touch(database, plan)
        for batch in batches(_read_ahead(plan, failures, options), BATCH_ROWS, BATCH_FILES):
            done = _bring_in(database, batch, options.force or options.verify, failures)
            n_done += len(done)
            n_rows += sum(rows.n_rows for rows in done)
            options.progress.advance(len(batch))
        for target in TARGETS:
            gone = [name for name in plan.gone if name.startswith(f"{target.folder}/")]
            if gone:
                database.transaction(partial(_take_out, database, target, gone))
                options.progress.advance(len(gone))
        _renew_statistics(database, n_rows)
    except ServiceError as error:
        left = len(plan.behind) - n_done
        raise ServiceError(f"{error}; {left} of {len(plan.present)} files are not in the index yet") from None
    counts = {"files": len(plan.present), "files_gone": len(plan.gone), "rows": n_rows}
    n_skipped = len(plan.present) - len(plan.behind)
    return StageResult("index", n_done, n_skipped, tuple(failures), counts=counts)


def _read_ahead(plan: Plan, failures: list[Failure], options: RunOptions) -> Iterator[Rows]:
    """Yield the rows of the files that are behind, in order, read by other threads; a bad file is noted and left out."""
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[tuple[str, Future[Rows]]] = deque()
        names = iter(plan.behind)
        try:
            while True:
                while len(waiting) < READ_AHEAD and (name := next(names, None)) is not None:
                    waiting.append((name, pool.submit(_read, name, *plan.present[name])))
                if not waiting:
                    return
                name, future = waiting.popleft()
                try:
                    yield future.result()
                except InputError as error:
                    failures.append(Failure(name, str(error)))
                    options.progress.advance()
        finally:
            pool.shutdown(cancel_futures=True)


def _read(name: str, path: Path, target: Target) -> Rows:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
    return read_rows(SourceFile(path, name, target, status.st_size, status.st_mtime_ns))


def _bring_in(database: Database, batch: list[Rows], force: bool, failures: list[Failure]) -> list[Rows]:
    """Load files in one transaction; if the server refuses what is in one of them, each in its own, and that one not."""
    import psycopg

    try:
        database.transaction(lambda connection: _load(database, connection, batch, force))
        return batch
    except psycopg.Error as error:
        if len(batch) == 1:
            failures.append(Failure(batch[0].file.name, str(database.error(error))))
            return []
    return [rows for one in batch for rows in _bring_in(database, [one], force, failures)]


def _load(database: Database, connection: psycopg.Connection[Any], batch: Sequence[Rows], force: bool) -> None:
    lock(connection, database.schema)
    found = connection.execute(
        "SELECT path, size, mtime_ns, sha256 FROM source_file WHERE path = ANY(%s)",
        [[rows.file.name for rows in batch]],
    ).fetchall()
    known = {row[0]: tuple(row[1:]) for row in found}
    # another indexer may have brought it in since we looked
    wanted = [
        rows for rows in batch if force or known.get(rows.file.name, ())[:2] != (rows.file.size, rows.file.mtime_ns)
    ]
    if wanted:
        load(connection, wanted, frozenset(known))


def _touch(database: Database, plan: Plan) -> None:
    """Remember the new times of files whose rows are the same."""
    if not plan.touched:
        return
    stats = [(name, plan.present[name][0].stat()) for name in plan.touched]
    files = [(name, status.st_size, status.st_mtime_ns) for name, status in stats]
    database.transaction(lambda connection: touch(connection, files))


def _take_out(database: Database, target: Target, names: Sequence[str], connection: psycopg.Connection[Any]) -> None:
    lock(connection, database.schema)
    remove_files(connection, target, names)


def _renew_statistics(database: Database, n_rows: int) -> None:
    """Tell the planner of what came in, where that is much: a query right after the first load needs it."""
    if not n_rows:
        return

    def renew(connection: psycopg.Connection[Any]) -> None:
        row = connection.execute("SELECT reltuples FROM pg_class WHERE oid = 'spectrum'::regclass").fetchone()
        if row and n_rows > FRESH_SHARE * max(0.0, float(row[0])):
            for name in ("spectrum_healpix", "spectrum_file", "score_file", "match_file"):
                connection.execute("SELECT brin_summarize_new_values(%s)", [name])
            connection.execute("ANALYZE spectrum (targetid, healpix, zone, ra, dec, z, snr)")
            connection.execute("ANALYZE score (targetid, healpix, zone, ra, dec, z, snr, rank, name)")

    database.transaction(renew)
