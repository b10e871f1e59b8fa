"""Training speed of the plain autoencoder beside the matrix products that the processor can do, in one run.

::

    python benchmarks/training.py                  batches of 64 and 1,024
    python benchmarks/training.py --resident       the data on the device instead of sent to it
    python benchmarks/training.py --arch rest-frame

The loop is the one of ``qad train``, with its feed and its reading of losses; spectra have 1,000 pixels, the network the default
sizes.  The best epoch counts, compilation not.  A sample costs 6 floating-point operations per weight (forward 2, backward 4).
Where PyTorch is installed, the same network with its fused AdamW stands beside it, eager, on the same number of threads.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import time

import numpy as np

PIXELS = 1000
HIDDEN = (512, 256, 128, 64)
N_LATENT = 32
EPOCHS = 5


def matrix_peak(n: int = 2048, repeat: int = 5) -> float:
    """Return floating-point operations a second of a float32 matrix product in JAX."""
    import jax
    import jax.numpy as jnp

    product = jax.jit(jnp.matmul)
    a = jax.random.normal(jax.random.key(0), (n, n), jnp.float32)
    product(a, a).block_until_ready()
    best = np.inf
    for _ in range(repeat):
        started = time.perf_counter()
        product(a, a).block_until_ready()
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


def train_mlp(values: np.ndarray, batch_size: int, resident: bool) -> tuple[float, int]:
    """Return the samples a second of qad's loop on the mlp, and the number of weights."""
    from qad.models.network import build_network
    from qad.models.sizes import Sizes
    from qad.models.trained import initial_weights
    from qad.training.tasks import MlpTask

    sizes = Sizes("mlp", PIXELS, PIXELS, N_LATENT, HIDDEN, HIDDEN[::-1], PIXELS)
    weights = initial_weights(sizes, 0)
    task = MlpTask(build_network(sizes, weights), values)
    return run_loop(task, len(values), batch_size, resident), sum(array.size for array in weights.values())


def train_rest_frame(values: np.ndarray, batch_size: int, resident: bool) -> tuple[float, int]:
    """Return the samples a second of qad's loop on the rest-frame network, and the number of trained weights."""
    from qad.models.factor import FactorModel
    from qad.models.network import build_network
    from qad.models.sizes import Sizes
    from qad.models.trained import initial_weights
    from qad.training.tasks import RestFrameTask

    n, n_rest, k = len(values), 2 * PIXELS, 10
    rng = np.random.default_rng(0)
    mean, variance = np.ones(n_rest, np.float32), np.full(n_rest, 0.01, np.float32)
    factor = FactorModel(mean, 0.1 * rng.standard_normal((n_rest, k), np.float32), variance, PIXELS)
    sizes = Sizes("rest-frame", n_rest, PIXELS, k, (256, 128), (128, 256))
    weights = initial_weights(sizes, 0, factor)
    prior, spread = rng.standard_normal((n, k), np.float32), np.ones((n, k), np.float32)
    start = rng.integers(0, PIXELS, n).astype(np.int32)
    data = (values, np.ones_like(values), start, prior, spread, np.ones(n, np.float32))
    task = RestFrameTask(build_network(sizes, weights), *data)
    trained = sum(array.size for name, array in weights.items() if "layers" in name)
    return run_loop(task, n, batch_size, resident), trained


def run_loop(task: object, n: int, batch_size: int, resident: bool) -> float:
    """Return samples a second of the best epoch."""
    from qad.training.loop import LoopOptions, Trainer

    rows = np.arange(n)
    options = LoopOptions(EPOCHS, batch_size, 1e-3, 1e-2, 1.0, 0, resident=resident)
    history = Trainer(task, rows, rows[:0], options, rows).train().history
    seconds = [epoch.seconds for epoch in history]
    return n / min(later - earlier for earlier, later in itertools.pairwise(seconds))


def train_torch(values: np.ndarray, batch_size: int) -> float:
    """Return the samples a second of the same mlp in PyTorch."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    widths = (PIXELS, *HIDDEN, N_LATENT, *HIDDEN[::-1], PIXELS)
    layers: list[torch.nn.Module] = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        layers.append(torch.nn.Linear(n_in, n_out))
        if i not in (len(HIDDEN), len(widths) - 2):
            layers.append(torch.nn.ReLU())
    network = torch.nn.Sequential(*layers)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    best = np.inf
    for epoch in range(EPOCHS):
        order = np.random.default_rng(epoch).permutation(len(values))
        started = time.perf_counter()
        for first in range(0, len(order), batch_size):
            batch = torch.from_numpy(values[order[first : first + batch_size]])
            loss = torch.square(network(batch) - batch).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
        if epoch:
            best = min(best, time.perf_counter() - started)
    return len(values) / best


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=16_384)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--arch", choices=("mlp", "rest-frame"), default="mlp")
    parser.add_argument("--resident", action="store_true")
    arguments = parser.parse_args()
    from qad.models.runtime import start_jax

    jax = start_jax()
    values = np.random.default_rng(0).standard_normal((arguments.spectra, PIXELS), np.float32)
    train = train_mlp if arguments.arch == "mlp" else train_rest_frame
    print(f"{jax.local_device_count()} x {jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores")
    for size in arguments.batch_size:
        # the peak before and after: what else runs on the machine slows both
        before = matrix_peak()
        rate, n_weights = train(values, size, arguments.resident)
        peak = max(before, matrix_peak())
        flops = 6 * n_weights * rate
        print(
            f"{arguments.arch}, batch {size:5}: {rate:9,.0f} samples/s, {flops / 1e9:6.1f} GFLOP/s, "
            f"{flops / peak:.2f} of the matrix product's {peak / 1e9:.1f}"
        )
        if arguments.arch == "mlp" and importlib.util.find_spec("torch"):
            torch_rate = train_torch(values, size)
            print(f"torch, batch {size:5}: {torch_rate:9,.0f} samples/s; qad {rate / torch_rate:.2f} of it")


if __name__ == "__main__":
    main()
