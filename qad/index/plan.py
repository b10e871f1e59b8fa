"""What sets the tables of the database apart from the files of a work directory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.errors import InputError
from qad.index.connection import Database, check_version, schema_version
from qad.index.rows import SourceFile, fingerprint, read_rows
from qad.index.tables import Target, target_files
from qad.results import RunOptions
from qad.workspace import Workspace

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


def make_plan(database: Database, root: Path, options: RunOptions) -> Plan:
    """Return what sets the tables apart from the files below `root`; nothing is changed.

    Raises
    ------
    ServiceError, InputError
        If the server cannot be reached; if its tables are newer than this qad.
    """
    known = database.transaction(lambda connection: _registry(database, connection))
    plan = Plan(target_files(Workspace(root)), known)
    for name, (path, target) in plan.present.items():
        before = plan.known.get(name)
        status = path.stat()
        is_new_time = before is not None and (before.size, before.mtime_ns) != (status.st_size, status.st_mtime_ns)
        is_doubtful = is_new_time or options.verify
        if before is None or options.force or (is_doubtful and _differs(path, name, target, before)):
            plan.behind.append(name)
        elif is_new_time:
            plan.touched.append(name)
    plan.gone = [name for name in plan.known if name not in plan.present]
    return plan


def _differs(path: Path, name: str, target: Target, before: Known) -> bool:
    if not before.sha256:
        return True
    try:
        return before.sha256 != fingerprint(read_rows(SourceFile(path, name, target)))
    except InputError:
        return True  # reported when it is brought in


def _registry(database: Database, connection: psycopg.Connection[Any]) -> dict[str, Known]:
    version = schema_version(connection, database.schema)
    check_version(database, version)
    if version == 0:
        return {}
    rows = connection.execute("SELECT path, size, mtime_ns, sha256, n_rows FROM source_file ORDER BY path").fetchall()
    return {row[0]: Known(*row[1:]) for row in rows}


def n_behind(database: Database, root: Path) -> int:
    """Return how many files the tables are behind.

    Raises
    ------
    ConfigError, ServiceError, InputError
        As :func:`index`.
    """
    plan = make_plan(database, root, RunOptions())
    return len(plan.behind) + len(plan.gone)
