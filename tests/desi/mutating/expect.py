"""What must become of a damaged pair of files, and whether it did."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qad.storage.parquet import vectors
from qad.work.units import Pixel

SAME, REJECT, CHANGED, ANY = "same", "reject", "changed", "any"
Row = dict[str, Any]
Rows = dict[int, Row]


@dataclass(frozen=True)
class Pair:
    """A coadd and a redrock file of one pixel."""

    pixel: Pixel
    coadd: bytes
    redrock: bytes
    name: str = ""

    def file(self, which: str) -> bytes:
        """Return one of them."""
        return self.coadd if which == "coadd" else self.redrock

    def having(self, which: str, raw: bytes) -> Pair:
        """Return the pair with another file."""
        coadd, redrock = (raw, self.redrock) if which == "coadd" else (self.coadd, raw)
        return Pair(self.pixel, coadd, redrock, self.name)


@dataclass(frozen=True)
class Expect:
    """What is allowed.

    Attributes
    ----------
    kinds : tuple of str
        The outcomes that are right; ``any``: refused or read, whatever the numbers.
    words : tuple of str
        A refusal must name one of these (an HDU, a column), besides the file.
    gone : mapping of int to str
        The only TARGETIDs that may be absent from the table, and must, with the reason that counts them (empty: not judged).
    columns : collection of str
        The only columns that may differ from those of the pair as it was.
    rows : collection of int or None
        The only TARGETIDs of which these columns may differ; None: all.
    like : Pair or None
        The pair of which the table must be, row for row and byte for byte, instead of the pair as it was.
    """

    kinds: tuple[str, ...]
    words: tuple[str, ...] = ()
    gone: Mapping[int, str] = field(default_factory=dict)
    columns: Collection[str] = ()
    rows: Collection[int] | None = None
    like: Pair | None = None

    @property
    def label(self) -> str:
        """The class of the mutant in a report."""
        return " or ".join(self.kinds)


def refused(*words: str) -> Expect:
    """Return that the pair must be refused."""
    return Expect((REJECT,), words)


UNCHANGED = Expect((SAME,))


@dataclass(frozen=True)
class Mutant:
    """A damaged pair.

    Attributes
    ----------
    what : str
        What it did, for a person.
    which : str
        The damaged file: ``coadd`` or ``redrock``.
    pair : Pair
        As it is now.
    special : str
        What stands in the file's place instead of bytes: ``absent``, ``folder``, ``link``, ``pipe`` or ``sparse <bytes>``.
    """

    what: str
    which: str
    pair: Pair
    expect: Expect
    special: str = ""


def rows_of(table: Any) -> Rows:
    """Return the rows of a `spectra` table by TARGETID, vectors as bytes, floats as hexadecimal: NaN equals NaN."""
    columns: dict[str, list[Any]] = {}
    for column in table.schema:
        if hasattr(column.type, "list_size"):
            columns[column.name] = [row.tobytes() for row in vectors(table, column.name)]
        else:
            values = table.column(column.name).to_pylist()
            columns[column.name] = [value.hex() if isinstance(value, float) else value for value in values]
    names = list(columns)
    return {
        row[names.index("targetid")]: dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)
    }


def law_broken(table: Any, counts: Mapping[str, float]) -> str:
    """Return which law of every table is broken, empty if none is."""
    n_dropped = sum(n for name, n in counts.items() if name.startswith("dropped."))
    if counts["rows_in"] != counts["rows_out"] + n_dropped or counts["rows_out"] != table.num_rows:
        return f"the counts do not add up: {dict(counts)}, {table.num_rows} rows"
    flux, ivar = vectors(table, "flux"), vectors(table, "ivar")
    if not (np.isfinite(flux).all() and np.isfinite(ivar).all() and (ivar >= 0).all() and not flux[ivar == 0].any()):
        return "flux or ivar is not finite, ivar negative, or flux not 0 where ivar is"
    if not ((ivar > 0).sum(axis=1) == table.column("n_good").to_numpy()).all() or not (ivar > 0).any(axis=1).all():
        return "n_good is wrong"
    targetid = table.column("targetid").to_numpy()
    if (np.diff(targetid) <= 0).any():
        return "rows are not sorted by TARGETID, or stand twice"
    numbers = {name: table.column(name).to_numpy() for name in ("ra", "dec", "z", "snr")}
    if not all(np.isfinite(values).all() for values in numbers.values()):
        return "a position, redshift or S/N is not finite"
    ra, dec, z = (numbers[name] for name in ("ra", "dec", "z"))
    if (ra < 0).any() or (ra > 360).any() or (np.abs(dec) > 90).any() or (z <= -1).any() or (z > 7).any():
        return "a position or redshift is out of range"
    return ""


def difference(expect: Expect, before: Rows, after: Rows, counts: Mapping[str, float], old: Mapping[str, float]) -> str:
    """Return what differs that must not, empty if nothing does."""
    missing = set(before) - set(after)
    if set(after) - set(before):
        return f"rows appeared: {sorted(set(after) - set(before))}"
    if missing != set(expect.gone):
        return f"rows gone: {sorted(missing)}, expected {sorted(expect.gone)}"
    for reason in set(expect.gone.values()) - {""}:
        n_more = counts.get(f"dropped.{reason}", 0) - old.get(f"dropped.{reason}", 0)
        if n_more < list(expect.gone.values()).count(reason):
            return f"dropped.{reason} grew by {n_more:.0f} only: {dict(counts)}"
    for targetid, row in after.items():
        for name, value in row.items():
            is_free = name in expect.columns and (expect.rows is None or targetid in expect.rows)
            if value != before[targetid][name] and not is_free:
                shown = "" if isinstance(value, bytes) else f": {before[targetid][name]!r} is now {value!r}"
                return f"{targetid}: {name} differs{shown}"[:300]
    return ""
