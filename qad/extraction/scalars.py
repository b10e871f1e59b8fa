"""What `spectra` tells of each row beside its spectrum: redrock's fit, photometry, quality, exposure, place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qad.desi.coadd import CoaddFile
from qad.desi.columns import TEXT
from qad.desi.redrock import Redshifts, read_fibermap
from qad.desi.sky import healpix_of
from qad.extraction.select import Selection
from qad.work.units import Pixel

FIBERMAP = {
    "objtype": ("OBJTYPE", TEXT),
    "coadd_numexp": ("COADD_NUMEXP", np.int16),
    "coadd_exptime": ("COADD_EXPTIME", np.float32),
    "desi_target": ("DESI_TARGET", np.int64),
    "morphtype": ("MORPHTYPE", TEXT),
    "photsys": ("PHOTSYS", TEXT),
    "maskbits": ("MASKBITS", np.int32),
    "ebv": ("EBV", np.float32),
    **{f"flux_{band}": (f"FLUX_{band.upper()}", np.float32) for band in ("g", "r", "z", "w1", "w2")},
    **{f"flux_ivar_{band}": (f"FLUX_IVAR_{band.upper()}", np.float32) for band in ("g", "r", "z", "w1", "w2")},
    "pmra": ("PMRA", np.float32),
    "pmdec": ("PMDEC", np.float32),
    "parallax": ("PARALLAX", np.float32),
    "ref_id": ("REF_ID", np.int64),
    "psf_to_fiber_specflux": ("MEAN_PSF_TO_FIBER_SPECFLUX", np.float32),
}
"""Columns of `spectra` from FIBERMAP: null where the file lacks them."""
DESI_TARGET_SURVEYS = ("main", "special")
"""Other surveys leave DESI_TARGET empty and use SV1_DESI_TARGET and the like (data model, coadd)."""
TARGETING = {"CMX_TARGET": "cmx", **{f"SV{i}_DESI_TARGET": f"sv{i}" for i in (1, 2, 3)}}
"""Columns that the FIBERMAP of one survey alone has."""
TILE_PROGRAM = "other"
"""Files of a tile do not name their program."""
EXPOSURE = {
    "fiber": ("FIBER", np.int32),
    "petal_loc": ("PETAL_LOC", np.int16),
    "tileid": ("TILEID", np.int32),
    "night": ("NIGHT", np.int32),
}
SCORES = {name: (name.upper(), np.float32) for name in ("tsnr2_qso", "tsnr2_lya", "tsnr2_lrg")}
POSITION = {"ra": ("TARGET_RA", np.float64), "dec": ("TARGET_DEC", np.float64)}


def read_scalars(coadd: CoaddFile, redshifts: Redshifts, selection: Selection) -> dict[str, Any]:
    """Return columns of `spectra` by name for the selected rows; one that a file lacks is not there."""
    rows, from_coadd = selection.redrock_rows, selection.coadd_rows
    targetid = redshifts.targetid[rows]
    status = coadd.fibermap({"COADD_FIBERSTATUS": np.int32, "FIBERSTATUS": np.int32}, from_coadd)
    columns: dict[str, Any] = {
        "targetid": targetid,
        "z": redshifts.z[rows],
        "zwarn": redshifts.zwarn[rows],
        "spectype": [redshifts.spectype[row] for row in rows],
        "coadd_fiberstatus": fiberstatus_of(status, len(rows)),
    }
    if redshifts.subtype is not None:
        columns["subtype"] = [redshifts.subtype[row] for row in rows]
    if redshifts.coeff is not None:
        columns["coeff"] = redshifts.coeff[rows]
    columns |= {name.lower(): values[rows] for name, values in redshifts.optional.items()}
    columns |= _renamed(POSITION, lambda wanted: coadd.fibermap(wanted, from_coadd))
    columns |= _renamed(FIBERMAP, lambda wanted: coadd.fibermap(wanted, from_coadd))
    columns |= _renamed(EXPOSURE, lambda wanted: coadd.first_exposures(wanted, targetid))
    columns |= _renamed(SCORES, lambda wanted: coadd.scores(wanted, targetid))
    return columns


def complete_positions(columns: dict[str, Any], coadd: CoaddFile, redrock_path: Path, verify: bool) -> None:
    """Take positions that a trimmed FIBERMAP lacks from redrock's copy of it; no spectrum goes without one."""
    missing = {name: POSITION[name] for name in POSITION if name not in columns}
    if missing:
        targetid = columns["targetid"]
        columns |= _renamed(missing, lambda wanted: read_fibermap(redrock_path, wanted, targetid, verify))
    for name, (disk, _) in POSITION.items():
        if name not in columns:
            raise coadd.error("FIBERMAP", f"column {disk} is missing, in the redrock file too")


def add_place(columns: dict[str, Any], coadd: CoaddFile, pixel: Pixel | None) -> None:
    """Add survey, program and healpix: those of the path, or for files of a tile what their rows tell."""
    n_rows = len(columns["targetid"])
    survey, program = (pixel.survey, pixel.program) if pixel else (_survey_of(coadd), TILE_PROGRAM)
    if pixel is None:
        ra, dec = (columns[name].filled(0) for name in POSITION)
        columns["healpix"] = healpix_of(ra, np.clip(dec, -90, 90))
    else:
        columns["healpix"] = np.full(n_rows, pixel.healpix, np.int32)
    columns |= {"survey": [survey] * n_rows, "program": [program] * n_rows}
    if survey not in DESI_TARGET_SURVEYS:
        columns.pop("desi_target", None)


def _survey_of(coadd: CoaddFile) -> str:
    """Return the survey whose targeting columns a file has (``desitarget.targets.main_cmx_or_sv``)."""
    found = coadd.fibermap(dict.fromkeys(TARGETING, np.int64))
    return next((survey for column, survey in TARGETING.items() if found[column] is not None), "main")


def _renamed(names: Mapping[str, tuple[str, Any]], read: Any) -> dict[str, Any]:
    """Read columns under their names on disk, and return those that are there under ours."""
    found = read(dict(names.values()))
    return {name: found[disk] for name, (disk, _) in names.items() if found[disk] is not None}


def fiberstatus_of(found: Mapping[str, Any], n_rows: int) -> np.ndarray:
    """Return COADD_FIBERSTATUS, older files' FIBERSTATUS, or 0: trimmed fibermaps hold neither."""
    for name in ("COADD_FIBERSTATUS", "FIBERSTATUS"):
        if found[name] is not None:
            # a status that cannot be read is a bad one: all bits set
            return found[name].filled(-1)
    return np.zeros(n_rows, np.int32)
