"""The training loop: epochs of steps, validation after each, the best parameters kept, checkpoints by the clock."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qad.errors import InputError, QadError
from qad.results import NoProgress, Progress
from qad.training.batches import epoch_order, n_batches
from qad.training.checkpoint import Checkpoint, Checkpoints, pack_tree, unpack_tree
from qad.training.devices import Devices
from qad.training.feed import Feed
from qad.training.history import Epoch
from qad.training.peers import Peers, lost_peers
from qad.training.signals import StopFlag, deferred_signals
from qad.training.step import Program, State, make_program, read_metrics
from qad.training.tasks import Task

_log = logging.getLogger("qad.training")
SHOWN_TARGETS = 8


@dataclass(frozen=True)
class LoopOptions:
    """How to train.

    Attributes
    ----------
    epochs, batch_size : int
    learning_rate, weight_decay, clip_norm : float
    seed : int
    checkpoint_minutes : float
    resident : bool, optional
        Keep all data on the devices; None: if there is room.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    clip_norm: float
    seed: int
    checkpoint_minutes: float = 10.0
    resident: bool | None = None


@dataclass(frozen=True)
class Trained:
    """What training gave.

    Attributes
    ----------
    network : flax.nnx.Module
        With the best parameters.
    best_epoch, best_step : int
        When the loss that counts (validation, else training) was lowest; 0: before the first step.
    best_loss : float
    history : list of Epoch
    """

    network: Any
    best_epoch: int
    best_step: int
    best_loss: float
    history: list[Epoch]


@dataclass
class _Run:
    """Where a run stands."""

    state: State
    best: Any
    epoch: int = 1
    batch: int = 0
    best_epoch: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    losses: list[tuple[float, float, float]] = field(default_factory=list)
    history: list[Epoch] = field(default_factory=list)


class Trainer:
    """Trains one task.

    Parameters
    ----------
    task : Task
    rows, validation : ndarray of int
        Spectra to train on, and to judge by.
    options : LoopOptions
    targetid : ndarray of int64
        By row; for messages.
    checkpoints : Checkpoints, optional
        Where to save; None saves nothing.
    extra : mapping of str to ndarray
        Arrays that each checkpoint carries along.
    progress : Progress
    peers : Peers, optional
        The processes of the run; the first one alone saves.
    """

    def __init__(
        self,
        task: Task,
        rows: np.ndarray,
        validation: np.ndarray,
        options: LoopOptions,
        targetid: np.ndarray,
        checkpoints: Checkpoints | None = None,
        extra: Mapping[str, np.ndarray] | None = None,
        progress: Progress | None = None,
        peers: Peers | None = None,
    ) -> None:
        self.task, self.rows, self.validation, self.options = task, rows, validation, options
        self.peers = peers or Peers()
        self.devices = self.peers.devices or Devices.choose()
        self.targetid, self.checkpoints = targetid, checkpoints if self.peers.is_first else None
        self.extra = dict(extra or {})
        self.progress = progress or NoProgress()
        self.size = min(options.batch_size, len(rows))
        self.n_batches = n_batches(len(rows), self.size)
        self.feed = Feed(task, self.devices, self.size, options.resident)
        self.program: Program = make_program(
            task,
            self.devices,
            n_steps=options.epochs * self.n_batches,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            clip_norm=options.clip_norm,
            seed=options.seed,
        )
        self.started = self.saved = time.monotonic()

    def train(self, resume: Checkpoint | None = None) -> Trained:
        """Train to the end, or go on from a checkpoint.

        Raises
        ------
        QadError
            If the loss is not finite; step and targets are named, and the last good state is saved.
        InputError
            If the checkpoint is of another architecture, or the device's memory is too small.
        """
        with deferred_signals() as signals:
            # several processes must stop after the same step: what one is told travels with the batches
            self.heard, self.stop = signals, signals if self.peers.count == 1 else StopFlag()
            self.told_at = -1
            try:
                with lost_peers():
                    run = self._start() if resume is None else self._restore(resume)
                    self.progress.start("train", self.options.epochs * self.n_batches, "steps")
                    self.progress.advance((run.epoch - 1) * self.n_batches + run.batch)
                    while run.epoch <= self.options.epochs and not self.stop:
                        self._epoch(run)
                    signals.number = self.peers.largest(signals.number or self.stop.number)
            except jax.errors.JaxRuntimeError as error:
                raise _device_error(error, self.options.batch_size) from None
            if signals:
                self._save(run)
        return Trained(self.program.network(run.best), run.best_epoch, run.best_step, run.best_loss, run.history)

    def _start(self) -> _Run:
        state = self.program.initial
        run = _Run(state, jax.tree.map(jnp.copy, state.params))
        if len(self.validation):
            run.best_loss = self._validate(state.params)
            run.history.append(Epoch(0, 0, None, run.best_loss, 0.0, None, time.monotonic() - self.started))
        return run

    def _epoch(self, run: _Run) -> None:
        good = jax.tree.map(jnp.copy, run.state)
        order = epoch_order(self.rows, self.options.seed, run.epoch)
        waiting: tuple[np.ndarray, jax.Array] | None = None
        note = None if self.peers.count == 1 else lambda: self.heard.number
        with closing(self.feed.batches(order, run.batch, note)) as batches:
            for rows, batch in batches:
                number = (run.epoch - 1) * self.n_batches + run.batch
                run.state, metrics = self.program.step(run.state, self.feed.data, batch, number)
                # the devices work on this step while the step before is read: they never wait for the host
                if waiting is not None:
                    self._read(run, *waiting, good)
                waiting = (rows, metrics)
                run.batch += 1
                self.progress.advance()
                is_due = time.monotonic() - self.saved > 60 * self.options.checkpoint_minutes
                # a checkpoint reads a step earlier than the other processes do: all stop one step after the one that told
                must_stop = bool(self.stop) and number > self.told_at
                if (must_stop or is_due) and run.batch < self.n_batches:
                    self._read(run, *waiting, good)
                    waiting = None
                    if must_stop:
                        return
                    self._save(run)
        if waiting is not None:
            self._read(run, *waiting, good)
        if not self._finish_epoch(run):
            self._stop(run, rows, good)
        if time.monotonic() - self.saved > 60 * self.options.checkpoint_minutes:
            self._save(run)

    def _read(self, run: _Run, rows: np.ndarray, values: jax.Array, good: State) -> None:
        metrics = read_metrics(values)
        run.losses.append((metrics.loss, metrics.weight, metrics.grad_norm))
        if metrics.note and not self.stop:
            self.stop.note(metrics.note)
            self.told_at = (run.epoch - 1) * self.n_batches + len(run.losses) - 1
        if not (math.isfinite(metrics.loss) and math.isfinite(metrics.grad_norm)):
            self._stop(run, rows, good)

    def _stop(self, run: _Run, rows: np.ndarray, good: State) -> None:
        step = (run.epoch - 1) * self.n_batches + len(run.losses)
        targets = [str(target) for target in np.unique(self.targetid[rows])]
        _log.error("loss is not finite", extra={"step": step, "targetids": targets})
        kept = self._save_good(run, good)
        shown = ", ".join(targets[:SHOWN_TARGETS])
        more = f" and {len(targets) - SHOWN_TARGETS} more, in the log" if len(targets) > SHOWN_TARGETS else ""
        raise QadError(
            f"the loss is not finite at step {step} (epoch {run.epoch}); its batch holds TARGETID {shown}{more}. "
            f"{kept}Lower train.learning_rate, or look at these spectra"
        )

    def _save_good(self, run: _Run, good: State) -> str:
        """Save the state before this epoch, and say so; a run that never finished an epoch has nothing to keep."""
        if self.checkpoints is None or run.epoch == 1:
            return ""
        run.state, run.batch, run.losses = good, 0, []
        return f"The state after epoch {run.epoch - 1} is kept in {self._save(run)}. "

    def _finish_epoch(self, run: _Run) -> bool:
        """Judge the parameters; return False where they no longer give a number."""
        losses = np.array(run.losses)
        train_loss = float((losses[:, 0] * losses[:, 1]).sum() / max(losses[:, 1].sum(), 1e-12))
        validation_loss = self._validate(run.state.params) if len(self.validation) else None
        if validation_loss is not None and not math.isfinite(validation_loss):
            return False
        step = run.epoch * self.n_batches
        rate, seconds = self.program.rate(step - 1), time.monotonic() - self.started
        run.history.append(
            Epoch(step, run.epoch, train_loss, validation_loss, rate, float(losses[:, 2].mean()), seconds)
        )
        judged = train_loss if validation_loss is None else validation_loss
        if judged < run.best_loss:
            run.best = jax.tree.map(jnp.copy, run.state.params)
            run.best_epoch, run.best_step, run.best_loss = run.epoch, step, judged
        run.epoch, run.batch, run.losses = run.epoch + 1, 0, []
        return True

    def _validate(self, params: Any) -> float:
        sums: list[Any] = []
        with closing(self.feed.batches(self.validation)) as batches:
            for _, batch in batches:
                sums.append(self.program.evaluate(params, self.feed.data, batch))
                if len(sums) > 1:  # never two evaluations behind: batches would pile up on the devices
                    sums[-2] = np.asarray(sums[-2])
        total, weight = np.array([np.asarray(part) for part in sums], np.float64).sum(axis=0)
        return float(total / max(weight, 1e-12))

    def _save(self, run: _Run) -> str:
        if self.checkpoints is None:
            return ""
        info = {
            "epoch": run.epoch,
            "batch": run.batch,
            "best_epoch": run.best_epoch,
            "best_step": run.best_step,
            "best_loss": run.best_loss if math.isfinite(run.best_loss) else None,
            "losses": run.losses,
            "history": [asdict(epoch) for epoch in run.history],
        }
        arrays = {**self.extra, **pack_tree("state", run.state), **pack_tree("best", run.best)}
        step = (run.epoch - 1) * self.n_batches + run.batch
        path = self.checkpoints.save(Checkpoint(step, arrays, info))
        self.saved = time.monotonic()
        self.progress.note(f"checkpoint {path}")
        return str(path)

    def _restore(self, checkpoint: Checkpoint) -> _Run:
        info = checkpoint.info
        try:
            state = unpack_tree("state", checkpoint.arrays, self.program.initial)
            best = unpack_tree("best", checkpoint.arrays, self.program.initial.params)
        except ValueError as error:
            folder = self.checkpoints.folder if self.checkpoints else "checkpoint"
            raise InputError(folder, str(error), f"step {checkpoint.step}") from None
        return _Run(
            self.devices.replicate(state),
            self.devices.replicate(best),
            epoch=int(info["epoch"]),
            batch=int(info["batch"]),
            best_epoch=int(info["best_epoch"]),
            best_step=int(info["best_step"]),
            best_loss=math.inf if info["best_loss"] is None else float(info["best_loss"]),
            losses=[(a, b, c) for a, b, c in info["losses"]],
            history=[Epoch(**row) for row in info["history"]],
        )


def _device_error(error: Exception, batch_size: int) -> Exception:
    """Return the error to raise for what the device said."""
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text and "out of memory" not in text.lower():
        return error
    return InputError(
        "train", f"the device has too little memory for batches of {batch_size} spectra; use a smaller --batch-size"
    )
