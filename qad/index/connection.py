"""The connection to PostgreSQL, and its tables at the version that this qad knows."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from qad.errors import ConfigError, InputError, ServiceError
from qad.index.migrations import migrations
from qad.settings import Index

if TYPE_CHECKING:
    import psycopg

Value = TypeVar("Value")
# the driver remarks on a lost connection that we report ourselves; without a handler it would go to stderr
logging.getLogger("psycopg").addHandler(logging.NullHandler())
ATTEMPTS = 3
RETRY_WAIT_S = 0.5
MIN_LOCK_TIMEOUT_S = 60.0
"""Another indexer may be in the transaction of a large file."""


class Database:
    """A connection that is made when it is first needed, and made again when it is lost.

    Parameters
    ----------
    settings : Index
        ``dsn``, ``db_schema`` and ``timeout_s``.

    Raises
    ------
    ConfigError
        If there is no connection string, or it is not one.
    """

    def __init__(self, settings: Index) -> None:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        text = settings.dsn.get_secret_value()
        if not text:
            raise ConfigError("index.dsn is empty: set it, or QAD_INDEX__DSN, to postgresql://user@host/database")
        try:
            self._parameters: dict[str, Any] = dict(conninfo_to_dict(text))
        except psycopg.Error:  # its text quotes the string, and with it the password
            raise ConfigError("index.dsn is not a connection string: write postgresql://user@host/database") from None
        self.schema = settings.db_schema
        self._timeout_s = settings.timeout_s
        self._connection: psycopg.Connection[Any] | None = None

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def place(self) -> str:
        """The server and database as messages name them; never the password."""
        found = self._parameters
        host = found.get("host") or found.get("hostaddr") or "local socket"
        port = f":{found['port']}" if found.get("port") else ""
        name = f"/{found['dbname']}" if found.get("dbname") else ""
        return f"PostgreSQL at {host}{port}{name}"

    def transaction(self, work: Callable[[psycopg.Connection[Any]], Value]) -> Value:
        """Do `work` in one transaction; if the connection is lost, even at commit, do it again on another.

        Raises
        ------
        ServiceError
            If the server cannot be reached, or refuses.
        """
        import psycopg

        attempt = 0
        while True:
            attempt += 1
            connection = self._connected()
            try:
                with connection.transaction():
                    return work(connection)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                if not connection.closed and not connection.broken:
                    raise self.error(error) from None
                self.close()
                if attempt == ATTEMPTS:
                    raise self.error(error) from None
                time.sleep(RETRY_WAIT_S * attempt)
            except psycopg.errors.InsufficientPrivilege as error:
                raise self.error(error) from None

    def error(self, error: BaseException) -> ServiceError:
        """Return what the driver says as one line, without passwords."""
        text = " ".join(str(error).split()) or type(error).__name__
        for name in ("password", "sslpassword"):
            if self._parameters.get(name):
                text = text.replace(str(self._parameters[name]), "********")
        return ServiceError(f"{self.place}: {text[:300]}")

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> psycopg.Connection[Any]:
        import psycopg
        from psycopg import sql

        defaults = {
            "connect_timeout": max(2, math.ceil(self._timeout_s)),
            "tcp_user_timeout": round(self._timeout_s * 1000),
            # a server that vanishes while we wait for its answer is noticed after two timeouts
            "keepalives_idle": max(1, math.ceil(self._timeout_s)),
            "keepalives_interval": max(1, math.ceil(self._timeout_s / 3)),
            "keepalives_count": 3,
            "application_name": "qad",
        }
        attempt = 0
        while True:
            attempt += 1
            try:
                connection = psycopg.connect(**{**defaults, **self._parameters}, autocommit=True)
                lock_ms = round(max(MIN_LOCK_TIMEOUT_S, self._timeout_s) * 1000)
                connection.execute("SELECT set_config('lock_timeout', %s, false)", [str(lock_ms)])
                connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self.schema)))
                # a commit that a crash of the server loses is only a file that is behind: the registry is lost with it
                connection.execute("SET synchronous_commit TO off")
                return connection
            except psycopg.Error as error:
                # a server that said nothing for the whole timeout is not asked again
                if attempt == ATTEMPTS or isinstance(error, psycopg.errors.ConnectionTimeout):
                    raise self.error(error) from None
                time.sleep(RETRY_WAIT_S * attempt)


def schema_version(connection: psycopg.Connection[Any], schema: str) -> int:
    """Return the version of the tables, 0 if there are none."""
    found = connection.execute(
        "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'schema_version'", [schema]
    ).fetchone()
    if found is None:
        return 0
    row = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    return int(row[0] or 0) if row else 0


def check_version(database: Database, version: int) -> None:
    """Raise InputError if the tables are newer than this qad."""
    newest = max(migrations())
    if version > newest:
        raise InputError(
            f"{database.place}, schema {database.schema}",
            f"its tables are at version {version}, this qad knows up to {newest}; update qad",
        )


def migrate(database: Database) -> int:
    """Bring the tables forward in one transaction, and return their version.

    Raises
    ------
    InputError
        If they are newer than this qad.
    """
    from psycopg import sql

    def forward(connection: psycopg.Connection[Any]) -> int:
        lock(connection, database.schema)
        version = schema_version(connection, database.schema)
        check_version(database, version)
        pending = {number: step for number, step in migrations().items() if number > version}
        if not pending:
            return version
        if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [database.schema]).fetchone() is None:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(database.schema)))
        connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version integer PRIMARY KEY)")
        for number, step in pending.items():
            connection.execute(step.encode())
            connection.execute("INSERT INTO schema_version VALUES (%s)", [number])
        return max(pending)

    return database.transaction(forward)


def lock(connection: psycopg.Connection[Any], schema: str) -> None:
    """Let one indexer at a time change the tables of `schema`, until its transaction ends: no two can deadlock."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"qad index {schema}"])
