"""What every model can do, whatever its architecture: the interface that scoring and inspection use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Inference:
    """What a model makes of a batch of spectra; numpy arrays, float32.

    Attributes
    ----------
    latent : shape (n_spectra, n_latent)
        Posterior mean of the latent position.
    latent_sd : shape (n_spectra, n_latent)
        Its standard deviation; 0 where the model knows none.
    recon : shape (n_spectra, n_obs)
        Reconstruction, in the units of the grid's normalised flux.
    intrinsic_var : shape (n_spectra, n_obs)
        Variance of normal quasars around the reconstruction beside the noise, in normalised flux squared;
        0 where the model knows none.
    """

    latent: np.ndarray
    latent_sd: np.ndarray
    recon: np.ndarray
    intrinsic_var: np.ndarray


class SpectrumModel(Protocol):
    """A trained model.

    Attributes
    ----------
    arch : str
        ``rest-frame``, ``factor`` or ``mlp``.
    n_latent, n_obs, n_rest : int
    grid_hash : str
        Identifies the geometry of the grid that it was trained on.
    """

    @property
    def arch(self) -> str: ...

    @property
    def n_latent(self) -> int: ...

    @property
    def n_obs(self) -> int: ...

    @property
    def n_rest(self) -> int: ...

    @property
    def grid_hash(self) -> str: ...

    @property
    def loading(self) -> np.ndarray:
        """Directions in which normal spectra vary around a reconstruction, (n_rest, n), n = 0 where the model knows none."""
        ...

    def infer(self, flux: np.ndarray, ivar: np.ndarray, start: np.ndarray) -> Inference:
        """Encode and reconstruct spectra of the grid: flux and ivar (n_spectra, n_obs), start (n_spectra,)."""
        ...
