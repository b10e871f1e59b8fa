"""What is planted into which spectrum: classes and strengths in turn, bases at random where the class shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qad.simulation.anomalies import ANOMALIES
from qad.simulation.artefacts import ARTEFACTS

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Strengths that are planted, of 0 (hardly more than normal) to 1 (the extremes that are known)."""
ARTEFACT_SHARE = 0.2
"""Share of the planted spectra that get an artefact instead of an anomaly."""
PARTNER_DZ = 0.05
"""Least difference in redshift of two quasars in one fibre, as `qad simulate` has it."""


@dataclass(frozen=True)
class Order:
    """A plant: its number (from 1), its class, which is an anomaly or an artefact, and rows of the base and its partner."""

    number: int
    name: str
    is_artefact: bool
    strength: float
    base: int
    partner: int | None = None


def draw_orders(z: np.ndarray, rows: np.ndarray, count: int, classes: Sequence[str], seed: int) -> list[Order]:
    """Return what to plant.

    Parameters
    ----------
    z : ndarray, shape (n_spectra,)
    rows : ndarray of int
        Spectra that something may be planted into.
    count : int
        Plants in all.
    classes : sequence of str
        Anomalies to plant; those that show at no base's redshift are left out.
    seed : int
    """
    rng = np.random.default_rng([seed, 0x504C])
    n_artefacts = round(count * ARTEFACT_SHARE)
    held = {name: rows[(z[rows] >= ANOMALIES[name].z_min) & (z[rows] <= ANOMALIES[name].z_max)] for name in classes}
    names = [name for name in classes if held[name].size]
    pools = {name: _Pool(held[name], rng) for name in names}
    anything = _Pool(rows, rng)
    orders: list[Order] = []
    for i in range(count - n_artefacts if names else 0):
        name = names[i % len(names)]
        base = pools[name].next()
        partner = _partner(base, z, rows, rng) if name == "blend_quasar" else None
        orders.append(Order(len(orders) + 1, name, False, LEVELS[i // len(names) % len(LEVELS)], base, partner))
    kinds = tuple(ARTEFACTS)
    for i in range(n_artefacts):
        level = LEVELS[i // len(kinds) % len(LEVELS)]
        orders.append(Order(len(orders) + 1, kinds[i % len(kinds)], True, level, anything.next()))
    return orders


class _Pool:
    """Rows in random order, over and over."""

    def __init__(self, rows: np.ndarray, rng: np.random.Generator) -> None:
        self._rows, self._rng = rows, rng
        self._left: list[int] = []

    def next(self) -> int:
        if not self._left:
            self._left = [int(row) for row in self._rng.permutation(self._rows)]
        return self._left.pop()


def _partner(base: int, z: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> int | None:
    others = rows[np.abs(z[rows] - z[base]) > PARTNER_DZ]
    return int(rng.choice(others)) if others.size else None
