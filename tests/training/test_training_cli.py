"""``qad train`` as a user runs it: exit codes, what it prints, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qad.workspace import Workspace

QUICK = ["--set", "train.hidden=16,8", "--set", "train.em_iterations=3", "--epochs", "3", "--batch-size", "32"]


def qad_train(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qad", "train", "--root", str(workspace.root), "--n-latent", "3", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=workspace.root)


def test_train_prints_json_and_nothing_else_on_stdout(workspace: Workspace) -> None:
    run = qad_train(workspace, *QUICK, "--json", "--quiet", "--vae", "--seed", "2", "--name", "mine")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    document = json.loads(run.stdout)
    assert document["n_done"] == 1
    assert document["counts"]["train"] == 216
    assert document["arch"] == "rest-frame"
    assert Path(document["paths"][0]) == workspace.model("mine")
    info = json.loads((workspace.model("mine") / "model.json").read_text())
    assert info["config"]["vae"] is True
    assert info["seed"] == 2


def test_no_grid_exits_3_with_one_line(workspace: Workspace) -> None:
    workspace.grid_json.unlink()
    run = qad_train(workspace, "--quiet")
    assert run.returncode == 3
    assert run.stderr.count("\n") == 1
    assert "qad build-grid" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--arch", "transformer"], "train.arch"),
        (["--epochs", "0"], "train.epochs"),
        (["--name", "../else"], "model name"),
    ],
)
def test_impossible_settings_exit_2(workspace: Workspace, arguments: list[str], text: str) -> None:
    run = qad_train(workspace, "--quiet", *arguments)
    assert run.returncode == 2
    assert text in run.stderr
    assert "Traceback" not in run.stderr


def test_loss_that_is_not_finite_exits_1(workspace: Workspace) -> None:
    run = qad_train(workspace, "--quiet", "--arch", "mlp", "--learning-rate", "1e30", "--set", "train.mlp_pixels=40")
    assert run.returncode == 1
    assert "the loss is not finite at step" in run.stderr
    assert run.stderr.count("\n") == 1


def test_terminated_training_exits_143_and_goes_on(workspace: Workspace) -> None:
    arguments = ["--arch", "mlp", "--epochs", "100000", "--batch-size", "32", "--set", "train.mlp_pixels=40"]
    command = [sys.executable, "-m", "qad", "train", "--root", str(workspace.root), *arguments]
    environment = os.environ | {"QAD_TRAIN__CHECKPOINT_MINUTES": "0.001"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    checkpoints = workspace.model("default") / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("step-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "stopped by SIGTERM; `qad train` again goes on from here" in errors
    assert 1 <= len(list(checkpoints.glob("step-*"))) <= 2
    assert not list(checkpoints.glob(".*.part"))
