"""Which spectra train, and which only judge: the grid's `split` column decides, by target."""

from __future__ import annotations

import numpy as np

from qad.errors import InputError
from qad.storage.flatcache import GridCache
from qad.workspace import Workspace

TRAIN, VALIDATION = 0, 1
MIN_TRAIN = 50
"""Fewer spectra do not hold a mean spectrum and its factors."""


def needed_spectra(n_latent: int) -> int:
    """Return the fewest spectra that a model is trained on."""
    return max(MIN_TRAIN, 3 * n_latent)


def training_rows(workspace: Workspace, cache: GridCache, n_latent: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers of training and of validation spectra; the latter can be none.

    Raises
    ------
    InputError
        If there are too few spectra to train on, or a window does not lie on the grid.
    """
    start = cache.start
    if len(cache) and (start.min() < 0 or int(start.max()) + cache.n_obs > cache.n_rest):
        raise InputError(workspace.grid, "a window lies outside the grid; run `qad build-grid --force`", "start")
    split = cache.table["split"].to_numpy()
    useful = np.asarray(cache.table["coverage"].to_numpy() > 0)
    train, validation = (np.flatnonzero((split == part) & useful) for part in (TRAIN, VALIDATION))
    needed = needed_spectra(n_latent)
    if len(train) < needed:
        raise InputError(
            workspace.grid,
            f"{len(train)} training spectra; a model with {n_latent} latents needs at least {needed}: "
            "extract more pixels, or score with a model trained elsewhere (--model)",
        )
    return train, validation
