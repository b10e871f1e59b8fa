"""Training by two processes that meet on the loopback address: one history, one writer, and an end for all when one is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest
from test_training_devices import KEYS, assert_alike

import qad
from qad.errors import ConfigError
from qad.results import NoProgress
from qad.settings import Train
from qad.training.peers import Peers, join, placement
from qad.workspace import Workspace

RUNS: dict[str, dict[str, Any]] = {"rest-frame": {"vae": True}, "mlp": {}, "factor": {}}
CODE = """
import json, sys
import qad
root, place, runs = json.loads(sys.argv[1])
for name, keys in runs.items():
    qad.train(root=root, name=name, **keys, **place)
"""
LAUNCHERS = ("SLURM_", "OMPI_", "PMI_", "JOB_COMPLETION", "KUBERNETES_", "JAX_COORDINATOR")
LONG = ["--arch", "mlp", "--epochs", "100000", "--set", "train.mlp_pixels=40", "--batch-size", "32"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: Sequence[str], devices: int = 1, **more: str) -> subprocess.Popen[str]:
    environment = (
        os.environ
        | more
        | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_PLATFORMS": "cpu",
        }
    )
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def start_pair(workspace: Workspace, *arguments: str) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "qad", "train", "--root", str(workspace.root), "--set", "train.peer_timeout_s=20"]
    command += ["--set", "train.checkpoint_minutes=0.001", *arguments]
    place = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process-id"]
    return [start([*command, *place, str(number)]) for number in range(2)]


def start_under_slurm(workspace: Workspace, *arguments: str) -> list[subprocess.Popen[str]]:
    """Start what ``srun --ntasks 2`` would, with the variables that Slurm sets."""
    command = [sys.executable, "-m", "qad", "train", "--root", str(workspace.root), "--coordinator", "auto", *arguments]
    # JAX makes the port of the job's number
    job = str(random.randrange(10**6))
    step = {"SLURM_JOB_ID": job, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
    return [start(command, SLURM_PROCID=str(i), SLURM_LOCALID=str(i), **step) for i in range(2)]


def finish(pair: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Return exit code, stdout and stderr of both; a hang fails the test."""
    try:
        said = [process.communicate(timeout=90) for process in pair]
    finally:
        for process in pair:
            process.kill()
            process.wait()
    return [(process.returncode, *text) for process, text in zip(pair, said, strict=True)]


def wait_for_checkpoint(workspace: Workspace, pair: list[subprocess.Popen[str]]) -> None:
    checkpoints = workspace.model("default") / "checkpoints"
    deadline = time.monotonic() + 90
    while not list(checkpoints.glob("step-*")) and time.monotonic() < deadline:
        assert all(process.poll() is None for process in pair), finish(pair)
        time.sleep(0.05)


def test_two_processes_train_the_history_of_one(workspace: Workspace) -> None:
    """Each has two devices: four share the batches; a batch of 30 is filled up."""
    runs = {arch: {**KEYS, "batch_size": 30, "arch": arch, **more} for arch, more in RUNS.items()}
    place = {"coordinator": f"127.0.0.1:{free_port()}", "processes": 2}
    pair = []
    for number in range(2):
        document = json.dumps([str(workspace.root), {**place, "process_id": number}, runs])
        pair.append(start([sys.executable, "-c", CODE, document], devices=2))
    for code, _, errors in finish(pair):
        assert code == 0, errors
    for name, keys in runs.items():
        qad.train(root=workspace.root, **{**keys, "name": f"alone-{name}"})
    for arch in ("rest-frame", "mlp"):
        assert_alike(workspace, f"alone-{arch}", arch)
    one, two = (workspace.model(name) for name in ("alone-factor", "factor"))
    assert (one / "weights.npz").read_bytes() == (two / "weights.npz").read_bytes()
    # where a model was trained is no part of it: but for its name, nothing tells the two apart
    alone, together = (json.loads((folder / "model.json").read_text()) for folder in (one, two))
    assert {key for key in alone if alone[key] != together[key]} == {"name", "config", "qad.config", "model_hash"}
    assert alone["config"] == {**together["config"], "name": "alone-factor"}


def test_a_signal_to_one_stops_both_and_one_process_can_go_on(workspace: Workspace) -> None:
    pair = start_pair(workspace, *LONG)
    wait_for_checkpoint(workspace, pair)
    pair[1].send_signal(signal.SIGTERM)
    ended = finish(pair)
    assert [code for code, _, _ in ended] == [143, 143], ended
    assert all("stopped by SIGTERM; `qad train` again goes on from here" in errors for _, _, errors in ended)
    checkpoints = workspace.model("default") / "checkpoints"
    last = max(int(path.name.removeprefix("step-")) for path in checkpoints.iterdir())

    class Enough(NoProgress):
        def note(self, message: str) -> None:
            raise KeyError(message)

    keys = {"arch": "mlp", "epochs": 100_000, "mlp_pixels": 40, "batch_size": 32}
    with pytest.raises(KeyError, match=f"going on from step {last}"):
        qad.train(root=workspace.root, progress=Enough(), **keys)


def test_under_slurm_the_first_alone_prints_and_writes(workspace: Workspace) -> None:
    [(code, out, errors), (other_code, other_out, other_errors)] = finish(
        start_under_slurm(workspace, *LONG[:2], "--epochs", "2", *LONG[4:], "--json", "--quiet")
    )
    assert (code, other_code) == (0, 0), errors + other_errors
    assert json.loads(out)["n_done"] == 1
    assert (errors, other_out, other_errors) == ("", "", "")
    assert sorted(path.name for path in workspace.models.iterdir()) == ["default"]
    assert pl.read_parquet(workspace.model("default") / "history.parquet").height == 3


@pytest.mark.parametrize("victim", [1, 0])
def test_when_one_is_killed_the_other_ends(workspace: Workspace, victim: int) -> None:
    """With the first one the coordinator dies, and JAX may end the other before it can say its line."""
    pair = start_pair(workspace, *LONG, "--quiet")
    wait_for_checkpoint(workspace, pair)
    pair[victim].kill()
    code, _, errors = finish(pair)[1 - victim]
    if victim == 1:
        assert code == 4, errors
        assert errors.count("\n") == 1
        assert "another process of this training run is gone" in errors
    else:
        assert code in (4, -signal.SIGABRT), errors


def test_who_waits_for_the_others_in_vain_says_so(workspace: Workspace) -> None:
    arguments = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process-id", "0"]
    command = [sys.executable, "-m", "qad", "train", "--root", str(workspace.root), *arguments]
    process = start([*command, "--set", "train.peer_timeout_s=1", "--quiet"])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 4
    assert errors.count("\n") == 1
    assert "did not meet at 127.0.0.1" in errors


def test_auto_without_a_launcher_says_what_to_name(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(LAUNCHERS)]:
        monkeypatch.delenv(name)
    command = [sys.executable, "-m", "qad", "train", "--root", str(workspace.root), "--coordinator", "auto", "--quiet"]
    process = start(command)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert "Name HOST:PORT instead" in errors


@pytest.mark.parametrize(
    ("environ", "keys", "expected"),
    [
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}, {}, (3, 8)),
        ({"JOB_COMPLETION_INDEX": "2"}, {"processes": 5}, (2, 5)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, {}, (1, 2)),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}, {"process_id": 0, "processes": 2}, (0, 2)),
        ({"SLURM_PROCID": "x"}, {}, (None, None)),
        ({}, {}, (None, None)),
    ],
)
def test_the_launcher_says_which_process_this_is(
    environ: dict[str, str], keys: dict[str, int], expected: tuple[int | None, int | None]
) -> None:
    assert placement(Train(**keys), environ) == expected


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"processes": 2}, "train.coordinator names no HOST:PORT"),
        ({"coordinator": "node1", "processes": 2, "process_id": 0}, "is not HOST:PORT"),
        ({"coordinator": "node1:0", "processes": 2, "process_id": 0}, "is not HOST:PORT"),
        ({"coordinator": "node1:7654", "processes": 2}, "train.process_id is not set"),
        ({"coordinator": "node1:7654", "process_id": 0}, "train.processes is not set"),
        ({"coordinator": "node1:7654", "processes": 2, "process_id": 2}, "counted from 0"),
    ],
)
def test_processes_that_cannot_meet_are_one_line(
    keys: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(LAUNCHERS)]:
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError) as error:
        join(Train(**keys))
    assert text in str(error.value)


def test_one_process_joins_nobody() -> None:
    peers = join(Train())
    assert (peers.rank, peers.count, peers.is_first) == (0, 1, True)
    assert peers.own(7) == slice(0, 7)


@pytest.mark.parametrize(("n", "unit"), [(0, 1), (1, 1), (7, 1), (64, 64), (65, 64), (200, 64), (1000, 64)])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_cover_all_rows_once_in_whole_units(n: int, unit: int, count: int) -> None:
    shares = [Peers(rank, count).own(n, unit) for rank in range(count)]
    assert [row for share in shares for row in range(share.start, share.stop)] == list(range(n))
    assert all(share.start % unit == 0 or share.start == n for share in shares)
