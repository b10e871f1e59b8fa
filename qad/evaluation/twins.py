"""The simulated quasar most like an observed one: what is planted into real spectra is the change that a class makes to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qad.lines import LIGHT_SPEED_KMS, LYA
from qad.profiles import FWHM_PER_SIGMA, add_gaussian
from qad.simulation.absorption import Absorbers, mean_transmission
from qad.simulation.quasars import EmissionLine, Quasar, continuum, draw_quasar, render
from qad.simulation.sky import WAVE

Array = NDArray[np.float64]

N_CANDIDATES = 8
"""Quasars drawn for each observed one; the lines of the best are then fitted."""
COARSE = 12
"""Every so manieth pixel is compared, 10 Å: broad lines are wider."""
DEGREE = 2
"""Degree, in ln of wavelength, of the smooth factor between twin and observed spectrum."""
FLOOR = 0.05
"""Pixels fainter than this share of the median are not compared: their logarithm is noise."""
LINE_MISMATCH, LINE_PRIOR = 0.03, 0.5
"""Relative error of the twin where lines are fitted, and by how much a line's strength may depart from the draw."""
LINE_FACTORS = (0.2, 3.0)


@dataclass(frozen=True)
class Twin:
    """A simulated quasar, and the smooth factor (n_wave,) that brings it onto the observed spectrum."""

    quasar: Quasar
    factor: Array


def bare_quasar(rng: np.random.Generator, z: float) -> Quasar:
    """Return a normal quasar with nothing in front of it: an observed spectrum has its own absorbers."""
    quasar = draw_quasar(rng, z)
    quasar.absorbers = Absorbers(forest=False)
    return quasar


def light(quasar: Quasar, wave: Array) -> Array:
    """Return a quasar's light behind the mean forest, at observed wavelengths, Å; no random number is used."""
    flux = render(quasar, wave, np.random.default_rng(0))
    z_forest = wave / LYA - 1.0
    return np.asarray(np.where(z_forest < quasar.z, flux * mean_transmission(np.maximum(z_forest, 0.0)), flux))


def nearest(level: Array, z: float, rng: np.random.Generator) -> Twin:
    """Return the twin of a spectrum at redshift `z` whose noise-free flux is about `level`, shape (n_wave,)."""
    wave, target = WAVE[::COARSE], np.asarray(level, float)[::COARSE]
    use = target > FLOOR * np.median(target[target > 0])
    basis = np.vander(np.log(wave / 6000.0), DEGREE + 1)
    best: tuple[float, Quasar, Array] | None = None
    for _ in range(N_CANDIDATES):
        quasar = bare_quasar(rng, z)
        ratio = np.log(target[use] / light(quasar, wave)[use])
        coef = np.linalg.lstsq(basis[use], ratio, rcond=None)[0]
        misfit = float(np.std(ratio - basis[use] @ coef))
        if best is None or misfit < best[0]:
            best = misfit, quasar, coef
    if best is None:
        raise AssertionError("no candidate was drawn")
    _, quasar, coef = best
    _fit_lines(quasar, wave, target / np.exp(basis @ coef), use)
    return Twin(quasar, np.exp(np.vander(np.log(WAVE / 6000.0), DEGREE + 1) @ coef))


def _fit_lines(quasar: Quasar, wave: Array, target: Array, use: NDArray[np.bool_]) -> None:
    """Change the strengths of a quasar's lines, in place, so that it fits `target`: least squares with a prior."""
    made = light(quasar, wave)
    wave_rest = wave / (1.0 + quasar.z)
    inside = [line for line in quasar.lines.values() if wave_rest[0] < line.wave < wave_rest[-1] and line.ew > 0]
    if not inside:
        return
    error = LINE_MISMATCH * made[use]
    profiles = np.stack([_profile(quasar, line, wave_rest)[use] / error for line in inside], axis=1)
    departure = (target - made)[use] / error
    normal = profiles.T @ profiles + np.eye(len(inside)) / LINE_PRIOR**2
    change = np.linalg.solve(normal, profiles.T @ departure)
    for line, share in zip(inside, change, strict=True):
        line.ew *= float(np.clip(1.0 + share, *LINE_FACTORS))


def _profile(quasar: Quasar, line: EmissionLine, wave_rest: Array) -> Array:
    flux = np.zeros_like(wave_rest)
    height = float(continuum(quasar, np.array([line.wave]))[0])
    for share, shift, fwhm in line.shape:
        centre = line.wave * (1.0 + shift / LIGHT_SPEED_KMS)
        add_gaussian(
            flux, wave_rest, centre, centre * fwhm / (FWHM_PER_SIGMA * LIGHT_SPEED_KMS), share * line.ew * height
        )
    return flux
