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
    """How a target was observed: visits and their exposure times (s), the fibre, its status."""

    tiles: Sequence[targets.Tile]
    exptime: Sequence[float]
    fiber: int
    status: int


def _fibermap(
    rng: np.random.Generator,
    order: Order,
    light: _Light,
    place: tuple[float, float],
    objid: int,
    visits: Sequence[targets.Tile],
    exptime: Sequence[float],
    status: int,
    ebv: float,
    fiber: int,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    ra, dec = place
    is_target = order.kind not in ("sky", "dead")
    brickname, brickid, _ = targets.brick(ra, dec)
    release = targets.RELEASE_NORTH if dec > 32.375 else targets.RELEASE_SOUTH
    if order.kind == "dead":
        targetid = targets.unassigned_targetid(visits[0].tileid, 1000 * visits[0].petal + objid % 1000)
    else:
        targetid = targets.encode_targetid(release, brickid, objid, order.kind == "sky")
    is_point = light.morphtype == "PSF"
    is_near = order.kind == "star" or order.anomaly == "star"
    motion = rng.normal(0.0, 8.0 if is_near else 0.3, 2)
    fluxes = targets.synthetic_fluxes(sky.WAVE, light.flux)
    g_mag = 22.5 - 2.5 * np.log10(max(fluxes["g"], 1e-3))
    in_gaia = is_target and is_point and g_mag < 20.7
    specflux = float(np.clip(rng.normal(0.79, 0.015), 0.5, 1.0))
    priority = 3400 if is_target else 0
    n_alive = 0 if order.kind == "dead" else len(visits)
    fibermap: dict[str, Any] = {
        "TARGETID": targetid, "COADD_FIBERSTATUS": status, "TARGET_RA": ra, "TARGET_DEC": dec,
        "PMRA": float(motion[0]) if in_gaia else 0.0, "PMDEC": float(motion[1]) if in_gaia else 0.0,
        "REF_EPOCH": 2015.5 if in_gaia else 0.0, "FA_TARGET": targets.DESI_TARGET[order.kind], "FA_TYPE": 1 if is_target else 4,
        "OBJTYPE": {"sky": "SKY", "dead": ""}.get(order.kind, "TGT"), "SUBPRIORITY": float(rng.random()), "OBSCONDITIONS": 1,
        "RELEASE": release if is_target else 0, "BRICKNAME": brickname, "BRICKID": brickid, "BRICK_OBJID": objid,
        "MORPHTYPE": light.morphtype if is_target else "", "EBV": ebv if is_target else 0.0, "MASKBITS": 0,
        "SERSIC": 0.0 if is_point else 1.0, "SHAPE_R": 0.0 if is_point else float(rng.uniform(0.2, 1.5)),
        "REF_ID": int(rng.integers(1 << 58, 1 << 62)) if in_gaia else 0, "REF_CAT": "G2" if in_gaia else "",
        "GAIA_PHOT_G_MEAN_MAG": g_mag if in_gaia else 0.0, "GAIA_PHOT_BP_MEAN_MAG": g_mag + 0.2 if in_gaia else 0.0,
        "GAIA_PHOT_RP_MEAN_MAG": g_mag - 0.4 if in_gaia else 0.0,
        "PARALLAX": float(rng.normal(0.6 if is_near else 0.0, 0.3)) if in_gaia else 0.0,
        "PHOTSYS": ("N" if release == targets.RELEASE_NORTH else "S") if is_target else "",
        "PRIORITY_INIT": priority, "NUMOBS_INIT": 4 if is_target else 0, "DESI_TARGET": targets.DESI_TARGET[order.kind],
        "PLATE_RA": ra, "PLATE_DEC": dec, "COADD_NUMEXP": n_alive, "COADD_EXPTIME": sum(exptime) if n_alive else 0.0,
        "COADD_NUMNIGHT": n_alive, "COADD_NUMTILE": n_alive, "MEAN_FIBER_RA": ra, "MEAN_FIBER_DEC": dec,
        "MEAN_PSF_TO_FIBER_SPECFLUX": specflux if is_target else 0.0,
        **targets.photometry(rng, fluxes, order.kind, is_point),
    }  # fmt: skip
    exposures = [
        {
            "TARGETID": targetid, "PRIORITY": priority, "SUBPRIORITY": fibermap["SUBPRIORITY"], "NIGHT": visit.night,
            "EXPID": visit.expid, "MJD": visit.mjd, "TILEID": visit.tileid, "EXPTIME": seconds,
            "PETAL_LOC": fiber // 500, "DEVICE_LOC": fiber % 500, "LOCATION": 1000 * (fiber // 500) + fiber % 500, "FIBER": fiber,
            "FIBERSTATUS": status, "LAMBDA_REF": 5400.0, "PLATE_RA": ra, "PLATE_DEC": dec, "NUM_ITER": 2,
            "FIBER_RA": ra, "FIBER_DEC": dec, "PSF_TO_FIBER_SPECFLUX": fibermap["MEAN_PSF_TO_FIBER_SPECFLUX"],
        }
        for visit, seconds in zip(visits, exptime, strict=True)
    ]  # fmt: skip
    return fibermap, exposures


def _tsnr2(rng: np.random.Generator, exposures: float, dead: bool) -> dict[str, float]:
    scale = 0.0 if dead else exposures * float(np.exp(0.1 * rng.normal()))
    scores = {}
    for kind in TSNR2_KINDS:
        parts = [scale * value for value in _TSNR2[kind]]
        scores |= {f"TSNR2_{kind}_{camera}": part for camera, part in zip("BRZ", parts, strict=True)}
        scores[f"TSNR2_{kind}"] = sum(parts)
    return scores


def _scores(spectrum: Spectrum) -> dict[str, float]:
    scores = {}
    for camera in sky.CAMERAS:
        flux, ivar = spectrum.flux[camera], spectrum.ivar[camera]
        good = ivar > 0
        name = f"COADD_{{}}_{camera.upper()}"
        scores[f"INTEG_{name.format('FLUX')}"] = float(flux.sum() * 0.8)
        scores[f"MEDIAN_{name.format('FLUX')}"] = float(np.median(flux))
        scores[f"MEDIAN_{name.format('SNR')}"] = float(np.median(flux[good] * np.sqrt(ivar[good]))) if good.any() else 0.0
    return scores


def _redshift(rng: np.random.Generator, order: Order, light: _Light, spectrum: Spectrum, targetid: int) -> dict[str, Any]:
    """Return the row of REDSHIFTS as redrock might have found it."""
    n_pixels = sum(int((spectrum.ivar[camera] > 0).sum()) for camera in sky.CAMERAS)
    z, spectype, subtype, zwarn = light.z_fit, light.spectype, light.subtype, 0
    contrast = _contrast(spectrum)
    deltachi2 = contrast * float(np.exp(0.3 * rng.normal())) * (0.35 if spectype == "QSO" else 0.6)
    if order.kind == "dead":
        z, deltachi2, zwarn = -0.005, 0.0, ZWARN_NODATA
    elif order.kind == "sky":
        deltachi2, zwarn = float(rng.uniform(0.0, 12.0)), ZWARN_SKY
        if rng.random() < 0.25:
            z, spectype = float(rng.choice(_FALSE_SKY_Z)) + float(rng.normal(0, 0.02)), "QSO"
            subtype = "HIZ" if z > 1.5 else "LOZ"
    elif spectype == "QSO":
        width = REDSHIFT_SCATTER_KMS[0 if rng.random() < REDSHIFT_SCATTER_KMS[0][0] else 1][1]
        z += (1 + z) * width * float(rng.normal()) / LIGHT_SPEED_KMS
    if order.kind != "dead" and deltachi2 < MIN_DELTACHI2:
        zwarn |= ZWARN_SMALL_DELTACHI2
        if order.kind == "qso" and rng.random() < 0.5:
            z = float(rng.uniform(0.1, 4.0))
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
