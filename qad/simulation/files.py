"""Write the rows of a pixel as DESI writes them: coadd, redrock, and the list of checksums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from qad.desi import datamodel, layout
from qad.desi.datamodel import CAMERA_FIRST, CAMERA_PIXELS, NDIAG, TableColumn
from qad.simulation.fits import write_image, write_primary, write_table
from qad.simulation.instrument import resolution
from qad.simulation.rows import Row
from qad.simulation.sky import CAMERAS
from qad.storage.atomic import atomic_path, write_text
from qad.storage.provenance import hash_file
from qad.work.units import Pixel

CHUNK_ROWS = 64
_TEMPLATES = (
    ("GALAXY", "2.6"),
    ("QSO:::HIZ", "1.0"),
    ("QSO:::LOZ", "1.0"),
    *((f"STAR:::{kind}", "unknown") for kind in ("A", "B", "CV", "F", "G", "K", "M", "WD")),
)
"""Redrock templates of iron and their versions, as its redrock files name them."""


def write_pixel(folder: Path, pixel: Pixel, rows: Sequence[Row], with_resolution: bool = True) -> list[Path]:
    """Write a pixel's coadd, redrock and checksum files into `folder`, and return their paths.

    Raises
    ------
    StorageError
        If the disk is full or not writable.
    """
    coadd, redrock = folder / layout.coadd_name(pixel), folder / layout.redrock_name(pixel)
    with atomic_path(coadd) as partial, partial.open("w+b") as file:
        _write_coadd(file, pixel, rows, with_resolution)
    with atomic_path(redrock) as partial, partial.open("w+b") as file:
        _write_redrock(file, pixel, rows)
    sums = folder / layout.checksum_name(pixel)
    write_text(sums, "".join(f"{hash_file(path)}  {path.name}\n" for path in (coadd, redrock)))
    return [coadd, redrock, sums]


def write_tilepix(folder: Path, rows: Sequence[tuple[int, str, str, int, int]]) -> Path:
    """Write ``tilepix.fits``, and return its path; `rows` hold the columns of the data model in order."""
    path = folder / "tilepix.fits"
    values = dict(zip((column.name for column in datamodel.TILEPIX), zip(*rows, strict=True), strict=True))
    with atomic_path(path) as partial, partial.open("w+b") as file:
        write_primary(file, {})
        write_table(file, "TILEPIX", datamodel.TILEPIX, values, cards={"HPXNSIDE": layout.NSIDE, "HPXNEST": True})
    return path


def _group_cards(pixel: Pixel) -> dict[str, Any]:
    return {
        "SPGRP": "healpix",
        "SPGRPVAL": pixel.healpix,
        "HPXPIXEL": pixel.healpix,
        "HPXNSIDE": layout.NSIDE,
        "HPXNEST": "True",  # a string in iron, not a logical
        "SURVEY": pixel.survey,
        "PROGRAM": pixel.program,
    }


def _dependency_cards() -> dict[str, str]:
    names = (("python", "3.10.8"), ("desispec", "0.56.5"), ("redrock", "0.17.0"), ("SPECPROD", layout.SPECPROD))
    cards = {"LONGSTRN": "OGIP 1.0"}
    for i, (name, version) in enumerate(names):
        cards |= {f"DEPNAM{i:02d}": name, f"DEPVER{i:02d}": version}
    return cards | {"ASSEMBLY": "simulated by qad"}


def _write_coadd(file: BinaryIO, pixel: Pixel, rows: Sequence[Row], with_resolution: bool) -> None:
    write_primary(file, {**_group_cards(pixel), **_dependency_cards()})
    _write_rows(file, "FIBERMAP", datamodel.fibermap_columns(pixel.survey), [row.fibermap for row in rows])
    _write_rows(file, "EXP_FIBERMAP", datamodel.EXP_FIBERMAP, [item for row in rows for item in row.exposures])
    for camera in CAMERAS:
        _write_camera(file, camera, rows, with_resolution)
    _write_rows(file, "SCORES", datamodel.SCORES, [{"TARGETID": row.targetid, **row.scores} for row in rows])


def _write_camera(file: BinaryIO, camera: str, rows: Sequence[Row], with_resolution: bool) -> None:
    name, n_wave = camera.upper(), CAMERA_PIXELS[camera]
    wave = datamodel.CAMERA_START["b"] + 0.8 * (CAMERA_FIRST[camera] + np.arange(n_wave))
    write_image(file, f"{name}_WAVELENGTH", (n_wave,), "float64", [wave], datamodel.WAVE_BUNIT)
    shape = (len(rows), n_wave)
    for what, dtype, unit in (
        ("FLUX", "float32", datamodel.FLUX_BUNIT),
        ("IVAR", "float32", datamodel.IVAR_BUNIT),
        ("MASK", "int32", ""),
    ):
        parts = (getattr(row.spectrum, what.lower())[camera] for row in rows)
        write_image(file, f"{name}_{what}", shape, dtype, _stacked(parts), unit)
    if with_resolution:
        bands = (resolution(camera, row.spectrum.setting) for row in rows)
        write_image(file, f"{name}_RESOLUTION", (len(rows), NDIAG, n_wave), "float32", _stacked(bands))


def _write_redrock(file: BinaryIO, pixel: Pixel, rows: Sequence[Row]) -> None:
    templates: dict[str, str] = {}
    for i, (name, version) in enumerate(_TEMPLATES):
        templates |= {f"TEMNAM{i:02d}": name, f"TEMVER{i:02d}": version}
    write_primary(file, {"RRVER": "0.17.0", **templates, **_dependency_cards(), **_group_cards(pixel)})
    tsnr2 = [{"TARGETID": row.targetid, **row.scores} for row in rows]
    exposures = [item for row in rows for item in row.exposures]
    for name, columns, values in (
        ("REDSHIFTS", datamodel.REDSHIFTS, [row.redshift for row in rows]),
        ("FIBERMAP", _without_units(datamodel.fibermap_columns(pixel.survey)), [row.fibermap for row in rows]),
        ("EXP_FIBERMAP", _without_units(datamodel.EXP_FIBERMAP), exposures),
        ("TSNR2", datamodel.TSNR2, tsnr2),
    ):
        _write_rows(file, name, columns, values, datamodel.REDROCK_TNULL)


def _without_units(columns: Sequence[TableColumn]) -> list[TableColumn]:
    return [column._replace(unit="") for column in columns]


def _write_rows(
    file: BinaryIO,
    name: str,
    columns: Sequence[TableColumn],
    rows: Sequence[dict[str, Any]],
    tnull: dict[str, int] | None = None,
) -> None:
    """Write a table from one mapping per row; a column that no row has is 0 or blank."""
    empty = {column.name: "" if column.format.endswith("A") else 0 for column in columns}
    values = {column.name: [row.get(column.name, empty[column.name]) for row in rows] for column in columns}
    write_table(file, name, columns, values, tnull)


def _stacked(parts: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Gather rows into chunks: fewer, larger writes."""
    chunk: list[np.ndarray] = []
    for part in parts:
        chunk.append(part)
        if len(chunk) == CHUNK_ROWS:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)
