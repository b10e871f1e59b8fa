"""Rows that come several times."""

from __future__ import annotations

import numpy as np

from qad.matching.catalogs import Positions
from qad.matching.columns import Field
from qad.matching.sky import Integers


class Once:
    """Lets each row through the first time: an answer has one that lies near two candidates twice.

    Rows are the same if position and identifier are.  Holds every row that has passed: for answers, not for catalogues.
    """

    def __init__(self, identifier: Field | None) -> None:
        self._identifier = identifier
        self._seen: set[tuple[float, float, object]] = set()

    def fresh(self, block: Positions, rows: Integers) -> Integers:
        """Return those of the `rows` of a block that have not passed before."""
        if self._identifier is None:
            identifiers: list[object] = [None] * len(rows)
        else:
            identifiers = block.block.values(self._identifier.name, rows).to_pylist()
        chosen = []
        for row, key in zip(
            rows.tolist(), zip(block.ra[rows].tolist(), block.dec[rows].tolist(), identifiers, strict=True), strict=True
        ):
            if key not in self._seen:
                self._seen.add(key)
                chosen.append(row)
        return np.array(chosen, np.int64)
