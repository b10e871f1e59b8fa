"""Simulated quasars with every true value at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qad.analysis.spectra import WAVE, Spectra
from qad.desi.datamodel import CAMERA_FIRST, CAMERA_PIXELS
from qad.simulation.absorption import Absorbers
from qad.simulation.instrument import observe
from qad.simulation.quasars import Quasar, continuum, draw_quasar, render


@dataclass(frozen=True)
class Made:
    """Spectra, the quasars they are of, and what scaled each one's flux: flux is scale times the rendered one."""

    spectra: Spectra
    quasars: list[Quasar]
    scale: np.ndarray

    def true_ew(self, *lines: str) -> np.ndarray:
        """Return the true equivalent widths of lines, summed."""
        return np.array([sum(quasar.lines[line].ew for line in lines) for quasar in self.quasars])

    def true_flux(self, wave: float, *lines: str) -> np.ndarray:
        """Return the true observed fluxes, the continuum taken at `wave`."""
        level = np.array([continuum(quasar, np.array([wave]))[0] for quasar in self.quasars])
        return self.true_ew(*lines) * level * self.scale * (1 + self.spectra.z)

    def true_shape(self, line: str) -> np.ndarray:
        """Return the profile of a line as :func:`qad.analysis.profile.widths` takes it."""
        shapes = []
        for quasar in self.quasars:
            (share, shift, fwhm), (_, wing_shift, wing_fwhm) = quasar.lines[line].shape
            sigma = fwhm / 2.354820045
            shapes.append([shift, np.log(sigma), share, np.log(wing_fwhm / fwhm), (wing_shift - shift) / sigma])
        return np.array(shapes)


def make(n: int, z: tuple[float, float], snr: float, seed: int, is_clean: bool = True) -> Made:
    """Return `n` quasars with redshifts in a range and about that S/N per pixel.

    `is_clean`: no absorbers, no host galaxy, no dust, no Balmer continuum, no errors of the flux calibration.
    """
    rng = np.random.default_rng(seed)
    quasars, flux, ivar, scales = [], [], [], []
    for _ in range(n):
        quasar = draw_quasar(rng, float(rng.uniform(*z)))
        if is_clean:
            quasar = replace(quasar, absorbers=Absorbers(), host=0.0, ebv=0.0, balmer=0.0)
        clean = render(quasar, WAVE, rng)
        # 0.65 is about the noise of the sky in a thousand seconds
        scale = snr * 0.65 / float(np.median(clean))
        seen = observe(clean * scale, rng, 1.0, calibration=not is_clean)
        total, weight = np.zeros(len(WAVE)), np.zeros(len(WAVE))
        for camera, first in CAMERA_FIRST.items():
            part = slice(first, first + CAMERA_PIXELS[camera])
            good = np.where(seen.mask[camera] == 0, seen.ivar[camera], 0.0)
            total[part] += good * seen.flux[camera]
            weight[part] += good
        flux.append(np.divide(total, weight, out=np.zeros(len(WAVE)), where=weight > 0))
        ivar.append(weight)
        quasars.append(quasar)
        scales.append(scale)
    return Made(Spectra(np.array([q.z for q in quasars]), np.array(flux), np.array(ivar)), quasars, np.array(scales))
