"""Spectra of candidates with what the model makes of them, in physical units, for plots.

The window comes from the `grid` table, the latents from `scores`, the reconstruction from the model's decoder (numpy only).
Where one of them is missing there is still a plot: a note says in one line what lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.errors import InputError
from qad.inspection.tables import Tables
from qad.schema import GRID, N_WAVE, SPECTRA, SPECTRUM_KEY, WAVE_START, WAVE_STEP, Table
from qad.storage.flatcache import find_shards, read_grid_json
from qad.storage.parquet import checked_metadata, vectors
from qad.storage.provenance import hash_file

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

Key = tuple[int, str, str, int]
"""TARGETID, survey, program, healpix."""


@dataclass(frozen=True)
class Spectrum:
    """One spectrum; arrays of shape (n_wave,).

    Attributes
    ----------
    key : tuple
        TARGETID, survey, program, healpix.
    z : float
    wave : ndarray
        Observed wavelength, vacuum, Å.
    flux, ivar : ndarray
        1e-17 erg s^-1 cm^-2 Å^-1 and its inverse variance; ``ivar == 0``: do not use.
    recon : ndarray or None
        The model's reconstruction, in the same unit.
    model_var : ndarray or None
        Variance of normal quasars around the reconstruction beside the noise.
    dereddened : bool
    note : str
        What is missing, in one line.
    """

    key: Key
    z: float
    wave: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray
    recon: np.ndarray | None = None
    model_var: np.ndarray | None = None
    dereddened: bool = False
    note: str = ""

    @property
    def wave_rest(self) -> np.ndarray:
        """Rest wavelength, Å."""
        return self.wave / (1 + self.z)

    def residual(self) -> tuple[np.ndarray, np.ndarray]:
        """Return flux less reconstruction, and its inverse variance: noise and the scatter of normal quasars together."""
        if self.recon is None or self.model_var is None:
            return np.zeros_like(self.flux), np.zeros_like(self.ivar)
        return self.flux - self.recon, self.ivar / (1 + self.ivar * self.model_var)


def smooth(flux: np.ndarray, ivar: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the running mean over `width` pixels weighted by inverse variance, and its inverse variance.

    Where no pixel of the running window counts, both are 0.
    """
    ones = np.ones(min(width, len(flux)))
    weight = np.convolve(ivar, ones, "same")
    total = np.convolve(ivar * flux, ones, "same")
    # a sum over masked pixels leaves rounding errors of its neighbours: they must not count as data
    weight[np.convolve((ivar > 0).astype(float), ones, "same") < 0.5] = 0
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0), weight


class SpectrumReader:
    """Reads the spectra of candidates; grid description and model are loaded once.

    Attributes
    ----------
    note : str
        Why there are no reconstructions, empty if there are.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._workspace = tables.workspace
        self._grid: dict[str, Any] = {}
        self._shards: list[Path] = []
        self._decoder: Any = None
        self.note = ""
        try:
            self._grid = read_grid_json(self._workspace.grid_json)
            self._shards = find_shards(self._workspace)
        except InputError as error:
            self.note = f"no reconstruction: {error}"
            return
        self._load_decoder()

    def read(self, frame: pl.DataFrame) -> list[Spectrum]:
        """Return the spectra of a frame that has the key columns and ``z``, in its order.

        A spectrum that no table holds is absent from the list.
        """
        redshifts = {row[:4]: row[4] for row in frame.select(*SPECTRUM_KEY, "z").iter_rows()}
        found = self._from_grid(frame, redshifts)
        for key, z in redshifts.items():
            if key not in found:
                raw = self._from_spectra(key, z)
                if raw is not None:
                    found[key] = raw
        return [found[key] for key in redshifts if key in found]

    def _load_decoder(self) -> None:
        try:
            self._decoder = self._matching_decoder()
        except InputError as error:
            self.note = f"no reconstruction: {error}"

    def _matching_decoder(self) -> Any:
        """Return the decoder of the model that made the scores, on the grid that is there."""
        from qad.models.directory import MODEL_JSON, load_decoder

        digits = self._tables.model[1]
        folders = [folder for folder in self._tables.model_folders if (folder / MODEL_JSON).is_file()]
        made_it = [folder for folder in folders if hash_file(folder / MODEL_JSON).startswith(digits)]
        if folders and not made_it:
            again = f"`qad score --name {self._tables.name}`"
            raise InputError(folders[0], f"was trained again after the scores were made; {again}")
        if not folders:
            missing = self._tables.model_folders[0]
            raise InputError(missing, "the model that made the scores is not here; name its folder with --model")
        folder = made_it[0]
        decoder = load_decoder(folder)
        if decoder.grid_hash != self._grid["geometry_hash"]:
            here = f"{self._workspace.grid_json} is grid {self._grid['geometry_hash'][:12]}"
            raise InputError(folder, f"was made for grid {decoder.grid_hash[:12]}, {here}")
        return decoder

    def _from_grid(self, frame: pl.DataFrame, redshifts: Mapping[Key, float]) -> dict[Key, Spectrum]:
        windows: dict[Key, tuple[Spectrum, int, float]] = {}
        for shard in self._shards:
            table = read_rows(shard, GRID, {key[0] for key in redshifts})
            windows |= self._windows(table, redshifts)
            if len(windows) == len(redshifts):
                break
        if self._decoder is None:
            return {key: replace(spectrum, note=self.note) for key, (spectrum, _, _) in windows.items()}
        return self._decoded(frame, windows)

    def _windows(self, table: pa.Table, redshifts: Mapping[Key, float]) -> dict[Key, tuple[Spectrum, int, float]]:
        flux, ivar = vectors(table, "flux"), vectors(table, "ivar")
        keys = zip(*(table.column(name).to_pylist() for name in SPECTRUM_KEY), strict=True)
        start, norm = table.column("start").to_pylist(), table.column("norm").to_pylist()
        found = {}
        for i, key in enumerate(keys):
            if key in redshifts:
                z = redshifts[key]
                spectrum = Spectrum(
                    key,
                    z,
                    self._wave(start[i], z),
                    flux[i].astype(float) * norm[i],
                    ivar[i].astype(float) / norm[i] ** 2,
                    dereddened=bool(self._grid.get("deredden", False)),
                )
                found[key] = (spectrum, start[i], norm[i])
        return found

    def _wave(self, start: int, z: float) -> np.ndarray:
        loglam = self._grid["loglam0"] + (start + np.arange(self._grid["n_obs"])) * self._grid["dloglam"]
        shift = 1.0 if self._grid.get("frame") == "observed" else 1 + z
        return np.asarray(10.0**loglam * shift)

    def _decoded(self, frame: pl.DataFrame, windows: Mapping[Key, tuple[Spectrum, int, float]]) -> dict[Key, Spectrum]:
        latents = self._latents(frame)
        keys = [key for key in windows if key in latents]
        found = {
            key: replace(spectrum, note="no reconstruction: no latents") for key, (spectrum, _, _) in windows.items()
        }
        if not keys:
            return found
        latent = np.stack([latents[key] for key in keys])
        start = np.array([windows[key][1] for key in keys], np.int32)
        recon, variance = self._decoder.decode(latent, start)
        for i, key in enumerate(keys):
            spectrum, _, norm = windows[key]
            scaled = recon[i].astype(float) * norm, variance[i].astype(float) * norm**2
            found[key] = replace(spectrum, recon=scaled[0], model_var=scaled[1], note="")
        return found

    def _latents(self, frame: pl.DataFrame) -> dict[Key, np.ndarray]:
        ranks, latents = self._tables.latents(frame["rank"].to_list())
        by_rank = dict(zip(ranks, latents, strict=True))
        keys = frame.select("rank", *SPECTRUM_KEY).iter_rows()
        return {row[1:]: by_rank[row[0]] for row in keys if row[0] in by_rank}

    def _from_spectra(self, key: Key, z: float) -> Spectrum | None:
        path = self._workspace.spectra_file(*key[1:])
        if not path.is_file():
            return None
        table = read_rows(path, SPECTRA, {key[0]}, ["targetid", "flux", "ivar"])
        if not table.num_rows:
            return None
        wave = WAVE_START + WAVE_STEP * np.arange(N_WAVE)
        flux, ivar = vectors(table, "flux")[0].astype(float), vectors(table, "ivar")[0].astype(float)
        return Spectrum(key, z, wave, flux, ivar, note=self.note or "no reconstruction: not in the grid")


def read_rows(path: Path, spec: Table, targetids: Iterable[int], columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of some targets; only the row groups that can hold them are read.

    Raises
    ------
    InputError
        If the file is missing, damaged, another table, or of a newer version.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = np.array(sorted(targetids), np.int64)
    among = pa.array(wanted)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            checked_metadata(path, file.schema_arrow, spec)
            missing = {column.name for column in spec.columns} - set(file.schema_arrow.names)
            if missing:
                raise InputError(path, f"column {min(missing)} is missing", where=spec.tag)
            likely = [i for i in range(file.metadata.num_row_groups) if _may_hold(file.metadata.row_group(i), wanted)]
            # a group's range may span a target that it does not hold: its numbers cost little, its spectra much
            groups = [i for i in likely if _holds(file, i, among)]
            table = file.read_row_groups(groups, columns)
        return table.filter(pc.is_in(table.column("targetid"), value_set=among))
    except FileNotFoundError:
        raise InputError(path, "no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(path, f"damaged: {str(error).splitlines()[0]}", where=spec.tag) from None


def _holds(file: Any, group: int, targetids: pa.Array) -> bool:
    import pyarrow.compute as pc

    column = file.read_row_groups([group], ["targetid"]).column("targetid")
    return bool(pc.any(pc.is_in(column, value_set=targetids)).as_py())


def _may_hold(group: Any, wanted: np.ndarray) -> bool:
    for i in range(group.num_columns):
        column = group.column(i)
        if column.path_in_schema == "targetid":
            statistics = column.statistics
            if statistics is None or not statistics.has_min_max:
                return True
            first = np.searchsorted(wanted, statistics.min)
            return bool(first < len(wanted) and wanted[first] <= statistics.max)
    return True
