"""One unit of work: the coadd and redrock file of one healpix become one `spectra` table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.config import Extract
from qad.desi.coadd import CAMERAS, CoaddFile
from qad.desi.columns import TEXT
from qad.desi.redrock import Redshifts, read_fibermap, read_redshifts
from qad.desi.sky import healpix_of
from qad.extraction.cameras import merge_cameras
from qad.extraction.clean import Cleaned, clean_camera, median_snr
from qad.extraction.select import Selection, select_rows
from qad.schema import SPECTRA
from qad.work.units import Pixel

if TYPE_CHECKING:
    import pyarrow as pa

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


@dataclass(frozen=True)
class Extracted:
    """The table of one healpix, and what is to be told of its making.

    Attributes
    ----------
    table : pyarrow.Table
    counts : dict of str to int
        ``rows_in``, ``rows_out``, ``dropped.<reason>``, ``pixels_impossible``, ...
    duplicates : list of int
        TARGETIDs that stand more than once in a file.
    notes : list of str
        What a person should know, such as a header that names another pixel.
    specprod : str
    """

    table: pa.Table
    counts: dict[str, int]
    duplicates: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    specprod: str = ""


def extract_pixel(pixel: Pixel | None, coadd_path: Path, redrock_path: Path, settings: Extract) -> Extracted:
    """Read the wanted spectra of one healpix, or of one petal of a tile (`pixel` is None).

    Raises
    ------
    InputError
        If one of the files is damaged or lacks what cannot be done without.
    """
    redshifts = read_redshifts(redrock_path, settings.verify_datasum)
    with CoaddFile(coadd_path, settings.verify_datasum) as coadd:
        selection = _select(coadd, redshifts, settings)
        counts = {"rows_in": selection.n_rows, **{f"dropped.{name}": n for name, n in selection.dropped.items()}}
        columns = _scalars(coadd, redshifts, selection)
        _complete(columns, coadd, redrock_path, settings.verify_datasum)
        _place(columns, coadd, pixel)
        spectra, n_impossible = _spectra(coadd, selection, settings)
        notes = _disagreements(coadd, pixel) if pixel else []
        specprod = coadd.specprod()
    table = _table({**columns, **spectra}, counts)
    counts["rows_out"] = table.num_rows
    for name, n in (("duplicate_targets", len(selection.duplicates)), ("pixels_impossible", n_impossible)):
        counts |= {name: n} if n else {}
    return Extracted(table, counts, selection.duplicates, notes, specprod)


def _select(coadd: CoaddFile, redshifts: Redshifts, settings: Extract) -> Selection:
    found = coadd.fibermap({"OBJTYPE": TEXT, "COADD_FIBERSTATUS": np.int32, "FIBERSTATUS": np.int32})
    return select_rows(redshifts, coadd.targetid, found["OBJTYPE"], _fiberstatus(found, len(coadd.targetid)), settings)


def _fiberstatus(found: Mapping[str, Any], n_rows: int) -> np.ndarray:
    """Return COADD_FIBERSTATUS, older files' FIBERSTATUS, or 0: trimmed fibermaps hold neither."""
    for name in ("COADD_FIBERSTATUS", "FIBERSTATUS"):
        if found[name] is not None:
            # a status that cannot be read is a bad one: all bits set
            return found[name].filled(-1)
    return np.zeros(n_rows, np.int32)


def _scalars(coadd: CoaddFile, redshifts: Redshifts, selection: Selection) -> dict[str, Any]:
    rows, from_coadd = selection.redrock_rows, selection.coadd_rows
    targetid = redshifts.targetid[rows]
    status = coadd.fibermap({"COADD_FIBERSTATUS": np.int32, "FIBERSTATUS": np.int32}, from_coadd)
    columns: dict[str, Any] = {
        "targetid": targetid,
        "z": redshifts.z[rows],
        "zwarn": redshifts.zwarn[rows],
        "spectype": [redshifts.spectype[row] for row in rows],
        "coadd_fiberstatus": _fiberstatus(status, len(rows)),
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


def _complete(columns: dict[str, Any], coadd: CoaddFile, redrock_path: Path, verify: bool) -> None:
    """Take positions that a trimmed FIBERMAP lacks from redrock's copy of it; no spectrum goes without one."""
    missing = {name: POSITION[name] for name in POSITION if name not in columns}
    if missing:
        targetid = columns["targetid"]
        columns |= _renamed(missing, lambda wanted: read_fibermap(redrock_path, wanted, targetid, verify))
    for name, (disk, _) in POSITION.items():
        if name not in columns:
            raise coadd.error("FIBERMAP", f"column {disk} is missing, in the redrock file too")


def _place(columns: dict[str, Any], coadd: CoaddFile, pixel: Pixel | None) -> None:
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


def _spectra(coadd: CoaddFile, selection: Selection, settings: Extract) -> tuple[dict[str, Any], int]:
    n_rows = len(selection.coadd_rows)
    cleaned: dict[str, Cleaned] = {}
    for name in CAMERAS:
        camera = coadd.camera(name, selection.coadd_rows)
        if camera is not None:
            cleaned[name] = clean_camera(camera, settings.min_wave, settings.max_wave)
    columns: dict[str, Any] = {}
    for name, kept in cleaned.items():
        snr, n_good = median_snr(kept.flux, kept.ivar)
        columns[f"snr_{name}"] = np.ma.MaskedArray(np.nan_to_num(snr), mask=n_good == 0)
    flux, ivar = merge_cameras(cleaned.values(), n_rows)
    snr, n_good = median_snr(flux, ivar)
    columns |= {"snr": np.nan_to_num(snr), "n_good": n_good, "flux": flux, "ivar": ivar}
    return columns, sum(kept.n_impossible for kept in cleaned.values())


def _table(columns: dict[str, Any], counts: dict[str, int]) -> pa.Table:
    """Drop rows without a position or a pixel that counts, sort by TARGETID and build the table."""
    from qad.storage.parquet import make_table

    ra, dec = columns["ra"], columns["dec"]
    has_position = ~np.ma.getmaskarray(ra) & ~np.ma.getmaskarray(dec) & (np.abs(dec.data) <= 90)
    has_data = columns["n_good"] > 0
    for name, n in (("bad_position", (~has_position).sum()), ("no_data", (has_position & ~has_data).sum())):
        counts |= {f"dropped.{name}": int(n)} if n else {}
    kept = np.flatnonzero(has_position & has_data)
    kept = kept[np.argsort(columns["targetid"][kept], kind="stable")]
    chosen = {
        name: [values[row] for row in kept] if isinstance(values, list) else values[kept]
        for name, values in columns.items()
    }
    return make_table(SPECTRA, chosen)


def _disagreements(coadd: CoaddFile, pixel: Pixel) -> list[str]:
    """Compare what the header says of the pixel with what the path says, which counts."""
    expected = {"SURVEY": pixel.survey, "PROGRAM": pixel.program, "HPXPIXEL": str(pixel.healpix)}
    found = {key: coadd.header_text(key) for key in expected}
    return [
        f"its header says {key} = {found[key]}, its path {value}"
        for key, value in expected.items()
        if found[key] and found[key] != value
    ]
