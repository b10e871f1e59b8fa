"""Trained networks behind the interface that scoring uses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from qad.models.base import Inference, SpectrumModel
from qad.models.decoder import Decoder
from qad.models.factor import FactorModel
from qad.models.layers import Weights, random_dense
from qad.models.rebin import rebin
from qad.models.sizes import Sizes

BATCH = 512
"""Spectra in one call of a network; the last batch is filled up, so that nothing compiles twice."""


@dataclass(frozen=True)
class NetworkModel:
    """A trained network; see :class:`qad.models.base.SpectrumModel`.

    Attributes
    ----------
    sizes : Sizes
    weights : mapping of str to ndarray
    grid_hash : str
    """

    sizes: Sizes
    weights: Weights
    grid_hash: str = ""

    @property
    def arch(self) -> str:
        """The architecture."""
        return self.sizes.arch

    @property
    def n_latent(self) -> int:
        """Size of the latent space."""
        return self.sizes.n_latent

    @property
    def n_obs(self) -> int:
        """Pixels of a window."""
        return self.sizes.n_obs

    @property
    def n_rest(self) -> int:
        """Pixels of the grid."""
        return self.sizes.n_rest

    @property
    def loading(self) -> np.ndarray:
        """The factors, (n_rest, n_latent); the mlp has none."""
        return np.asarray(self.weights.get("loading", np.zeros((self.sizes.n_rest, 0), np.float32)))

    @property
    def decoder(self) -> Decoder:
        """The decoder in numpy."""
        return Decoder(self.sizes, self.weights, self.grid_hash)

    @cached_property
    def factor(self) -> FactorModel:
        """The factor model inside a rest-frame network."""
        weights = self.weights
        return FactorModel(
            weights["mean"], weights["loading"], weights["variance"], self.sizes.n_obs, grid_hash=self.grid_hash
        )

    def infer(self, flux: np.ndarray, ivar: np.ndarray, start: np.ndarray) -> Inference:
        """Encode and reconstruct spectra; see :class:`qad.models.base.SpectrumModel`."""
        parts = [
            self._infer_batch(flux[i : i + BATCH], ivar[i : i + BATCH], np.asarray(start[i : i + BATCH], np.int32))
            for i in range(0, len(start), BATCH)
        ]
        if not parts:
            k, n_obs = self.n_latent, self.n_obs
            return Inference(*(np.empty((0, length), np.float32) for length in (k, k, n_obs, n_obs)))
        return Inference(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def _infer_batch(self, flux: np.ndarray, ivar: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, ...]:
        n = len(start)
        if self.arch == "mlp":
            values = rebin(flux, ivar, self.sizes.n_input)
            latent = np.asarray(self._encode(_filled(values)))[:n]
            spread = np.zeros_like(latent)
        else:
            prior, covariance = self.factor.posterior(flux, ivar, start)
            spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)).astype(np.float32)
            clean = np.where(ivar > 0, flux, 0).astype(np.float32)
            batch = (clean, np.asarray(ivar, np.float32), start, prior.astype(np.float32))
            encoded, log_scale = self._encode(*(_filled(values) for values in batch))
            latent = np.asarray(encoded)[:n]
            spread = spread * np.exp(np.asarray(log_scale)[:n])
        recon, variance = self.decoder.decode(latent, start)
        return latent, spread.astype(np.float32), recon, variance

    @cached_property
    def _encode(self) -> Any:
        from qad.models.runtime import start_jax

        jax = start_jax()
        from flax import nnx

        from qad.models.network import build_network

        graph, state = nnx.split(build_network(self.sizes, self.weights))

        @jax.jit
        def encode(state: Any, *batch: Any) -> Any:
            network = nnx.merge(graph, state)
            return network.encoder(*batch) if self.arch == "mlp" else network.encode(*batch)

        return lambda *batch: encode(state, *batch)


def initial_weights(sizes: Sizes, seed: int, factor: FactorModel | None = None) -> dict[str, np.ndarray]:
    """Return the weights that training starts from.

    A rest-frame network starts as the factor model that it is given: the last layers of its encoder and decoder are zero.
    """
    rng = np.random.default_rng([seed, 1])
    is_correction = factor is not None
    weights = random_dense("encoder", sizes.encoder_widths, rng, zero_last=is_correction)
    weights |= random_dense("decoder", sizes.decoder_widths, rng, zero_last=is_correction)
    if factor is not None:
        weights |= {"mean": factor.mean, "loading": factor.loading, "variance": factor.variance}
    return weights


def build_model(sizes: Sizes, weights: Weights, grid_hash: str) -> SpectrumModel:
    """Return the model of these sizes and weights."""
    if sizes.arch == "factor":
        return FactorModel(weights["mean"], weights["loading"], weights["variance"], sizes.n_obs, grid_hash=grid_hash)
    return NetworkModel(sizes, weights, grid_hash)


def _filled(values: np.ndarray) -> np.ndarray:
    """Return a batch of full length, repeating its last row."""
    missing = BATCH - len(values)
    return values if missing == 0 else np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
