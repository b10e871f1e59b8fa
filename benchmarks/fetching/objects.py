"""Objects like those of DR1, made from random numbers: the same seed gives the same bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fetching.servers import BUCKET
from qad.desi import datamodel, layout
from qad.desi.datamodel import CAMERA_PIXELS, TableColumn
from qad.simulation.files import write_pixel
from qad.simulation.fits import write_image, write_primary, write_table
from qad.simulation.instrument import Spectrum
from qad.simulation.recipe import Order
from qad.simulation.rows import Row
from qad.storage.provenance import hash_file
from qad.work.units import Pixel

QUASAR_SHARE = 0.118
"""Rows of main/dark with SPECTYPE QSO and ZWARN 0: 1,512,491 of 12,778,525."""
WARNED_SHARE = 0.006
"""Rows with SPECTYPE QSO and a warning: the rest of 1,590,931."""
EXPOSURES_PER_TARGET = 1.45
"""Of pixel main/dark/23040: 1917 rows of EXP_FIBERMAP for 1323 targets."""
ROW_BYTES = 12 * sum(CAMERA_PIXELS.values())
"""FLUX, IVAR and MASK of one spectrum."""
FIRST_HEALPIX = 23040
BIG, TINY = "dr1", "tiny"


@dataclass(frozen=True)
class Sizes:
    """How much to make: pixels as in DR1 with so many targets, and tiny ones with two files of some 20 kB."""

    pixels: int = 14
    targets: int = 265
    tiny: int = 300
    seed: int = 0


@dataclass(frozen=True)
class Objects:
    """A folder of objects below one prefix of the bucket.

    Attributes
    ----------
    root : Path
        Holds the bucket.
    prefix : str
    files : dict
        Size of each file, by key below the prefix.
    quasars : list of int
        Wanted rows of each pixel.
    targets : int
        Rows of each pixel.
    """

    root: Path
    prefix: str
    files: dict[str, int]
    quasars: list[int]
    targets: int

    @property
    def source(self) -> str:
        """What ``qad fetch --source`` takes."""
        return f"s3://{BUCKET}/{self.prefix}/spectro/redux/iron"

    @property
    def n_bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    def first(self, n_pixels: int) -> Objects:
        """Return the first pixels only, as ``--limit`` takes them."""
        folders = sorted({key.rpartition("/")[0] for key in self.files})[:n_pixels]
        files = {key: size for key, size in self.files.items() if key.rpartition("/")[0] in folders}
        return Objects(self.root, self.prefix, files, self.quasars[:n_pixels], self.targets)

    def bytes_of(self, kind: str) -> int:
        """Return the bytes of all ``coadd`` or ``redrock`` files."""
        return sum(size for key, size in self.files.items() if key.rpartition("/")[2].startswith(kind))


def make_objects(root: Path, sizes: Sizes, say: Callable[[str], None]) -> dict[str, Objects]:
    """Make what is not there yet, and return the objects by prefix."""
    manifest = root / "manifest.json"
    if not manifest.exists() or json.loads(manifest.read_text())["sizes"] != asdict(sizes):
        shutil.rmtree(root, ignore_errors=True)
        say(f"making {sizes.pixels} pixels of {sizes.targets} targets and {sizes.tiny} tiny ones")
        rng = np.random.default_rng(sizes.seed)
        quasars = [_make_pixel(_folder(root, BIG, i), i, sizes.targets, rng) for i in range(sizes.pixels)]
        for i in range(sizes.tiny):
            _make_tiny(_folder(root, TINY, i), _pixel(i), rng)
        manifest.write_text(json.dumps({"sizes": asdict(sizes), "quasars": quasars}))
    quasars = json.loads(manifest.read_text())["quasars"]
    return {
        BIG: Objects(root, BIG, _files(root / BUCKET / BIG), quasars, sizes.targets),
        TINY: Objects(root, TINY, _files(root / BUCKET / TINY), [], 1),
    }


def _files(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _pixel(i: int) -> Pixel:
    return Pixel("main", "dark", FIRST_HEALPIX + i)


def _folder(root: Path, prefix: str, i: int) -> Path:
    folder = layout.pixel_folder(root / BUCKET / prefix / "spectro/redux/iron/healpix", _pixel(i))
    folder.mkdir(parents=True)
    return folder


def _make_pixel(folder: Path, i: int, n_targets: int, rng: np.random.Generator) -> int:
    """Write a pixel with true layout and checksums, and return how many of its rows are quasars without a warning."""
    order = rng.permutation(n_targets)
    n_quasars, n_warned = round(QUASAR_SHARE * n_targets), round(WARNED_SHARE * n_targets)
    rows = []
    for place in range(n_targets):
        rank = order[place]
        spectype = "QSO" if rank < n_quasars + n_warned else "GALAXY"
        zwarn = 0 if rank < n_quasars else 4
        rows.append(_row(rng, 39_627_000_000_000_000 + 10_000 * i + place, spectype, zwarn))
    write_pixel(folder, _pixel(i), rows)
    return n_quasars


def _row(rng: np.random.Generator, targetid: int, spectype: str, zwarn: int) -> Row:
    flux = {camera: rng.standard_normal(n, np.float32) for camera, n in CAMERA_PIXELS.items()}
    ivar = {camera: rng.random(n, np.float32) + np.float32(0.5) for camera, n in CAMERA_PIXELS.items()}
    mask = {camera: (rng.random(n) < 0.01).astype(np.int32) for camera, n in CAMERA_PIXELS.items()}
    n_exposures = 1 + int(rng.random() < EXPOSURES_PER_TARGET - 1)
    return Row(
        order=Order("qso"),
        targetid=targetid,
        spectrum=Spectrum(flux, {}, ivar, mask, 0),
        z_true=None,
        snr_true=0.0,
        fibermap={"TARGETID": targetid, "TARGET_RA": 30.0, "TARGET_DEC": 5.0, "OBJTYPE": "TGT"},
        exposures=[{"TARGETID": targetid, "EXPID": n} for n in range(n_exposures)],
        scores={},
        redshift={"TARGETID": targetid, "Z": 1.5, "SPECTYPE": spectype, "ZWARN": zwarn, "COEFF": np.zeros(10)},
    )


def _make_tiny(folder: Path, pixel: Pixel, rng: np.random.Generator) -> None:
    """Write a pixel whose two files have some 20 kB: what many small files cost does not depend on what is in them."""
    coadd, redrock = folder / layout.coadd_name(pixel), folder / layout.redrock_name(pixel)
    with coadd.open("w+b") as file:
        write_primary(file, {"SURVEY": pixel.survey})
        for name in ("B_FLUX", "B_IVAR"):
            write_image(file, name, (1, 2000), "float32", [rng.standard_normal((1, 2000), np.float32)])
    with redrock.open("w+b") as file:
        write_primary(file, {"SURVEY": pixel.survey})
        write_table(file, "REDSHIFTS", datamodel.REDSHIFTS, _blank(datamodel.REDSHIFTS, 70))
    lines = (f"{hash_file(path)}  {path.name}\n" for path in (coadd, redrock))
    (folder / layout.checksum_name(pixel)).write_text("".join(lines))


def _blank(columns: tuple[TableColumn, ...], n: int) -> Mapping[str, Any]:
    empty = {column.name: "" if column.format.endswith("A") else 0 for column in columns}
    return {name: [value if name != "COEFF" else [0.0] * 10] * n for name, value in empty.items()}
