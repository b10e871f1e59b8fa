"""Any model's decoder in plain numpy: what inspection needs, without loading JAX."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qad.models.layers import Weights, run_dense, upsample
from qad.models.rebin import expand
from qad.models.sizes import CORRECTION_PX, Sizes
from qad.models.windows import cut


@dataclass(frozen=True)
class Decoder:
    """From latents to reconstructions.

    Attributes
    ----------
    sizes : Sizes
    weights : mapping of str to ndarray
        Arrays by path.
    grid_hash : str
        Identifies the geometry of the grid that the model was trained on.
    """

    sizes: Sizes
    weights: Weights
    grid_hash: str = ""

    @property
    def arch(self) -> str:
        """The architecture."""
        return self.sizes.arch

    def decode(self, latent: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return reconstruction and intrinsic variance in the windows.

        Parameters
        ----------
        latent : ndarray, shape (n, n_latent)
        start : ndarray of int, shape (n,)

        Returns
        -------
        recon, intrinsic_var : ndarray, shape (n, n_obs), float32
            In the units of the grid's normalised flux; the variance is 0 where the model knows none.
        """
        latent = np.asarray(latent, np.float32)
        n_obs = self.sizes.n_obs
        if self.arch == "mlp":
            recon = expand(run_dense(self.weights, "decoder", latent, "relu"), n_obs)
            return recon, np.zeros_like(recon)
        rest = latent @ self.weights["loading"].T + self.weights["mean"]
        if self.arch == "rest-frame":
            knots = run_dense(self.weights, "decoder", latent, "gelu")
            rest = rest + upsample(knots, CORRECTION_PX, self.sizes.n_rest)
        return cut(rest, start, n_obs), cut(self.weights["variance"], start, n_obs)
