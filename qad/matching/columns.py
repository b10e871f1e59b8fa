"""Which columns of a catalogue hold the position and the identifier, and what their values are in degrees."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from qad.errors import QadError
from qad.matching.sky import Floats, Integers

if TYPE_CHECKING:
    import pyarrow as pa

POSITION_NAMES = (
    ("ra", "dec"),
    ("_raj2000", "_dej2000"),
    ("raj2000", "dej2000"),
    ("ra_icrs", "de_icrs"),
    ("target_ra", "target_dec"),
    ("mean_fiber_ra", "mean_fiber_dec"),
    ("ra_deg", "dec_deg"),
    ("radeg", "decdeg"),
    ("radeg", "dedeg"),
    ("ra_hours", "dec_deg"),
    ("ra_j2000", "dec_j2000"),
    ("raj2000", "decj2000"),
    ("alpha_j2000", "delta_j2000"),
    ("ramean", "decmean"),
    ("s_ra", "s_dec"),
    ("_ra", "_de"),
    ("ra", "de"),
    ("ra_2000", "dec_2000"),
    ("right_ascension", "declination"),
    ("rightascension", "declination"),
    ("alpha", "delta"),
    ("lon", "lat"),
)
"""Pairs of position columns, lower case, the likelier first: DESI, Gaia, SDSS, Pan-STARRS, SExtractor, VizieR, ObsCore."""
POSITION_UCDS = ("pos.eq.ra;meta.main", "pos.eq.dec;meta.main"), ("pos.eq.ra", "pos.eq.dec")
ID_NAMES = (
    "targetid",
    "source_id",
    "objid",
    "object_id",
    "objectid",
    "specobjid",
    "id",
    "_id",
    "designation",
    "main_id",
    "name",
    "sdss_name",
    "iauname",
    "object",
    "source",
    "recno",
)
"""Identifier columns, lower case, the likelier first."""

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


class ColumnError(QadError):
    """A column lacks or holds what it cannot; the reader of the file says which file."""


@dataclass(frozen=True)
class Field:
    """A column as the catalogue describes it; a `kind` of ``other`` can be neither position nor carried over."""

    name: str
    kind: Literal["number", "text", "other"]
    unit: str = ""
    description: str = ""
    ucd: str = ""
    type_name: str = ""


class Block(Protocol):
    """Some rows of a catalogue."""

    @property
    def n_rows(self) -> int:
        """How many."""
        ...

    def values(self, name: str, rows: Integers | None = None) -> pa.Array:
        """Return a column, or chosen rows of it."""
        ...


@dataclass(frozen=True)
class Wanted:
    """The columns that the user named; empty: find it by name."""

    ra: str = ""
    dec: str = ""
    id: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The columns that are read; without an `id` the row number stands in."""

    ra: Field
    dec: Field
    id: Field | None
    extra: tuple[Field, ...]

    @property
    def names(self) -> list[str]:
        """Every column to read, once."""
        fields = [self.ra, self.dec, *([self.id] if self.id else []), *self.extra]
        return list(dict.fromkeys(field.name for field in fields))


def choose_columns(fields: Sequence[Field], wanted: Wanted) -> Layout:
    """Return the layout of a table.

    Raises
    ------
    ColumnError
        If a column is missing or of a kind that cannot be used; the text names what was found and what to do.
    """
    ra, dec = _positions(fields, wanted)
    for field, option in ((ra, "--ra-column"), (dec, "--dec-column")):
        if field.kind == "other":
            raise ColumnError(
                f"column {field.name} is {field.type_name}, a position is a number or text; give {option}"
            )
    identifier = _named(fields, wanted.id, "--id-column") if wanted.id else _first(fields, ID_NAMES)
    extra = tuple(dict.fromkeys(_named(fields, name, "--column") for name in wanted.columns))
    for field in (*extra, *([identifier] if identifier and wanted.id else [])):
        if field.kind == "other":
            raise ColumnError(f"column {field.name} is {field.type_name}; only numbers and text can be carried over")
    return Layout(ra, dec, None if identifier is None or identifier.kind == "other" else identifier, extra)


def _positions(fields: Sequence[Field], wanted: Wanted) -> tuple[Field, Field]:
    if wanted.ra and wanted.dec:
        return _named(fields, wanted.ra, "--ra-column"), _named(fields, wanted.dec, "--dec-column")
    if wanted.ra or wanted.dec:
        given, lacking = ("--ra-column", "--dec-column") if wanted.ra else ("--dec-column", "--ra-column")
        raise ColumnError(f"{given} is given without {lacking}; give both")
    for pair in POSITION_NAMES:
        found = [_first(fields, [name]) for name in pair]
        if found[0] and found[1]:
            return found[0], found[1]
    for pair in POSITION_UCDS:
        by_ucd = [next((field for field in fields if field.ucd.lower() == ucd), None) for ucd in pair]
        if by_ucd[0] and by_ucd[1]:
            return by_ucd[0], by_ucd[1]
    raise ColumnError(f"no position columns; give --ra-column and --dec-column ({found_columns(fields)})")


def found_columns(fields: Sequence[Field]) -> str:
    """Return the names of columns as a message shows them."""
    names = [field.name for field in fields]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"found: {', '.join(names[:12])}{more}" if names else "found no column"


def _first(fields: Sequence[Field], names: Sequence[str]) -> Field | None:
    known: dict[str, Field] = {}
    for field in fields:
        known.setdefault(field.name.strip().lower(), field)
    return next((known[name] for name in names if name in known), None)


def _named(fields: Sequence[Field], name: str, option: str) -> Field:
    exact = [field for field in fields if field.name == name]
    found = exact[0] if exact else _first(fields, [name.lower()])
    if found is None:
        close = difflib.get_close_matches(name, [field.name for field in fields], n=1)
        hint = f"; did you mean {close[0]}?" if close else f" ({found_columns(fields)})"
        raise ColumnError(f"{option} {name}: no such column{hint}")
    return found


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


def shorten(value: object) -> str:
    """Return a value as a message quotes it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


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


def as_identifiers(values: pa.Array | None, row_numbers: Integers) -> Iterator[str]:
    """Yield identifiers as text: integers exactly, whole floats without their ``.0``, the row number where there is none."""
    found = [None] * len(row_numbers) if values is None else values.to_pylist()
    for value, row in zip(found, row_numbers.tolist(), strict=True):
        if isinstance(value, str):
            value = value.strip() or None
        if isinstance(value, float):
            value = None if math.isnan(value) else int(value) if value.is_integer() else value
        yield f"row {row}" if value is None and values is not None else str(row if value is None else value)
