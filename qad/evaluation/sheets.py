"""Planted spectra as `spectra` tables: copies of observed rows in which flux, ivar, redshift and identity are new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.errors import InputError
from qad.evaluation.orders import Order
from qad.evaluation.planting import Observed, Planted, plant_anomaly, plant_artefact
from qad.extraction.clean import median_snr
from qad.schema import SPECTRA
from qad.storage.parquet import read_table, vector_array, vectors, write_table
from qad.storage.provenance import Provenance

if TYPE_CHECKING:
    import pyarrow as pa

SHEET_ROWS = 64
"""Spectra of a unit of work: 4 MB of flux and ivar, and some seconds."""


@dataclass(frozen=True)
class Sheet:
    """A unit of work: orders, where their bases lie, and the levels that they need.

    Attributes
    ----------
    output : Path
    orders : tuple of Order
    sources : mapping of int to (Path, int)
        `spectra` file and TARGETID of each base row.
    levels : mapping of int to ndarray
        Noise-free flux of each base and partner row, float32 (7781,).
    seed : int
    """

    output: Path
    orders: tuple[Order, ...]
    sources: Mapping[int, tuple[Path, int]]
    levels: Mapping[int, np.ndarray]
    seed: int

    def __str__(self) -> str:
        return self.output.stem

    def __len__(self) -> int:
        return len(self.orders)


def cut_sheets(
    orders: Sequence[Order],
    sources: Mapping[int, tuple[Path, int]],
    levels: Mapping[int, np.ndarray],
    folder: Path,
    seed: int,
) -> list[Sheet]:
    """Cut orders into units, those from one file together."""
    by_file = sorted(orders, key=lambda order: (str(sources[order.base][0]), order.base, order.number))
    sheets: list[Sheet] = []
    for first in range(0, len(by_file), SHEET_ROWS):
        part = tuple(by_file[first : first + SHEET_ROWS])
        needed = {order.base for order in part} | {order.partner for order in part if order.partner is not None}
        sheets.append(
            Sheet(
                folder / f"planted-{len(sheets):06d}.parquet",
                part,
                {order.base: sources[order.base] for order in part},
                {row: levels[row] for row in needed},
                seed,
            )
        )
    return sheets


def write_sheet(sheet: Sheet) -> int:
    """Plant what a sheet orders, write it, and return its rows; a plant's TARGETID is its number.

    Raises
    ------
    InputError
        If a `spectra` file is missing or lacks a base.
    """
    import pyarrow as pa

    rows, planted = [], []
    bases = _read_bases(sheet)
    for order in sheet.orders:
        base = bases[order.base]
        flux, ivar = vectors(base, "flux")[0], vectors(base, "ivar")[0]
        spectrum = Observed(flux, ivar, sheet.levels[order.base], float(base["z"][0].as_py()))
        rows.append(base)
        planted.append(plant(order, spectrum, sheet.levels, sheet.seed))
    table = _replaced(pa.concat_tables(rows), sheet.orders, planted)
    write_table(sheet.output, table, SPECTRA, Provenance("evaluate", {"seed": sheet.seed}))
    return len(sheet)


def plant(order: Order, spectrum: Observed, levels: Mapping[int, np.ndarray], seed: int) -> Planted:
    """Return what an order makes of a spectrum."""
    rng = np.random.default_rng([seed, order.number])
    if order.is_artefact:
        return plant_artefact(order.name, order.strength, spectrum, rng)
    partner = None if order.partner is None else levels[order.partner]
    return plant_anomaly(order.name, order.strength, spectrum, rng, partner)


def _read_bases(sheet: Sheet) -> dict[int, pa.Table]:
    """Return the row of each base."""
    by_file: dict[Path, list[int]] = {}
    for row, (path, _) in sheet.sources.items():
        by_file.setdefault(path, []).append(row)
    bases = {}
    for path, members in by_file.items():
        table = read_table(path, SPECTRA)
        place = {targetid: i for i, targetid in reversed(list(enumerate(table["targetid"].to_pylist())))}
        for row in members:
            targetid = sheet.sources[row][1]
            if targetid not in place:
                raise InputError(path, f"has no TARGETID {targetid}, which the grid has; run `qad build-grid` again")
            bases[row] = table.slice(place[targetid], 1)
    return bases


def _replaced(table: pa.Table, orders: Sequence[Order], planted: Sequence[Planted]) -> pa.Table:
    """Return copies of base rows with what is planted, sorted by number."""
    import pyarrow as pa

    flux, ivar = np.stack([item.flux for item in planted]), np.stack([item.ivar for item in planted])
    snr, n_good = median_snr(flux, ivar)
    new: dict[str, Any] = {
        "targetid": np.array([order.number for order in orders]),
        "z": np.array([item.z for item in planted]),
        "snr": np.nan_to_num(snr),
        "n_good": n_good,
        "flux": flux,
        "ivar": ivar,
    }
    for name, values in new.items():
        index = table.schema.get_field_index(name)
        field = table.schema.field(index)
        column = vector_array(values) if values.ndim == 2 else pa.array(values, field.type)
        table = table.set_column(index, field, column)
    return table.take(np.argsort([order.number for order in orders]))
