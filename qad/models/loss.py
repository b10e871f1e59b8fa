"""Losses: masked, weighted by inverse variance, robust.  Each returns a sum and what it is a sum over."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qad.models.network import MlpNetwork, RestFrameNetwork, window

STUDENT_NU = 7.0
"""Degrees of freedom of the pixel likelihood: 6 to 8 keeps absorbers and artefacts from steering the fit."""
Batch = dict[str, jax.Array]


def rest_frame_loss(
    network: RestFrameNetwork, batch: Batch, key: jax.Array | None, beta: float
) -> tuple[jax.Array, jax.Array]:
    """Return the Student-t loss of a batch: sum over spectra of weight x mean over pixels, and the sum of weights.

    Parameters
    ----------
    network : RestFrameNetwork
    batch : dict
        ``flux``, ``ivar`` (batch, n_obs); ``start`` (batch,); ``prior``, ``prior_sd`` (batch, n_latent), the factor model's
        posterior; ``weight`` (batch,).
    key : jax.Array or None
        Samples the latents of a variational model; None takes their mean.
    beta : float
        Weight of the variational model's KL divergence.
    """
    ivar, start = batch["ivar"], batch["start"]
    flux = jnp.where(ivar > 0, batch["flux"], 0)  # what a masked pixel holds must never reach a result
    n_obs = flux.shape[1]
    mean, log_scale = network.encode(flux, ivar, start, batch["prior"])
    spread = batch["prior_sd"] * jnp.exp(log_scale)
    variational = network.sizes.vae
    latent = mean + spread * jax.random.normal(key, mean.shape) if variational and key is not None else mean
    recon = window(network.decode(latent), start, n_obs)
    psi = window(jnp.broadcast_to(network.variance[...], (len(flux), network.sizes.n_rest)), start, n_obs)
    weight = ivar / (1 + ivar * psi)
    misfit = (STUDENT_NU + 1) / 2 * jnp.log1p(weight * jnp.square(flux - recon) / STUDENT_NU)
    n_good = jnp.maximum((ivar > 0).sum(axis=1), 1)
    # the prior of the latents, or the divergence from it, belongs to the spectrum as a whole
    whole = jnp.square(mean).sum(axis=1) / 2
    if variational:
        whole = beta * (whole + (jnp.square(spread) / 2 - jnp.log(spread) - 0.5).sum(axis=1))
    each = (misfit.sum(axis=1) + whole) / n_good
    return (batch["weight"] * each).sum(), batch["weight"].sum()


def mlp_loss(network: MlpNetwork, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Return the plain mean squared error, summed over spectra, and the number of spectra."""
    error = jnp.square(network(batch["values"]) - batch["values"]).mean(axis=1)
    return (batch["weight"] * error).sum(), batch["weight"].sum()
