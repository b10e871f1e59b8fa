"""One unit of work: the coadd and redrock file of one healpix become one `spectra` table."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.desi.coadd import CAMERAS, ROWS, CoaddFile
from qad.desi.columns import TEXT
from qad.desi.redrock import Redshifts, read_redshifts
from qad.errors import InputError
from qad.extraction.cameras import merge_cameras
from qad.extraction.clean import Cleaned, clean_camera, median_snr
from qad.extraction.identity import holds_no_target
from qad.extraction.scalars import add_place, complete_positions, fiberstatus_of, read_scalars
from qad.extraction.select import NOT_IN_COADD, Selection, select_rows
from qad.schema import N_WAVE, SPECTRA
from qad.settings import Extract
from qad.work.units import Pixel

if TYPE_CHECKING:
    import pyarrow as pa


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
    is_complete : bool
        False if the coadd was cut, and lacks rows that the settings want: the whole file would give another table.
    """

    table: pa.Table
    counts: dict[str, int]
    duplicates: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    specprod: str = ""
    is_complete: bool = True


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
        counts = _counts(selection)
        columns = read_scalars(coadd, redshifts, selection)
        complete_positions(columns, coadd, redrock_path, settings.verify_datasum)
        add_place(columns, coadd, pixel)
        spectra, n_impossible = _spectra(coadd, selection, settings)
        missing = _missing_rows(coadd, selection)
        notes = (_disagreements(coadd, pixel) if pixel else []) + missing
        specprod = coadd.specprod()
    table = _table({**columns, **spectra}, counts)
    counts["rows_out"] = table.num_rows
    counts |= {"pixels_impossible": n_impossible} if n_impossible else {}
    return Extracted(table, counts, selection.duplicates, notes, specprod, is_complete=not missing)


def extract_without_coadd(coadd_path: Path, redrock_path: Path, settings: Extract) -> Extracted:
    """Return the empty table of a healpix whose coadd fetch left where it is: redrock knows no wanted row, or no target.

    Raises
    ------
    InputError
        If the redrock file is damaged, or has a row that is wanted.
    """
    from qad.storage.parquet import make_table

    redshifts = read_redshifts(redrock_path, settings.verify_datasum)
    selection = select_rows(redshifts, np.empty(0, np.int64), None, np.empty(0, np.int32), settings)
    n_wanted = selection.dropped.get(NOT_IN_COADD, 0)
    notes = []
    if n_wanted and holds_no_target(coadd_path):
        notes.append(
            f"{n_wanted} wanted row{'s'[: n_wanted > 1]} not fetched: none is a target that `qad fetch` was given"
        )
    elif n_wanted:
        raise InputError(
            coadd_path,
            f"no such file, and {redrock_path.name} has {n_wanted} wanted row{'s'[: n_wanted > 1]}; run `qad fetch` again, "
            "with the --spectype, --zwarn or --targets that are wanted here",
        )
    required = [column for column in SPECTRA.columns if not column.nullable]
    table = make_table(SPECTRA, {column.name: np.empty((0, N_WAVE)) if column.is_vector else [] for column in required})
    counts = {**_counts(selection), "rows_out": 0}
    return Extracted(table, counts, selection.duplicates, notes, is_complete=not n_wanted)


def _counts(selection: Selection) -> dict[str, int]:
    counts = {"rows_in": selection.n_rows, **{f"dropped.{name}": n for name, n in selection.dropped.items()}}
    return {**counts, "duplicate_targets": len(selection.duplicates)} if selection.duplicates else counts


def _missing_rows(coadd: CoaddFile, selection: Selection) -> list[str]:
    """Say which rows a cut does not hold although they are wanted; of the release's own file nothing else is to be had."""
    n_missing = selection.dropped.get(NOT_IN_COADD, 0)
    if not n_missing or coadd.cut is None or coadd.cut.mode != ROWS:
        return []
    return [
        f"{n_missing} wanted row{'s'[: n_missing > 1]} not in {coadd.path.name}, which was fetched for "
        f"{coadd.cut.selection or 'some rows'} alone; `qad fetch` with the fitting --spectype, --zwarn or --targets gets "
        "the rest"
    ]


def _select(coadd: CoaddFile, redshifts: Redshifts, settings: Extract) -> Selection:
    found = coadd.fibermap({"OBJTYPE": TEXT, "COADD_FIBERSTATUS": np.int32, "FIBERSTATUS": np.int32})
    return select_rows(
        redshifts, coadd.targetid, found["OBJTYPE"], fiberstatus_of(found, len(coadd.targetid)), settings
    )


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
    has_position &= (ra.data >= 0) & (ra.data <= 360)
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
