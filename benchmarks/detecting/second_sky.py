"""The second simulation's telescope: throughput, sky, detectors, masks, and the faults that it plants.

Written apart from ``qad.simulation``: nothing of it is used here, and the numbers are round ones for a 4 m telescope with three
cameras, not measurements.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CAMERAS = {"B": (3600.0, 2751), "R": (5760.0, 2326), "Z": (7520.0, 2881)}
"""First wavelength, Å, and pixels of 0.8 Å (DESI data model, coadd)."""
STEP = 0.8
MERGED = 3600.0 + STEP * np.arange(7781)
_PEAK = {"B": (4750.0, 900.0, 0.28), "R": (6800.0, 900.0, 0.36), "Z": (8600.0, 1000.0, 0.34)}
"""Centre, width (Å) and height of each camera's throughput."""
_LSF_ANGSTROM = {"B": 0.78, "R": 0.66, "Z": 0.82}
_READ_NOISE = 2.6
"""Electrons per pixel of a coadded row, over the height of a fibre's trace."""
_ELECTRONS = 190.0
"""Electrons per 1e-17 erg/s/cm2/Å at unit throughput, in 1000 s: (8.8 m2)(1000 s)(0.8 Å) over the energy of a photon at 6500 Å,
times the share of a point source's light that enters the fibre, about 0.8."""


def wave_of(camera: str) -> np.ndarray:
    """Return the wavelengths of a camera, Å."""
    first, n = CAMERAS[camera]
    return first + STEP * np.arange(n)


def throughput(camera: str) -> np.ndarray:
    """Return the share of photons that are detected: a broad hump, cut by the dichroics at the camera's ends."""
    wave = wave_of(camera)
    centre, width, height = _PEAK[camera]
    hump = height / (1.0 + ((wave - centre) / width) ** 2 / 2.5)
    low, high = wave[0], wave[-1]
    rise = 1.0 if camera == "B" else 1.0 / (1.0 + np.exp(-(wave - low - 25.0) / 12.0))
    fall = 1.0 if camera == "Z" else 1.0 / (1.0 + np.exp((wave - high + 25.0) / 12.0))
    ultraviolet = 1.0 - 0.85 * np.exp(-(wave - 3600.0) / 260.0)
    return np.maximum(hump * rise * fall * ultraviolet, 0.01)


def _airglow() -> list[tuple[float, float]]:
    """Return lines of the night sky, (Å, strength): oxygen, sodium, mercury, and bands of OH that grow to the red."""
    lines = [(5578.9, 60.0), (6302.0, 14.0), (6365.5, 5.0), (5891.6, 5.0), (5897.6, 3.0), (4359.6, 1.5), (5462.3, 1.0)]
    rng = np.random.default_rng(20)
    for start, end, strength in (
        (6830, 6960, 2.0), (7240, 7420, 6.0), (7715, 7900, 8.0), (7910, 8070, 7.0), (8280, 8480, 18.0),
        (8760, 8960, 30.0), (8985, 9060, 10.0), (9305, 9500, 80.0), (9520, 9820, 40.0),
    ):  # fmt: skip
        places = np.arange(start, end, 14.0)
        lines += [(place + rng.uniform(-5.0, 5.0), strength * rng.lognormal(-0.6, 0.9)) for place in places]
    return lines


AIRGLOW = _airglow()


def sky(camera: str) -> np.ndarray:
    """Return the light of the night sky in a fibre, in the units of the spectra."""
    wave = wave_of(camera)
    level = 0.9 + 0.5 * np.exp(-((wave - 3600.0) / 500.0)) + 0.9 * np.clip((wave - 7000.0) / 2800.0, 0.0, None)
    total = 0.55 * level
    for place, strength in AIRGLOW:
        near = np.abs(wave - place) < 8.0
        total[near] += 0.55 * strength / (1.0 + ((wave[near] - place) / 0.9) ** 2) ** 2
    return total


_SKY = {camera: sky(camera) for camera in CAMERAS}
_EFFICIENCY = {camera: throughput(camera) for camera in CAMERAS}


class Frame:
    """One object as the three cameras have it: flux, ivar, mask and the light without noise, by camera."""

    def __init__(self) -> None:
        self.flux: dict[str, np.ndarray] = {}
        self.ivar: dict[str, np.ndarray] = {}
        self.mask: dict[str, np.ndarray] = {}
        self.light: dict[str, np.ndarray] = {}

    def snr(self) -> float:
        """Return the median signal to noise of the light without noise."""
        parts = [self.light[c][self.ivar[c] > 0] * np.sqrt(self.ivar[c][self.ivar[c] > 0]) for c in CAMERAS]
        return float(np.median(np.concatenate(parts)))


def observe(light: np.ndarray, rng: np.random.Generator, kiloseconds: float) -> Frame:
    """Observe the light of an object (on MERGED): counts of photons, read noise, a calibration that is not quite right."""
    from scipy.ndimage import gaussian_filter1d

    frame = Frame()
    seeing = np.exp(0.15 * rng.normal())
    tilt = rng.normal(0.0, 0.012, 2)
    for camera, (first, n) in CAMERAS.items():
        begin = round((first - MERGED[0]) / STEP)
        x = np.linspace(-1.0, 1.0, n)
        error = 1.0 + tilt[0] + tilt[1] * x + 0.008 * np.sin(6.0 * x + rng.uniform(0, 6.28))
        clean = gaussian_filter1d(light[begin : begin + n], _LSF_ANGSTROM[camera] / STEP, mode="nearest") * error
        per_unit = _ELECTRONS * _EFFICIENCY[camera] * kiloseconds * seeing
        counts = per_unit * (np.maximum(clean, 0.0) + _SKY[camera])
        variance = (counts + _READ_NOISE**2 * max(1.0, kiloseconds)) / per_unit**2
        sigma = np.sqrt(variance)
        noise = sigma * rng.standard_normal(n)
        heavy = rng.random(n) < 0.004
        noise[heavy] = sigma[heavy] * rng.standard_t(3, int(heavy.sum()))
        bright = _SKY[camera] > 6.0
        noise[bright] *= 1.2
        frame.light[camera], frame.flux[camera] = clean, clean + noise
        frame.ivar[camera] = 1.0 / gaussian_filter1d(variance, 1.0)
        frame.mask[camera] = np.zeros(n, np.int32)
        for _ in range(rng.poisson(0.6)):
            place, length = int(rng.integers(n)), int(rng.geometric(0.15))
            frame.mask[camera][place : place + length] = 4
            frame.ivar[camera][place : place + length] = 0.0
    if rng.random() < 0.01:
        lost = str(rng.choice(list(CAMERAS)))
        frame.ivar[lost][:] = 0.0
        frame.flux[lost][:] = 0.0
    return frame


def _sigma(frame: Frame, camera: str) -> np.ndarray:
    ivar = frame.ivar[camera]
    typical = np.median(ivar[ivar > 0]) if (ivar > 0).any() else 1.0
    return 1.0 / np.sqrt(np.where(ivar > 0, ivar, typical))


def poor_sky(frame: Frame, strength: float, rng: np.random.Generator) -> None:
    """The sky taken away with the wrong scale: residues on all bright lines of the red camera, of one sign."""
    excess = (_SKY["Z"] > 8.0) * rng.choice((-1.0, 1.0)) * (1.5 + 5.0 * strength)
    frame.flux["Z"] += excess * _sigma(frame, "Z") * rng.uniform(0.5, 1.5, excess.size)


def cosmics(frame: Frame, strength: float, rng: np.random.Generator) -> None:
    """Hits of cosmic rays that were not masked: a few pixels each, far above the noise."""
    for _ in range(1 + rng.poisson(2 + 4 * strength)):
        camera = str(rng.choice(list(CAMERAS)))
        place, length = int(rng.integers(CAMERAS[camera][1])), int(rng.integers(1, 4))
        hit = slice(place, place + length)
        frame.flux[camera][hit] += (12.0 + 60.0 * strength) * _sigma(frame, camera)[hit]


def dead_half(frame: Frame, strength: float, rng: np.random.Generator) -> None:
    """One amplifier with a bias level that was not subtracted: half a camera too high or too low."""
    camera = str(rng.choice(list(CAMERAS)))
    half = CAMERAS[camera][1] // 2
    level = (0.7 + 2.0 * strength) * np.median(_sigma(frame, camera)) * rng.choice((-1.0, 1.0))
    part = slice(0, half) if rng.random() < 0.5 else slice(half, None)
    frame.flux[camera][part] += level


def wrong_scale(frame: Frame, strength: float, rng: np.random.Generator) -> None:
    """A camera whose flux calibration failed."""
    camera = str(rng.choice(list(CAMERAS)))
    factor = float(np.exp(rng.choice((-1.0, 1.0)) * (0.12 + 0.4 * strength)))
    frame.flux[camera] *= factor
    frame.ivar[camera] /= factor**2


def ripples(frame: Frame, strength: float, rng: np.random.Generator) -> None:
    """Interference fringes at the red end."""
    wave = wave_of("Z")
    period = rng.uniform(25.0, 60.0)
    envelope = np.clip((wave - 8600.0) / 900.0, 0.0, 1.0)
    frame.flux["Z"] += (
        (0.8 + 2.5 * strength) * np.median(_sigma(frame, "Z")) * envelope * np.sin(6.2832 * wave / period)
    )


def ghost(frame: Frame, strength: float, rng: np.random.Generator) -> None:
    """Scattered light: a smooth hump of 100 Å in the blue, as the reflection of a bright neighbour makes it."""
    wave = wave_of("B")
    place, width = 4300.0 + 40.0 * rng.normal(), rng.uniform(30.0, 70.0)
    height = (1.0 + 4.0 * strength) * np.median(_sigma(frame, "B"))
    frame.flux["B"] += height / (1.0 + ((wave - place) / width) ** 2)


def low_variance(frame: Frame, strength: float, rng: np.random.Generator) -> None:
    """Inverse variances that are too large."""
    for camera in rng.permutation(list(CAMERAS))[:2]:
        extra = np.sqrt((1.3 + 1.2 * strength) ** 2 - 1.0)
        frame.flux[camera] += extra * _sigma(frame, camera) * rng.standard_normal(CAMERAS[camera][1])


FAULTS: dict[str, Callable[[Frame, float, np.random.Generator], None]] = {
    fault.__name__: fault for fault in (poor_sky, cosmics, dead_half, wrong_scale, ripples, ghost, low_variance)
}
"""Every kind by name."""
