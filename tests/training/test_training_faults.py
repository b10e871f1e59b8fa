"""What goes wrong while training: kills, full disks, forged and foreign checkpoints, data that turn bad."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toygrid import Toy

import qad
from qad.config import Config
from qad.errors import InputError, QadError
from qad.models.network import build_network
from qad.models.sizes import Sizes
from qad.models.trained import initial_weights
from qad.results import NoProgress
from qad.storage.provenance import hash_document
from qad.training.batches import epoch_order, fixed_batches
from qad.training.checkpoint import Checkpoint, Checkpoints
from qad.training.loop import LoopOptions, Trainer
from qad.training.tasks import MlpTask
from qad.workspace import Workspace

KEYS: dict[str, Any] = {"arch": "mlp", "mlp_hidden": [64, 32], "mlp_pixels": 40, "batch_size": 32, "encoding_dim": 4}
EPOCHS = 60
"""Of 7 steps: long enough to be stopped in."""


def start(workspace: Workspace, **keys: Any) -> subprocess.Popen[str]:
    """Start ``qad train`` with a checkpoint after every step or two."""
    settings = {**KEYS, "checkpoint_minutes": 1e-5, **keys}
    flags = [text for key, value in settings.items() for text in ("--set", f"train.{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "qad", "train", "--root", str(workspace.root), "--quiet", *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def steps(workspace: Workspace) -> list[int]:
    found = (workspace.model("default") / "checkpoints").glob("step-*")
    return sorted(int(path.name.removeprefix("step-")) for path in found)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.npz").read_bytes()).hexdigest()


def test_a_killed_run_goes_on_and_ends_with_the_bits_of_an_unbroken_one(workspace: Workspace) -> None:
    for reached in (30, 200):
        process = start(workspace, epochs=EPOCHS)
        wait_until(lambda reached=reached: bool(steps(workspace)) and steps(workspace)[-1] > reached, process)
        process.kill()
        process.communicate()
        assert not (workspace.model("default") / "model.json").exists()
    notes: list[str] = []
    qad.train(root=workspace.root, epochs=EPOCHS, progress=Notes(notes), **KEYS)
    assert any("going on from step" in note for note in notes)
    qad.train(root=workspace.root, name="unbroken", epochs=EPOCHS, **KEYS)
    assert weights_hash(workspace.model("default")) == weights_hash(workspace.model("unbroken"))


@dataclass
class Notes(NoProgress):
    """Remembers notes."""

    notes: list[str] = field(default_factory=list)

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_full_disk_ends_with_exit_5_and_both_checkpoints_whole(workspace: Workspace) -> None:
    """A limit on the size of files, set while the process runs, stands for the disk that fills up."""
    process = start(workspace, epochs=100_000)
    wait_until(lambda: len(steps(workspace)) == 2, process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 5, errors
    assert errors.count("\n") == 1
    folder = workspace.model("default") / "checkpoints"
    assert f"{folder}: no space left to write step-" in errors
    kept = sorted(folder.iterdir())
    assert [path.name[:5] for path in kept] == ["step-", "step-"]
    for path in kept:
        info = json.loads((path / "checkpoint.json").read_text())
        assert Checkpoints(folder, info["run"])._read(path) is not None


def checkpointed(settings: Callable[..., Config], workspace: Workspace) -> Path:
    """Return the folder of the checkpoints of a run that was stopped after a while."""
    process = start(workspace, epochs=100_000)
    wait_until(lambda: len(steps(workspace)) == 2, process)
    process.terminate()
    process.communicate(timeout=60)
    return workspace.model("default") / "checkpoints"


def forge(folder: Path, arrays: Mapping[str, bytes]) -> None:
    """Replace the arrays of a checkpoint as one who knows its hashes would."""
    with zipfile.ZipFile(folder / "state.npz", "w") as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    info = json.loads((folder / "checkpoint.json").read_text())
    info["sha256"] = hashlib.sha256((folder / "state.npz").read_bytes()).hexdigest()
    del info["checkpoint_hash"]
    info["checkpoint_hash"] = hash_document(info)
    (folder / "checkpoint.json").write_text(json.dumps(info))


class Trap:
    """Whoever unpickles this, makes a file."""

    target = ""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.target),)


def test_forged_checkpoints_are_refused_and_the_one_before_serves_when_asked(
    settings: Callable[..., Config], workspace: Workspace, tmp_path: Path
) -> None:
    folder = checkpointed(settings, workspace)
    first, last = sorted(folder.iterdir())
    Trap.target = str(tmp_path / "executed")
    pickle.loads(pickle.dumps(Trap()))
    assert Path(Trap.target).exists(), "the trap must work, or this test shows nothing"
    Path(Trap.target).unlink()
    objects = io.BytesIO()
    np.save(objects, np.array([Trap()], dtype=object), allow_pickle=True)
    small = io.BytesIO()
    np.save(small, np.zeros(3, np.float32))
    keys = {**KEYS, "epochs": 100_000}
    for content, text in (
        ({"state.step": objects.getvalue()}, "plain arrays"),
        ({"state.step": pickle.dumps(Trap())}, "plain arrays"),
        ({"state.params": small.getvalue()}, "of another architecture"),
    ):
        forge(last, content)
        with pytest.raises(InputError, match=text) as error:
            qad.train(root=workspace.root, **keys)
        assert error.value.exit_code == 3
        assert not Path(Trap.target).exists()
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    process = start(workspace, epochs=100_000)
    wait_until(lambda: steps(workspace)[-1] > int(first.name.removeprefix("step-")), process)
    process.kill()
    process.communicate()


@dataclass(frozen=True)
class Rotting(MlpTask):
    """Data of which one row turns to NaN after some batches, as a file on a failing disk may."""

    reads: list[int] = field(default_factory=list)
    good_reads: int = 15

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        self.reads.append(1)
        if len(self.reads) > self.good_reads:
            values = self.values.copy()
            values[5] = np.nan
            return {"values": values}
        return {"values": self.values}


def test_loss_that_turns_nan_keeps_the_state_of_the_epoch_before(toy: Toy, tmp_path: Path) -> None:
    sizes = Sizes("mlp", 80, 80, 4, (8,), (8,), 80)
    task = Rotting(build_network(sizes, initial_weights(sizes, 0)), toy.flux)
    rows = np.arange(240)
    targetid = rows + 39_627_000_000_000_000
    checkpoints = Checkpoints(tmp_path / "checkpoints", "run")
    trainer = Trainer(task, rows, rows[:0], LoopOptions(3, 24, 1e-3, 0.0, 1.0, 0), targetid, checkpoints)
    with pytest.raises(QadError, match="loss is not finite at step") as error:
        trainer.train()
    assert error.value.exit_code == 1
    # the first read of all is not for a batch; after it, the first batch that held the row once it was bad
    epoch, step = next(item for item in steps_with_row(rows, 5) if item[1] >= task.good_reads)
    assert f"at step {step} (epoch {epoch}); its batch holds TARGETID 396270000000000" in str(error.value)
    assert f"The state after epoch {epoch - 1} is kept in" in str(error.value)
    found = checkpoints.last()
    assert isinstance(found, Checkpoint)
    assert found.step == (epoch - 1) * 10
    assert all(np.isfinite(array).all() for array in found.arrays.values())


def steps_with_row(rows: np.ndarray, row: int) -> list[tuple[int, int]]:
    """Return the epochs and steps, from 1, whose batches of 24 hold a row."""
    found = []
    for epoch in (1, 2, 3):
        batches = fixed_batches(epoch_order(rows, 0, epoch), 24)
        found += [(epoch, (epoch - 1) * 10 + i) for i, (batch, _) in enumerate(batches, start=1) if row in batch]
    return found
