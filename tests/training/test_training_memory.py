"""A device that is too small is one line with the option to turn."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from toygrid import Toy

from qad.errors import InputError
from qad.models.network import build_network
from qad.models.sizes import Sizes
from qad.models.trained import initial_weights
from qad.training.loop import LoopOptions, Trainer
from qad.training.tasks import MlpTask

SIDE = 2**22
"""A square matrix of this side takes 64 TiB."""


class Greedy(MlpTask):
    """Asks for more memory than any machine has."""

    def loss(self, network: Any, batch: Any, key: Any) -> tuple[Any, Any]:
        total, weight = super().loss(network, batch, key)
        column = jnp.full((SIDE, 1), total)
        huge = jnp.tanh(column @ column.T)
        return total + (huge @ huge)[0, 0], weight


def test_out_of_memory_names_the_batch_size_and_the_option(toy: Toy) -> None:
    sizes = Sizes("mlp", 80, 80, 4, (8,), (8,), 80)
    task = Greedy(build_network(sizes, initial_weights(sizes, 0)), toy.flux)
    rows = np.arange(len(toy.flux))
    trainer = Trainer(task, rows, rows[:0], LoopOptions(1, 64, 1e-3, 0.0, 1.0, 0), rows)
    with pytest.raises(InputError, match="batches of 64 spectra; use a smaller --batch-size") as error:
        trainer.train()
    assert error.value.exit_code == 3
