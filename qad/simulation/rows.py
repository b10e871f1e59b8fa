"""One row of a release: what is in the fibre, its observed spectrum, and what the tables say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qad.desi.dust import extinction_per_ebv
from qad.simulation import anomalies, artefacts, contaminants, recipe, sky, tables, targets
from qad.simulation.instrument import Spectrum, observe
from qad.simulation.profiles import draw
from qad.simulation.quasars import R_MAG_DENSITY, draw_quasar
from qad.simulation.recipe import Order, Recipe, Unit
from qad.simulation.tables import Light, Visits

Array = NDArray[np.float64]

HIGH_Z = 2.1
"""Above it quasars are observed up to four times, for the forest (Schlafly et al. 2023, AJ 166, 259)."""
EXPOSURES = {False: (0.72, 0.22, 0.05, 0.01), True: (0.25, 0.25, 0.22, 0.28)}
"""Shares of targets with 1 to 4 exposures, below and above :data:`HIGH_Z`."""
TILES_PER_PIXEL = 6
EBV_MEDIAN, EBV_SCATTER = 0.035, 0.5
"""Galactic E(B-V), mag, over the pixels: median, and scatter of its logarithm, at DESI's latitudes."""
MISSING_CAMERA_SHARE = 0.012
"""Share of targets that lack a camera, as amplifiers fail; 4 in 10 of them also carry the bit of COADD_FIBERSTATUS."""
BADAMP_BIT = {"b": 22, "r": 23, "z": 24}
DEAD_STATUS = (1 << 0 | 1 << 3, 1 << 1, 1 << 0, 1 << 9 | 1 << 3, 1 << 1 | 1 << 10)
"""COADD_FIBERSTATUS of rows without data: unassigned, stuck, badly placed fibres."""
RESTRICTED = 1 << 3
POOR_SHARE = 0.006
POOR_STATUS = (1 << 10, 1 << 12, 1 << 15)
"""Poor position, low transmission, low effective time: fibres that have data, which DESI's catalogues leave out."""


@dataclass
class Row:
    """A finished row: spectrum, and columns of each table by name; `exposures` holds one mapping per exposure."""

    order: Order
    targetid: int
    spectrum: Spectrum
    z_true: float | None
    snr_true: float
    fibermap: dict[str, Any]
    exposures: list[dict[str, Any]]
    scores: dict[str, float]
    redshift: dict[str, Any]


def make_rows(plan: Recipe, unit: Unit) -> tuple[list[Row], list[targets.Tile]]:
    """Return the rows of a pixel, in the order of the file, and the visits.

    A pixel of the second program holds some of the quasars of the first, the same light observed anew.
    """
    key = plan.key(unit.pixel.healpix)
    rng = np.random.default_rng(key)
    orders = recipe.orders(plan, unit.index, rng)
    count = len(orders)
    ra, dec = targets.draw_positions(rng, unit.pixel.healpix, count)
    ebv = EBV_MEDIAN * float(np.exp(EBV_SCATTER * rng.normal())) * np.exp(0.08 * rng.normal(size=count))
    objids = targets.draw_objids(rng, unit.pixel.healpix, count)
    visit = 1 if unit.is_repeat else 0
    tiles = targets.draw_tiles(np.random.default_rng([*key, visit]), TILES_PER_PIXEL)
    rows = []
    for i, order in enumerate(orders):
        if order.repeat or not unit.is_repeat:
            place = targets.Place(float(ra[i]), float(dec[i]), int(objids[i]), float(ebv[i]))
            seeds = np.random.default_rng([*key, 2, i]), np.random.default_rng([*key, 3 + visit, i])
            rows.append(make_row(*seeds, order, place, tiles, unit.pixel.survey))
    return rows, tiles


def make_row(
    rng: np.random.Generator,
    visit_rng: np.random.Generator,
    order: Order,
    place: targets.Place,
    tiles: Sequence[targets.Tile],
    survey: str = "main",
) -> Row:
    """Return one row.

    Parameters
    ----------
    rng, visit_rng : Generator
        For what the object is, and for how it was observed.
    order : Order
    place : Place
    tiles : sequence of Tile
        Visits that may have observed it.
    survey : str
    """
    light = make_light(rng, order, place.ebv)
    target = tables.target_columns(rng, order, light, place, survey)
    visits, exposure = _visits(visit_rng, order, light, tiles)
    has_source = order.kind not in ("sky", "dead")
    spectrum = observe(light.flux, visit_rng, exposure, calibration=has_source)
    snr_true = spectrum.snr_true() if order.kind != "dead" else 0.0
    status = _spoil(visit_rng, order, spectrum)
    if order.artefact is not None:
        artefacts.ARTEFACTS[order.artefact](spectrum, order.strength or 0.0, visit_rng)
    fibermap, exposures = tables.fibermap(target, replace(visits, status=status), order)
    scores = tables.tsnr2(visit_rng, exposure if order.kind != "dead" else 0.0) | tables.scores(spectrum)
    redshift = tables.redshift(visit_rng, order, light, spectrum, fibermap["TARGETID"])
    spectrum.pack()
    return Row(order, fibermap["TARGETID"], spectrum, light.z_true, snr_true, fibermap, exposures, scores, redshift)


def make_light(rng: np.random.Generator, order: Order, ebv: float) -> Light:
    """Return what enters the fibre, behind Galactic dust of `ebv` mag."""
    wave = sky.WAVE
    if order.kind in ("sky", "dead"):
        return Light(np.zeros_like(wave), None, float(rng.uniform(0.0, 1.7)), "GALAXY", "")
    if order.kind == "qso":
        quasar = (
            anomalies.draw_anomaly(rng, order.anomaly, order.strength or 0.0) if order.anomaly else draw_quasar(rng)
        )
        raw, r_mag = anomalies.incident(quasar, wave, rng), quasar.r_mag
        z_fit = quasar.z if quasar.z_claimed is None else quasar.z_claimed
        light = Light(raw, quasar.z, z_fit, "QSO", "HIZ" if z_fit > tables.HIZ_Z else "LOZ")
    elif order.kind == "star":
        raw, z, kind = contaminants.draw_star(rng, wave)
        r_mag, light = draw(rng, R_MAG_DENSITY), Light(raw, z, z, "STAR", kind)
    else:
        raw, z = contaminants.draw_galaxy(rng, wave)
        shape = str(rng.choice(("REX", "EXP", "DEV", "SER")))
        r_mag, light = draw(rng, R_MAG_DENSITY), Light(raw, z, z, "GALAXY", "", shape)
    reddened = raw * 10.0 ** (-0.4 * ebv * _extinction())
    wanted = targets.flux_of_magnitude(r_mag)
    light.flux = reddened * (wanted / targets.synthetic_fluxes(wave, reddened)["r"])
    return light


@lru_cache(maxsize=1)
def _extinction() -> Array:
    return extinction_per_ebv(sky.WAVE)


def _visits(
    rng: np.random.Generator, order: Order, light: Light, tiles: Sequence[targets.Tile]
) -> tuple[Visits, float]:
    """Return who observed a target and for how long in all, in units of 1000 s."""
    is_high = order.kind == "qso" and (light.z_true or 0.0) > HIGH_Z
    count = 1 + int(rng.choice(4, p=EXPOSURES[is_high]))
    chosen = [tiles[int(i)] for i in np.sort(rng.choice(len(tiles), min(count, len(tiles)), replace=False))]
    exptime = [float(1000.0 * np.exp(0.12 * rng.normal())) for _ in chosen]
    fibers = [int(rng.integers(targets.PETAL_FIBERS)) + targets.PETAL_FIBERS * tile.petal for tile in chosen]
    if order.artefact == "false_absorption":
        fibers = [artefacts.FAULTY_FIBER] * len(chosen)
    return Visits(chosen, exptime, fibers), sum(exptime) / 1000.0


def _spoil(rng: np.random.Generator, order: Order, spectrum: Spectrum) -> int:
    """Take cameras away where a fibre is dead or an amplifier was bad, and return COADD_FIBERSTATUS."""
    if order.kind == "dead":
        for camera in sky.CAMERAS:
            spectrum.blank(camera)
        return int(rng.choice(DEAD_STATUS))
    status = RESTRICTED if rng.random() < 0.03 else 0
    status |= int(rng.choice(POOR_STATUS)) if rng.random() < POOR_SHARE else 0
    if order.artefact is None and rng.random() < MISSING_CAMERA_SHARE:
        camera = str(rng.choice(sky.CAMERAS))
        spectrum.blank(camera)
        status |= 1 << BADAMP_BIT[camera] if rng.random() < 0.4 else 0
    return status
