"""The rows of a redrock file, as far as a choice needs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qad.desi.redrock import read_fibermap, read_redshifts
from qad.fetching.choice import RedrockRows


def read_rows(path: Path) -> RedrockRows:
    """Read targets, classes, warnings and positions of a ``redrock-*.fits`` file.

    Raises
    ------
    InputError
        If the file is damaged, or lacks REDSHIFTS or its TARGETID, Z, ZWARN or SPECTYPE.
    """
    redshifts = read_redshifts(path)
    found = read_fibermap(path, {"TARGET_RA": np.float64, "TARGET_DEC": np.float64}, redshifts.targetid)
    ra, dec = (_filled(found[name], len(redshifts.targetid)) for name in ("TARGET_RA", "TARGET_DEC"))
    return RedrockRows(redshifts.targetid, redshifts.spectype, redshifts.zwarn, ra, dec)


def _filled(values: object, n_rows: int) -> np.ndarray:
    return values.filled(np.nan) if isinstance(values, np.ma.MaskedArray) else np.full(n_rows, np.nan)
