"""The data dictionary: unit, UCD and description of every column that can be published; one source for all formats."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qad.inspection.columns import describe_column
from qad.schema import MEASURED_LINES, MEASURES

UNIT_OF = {
    "1e-17 erg s-1 cm-2": "1e-20 W m-2",
    "1e-17 erg s-1 cm-2 Angstrom-1": "1e-19 W m-2 nm-1",
    "Angstrom": "0.1 nm",
}
"""Units that VOUnits 1.1 deprecates, and the same in those that it likes: the numbers do not change."""
_UCD = {
    "name": "meta.id",
    "targetid": "meta.id;meta.main",
    "rank": "stat.rank",
    "survey": "meta.dataset",
    "program": "meta.dataset",
    "healpix": "pos.healpix",
    "ra": "pos.eq.ra;meta.main",
    "dec": "pos.eq.dec;meta.main",
    "z": "src.redshift",
    "zerr": "stat.error;src.redshift",
    "zwarn": "meta.code.qual",
    "spectype": "meta.code.class",
    "subtype": "meta.code.class",
    "deltachi2": "stat.fit.chi2",
    "snr": "stat.snr",
    "mag_g": "phot.mag;em.opt.B",
    "mag_r": "phot.mag;em.opt.R",
    "mag_z": "phot.mag;em.opt.I",
    "mag_w1": "phot.mag;em.IR.3-4um",
    "mag_w2": "phot.mag;em.IR.4-8um",
    "ebv": "phys.absorption.gal",
    "score": "stat.likelihood",
    "score_sd": "stat.stdev",
    "p_value": "stat.probability",
    "artefact": "stat.probability",
    "reason": "meta.note",
    "class_guess": "meta.code.class",
    "group": "meta.code.class",
    "chi2_dof": "stat.fit.chi2",
    "n_good": "meta.number",
    "worst_wave_rest": "em.wl",
    "flags": "meta.code.qual",
    "label": "meta.code.class",
    "label_comment": "meta.note",
    "n_matches": "meta.number",
    "matches": "meta.note",
    "match_catalog": "meta.dataset",
    "match_id": "meta.id.cross",
    "match_sep_arcsec": "pos.angDistance",
    "z_alt": "src.redshift",
    "z_alt_dchi2": "stat.fit.chi2",
    "z_alt_lines": "meta.note",
    "bal_vmin": "spect.dopplerVeloc",
    "bal_vmax": "spect.dopplerVeloc",
    "redrock_chi2_dof": "stat.fit.chi2",
    "redrock_deltachi2": "stat.fit.chi2",
    "redrock_template": "meta.id",
}
_QUANTITY = {
    "flux": "phot.flux;spect.line",
    "ew": "spect.line.eqWidth",
    "fwhm": "spect.line.width",
    "shift": "spect.dopplerVeloc",
    "limit": "spect.line.eqWidth",
}
_LINES = tuple(name for name, _, _ in MEASURED_LINES)
_DESIGNATION = "IAU designation, from the truncated position"
_MEASURED = {column.name for column in MEASURES.columns}


@dataclass(frozen=True)
class FieldInfo:
    """What a column is."""

    name: str
    unit: str
    ucd: str
    description: str


def describe(name: str) -> FieldInfo:
    """Return unit, UCD and description of a column; a UCD may be empty, a column that nobody described has its name."""
    if name == "name":
        return FieldInfo(name, "", _UCD[name], _DESIGNATION)
    if name in _MEASURED:
        column = MEASURES.column(name)
        unit = "" if column.unit.startswith("dex(") else column.unit
        text = column.description + (", erg/s" if column.unit.startswith("dex(") else "")
        return FieldInfo(name, unit, ucd_of(name), text)
    unit, text = describe_column(name)
    return FieldInfo(name, unit, ucd_of(name), text or name)


def ucd_of(name: str) -> str:
    """Return the UCD1+ of a column, empty where none says what it holds."""
    if name in _UCD:
        return _UCD[name]
    if name.endswith("_err") and name.removesuffix("_err") != name:
        of = ucd_of(name.removesuffix("_err"))
        return f"stat.error;{of.partition(';')[0]}" if of else "stat.error"
    line = next((line for line in sorted(_LINES, key=len, reverse=True) if name.startswith(f"{line}_")), None)
    if line is not None:
        return _QUANTITY.get(name.removeprefix(f"{line}_").rpartition("_")[2] or "", "")
    if name.endswith("_fit_chi2"):
        return "stat.fit.chi2"
    for pattern, ucd in (
        (r"slope_", "spect.index"),
        (r"flux_\d+$", "phot.flux.density;em.wl"),
        (r"loglum_\d+$", "phys.luminosity"),
        (r"[ab]i_civ$", "spect.line.width"),
        (r"p_", "stat.probability"),
        (r"view_", "stat.value"),
    ):
        if re.match(pattern, name):
            return ucd
    return ""


def designation(ra: float, dec: float) -> str:
    """Return ``DESI JHHMMSS.ss+DDMMSS.s``; coordinates are truncated, as the IAU asks, not rounded."""
    # 1e-6 of the last digit absorbs the rounding of a coordinate that is exactly on it
    hours = int(ra % 360.0 / 15.0 * 360_000 + 1e-6)
    angle = int(abs(dec) * 36_000 + 1e-6)
    time = f"{hours // 360_000:02d}{hours // 6000 % 60:02d}{hours // 100 % 60:02d}.{hours % 100:02d}"
    place = f"{angle // 36_000:02d}{angle // 600 % 60:02d}{angle // 10 % 60:02d}.{angle % 10}"
    return f"DESI J{time}{'-' if dec < 0 else '+'}{place}"
