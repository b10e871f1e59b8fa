"""Positions in degrees from what a catalogue's columns hold: numbers of some unit, or text."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from qad.matching.columns import ColumnError, Field, shorten
from qad.matching.sky import Floats, Integers

if TYPE_CHECKING:
    import pyarrow as pa

_DEGREES_PER = {
    **dict.fromkeys(("", "deg", "degree", "degrees", "°", "d", "decimal degrees"), 1.0),
    **dict.fromkeys(("h", "hr", "hour", "hours", "hourangle"), 15.0),
    **dict.fromkeys(("rad", "radian", "radians"), 180.0 / math.pi),
    **dict.fromkeys(("arcmin", "arcminute"), 1 / 60.0),
    **dict.fromkeys(("arcsec", "arcsecond"), 1 / 3600.0),
    "mas": 1 / 3.6e6,
}
_SEXAGESIMAL_UNITS = ("h:m:s", "hms", "d:m:s", "dms", "hour:min:s", "deg:arcmin:arcsec", "sexagesimal")
_NULL_TEXT = ("", "nan", "null", "none", "n/a", "na", "-", "--", "...")
_SEXAGESIMAL = (
    r"^(?P<sign>[+-]?)(?P<whole>\d{1,3})\s*(?P<mark>[:hd°]|\s)\s*"
    r"(?P<minutes>\d{1,2})\s*(?:[:m'′]|\s)\s*(?P<seconds>\d{1,2}(?:\.\d*)?)\s*[s\"″]?$"
)


class Axis:
    """Turns the values of one position column into degrees, block by block.

    Numbers are degrees unless the column's unit says hours, radians or a part of a degree.  Text is either numbers or
    sexagesimal throughout; sexagesimal RA is in hours, the one convention in use, unless marked ``d`` or ``°``.
    """

    def __init__(self, field: Field, is_ra: bool) -> None:
        self.field = field
        self.is_ra = is_ra
        self.is_sexagesimal: bool | None = None
        unit = field.unit.strip().strip("\"'").lower()
        if not unit and field.name.lower().endswith(("_hours", "_hour")):
            unit = "hour"
        if unit in _SEXAGESIMAL_UNITS and field.kind == "text":
            unit, self.is_sexagesimal = "", True
        if unit not in _DEGREES_PER:
            raise ColumnError(f"column {field.name} is in {field.unit!r}, a position is in degrees, hours or radians")
        if _DEGREES_PER[unit] == 15.0 and not is_ra:
            raise ColumnError(f"column {field.name} is in hours, a declination never is; check --dec-column")
        self.factor = _DEGREES_PER[unit]

    def degrees(self, values: pa.Array, first_row: int) -> Floats:
        """Return the values in degrees; NaN where there is none.

        Raises
        ------
        ColumnError
            If a value is neither a number nor sexagesimal; `first_row` (from 0) makes the message name its row.
        """
        import pyarrow as pa

        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            return self._from_text(values, first_row)
        return _as_floats(values) * self.factor if self.factor != 1.0 else _as_floats(values)

    def _from_text(self, values: pa.Array, first_row: int) -> Floats:
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self.is_sexagesimal:
            try:
                return _as_floats(pc.cast(values, pa.float64())) * self.factor
            except pa.ArrowInvalid:
                pass
        text = _clean(values)
        if self.is_sexagesimal is None and text.null_count < len(text):
            first = text.drop_null()[0].as_py()
            self.is_sexagesimal = re.match(_SEXAGESIMAL, first) is not None
        if self.is_sexagesimal:
            return self._from_sexagesimal(text, first_row)
        plain = pc.replace_substring_regex(text, r"^\+", "")  # Arrow reads no leading plus
        try:
            return _as_floats(pc.cast(plain, pa.float64())) * self.factor
        except pa.ArrowInvalid:
            row, value = next((row, value) for row, value in enumerate(text.to_pylist()) if not _is_number(value))
            raise ColumnError(
                f"row {first_row + row + 1}, column {self.field.name}: {shorten(value)} is no position in degrees"
            ) from None

    def _from_sexagesimal(self, text: pa.Array, first_row: int) -> Floats:
        import pyarrow as pa
        import pyarrow.compute as pc

        parts = pc.extract_regex(text, _SEXAGESIMAL)
        whole, minutes, seconds = (
            _as_floats(pc.cast(pc.struct_field(parts, name), pa.float64())) for name in ("whole", "minutes", "seconds")
        )
        in_degrees = _flags(pc.is_in(pc.struct_field(parts, "mark"), pa.array(["d", "°"])))
        negative = _flags(pc.equal(pc.struct_field(parts, "sign"), "-"))
        in_hours = self.is_ra & ~in_degrees
        wrong = (
            (np.isnan(whole) & _flags(text.is_valid())) | (minutes >= 60) | (seconds > 60) | (in_hours & (whole >= 24))
        )
        if wrong.any():
            row = int(np.argmax(wrong))
            kind = "RA of 0 to 24 h" if self.is_ra else "declination"
            value = shorten(text[row].as_py())
            raise ColumnError(
                f"row {first_row + row + 1}, column {self.field.name}: {value} is no sexagesimal {kind}, as the rows before are"
                if row or first_row
                else f"row 1, column {self.field.name}: {value} is no sexagesimal {kind}"
            )
        degrees = (whole + minutes / 60 + seconds / 3600) * np.where(in_hours, 15.0, 1.0)
        return np.where(negative, -degrees, degrees)


def _clean(values: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(values.cast(pa.string()))
    return pc.if_else(pc.is_in(pc.utf8_lower(text), pa.array(_NULL_TEXT)), pa.scalar(None, pa.string()), text)


def _is_number(value: str | None) -> bool:
    try:
        float(value or "nan")
    except ValueError:
        return False
    return "_" not in (value or "")


def _as_floats(values: pa.Array) -> Floats:
    import pyarrow as pa
    import pyarrow.compute as pc

    floats = values if values.type == pa.float64() else pc.cast(values, pa.float64(), safe=False)
    if floats.null_count:
        floats = pc.fill_null(floats, math.nan)
    return np.asarray(floats.to_numpy(zero_copy_only=False), np.float64)


def numbers(values: pa.Array, field: Field, first_row: int) -> Floats:
    """Return a column as floats, NaN where it is empty: text is read as numbers.

    Raises
    ------
    ColumnError
        If a text is no number; `first_row` (from 0) makes the message name its row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return _as_floats(values)
    text = _clean(values)
    try:
        return _as_floats(pc.cast(pc.replace_substring_regex(text, r"^\+", ""), pa.float64()))
    except pa.ArrowInvalid:
        row, value = next((row, value) for row, value in enumerate(text.to_pylist()) if not _is_number(value))
        raise ColumnError(f"row {first_row + row + 1}, column {field.name}: {shorten(value)} is no number") from None


def _flags(values: pa.Array) -> np.ndarray:
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), bool)


def valid_positions(ra: Floats, dec: Floats) -> tuple[Integers, int, int]:
    """Return the rows that can be matched, how many lack a position, and how many lie outside the sphere.

    RA may run from -180 to 360, dec from -90 to 90.
    """
    present = np.isfinite(ra) & np.isfinite(dec)
    inside = (np.abs(dec) <= 90) & (ra >= -180) & (ra <= 360) & present
    return np.flatnonzero(inside), int((~present).sum()), int((present & ~inside).sum())
