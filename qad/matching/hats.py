"""HATS catalogues: folders of Parquet files by HEALPix pixel, of which only those near the candidates are read.

The layout (Hierarchical Adaptive Tiling Scheme, IVOA Note 2024): ``hats.properties`` (or ``properties``), and
``dataset/Norder=K/Dir=D/Npix=N.parquet``, or a folder ``Npix=N`` of files; a collection's ``collection.properties`` names the
catalogue in it.  Pixels are nested, of order K.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qad.desi.sky import healpix_of
from qad.errors import InputError
from qad.matching.sky import ARCSEC_PER_DEG, Floats, normal_ra
from qad.matching.source import Source, read_errors
from qad.matching.tables import parquet_source_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROPERTIES = ("hats.properties", "properties")
_PIXEL = re.compile(r"Norder=(\d+)/(?:Dir=\d+/)?Npix=(\d+)(?:/|\.parquet\Z|\.pq\Z|\Z)")
_PIXEL_DEG = 58.6
"""Side of a HEALPix pixel of nside 1, in degrees; a pixel and its neighbours hold every disc of a quarter of that in it."""
MAX_ORDER = 12
FINER = 4
"""Orders beyond the finest partition at which discs are looked at: few partitions are then read for nothing."""
FINEST = 13
"""Finest pixel whose number fits 32 bits."""


@dataclass(frozen=True)
class Partition:
    """A file of a catalogue, and the HEALPix pixel whose rows it has."""

    path: Path
    order: int
    pixel: int


def hats_root(path: Path) -> Path | None:
    """Return the folder of the HATS catalogue that a folder is or, as a collection, names; None if it is neither."""
    if any((path / name).is_file() for name in PROPERTIES) and (path / "dataset").is_dir():
        return path
    collection = path / "collection.properties"
    if not collection.is_file():
        return None
    name = read_properties(collection).get("hats_primary_table_url", "")
    inner = path / name
    if not name or ".." in Path(name).parts or not (inner / "dataset").is_dir():
        raise InputError(collection, f"hats_primary_table_url is {name!r}, which is no HATS catalogue in this folder")
    return inner


def read_properties(path: Path) -> dict[str, str]:
    """Return the entries of a properties file: ``key = value`` lines."""
    with read_errors(path, ""):
        text = path.read_text("utf-8", "replace")
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def partitions(root: Path) -> list[Partition]:
    """Return the files of a HATS catalogue, by order, pixel and name.

    Raises
    ------
    InputError
        If there is none, or a pixel does not exist at its order.
    """
    found = []
    dataset = root / "dataset"
    for path in sorted([*dataset.rglob("*.parquet"), *dataset.rglob("*.pq")]):
        match = _PIXEL.search(str(path.relative_to(dataset)))
        if match is None or not path.is_file() or path.name.startswith(("_", ".")):
            continue
        order, pixel = int(match[1]), int(match[2])
        if order > FINEST or pixel >= 12 * 4**order:
            raise InputError(path, f"pixel {pixel} of order {order}: there is none, or it is too fine to be read")
        found.append(Partition(path, order, pixel))
    if not found:
        raise InputError(root, "a HATS catalogue without Parquet files below dataset/Norder=*/")
    return sorted(found, key=lambda part: (part.order, part.pixel, str(part.path)))


def hats_sources(root: Path) -> Iterator[Source]:
    """Yield the one table of a HATS catalogue.

    Raises
    ------
    InputError
        As :func:`partitions`.
    """
    parts = partitions(root)
    source = parquet_source_of(root, [part.path for part in parts])

    def around(ra: Floats, dec: Floats, radius_arcsec: float) -> Source:
        chosen = near(parts, ra, dec, radius_arcsec)
        counter = PartitionCounts(chosen)
        return replace(source, read=parquet_source_of(root, [part.path for part in chosen]).read, counter=counter)

    yield replace(source, around=around)


def near(parts: list[Partition], ra: Floats, dec: Floats, radius_arcsec: float) -> list[Partition]:
    """Return the partitions that hold every row within the radius of any position; a few more at most.

    A disc lies in the pixel of its centre and that one's neighbours, at an order whose pixels are four radii wide.
    """
    from astropy_healpix import HEALPix

    valid = np.isfinite(ra) & (np.abs(dec) <= 90)
    ra, dec = normal_ra(ra[valid]), dec[valid]
    fits = _PIXEL_DEG / max(4 * radius_arcsec / ARCSEC_PER_DEG, 1e-9)
    finest = min(MAX_ORDER, max(part.order for part in parts) + FINER)
    order = int(np.clip(np.floor(np.log2(max(fits, 1.0))), 0, finest))
    pixels = _distinct(healpix_of(ra, dec, 1 << order).astype(np.int64))
    with np.errstate(invalid="ignore"):  # at a corner of the sky's base pixels there are seven
        around = HEALPix(1 << order, order="nested").neighbours(pixels).ravel()
    pixels = _distinct(np.concatenate([pixels, around[around >= 0]]))
    chosen = []
    for part in parts:
        if part.order <= order:
            first = part.pixel << 2 * (order - part.order)
            last = first + (1 << 2 * (order - part.order)) - 1
        else:
            first = last = part.pixel >> 2 * (part.order - order)
        place = int(np.searchsorted(pixels, first))
        if place < len(pixels) and pixels[place] <= last:
            chosen.append(part)
    return chosen


def _distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return numbers in order, each once; NumPy's own way of hashing them is ten times slower on pixel numbers (2.4)."""
    values = np.sort(values)
    is_first = np.ones(len(values), bool)
    is_first[1:] = values[1:] != values[:-1]
    return values[is_first]


class PartitionCounts:
    """Measures the density of a catalogue from the rows of its partitions, which their files tell without being read."""

    def __init__(self, parts: list[Partition]) -> None:
        import pyarrow.parquet as pq

        self._orders: dict[int, dict[int, int]] = {}
        for part in parts:
            with read_errors(part.path, ""):
                rows = pq.read_metadata(part.path).num_rows
            pixels = self._orders.setdefault(part.order, {})
            pixels[part.pixel] = pixels.get(part.pixel, 0) + rows

    def add(self, ra: Floats, dec: Floats) -> None:
        """Take rows; see :class:`~qad.matching.density.Counter`."""

    def density(self, matched: tuple[Floats, Floats], ra: Floats, dec: Floats, radius_arcsec: float) -> Floats:
        """Return the density at positions; see :class:`~qad.matching.density.Counter`."""
        density = np.full(len(ra), np.nan)
        for order, pixels in self._orders.items():
            area = 4 * np.pi * np.degrees(1) ** 2 / (12 * 4**order)
            mine = healpix_of(ra, dec, 1 << order)
            taken = np.unique(healpix_of(*matched, 1 << order), return_counts=True)
            related = dict(zip(*(values.tolist() for values in taken), strict=True))
            for pixel in np.unique(mine):
                if int(pixel) in pixels:
                    others = pixels[int(pixel)] - related.get(int(pixel), 0)
                    density[mine == pixel] = others / area if others > 0 else np.nan
        return density
