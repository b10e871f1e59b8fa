"""Small releases for the tests of fetching to serve, with true FITS files and true checksum lists."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from astropy.io import fits

from qad.desi.datamodel import (
    CAMERA_FIRST,
    CAMERA_PIXELS,
    CAMERA_START,
    EXP_FIBERMAP,
    FLUX_BUNIT,
    IVAR_BUNIT,
    NDIAG,
    REDROCK_TNULL,
    REDSHIFTS,
    SCORES,
    TSNR2,
    WAVE_BUNIT,
    TableColumn,
    fibermap_columns,
)
from qad.desi.layout import checksum_name, coadd_name, pixel_folder, redrock_name
from qad.simulation.fits import write_image, write_primary, write_table
from qad.work.units import Pixel

PREFIX = "dr1/spectro/redux/iron"
SMALL = (Pixel("main", "dark", 47), Pixel("main", "dark", 48), Pixel("sv3", "bright", 26065))


def write_fits(path: Path, seed: int, n_rows: int, checksum: bool = True) -> None:
    """Write a file with a table and images in the release's manner, with CHECKSUM and DATASUM."""
    rng = np.random.default_rng(seed)
    names = ("B_FLUX", "B_IVAR")
    images = [fits.ImageHDU(rng.normal(size=(n_rows, 2751)).astype(np.float32), name=name) for name in names]
    ids = fits.BinTableHDU.from_columns([fits.Column("TARGETID", "K", array=np.arange(n_rows) + seed)], name="FIBERMAP")
    fits.HDUList([fits.PrimaryHDU(), ids, *images]).writeto(path, checksum=checksum, overwrite=True)


def write_list(folder: Path, pixel: Pixel) -> None:
    """Write the SHA-256 list of a folder as the release has it, with a product that is not there."""
    names = (coadd_name(pixel), redrock_name(pixel))
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  ./{name}" for name in names]
    lines.append(f"{'0' * 64}  ./spectra-{pixel.name}.fits.gz")
    (folder / checksum_name(pixel)).write_text("\n".join(lines) + "\n")


def write_pixel(healpix: Path, pixel: Pixel, n_rows: int = 4, seed: int = 0, with_list: bool = True) -> Path:
    """Write a pixel's folder as a release has it: 22 kB a row."""
    folder = pixel_folder(healpix, pixel)
    folder.mkdir(parents=True, exist_ok=True)
    write_fits(folder / coadd_name(pixel), pixel.healpix + seed, n_rows)
    write_fits(folder / redrock_name(pixel), pixel.healpix + seed + 1, 1)
    if with_list:
        write_list(folder, pixel)
    return folder


@dataclass(frozen=True)
class TruePixel:
    """A pixel with every HDU that DESI's have, and values that mean nothing.

    Attributes
    ----------
    pixel : Pixel
    n_targets, n_quasars : int
        Rows in all, and rows of class QSO without warnings.
    with_resolution : bool
        Four fifths of the bytes; some pixels of the real release lack the matrices.
    seed : int
    """

    pixel: Pixel
    n_targets: int
    n_quasars: int
    with_resolution: bool = True
    seed: int = 0


TRUE = (
    TruePixel(Pixel("main", "dark", 9144), 20, 3),
    TruePixel(Pixel("main", "bright", 9144), 40, 6, with_resolution=False),
    TruePixel(Pixel("sv3", "dark", 26065), 6, 0, with_resolution=False),
)
"""14 MB: with the matrices, without them, without a quasar."""


def write_true_pixel(healpix: Path, made: TruePixel, with_list: bool = True) -> Path:
    """Write a pixel's folder; the same `made` gives the same bytes."""
    folder = pixel_folder(healpix, made.pixel)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([made.pixel.healpix, made.seed])
    n = made.n_targets
    objid = np.sort(rng.choice(8192, n, replace=False))
    targetid = (39_627_000_000_000_000 + (made.pixel.healpix << 22) + objid).astype(np.int64)
    targetid[rng.random(n) < 0.1] *= -1  # fibres without a target
    spectype = rng.choice(["GALAXY", "STAR", "QSO"], n)
    zwarn = np.where(spectype == "QSO", 4, 0)  # no quasar but those chosen next
    quasars = rng.choice(n, made.n_quasars, replace=False)
    spectype[quasars], zwarn[quasars] = "QSO", 0
    exposures = np.repeat(targetid, rng.integers(1, 5, n))
    fixed = {
        "OBJTYPE": np.full(n, "TGT"), "COADD_FIBERSTATUS": np.zeros(n, int), "EBV": rng.uniform(0, 0.1, n),
        "TARGET_RA": rng.uniform(0, 360, n), "TARGET_DEC": rng.uniform(-30, 80, n),
    }  # fmt: skip
    shifts = {"Z": rng.uniform(0.1, 4, n), "ZWARN": zwarn, "SPECTYPE": spectype, "NCOEFF": np.full(n, 10)}
    tables = {
        "FIBERMAP": _table(rng, fibermap_columns(made.pixel.survey), targetid, fixed),
        "EXP_FIBERMAP": _table(rng, EXP_FIBERMAP, exposures, {}),
    }
    cards = {"SPGRP": "healpix", "HPXPIXEL": made.pixel.healpix, "HPXNSIDE": 64, "HPXNEST": "True"}
    cards |= {"SURVEY": made.pixel.survey, "PROGRAM": made.pixel.program, "LONGSTRN": "OGIP 1.0"}
    cards |= {"DEPNAM00": "SPECPROD", "DEPVER00": "iron"}
    cards |= {f"DEPNAM{i:02d}": f"package {i}" for i in range(1, 60)}  # a header of two blocks
    with (folder / redrock_name(made.pixel)).open("w+b") as file:
        write_primary(file, cards)
        write_table(file, "REDSHIFTS", *_table(rng, REDSHIFTS, targetid, shifts), REDROCK_TNULL)
        for name, table in tables.items():
            write_table(file, name, *table)
        write_table(file, "TSNR2", *_table(rng, TSNR2, targetid, {}))
    with (folder / coadd_name(made.pixel)).open("w+b") as file:
        write_primary(file, cards)
        for name, table in tables.items():
            write_table(file, name, *table)
        for camera, n_wave in CAMERA_PIXELS.items():
            _write_camera(file, rng, camera, n_wave, made)
        write_table(file, "SCORES", *_table(rng, SCORES, targetid, {}))
    if with_list:
        write_list(folder, made.pixel)
    return folder


def quasars_of(redrock: Path, spectype: tuple[str, ...] = ("QSO",), zwarn: int = 0) -> set[int]:
    """Return the TARGETIDs of the wanted rows, as astropy reads them."""
    with fits.open(redrock) as file:
        table = file["REDSHIFTS"].data
        wanted = np.isin(np.char.strip(table["SPECTYPE"]), spectype) & ((table["ZWARN"] & ~zwarn) == 0)
        return {int(n) for n in table["TARGETID"][wanted]}


def _write_camera(file: BinaryIO, rng: np.random.Generator, camera: str, n_wave: int, made: TruePixel) -> None:
    name, shape = camera.upper(), (made.n_targets, n_wave)
    wave = CAMERA_START["b"] + 0.8 * (CAMERA_FIRST[camera] + np.arange(n_wave))
    write_image(file, f"{name}_WAVELENGTH", (n_wave,), "float64", [wave], WAVE_BUNIT)
    write_image(file, f"{name}_FLUX", shape, "float32", [rng.standard_normal(shape, np.float32)], FLUX_BUNIT)
    write_image(file, f"{name}_IVAR", shape, "float32", [rng.random(shape, np.float32)], IVAR_BUNIT)
    write_image(file, f"{name}_MASK", shape, "int32", [(rng.random(shape) < 0.01).astype(np.int32)])
    if made.with_resolution:
        bands = (made.n_targets, NDIAG, n_wave)
        write_image(file, f"{name}_RESOLUTION", bands, "float32", [rng.random(bands, np.float32)])


def _table(
    rng: np.random.Generator, columns: Sequence[TableColumn], targetid: np.ndarray, fixed: Mapping[str, np.ndarray]
) -> tuple[Sequence[TableColumn], dict[str, np.ndarray]]:
    """Return columns and their values: TARGETID, what is fixed, and numbers at random."""
    values = {column.name: _drawn(rng, column.format, len(targetid)) for column in columns}
    return columns, {**values, "TARGETID": targetid, **fixed}


def _drawn(rng: np.random.Generator, form: str, n_rows: int) -> np.ndarray:
    repeat, code = int(form[:-1] or 1), form[-1]
    if code == "A":
        return np.array(["".join(rng.choice(list("ABCxyz"), repeat)) for _ in range(n_rows)])
    shape = (n_rows,) if repeat == 1 else (n_rows, repeat)
    if code in "DE":
        return rng.normal(size=shape)
    return rng.integers(0, {"K": 2**62, "J": 2**30, "I": 2**14, "B": 63}[code], shape)
