"""One step of training as one compiled program, and the optimiser that it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from qad.training.devices import Devices
from qad.training.tasks import Task

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises."""
LAST_RATE = 0.01
"""The learning rate at the end, as a share of its peak."""


class State(NamedTuple):
    """What a step changes."""

    params: Any
    optimiser: Any
    step: jax.Array


class Metrics(NamedTuple):
    """What a step tells."""

    loss: float
    weight: float
    grad_norm: float
    note: int


@dataclass(frozen=True)
class Program:
    """The compiled functions of a training run.

    Attributes
    ----------
    initial : State
    step : callable
        (state, data on the devices, batch, number of the step) to (state, array that :func:`read_metrics` reads); the
        state's memory is used again.
    evaluate : callable
        (params, data on the devices, batch) to an array of the sum of the loss and the sum of the weights.
    rate : callable
        The learning rate at a step.
    network : callable
        The network with given parameters.
    """

    initial: State
    step: Callable[[State, dict[str, Any], dict[str, Any], int], tuple[State, jax.Array]]
    evaluate: Callable[[Any, dict[str, Any], dict[str, Any]], jax.Array]
    rate: Callable[[int], float]
    network: Callable[[Any], Any]


def make_program(
    task: Task,
    devices: Devices,
    *,
    n_steps: int,
    learning_rate: float,
    weight_decay: float,
    clip_norm: float,
    seed: int,
) -> Program:
    """Return the program that trains a task for `n_steps` steps."""
    parts: Any = nnx.split(task.network, nnx.Param, ...)
    graph, params, frozen = parts
    optimiser = optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.scale_by_adam(),
        optax.add_decayed_weights(weight_decay, mask=lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)),
    )
    # key and learning rate are arguments, so that another seed or length of training does not compile again
    key = devices.replicate(jax.random.key_data(jax.random.key(seed)))
    fixed = devices.replicate(frozen)

    def mean_loss(params: Any, frozen: Any, batch: dict[str, Any], key: Any) -> tuple[jax.Array, jax.Array]:
        total, weight = task.loss(nnx.merge(graph, params, frozen), batch, key)
        return total / jnp.maximum(weight, 1e-12), weight

    @jax.jit
    def evaluate(params: Any, frozen: Any, data: dict[str, Any], batch: dict[str, Any]) -> jax.Array:
        return jnp.stack(task.loss(nnx.merge(graph, params, frozen), _whole(data, batch), None))

    def step(
        state: State, frozen: Any, data: dict[str, Any], batch: dict[str, Any], key: Any, rate: Any
    ) -> tuple[State, jax.Array]:
        note = batch["note"].max() if "note" in batch else jnp.float32(0)
        sample = jax.random.fold_in(jax.random.wrap_key_data(key), state.step)
        gradient = jax.value_and_grad(mean_loss, has_aux=True)
        (loss, weight), grads = gradient(state.params, frozen, _whole(data, batch), sample)
        updates, opt_state = optimiser.update(grads, state.optimiser, state.params)
        params = jax.tree.map(lambda value, update: value - rate * update, state.params, updates)
        return State(params, opt_state, state.step + 1), jnp.stack([loss, weight, _norm(grads), note])

    # all that comes out is the same on every device: without saying so, XLA could leave a parameter split
    compiled = jax.jit(step, donate_argnums=0, out_shardings=devices.whole)
    first = State(params, optimiser.init(params), jnp.zeros((), jnp.int32))
    return Program(
        # a copy, because the first step gives its memory away and the task keeps the network
        initial=jax.tree.map(jnp.copy, devices.replicate(first)),
        step=lambda state, data, batch, number: compiled(
            state, fixed, data, batch, key, np.float32(learning_rate * schedule(number, n_steps))
        ),
        evaluate=lambda params, data, batch: evaluate(params, fixed, data, batch),
        rate=lambda number: learning_rate * schedule(number, n_steps),
        network=lambda params: nnx.merge(graph, jax.tree.map(np.asarray, params), frozen),
    )


def _whole(data: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch with its arrays: as they came, or the rows of those that lie on the device."""
    return {name: array[batch["rows"]] for name, array in data.items()} | batch


def read_metrics(values: jax.Array) -> Metrics:
    """Wait for a step, and return what it tells."""
    loss, weight, grad_norm, note = np.asarray(values).tolist()
    return Metrics(loss, weight, grad_norm, int(note) if math.isfinite(note) else 0)


def schedule(number: int, n_steps: int) -> float:
    """Return the learning rate of a step as a share of its peak: a linear rise, then half a cosine (Loshchilov and Hutter 2017)."""
    warm_up = max(1, int(WARM_UP * n_steps))
    if number < warm_up:
        return (number + 1) / (warm_up + 1)
    passed = (number - warm_up) / max(n_steps - warm_up, 1)
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * passed)) / 2


def _norm(tree: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree)))
