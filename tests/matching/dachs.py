"""A real TAP service on the loopback address: GAVO DaCHS with a PostgreSQL of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
RESOURCE = """<resource schema="sky">
  <meta name="title">Made</meta><meta name="description">Made</meta>
  <meta name="creationDate">2026-01-01T00:00:00Z</meta><meta name="subject">quasars</meta>
  <table id="main" onDisk="True" adql="True" mixin="//scs#q3cindex">
    <column name="source_id" type="bigint" ucd="meta.id;meta.main" required="True" description="identifier"/>
    <column name="ra" type="double precision" unit="deg" ucd="pos.eq.ra;meta.main" description="right ascension"/>
    <column name="dec" type="double precision" unit="deg" ucd="pos.eq.dec;meta.main" description="declination"/>
    <column name="pmra" type="double precision" unit="mas/yr" ucd="pos.pm;pos.eq.ra" description="motion"/>
    <column name="pmdec" type="double precision" unit="mas/yr" ucd="pos.pm;pos.eq.dec" description="motion"/>
    <column name="parallax" type="double precision" unit="mas" ucd="pos.parallax" description="parallax"/>
    <column name="parallax_error" type="double precision" unit="mas" ucd="stat.error" description="its error"/>
  </table>
  <data id="import"><sources pattern="data/*.csv"/><csvGrammar/><make table="main"><rowmaker idmaps="*"/></make></data>
</resource>
"""


def why_not() -> str:
    """Return what is lacking to run the service; empty: nothing."""
    if os.geteuid() != 0:
        return "DaCHS is started as another user, by root"
    if shutil.which("dachs") is None or shutil.which("setpriv") is None or not BINARIES:
        return "apt install python3-gavo postgresql postgresql-15-q3c postgresql-15-pgsphere brings a TAP service"
    return ""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def tap_service(folder: Path, rows: pl.DataFrame) -> Iterator[str]:
    """Serve `rows` as the table ``sky.main``, and yield the address of the service."""
    port, database_port = free_port(), free_port()
    folder.mkdir()
    (folder / "gavo.rc").write_text(
        f"[general]\nrootDir: {folder}/gavo\ngroup: postgres\ngavoGroup: postgres\nmaintainerAddress: nobody@localhost\n"
        f"[web]\nbindAddress: 127.0.0.1\nserverPort: {port}\nserverURL: http://127.0.0.1:{port}\n"
    )
    data = folder / "gavo" / "inputs" / "sky" / "data"
    data.mkdir(parents=True)
    rows.write_csv(data / "rows.csv")
    (data.parent / "q.rd").write_text(RESOURCE)
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 1:
            parent.chmod(parent.stat().st_mode | 0o011)
    subprocess.run(["chown", "-R", "postgres", folder], check=True)
    environment = {**os.environ, "GAVOSETTINGS": str(folder / "gavo.rc"), "HOME": str(folder), "PYTHONPATH": ""}

    def run(*command: object) -> None:
        done = subprocess.run(
            [*AS_POSTGRES, *(str(part) for part in command)],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr + done.stdout

    binaries = BINARIES[-1].parent
    run(binaries / "initdb", "-D", folder / "pg", "-A", "trust", "-U", "postgres", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -p {database_port} -c unix_socket_directories={folder} -c fsync=off"
    run(binaries / "pg_ctl", "-D", folder / "pg", "-o", options, "-l", folder / "pg.log", "-w", "start")
    server = None
    try:
        run("psql", "-h", "127.0.0.1", "-p", database_port, "-c", "CREATE DATABASE gavo TEMPLATE template0", "postgres")
        run("dachs", "init", "-d", f"host=127.0.0.1 port={database_port} user=postgres dbname=gavo")
        run("dachs", "imp", "sky/q", "import")
        with (folder / "serve.log").open("w") as log:
            server = subprocess.Popen(
                [*AS_POSTGRES, "dachs", "serve", "debug"], env=environment, cwd=folder, stdout=log, stderr=log
            )
        address = f"http://127.0.0.1:{port}/tap"
        _wait(f"{address}/availability", server)
        yield address
    finally:
        if server is not None:
            server.terminate()
            server.wait(20)
        run(binaries / "pg_ctl", "-D", folder / "pg", "-m", "immediate", "stop")


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert server.poll() is None, "the service has ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError("the service does not answer")
