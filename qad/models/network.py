"""The neural networks (flax NNX).  They hold arrays and do arithmetic; data, files and training are elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qad.models.layers import Weights, upsample_index
from qad.models.sizes import CORRECTION_PX, FEATURE_PX, Sizes

PRIOR_VARIANCE = 0.01
"""Variance of a bin's residual that its measurement is weighed against, in normalised flux squared."""
MAX_SIGMA = 5.0
"""Residuals beyond this many sigma look the same to the encoder."""


class Frozen(nnx.Variable):
    """An array that belongs to a network and is not trained."""


class Dense(nnx.Module):
    """Dense layers with an activation between them."""

    def __init__(self, widths: Sequence[int], activation: Callable[[jax.Array], jax.Array], *, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(n_in, n_out, rngs=rngs) for n_in, n_out in pairwise(widths)])
        self.activation = activation

    def __call__(self, values: jax.Array) -> jax.Array:
        for layer in self.layers[:-1]:
            values = self.activation(layer(values))
        return self.layers[-1](values)


class RestFrameNetwork(nnx.Module):
    """A factor model, which is not trained, whose latents an encoder corrects and whose spectrum a decoder bends.

    Parameters
    ----------
    sizes : Sizes
    rngs : flax.nnx.Rngs
    """

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs) -> None:
        self.sizes = sizes
        self.mean = Frozen(jnp.zeros(sizes.n_rest))
        self.loading = Frozen(jnp.zeros((sizes.n_rest, sizes.n_latent)))
        self.variance = Frozen(jnp.ones(sizes.n_rest))
        self.encoder = Dense(sizes.encoder_widths, nnx.gelu, rngs=rngs)
        self.decoder = Dense(sizes.decoder_widths, nnx.gelu, rngs=rngs)

    def encode(
        self, flux: jax.Array, ivar: jax.Array, start: jax.Array, prior: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the latents and, for a variational model, the log of what scales their posterior sd; each (batch, n_latent).

        `prior` is the factor model's posterior mean.
        """
        n_obs, k = flux.shape[1], self.sizes.n_latent
        linear = prior @ self.loading[...].T + self.mean[...]
        weight = ivar / (1 + ivar * window(jnp.broadcast_to(self.variance[...], linear.shape), start, n_obs))
        root = jnp.sqrt(weight)
        signal = root * jnp.clip(root * (flux - window(linear, start, n_obs)), -MAX_SIGMA, MAX_SIGMA)
        n_features = self.sizes.n_features
        total = rest_bins(weight, start, n_features)
        shrunk = rest_bins(signal, start, n_features) / (total + 1 / PRIOR_VARIANCE)
        known = total / (total + 1 / PRIOR_VARIANCE)
        out = self.encoder(jnp.concatenate([prior, shrunk / PRIOR_VARIANCE**0.5, known], axis=1))
        return prior + out[:, :k], out[:, k:] if self.sizes.vae else jnp.zeros_like(prior)

    def decode(self, latent: jax.Array) -> jax.Array:
        """Return rest-frame spectra, (batch, n_rest)."""
        left, share = upsample_index(self.sizes.n_correction, CORRECTION_PX, self.sizes.n_rest)
        knots = self.decoder(latent)
        bend = knots[:, left] * (1 - share) + knots[:, left + 1] * share
        return latent @ self.loading[...].T + self.mean[...] + bend


class MlpNetwork(nnx.Module):
    """The plain autoencoder of fixed input length: dense layers down to the latents and mirrored up."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs) -> None:
        self.sizes = sizes
        self.encoder = Dense(sizes.encoder_widths, nnx.relu, rngs=rngs)
        self.decoder = Dense(sizes.decoder_widths, nnx.relu, rngs=rngs)

    def __call__(self, values: jax.Array) -> jax.Array:
        """Return reconstructions, (batch, n_input)."""
        return self.decoder(self.encoder(values))


def window(rest: jax.Array, start: jax.Array, n_obs: int) -> jax.Array:
    """Return the window of each row: (batch, n_rest) and (batch,) to (batch, n_obs)."""
    return jax.vmap(lambda row, first: jax.lax.dynamic_slice(row, (first,), (n_obs,)))(rest, start)


def rest_bins(values: jax.Array, start: jax.Array, n_bins: int) -> jax.Array:
    """Sum windows over bins of the rest frame: (batch, n_obs) to (batch, n_bins)."""

    n_obs = values.shape[1]
    n_own = -(-n_obs // FEATURE_PX) + 1
    padded = jnp.pad(values, ((0, 0), (0, (n_own + 1) * FEATURE_PX - n_obs)))

    def one(row: jax.Array, first: jax.Array) -> jax.Array:
        shifted = jnp.roll(row, first % FEATURE_PX)
        sums = shifted.reshape(-1, FEATURE_PX).sum(axis=1)
        rest = jnp.zeros(n_bins + n_own + 1, values.dtype)
        return jax.lax.dynamic_update_slice(rest, sums, (first // FEATURE_PX,))[:n_bins]

    return jax.vmap(one)(padded, start)


def weights_of(network: nnx.Module) -> dict[str, np.ndarray]:
    """Return the arrays of a network by path, as numpy."""
    flat = nnx.to_flat_state(nnx.state(network))
    return {_name(path): np.asarray(variable[...]) for path, variable in flat}


def build_network(sizes: Sizes, weights: Weights) -> Any:
    """Return the network of these sizes that holds these weights."""
    kind = MlpNetwork if sizes.arch == "mlp" else RestFrameNetwork
    # abstract: flax would compile a random initialiser for every shape, only for its values to be replaced
    graph, state = nnx.split(nnx.eval_shape(lambda: kind(sizes, rngs=nnx.Rngs(0))))
    filled = [
        (path, variable.replace(jnp.asarray(weights[_name(path)]))) for path, variable in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(filled))


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in path)
