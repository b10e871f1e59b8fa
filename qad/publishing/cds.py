"""The tables as the CDS and the journals of the AAS take them: aligned text, and a ReadMe with the byte-by-byte description."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qad.publishing.tables import ascii_text, plain

if TYPE_CHECKING:
    from astropy.table import Table

DIGITS = 6
"""Significant digits of a value that has no column rule of its own."""
_DECIMALS = {"ra": 7, "dec": 7, "z": 6, "z_alt": 5}
_PLACEHOLDERS = (
    ("\nObjects:\n    -----------------------------------------\n       RA   (2000)   DE    Designation(s)\n    -----------------------------------------\n", ""),
    ("\nSee also:\nNone\n", "\nSee also:\n  README.md in the same deposit: selection, provenance, citations\n"),
    ("     (prepared by author  / pyreadme )", "(End)                                              (prepared with cdspyreadme)"),
)  # fmt: skip


def write_cds(folder: Path, tables: Mapping[str, Table], words: Mapping[str, str]) -> None:
    """Write ``ReadMe`` and one ``<name>.dat`` for each table into a folder that exists.

    `words`: ``title``, ``authors`` (separated by commas), ``date``, ``abstract``, ``description``, ``acknowledgements``.
    """
    from cdspyreadme import CDSTablesMaker

    maker = CDSTablesMaker(outfolder=str(folder), license="CC-BY-4.0")
    maker.title, maker.authors = plain(words["title"]), plain(words["authors"])
    maker.author, maker.date = maker.authors.partition(",")[0], words["date"]
    maker.bibcode, maker.keywords = "unpublished", "Surveys - QSOs - Redshifts - Spectroscopy"
    maker.abstract, maker.more_description = plain(words["abstract"]), plain(words["description"])
    for name, table in tables.items():
        maker.addTable(rounded(table), name=f"{name}.dat", description=table.meta["description"])
    maker.writeCDSTables()
    sink = io.StringIO()
    maker.makeReadMe(out=sink)
    text = sink.getvalue()
    for placeholder, instead in _PLACEHOLDERS:
        text = text.replace(placeholder, instead)
    thanks = "\n".join(_wrapped(plain(words["acknowledgements"])))
    text = text.replace("\nAcknowledgements:\n", f"\nAcknowledgements:\n{thanks}\n").replace("\nReferences:\n\n", "\n")
    (folder / "ReadMe").write_text(ascii_text(text), "ascii")


def rounded(table: Table) -> Table:
    """Return the table with as many digits as its values deserve: aligned text would show all that a double has."""
    copy = table.copy()
    for name in copy.colnames:
        column = copy[name]
        if column.dtype.kind != "f":
            continue
        mask = getattr(column, "mask", np.zeros(len(column), bool))
        values = np.asarray(column, np.float64)
        if name in _DECIMALS:
            values = np.round(values, _DECIMALS[name])
        else:
            values = np.array([float(f"{value:.{DIGITS}g}") if np.isfinite(value) else np.nan for value in values])
        # a double: the text of a float32 is that of its double, with digits that it does not have
        replaced = type(column)(values, name=name, description=column.description, unit=column.unit)
        if np.any(mask):
            replaced.mask = mask
        copy.replace_column(name, replaced)
    return copy


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 78, initial_indent="  ", subsequent_indent="  ")
