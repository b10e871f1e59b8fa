"""The pairs found so far, with what is carried over from their catalogue rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qad.errors import InputError
from qad.matching.catalogs import Catalog, Positions
from qad.matching.columns import Carried, ColumnError, as_identifiers
from qad.matching.sky import Floats, Integers, SkyIndex
from qad.matching.tables import UNTYPED
from qad.matching.units import unit_factor

if TYPE_CHECKING:
    import pyarrow as pa

MAX_PAIRS = 20_000_000
"""More pairs than this are a radius gone wrong, and would fill the memory."""


class Found:
    """The pairs of all blocks, with the identifiers and wanted columns of their catalogue rows."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.extra = catalog.layout.extra
        self.n_pairs = 0
        try:
            self._factors = {
                carried.name: unit_factor(carried.field.unit, carried.unit, carried.field.name)
                for carried in self.extra
            }
        except ColumnError as error:
            raise InputError(catalog.path, str(error), where=catalog.source.where) from None
        self._candidates: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._separations: list[np.ndarray] = []
        self._places: list[np.ndarray] = []
        self._identifiers: list[str] = []
        self._extra: dict[str, list[pa.Array]] = {carried.name: [] for carried in self.extra}

    def add(
        self, block: Positions, rows: Integers, index: SkyIndex, place: tuple[Floats, Floats], at: tuple[Floats, Floats]
    ) -> None:
        """Take the pairs of a block.

        Parameters
        ----------
        block : Positions
        rows : ndarray
            The rows of the block that have a position.
        index : SkyIndex
            The candidates.
        place, at : tuple of ndarray
            RA and dec of `rows`, degrees, RA in [0, 360): as the catalogue has them, and at the candidates' epoch.
        """
        for pairs in index.pairs(*at):
            self.n_pairs += len(pairs)
            if self.n_pairs > MAX_PAIRS:
                raise InputError(
                    self.catalog.path,
                    f"more than {MAX_PAIRS:,} pairs lie within the radius; use a smaller --radius or --top",
                )
            taken = rows[pairs.right]
            self._candidates.append(pairs.left)
            self._rows.append(block.first_row + taken)
            self._separations.append(pairs.sep_arcsec)
            self._places.append(np.stack([place[0][pairs.right], place[1][pairs.right]]))
            identifier = self.catalog.layout.id
            values = None if identifier is None else block.block.values(identifier.name, taken)
            self._identifiers += as_identifiers(values, block.first_row + taken + 1)
            for carried in self.extra:
                self._extra[carried.name].append(block.block.values(carried.field.name, taken))

    def positions(self) -> tuple[Integers, Integers, Floats]:
        """Return candidate, catalogue row from 0, and separation of each pair."""
        empty = np.empty(0, np.int64)
        return (
            np.concatenate([empty, *self._candidates]),
            np.concatenate([empty, *self._rows]),
            np.concatenate([np.empty(0), *self._separations]),
        )

    def places(self) -> tuple[Floats, Floats]:
        """Return the positions of the catalogue rows that are in any pair, each row once."""
        _, first = np.unique(self.positions()[1], return_index=True)
        ra, dec = np.concatenate([np.empty((2, 0)), *self._places], axis=1)[:, first]
        return ra, dec

    def identifiers(self, order: Integers) -> pa.Array:
        """Return the identifiers, reordered; an index of -1 gives null."""
        import pyarrow as pa

        return _taken([pa.array(self._identifiers, pa.string())], order)

    def column(self, carried: Carried, order: Integers) -> pa.Array:
        """Return a wanted column in its unit, reordered; an index of -1 gives null."""
        import pyarrow.compute as pc

        values = _taken(self._extra[carried.name], order)
        if carried.field.type_name == UNTYPED:
            return narrow(values)
        factor = self._factors[carried.name]
        return (
            values if factor == 1.0 or carried.field.kind != "number" else pc.multiply(values.cast("float64"), factor)
        )


def _taken(parts: list[pa.Array], order: Integers) -> pa.Array:
    import pyarrow as pa

    if not parts:
        return pa.nulls(len(order), pa.string())
    return pa.concat_arrays(parts).take(pa.array(order, mask=order < 0))


def narrow(values: pa.Array) -> pa.Array:
    """Return text as whole numbers, else as floats, else as it is; empty text is null.

    An identifier of 19 digits stays exact because whole numbers are tried first, and ``007`` stays text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(values)
    text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    if pc.any(pc.match_substring_regex(text, r"^[+-]?0\d")).as_py():
        return text
    for dtype in (pa.int64(), pa.float64()):
        try:
            return pc.cast(text, dtype)
        except pa.ArrowInvalid:
            continue
    return text
