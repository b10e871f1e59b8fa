"""The columns that are made for people, and what each column of any table means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qad.schema import MATCHES, SCORES, SPECTRA, SPECTRUM_KEY

if TYPE_CHECKING:
    import polars as pl

KEY = ("rank", *SPECTRUM_KEY)
BANDS = ("g", "r", "z", "w1", "w2")
ZERO_POINT = 22.5
"""AB magnitude of one nanomaggy (Legacy Surveys)."""
MATCH_COLUMNS = ("n_matches", "matches", "match_catalog", "match_id", "match_sep_arcsec")
LABEL_COLUMNS = ("label", "label_comment", "label_who", "label_when")
MAGNITUDES = tuple(f"mag_{band}" for band in BANDS)
_DESCRIBED = {
    "label": ("", "the last label that somebody gave"),
    "label_comment": ("", "what was said with it"),
    "label_who": ("", "who gave it"),
    "label_when": ("", "when, UTC"),
    "n_matches": ("", "catalogue entries within the radius"),
    "matches": ("", "all of them: catalogue, identifier, separation"),
    "match_catalog": ("", "catalogue of the nearest"),
    "match_id": ("", "its identifier"),
    "match_sep_arcsec": ("arcsec", "its separation"),
}


def describe_column(name: str) -> tuple[str, str]:
    """Return unit and description of a column that can be shown."""
    if name in _DESCRIBED:
        return _DESCRIBED[name]
    for table in (SPECTRA, MATCHES, SCORES):
        if name in {column.name for column in table.columns}:
            column = table.column(name)
            return column.unit, column.description
    if name in MAGNITUDES:
        return "mag", f"AB magnitude in {name.removeprefix('mag_')}, not corrected for dust"
    if name.startswith("view_"):
        return "", f"raw value of the view {name.removeprefix('view_')}"
    if name.startswith("p_"):
        return "", f"p-value of the view {name.removeprefix('p_')} among spectra of like S/N and redshift"
    return "", f"{name.removeprefix('cat_')} of the nearest catalogue entry"


def magnitude(flux: pl.Expr) -> pl.Expr:
    """Return the AB magnitude of a flux in nanomaggies, null where it is not positive."""
    import polars as pl

    return pl.when(flux > 0).then(ZERO_POINT - 2.5 * flux.cast(pl.Float64).log10()).cast(pl.Float32)
