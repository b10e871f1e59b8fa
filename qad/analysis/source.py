"""Spectra of candidates out of the `spectra` tables, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.analysis.spectra import Spectra, dereddened
from qad.errors import InputError
from qad.schema import SPECTRA, SPECTRUM_KEY
from qad.storage.parquet import read_table, vectors
from qad.workspace import Workspace

if TYPE_CHECKING:
    import polars as pl

BLOCK = 256
"""Spectra that are measured together: 32 MB of flux and inverse variance."""
REDROCK = ("chi2", "deltachi2", "npixels", "ncoeff", "subtype", "spectype")
_COLUMNS = [*SPECTRUM_KEY, "z", "ebv", *REDROCK, "coeff", "flux", "ivar"]


@dataclass(frozen=True)
class Block:
    """Candidates with their spectra.

    Attributes
    ----------
    rows : list of dict
        The candidates' rows, each with what redrock said of it.
    spectra : Spectra
        At the redshift of the scores.
    raw_flux, raw_ivar : ndarray of float32, shape (n, 7781)
        As they are in the table, not dereddened.
    coeff : ndarray, shape (n, 10)
        Of redrock's fit; nan: not known.
    """

    rows: list[dict[str, Any]]
    spectra: Spectra
    raw_flux: np.ndarray
    raw_ivar: np.ndarray
    coeff: np.ndarray


def read_blocks(workspace: Workspace, candidates: pl.DataFrame, rows: int = BLOCK) -> Iterator[Block]:
    """Yield the candidates (key columns and ``z`` at least) in blocks, those of one healpix together.

    A candidate without a spectrum is left out.

    Raises
    ------
    InputError
        If a table is damaged, or not one of the candidates has a spectrum.
    """
    found: list[tuple[dict[str, Any], Any, Any, Any]] = []
    n_found = 0
    places = candidates.partition_by("survey", "program", "healpix", as_dict=True, maintain_order=True)
    for place in sorted(places):
        path = workspace.spectra_file(*place)
        if not path.is_file():
            continue
        found += _read(path, {row["targetid"]: row for row in places[place].iter_rows(named=True)})
        while len(found) >= rows:
            n_found += rows
            yield _block(found[:rows])
            found = found[rows:]
    n_found += len(found)
    if found:
        yield _block(found)
    if candidates.height and not n_found:
        raise InputError(workspace.spectra, "holds no spectrum of the candidates; `qad extract` makes them")


def _read(path: Any, wanted: dict[int, dict[str, Any]]) -> list[tuple[dict[str, Any], Any, Any, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read_table(path, SPECTRA, _COLUMNS)
    table = table.filter(pc.is_in(table.column("targetid"), value_set=pa.array(list(wanted), pa.int64())))
    if not table.num_rows:
        return []
    flux, ivar, coeff = (vectors(table, name) for name in ("flux", "ivar", "coeff"))
    known = table.select(["targetid", "ebv", *REDROCK]).to_pylist()
    return [({**row, **wanted[row["targetid"]]}, flux[i], ivar[i], coeff[i]) for i, row in enumerate(known)]


def _block(found: list[tuple[dict[str, Any], Any, Any, Any]]) -> Block:
    rows = [row for row, _, _, _ in found]
    flux, ivar, coeff = (np.stack(values) for values in list(zip(*found, strict=True))[1:])
    z = np.array([row["z"] for row in rows], np.float64)
    ebv = np.array([np.nan if row["ebv"] is None else row["ebv"] for row in rows], np.float64)
    return Block(rows, dereddened(z, flux.astype(float), ivar.astype(float), ebv), flux, ivar, coeff)
