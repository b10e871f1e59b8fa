"""Spectra as PNG files: one file, or a folder of one a spectrum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qad.errors import ConfigError
from qad.inspection.figure import render
from qad.inspection.pictures import png
from qad.inspection.scene import PlotOptions
from qad.inspection.show import facts_by_key
from qad.inspection.spectrum import Spectrum, SpectrumReader
from qad.inspection.tables import Tables
from qad.results import Progress
from qad.storage.atomic import write_bytes

if TYPE_CHECKING:
    import polars as pl

SIZE = (2400, 1080)
"""Pixels of a picture: 12 by 5.4 inches at 200 per inch."""
SCALE = 2.0
BATCH = 128


def write_pictures(
    tables: Tables, frame: pl.DataFrame, path: Path, options: PlotOptions, dark: bool, progress: Progress
) -> list[Path]:
    """Write a picture of each row's spectrum, and return the files; a row without a spectrum has none.

    Parameters
    ----------
    tables : Tables
    frame : polars.DataFrame
        Rows with the key columns and those of :data:`qad.inspection.show.PLOT_COLUMNS`.
    path : Path
        ``NAME.png`` for one row, else a folder; it is made if it is not there.
    options : PlotOptions
    dark : bool
    progress : Progress

    Raises
    ------
    ConfigError
        If there is more than one spectrum for a file, or a file where the folder should be.
    StorageError
        If the disk is full or not writable.
    """
    is_file = path.suffix.lower() == ".png"
    if is_file and frame.height > 1:
        raise ConfigError(f"--png {path}: {frame.height} rows are no single picture; name a folder")
    if not is_file and path.exists() and not path.is_dir():
        raise ConfigError(f"--png {path}: is a file; name a folder, or a file that ends in .png")
    reader, facts, written = SpectrumReader(tables), facts_by_key(frame), []
    progress.start("png", frame.height, "pictures")
    for rows in frame.iter_slices(BATCH):
        for spectrum in reader.read(rows):
            pixels = render(spectrum, facts[spectrum.key], options, SIZE, dark, SCALE)
            target = path if is_file else path / picture_name(spectrum)
            write_bytes(target, png(pixels, {"Title": f"TARGETID {spectrum.key[0]}", "Software": "qad"}))
            written.append(target)
            progress.advance(1)
    return written


def picture_name(spectrum: Spectrum) -> str:
    """Return the file name of a spectrum's picture: its whole key."""
    targetid, survey, program, healpix = spectrum.key
    return f"{targetid}-{survey}-{program}-{healpix}.png"
