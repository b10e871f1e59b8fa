"""The smallest true release: coadd and redrock files of a few targets, written with astropy, with checksums."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

# importlib mode does not put these folders on the path, and what is imported from them is no test
sys.path += [str(Path(__file__).parents[1] / "desi"), str(Path(__file__).parents[1] / "foundation")]

from qad.config import Config, load_config
from qad.desi import layout
from qad.results import RunOptions, StageResult
from qad.storage.provenance import hash_file
from qad.work.units import Pixel

CAMERAS = {"B": (0, 2751), "R": (2700, 2326), "Z": (4900, 2881)}
Hdus = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """One target, whose spectrum follows from its TARGETID."""

    targetid: int
    z: float = 2.1
    spectype: str = "QSO"
    zwarn: int = 0
    objtype: str = "TGT"
    fiberstatus: int = 0
    ra: float = 10.0
    dec: float = -5.0
    subtype: str = "HIZ"

    def plane(self, camera: str) -> dict[str, np.ndarray]:
        """Return flux, ivar and mask of a camera."""
        chance = np.random.default_rng([abs(self.targetid) % 2**31, ord(camera)])
        n_wave = CAMERAS[camera][1]
        ivar = chance.gamma(4, 0.25, n_wave).astype(np.float32)
        ivar[::97] = 0
        flux = (2 + chance.normal(size=n_wave) / np.sqrt(np.where(ivar > 0, ivar, 1))).astype(np.float32)
        mask = np.where(chance.random(n_wave) < 0.01, 4, 0).astype(np.int32)
        return {"FLUX": flux, "IVAR": ivar, "MASK": mask}


QUASAR, SECOND, GALAXY = Target(39627866878511337), Target(616088619186127404, z=1.0), Target(7, 0.3, "GALAXY")
TARGETS = (QUASAR, SECOND, GALAXY)


def column(name: str, form: str, values: Sequence[Any]) -> fits.Column:
    return fits.Column(name, form, array=np.array(values))


def coadd_hdus(targets: Sequence[Target]) -> Hdus:
    """Return the HDUs of a coadd by name, in the release's order."""
    primary = fits.PrimaryHDU()
    primary.header["SURVEY"], primary.header["PROGRAM"], primary.header["HPXPIXEL"] = "main", "dark", 47
    primary.header["DEPNAM00"], primary.header["DEPVER00"] = "SPECPROD", "iron"
    targetid = [target.targetid for target in targets]
    fibermap = [
        column("TARGETID", "K", targetid),
        column("COADD_FIBERSTATUS", "J", [target.fiberstatus for target in targets]),
        column("TARGET_RA", "D", [target.ra for target in targets]),
        column("TARGET_DEC", "D", [target.dec for target in targets]),
        column("OBJTYPE", "3A", [target.objtype for target in targets]),
        column("EBV", "E", [0.02] * len(targets)),
        column("DESI_TARGET", "K", [4] * len(targets)),
    ]
    exposures = [
        column("TARGETID", "K", targetid * 2),
        column("FIBER", "J", [t % 5000 for t in targetid] + [-1] * len(targets)),
    ]
    scores = [column("TARGETID", "K", targetid), column("TSNR2_QSO", "E", [float(t % 97) for t in targetid])]
    hdus = {
        "PRIMARY": primary,
        "FIBERMAP": fits.BinTableHDU.from_columns(fibermap),
        "EXP_FIBERMAP": fits.BinTableHDU.from_columns(exposures),
    }
    for camera, (start, n_wave) in CAMERAS.items():
        hdus[f"{camera}_WAVELENGTH"] = fits.ImageHDU(3600 + 0.8 * np.arange(start, start + n_wave))
        planes = [target.plane(camera) for target in targets]
        for what in ("FLUX", "IVAR", "MASK"):
            dtype = np.int32 if what == "MASK" else np.float32
            stack = np.array([plane[what] for plane in planes], dtype).reshape(len(targets), n_wave)
            hdus[f"{camera}_{what}"] = fits.ImageHDU(stack)
    return {**hdus, "SCORES": fits.BinTableHDU.from_columns(scores)}


def redrock_hdus(targets: Sequence[Target]) -> Hdus:
    """Return the HDUs of a redrock file by name."""
    columns = [
        column("TARGETID", "K", [target.targetid for target in targets]),
        column("Z", "D", [target.z for target in targets]),
        column("ZERR", "D", [1e-4] * len(targets)),
        column("ZWARN", "K", [target.zwarn for target in targets]),
        column(
            "COEFF",
            "10D",
            np.array([[t.targetid % 101 + k for k in range(10)] for t in targets], float).reshape(-1, 10),
        ),
        column("SPECTYPE", "6A", [target.spectype for target in targets]),
        column("SUBTYPE", "20A", [target.subtype for target in targets]),
        column("DELTACHI2", "D", [100.0] * len(targets)),
    ]
    return {"PRIMARY": fits.PrimaryHDU(), "REDSHIFTS": fits.BinTableHDU.from_columns(columns)}


def write_hdus(path: Path, hdus: Hdus) -> None:
    """Write HDUs under their names, with checksums."""
    for name, hdu in hdus.items():
        if name != "PRIMARY" and not hdu.header.get("EXTNAME"):
            hdu.header["EXTNAME"] = name
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(list(hdus.values())).writeto(path, overwrite=True, checksum=True)


def write_list(coadd: Path, redrock: Path) -> Path:
    """Write the SHA-256 list of a pixel's folder, and return its path."""
    kind_and_pixel = layout.parse_file_name(coadd.name)
    assert kind_and_pixel is not None
    path = coadd.with_name(layout.checksum_name(kind_and_pixel[1]))
    path.write_text("".join(f"{hash_file(file)}  {file.name}\n" for file in (coadd, redrock)))
    return path


def quasars_of(redrock: Path) -> list[int]:
    """Return the TARGETIDs that fetch takes by default."""
    with fits.open(redrock) as hdus:
        rows = hdus["REDSHIFTS"].data
        return [int(row["TARGETID"]) for row in rows if row["SPECTYPE"] == "QSO" and row["ZWARN"] == 0]


def cut_coadd(path: Path, targetids: Collection[int] | None, cards: dict[str, Any] | None = None) -> str:
    """Put in a coadd's place what is left without RESOLUTION, and of these targets alone; return its old SHA-256.

    Parameters
    ----------
    path : Path
    targetids : collection of int or None
        None: all.
    cards : dict
        Of the primary header, in place of the right ones; None leaves one out.
    """
    told = {
        "QADMODE": "hdus" if targetids is None else "rows",
        "QADSHA": hash_file(path),
        "QADETAG": "0123456789abcdef-2",
        "QADSIZE": path.stat().st_size,
        "QADSEL": "SPECTYPE QSO, ZWARN 0",
    }
    with fits.open(path, do_not_scale_image_data=True, character_as_bytes=True) as hdus:
        told["QADNROWS"] = len(hdus["FIBERMAP"].data)
        is_kept = _rows_of(hdus["FIBERMAP"], targetids)
        kept = fits.HDUList()
        for hdu in hdus:
            if hdu.name.endswith("_RESOLUTION"):
                continue
            new = hdu.copy()
            if isinstance(hdu, fits.BinTableHDU):
                new = fits.BinTableHDU(hdu.data[_rows_of(hdu, targetids)], hdu.header)
            elif hdu.name.endswith(("_FLUX", "_IVAR", "_MASK")):
                new = fits.ImageHDU(hdu.data[is_kept], hdu.header)
            kept.append(new)
        for key, value in (told | (cards or {})).items():
            if value is not None:
                kept[0].header[key] = value
        partial = path.with_suffix(".new")
        kept.writeto(partial, checksum=True, overwrite=True)
    partial.replace(path)
    return str(told["QADSHA"])


def _rows_of(table: Any, targetids: Collection[int] | None) -> np.ndarray:
    found = table.data["TARGETID"]
    return np.ones(len(found), bool) if targetids is None else np.isin(found, np.array([*targetids], np.int64))


class MadeRelease:
    """A release tree in the making."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.healpix = root / "spectro" / "redux" / "iron" / "healpix"

    def paths(self, pixel: Pixel) -> tuple[Path, Path]:
        folder = layout.pixel_folder(self.healpix, pixel)
        return folder / layout.coadd_name(pixel), folder / layout.redrock_name(pixel)

    def add(
        self,
        pixel: Pixel,
        targets: Sequence[Target] = TARGETS,
        redrock_targets: Sequence[Target] | None = None,
        edit: Callable[[Hdus, Hdus], object] | None = None,
    ) -> tuple[Path, Path]:
        """Write a pixel; `edit` may change the HDUs of coadd and redrock before."""
        coadd = coadd_hdus(targets)
        redrock = redrock_hdus(targets if redrock_targets is None else redrock_targets)
        if edit is not None:
            edit(coadd, redrock)
        paths = self.paths(pixel)
        write_hdus(paths[0], coadd)
        write_hdus(paths[1], redrock)
        return paths


class Kit:
    """What the tests of this folder share, as a fixture because test modules cannot import each other."""

    Target, QUASAR, SECOND, GALAXY, TARGETS, CAMERAS = Target, QUASAR, SECOND, GALAXY, TARGETS, CAMERAS
    PIXEL = Pixel("main", "dark", 47)
    column = staticmethod(column)
    replace = staticmethod(replace)
    write_hdus = staticmethod(write_hdus)
    coadd_hdus = staticmethod(coadd_hdus)
    redrock_hdus = staticmethod(redrock_hdus)
    write_list = staticmethod(write_list)
    quasars_of = staticmethod(quasars_of)
    cut_coadd = staticmethod(cut_coadd)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.release = MadeRelease(folder / "release")

    def config(self, root: str = "work", source: Path | None = None, **keys: Any) -> Config:
        source = self.release.root if source is None else source
        source = "" if source == Path() else source
        overrides = {f"extract.{key}": value for key, value in keys.items()}
        return load_config(None, {"paths.root": str(self.folder / root), "extract.source": str(source), **overrides})

    def extract(
        self, root: str = "work", source: Path | None = None, options: RunOptions | None = None, **keys: Any
    ) -> StageResult:
        from qad.extraction.stage import extract

        return extract(self.config(root, source, **keys), options or RunOptions(jobs=1))


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)
