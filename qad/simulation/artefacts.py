"""Faults of instrument and reduction that DESI's maintainers know, planted into observed spectra: one function a kind.

What each looks like is told in issues of desihub/desispec, named in the docstrings.  None is marked in mask or inverse variance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qad.simulation import sky
from qad.simulation.instrument import Spectrum

Array = NDArray[np.float64]
Fault = Callable[[Spectrum, float, np.random.Generator], None]

FAULTY_FIBER = 1008
"""The fibre above all others with the false absorption near 8600 Å (desispec issue 1935)."""
_AMPLIFIER_EDGES = {"b": 4700.0, "r": 6700.0, "z": 8600.0}


def _sigma(spectrum: Spectrum, camera: str) -> float:
    """Return the typical noise of a camera, or 1 if it has no data."""
    ivar = spectrum.ivar[camera]
    return float(1.0 / np.sqrt(np.median(ivar[ivar > 0]))) if (ivar > 0).any() else 1.0


def _sigma_at(spectrum: Spectrum, camera: str, wave: float) -> float:
    """Return the noise at a wavelength, Å, or the camera's typical one where there are no data."""
    ivar = float(np.interp(wave, sky.camera_wave(camera), spectrum.ivar[camera]))
    return 1.0 / float(np.sqrt(ivar)) if ivar > 0 else _sigma(spectrum, camera)


def _level(spectrum: Spectrum, camera: str) -> float:
    return float(np.median(np.abs(spectrum.expected[camera])))


def sky_spike(spectrum: Spectrum, strength: float, rng: np.random.Generator) -> None:
    """Badly subtracted sky lines, positive or negative (issues 2725, 2726)."""
    wave = sky.camera_wave("z")
    strong = sky.SKY_LINES[(sky.SKY_LINES[:, 1] > 8) & (sky.SKY_LINES[:, 0] > 7700)]
    chosen = rng.choice(len(strong), 3 + int(10 * strength), replace=False)
    for centre, _ in strong[chosen]:
        height = (4.0 + 14.0 * strength) * _sigma_at(spectrum, "z", centre) * float(rng.choice((-1.0, 1.0)))
        spectrum.flux["z"] += _good(spectrum, "z") * height * np.exp(-0.5 * ((wave - centre) / 1.0) ** 2)


def false_absorption(spectrum: Spectrum, strength: float, rng: np.random.Generator) -> None:
    """A deep dip at 8550 to 8650 Å from a defect of CCD z2 (issues 1935, 2660)."""
    wave = sky.camera_wave("z")
    centre, width = 8600.0 + float(rng.normal(0.0, 8.0)), 18.0 + 20.0 * strength
    lost = (0.35 + 0.6 * strength) * np.exp(-0.5 * ((wave - centre) / width) ** 4)
    spectrum.flux["z"] -= lost * np.maximum(spectrum.expected["z"], 3 * _sigma(spectrum, "z")) * _good(spectrum, "z")


def spurious_emission(spectrum: Spectrum, strength: float, rng: np.random.Generator) -> None:
    """A false line near 8000 Å from unmasked cosmic rays (issue 2563)."""
    wave = sky.camera_wave("z")
    centre, width = 8000.0 + float(rng.normal(0.0, 40.0)), 2.0 + 6.0 * float(rng.random())
    height = (5.0 + 25.0 * strength) * _sigma(spectrum, "z")
    spectrum.flux["z"] += height * np.exp(-0.5 * ((wave - centre) / width) ** 2) * _good(spectrum, "z")


def collimator_dip(spectrum: Spectrum, strength: float, rng: np.random.Generator) -> None:
    """A dip or bump at 4200 to 4500 Å from the collimator's coating (issues 965, 1168, 1223)."""
    wave = sky.camera_wave("b")
    centre, width = 4370.0 + float(rng.normal(0.0, 25.0)), 45.0 + 35.0 * float(rng.random())
    height = (0.15 + 0.45 * strength) * float(rng.choice((-1.0, 1.0, 1.0)))
    level = max(_level(spectrum, "b"), 2 * _sigma(spectrum, "b"))
    spectrum.flux["b"] += height * level * np.exp(-0.5 * ((wave - centre) / width) ** 2) * _good(spectrum, "b")


def camera_step(spectrum: Spectrum, strength: float, rng: np.random.Generator) -> None:
    """One camera scaled by 0.6 to 1.5 against the others (issues 929, 1249, 1761)."""
    camera = str(rng.choice(sky.CAMERAS))
    factor = 1.0 + (0.12 + 0.38 * strength) * float(rng.choice((-0.8, 1.0)))
    spectrum.flux[camera] *= factor
    spectrum.ivar[camera] /= factor**2


def amplifier_step(spectrum: Spectrum, strength: float, rng: np.random.Generator) -> None:
    """An offset of half a camera at the border of two amplifiers (issues 922, 1247)."""
    camera = str(rng.choice(sky.CAMERAS))
    wave = sky.camera_wave(camera)
    offset = (0.8 + 2.5 * strength) * _sigma(spectrum, camera) * float(rng.choice((-1.0, 1.0)))
    half = wave > _AMPLIFIER_EDGES[camera] if rng.random() < 0.5 else wave < _AMPLIFIER_EDGES[camera]
    spectrum.flux[camera] += offset * half * _good(spectrum, camera)


def noisy(spectrum: Spectrum, strength: float, rng: np.random.Generator) -> None:
    """Noise 1.4 to 3 times what the inverse variance says, in one camera."""
    camera = str(rng.choice(sky.CAMERAS))
    ivar = spectrum.ivar[camera]
    sigma = np.where(ivar > 0, 1.0 / np.sqrt(np.where(ivar > 0, ivar, 1.0)), 0.0)
    extra = np.sqrt((1.4 + 1.6 * strength) ** 2 - 1.0)
    spectrum.flux[camera] += extra * sigma * rng.standard_normal(ivar.size)


def splice_spike(spectrum: Spectrum, strength: float, rng: np.random.Generator) -> None:
    """Spikes where cameras meet, 5760 to 5800 and 7520 to 7620 Å (issues 929, 965, 1025)."""
    places = (("b", 5792.0), ("r", 5766.0)) if rng.random() < 0.5 else (("r", 7606.0), ("z", 7530.0))
    camera, centre = places[int(rng.integers(2))]
    wave = sky.camera_wave(camera)
    height = (5.0 + 25.0 * strength) * _sigma_at(spectrum, camera, centre) * float(rng.choice((-1.0, 1.0)))
    spectrum.flux[camera] += height * np.exp(-0.5 * ((wave - centre) / 3.0) ** 2) * _good(spectrum, camera)


def _good(spectrum: Spectrum, camera: str) -> NDArray[np.bool_]:
    return spectrum.ivar[camera] > 0


ARTEFACTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        sky_spike,
        false_absorption,
        spurious_emission,
        collimator_dip,
        camera_step,
        amplifier_step,
        noisy,
        splice_spike,
    )
}
"""Every kind by name."""
