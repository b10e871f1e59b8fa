"""Which columns of a catalogue hold the position and the identifier."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from qad.errors import QadError
from qad.matching.presets import Known, Preset
from qad.matching.sky import Integers

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
    """The columns that the user named, empty: find it by name; and the catalogue that it is known to be."""

    ra: str = ""
    dec: str = ""
    id: str = ""
    columns: tuple[str, ...] = ()
    preset: Preset | None = None


@dataclass(frozen=True)
class Carried:
    """A column that is carried over: where it is read, and what it becomes.

    Attributes
    ----------
    field : Field
        As the catalogue has it.
    name : str
        What follows ``cat_``.
    known : Known or None
        What it is in a known catalogue.
    """

    field: Field
    name: str
    known: Known | None = None

    @property
    def unit(self) -> str:
        """The unit that its values get."""
        return self.known.unit if self.known is not None and self.known.unit else self.field.unit

    @property
    def description(self) -> str:
        """What it is."""
        return self.field.description or (self.known.description if self.known is not None else "")


@dataclass(frozen=True)
class Moving:
    """Where proper motions are read, and the epoch of the positions: of all, or of each row."""

    ra: Field
    dec: Field
    epoch: float | None
    epoch_column: Field | None


@dataclass(frozen=True)
class Layout:
    """The columns that are read; without an `id` the row number stands in."""

    ra: Field
    dec: Field
    id: Field | None
    extra: tuple[Carried, ...]
    moving: Moving | None = None

    @property
    def names(self) -> list[str]:
        """Every column to read, once."""
        fields = [self.ra, self.dec, *([self.id] if self.id else []), *(carried.field for carried in self.extra)]
        if self.moving is not None:
            fields += [self.moving.ra, self.moving.dec]
            fields += [self.moving.epoch_column] if self.moving.epoch_column is not None else []
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
    identifier = _named(fields, wanted.id, "--id-column") if wanted.id else _identifier(fields, wanted.preset)
    named = tuple(Carried(field, field.name) for field in (_named(fields, name, "--column") for name in wanted.columns))
    for field in (*(carried.field for carried in named), *([identifier] if identifier and wanted.id else [])):
        if field.kind == "other":
            raise ColumnError(f"column {field.name} is {field.type_name}; only numbers and text can be carried over")
    extra = {carried.name: carried for carried in (*_known(fields, wanted.preset), *named)}
    usable = None if identifier is None or identifier.kind == "other" else identifier
    return Layout(ra, dec, usable, tuple(extra.values()), _moving(fields, wanted.preset))


def lacking(fields: Sequence[Field], preset: Preset | None) -> list[str]:
    """Return which columns of a known catalogue are not here."""
    known = () if preset is None else preset.columns
    return [column.name for column in known if _first(fields, column.names) is None]


def _identifier(fields: Sequence[Field], preset: Preset | None) -> Field | None:
    known = None if preset is None else _first(fields, preset.id)
    return known or _first(fields, ID_NAMES)


def _known(fields: Sequence[Field], preset: Preset | None) -> Iterator[Carried]:
    """Yield the columns that a known catalogue has here; a release or service may lack some."""
    for known in () if preset is None else preset.columns:
        field = _first(fields, known.names)
        if field is not None and field.kind != "other":
            yield Carried(field, known.name, known)


def _moving(fields: Sequence[Field], preset: Preset | None) -> Moving | None:
    if preset is None or preset.motion is None:
        return None
    motion = preset.motion
    ra, dec = _first(fields, motion.ra), _first(fields, motion.dec)
    epoch = _first(fields, [motion.epoch_column]) if motion.epoch_column else None
    if ra is None or dec is None or (epoch is None and preset.epoch is None):
        return None
    return Moving(ra, dec, preset.epoch, epoch)


def _positions(fields: Sequence[Field], wanted: Wanted) -> tuple[Field, Field]:
    if wanted.ra and wanted.dec:
        return _named(fields, wanted.ra, "--ra-column"), _named(fields, wanted.dec, "--dec-column")
    if wanted.ra or wanted.dec:
        given, lacking = ("--ra-column", "--dec-column") if wanted.ra else ("--dec-column", "--ra-column")
        raise ColumnError(f"{given} is given without {lacking}; give both")
    pairs = () if wanted.preset is None else tuple(zip(wanted.preset.ra, wanted.preset.dec, strict=True))
    for pair in (*pairs, *POSITION_NAMES):
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


def shorten(value: object) -> str:
    """Return a value as a message quotes it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def as_identifiers(values: pa.Array | None, row_numbers: Integers) -> Iterator[str]:
    """Yield identifiers as text: integers exactly, whole floats without their ``.0``, the row number where there is none."""
    found = [None] * len(row_numbers) if values is None else values.to_pylist()
    for value, row in zip(found, row_numbers.tolist(), strict=True):
        if isinstance(value, str):
            value = value.strip() or None
        if isinstance(value, float):
            value = None if math.isnan(value) else int(value) if value.is_integer() else value
        yield f"row {row}" if value is None and values is not None else str(row if value is None else value)
