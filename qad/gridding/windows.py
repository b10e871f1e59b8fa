"""From rows of the `spectra` table to rows of the `grid` table: deredden, resample, normalise, and count what is dropped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qad.desi.dust import extinction_per_ebv
from qad.gridding.normalize import norm_of, normalise
from qad.gridding.resample import resample
from qad.gridding.shards import split_of
from qad.gridding.wavelength import Grid, grid_of
from qad.schema import N_WAVE, WAVE_START, WAVE_STEP
from qad.settings import BuildGrid

BATCH_ROWS = 16
"""Spectra resampled together: their float64 arrays (1 MB each) stay in the processor's cache."""
MAX_EBV = 10.0
"""Largest E(B-V) that is believed, mag: behind it a quasar would be 30 mag fainter, and undoing it would overflow soon."""
SCALARS = ("targetid", "survey", "program", "healpix", "ra", "dec", "z", "zwarn", "snr", "ebv")
"""Columns of `spectra` that `grid` keeps."""


@dataclass(frozen=True)
class Rows:
    """Rows of the `spectra` table: scalar columns by name, and the vectors, shape (n_rows, N_WAVE)."""

    scalars: dict[str, NDArray[Any]]
    flux: NDArray[np.float32]
    ivar: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.flux)

    def part(self, which: Any) -> Rows:
        """Return some of the rows."""
        return Rows({name: values[which] for name, values in self.scalars.items()}, self.flux[which], self.ivar[which])


@dataclass(frozen=True)
class Windows:
    """Rows of the `grid` table, by column, and the counts of what became of the input rows."""

    columns: dict[str, NDArray[Any]]
    counts: Counter[str]


class WindowMaker:
    """Makes grid rows by the settings; holds what is the same for every spectrum."""

    def __init__(self, settings: BuildGrid) -> None:
        self.settings = settings
        self.grid: Grid = grid_of(settings)
        wave = WAVE_START + WAVE_STEP * np.arange(N_WAVE)
        self._magnitudes = extinction_per_ebv(wave, settings.r_v)

    def make(self, rows: Rows) -> Windows:
        """Return the grid rows of spectra, in their order.

        The counts: ``in``, ``out``, ``dropped.bad_z`` (no redshift), ``dropped.z_outside_grid`` (no observed wavelength on
        the grid), ``dropped.too_few_pixels``, ``dropped.no_signal`` (all flux exactly 0), ``dropped.norm_not_finite``;
        ``no_ebv`` (not dereddened) and ``pixels_out_of_range`` of the rows that came out.
        """
        counts: Counter[str] = Counter({"in": len(rows)})
        kept = self._with_redshift(rows, counts)
        parts = [self._make_batch(kept.part(slice(i, i + BATCH_ROWS)), counts) for i in range(0, len(kept), BATCH_ROWS)]
        if not parts:
            parts = [self._make_batch(kept, counts)]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        counts["out"] += len(columns["targetid"])
        return Windows(columns, counts)

    def _with_redshift(self, rows: Rows, counts: Counter[str]) -> Rows:
        z = rows.scalars["z"]
        real = np.isfinite(z) & (z > -1)
        held = self.grid.holds(z)
        _count(counts, "dropped.bad_z", ~real)
        _count(counts, "dropped.z_outside_grid", real & ~held)
        return rows if held.all() else rows.part(held)

    def _make_batch(self, rows: Rows, counts: Counter[str]) -> dict[str, NDArray[Any]]:
        settings, grid, z = self.settings, self.grid, rows.scalars["z"]
        start = grid.start(z)
        ebv, brighter = self._dust(rows)
        flux_grid, ivar_grid = resample(rows.flux, rows.ivar, grid.edges(start, z), brighter)
        norm = norm_of(flux_grid, ivar_grid, grid.wave_rest(start, z))
        enough = (ivar_grid > 0).sum(axis=1) >= settings.min_good
        usable = (norm > 0) & (norm < np.inf)
        flux_out, ivar_out, n_wild = normalise(flux_grid, ivar_grid, np.where(usable, norm, np.float32(1)))
        n_good = (ivar_out > 0).sum(axis=1)

        keep = usable & enough & (n_good >= settings.min_good)
        dead = enough & (norm == 0)
        not_finite = enough & ~usable & ~dead
        _count(counts, "dropped.too_few_pixels", ~keep & ~dead & ~not_finite)
        _count(counts, "dropped.no_signal", dead)
        _count(counts, "dropped.norm_not_finite", not_finite)
        counts["pixels_out_of_range"] += int(n_wild[keep].sum())
        if settings.deredden:
            _count(counts, "no_ebv", keep & ~_is_known(rows.scalars["ebv"]))
        targetid = rows.scalars["targetid"]
        columns = {
            **rows.scalars,
            "ebv": ebv.astype(np.float32),
            "split": split_of(targetid, settings.validation_share, settings.test_share),
            "norm": norm,
            "start": start,
            "coverage": (n_good / grid.n_obs).astype(np.float32),
            "flux": flux_out,
            "ivar": ivar_out,
        }
        return columns if keep.all() else {name: values[keep] for name, values in columns.items()}

    def _dust(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return E(B-V), and what undoes the dust of the Milky Way; 0 and None without dereddening."""
        if not self.settings.deredden:
            return np.zeros(len(rows)), None
        ebv = np.where(_is_known(rows.scalars["ebv"]), rows.scalars["ebv"].astype(np.float64), 0.0)
        # flux / T with T = 10^(-0.4 A)
        with np.errstate(over="ignore"):
            return ebv, np.exp((0.4 * np.log(10.0)) * ebv[:, None] * self._magnitudes)


def _is_known(ebv: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether E(B-V) is a number that dust can have; undoing more would overflow."""
    return np.abs(ebv) <= MAX_EBV


def _count(counts: Counter[str], name: str, which: NDArray[np.bool_]) -> None:
    number = int(which.sum())
    if number:
        counts[name] += number
