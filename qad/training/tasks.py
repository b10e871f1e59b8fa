"""What there is to learn: a network, the batches that it reads, and its loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from qad.models.loss import Batch, mlp_loss, rest_frame_loss
from qad.models.network import MlpNetwork, RestFrameNetwork


class Task(Protocol):
    """A network to train."""

    @property
    def network(self) -> Any:
        """The flax network."""
        ...

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """Arrays whose rows are the spectra: a batch holds the same rows of each, and ``weight``, 0 for rows that only fill it."""
        ...

    def loss(self, network: Any, batch: Batch, key: Any) -> tuple[Any, Any]:
        """Return the sum of the loss over a batch, and the sum of weights; `key` is None when validating."""
        ...


@dataclass(frozen=True)
class RestFrameTask:
    """Rest-frame network on a factor model.

    Attributes
    ----------
    network : RestFrameNetwork
    flux, ivar : ndarray, shape (n_spectra, n_obs)
    start : ndarray of int32, shape (n_spectra,)
    prior, prior_sd : ndarray, shape (n_spectra, n_latent), float32
        The factor model's posterior.
    weight : ndarray, shape (n_spectra,), float32
        0 for spectra kept out of the loss.
    beta : float
        Weight of the KL divergence of a variational model.
    """

    network: RestFrameNetwork
    flux: np.ndarray
    ivar: np.ndarray
    start: np.ndarray
    prior: np.ndarray
    prior_sd: np.ndarray
    weight: np.ndarray
    beta: float = 1.0

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """What a batch is cut from."""
        names = ("flux", "ivar", "start", "prior", "prior_sd")
        return {name: getattr(self, name) for name in names} | {"kept": self.weight}

    def loss(self, network: RestFrameNetwork, batch: Batch, key: Any) -> tuple[Any, Any]:
        """Return the Student-t loss."""
        return rest_frame_loss(network, {**batch, "weight": batch["weight"] * batch["kept"]}, key, self.beta)


@dataclass(frozen=True)
class MlpTask:
    """Plain autoencoder.

    Attributes
    ----------
    network : MlpNetwork
    values : ndarray, shape (n_spectra, n_input), float32
    """

    network: MlpNetwork
    values: np.ndarray

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """What a batch is cut from."""
        return {"values": self.values}

    def loss(self, network: MlpNetwork, batch: Batch, key: Any) -> tuple[Any, Any]:
        """Return the mean squared error."""
        return mlp_loss(network, batch)
