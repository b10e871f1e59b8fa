"""Several processes share the pixels: the same files as from one, whatever becomes of a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_release import write_pixel
from s3server import BUCKET, Exchange, FaultProxy, S3Server, run_qad, tree_bytes

from qad.fetching.fleet import MOST_PROCESSES, count_processes
from qad.fetching.line import LARGE_SHARE, Line
from qad.fetching.plan import PixelFiles
from qad.fetching.source import RemoteFile
from qad.fetching.threads import Shares
from qad.work.units import Pixel

PIXELS = [Pixel("main", "dark", 500 + n) for n in range(12)]
FLEET = ("--mode", "files", "--set", "fetch.processes=3", "--set", "fetch.retries=2")


@pytest.fixture(scope="module")
def release(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of twelve pixels of 700 kB, served below ``fleet/``."""
    root = tmp_path_factory.mktemp("fleet")
    for pixel in PIXELS:
        write_pixel(root / "healpix", pixel, n_rows=30)
    s3.put_tree(root, "fleet")
    return root


def arguments(url: str, root: Path, *more: str) -> list[str]:
    return ["--source", f"s3://{BUCKET}/fleet", "--endpoint-url", url, "--root", str(root), *FLEET, *more]


def fetch(url: str, root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run_qad("fetch", *arguments(url, root, *more), cwd=root.parent)


def start(url: str, root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "qad", "fetch", *arguments(url, root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def others_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that a fetch has started to help it."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_until_busy(proxy: FaultProxy, process: subprocess.Popen[str], n_requests: int = 20) -> list[int]:
    """Wait until all three are at work; return the other two."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        others = others_of(process)
        if len(others) == 2 and len([line for line in proxy.requests if "list-type" not in line]) >= n_requests:
            return others
        time.sleep(0.02)
    process.kill()
    raise AssertionError(process.communicate())


def are_gone(pids: list[int], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(is_running(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def slow(found: Exchange) -> None:
    """Let every object take a while."""
    if "list-type" not in found.target:
        time.sleep(0.15)


def test_many_processes_bring_what_one_does(proxy: FaultProxy, release: Path, tmp_path: Path) -> None:
    found = []
    for n in (1, 3):
        root = tmp_path / str(n)
        done = fetch(proxy.url, root, "--json", "--set", f"fetch.processes={n}")
        assert done.returncode == 0, done.stderr
        assert tree_bytes(root / "raw/dr1/healpix") == tree_bytes(release / "healpix")
        found.append(document(done))
    same = ("pixels", "files_fetched", "files_skipped", "bytes", "bytes_whole", "bytes_resumed", "requests_repeated")
    assert [found[0]["counts"][name] for name in same] == [found[1]["counts"][name] for name in same]
    assert found[0]["n_done"] == found[1]["n_done"] == len(PIXELS)
    again = document(fetch(proxy.url, tmp_path / "3", "--json"))
    assert (again["n_done"], again["n_skipped"], again["counts"]["bytes"]) == (0, len(PIXELS), 0)


def test_a_killed_helper_fails_what_it_had_in_hand_and_no_more(
    proxy: FaultProxy, release: Path, tmp_path: Path
) -> None:
    proxy.reset(slow)
    root = tmp_path / "work"
    process = start(proxy.url, root)
    os.kill(wait_until_busy(proxy, process)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "the process that was fetching it died (exit code -9)" in errors
    assert "Traceback" not in errors
    proxy.reset()
    done = fetch(proxy.url, root)
    assert done.returncode == 0, done.stderr
    assert tree_bytes(root / "raw/dr1/healpix") == tree_bytes(release / "healpix")
    assert not list(root.rglob("*part"))


@pytest.mark.usefixtures("release")
def test_helpers_do_not_outlive_the_first_process(proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.reset(slow)
    process = start(proxy.url, tmp_path / "work")
    others = wait_until_busy(proxy, process)
    process.kill()
    process.communicate()
    assert are_gone(others, 1.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_them(proxy: FaultProxy, release: Path, tmp_path: Path, number: signal.Signals) -> None:
    proxy.reset(slow)
    root = tmp_path / "work"
    process = start(proxy.url, root)
    others = wait_until_busy(proxy, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert are_gone(others, 0.5)
    proxy.reset()
    done = fetch(proxy.url, root)
    assert done.returncode == 0, done.stderr
    assert tree_bytes(root / "raw/dr1/healpix") == tree_bytes(release / "healpix")


@pytest.mark.usefixtures("release")
def test_one_object_that_is_gone_fails_its_pixel_alone(proxy: FaultProxy, tmp_path: Path) -> None:
    def gone(found: Exchange) -> None:
        if "coadd" in found.target and ("-507." in found.target or "-502." in found.target):
            found.replace(404, "Not Found", b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")

    proxy.reset(gone)
    done = fetch(proxy.url, tmp_path / "work", "--json")
    found = document(done)
    assert done.returncode == 1
    assert [failure["unit"] for failure in found["failures"]] == ["main/dark/502", "main/dark/507"]
    assert all("is now gone" in failure["reason"] for failure in found["failures"])
    assert found["n_done"] == len(PIXELS) - 2


@pytest.mark.usefixtures("release")
def test_a_service_that_goes_down_ends_all_of_them_with_exit_4(proxy: FaultProxy, tmp_path: Path) -> None:
    def down(found: Exchange) -> None:
        if not ("list-type" in found.target and len(proxy.requests) < 10):
            found.replace(503, "Slow Down", b"<Error><Code>SlowDown</Code></Error>", "application/xml")

    proxy.reset(down)
    done = fetch(proxy.url, tmp_path / "work", "--set", "fetch.retries=1")
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr


@given(st.integers(0, 40), st.integers(1, 5), st.data())
def test_every_item_is_dealt_out_once_whoever_asks(n_items: int, n_parties: int, data: st.DataObject) -> None:
    shares = Shares(range(n_items), n_parties)
    taken = [shares.take(party) for party in data.draw(st.lists(st.integers(0, n_parties - 1), max_size=60))]
    for party in range(n_parties):
        shares.leave(party)
    while (item := shares.take(0)) is not None:
        taken.append(item)
    assert sorted(item for item in taken if item is not None) == list(range(n_items))


def test_who_has_not_begun_keeps_his_share() -> None:
    shares = Shares(range(6), 2)
    assert [shares.take(0) for _ in range(5)] == [0, 2, 4, None, None]
    assert shares.take(1) == 1
    assert [shares.take(0), shares.take(0), shares.take(0)] == [5, 3, None]


def pixel_files(n: int, size: int) -> list[PixelFiles]:
    return [PixelFiles(Pixel("main", "dark", i), (RemoteFile("a", size, ""),), None) for i in range(n)]


def test_processes_are_as_many_as_suit_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qad.fetching.fleet.available_cores", lambda: 16)
    assert count_processes("rows", 128, pixel_files(1000, 1 << 27)) == MOST_PROCESSES
    assert count_processes("files", 128, pixel_files(1000, 1 << 27)) == 1, "large files need no other"
    assert count_processes("files", 128, pixel_files(1000, 20_000)) == MOST_PROCESSES
    assert count_processes("rows", 128, pixel_files(5, 1 << 27)) == 1
    assert count_processes("rows", 8, pixel_files(1000, 1 << 27)) == 1
    monkeypatch.setattr("qad.fetching.fleet.available_cores", lambda: 1)
    assert count_processes("rows", 128, pixel_files(1000, 1 << 27)) == 1


def test_connections_are_shared_out() -> None:
    line = Line(128)
    assert [line.share(4), line.connections] == [32, 32]
    assert line.large_limit <= 32 / LARGE_SHARE
    assert Line(2).share(4) == 1
