"""The stage `index`: the PostgreSQL tables follow the files of one work directory; nothing else needs them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.config import Config
from qad.errors import ConfigError, InputError, ServiceError
from qad.index.connection import Database, check_version, lock, migrate, schema_version
from qad.index.copy import TARGETS, SourceFile, Target, load_file, remove_file
from qad.results import Failure, RunOptions, StageResult
from qad.storage.provenance import hash_file

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class Known:
    """What the database remembers of a file."""

    size: int
    mtime_ns: int
    sha256: str
    n_rows: int


@dataclass
class Plan:
    """What sets the tables apart from the files, by table."""

    present: dict[str, tuple[Path, Target]] = field(default_factory=dict)
    known: dict[str, Known] = field(default_factory=dict)
    behind: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    """Another time, the same bytes: only the registry changes."""
    gone: list[str] = field(default_factory=list)


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
        plan = _plan(database, config.root, options)
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
            f"{error}; the files are complete, only the index is behind: `qad index` catches up"
        ) from None


def index_status(config: Config) -> dict[str, Any]:
    """Return how far the tables are behind the files: JSON types, nothing is changed.

    Raises
    ------
    ConfigError, ServiceError, InputError
        As :func:`index`.
    """
    with Database(config.index) as database:
        plan = _plan(database, config.root, RunOptions())
        version = database.transaction(lambda connection: schema_version(connection, database.schema))
        return {
            "database": database.place,
            "schema": database.schema,
            "schema_version": version,
            "n_behind": len(plan.behind) + len(plan.gone),
            "tables": {target.name: _table_status(plan, target) for target in TARGETS},
        }


def _table_status(plan: Plan, target: Target) -> dict[str, int]:
    def count(names: Any) -> int:
        return sum(name.startswith(f"{target.folder}/") for name in names)

    rows = sum(known.n_rows for name, known in plan.known.items() if name.startswith(f"{target.folder}/"))
    return {"files": count(plan.present), "behind": count(plan.behind), "gone": count(plan.gone), "rows": rows}


def _plan(database: Database, root: Path, options: RunOptions) -> Plan:
    plan = Plan(_files(root), database.transaction(lambda connection: _registry(database, connection)))
    for name, (path, _target) in plan.present.items():
        known = plan.known.get(name)
        status = path.stat()
        is_new_time = known is not None and (known.size, known.mtime_ns) != (status.st_size, status.st_mtime_ns)
        is_doubtful = is_new_time or options.verify
        if known is None or options.force or (is_doubtful and known.sha256 != hash_file(path)):
            plan.behind.append(name)
        elif is_new_time:
            plan.touched.append(name)
    plan.gone = [name for name in plan.known if name not in plan.present]
    return plan


def _files(root: Path) -> dict[str, tuple[Path, Target]]:
    found: dict[str, tuple[Path, Target]] = {}
    for target in TARGETS:
        for path in sorted((root / target.folder).glob("*.parquet")):
            if not path.name.startswith("."):
                found[f"{target.folder}/{path.name}"] = (path, target)
    return found


def _registry(database: Database, connection: psycopg.Connection[Any]) -> dict[str, Known]:
    version = schema_version(connection, database.schema)
    check_version(database, version)
    if version == 0:
        return {}
    rows = connection.execute("SELECT path, size, mtime_ns, sha256, n_rows FROM source_file ORDER BY path").fetchall()
    return {row[0]: Known(*row[1:]) for row in rows}


def _catch_up(database: Database, plan: Plan, options: RunOptions) -> StageResult:
    import psycopg

    failures: list[Failure] = []
    n_rows = n_done = 0
    options.progress.start("index", len(plan.behind) + len(plan.touched) + len(plan.gone), "files")
    for name in [*plan.behind, *plan.touched, *plan.gone]:
        try:
            if name in plan.gone:
                _take_out(database, name)
                continue
            rows = _bring_in(database, name, *plan.present[name], force=options.force)
            if name not in plan.touched:
                n_rows += rows
                n_done += 1
        except InputError as error:
            failures.append(Failure(name, str(error)))
        except psycopg.Error as error:
            failures.append(Failure(name, str(database.error(error))))
        except ServiceError as error:
            left = len(plan.behind) - n_done
            raise ServiceError(f"{error}; {left} of {len(plan.present)} files are not in the index yet") from None
        finally:
            options.progress.advance()
    n_skipped = len(plan.present) - len(plan.behind)
    counts = {"files": len(plan.present), "files_gone": len(plan.gone), "rows": n_rows}
    return StageResult("index", n_done, n_skipped, tuple(failures), counts=counts)


def _bring_in(database: Database, name: str, path: Path, target: Target, force: bool) -> int:
    try:
        status = path.stat()
        file = SourceFile(path, name, target, status.st_size, status.st_mtime_ns, hash_file(path))
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None

    def work(connection: psycopg.Connection[Any]) -> int:
        lock(connection, database.schema)
        row = connection.execute("SELECT sha256, n_rows FROM source_file WHERE path = %s", [name]).fetchone()
        # another indexer may have brought it in since we looked
        n_rows = int(row[1]) if row and row[0] == file.sha256 and not force else load_file(connection, file)
        connection.execute(
            "INSERT INTO source_file (path, kind, size, mtime_ns, sha256, n_rows) VALUES (%s, %s, %s, %s, %s, %s) "
            "ON CONFLICT (path) DO UPDATE SET (kind, size, mtime_ns, sha256, n_rows) = "
            "(excluded.kind, excluded.size, excluded.mtime_ns, excluded.sha256, excluded.n_rows)",
            [name, target.folder, file.size, file.mtime_ns, file.sha256, n_rows],
        )
        return n_rows

    return database.transaction(work)


def _take_out(database: Database, name: str) -> None:
    target = next(target for target in TARGETS if name.startswith(f"{target.folder}/"))

    def work(connection: psycopg.Connection[Any]) -> None:
        lock(connection, database.schema)
        remove_file(connection, name, target)

    database.transaction(work)
