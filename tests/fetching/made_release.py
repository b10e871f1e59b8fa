"""Small releases for the tests of fetching to serve, with true FITS files and true checksum lists."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from astropy.io import fits

from qad.desi.layout import checksum_name, coadd_name, pixel_folder, redrock_name
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
