"""Ways to bring the FIBERMAP's TARGETIDs and nine planes' wanted rows of a coadd into native arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

Planes = dict[str, np.ndarray]
PLANES = tuple(f"{camera}_{what}" for camera in "BRZ" for what in ("FLUX", "IVAR", "MASK"))
_ITEM = {-32: ">f4", 32: ">i4", -64: ">f8", 8: "u1"}


def qad(path: Path, rows: np.ndarray) -> Planes:
    """The reader of `extract`, without DATASUM."""
    return _qad(path, rows, verify=False)


def qad_checked(path: Path, rows: np.ndarray) -> Planes:
    """The reader of `extract` as it is by default: headers and data checked."""
    return _qad(path, rows, verify=True)


def _qad(path: Path, rows: np.ndarray, verify: bool) -> Planes:
    from qad.desi.coadd import CoaddFile

    with CoaddFile(path, verify) as coadd:
        planes = {"TARGETID": coadd.targetid}
        for name in coadd.cameras:
            camera = coadd.camera(name, rows)
            assert camera is not None
            found = {"FLUX": camera.flux, "IVAR": camera.ivar, "MASK": camera.mask}
            planes |= {f"{name.upper()}_{what}": values for what, values in found.items() if values is not None}
    return planes


def numpy_memmap(path: Path, rows: np.ndarray) -> Planes:
    """A bare memory map with its own header walk: nothing is checked."""
    data = np.memmap(path, np.uint8, "r")
    planes, offset = {}, 0
    while offset < len(data):
        cards: dict[str, str] = {}
        while "END" not in cards:
            block = data[offset : offset + 2880].tobytes().decode()
            offset += 2880
            for start in range(0, 2880, 80):
                card = block[start : start + 80]
                cards[card[:8].rstrip()] = card[10:].partition("/")[0].strip().strip("'").rstrip()
        shape = [int(cards[f"NAXIS{i}"]) for i in range(int(cards["NAXIS"]), 0, -1)]
        dtype = _ITEM[int(cards["BITPIX"])]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize if shape else 0
        name = cards.get("EXTNAME", "")
        if name in PLANES:
            stored = data[offset : offset + size].view(dtype).reshape(shape)
            planes[name] = stored[rows].astype(stored.dtype.newbyteorder("="))
        elif name == "FIBERMAP":
            table = data[offset : offset + size].reshape(shape)
            planes["TARGETID"] = table[:, :8].copy().view(">i8")[:, 0].astype(np.int64)
        offset += -(-size // 2880) * 2880
    return planes


def astropy_memmap(path: Path, rows: np.ndarray) -> Planes:
    """astropy, memory mapped."""
    from astropy.io import fits

    with warnings.catch_warnings(), fits.open(path, memmap=True) as file:
        warnings.simplefilter("ignore")
        planes = {name: _native(file[name].data[rows]) for name in PLANES}
        planes["TARGETID"] = _native(file["FIBERMAP"].data["TARGETID"])
    return planes


def fitsio_rows(path: Path, rows: np.ndarray) -> Planes:
    """fitsio, one slice a row."""
    import fitsio

    with fitsio.FITS(str(path)) as file:
        planes = {}
        for name in PLANES:
            image = file[name]
            planes[name] = np.concatenate([_native(image[int(row) : int(row) + 1, :]) for row in rows])
        planes["TARGETID"] = _native(file["FIBERMAP"].read_column("TARGETID"))
    return planes


def desispec_rows(path: Path, rows: np.ndarray) -> Planes:
    """DESI's own ``read_spectra(rows=...)``, everything else at its default."""
    from desispec.io import read_spectra

    spectra = read_spectra(str(path), rows=rows)
    planes = {"TARGETID": np.asarray(spectra.fibermap["TARGETID"])}
    for camera in spectra.bands:
        found = {"FLUX": spectra.flux, "IVAR": spectra.ivar, "MASK": spectra.mask}
        planes |= {f"{camera.upper()}_{what}": values[camera] for what, values in found.items()}
    return planes


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("="), copy=False)


READERS: dict[str, Callable[[Path, np.ndarray], Planes]] = {
    "numpy memory map, bare": numpy_memmap,
    "qad, rows": qad,
    "qad, checked (default)": qad_checked,
    "astropy memory map": astropy_memmap,
    "fitsio, row slices": fitsio_rows,
    "desispec read_spectra(rows)": desispec_rows,
}
