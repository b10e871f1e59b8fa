"""Training on several devices: the same history to rounding, whatever their number, and checkpoints that pass between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import SMALL
from toygrid import Toy, write_toy_grid

import qad
from qad.cli.train import device_number
from qad.errors import ConfigError
from qad.models.network import build_network, weights_of
from qad.models.sizes import Sizes
from qad.models.trained import initial_weights
from qad.training.devices import Devices
from qad.training.loop import LoopOptions, Trainer
from qad.training.tasks import MlpTask
from qad.workspace import Workspace

TOLERANCE = 2e-5
"""Relative; sums over a batch in another order differ by a few float32 roundings (6e-8), which the steps carry on."""
DEVICES = 4
KEYS: dict[str, Any] = {key.removeprefix("train."): value for key, value in SMALL.items()}
KEYS |= {"epochs": 2, "em_iterations": 2}
VAE = {"vae": True, "vae_beta": 0.3}
RUNS: dict[str, dict[str, Any]] = {
    "rest-frame-1": {"devices": 1},
    "rest-frame-4": {"devices": 4},
    # 3 devices divide neither a batch of 32 nor the last one
    "vae-1": {"devices": 1, **VAE},
    "vae-3": {"devices": 3, **VAE},
    "mlp-1": {"arch": "mlp", "devices": 1},
    "mlp-3": {"arch": "mlp", "devices": 3},
    "factor-1": {"arch": "factor", "devices": 1},
    "factor-4": {"arch": "factor", "devices": 0},
}
CODE = """
import json, sys
import qad
root, runs = json.loads(sys.argv[1])
for name, keys in runs.items():
    qad.train(root=root, name=name, **keys)
"""


def on_devices(n: int, code: str, document: Any) -> subprocess.CompletedProcess[str]:
    """Run Python in a process with `n` devices."""
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={n}", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code, json.dumps(document)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def losses(workspace: Workspace, name: str) -> pl.DataFrame:
    columns = ["train_loss", "validation_loss", "grad_norm"]
    return pl.read_parquet(workspace.model(name) / "history.parquet").select(columns)


def assert_alike(workspace: Workspace, first: str, second: str) -> None:
    one, other = losses(workspace, first), losses(workspace, second)
    assert one.shape == other.shape
    for name in one.columns:
        expected = one[name].cast(pl.Float64).fill_null(0).to_numpy()
        found = other[name].cast(pl.Float64).fill_null(0).to_numpy()
        # a gradient is a difference of near-equal sums: it keeps fewer digits
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE * (50 if name == "grad_norm" else 1), err_msg=name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, toy: Toy) -> Workspace:
    """A work directory with a model of each of RUNS, all trained by a process with four devices."""
    workspace = write_toy_grid(tmp_path_factory.mktemp("devices"), toy)
    runs = {name: {**KEYS, **keys} for name, keys in RUNS.items()}
    done = on_devices(DEVICES, CODE, [str(workspace.root), runs])
    assert done.returncode == 0, done.stderr
    return workspace


@pytest.mark.parametrize(
    ("one", "several"),
    [
        ("rest-frame-1", "rest-frame-4"),
        ("vae-1", "vae-3"),
        ("mlp-1", "mlp-3"),
    ],
)
def test_history_on_several_devices_is_that_of_one_to_rounding(trained: Workspace, one: str, several: str) -> None:
    assert_alike(trained, one, several)


def test_factor_model_is_the_same_bytes_on_any_number_of_devices(trained: Workspace) -> None:
    one, several = (trained.model(name) / "weights.npz" for name in ("factor-1", "factor-4"))
    assert one.read_bytes() == several.read_bytes()


STOPPED = """
import json, signal, sys
import qad
from qad.results import NoProgress

class Stop(NoProgress):
    left = 10
    def advance(self, amount=1):
        self.left -= amount
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)

root, name, keys = json.loads(sys.argv[1])
qad.train(root=root, name=name, progress=Stop(), **keys)
"""


def test_a_run_goes_on_with_another_number_of_devices(trained: Workspace) -> None:
    keys = {**KEYS, "arch": "mlp"}
    stopped = on_devices(2, STOPPED, [str(trained.root), "mlp-moved", {**keys, "devices": 2}])
    assert stopped.returncode == -15, stopped.stderr
    [checkpoint] = (trained.model("mlp-moved") / "checkpoints").iterdir()
    assert checkpoint.name == "step-00000010"
    qad.train(root=trained.root, name="mlp-moved", **keys)
    assert_alike(trained, "mlp-1", "mlp-moved")


def test_data_that_lie_on_the_devices_train_as_data_that_are_sent(toy: Toy) -> None:
    sizes = Sizes("mlp", 80, 80, 4, (8,), (8,), 80)
    rows = np.arange(len(toy.flux))
    networks = []
    for resident in (False, True):
        task = MlpTask(build_network(sizes, initial_weights(sizes, 0)), toy.flux)
        options = LoopOptions(2, 50, 1e-3, 0.0, 1.0, 0, resident=resident)
        networks.append(weights_of(Trainer(task, rows[20:], rows[:20], options, rows).train().network))
    for name, weights in networks[0].items():
        np.testing.assert_array_equal(weights, networks[1][name])


def test_more_devices_than_there_are_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"train\.devices is 4096, and this process has \d+ \(cpu\); 0 takes all"):
        Devices.choose(4096)


@pytest.mark.parametrize(("text", "number"), [("all", 0), ("1", 1), ("8", 8)])
def test_devices_are_a_number_or_all(text: str, number: int) -> None:
    assert device_number(text) == number
    for wrong in ("", "0", "-1", "two", "1.5"):
        with pytest.raises(ConfigError, match="neither a number of devices nor all"):
            device_number(wrong)
