"""What a grid says of itself: its geometry, the provenance in every shard, and ``grid.json``."""

from __future__ import annotations

from collections import Counter
from typing import Any

from qad.errors import InputError
from qad.gridding.inputs import Inputs
from qad.gridding.normalize import rule
from qad.gridding.wavelength import grid_of
from qad.schema import GRID, SPECTRA
from qad.settings import BuildGrid
from qad.storage.parquet import read_metadata
from qad.storage.provenance import InputFile, Provenance, hash_document

FORMAT = 1
"""Version of ``grid.json``."""


def geometry(settings: BuildGrid) -> dict[str, Any]:
    """Return what a model must agree with: the part of ``grid.json`` that ``geometry_hash`` is the hash of."""
    grid = grid_of(settings)
    return {
        "frame": grid.frame,
        "loglam0": grid.loglam0,
        "dloglam": grid.dloglam,
        "n_rest": grid.n_rest,
        "n_obs": grid.n_obs,
        "normalisation": rule(),
        "deredden": settings.deredden,
    }


def geometry_hash(settings: BuildGrid) -> str:
    """Return the hash of the geometry: the same for all data on the same grid."""
    return hash_document(geometry(settings))


def provenance_of(settings: BuildGrid, inputs: Inputs) -> Provenance:
    """Return what every shard says of its making; release and production are those of the first file."""
    try:
        first = read_metadata(inputs.files[0], SPECTRA)
    except InputError:  # not known to be unusable yet
        first = {}
    grid = grid_of(settings)
    wave = {
        "start": grid.loglam0,
        "step": grid.dloglam,
        "n": grid.n_obs,
        "n_rest": grid.n_rest,
        "unit": "log10(Angstrom)",
        "frame": grid.frame,
        "geometry_hash": geometry_hash(settings),
    }
    return Provenance(
        "build-grid",
        settings.model_dump(mode="json"),
        [InputFile("spectra", inputs.hash)],
        str(first.get("qad.release", "")),
        str(first.get("qad.specprod", "")),
        wave,
    )


def counts_of(total: Counter[str], n_rows: int) -> dict[str, Any]:
    """Return the counts for ``grid.json`` from those of all windows and the rows that the shards hold."""
    dropped = {name.partition(".")[2]: n for name, n in sorted(total.items()) if name.startswith("dropped.")}
    if total["out"] > n_rows:
        dropped["duplicate"] = total["out"] - n_rows
    noted = {name: total[name] for name in ("no_ebv", "pixels_out_of_range")}
    return {"in": total["in"], "out": n_rows, "dropped": dropped, **noted}


def grid_document(settings: BuildGrid, inputs: Inputs, counts: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``grid.json``."""
    return {
        "format": FORMAT,
        **geometry(settings),
        "r_v": settings.r_v,
        "geometry_hash": geometry_hash(settings),
        "counts": counts,
        "n_spectra": counts["out"],
        "shards": settings.shards,
        "inputs_hash": inputs.hash,
        **provenance_of(settings, inputs).as_dict(GRID.tag),
    }
