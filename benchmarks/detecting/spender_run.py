"""The autoencoder of ``spender`` (Melchior et al. 2023), trained here: run by another interpreter, with plain arrays between.

::

    python -m venv spender-env && spender-env/bin/pip install spender
    spender-env/bin/python benchmarks/detecting/spender_run.py spectra.npz scores.npz --seconds 120

Its published networks are for galaxies and on another network; this trains its SpectrumAutoencoder at its default sizes on the same
log-wavelength pixels, in the observed frame, for a given time.  ``spectra.npz`` holds ``flux``, ``ivar`` (n, pixels), ``wave``
(pixels) and ``z``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Train, and write reduced chi2 and latents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spectra", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    import torch
    from spender import Instrument, SpectrumAutoencoder

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    data = np.load(options.spectra)
    flux, ivar = (torch.from_numpy(data[name].astype(np.float32)) for name in ("flux", "ivar"))
    z = torch.from_numpy(data["z"].astype(np.float32))
    wave = torch.from_numpy(data["wave"].astype(np.float32))

    instrument = Instrument(wave)
    low, high = float(wave[0] / (1 + z.max())), float(wave[-1] / (1 + z.min()))
    step = float(torch.log10(wave[1] / wave[0]))
    rest = torch.from_numpy((10 ** np.arange(np.log10(low) - step, np.log10(high) + 2 * step, step)).astype(np.float32))
    model = SpectrumAutoencoder(instrument, rest, n_latent=10)
    started = time.monotonic()

    def spent() -> float:
        return time.monotonic() - started

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: max(1.0 - spent() / options.seconds, 0.02))
    # weights as its training scripts have them: inverse variance, with a ceiling for the brightest
    weight = torch.clamp(ivar, max=float(torch.quantile(ivar[ivar > 0][:1_000_000], 0.99)))

    n_seen, order = 0, torch.randperm(len(z))
    while spent() < options.seconds:
        rows = order[n_seen % len(z) :][: options.batch]
        if n_seen % len(z) + options.batch >= len(z):
            order, n_seen = torch.randperm(len(z)), (n_seen // len(z) + 1) * len(z)
        else:
            n_seen += options.batch
        loss = model.loss(flux[rows], weight[rows], z=z[rows]) / len(rows)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    trained = spent()
    chi2, latents = [], []
    with torch.no_grad():
        model.eval()
        for rows in torch.arange(len(z)).split(256):
            latent, _, made, valid = model._forward(flux[rows], z=z[rows])
            use = ivar[rows] * valid
            chi2.append(((flux[rows] - made) ** 2 * use).sum(1) / (use > 0).sum(1).clamp(min=1))
            latents.append(latent)
    np.savez(
        options.output,
        chi2=torch.cat(chi2).numpy(),
        latent=torch.cat(latents).numpy(),
        epochs=n_seen / len(z),
        train_seconds=trained,
        score_seconds=spent() - trained,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


if __name__ == "__main__":
    main()
