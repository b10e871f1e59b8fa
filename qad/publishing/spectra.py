"""The spectra of the published objects: one FITS file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.schema import N_WAVE, SPECTRUM_KEY, WAVE_START, WAVE_STEP

if TYPE_CHECKING:
    import polars as pl

    from qad.analysis.source import Block

FLUX_UNIT = "10**-17 erg s-1 cm-2 Angstrom-1"
IVAR_UNIT = "10**34 erg-2 s2 cm4 Angstrom2"


def spectra_bytes(frame: pl.DataFrame, blocks: list[Block], header: Mapping[str, Any]) -> bytes:
    """Return FITS: OBJECTS (a row a spectrum), WAVELENGTH, FLUX and IVAR (n, 7781), in the order of `frame`.

    Flux as in DESI's coadds, cameras merged by inverse variance, not corrected for Galactic dust; IVAR 0: no data.  A
    candidate without a spectrum has IVAR 0 everywhere.
    """
    from astropy.io import fits

    n = frame.height
    flux, ivar = np.zeros((n, N_WAVE), np.float32), np.zeros((n, N_WAVE), np.float32)
    place = {key: i for i, key in enumerate(frame.select(*SPECTRUM_KEY).iter_rows())}
    for block in blocks:
        for i, row in enumerate(block.rows):
            at = place[tuple(row[name] for name in SPECTRUM_KEY)]
            flux[at], ivar[at] = block.raw_flux[i], block.raw_ivar[i]
    wave = WAVE_START + WAVE_STEP * np.arange(N_WAVE)
    hdus = fits.HDUList(
        [
            fits.PrimaryHDU(),
            _objects(frame),
            _image("WAVELENGTH", wave, "Angstrom", "vacuum, barycentric"),
            _image("FLUX", flux, FLUX_UNIT, "observed F_lambda, not dereddened"),
            _image("IVAR", ivar, IVAR_UNIT, "inverse variance; 0: no data"),
        ]
    )
    for hdu in hdus:
        for key, value in header.items():
            hdu.header[key] = value
        hdu.add_checksum(when="")
    sink = io.BytesIO()
    hdus.writeto(sink)
    return sink.getvalue()


def _image(name: str, values: np.ndarray, unit: str, comment: str) -> Any:
    from astropy.io import fits

    hdu = fits.ImageHDU(values, name=name)
    hdu.header["BUNIT"] = (unit, comment)
    return hdu


def _objects(frame: pl.DataFrame) -> Any:
    from astropy.io import fits

    formats = {
        "name": "24A",
        "rank": "K",
        "targetid": "K",
        "survey": "7A",
        "program": "6A",
        "healpix": "J",
        "ra": "D",
        "dec": "D",
        "z": "D",
    }
    units = {"ra": "deg", "dec": "deg"}
    columns = []
    for name, form in formats.items():
        values = (
            frame[name].to_numpy()
            if not form.endswith("A")
            else np.char.encode(np.array(frame[name].to_list(), str), "ascii")
        )
        columns.append(fits.Column(name.upper(), form, array=values, unit=units.get(name)))
    return fits.BinTableHDU.from_columns(columns, name="OBJECTS")
