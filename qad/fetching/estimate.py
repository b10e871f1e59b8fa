"""How many bytes each mode would fetch, from a plan and the number of wanted rows in some of its pixels.

A coadd's size tells its rows, for DESI's layout is fixed: 7958 pixels of four kinds (three of 4 bytes, the resolution
matrix of 44) and some tables.  Which of the rows are wanted only redrock files, or a table of targets, can tell; what
a sample of pixels says of the rest is a ratio estimate (Cochran 1977, Sampling Techniques, ch. 6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qad.desi.datamodel import CAMERA_PIXELS, NDIAG
from qad.desi.header import BLOCK
from qad.fetching.plan import PixelFiles
from qad.fetching.targets import Targets
from qad.work.units import Pixel

N_WAVE = sum(CAMERA_PIXELS.values())
SPECTRUM_BYTES = 3 * 4 * N_WAVE
"""FLUX, IVAR and MASK of a target."""
RESOLUTION_BYTES = 4 * NDIAG * N_WAVE
TABLE_BYTES = 317 + 172 + 1.45 * 162
"""A target's rows of FIBERMAP, SCORES and EXP_FIBERMAP (iron, main/dark: 1.45 exposures a target)."""
TARGET_BYTES = SPECTRUM_BYTES + RESOLUTION_BYTES + TABLE_BYTES
HEADER_BYTES = 28 * BLOCK
"""All headers of a coadd of iron."""
WAVELENGTH_BYTES = sum(-(-8 * n // BLOCK) * BLOCK for n in CAMERA_PIXELS.values())
PADDING_BYTES = 15 * BLOCK // 2
"""Twelve images and three tables whose last block is half empty on average."""
FIXED_BYTES = HEADER_BYTES + WAVELENGTH_BYTES + PADDING_BYTES
"""What a coadd takes without any target."""


@dataclass(frozen=True)
class Amount:
    """A number and its standard error, 0 where it is exact."""

    value: float
    error: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """Bytes by mode, and the rows that are wanted; without any count of them only `files` is known.

    Attributes
    ----------
    files : Amount
        Exact.
    hdus, rows, n_wanted : Amount or None
    n_targets : int
        All rows, as the sizes tell.
    """

    files: Amount
    hdus: Amount | None
    rows: Amount | None
    n_wanted: Amount | None
    n_targets: int


def count_targets(coadd_bytes: int) -> int:
    """Return the rows of a coadd of this size."""
    return max(1, round((coadd_bytes - FIXED_BYTES) / TARGET_BYTES))


def hdus_bytes(coadd_bytes: int, resolution: bool = False) -> int:
    """Return the bytes of a coadd, without its resolution matrices or with them."""
    return coadd_bytes if resolution else max(0, coadd_bytes - count_targets(coadd_bytes) * RESOLUTION_BYTES)


def rows_bytes(coadd_bytes: int, n_wanted: int, resolution: bool = False) -> int:
    """Return the bytes of wanted rows of a coadd, with its tables, headers and wavelengths."""
    tables = round(count_targets(coadd_bytes) * TABLE_BYTES)
    row = SPECTRUM_BYTES + RESOLUTION_BYTES * resolution
    return min(coadd_bytes, HEADER_BYTES + WAVELENGTH_BYTES + tables + n_wanted * row)


def estimate(pixels: Sequence[PixelFiles], wanted: Mapping[Pixel, int], resolution: bool = False) -> Estimate:
    """Return what each mode would fetch of a plan.

    Parameters
    ----------
    pixels : sequence of PixelFiles
    wanted : mapping of Pixel to int
        How many rows are wanted of some pixels, or of all: then nothing is guessed.  Pixels without a wanted row cost
        only their redrock file and list.
    resolution : bool
        The resolution matrices too.
    """
    sizes = [_coadd_bytes(files) for files in pixels]
    counts = [wanted.get(files.pixel) for files in pixels]
    targets = np.array([count_targets(size) for size in sizes], float)
    always = float(sum(files.n_bytes - size for files, size in zip(pixels, sizes, strict=True)))
    whole = Amount(always + sum(sizes))
    known = np.array([count is not None for count in counts], bool)
    if pixels and not known.any():
        return Estimate(whole, None, None, None, int(targets.sum()))
    pairs = list(zip(sizes, counts, strict=True))
    hdus = _total([hdus_bytes(size, resolution) if count else 0 for size, count in pairs], targets, known)
    rows = _total([rows_bytes(size, count, resolution) if count else 0 for size, count in pairs], targets, known)
    n_wanted = _total([count or 0 for count in counts], targets, known)
    return Estimate(
        whole,
        Amount(always + hdus.value, hdus.error),
        Amount(always + rows.value, rows.error),
        n_wanted,
        int(targets.sum()),
    )


def sample_pixels(pixels: Sequence[PixelFiles], k: int) -> list[PixelFiles]:
    """Return up to `k` pixels, spread evenly: always the same ones."""
    n = min(k, len(pixels))
    return [pixels[int((i + 0.5) * len(pixels) / n)] for i in range(n)]


def count_listed(targets: Targets, pixels: Sequence[PixelFiles]) -> dict[Pixel, int] | None:
    """Return the rows of each pixel that a table lists; None where it does not say in which pixel a target is."""
    if not targets.is_exact:
        return None
    found = {}
    for files in pixels:
        listed = targets.of_pixel(files.pixel)
        found[files.pixel] = len(listed if targets.targetid is None else np.unique(targets.targetid[listed]))
    return found


def _coadd_bytes(files: PixelFiles) -> int:
    return sum(file.size for file in files.data if file.name.startswith("coadd-"))


def _total(values: Sequence[float], targets: np.ndarray, known: np.ndarray) -> Amount:
    """Return the sum over all pixels of what is known of some, which goes with their number of targets.

    The standard error is that of the ratio estimator for a sample without replacement (Cochran 1977, ch. 6), which a
    single pixel cannot tell: then it is what is guessed.
    """
    y, x = np.asarray(values, float)[known], targets[known]
    n, n_all = len(y), len(targets)
    if n == n_all:
        return Amount(float(y.sum()))
    ratio = y.sum() / x.sum()
    unknown = float(ratio * targets[~known].sum())
    if n == 1:
        return Amount(float(y.sum()) + unknown, unknown)
    spread = float(((y - ratio * x) ** 2).sum()) / (n - 1)
    return Amount(float(y.sum()) + unknown, math.sqrt(n_all * (n_all - n) * spread / n))


def row_requests(n_rows: int, n_wanted: int, gap: int, resolution: bool = False) -> tuple[float, float]:
    """Return how many requests wanted rows take, and how many bytes of gaps come with them.

    Rows stand in random order, so the gap before a wanted row is geometric: k unwanted rows have the probability
    ``p (1 - p)^k``, where p is the share of wanted ones.

    Parameters
    ----------
    n_rows, n_wanted : int
        Of one coadd.
    gap : int
        Bytes up to which neighbours are fetched together.
    resolution : bool
        The resolution matrices too.
    """
    if not n_wanted:
        return 0.0, 0.0
    p = min(n_wanted / max(n_rows, 1), 1.0)
    requests = n_bytes = 0.0
    for n_wave in CAMERA_PIXELS.values():
        widths = [4 * n_wave] * 3 + [4 * NDIAG * n_wave] * resolution
        for width in widths:
            most = gap // width
            requests += 1 + (n_wanted - 1) * (1 - p) ** (most + 1)
            n_bytes += (n_wanted - 1) * width * sum(k * p * (1 - p) ** k for k in range(1, most + 1))
    return requests, n_bytes
