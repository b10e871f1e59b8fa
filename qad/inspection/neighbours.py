"""The candidates most like one: the nearest in the latent space of the model that scored them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qad.errors import InputError
from qad.inspection.tables import Tables
from qad.schema import SCORES
from qad.storage.parquet import read_batches, vectors

ROWS = 65_536


@dataclass(frozen=True)
class Neighbour:
    """A spectrum near another one.

    Attributes
    ----------
    rank : int
    distance : float
        In the latent space, each axis in units of its standard deviation over all scored spectra.
    """

    rank: int
    distance: float


class LatentSpace:
    """The latent positions of all scored spectra, read once; float32, shape (n_rows, n_latent), by rank."""

    def __init__(self, tables: Tables) -> None:
        ranks, latents = [], []
        for batch in read_batches(tables.scores, SCORES, ["rank", "latent"], ROWS):
            ranks.append(batch.column("rank").to_numpy())
            latents.append(vectors(batch, "latent"))
        if not ranks:
            raise InputError(tables.scores, "holds no spectrum", where=SCORES.tag)
        self._ranks, latent = np.concatenate(ranks), np.concatenate(latents)
        self._scaled = latent / np.maximum(np.nanstd(latent, axis=0, dtype=np.float64), 1e-12).astype(np.float32)

    def nearest(self, rank: int, n: int) -> list[Neighbour]:
        """Return the `n` spectra nearest to that of a rank, the nearest first, itself left out.

        Positions that are not finite are nobody's neighbours.
        """
        place = np.flatnonzero(self._ranks == rank)
        if not len(place) or not np.isfinite(self._scaled[place[0]]).all():
            return []
        square = ((self._scaled - self._scaled[place[0]]) ** 2).sum(axis=1)
        square[place[0]] = np.inf
        square[~np.isfinite(square)] = np.inf
        found = np.argpartition(square, min(n, len(square) - 1))[:n]
        ordered = found[np.lexsort((self._ranks[found], square[found]))]
        return [Neighbour(int(self._ranks[i]), float(np.sqrt(square[i]))) for i in ordered if np.isfinite(square[i])]
