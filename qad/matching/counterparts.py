"""What all catalogues say of each candidate together: the `counterparts` table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.config import Config
from qad.matching.photometry import read_photometry
from qad.matching.presets import Preset
from qad.matching.quantities import (
    RADIO_LOUD,
    colour,
    continuum_mjy,
    motion_significance,
    parallax_significance,
    radio_loudness,
    velocity_difference_kms,
)
from qad.matching.sky import Floats, Integers
from qad.matching.surveys import PRESETS
from qad.schema import COUNTERPARTS, MATCHES, SCORES
from qad.storage.parquet import make_table, read_frame, read_metadata, read_table, write_table
from qad.storage.provenance import InputFile, Provenance, hash_file

if TYPE_CHECKING:
    import polars as pl

KNOWN_ORDER = ("sdss_dr16q", "milliquas", "simbad")
WISE_ORDER = ("catwise2020", "allwise")
RADIO_ORDER = ("first", "vlass", "lotss_dr2")
XRAY_ORDER = ("csc2", "4xmm", "erass1")
"""Where several have a candidate, the first of them that does is quoted: the surest redshift, the deepest or sharpest survey."""
LOUDNESS_GHZ = 1.0
"""Radio loudness is measured above this: from LOFAR's 0.144 GHz to 5 GHz the assumed slope would be most of the answer."""
_KEY = ("rank", "targetid", "survey", "program", "healpix")


@dataclass(frozen=True)
class Searched:
    """A catalogue that candidates were matched with.

    Attributes
    ----------
    name : str
    preset : Preset or None
    covers : ndarray of bool, shape (n_candidates,)
        The candidates that were looked for.
    row : ndarray, shape (n_candidates,)
        Row of the nearest entry in `table`, -1 where there is none.
    table : DataFrame
    """

    name: str
    preset: Preset | None
    covers: np.ndarray
    row: Integers
    table: pl.DataFrame

    def numbers(self, column: str) -> Floats:
        """Return a column of the nearest entries, NaN where there is none."""
        import polars as pl

        if column not in self.table.columns or not self.table[column].dtype.is_numeric():
            return np.full(len(self.row), np.nan)
        values = np.append(self.table[column].cast(pl.Float64).fill_null(np.nan).to_numpy(), np.nan)
        return np.asarray(values[self.row])

    def texts(self, column: str) -> np.ndarray:
        """Return a column of the nearest entries as text, None where there is none."""
        if column not in self.table.columns:
            return np.full(len(self.row), None, object)
        import polars as pl

        values = np.array([*self.table[column].cast(pl.String).to_list(), None], object)
        return np.asarray(values[self.row])

    def role(self, name: str) -> Floats:
        """Return what plays a role in the preset (``z``, ``flux``), NaN where there is none."""
        column = self.preset.roles.get(name, "") if self.preset is not None else ""
        return self.numbers(f"cat_{column}")


def write_counterparts(config: Config, scores: Path) -> tuple[Path | None, dict[str, int]]:
    """Write the `counterparts` table of a model from all its `matches` tables, and return its path (None: there is nothing to write) and counts.

    Tables of other scores than those at hand are left out.

    Raises
    ------
    InputError
        If a table is damaged.
    """
    section, workspace = config.crossmatch, config.workspace
    frame = read_frame(scores, SCORES, [*_KEY, "z"]).sort("rank")
    scores_hash = hash_file(scores)
    files = sorted(workspace.matches.glob(f"{section.name}-*.parquet"))
    searched, inputs = [], [InputFile(f"scores/{scores.name}", scores_hash)]
    for path in files:
        found = _searched(path, section.name, scores_hash, frame)
        if found is not None:
            searched.append(found)
            inputs.append(InputFile(f"matches/{path.name}", hash_file(path)))
    if not searched:
        return None, {}
    output = workspace.counterparts_file(section.name)
    place = np.flatnonzero(np.any([found.covers for found in searched], axis=0))
    radio = _quoted(searched, RADIO_ORDER)
    needs = np.flatnonzero(radio.has)
    photometry, photometry_hash = read_photometry(workspace, frame[needs])
    inputs.append(InputFile("photometry", photometry_hash))
    columns = {
        **_count(searched),
        **_known(searched, frame["z"].to_numpy()),
        **_gaia(searched),
        **_wise(searched),
        **_radio(searched, radio, frame["z"].to_numpy(), needs, photometry),
        **_xray(searched),
    }
    table = {key: frame[key].to_list() for key in _KEY}
    table |= {name: _plain(values) for name, values in columns.items()}
    whole = make_table(COUNTERPARTS, table).take(place)
    write_table(output, whole, COUNTERPARTS, Provenance("crossmatch", {"name": section.name}, inputs))
    counts = {"with_counterpart": int(np.count_nonzero(columns["n_matched"][place]))}
    for name in ("known", "radio_detected", "xray_detected"):
        values = columns[name]
        if any(value is not None for value in values):
            counts[name] = sum(value is True for value in values)
    return output, counts


def _searched(path: Path, model: str, scores_hash: str, frame: pl.DataFrame) -> Searched | None:
    """Return what a `matches` table holds; None if it belongs to another model or to older scores."""
    import polars as pl

    metadata = read_metadata(path, MATCHES)
    settings, inputs = metadata.get("qad.config", {}), metadata.get("qad.inputs", [])
    if settings.get("name") != model or not inputs or inputs[0].get("sha256") != scores_hash:
        return None
    table = pl.DataFrame(pl.from_arrow(read_table(path, MATCHES))).filter(pl.col("best"))
    names = table["catalog"].cast(pl.String).to_list()
    rank = frame["rank"].to_numpy()
    top = settings.get("top", 0)
    row = np.full(len(rank), -1)
    row[np.searchsorted(rank, table["rank"].to_numpy())] = np.arange(len(table))
    name = names[0] if names else path.stem.removeprefix(f"{model}-")
    preset = PRESETS.get(settings.get("preset", ""))
    return Searched(name, preset, rank <= top if top else np.ones(len(rank), bool), row, table)


@dataclass(frozen=True)
class _Quoted:
    """For each candidate the first catalogue of an order that has it: its number in `searched`, -1 where none does."""

    number: Integers
    was_searched: np.ndarray

    @property
    def has(self) -> np.ndarray:
        return self.number >= 0

    def answer(self) -> np.ndarray:
        """Return whether any has it; None where none was searched."""
        return _flags(self.has, self.was_searched)


def _quoted(searched: Sequence[Searched], order: Sequence[str], role: str = "") -> _Quoted:
    """Return which catalogue is quoted; with a `role` one that has it comes before those that lack it."""
    n_rows = len(searched[0].row)
    number, was_searched = np.full(n_rows, -1), np.zeros(n_rows, bool)
    ranked = [
        (order.index(found.preset.name), place)
        for place, found in enumerate(searched)
        if found.preset is not None and found.preset.name in order
    ]
    for only_with_role in (True, False) if role else (False,):
        for _, place in sorted(ranked):
            found = searched[place]
            was_searched |= found.covers
            usable = (found.row >= 0) & (number < 0)
            if only_with_role:
                usable &= np.isfinite(found.role(role))
            number[usable] = place
    return _Quoted(number, was_searched)


def _numbers(searched: Sequence[Searched], quoted: _Quoted, column: str, by_role: bool = False) -> Floats:
    values = np.full(len(quoted.number), np.nan)
    for place in np.unique(quoted.number[quoted.has]):
        here = quoted.number == place
        found = searched[place]
        values[here] = (found.role(column) if by_role else found.numbers(column))[here]
    return values


def _texts(searched: Sequence[Searched], quoted: _Quoted, what: str) -> np.ndarray:
    """Return ``name``, ``band``, ``type`` (by role), or a column, of the quoted catalogue."""
    values = np.full(len(quoted.number), None, object)
    for place in np.unique(quoted.number[quoted.has]):
        here = quoted.number == place
        found = searched[place]
        preset = found.preset
        if what == "name":
            values[here] = found.name
        elif what == "band":
            values[here] = preset.band if preset is not None else None
        elif what == "type":
            values[here] = found.texts(f"cat_{preset.roles.get('type', '') if preset is not None else ''}")[here]
        else:
            values[here] = found.texts(what)[here]
    return values


def _count(searched: Sequence[Searched]) -> dict[str, Any]:
    has = np.array([found.row >= 0 for found in searched])
    names = np.array([found.name for found in searched], object)
    return {
        "n_searched": np.sum([found.covers for found in searched], axis=0).astype(np.int32),
        "n_matched": has.sum(axis=0).astype(np.int32),
        "matched": np.array([", ".join(names[row]) for row in has.T], object),
    }


def _known(searched: Sequence[Searched], z: Floats) -> dict[str, Any]:
    quoted = _quoted(searched, KNOWN_ORDER, "z")
    known_z = _numbers(searched, quoted, "z", by_role=True)
    return {
        "known": quoted.answer(),
        "known_catalog": _texts(searched, quoted, "name"),
        "known_id": _texts(searched, quoted, "catalog_id"),
        "known_type": _texts(searched, quoted, "type"),
        "known_z": known_z,
        "known_chance_p": _numbers(searched, quoted, "chance_p"),
        "delta_z": z - known_z,
        "delta_v_kms": velocity_difference_kms(z, known_z),
    }


def _gaia(searched: Sequence[Searched]) -> dict[str, Any]:
    quoted = _quoted(searched, ("gaia_dr3",))
    value = {name: _numbers(searched, quoted, f"cat_{name}") for name in _GAIA}
    return {
        "gaia_id": _texts(searched, quoted, "catalog_id"),
        "pm_sig": motion_significance(*(value[name] for name in _GAIA[:5])),
        "parallax_sig": parallax_significance(value["parallax"], value["parallax_error"]),
    }


_GAIA = ("pmra", "pmra_error", "pmdec", "pmdec_error", "pmra_pmdec_corr", "parallax", "parallax_error")


def _wise(searched: Sequence[Searched]) -> dict[str, Any]:
    quoted = _quoted(searched, WISE_ORDER, "w2_err")
    three = _quoted(searched, ("allwise",), "w3_err")
    w1_w2, w1_w2_err = colour(*(_numbers(searched, quoted, role, True) for role in ("w1", "w1_err", "w2", "w2_err")))
    w2_w3, w2_w3_err = colour(*(_numbers(searched, three, role, True) for role in ("w2", "w2_err", "w3", "w3_err")))
    return {
        "wise_catalog": _texts(searched, quoted, "name"),
        "w1_w2": w1_w2,
        "w1_w2_err": w1_w2_err,
        "w2_w3": w2_w3,
        "w2_w3_err": w2_w3_err,
    }


def _radio(
    searched: Sequence[Searched], quoted: _Quoted, z: Floats, needs: Integers, photometry: dict[str, Floats]
) -> dict[str, Any]:
    flux = _numbers(searched, quoted, "flux", by_role=True)
    frequency = np.full(len(z), np.nan)
    for place, found in enumerate(searched):
        if found.preset is not None:
            frequency[quoted.number == place] = found.preset.frequency_ghz
    loudness: dict[float, Floats] = {}
    for wave in (2500.0, 4400.0):
        loudness[wave] = np.full(len(z), np.nan)
        optical = continuum_mjy(photometry, z[needs], wave)
        ratio = radio_loudness(flux[needs], frequency[needs], optical, z[needs])
        loudness[wave][needs] = np.where(frequency[needs] >= LOUDNESS_GHZ, ratio, np.nan)
    loud = loudness[2500.0]
    return {
        "radio_detected": quoted.answer(),
        "radio_catalog": _texts(searched, quoted, "name"),
        "radio_id": _texts(searched, quoted, "catalog_id"),
        "radio_flux": flux,
        "radio_frequency": frequency,
        "radio_chance_p": _numbers(searched, quoted, "chance_p"),
        "radio_loudness": loud,
        "radio_loudness_4400": loudness[4400.0],
        "radio_loud": _flags(loud > RADIO_LOUD, np.isfinite(loud)),
    }


def _xray(searched: Sequence[Searched]) -> dict[str, Any]:
    quoted = _quoted(searched, XRAY_ORDER, "flux")
    return {
        "xray_detected": quoted.answer(),
        "xray_catalog": _texts(searched, quoted, "name"),
        "xray_id": _texts(searched, quoted, "catalog_id"),
        "xray_flux": _numbers(searched, quoted, "flux", by_role=True),
        "xray_band": _texts(searched, quoted, "band"),
        "xray_chance_p": _numbers(searched, quoted, "chance_p"),
    }


def _flags(yes: np.ndarray, is_told: np.ndarray) -> np.ndarray:
    """Return yes or no where it can be told, else None."""
    values = np.full(len(yes), None, object)
    values[is_told] = yes[is_told]
    return values


def _plain(values: np.ndarray) -> Any:
    """Return a column as Arrow takes it: NaN and None are null."""
    import pyarrow as pa

    if values.dtype.kind == "f":
        return pa.array(values, mask=~np.isfinite(values))
    return values.tolist() if values.dtype == object else values
