"""What DESI's tables say of a row: fibermap, exposures, scores, and the redshift that redrock finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qad.desi.datamodel import TSNR2_KINDS
from qad.lines import LIGHT_SPEED_KMS
from qad.simulation import sky, targets
from qad.simulation.instrument import Spectrum
from qad.simulation.recipe import Order

Array = NDArray[np.float64]

REDSHIFT_SCATTER_KMS = ((0.8, 120.0), (0.2, 350.0))
"""Shares and widths of the error of redrock's quasar redshifts (Chaussidon et al. 2023, ApJ 944, 107)."""
ZWARN_SKY, ZWARN_SMALL_DELTACHI2, ZWARN_NODATA = 1 << 0, 1 << 2, 1 << 9
HIZ_Z = 1.5
"""Above it redrock's template for high redshifts fits best; both reach from 1.4 to 1.6."""
DELTACHI2_SHARE = 0.5
"""What DELTACHI2 is of the signal in structure narrower than 480 Å; gives 5 % of SPECTYPE QSO rows a warning, as in main/dark."""
MIN_DELTACHI2 = 9.0
"""Below it redrock sets ZWARN bit 2."""
_TSNR2 = {"GPBDARK": (295.0, 9900.0, 2.8e-5), "ELG": (0.14, 24.8, 97.9), "GPBBRIGHT": (53.0, 1757.0, 5e-6),
          "LYA": (100.0, 0.028, 0.0), "BGS": (717.0, 1878.0, 4319.0), "GPBBACKUP": (366.0, 11_976.0, 3.6e-5),
          "QSO": (3.5, 6.8, 20.0), "LRG": (1.4, 34.4, 46.3)}  # fmt: skip
"""TSNR2 of cameras b, r, z in 1000 s of dark time (the iron and fuji files, scaled)."""
_FALSE_SKY_Z = (0.5, 1.0, 3.8, 5.2)
"""Where sky fibres fitted as quasars pile up (desispec issue 2278)."""


@dataclass
class Light:
    """What enters the fibre, and what redrock will make of it.

    Attributes
    ----------
    flux : ndarray, shape (7781,)
        1e-17 erg/s/cm2/Å on the merged grid.
    z_true : float or None
    z_fit : float
        Where redrock puts it, but for its scatter.
    spectype, subtype, morphtype : str
    """

    flux: Array
    z_true: float | None
    z_fit: float
    spectype: str
    subtype: str
    morphtype: str = "PSF"


@dataclass(frozen=True)
class Visits:
    """How a target was observed: visits, their exposure times (s) and fibres, and the coadd's fibre status."""

    tiles: Sequence[targets.Tile]
    exptime: Sequence[float]
    fibers: Sequence[int]
    status: int = 0


def target_columns(
    rng: np.random.Generator, order: Order, light: Light, place: targets.Place, survey: str
) -> dict[str, Any]:
    """Return what FIBERMAP says of a target whoever observes it: place, identifier, photometry, targeting."""
    is_target = order.kind not in ("sky", "dead")
    is_point = light.morphtype == "PSF"
    release = targets.RELEASE_NORTH if place.dec > targets.NORTH_DEC else targets.RELEASE_SOUTH
    brickname, brickid = targets.brick(place.ra, place.dec)
    fluxes = targets.synthetic_fluxes(sky.WAVE, light.flux)
    bits = targets.DESI_TARGET[order.kind]
    return {
        "TARGETID": targets.encode_targetid(release, brickid, place.objid, order.kind == "sky"),
        "TARGET_RA": place.ra,
        "TARGET_DEC": place.dec,
        "FA_TARGET": bits,
        "FA_TYPE": 1 if is_target else 4,
        "OBJTYPE": {"sky": "SKY", "dead": ""}.get(order.kind, "TGT"),
        "SUBPRIORITY": float(rng.random()),
        "OBSCONDITIONS": 1,
        "RELEASE": release if is_target else 0,
        "BRICKNAME": brickname,
        "BRICKID": brickid,
        "BRICK_OBJID": place.objid,
        "MORPHTYPE": light.morphtype if is_target else "",
        "EBV": place.ebv if is_target else 0.0,
        "SERSIC": 0.0 if is_point else 1.0,
        "SHAPE_R": 0.0 if is_point else float(rng.uniform(0.2, 1.5)),
        "PHOTSYS": ("N" if release == targets.RELEASE_NORTH else "S") if is_target else "",
        "PRIORITY_INIT": targets.PRIORITY if is_target else 0,
        "NUMOBS_INIT": 4 if is_target else 0,
        f"{survey.upper()}_DESI_TARGET" if survey.startswith("sv") else "DESI_TARGET": bits,
        "PLATE_RA": place.ra,
        "PLATE_DEC": place.dec,
        "MEAN_FIBER_RA": place.ra,
        "MEAN_FIBER_DEC": place.dec,
        **_gaia(rng, order, fluxes, is_target and is_point),
        **targets.photometry(rng, fluxes, order.kind, is_point),
    }


def _gaia(rng: np.random.Generator, order: Order, fluxes: dict[str, float], may_be_in: bool) -> dict[str, Any]:
    """Return the columns that come from Gaia; faint and extended targets are not in it."""
    g_mag = 22.5 - 2.5 * float(np.log10(max(fluxes["g"], 1e-3)))
    is_near = order.kind == "star" or order.anomaly == "star"
    motion = rng.normal(0.0, 8.0 if is_near else 0.3, 2)
    parallax, source = rng.normal(0.6 if is_near else 0.0, 0.3), rng.integers(1 << 58, 1 << 62)
    if not may_be_in or g_mag > targets.GAIA_LIMIT:
        return {}
    return {
        "PMRA": float(motion[0]),
        "PMDEC": float(motion[1]),
        "REF_EPOCH": 2015.5,
        "REF_ID": int(source),
        "REF_CAT": "G2",
        "GAIA_PHOT_G_MEAN_MAG": g_mag,
        "GAIA_PHOT_BP_MEAN_MAG": g_mag + 0.2,
        "GAIA_PHOT_RP_MEAN_MAG": g_mag - 0.4,
        "PARALLAX": float(parallax),
    }


def fibermap(target: dict[str, Any], visits: Visits, order: Order) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of FIBERMAP and those of EXP_FIBERMAP."""
    is_dead, has_source = order.kind == "dead", order.kind not in ("sky", "dead")
    row = dict(target)
    if is_dead:
        row["TARGETID"] = targets.unassigned_targetid(visits.tiles[0].tileid, target["BRICK_OBJID"])
    specflux = targets.PSF_TO_FIBER_SPECFLUX if has_source else 0.0
    n_exposures = 0 if is_dead else len(visits.tiles)
    row |= {
        "COADD_FIBERSTATUS": visits.status,
        "COADD_NUMEXP": n_exposures,
        "COADD_EXPTIME": sum(visits.exptime) if n_exposures else 0.0,
        "COADD_NUMNIGHT": n_exposures,
        "COADD_NUMTILE": n_exposures,
        "MEAN_PSF_TO_FIBER_SPECFLUX": specflux,
    }
    exposures = [
        {
            "TARGETID": row["TARGETID"],
            "PRIORITY": row["PRIORITY_INIT"],
            "SUBPRIORITY": row["SUBPRIORITY"],
            "NIGHT": tile.night,
            "EXPID": tile.expid,
            "MJD": tile.mjd,
            "TILEID": tile.tileid,
            "EXPTIME": seconds,
            "PETAL_LOC": fiber // targets.PETAL_FIBERS,
            "DEVICE_LOC": fiber % targets.PETAL_FIBERS,
            "LOCATION": 1000 * (fiber // targets.PETAL_FIBERS) + fiber % targets.PETAL_FIBERS,
            "FIBER": fiber,
            "FIBERSTATUS": visits.status,
            "LAMBDA_REF": 5400.0,
            "PLATE_RA": row["TARGET_RA"],
            "PLATE_DEC": row["TARGET_DEC"],
            "NUM_ITER": 2,
            "FIBER_RA": row["TARGET_RA"],
            "FIBER_DEC": row["TARGET_DEC"],
            "PSF_TO_FIBER_SPECFLUX": specflux,
        }
        for tile, seconds, fiber in zip(visits.tiles, visits.exptime, visits.fibers, strict=True)
    ]
    return row, exposures


def tsnr2(rng: np.random.Generator, exposures: float) -> dict[str, float]:
    """Return the TSNR2 columns of `exposures` times 1000 s of dark time."""
    scale = exposures * float(np.exp(0.1 * rng.normal()))
    columns: dict[str, float] = {}
    for kind in TSNR2_KINDS:
        parts = [scale * value for value in _TSNR2[kind]]
        columns |= {f"TSNR2_{kind}_{camera}": part for camera, part in zip("BRZ", parts, strict=True)}
        columns[f"TSNR2_{kind}"] = sum(parts)
    return columns


def scores(spectrum: Spectrum) -> dict[str, float]:
    """Return the COADD columns of SCORES: sum and median of flux, and median S/N, per camera."""
    columns = {}
    for camera in sky.CAMERAS:
        flux, ivar = spectrum.flux[camera], spectrum.ivar[camera]
        good = ivar > 0
        name = f"COADD_{{}}_{camera.upper()}"
        columns[f"INTEG_{name.format('FLUX')}"] = float(flux.sum() * 0.8)
        columns[f"MEDIAN_{name.format('FLUX')}"] = float(np.median(flux))
        columns[f"MEDIAN_{name.format('SNR')}"] = (
            float(np.median(flux[good] * np.sqrt(ivar[good]))) if good.any() else 0.0
        )
    return columns


def redshift(rng: np.random.Generator, order: Order, light: Light, spectrum: Spectrum, targetid: int) -> dict[str, Any]:
    """Return the row of REDSHIFTS as redrock might have found it."""
    n_pixels = sum(int((spectrum.ivar[camera] > 0).sum()) for camera in sky.CAMERAS)
    z, spectype, subtype, zwarn = light.z_fit, light.spectype, light.subtype, 0
    contrast = _contrast(spectrum)
    deltachi2 = contrast * float(np.exp(0.3 * rng.normal())) * DELTACHI2_SHARE
    if order.kind == "dead":
        z, deltachi2, zwarn = -0.005, 0.0, ZWARN_NODATA
    elif order.kind == "sky":
        deltachi2, zwarn = float(rng.uniform(0.0, 12.0)), ZWARN_SKY
        if rng.random() < 0.25:
            z, spectype = float(rng.choice(_FALSE_SKY_Z)) + float(rng.normal(0, 0.02)), "QSO"
            subtype = "HIZ" if z > HIZ_Z else "LOZ"
    elif spectype == "QSO":
        width = REDSHIFT_SCATTER_KMS[0 if rng.random() < REDSHIFT_SCATTER_KMS[0][0] else 1][1]
        z += (1 + z) * width * float(rng.normal()) / LIGHT_SPEED_KMS
    if order.kind != "dead" and deltachi2 < MIN_DELTACHI2:
        zwarn |= ZWARN_SMALL_DELTACHI2
        if order.kind == "qso" and rng.random() < 0.5:
            z = float(rng.uniform(0.1, 4.0))
        elif order.kind == "galaxy" and rng.random() < 0.3:
            z, spectype = float(rng.uniform(0.5, 2.0)), "QSO"
            subtype = "HIZ" if z > HIZ_Z else "LOZ"
    n_coeff = {"QSO": 4, "GALAXY": 10, "STAR": 5}[spectype]
    coeff = np.zeros(10)
    if n_pixels:
        coeff[:n_coeff] = rng.normal(0.0, 1.0, n_coeff) * float(np.mean(light.flux)) * 3.0
    zerr = (1 + z) * 30.0 / LIGHT_SPEED_KMS / np.sqrt(1 + deltachi2 / 100.0)
    chi2 = n_pixels * float(rng.normal(1.02, 0.02)) + 0.02 * contrast
    return {
        "TARGETID": targetid, "Z": z, "ZERR": zerr, "ZWARN": zwarn, "CHI2": chi2 if n_pixels else 0.0, "COEFF": coeff,
        "NPIXELS": n_pixels, "SPECTYPE": spectype, "SUBTYPE": subtype, "NCOEFF": n_coeff, "DELTACHI2": deltachi2,
    }  # fmt: skip


def _contrast(spectrum: Spectrum) -> float:
    """Return by how much chi2 worsens if all structure narrower than some hundred Å is smoothed away."""
    from scipy.ndimage import uniform_filter1d

    total = 0.0
    for camera in sky.CAMERAS:
        expected = spectrum.expected[camera]
        smooth = uniform_filter1d(expected, 601, mode="nearest")
        total += float(np.sum(spectrum.ivar[camera] * (expected - smooth) ** 2))
    return total
