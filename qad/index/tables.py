"""The tables of the database, the files that fill them, and the columns that a query sees in them, whichever engine asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qad.index.binary import SQL_TYPES
from qad.schema import MATCHES, SCORES, SPECTRA, SPECTRUM_KEY, Table
from qad.workspace import Workspace


@dataclass(frozen=True)
class Target:
    """A table of the database, and the files that fill it.

    Attributes
    ----------
    name : str
        The table.
    folder : str
        Where the files lie, below the root; also the name of the kind.
    spec : Table or None
        The table of the files; None: they are the labels.
    key : tuple of str
        Primary key.
    extra : str
        The jsonb column that holds the columns that `spec` leaves open; empty: none.
    has_zone : bool
        Whether positions are indexed (:mod:`qad.index.sky`).
    """

    name: str
    folder: str
    spec: Table | None
    key: tuple[str, ...]
    extra: str = ""
    has_zone: bool = False


SPECTRUM = Target("spectrum", "spectra", SPECTRA, SPECTRUM_KEY, has_zone=True)
SCORE = Target("score", "scores", SCORES, (*SPECTRUM_KEY, "name"), "views", has_zone=True)
MATCH = Target("match", "matches", MATCHES, (*SPECTRUM_KEY, "name", "catalog", "ordinal"), "columns")
LABEL = Target("label", "inspect", None, ("targetid",))
TARGETS = (SPECTRUM, SCORE, MATCH, LABEL)

PIXEL_COLUMNS = {
    "survey": "text",
    "program": "text",
    "healpix": "integer",
    "n_spectra": "bigint",
    "z_min": "double precision",
    "z_max": "double precision",
    "snr_median": "double precision",
}
"""Filled with `spectrum`: a file of spectra is a pixel."""
LABEL_COLUMNS = {
    "targetid": "bigint",
    "label": "text",
    "label_comment": "text",
    "label_who": "text",
    "label_when": "text",
    "label_model": "text",
}
TABLE_KEYS = {"pixel": ("survey", "program", "healpix"), **{target.name: target.key for target in TARGETS}}
"""The tables that a query can name, and what identifies their rows."""


def table_columns(table: str) -> dict[str, str]:
    """Return the columns that a query sees, key first, and their types in PostgreSQL; open columns follow them."""
    if table == "pixel":
        return dict(PIXEL_COLUMNS)
    if table == "label":
        return dict(LABEL_COLUMNS)
    target = next(target for target in TARGETS if target.name == table)
    assert target.spec is not None
    kinds = {column.name: SQL_TYPES[column.dtype] for column in target.spec.columns if not column.is_vector}
    if table != "spectrum":
        kinds["name"] = "text"
    if table == "match":
        kinds["ordinal"] = "integer"
    return {name: kinds[name] for name in [*target.key, *(name for name in kinds if name not in target.key)]}


def target_files(workspace: Workspace) -> dict[str, tuple[Path, Target]]:
    """Return the files that fill the tables, by their names relative to the root."""
    found: dict[str, tuple[Path, Target]] = {}
    for target in TARGETS:
        for path in files_of(workspace, target.name):
            found[f"{target.folder}/{path.name}"] = (path, target)
    return found


def files_of(workspace: Workspace, table: str) -> list[Path]:
    """Return the files that fill one table; `pixel` is filled by those of `spectrum`."""
    if table == "label":
        return [workspace.labels] if workspace.labels.is_file() else []
    folders = {"spectrum": workspace.spectra, "pixel": workspace.spectra, "score": workspace.scores}
    folder = folders.get(table, workspace.matches)
    return [path for path in sorted(folder.glob("*.parquet")) if not path.name.startswith(".")]
