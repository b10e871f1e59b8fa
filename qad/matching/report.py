"""Matching the candidates with one catalogue, and the `matches` table that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.matching.catalogs import Catalog
from qad.matching.columns import lacking
from qad.matching.density import Counter, SkyCounts, chance_probability
from qad.matching.epochs import PAD_ARCSEC, Mover
from qad.matching.once import Once
from qad.matching.pairs import Found
from qad.matching.positions import valid_positions
from qad.matching.sky import Floats, SkyIndex, normal_ra
from qad.schema import MATCHES
from qad.storage.parquet import make_table

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

HOURS_MIN_ROWS = 1000
_KEY = ("rank", "targetid", "survey", "program", "healpix")
_CHANCE = {
    "chance_p": ("", "probability that an unrelated entry lies as near or nearer"),
    "chance_density": ("deg-2", "unrelated entries per square degree around the candidate"),
}


@dataclass(frozen=True)
class Task:
    """How to match.

    Attributes
    ----------
    name : str
        The catalogue's name in the table.
    radius_arcsec : float
    epoch : float
        Of the candidates' positions, Julian year.
    keep_unmatched : bool
        Write a row for candidates without a match too.
    is_repetitive : bool
        The catalogue may hold a row several times: each counts once.
    """

    name: str
    radius_arcsec: float
    epoch: float
    keep_unmatched: bool = False
    is_repetitive: bool = False


@dataclass(frozen=True)
class Matches:
    """What became of a catalogue: its table, counts, and remarks for the user."""

    table: pa.Table
    counts: dict[str, int]
    notes: tuple[str, ...] = ()


def match_catalog(
    candidates: pl.DataFrame,
    catalog: Catalog,
    task: Task,
    advance: Callable[[float], None] | None = None,
    counter: Counter | None = None,
) -> Matches:
    """Match candidates with a catalogue.

    Parameters
    ----------
    candidates : DataFrame
        Columns rank, targetid, survey, program, healpix, ra, dec.
    catalog : Catalog
    task : Task
    advance : callable, optional
        Is told the number of rows of each block.
    counter : Counter, optional
        Measures the catalogue's density; without it all rows are counted where they lie.

    Raises
    ------
    InputError
        If the catalogue cannot be used.
    """
    sky = candidates["ra"].to_numpy(), candidates["dec"].to_numpy()
    index = SkyIndex(*sky, task.radius_arcsec)
    mover = Mover(catalog, sky, task.radius_arcsec, task.epoch)
    catalog = catalog.around(*sky, task.radius_arcsec + (PAD_ARCSEC if catalog.layout.moving else 0.0))
    counter = counter or catalog.source.counter or SkyCounts()
    found = Found(catalog)
    once = Once(catalog.layout.id) if task.is_repetitive else None
    counts = {"catalog_rows": 0, "dropped.no_position": 0, "dropped.out_of_range": 0}
    ra_max, dec_range = 0.0, [90.0, -90.0]
    for block in catalog.blocks():
        rows, n_absent, n_outside = valid_positions(block.ra, block.dec)
        counts["catalog_rows"] += block.block.n_rows
        counts["dropped.no_position"] += n_absent
        counts["dropped.out_of_range"] += n_outside
        if once is not None:
            rows = once.fresh(block, rows)
        if len(rows):
            ra, dec = normal_ra(block.ra[rows]), block.dec[rows]
            ra_max = max(ra_max, float(ra.max()))
            dec_range = [min(dec_range[0], float(dec.min())), max(dec_range[1], float(dec.max()))]
            counter.add(ra, dec)
            found.add(block, rows, index, (ra, dec), mover.at_epoch(block, rows, ra, dec))
        if advance is not None:
            advance(block.block.n_rows)
    density = _density(counter, found, sky, task.radius_arcsec)
    table = _table(candidates, found, task, density)
    matched = int(np.count_nonzero(np.asarray(table["best"])))
    counts = {"candidates": len(candidates), "matched": matched, "pairs": found.n_pairs, **counts}
    used = counts["catalog_rows"] - counts["dropped.no_position"] - counts["dropped.out_of_range"]
    notes = []
    if used >= HOURS_MIN_ROWS and ra_max <= 24 and dec_range[1] - dec_range[0] > 60:
        notes.append(
            f"{task.name}: no right ascension lies above 24: is column {catalog.layout.ra.name} in hours? It was read as degrees"
        )
    if used >= HOURS_MIN_ROWS and ra_max <= 2 * np.pi and max(np.abs(dec_range)) <= np.pi / 2:
        notes.append(
            f"{task.name}: all positions lie within 0 to 2 pi and -pi/2 to pi/2: are columns {catalog.layout.ra.name} and "
            f"{catalog.layout.dec.name} in radians? They were read as degrees"
        )
    missing = lacking(catalog.source.fields, catalog.preset)
    if missing and catalog.preset is not None:
        notes.append(f"{task.name}: has no {', '.join(missing)} of {catalog.preset.title}")
    return Matches(table, counts, tuple(notes))


def _density(counter: Counter, found: Found, sky: tuple[Floats, Floats], radius_arcsec: float) -> Floats:
    """Return the density around each candidate; NaN for one without a position."""
    density = np.full(len(sky[0]), np.nan)
    rows, _, _ = valid_positions(*sky)
    if len(rows):
        density[rows] = counter.density(found.places(), normal_ra(sky[0][rows]), sky[1][rows], radius_arcsec)
    return density


def _table(candidates: pl.DataFrame, found: Found, task: Task, density: Floats) -> pa.Table:
    """Return the `matches` table: by rank, then separation; ties by the catalogue's order."""
    candidate, row, separation = found.positions()
    pair = np.arange(len(candidate))
    n_within = np.bincount(candidate, minlength=len(candidates))
    if task.keep_unmatched:
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
    columns["catalog"] = [task.name] * len(order)
    columns["catalog_id"] = found.identifiers(pair)
    columns["sep_arcsec"] = _null_nan(separation)
    columns["n_within"] = n_within[candidate].astype(np.int32)
    columns["best"] = is_first & (pair >= 0)
    columns["chance_p"] = _null_nan(chance_probability(separation, density[candidate]))
    columns["chance_density"] = _null_nan(density[candidate])
    for carried in found.extra:
        columns[f"cat_{carried.name}"] = found.column(carried, pair)
    described = {f"cat_{carried.name}": (carried.unit, carried.description) for carried in found.extra}
    return _with_units(make_table(MATCHES, columns), {**_CHANCE, **described})


def _plain(values: pa.Array) -> pa.Array:
    import pyarrow as pa

    return values.cast(pa.string()) if not pa.types.is_integer(values.type) else values


def _null_nan(values: Floats) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, mask=np.isnan(values))


def _with_units(table: pa.Table, described: dict[str, tuple[str, str]]) -> pa.Table:
    """Give columns their units and descriptions."""
    import pyarrow as pa

    fields = [
        field.with_metadata({"unit": described[field.name][0], "description": described[field.name][1]})
        if field.name in described
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))
