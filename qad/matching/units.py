"""Units of catalogue columns."""

from __future__ import annotations

import re
import warnings
from typing import Any

from qad.matching.columns import ColumnError


def unit_factor(found: str, wanted: str, column: str) -> float:
    """Return what values in the unit `found` are multiplied by to be in `wanted`; 1 where either is empty or not understood.

    Units are read as astropy's generic, then as VizieR's format (``10-18W/m2``); *per beam* is left out on both sides.

    Raises
    ------
    ColumnError
        If they measure different things.
    """
    texts = [
        re.sub(r"(/\s*|\s)beam(-1|\^-1|\*\*-1)?", "", text.strip().strip("'\""), flags=re.I) for text in (found, wanted)
    ]
    if not all(texts) or texts[0] == texts[1]:
        return 1.0
    from astropy import units as u

    have, want = (_unit(text) for text in texts)
    if have is None or want is None:
        return 1.0
    try:
        return float(have.to(want))
    except u.UnitConversionError:
        raise ColumnError(f"column {column} is in {found!r}, expected {wanted!r}") from None


def _unit(text: str) -> Any:
    """Return an astropy unit, None if neither format knows it."""
    from astropy import units as u

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for form in ("generic", "cds"):
            try:
                return u.Unit(text, format=form)
            except (ValueError, TypeError):
                continue
    return None
