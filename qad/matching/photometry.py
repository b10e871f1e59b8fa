"""The imaging photometry of candidates, from the `spectra` tables."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from qad.matching.quantities import BANDS
from qad.matching.sky import Floats
from qad.schema import SPECTRA, SPECTRUM_KEY
from qad.storage.parquet import read_frame
from qad.workspace import Workspace

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("ebv", *(f"{what}_{band}" for band in BANDS for what in ("flux", "flux_ivar")))


def read_photometry(workspace: Workspace, candidates: pl.DataFrame) -> tuple[dict[str, Floats], str]:
    """Return the photometry of candidates by column, NaN where there is none, and the SHA-256 of its values.

    Parameters
    ----------
    workspace : Workspace
    candidates : DataFrame
        Columns targetid, survey, program, healpix.

    Raises
    ------
    InputError
        If a `spectra` table is damaged.
    """
    import polars as pl

    frame = candidates.select(SPECTRUM_KEY)
    places = frame.select("survey", "program", "healpix").unique().sort("survey", "program", "healpix").rows()
    files = [path for path in (workspace.spectra_file(*place) for place in places) if path.is_file()]
    rows = read_frame(files, SPECTRA, [*SPECTRUM_KEY, *COLUMNS]).unique(list(SPECTRUM_KEY), maintain_order=True)
    joined = frame.join(rows, on=list(SPECTRUM_KEY), how="left", maintain_order="left")
    values = {name: joined[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in COLUMNS}
    digest = hashlib.sha256(np.stack([values[name] for name in COLUMNS]).astype("<f8").tobytes()).hexdigest()
    return values, digest
