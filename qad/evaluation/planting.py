"""Anomalies and artefacts planted into observed spectra, before normalisation and with the noise that they have.

An observed flux is its noise-free level, which the model's reconstruction stands for, and noise.  A class changes the level
only: ``flux + (changed level - level)``, with the inverse variance as it was.  The changed level is as bright as the level on
average over the spectrum, so that an object is found for its shape.  What the level does not know of, such as narrow absorbers,
stays with the noise.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qad.desi.datamodel import CAMERA_FIRST, CAMERA_PIXELS
from qad.evaluation.twins import Twin, bare_quasar, light, nearest
from qad.extraction.cameras import merge_cameras
from qad.extraction.clean import Cleaned
from qad.schema import N_WAVE
from qad.simulation import contaminants
from qad.simulation.anomalies import ANOMALIES, incident
from qad.simulation.artefacts import ARTEFACTS
from qad.simulation.instrument import Spectrum
from qad.simulation.quasars import Quasar
from qad.simulation.sky import CAMERAS, WAVE

Array = NDArray[np.float64]

ABSORBED = frozenset(("hibal", "lobal", "felobal", "redshifted_bal", "fast_outflow", "reddened", "proximate_dla"))
"""Classes that take light away: the level is multiplied by what passes."""
REPLACED = frozenset(("featureless", "narrow_line", "star"))
"""Classes of which nothing of a normal quasar is left.  To the level of any other, the change of its twin is added."""
LINE_SPREAD = 0.9
"""Width (sigma) of the line-spread function, pixels of 0.8 Å: the mean of DESI's cameras."""
FAINTEST_SHARE = 0.02
"""A level is kept above this share of its mean, so that an anomaly has light to change."""


@dataclass(frozen=True)
class Observed:
    """A spectrum to plant into.

    Attributes
    ----------
    flux, ivar : ndarray, shape (7781,)
        As observed.
    level : ndarray, shape (7781,)
        What the flux would be without noise.
    z : float
    """

    flux: NDArray[np.float32]
    ivar: NDArray[np.float32]
    level: NDArray[np.float32]
    z: float


@dataclass(frozen=True)
class Planted:
    """A spectrum with something planted: flux and ivar, shape (7781,), and the redshift that a pipeline would claim."""

    flux: NDArray[np.float32]
    ivar: NDArray[np.float32]
    z: float


def plant_anomaly(
    name: str,
    strength: float,
    spectrum: Observed,
    rng: np.random.Generator,
    partner: NDArray[np.float32] | None = None,
    dilution: float = 1.0,
) -> Planted:
    """Return a spectrum with an anomaly.

    Parameters
    ----------
    name : str
        One of :data:`qad.simulation.anomalies.ANOMALIES`.
    strength : float
        0, hardly more than the normal population has, to 1, the extremes that are known.
    spectrum : Observed
    rng : Generator
    partner : ndarray, shape (7781,), optional
        Level of another observed quasar, for a blend of two.
    dilution : float
        Share of the change that is planted.
    """
    flux, ivar, level = spectrum.flux, spectrum.ivar, spectrum.level
    floor = max(FAINTEST_SHARE * float(np.mean(level)), float(np.finfo(np.float32).tiny))
    base = np.maximum(level.astype(float), floor)
    changed, z_claimed = changed_level(name, strength, base, spectrum.z, rng, partner)
    difference = _smeared(changed * (base.mean() / changed.mean()) - base) * dilution
    return Planted(np.where(ivar > 0, flux + difference, flux).astype(np.float32), ivar, z_claimed)


def changed_level(
    name: str,
    strength: float,
    level: Array,
    z: float,
    rng: np.random.Generator,
    partner: NDArray[np.float32] | None = None,
) -> tuple[Array, float]:
    """Return the level of a quasar after what a class does to it, and the redshift that it claims to have."""
    plain = name in ABSORBED or name in REPLACED or name.startswith("blend") or name == "wrong_redshift"
    twin = Twin(bare_quasar(rng, z), np.ones(N_WAVE)) if plain else nearest(level, z, rng)
    quasar = copy.deepcopy(twin.quasar)
    ANOMALIES[name].plant(quasar, strength, rng)
    if quasar.companion is not None or quasar.companion_galaxy_z is not None:
        return _blended(level, quasar.companion_ratio, _other(quasar, partner, rng)), z
    if quasar.star_kind is not None:
        return incident(quasar, WAVE, rng), z
    if quasar.z_claimed is not None:
        return level, float(quasar.z_claimed)
    if name in REPLACED:
        return light(quasar, WAVE), z
    if name in ABSORBED:
        return level * light(quasar, WAVE) / light(twin.quasar, WAVE), z
    return np.maximum(level + twin.factor * (light(quasar, WAVE) - light(twin.quasar, WAVE)), 0.0), z


def _other(quasar: Quasar, partner: NDArray[np.float32] | None, rng: np.random.Generator) -> Array:
    """Return the light of what shares the fibre: another observed quasar, a simulated one, or a galaxy."""
    if quasar.companion is None:
        return contaminants.draw_galaxy(rng, WAVE, quasar.companion_galaxy_z)[0]
    return light(quasar.companion, WAVE) if partner is None else np.maximum(partner.astype(float), 0.0)


def _blended(level: Array, ratio: float, other: Array) -> Array:
    return level + other * (ratio * level.mean() / max(float(other.mean()), 1e-30))


def _smeared(difference: Array) -> Array:
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(difference, LINE_SPREAD, mode="nearest"))


def plant_artefact(name: str, strength: float, observed: Observed, rng: np.random.Generator) -> Planted:
    """Return a spectrum with an instrumental fault (:data:`qad.simulation.artefacts.ARTEFACTS`), in one of its cameras.

    The merged spectrum is taken apart into cameras, which share the inverse variance where two overlap, and merged again.
    """
    covering = np.zeros(N_WAVE)
    for camera in CAMERAS:
        covering[_part(camera)] += 1
    spectrum = Spectrum({}, {}, {}, {}, 0)
    for camera in CAMERAS:
        part = _part(camera)
        spectrum.flux[camera] = observed.flux[part].astype(float)
        spectrum.expected[camera] = observed.level[part].astype(float)
        spectrum.ivar[camera] = observed.ivar[part].astype(float) / covering[part]
        spectrum.mask[camera] = np.zeros(CAMERA_PIXELS[camera], np.int32)
    ARTEFACTS[name](spectrum, strength, rng)
    spectrum.pack()
    cameras = [Cleaned(CAMERA_FIRST[c], spectrum.flux[c][None], spectrum.ivar[c][None], 0) for c in CAMERAS]
    merged_flux, merged_ivar = merge_cameras(cameras, 1)
    return Planted(np.where(merged_ivar[0] > 0, merged_flux[0], 0).astype(np.float32), merged_ivar[0], observed.z)


def _part(camera: str) -> slice:
    first = CAMERA_FIRST[camera]
    return slice(first, first + CAMERA_PIXELS[camera])
