"""Batches of one fixed shape, in an order that seed and epoch alone decide."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def epoch_order(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return `rows` in this epoch's order."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def fixed_batches(rows: np.ndarray, size: int, first: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, weight) of length `size` from batch number `first` on; the last is filled up with rows of weight 0.

    Rows stand in the order of the data, which a disk reads fastest: within a batch the order means nothing.
    """
    for begin in range(first * size, len(rows), size):
        part = np.sort(rows[begin : begin + size])
        weight = np.zeros(size, np.float32)
        weight[: len(part)] = 1
        yield np.concatenate([part, np.repeat(part[-1:], size - len(part))]), weight


def n_batches(n_rows: int, size: int) -> int:
    """Return how many batches an epoch has."""
    return -(-n_rows // size)
