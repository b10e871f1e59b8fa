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

    loss: jax.Array
    weight: jax.Array
    grad_norm: jax.Array


@dataclass(frozen=True)
class Program:
    """The compiled functions of a training run.

    Attributes
    ----------
    initial : State
    step : callable
        (state, batch, number of the step) to (state, Metrics); the state's memory is used again.
    evaluate : callable
        (params, batch) to (sum of loss, sum of weights).
    rate : callable
        The learning rate at a step.
    network : callable
        The network with given parameters.
    """

    initial: State
    step: Callable[[State, dict[str, Any], int], tuple[State, Metrics]]
    evaluate: Callable[[Any, dict[str, Any]], tuple[jax.Array, jax.Array]]
    rate: Callable[[int], float]
    network: Callable[[Any], Any]


def make_program(
    task: Task, *, n_steps: int, learning_rate: float, weight_decay: float, clip_norm: float, seed: int
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
    key = jax.random.key(seed)

    def mean_loss(params: Any, frozen: Any, batch: dict[str, Any], key: Any) -> tuple[jax.Array, jax.Array]:
        total, weight = task.loss(nnx.merge(graph, params, frozen), batch, key)
        return total / jnp.maximum(weight, 1e-12), weight

    @jax.jit
    def evaluate(params: Any, frozen: Any, batch: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        return task.loss(nnx.merge(graph, params, frozen), batch, None)

    def step(state: State, frozen: Any, batch: dict[str, Any], key: Any, rate: Any) -> tuple[State, Metrics]:
        sample = jax.random.fold_in(key, state.step)
        (loss, weight), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params, frozen, batch, sample)
        updates, opt_state = optimiser.update(grads, state.optimiser, state.params)
        params = jax.tree.map(lambda value, update: value - rate * update, state.params, updates)
        return State(params, opt_state, state.step + 1), Metrics(loss, weight, _norm(grads))

    compiled = jax.jit(step, donate_argnums=0)
    # a copy, because the first step gives its memory away and the task keeps the network
    first = jax.tree.map(jnp.copy, params)
    return Program(
        initial=State(first, optimiser.init(first), jnp.zeros((), jnp.int32)),
        step=lambda state, batch, number: compiled(
            state, frozen, batch, key, np.float32(learning_rate * schedule(number, n_steps))
        ),
        evaluate=lambda params, batch: evaluate(params, frozen, batch),
        rate=lambda number: learning_rate * schedule(number, n_steps),
        network=lambda params: nnx.merge(graph, params, frozen),
    )


def schedule(number: int, n_steps: int) -> float:
    """Return the learning rate of a step as a share of its peak: a linear rise, then half a cosine (Loshchilov and Hutter 2017)."""
    warm_up = max(1, int(WARM_UP * n_steps))
    if number < warm_up:
        return (number + 1) / (warm_up + 1)
    passed = (number - warm_up) / max(n_steps - warm_up, 1)
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * passed)) / 2


def _norm(tree: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree)))
