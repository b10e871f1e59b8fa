"""Training: what it starts from, that it learns, stops, goes on, and refuses."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from qad.config import Config
from qad.errors import InputError, Interrupted, QadError, StorageError
from qad.models.directory import load_decoder, load_model, read_model
from qad.results import NoProgress, RunOptions
from qad.storage.flatcache import open_grid
from qad.training.batches import epoch_order, fixed_batches
from qad.training.stage import train
from qad.workspace import Workspace

Settings = Callable[..., Config]


class SignalAfter(NoProgress):
    """Sends this process a signal in the middle of training."""

    def __init__(self, steps: int, number: int = signal.SIGTERM) -> None:
        self.left, self.number, self.training = steps, number, False

    def start(self, description: str, total: float | None = None, unit: str = "") -> None:
        self.training = description == "train"

    def advance(self, amount: float = 1) -> None:
        if self.training and amount:
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(self.number)


def interrupted(number: int, _frame: Any) -> None:
    raise Interrupted(number)


@pytest.fixture
def _stop_handler() -> Any:
    """Signals raise Interrupted, as at the command line."""
    previous = {name: signal.signal(name, interrupted) for name in (signal.SIGTERM, signal.SIGINT)}
    yield
    for name, handler in previous.items():
        signal.signal(name, handler)


def weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.npz").read_bytes()).hexdigest()


def history(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "history.parquet").drop("seconds")


def test_network_starts_at_the_factor_model(settings: Settings, options: RunOptions, workspace: Workspace) -> None:
    train(settings(name="factor", arch="factor"), options)
    # so low a rate leaves the parameters where they were
    train(settings(name="network", epochs=1, learning_rate=1e-30, weight_decay=0.0), options)
    cache = open_grid(workspace)
    data = (cache.flux[:50], cache.ivar[:50], cache.start[:50])
    factor, network = (load_model(workspace.model(name)).infer(*data) for name in ("factor", "network"))
    np.testing.assert_allclose(network.latent, factor.latent, atol=1e-5)
    np.testing.assert_allclose(network.recon, factor.recon, atol=1e-5)
    np.testing.assert_array_equal(network.intrinsic_var, factor.intrinsic_var)


@pytest.mark.parametrize("arch", ["rest-frame", "mlp"])
def test_loss_falls(settings: Settings, options: RunOptions, workspace: Workspace, arch: str) -> None:
    result = train(settings(arch=arch, epochs=8), options)
    loss = history(workspace.model("default"))["train_loss"].drop_nulls().to_list()
    assert loss[-1] < loss[0]
    assert result.n_done == 1
    assert result.counts["train"] == 216
    assert result.counts["validation"] == 24


def test_variational_network_trains_and_knows_its_uncertainty(
    settings: Settings, options: RunOptions, workspace: Workspace
) -> None:
    train(settings(vae=True), options)
    cache = open_grid(workspace)
    result = load_model(workspace.model("default")).infer(cache.flux[:20], cache.ivar[:20], cache.start[:20])
    assert result.latent.shape == (20, 3)
    assert (result.latent_sd > 0).all()
    assert np.isfinite(result.recon).all()


def test_same_seed_gives_the_same_history_and_model(
    settings: Settings, options: RunOptions, workspace: Workspace
) -> None:
    folder = workspace.model("default")
    train(settings(), options)
    first = (folder / "model.json").read_bytes(), weights_hash(folder), history(folder)
    shutil.rmtree(folder)
    train(settings(), options)
    second = (folder / "model.json").read_bytes(), weights_hash(folder), history(folder)
    assert first[:2] == second[:2]
    assert first[2].equals(second[2])
    shutil.rmtree(folder)
    train(settings(seed=1), options)
    assert weights_hash(folder) != second[1]


@pytest.mark.usefixtures("_stop_handler")
@pytest.mark.parametrize("arch", ["rest-frame", "mlp"])
@pytest.mark.parametrize("steps", [3, 7, 10])
def test_interrupted_and_resumed_training_equals_the_uninterrupted_one(
    settings: Settings, options: RunOptions, workspace: Workspace, arch: str, steps: int
) -> None:
    """7 steps are an epoch: stops in the middle of one, at its end, and in a later one."""
    train(settings(name="whole", arch=arch), options)
    with pytest.raises(Interrupted):
        train(settings(name="parts", arch=arch), replace(options, progress=SignalAfter(steps)))
    assert not (workspace.model("parts") / "model.json").exists()
    assert len(list((workspace.model("parts") / "checkpoints").iterdir())) == 1
    train(settings(name="parts", arch=arch), options)
    whole, parts = workspace.model("whole"), workspace.model("parts")
    assert weights_hash(whole) == weights_hash(parts)
    assert history(whole).equals(history(parts))
    assert not (parts / "checkpoints").exists()


@pytest.mark.usefixtures("_stop_handler")
def test_no_resume_starts_anew(settings: Settings, options: RunOptions, workspace: Workspace) -> None:
    with pytest.raises(Interrupted) as stop:
        train(settings(), replace(options, progress=SignalAfter(3, signal.SIGINT)))
    assert stop.value.exit_code == 130
    notes: list[str] = []

    class Notes(NoProgress):
        def note(self, message: str) -> None:
            notes.append(message)

    train(settings(resume=False), replace(options, progress=Notes()))
    assert not any("going on" in note for note in notes)
    assert (workspace.model("default") / "model.json").exists()


def test_checkpoints_are_kept_by_the_clock_and_two_of_them_stay(
    settings: Settings, options: RunOptions, workspace: Workspace
) -> None:
    seen: list[int] = []

    class Watch(NoProgress):
        def note(self, message: str) -> None:
            if "checkpoint" in message:
                seen.append(len(list((workspace.model("default") / "checkpoints").iterdir())))

    train(settings(checkpoint_minutes=1e-9), replace(options, progress=Watch()))
    assert len(seen) > 5
    assert max(seen) == 2


@pytest.mark.usefixtures("_stop_handler")
@pytest.mark.parametrize("damage", ["flip", "cut", "json", "newer"])
def test_a_damaged_checkpoint_is_refused(
    settings: Settings, options: RunOptions, workspace: Workspace, damage: str
) -> None:
    with pytest.raises(Interrupted):
        train(settings(), replace(options, progress=SignalAfter(3)))
    folder = next((workspace.model("default") / "checkpoints").iterdir())
    path = folder / ("state.npz" if damage in ("flip", "cut") else "checkpoint.json")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "cut":
        del content[len(content) // 2 :]
    else:
        document = json.loads(content)
        document["format" if damage == "newer" else "step"] = 99
        content = bytearray(json.dumps(document).encode())
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="update qad" if damage == "newer" else "--no-resume"):
        train(settings(), options)
    train(settings(resume=False), options)


@pytest.mark.usefixtures("_stop_handler")
def test_checkpoint_of_other_settings_is_not_taken_up(
    settings: Settings, options: RunOptions, workspace: Workspace
) -> None:
    with pytest.raises(Interrupted):
        train(settings(), replace(options, progress=SignalAfter(3)))
    train(settings(epochs=2), options)
    assert history(workspace.model("default"))["epoch"].max() == 2


def test_loss_that_is_not_finite_stops_training_and_names_step_and_targets(
    settings: Settings, options: RunOptions, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("qad").propagate = True
    with pytest.raises(QadError, match=r"step \d+ .*TARGETID 39627\d+") as error, caplog.at_level("ERROR", "qad"):
        train(settings(arch="mlp", learning_rate=1e30), options)
    assert error.value.exit_code == 1
    assert not (workspace.model("default") / "model.json").exists()
    record = next(record for record in caplog.records if "not finite" in record.message)
    assert len(record.targetids) == 32
    assert record.step <= 4


def test_a_finished_model_is_recognised_until_settings_or_grid_change(
    settings: Settings, options: RunOptions, workspace: Workspace
) -> None:
    quick = {"arch": "factor"}
    assert train(settings(**quick), options).n_done == 1
    assert train(settings(**quick), options).n_skipped == 1
    assert train(settings(**quick, checkpoint_minutes=3.0), options).n_skipped == 1
    assert train(settings(**quick, seed=3), replace(options, dry_run=True)).dry_run
    assert train(settings(**quick, seed=3), options).n_done == 1
    assert train(settings(**quick, seed=3), replace(options, force=True)).n_done == 1
    weights = workspace.model("default") / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert train(settings(**quick, seed=3), options).n_done == 1


def test_dry_run_writes_nothing(settings: Settings, options: RunOptions, workspace: Workspace) -> None:
    result = train(settings(), replace(options, dry_run=True))
    assert result.n_done == 1
    assert not workspace.models.exists()


def test_no_grid_is_one_clear_line(settings: Settings, options: RunOptions, workspace: Workspace) -> None:
    shutil.rmtree(workspace.grid)
    with pytest.raises(InputError, match="run `qad build-grid` first"):
        train(settings(), options)


def test_too_few_spectra_are_refused(settings: Settings, options: RunOptions) -> None:
    with pytest.raises(InputError, match="216 training spectra; a model with 80 latents needs at least 240"):
        train(settings(n_latent=80), options)


def test_full_disk_leaves_the_old_model(
    settings: Settings, options: RunOptions, workspace: Workspace, tmp_path: Path
) -> None:
    """A models folder that is a file stands for a disk that cannot be written."""
    workspace.models.write_text("in the way")
    with pytest.raises(StorageError):
        train(settings(arch="factor"), options)


def test_decoder_in_numpy_equals_the_network(settings: Settings, options: RunOptions, workspace: Workspace) -> None:
    import jax

    from qad.models.network import build_network, window

    train(settings(epochs=6, learning_rate=0.01), options)
    folder = workspace.model("default")
    stored = read_model(folder)
    rng = np.random.default_rng(0)
    weights = {
        name: array + 0.1 * rng.standard_normal(array.shape).astype(np.float32) if "layers" in name else array
        for name, array in stored.weights.items()
    }
    network = build_network(stored.sizes, weights)
    latent = rng.standard_normal((20, 3)).astype(np.float32)
    start = rng.integers(0, 100, 20).astype(np.int32)
    with jax.numpy_dtype_promotion("strict"):
        expected = np.asarray(window(network.decode(latent), start, stored.sizes.n_obs))
    decoder = replace(load_decoder(folder), weights=weights)
    recon, variance = decoder.decode(latent, start)
    np.testing.assert_allclose(recon, expected, atol=1e-5)
    assert variance.shape == recon.shape


def test_masked_pixels_never_change_what_the_network_says(
    settings: Settings, options: RunOptions, workspace: Workspace
) -> None:
    train(settings(learning_rate=0.01), options)
    cache = open_grid(workspace)
    flux, ivar, start = np.array(cache.flux[:30]), np.array(cache.ivar[:30]), cache.start[:30]
    model = load_model(workspace.model("default"))
    clean = model.infer(flux, ivar, start)
    dirty = model.infer(np.where(ivar > 0, flux, np.float32(np.nan)), ivar, start)
    np.testing.assert_array_equal(clean.latent, dirty.latent)
    np.testing.assert_array_equal(clean.recon, dirty.recon)


def test_batches_have_one_shape_and_hold_every_row_once() -> None:
    rows = epoch_order(np.arange(100), 0, 3)
    batches = list(fixed_batches(rows, 32))
    assert {len(batch) for batch, _ in batches} == {32}
    real = np.concatenate([batch[weight > 0] for batch, weight in batches])
    assert sorted(real) == list(range(100))
    assert not np.array_equal(rows, epoch_order(np.arange(100), 0, 4))
    np.testing.assert_array_equal(rows, epoch_order(np.arange(100), 0, 3))
    np.testing.assert_array_equal(batches[2][0], next(fixed_batches(rows, 32, first=2))[0])
