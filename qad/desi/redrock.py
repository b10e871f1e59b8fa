"""Redrock's redshifts of one healpix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from qad.desi.columns import matched_columns
from qad.desi.fits import FitsFile
from qad.schema import N_COEFF

OPTIONAL = {
    "ZERR": np.float64,
    "CHI2": np.float64,
    "DELTACHI2": np.float64,
    "NPIXELS": np.int64,
    "NCOEFF": np.int64,
}
"""Columns that are null where a file lacks them."""


@dataclass(frozen=True)
class Redshifts:
    """The REDSHIFTS table, in the file's order; all arrays have shape (n_rows,) unless said otherwise.

    Attributes
    ----------
    targetid : ndarray of int64
    z : ndarray of float64
        NaN where the file has no finite number.
    zwarn : ndarray of int64
    spectype : list of str
    subtype : list of str or None
    coeff : ndarray, shape (n_rows, 10), or None
        Padded with zeros.
    optional : dict of str to masked array
        The columns of :data:`OPTIONAL` that the file has.
    """

    targetid: np.ndarray
    z: np.ndarray
    zwarn: np.ndarray
    spectype: list[str]
    subtype: list[str] | None
    coeff: np.ndarray | None
    optional: dict[str, np.ma.MaskedArray]


def read_redshifts(path: Path, verify: bool = True) -> Redshifts:
    """Read the redshifts of a ``redrock-*.fits`` file.

    Raises
    ------
    InputError
        If the file is damaged, or lacks REDSHIFTS or its TARGETID, Z, ZWARN or SPECTYPE.
    """
    with FitsFile(path, verify) as file:
        table = file.table("REDSHIFTS")
        targetid = table.numbers("TARGETID", np.int64)
        z = table.numbers("Z", np.float64)
        # a warning that cannot be read is a warning: all bits set
        zwarn = table.numbers("ZWARN", np.int64).filled(-1)
        return Redshifts(
            targetid.data,
            z.filled(np.nan),
            zwarn,
            table.texts("SPECTYPE"),
            table.texts("SUBTYPE") if "SUBTYPE" in table else None,
            _padded(table.reals("COEFF")) if "COEFF" in table else None,
            {name: table.numbers(name, dtype) for name, dtype in OPTIONAL.items() if name in table},
        )


def read_fibermap(path: Path, columns: Mapping[str, Any], targetid: np.ndarray, verify: bool = True) -> dict[str, Any]:
    """Return columns of a redrock file's copy of the FIBERMAP, by TARGETID; None where it has none."""
    with FitsFile(path, verify) as file:
        if "FIBERMAP" not in file:
            return dict.fromkeys(columns)
        return matched_columns(file.table("FIBERMAP"), columns, targetid)


def _padded(coeff: np.ndarray) -> np.ndarray:
    """Return coefficients with 10 columns: a file of one template alone may hold fewer."""
    flat = coeff.reshape(len(coeff), prod(coeff.shape[1:]))[:, :N_COEFF].astype(np.float64)
    padded = np.zeros((len(coeff), N_COEFF))
    padded[:, : flat.shape[1]] = flat
    return padded
