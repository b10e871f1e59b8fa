"""Dense networks by their sizes: the names and shapes of their arrays, and the same network in plain numpy.

The arrays of a network are named by path, ``decoder.layers.0.kernel``, in files and in flax alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

Weights = Mapping[str, np.ndarray]


def dense_shapes(name: str, sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return name and shape of each array of a dense network whose layers have these widths."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        shapes[f"{name}.layers.{i}.bias"] = (n_out,)
        shapes[f"{name}.layers.{i}.kernel"] = (n_in, n_out)
    return shapes


def random_dense(
    name: str, sizes: Sequence[int], rng: np.random.Generator, *, zero_last: bool = False
) -> dict[str, np.ndarray]:
    """Return first weights: normal with variance 1 / (width in) (LeCun et al. 1998), biases 0, the last layer 0 if wanted."""
    weights: dict[str, np.ndarray] = {}
    for path, shape in dense_shapes(name, sizes).items():
        is_zero = len(shape) == 1 or (zero_last and path == f"{name}.layers.{len(sizes) - 2}.kernel")
        values = np.zeros(shape) if is_zero else rng.standard_normal(shape) / np.sqrt(shape[0])
        weights[path] = values.astype(np.float32)
    return weights


def run_dense(weights: Weights, name: str, values: np.ndarray, activation: str) -> np.ndarray:
    """Run the dense network `name` in numpy; the last layer has no activation."""
    i = 0
    while f"{name}.layers.{i}.kernel" in weights:
        if i:
            values = relu(values) if activation == "relu" else gelu(values)
        values = values @ weights[f"{name}.layers.{i}.kernel"] + weights[f"{name}.layers.{i}.bias"]
        i += 1
    return values


def relu(values: np.ndarray) -> np.ndarray:
    """Return the positive part."""
    return np.maximum(values, 0)


def gelu(values: np.ndarray) -> np.ndarray:
    """Return the Gaussian error linear unit in its tanh form (Hendrycks and Gimpel 2016), the default of flax."""
    inner = np.float32(0.7978845608) * (values + np.float32(0.044715) * values * values * values)
    return values * np.float32(0.5) * (1 + np.tanh(inner))


def upsample(coarse: np.ndarray, stride: int, n_fine: int) -> np.ndarray:
    """Interpolate linearly between bins of `stride` pixels, last axis; ends are held."""
    left, share = upsample_index(coarse.shape[-1], stride, n_fine)
    return coarse[..., left] * (1 - share) + coarse[..., left + 1] * share


def upsample_index(n_coarse: int, stride: int, n_fine: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each fine pixel the bin on its left and the weight of the bin on its right."""
    position = np.clip((np.arange(n_fine) + 0.5) / stride - 0.5, 0, n_coarse - 1)
    left = np.minimum(position.astype(np.int32), n_coarse - 2)
    return left, (position - left).astype(np.float32)
