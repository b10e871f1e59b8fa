"""Matching the candidates with one catalogue, and the `matches` table that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.errors import InputError
from qad.matching.catalogs import Catalog, Positions, open_catalog
from qad.matching.columns import Field, Wanted, as_identifiers
from qad.matching.positions import valid_positions
from qad.matching.sky import SkyIndex, normal_ra
from qad.matching.tables import UNTYPED
from qad.schema import MATCHES
from qad.storage.parquet import make_table

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

MAX_PAIRS = 20_000_000
"""More pairs than this are a radius gone wrong, and would fill the memory."""
HOURS_MIN_ROWS = 1000
_KEY = ("rank", "targetid", "survey", "program", "healpix")


@dataclass(frozen=True)
class Matches:
    """What became of a catalogue: its table, counts, and remarks for the user."""

    table: pa.Table
    counts: dict[str, int]
    notes: tuple[str, ...] = ()


def match_catalog(
    candidates: pl.DataFrame,
    path: Path,
    name: str,
    wanted: Wanted,
    radius_arcsec: float,
    keep_unmatched: bool = False,
    advance: Callable[[float], None] | None = None,
) -> Matches:
    """Match candidates with a catalogue.

    Parameters
    ----------
    candidates : DataFrame
        Columns rank, targetid, survey, program, healpix, ra, dec.
    path : Path
    name : str
        The catalogue's name in the table.
    wanted : Wanted
    radius_arcsec : float
    keep_unmatched : bool
        Write a row for candidates without a match too.
    advance : callable, optional
        Is told the number of rows of each block.

    Raises
    ------
    InputError
        If the catalogue cannot be used.
    """
    catalog = open_catalog(path, wanted)
    index = SkyIndex(candidates["ra"].to_numpy(), candidates["dec"].to_numpy(), radius_arcsec)
    found = _Found(catalog)
    counts = {"catalog_rows": 0, "dropped.no_position": 0, "dropped.out_of_range": 0}
    ra_max, dec_range = 0.0, [90.0, -90.0]
    for block in catalog.blocks():
        rows, n_absent, n_outside = valid_positions(block.ra, block.dec)
        counts["catalog_rows"] += block.block.n_rows
        counts["dropped.no_position"] += n_absent
        counts["dropped.out_of_range"] += n_outside
        if len(rows):
            ra, dec = normal_ra(block.ra[rows]), block.dec[rows]
            ra_max = max(ra_max, float(ra.max()))
            dec_range = [min(dec_range[0], float(dec.min())), max(dec_range[1], float(dec.max()))]
            found.add(block, rows, index, ra, dec)
        if advance is not None:
            advance(block.block.n_rows)
    table = _table(candidates, found, name, keep_unmatched)
    matched = int(np.count_nonzero(np.asarray(table["best"])))
    counts = {"candidates": len(candidates), "matched": matched, "pairs": found.n_pairs, **counts}
    used = counts["catalog_rows"] - counts["dropped.no_position"] - counts["dropped.out_of_range"]
    notes: tuple[str, ...] = ()
    if used >= HOURS_MIN_ROWS and ra_max <= 24 and dec_range[1] - dec_range[0] > 60:
        notes = (
            f"{name}: no right ascension lies above 24: is column {catalog.layout.ra.name} in hours? It was read as degrees",
        )
    return Matches(table, counts, notes)


class _Found:
    """The pairs of all blocks, with the identifiers and wanted columns of their catalogue rows."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.extra = catalog.layout.extra
        self.n_pairs = 0
        self._candidates: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._separations: list[np.ndarray] = []
        self._identifiers: list[str] = []
        self._extra: dict[str, list[pa.Array]] = {field.name: [] for field in self.extra}

    def add(self, block: Positions, rows: np.ndarray, index: SkyIndex, ra: np.ndarray, dec: np.ndarray) -> None:
        """Take the pairs of a block; `ra` and `dec` belong to its `rows`."""
        for pairs in index.pairs(ra, dec):
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
            identifier = self.catalog.layout.id
            values = None if identifier is None else block.block.values(identifier.name, taken)
            self._identifiers += as_identifiers(values, block.first_row + taken + 1)
            for name, parts in self._extra.items():
                parts.append(block.block.values(name, taken))

    def positions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return candidate, catalogue row from 0, and separation of each pair."""
        empty = np.empty(0, np.int64)
        return (
            np.concatenate([empty, *self._candidates]),
            np.concatenate([empty, *self._rows]),
            np.concatenate([np.empty(0), *self._separations]),
        )

    def identifiers(self, order: np.ndarray) -> pa.Array:
        """Return the identifiers, reordered; an index of -1 gives null."""
        return _taken([_text_array(self._identifiers)], order)

    def column(self, field: Field, order: np.ndarray) -> pa.Array:
        """Return a wanted column, reordered; an index of -1 gives null."""
        values = _taken(self._extra[field.name], order)
        return narrow(values) if field.type_name == UNTYPED else values


def _text_array(values: list[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())


def _taken(parts: list[pa.Array], order: np.ndarray) -> pa.Array:
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


def _table(candidates: pl.DataFrame, found: _Found, name: str, keep_unmatched: bool) -> pa.Table:
    """Return the `matches` table: by rank, then separation; ties by the catalogue's order."""
    candidate, row, separation = found.positions()
    pair = np.arange(len(candidate))
    n_within = np.bincount(candidate, minlength=len(candidates))
    if keep_unmatched:
        alone = np.flatnonzero(n_within == 0)
        candidate = np.concatenate([candidate, alone])
        row = np.concatenate([row, np.zeros(len(alone), np.int64)])
        separation = np.concatenate([separation, np.full(len(alone), np.nan)])
        pair = np.concatenate([pair, np.full(len(alone), -1)])
    rank = candidates["rank"].to_numpy()
    order = np.lexsort((row, separation, rank[candidate]))
    candidate, separation, pair = candidate[order], separation[order], pair[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = candidate[1:] != candidate[:-1]
    columns: dict[str, Any] = {key: candidates[key].to_arrow().take(candidate) for key in _KEY}
    columns = {key: _plain(values) for key, values in columns.items()}
    columns["catalog"] = [name] * len(order)
    columns["catalog_id"] = found.identifiers(pair)
    columns["sep_arcsec"] = _null_nan(separation)
    columns["n_within"] = n_within[candidate].astype(np.int32)
    columns["best"] = is_first & (pair >= 0)
    for field in found.extra:
        columns[f"cat_{field.name}"] = found.column(field, pair)
    return _with_units(make_table(MATCHES, columns), found.extra)


def _plain(values: pa.Array) -> pa.Array:
    import pyarrow as pa

    return values.cast(pa.string()) if not pa.types.is_integer(values.type) else values


def _null_nan(values: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, mask=np.isnan(values))


def _with_units(table: pa.Table, extra: tuple[Field, ...]) -> pa.Table:
    """Carry the catalogue's units and descriptions over to its columns."""
    import pyarrow as pa

    known = {f"cat_{field.name}": field for field in extra}
    fields = [
        field.with_metadata({"unit": known[field.name].unit, "description": known[field.name].description})
        if field.name in known
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))
