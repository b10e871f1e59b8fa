"""The coadded spectra of one healpix: fibermap, scores, and the cameras' flux, ivar and mask, rows as wanted.

The resolution matrices, four fifths of a file, are never read.  A coadd that fetch has cut says so in its primary header.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from qad.desi.columns import matched_columns, read_columns
from qad.desi.datamodel import FLUX_BUNIT, IVAR_BUNIT
from qad.desi.fits import MAX_IMAGE_BYTES, FitsFile, walk_hdus
from qad.desi.header import ITEM_BYTES, Header
from qad.errors import InputError
from qad.schema import N_WAVE, WAVE_START, WAVE_STEP

CAMERAS = ("b", "r", "z")
"""From blue to red."""
WAVE_TOLERANCE = 1e-4
"""Å by which a stored wavelength may miss the grid (``desispec.coaddition.coadd_cameras``)."""
ROWS, HDUS = "rows", "hdus"
"""How a coadd was cut: to some of its rows, or to some HDUs with all rows."""
_BUNIT_OF_OTHER = {"FLUX": IVAR_BUNIT, "IVAR": FLUX_BUNIT}
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Cut:
    """What the primary header of a cut coadd tells of the cut.

    Attributes
    ----------
    mode : str
        :data:`ROWS` or :data:`HDUS`.
    sha256 : str
        Of the release's file that it was cut from; empty where no list told it.
    selection : str
        The rule that chose the rows.
    """

    mode: str
    sha256: str
    selection: str


@dataclass(frozen=True)
class Camera:
    """Rows of one camera.

    Attributes
    ----------
    name : str
        ``b``, ``r`` or ``z``.
    start : int
        Pixel of the merged grid that the camera's first pixel is.
    flux, ivar : ndarray of float32, shape (n_rows, n_wave)
        As the file has them: 1e-17 erg s^-1 cm^-2 Å^-1 and its inverse variance.
    mask : ndarray of integer, shape (n_rows, n_wave), or None
        None where the file has none.
    """

    name: str
    start: int
    flux: np.ndarray
    ivar: np.ndarray
    mask: np.ndarray | None


class CoaddFile:
    """A ``coadd-*.fits`` file open for reading; use it as a context manager.

    Attributes
    ----------
    targetid : ndarray of int64, shape (n_rows,)
        Of the FIBERMAP; rows of the cameras are in the same order.

    Raises
    ------
    InputError
        If the file is damaged, has no FIBERMAP with TARGETID, or its HDUs contradict each other.
    """

    def __init__(self, path: Path, verify: bool = True) -> None:
        self._file = FitsFile(path, verify)
        try:
            self._fibermap = self._file.table("FIBERMAP")
            self._check_fibermap()
            self.targetid = self._fibermap.numbers("TARGETID", np.int64).data
            self._starts = {camera: self._check_camera(camera) for camera in CAMERAS if self._has_camera(camera)}
            if not self._starts:
                raise InputError(path, "holds no camera: B_FLUX, R_FLUX and Z_FLUX are missing")
            self._check_masks()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> CoaddFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras that the file has."""
        return tuple(self._starts)

    @property
    def cut(self) -> Cut | None:
        """How the file was cut; None if it is the release's own."""
        return _cut_of(self._file.primary)

    def header_text(self, key: str) -> str:
        """Return a value of the primary header as text, empty if it is absent."""
        return self._file.primary.shown(key)

    def specprod(self) -> str:
        """Return the production that made the file, as its DEPNAMnn and DEPVERnn cards tell, or empty."""
        for number in range(100):
            if self.header_text(f"DEPNAM{number:02d}") == "SPECPROD":
                return self.header_text(f"DEPVER{number:02d}")
        return self.header_text("SPECPROD")

    def fibermap(self, columns: Mapping[str, Any], rows: np.ndarray | slice = slice(None)) -> dict[str, Any]:
        """Return columns of the FIBERMAP.

        Parameters
        ----------
        columns : mapping of str to dtype
            Names and types; :data:`~qad.desi.columns.TEXT` for text.
        rows : ndarray of int or slice

        Returns
        -------
        dict
            Masked arrays, lists of str for text; None for a column that the file lacks.
        """
        return read_columns(self._fibermap, columns, rows)

    def first_exposures(self, columns: Mapping[str, Any], targetid: np.ndarray) -> dict[str, Any]:
        """Return columns of the first row of each target in EXP_FIBERMAP; masked where it has none.

        Files without EXP_FIBERMAP keep some of these columns in FIBERMAP.
        """
        if "EXP_FIBERMAP" not in self._file:
            return matched_columns(self._fibermap, columns, targetid)
        return matched_columns(self._file.table("EXP_FIBERMAP"), columns, targetid)

    def scores(self, columns: Mapping[str, Any], targetid: np.ndarray) -> dict[str, Any]:
        """Return columns of SCORES by TARGETID; masked where it has no row, None where it lacks the column."""
        if "SCORES" not in self._file:
            return dict.fromkeys(columns)
        return matched_columns(self._file.table("SCORES"), columns, targetid)

    def camera(self, name: str, rows: np.ndarray) -> Camera | None:
        """Return rows of a camera, or None if the file lacks it."""
        if name not in self._starts:
            return None
        prefix = name.upper()
        if name == self.cameras[0]:
            self._file.reserve(min(self._plane_bytes(len(rows)), MAX_IMAGE_BYTES))
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is no measurement
            flux, ivar = (
                self._file.image(f"{prefix}_{what}", rows).astype(np.float32, copy=False) for what in ("FLUX", "IVAR")
            )
        mask = self._file.image(f"{prefix}_MASK", rows) if f"{prefix}_MASK" in self._file else None
        return Camera(name, self._starts[name], flux, ivar, mask)

    def _plane_bytes(self, n_rows: int) -> int:
        """Return the memory for rows of all planes, when they are read from the first camera on."""
        names = [f"{camera.upper()}_{what}" for camera in self.cameras for what in ("FLUX", "IVAR", "MASK")]
        planes = [self._file.hdu(name) for name in names if name in self._file]
        each = [
            n_rows * hdu.shape[1] * ITEM_BYTES[hdu.header.integer("BITPIX")] for hdu in planes if hdu.kind == "image"
        ]
        return sum(each) + 64 * len(each)

    def _has_camera(self, camera: str) -> bool:
        wanted = [f"{camera.upper()}_{what}" for what in ("WAVELENGTH", "FLUX", "IVAR")]
        present = [name for name in wanted if name in self._file]
        rest = [f"{camera.upper()}_{what}" for what in ("MASK", "RESOLUTION")]
        if 0 < len(present) < len(wanted) or (not present and any(name in self._file for name in rest)):
            missing = next(name for name in wanted if name not in present)
            raise InputError(self.path, f"HDU {missing} is missing while others of camera {camera} are there")
        return bool(present)

    def _check_fibermap(self) -> None:
        """Refuse another table under the name of FIBERMAP: they all hold TARGETID, and quality cuts would find nothing."""
        for column, owner in (("TSNR2_LRG", "SCORES"), ("EXPID", "EXP_FIBERMAP")):
            if column in self._fibermap and owner in self._file:
                raise self.error("FIBERMAP", f"holds column {column} of {owner}: the names of HDUs are mixed up")

    def _check_masks(self) -> None:
        """Refuse a file with some masks only; one of all cameras may do without."""
        without = [camera.upper() for camera in self._starts if f"{camera.upper()}_MASK" not in self._file]
        if without and (len(without) < len(self._starts) or len(self._starts) < len(CAMERAS)):
            raise InputError(self.path, f"HDU {without[0]}_MASK is missing, and not only that: damaged; fetch it again")

    def _check_camera(self, camera: str) -> int:
        """Check a camera's shapes and wavelengths, and return its first pixel on the merged grid."""
        prefix = camera.upper()
        shape = self._file.image_shape(f"{prefix}_WAVELENGTH")
        if len(shape) != 1 or not 0 < shape[0] <= N_WAVE:
            raise self.error(f"{prefix}_WAVELENGTH", f"has shape {shape}, expected one axis of at most {N_WAVE}")
        expected = (len(self.targetid), shape[0])
        for what in ("FLUX", "IVAR", "MASK"):
            if f"{prefix}_{what}" in self._file:
                self._check_image(f"{prefix}_{what}", what, expected)
        return self._grid_start(f"{prefix}_WAVELENGTH")

    def _check_image(self, name: str, what: str, expected: tuple[int, ...]) -> None:
        hdu = self._file.hdu(name)
        shape = self._file.image_shape(name)
        if shape != expected:
            raise self.error(name, f"has shape {shape}; FIBERMAP and {name[0]}_WAVELENGTH make {expected}")
        is_real = hdu.kind == "image" and hdu.header.integer("BITPIX") < 0
        if is_real == (what == "MASK"):
            raise self.error(name, f"holds {'real' if is_real else 'whole'} numbers")
        if hdu.header.shown("BUNIT") == _BUNIT_OF_OTHER.get(what):
            raise self.error(name, f"has unit {hdu.header.shown('BUNIT')}: the names of HDUs are mixed up")

    def _grid_start(self, name: str) -> int:
        wave = self._file.image(name).astype(np.float64)
        if not np.isfinite(wave).all():
            raise self.error(name, "holds values that are not finite")
        start = round((wave[0] - WAVE_START) / WAVE_STEP) if abs(wave[0]) < 1e6 else -1
        grid = WAVE_START + WAVE_STEP * np.arange(start, start + len(wave))
        if start < 0 or start + len(wave) > N_WAVE or np.abs(wave - grid).max() > WAVE_TOLERANCE:
            raise self.error(
                name,
                f"{wave[0]:.4f} to {wave[-1]:.4f} Å is not on DESI's grid of {WAVE_STEP} Å from {WAVE_START:.0f} Å",
            )
        return int(start)

    def error(self, hdu: str, reason: str) -> InputError:
        """Return the error that names this file and an HDU."""
        return InputError(self.path, reason, where=hdu)


def read_cut(path: Path) -> Cut | None:
    """Return how a coadd was cut, from its primary header alone; None if it is the release's own.

    Also None if that header cannot be read: opening the file tells what is wrong with it.

    Raises
    ------
    InputError
        If the header says that the file was cut, but its cards of that are damaged.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        size = os.fstat(descriptor).st_size
        header = next(walk_hdus(lambda offset, n_bytes: os.pread(descriptor, n_bytes, offset), size, path)).header
    except (InputError, OSError):
        return None
    finally:
        os.close(descriptor)
    return _cut_of(header)


def _cut_of(header: Header) -> Cut | None:
    if "QADMODE" not in header:
        return None
    mode, sha256 = header.text("QADMODE"), header.text("QADSHA", "")
    if mode not in (ROWS, HDUS):
        raise header.error(f"QADMODE is {mode[:20]!r}, expected {ROWS} or {HDUS}: damaged; fetch the file again")
    if sha256 and not _SHA256.match(sha256):
        raise header.error(f"QADSHA is not a SHA-256: {sha256[:20]!r}: damaged; fetch the file again")
    return Cut(mode, sha256, header.shown("QADSEL"))
