"""A catalogue's positions at the epoch of the candidates."""

from __future__ import annotations

import numpy as np

from qad.errors import InputError
from qad.matching.catalogs import Catalog, Positions
from qad.matching.columns import ColumnError
from qad.matching.motion import moved, shift_arcsec
from qad.matching.positions import numbers
from qad.matching.sky import Floats, Integers, SkyIndex
from qad.matching.units import unit_factor

PAD_ARCSEC = 30.0
"""How far a source may move and still be looked for around where the catalogue has it; what moves farther is always moved."""


class Mover:
    """Moves the rows of a catalogue whose motions are known; those far from every candidate are left where they are.

    Parameters
    ----------
    catalog : Catalog
    candidates : tuple of ndarray
        Their RA and dec, degrees.
    radius_arcsec : float
    epoch : float
        Of the candidates' positions, Julian year.

    Raises
    ------
    InputError
        If the motions are in a unit that is none of motion.
    """

    def __init__(self, catalog: Catalog, candidates: tuple[Floats, Floats], radius_arcsec: float, epoch: float) -> None:
        moving = catalog.layout.moving
        self._moving = moving if moving is not None and (moving.epoch != epoch or moving.epoch_column) else None
        self._catalog = catalog
        self._epoch = epoch
        if self._moving is None:
            return
        self._near = SkyIndex(*candidates, radius_arcsec + PAD_ARCSEC)
        try:
            self._factors = [
                unit_factor(field.unit, "mas yr-1", field.name) for field in (self._moving.ra, self._moving.dec)
            ]
        except ColumnError as error:
            raise InputError(catalog.path, str(error), where=catalog.source.where) from None

    def at_epoch(self, block: Positions, rows: Integers, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Return the positions of the `rows` of a block at the epoch; `ra` and `dec` are theirs, RA in [0, 360)."""
        if self._moving is None or not len(rows):
            return ra, dec
        pmra, pmdec = (
            numbers(block.block.values(field.name, rows), field, block.first_row) * factor
            for field, factor in zip((self._moving.ra, self._moving.dec), self._factors, strict=True)
        )
        years = self._years(block, rows)
        chosen = np.zeros(len(rows), bool)
        chosen[self._near.near(ra, dec)] = True
        chosen |= shift_arcsec(pmra, pmdec, years) > PAD_ARCSEC
        chosen &= np.isfinite(pmra) & np.isfinite(pmdec) & (years != 0)
        if not chosen.any():
            return ra, dec
        ra, dec = ra.copy(), dec.copy()
        ra[chosen], dec[chosen] = moved(ra[chosen], dec[chosen], pmra[chosen], pmdec[chosen], years[chosen])
        return ra, dec

    def _years(self, block: Positions, rows: Integers) -> Floats:
        moving = self._moving
        if moving is None or moving.epoch_column is None:
            epoch = moving.epoch if moving is not None and moving.epoch is not None else self._epoch
            return np.full(len(rows), self._epoch - epoch)
        epochs = numbers(block.block.values(moving.epoch_column.name, rows), moving.epoch_column, block.first_row)
        return np.where(np.isfinite(epochs) & (epochs > 0), self._epoch - epochs, 0.0)
