"""SIGKILL at any moment: nothing wrong under a final name, and the next run goes on from there."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from s3server import Exchange, FaultProxy, S3Server, kill_after, run_qad, start_qad, tree_bytes

import qad
from qad.errors import Interrupted
from qad.fetching.threads import run_threads

N_KILLS = 3
CONNECTIONS = 4
LOST_BYTES = 1 << 20
"""What a kill may cost of each request under way, beside headers that are read again."""
HEADER_BYTES = 800_000
"""Headers of the made release's coadds, read twice over plain HTTP."""


@pytest.mark.parametrize("mode", ["rows", "hdus", "files"])
def test_a_fetch_that_is_killed_again_and_again_gets_there(
    s3: S3Server, proxy: FaultProxy, true_source: str, tmp_path: Path, mode: str
) -> None:
    drawn = random.Random(mode)
    keys = {"source": true_source, "mode": mode, "connections": CONNECTIONS}
    assert qad.fetch(root=tmp_path / "whole", endpoint_url=proxy.url, **keys).failures == ()
    whole = tree_bytes(tmp_path / "whole/raw")
    needed = sum(proxy.sent.values())
    root = tmp_path / "work"
    command = ["fetch", "--source", true_source, "--mode", mode, "--endpoint-url", proxy.url, "--root", str(root)]
    command += ["--set", f"fetch.connections={CONNECTIONS}", "--json"]
    proxy.reset()
    proxy.delay_s = 0.01
    n_killed = 0
    for _ in range(N_KILLS):
        at = sum(proxy.sent.values()) + drawn.randrange(needed // N_KILLS)
        n_killed += kill_after(start_qad(*command, cwd=tmp_path), proxy, at)
        assert tree_bytes(root / "raw").items() <= whole.items(), "nothing wrong has a name"
    proxy.delay_s = 0
    done = run_qad(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert tree_bytes(root / "raw") == whole
    assert not list(root.rglob("*part*")), "no stray file"
    assert n_killed > 0
    extra = n_killed * (CONNECTIONS * LOST_BYTES + HEADER_BYTES)
    assert sum(proxy.sent.values()) <= needed + extra
    again = json.loads(run_qad(*command, cwd=tmp_path).stdout)
    assert (again["n_done"], again["counts"]["bytes"]) == (0, 0)


@pytest.mark.parametrize(
    ("mode", "number"), [("rows", signal.SIGTERM), ("hdus", signal.SIGINT), ("rows", signal.SIGHUP)]
)
def test_a_signal_ends_it_at_once_and_what_has_come_is_kept(
    proxy: FaultProxy, true_source: str, tmp_path: Path, mode: str, number: signal.Signals
) -> None:
    stalled: list[str] = []

    def stall(found: Exchange) -> None:
        if found.path.endswith("coadd-main-dark-9144.fits") and len(found.body) > 9000:
            found.stall_at = 4000
            stalled.append(found.path)

    proxy.reset(stall)
    root = tmp_path / "work"
    command = ["fetch", "--source", true_source, "--mode", mode, "--endpoint-url", proxy.url, "--root", str(root)]
    process = start_qad(*command, cwd=tmp_path)
    while not stalled and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    # far below the 30 s of the read that hangs
    assert process.wait(timeout=10) == 128 + number
    assert not list(root.rglob("coadd-main-dark-9144.fits"))
    proxy.reset()
    done = run_qad(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(root.rglob("*part*"))


def test_a_signal_may_come_before_all_threads_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(threading.Thread):
        def start(self) -> None:
            if threading.active_count() > before + 1:
                raise Interrupted(signal.SIGTERM)
            super().start()

    before, stop = threading.active_count(), threading.Event()
    monkeypatch.setattr("qad.fetching.threads.Thread", Slow)
    with pytest.raises(Interrupted):
        list(run_threads(lambda _: stop.wait(10), range(4), 4, stop))
    assert stop.is_set()
