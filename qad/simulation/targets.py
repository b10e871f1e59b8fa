"""What DESI knows of a target beside its spectrum: identifier, place, photometry, fibre, exposures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qad.desi.layout import N_PIXELS, NSIDE

Array = NDArray[np.float64]

RELEASE_SOUTH, RELEASE_NORTH = 9010, 9011
"""Data releases of the Legacy Surveys' imaging that DESI TARGETIDs carry (desitarget)."""
SKY_BIT = 1 << 59
NORTH_DEC = 32.375
"""North of it, deg, imaging is that of BASS and MzLS (Dey et al. 2019, AJ 157, 168)."""
GAIA_LIMIT = 20.7
"""Faintest g magnitude in Gaia DR2."""
PRIORITY = 3400
PETAL_FIBERS = 500
PSF_TO_FIBER_SPECFLUX = 0.79
"""Share of a point source's light that enters a fibre (median of the iron and fuji files)."""
DESI_TARGET = {"qso": 1 << 2, "galaxy": 1 << 1, "star": 1 << 2, "sky": 1 << 32, "dead": 0}
"""Targeting bits QSO, ELG and SKY (desitarget.targetmask); most stars among the spectra were targeted as quasars."""
_BRICK_DEG = 0.25
MAX_OBJECTS = 1 << 13
"""Objects of a pixel; 512 pixels share the 22 bits that a TARGETID has for them."""
_BANDS = {"g": (4050.0, 5500.0), "r": (5650.0, 7150.0), "z": (8450.0, 9820.0)}
"""Half-power limits of the imaging bands, Å (DECam; Dey et al. 2019, AJ 157, 168); z ends where the spectra do."""
DEPTH_IVAR = {"g": 1500.0, "r": 700.0, "z": 130.0, "w1": 3.5, "w2": 0.9}
"""Inverse variance of the fluxes, nanomaggy-2: the iron and fuji files."""
NANOMAGGY_FNU = 3.631e-29
"""erg/s/cm2/Hz: AB magnitude 22.5."""
_GALACTIC_POLE = np.array([-0.86766615, -0.19807637, 0.45598378])
"""Unit vector (ICRS) of the north Galactic pole (ESA 1997, the Hipparcos catalogue, §1.5.3)."""
MIN_LATITUDE_DEG = 25.0
DEC_RANGE = (-15.0, 75.0)


@dataclass(frozen=True)
class Place:
    """Where a target is: position, deg, its number in the imaging brick, and Galactic E(B-V), mag."""

    ra: float
    dec: float
    objid: int
    ebv: float


@dataclass(frozen=True)
class Tile:
    """One visit of the telescope."""

    tileid: int
    night: int
    expid: int
    mjd: float
    petal: int


@lru_cache(maxsize=1)
def footprint() -> NDArray[np.int64]:
    """Return the healpix pixels (nside 64, nested) that lie where DESI observes, sorted."""
    from astropy_healpix import HEALPix

    pixels = np.arange(N_PIXELS)
    lon, lat = HEALPix(NSIDE, order="nested").healpix_to_lonlat(pixels)
    ra, dec = lon.to_value("rad"), lat.to_value("rad")
    place = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
    latitude = np.degrees(np.arcsin(place @ _GALACTIC_POLE))
    inside = (np.abs(latitude) > MIN_LATITUDE_DEG) & (np.degrees(dec) > DEC_RANGE[0]) & (np.degrees(dec) < DEC_RANGE[1])
    return pixels[inside]


def choose_pixels(count: int, seed: int) -> list[int]:
    """Return `count` different pixels of the footprint, sorted."""
    return sorted(int(pixel) for pixel in np.random.default_rng([seed, NSIDE]).permutation(footprint())[:count])


def draw_positions(rng: np.random.Generator, healpix: int, count: int) -> tuple[Array, Array]:
    """Return right ascensions and declinations, deg, uniform over a pixel's area."""
    from astropy_healpix import HEALPix

    dx, dy = rng.random(count), rng.random(count)
    lon, lat = HEALPix(NSIDE, order="nested").healpix_to_lonlat(np.full(count, healpix), dx, dy)
    return lon.to_value("deg") % 360.0, lat.to_value("deg")


def brick(ra: float, dec: float) -> tuple[str, int]:
    """Return name and number of the imaging brick that holds a place, deg: the scheme of desiutil.brick."""
    centres, columns, first = _brick_rows()
    row = int(np.clip(np.floor((dec + 90.0 + _BRICK_DEG / 2) / _BRICK_DEG), 0, centres.size - 1))
    column = int(ra / 360.0 * columns[row])
    centre_ra = (column + 0.5) * 360.0 / columns[row]
    sign = "p" if centres[row] >= 0 else "m"
    return f"{int(centre_ra * 10):04d}{sign}{int(abs(centres[row]) * 10):03d}", int(first[row]) + column + 1


@lru_cache(maxsize=1)
def _brick_rows() -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Return declination of each row of bricks, its number of bricks, and the bricks in the rows before it."""
    centres = np.clip(-90.0 + _BRICK_DEG * np.arange(round(180.0 / _BRICK_DEG) + 1), -90.0, 90.0)
    width = np.maximum(np.cos(np.radians(np.abs(centres) - _BRICK_DEG / 2)), 0.0)
    columns = (2 * np.ceil(180.0 / _BRICK_DEG * width)).astype(np.int64)
    columns[[0, -1]] = 1  # each pole is one brick
    return centres, columns, np.concatenate([[0], np.cumsum(columns)[:-1]])


def encode_targetid(release: int, brickid: int, objid: int, is_sky: bool = False) -> int:
    """Return a TARGETID: 22 bits of object, 20 of brick, 16 of release, and a bit for sky (desitarget.targets)."""
    return (SKY_BIT if is_sky else 0) | release << 42 | brickid << 22 | objid


def objid_slot(healpix: int) -> int:
    """Return a number below 512 in which neighbouring pixels of the footprint differ."""
    # blocks of 16 x 16 pixels; the base faces around a pole are turned against each other, hence the parity of the face
    return healpix % 256 + 256 * (healpix // NSIDE**2 % 2)


def draw_objids(rng: np.random.Generator, healpix: int, count: int) -> list[int]:
    """Return different numbers for the objects of a pixel, which no neighbour has: a brick may lie in several pixels."""
    first = objid_slot(healpix) * MAX_OBJECTS
    return [first + int(n) for n in rng.permutation(MAX_OBJECTS)[:count]]


def unassigned_targetid(tileid: int, objid: int) -> int:
    """Return a negative identifier, as DESI gives to a fibre without a target: ten thousand numbers a tile."""
    return -(tileid * 10_000 + objid % MAX_OBJECTS)


def draw_tiles(rng: np.random.Generator, count: int) -> list[Tile]:
    """Return visits of a place: dark nights of the first year of the main survey."""
    days = np.sort(rng.choice(400, count, replace=False))
    first = int(rng.integers(1000, 9000))
    tiles = []
    for i, day in enumerate(days):
        date = np.datetime64("2021-05-14") + np.timedelta64(int(day), "D")
        night = int(str(date).replace("-", ""))
        mjd = 59_348.3 + float(day) + 0.3 * float(rng.random())
        tiles.append(
            Tile(first + 17 * i, night, 88_000 + 110 * int(day) + int(rng.integers(90)), mjd, int(rng.integers(10)))
        )
    return tiles


def synthetic_fluxes(wave: Array, flux: Array) -> dict[str, float]:
    """Return g, r and z in nanomaggies: photon-weighted means over the bands; `flux` in 1e-17 erg/s/cm2/Å."""
    fluxes = {}
    for name, (low, high) in _BANDS.items():
        inside = (wave >= low) & (wave <= high)
        w = wave[inside]
        fnu = np.sum(flux[inside] * w) / np.sum(2.99792458e18 / w)
        fluxes[name] = float(fnu) * 1e-17 / NANOMAGGY_FNU
    return fluxes


def flux_of_magnitude(r_mag: float) -> float:
    """Return nanomaggies of an AB magnitude."""
    return float(10.0 ** (0.4 * (22.5 - r_mag)))


def photometry(rng: np.random.Generator, fluxes: dict[str, float], kind: str, is_point: bool) -> dict[str, Any]:
    """Return the imaging columns of the fibermap, with the errors of the Legacy Surveys."""
    infrared = {"qso": (2.2, 1.45), "galaxy": (2.0, 0.9), "star": (0.35, 0.55)}.get(kind, (0.0, 0.0))
    scatter = np.exp(rng.normal(0.0, (0.35, 0.15)))
    true = {**fluxes, "w1": fluxes["z"] * infrared[0] * scatter[0]}
    true["w2"] = true["w1"] * infrared[1] * scatter[1]
    columns: dict[str, Any] = {}
    fibre_share = 0.78 if is_point else 0.5
    for band, value in true.items():
        ivar = DEPTH_IVAR[band] * float(np.exp(rng.normal(0.0, 0.15))) if kind not in ("sky", "dead") else 0.0
        measured = value + float(rng.normal()) / np.sqrt(ivar) if ivar else 0.0
        columns[f"FLUX_{band.upper()}"] = measured
        columns[f"FLUX_IVAR_{band.upper()}"] = ivar
        if band in _BANDS:
            columns[f"FIBERFLUX_{band.upper()}"] = columns[f"FIBERTOTFLUX_{band.upper()}"] = fibre_share * measured
    return columns
