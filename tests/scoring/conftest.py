"""A toy population: power laws with lines whose strengths scatter, seen with noise, and a model that draws them nearly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from qad.lines import EMISSION_LINES, LIGHT_SPEED_KMS
from qad.scoring.evidence import find_faults
from qad.scoring.geometry import Geometry
from qad.scoring.residuals import Batch, Scatter, ScatterSample
from qad.scoring.views import Measured, measure

WINDOWS = [300.0, 900.0, 2000.0, 4500.0, 9000.0, 19000.0, 38000.0]
GEOMETRY = Geometry("rest", np.log10(800.0), 4e-4, 1091)


@dataclass(frozen=True)
class Toy:
    """Spectra on a rest-frame grid."""

    batch: Batch
    start: np.ndarray
    z: np.ndarray
    snr: np.ndarray
    norm: np.ndarray
    latent: np.ndarray

    @property
    def wave(self) -> np.ndarray:
        """Rest wavelengths, Å, (n_spectra, n_obs)."""
        return 10.0 ** (GEOMETRY.loglam0 + (self.start[:, None] + np.arange(GEOMETRY.n_obs)) * GEOMETRY.dloglam)

    def scatters(self) -> list[Scatter]:
        """Return the population's scatter."""
        sample = ScatterSample(GEOMETRY, WINDOWS)
        sample.add(self.batch.without(find_faults(self.batch, GEOMETRY)[0]))
        return sample.fit()

    def measured(self, scatters: list[Scatter], rows: np.ndarray | slice = slice(None)) -> Measured:
        """Return what the views need of some rows."""
        b = self.batch
        part = Batch(*(a[rows] for a in (b.flux, b.ivar, b.recon, b.intrinsic_var, b.rest_start, b.first_observed)))
        return measure(
            part,
            GEOMETRY,
            scatters,
            z=self.z[rows],
            snr=self.snr[rows],
            norm=self.norm[rows],
            latent=self.latent[rows],
        )


def quasar(wave: np.ndarray, strength: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return power laws with lines of Gaussian profile, relative to the composite's equivalent widths."""
    flux = np.ones_like(wave)
    for line in EMISSION_LINES:
        sigma = (3500.0 if line.broad else 400.0) / LIGHT_SPEED_KMS / 2.355 * line.wave
        profile = np.exp(-0.5 * ((wave - line.wave) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
        flux = flux + line.ew * strength[:, None] * profile
    return flux * (wave / 2500.0) ** slope[:, None]


def make_toy(
    n: int, seed: int = 0, change: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None, clean: bool = False
) -> Toy:
    """Return `n` spectra; `change` maps (wave, flux) to the flux that is observed."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.5, 3.2, n)
    start = np.rint((np.log10(3600.0 / (1 + z)) - GEOMETRY.loglam0) / GEOMETRY.dloglam).astype(int)
    wave = 10.0 ** (GEOMETRY.loglam0 + (start[:, None] + np.arange(GEOMETRY.n_obs)) * GEOMETRY.dloglam)
    strength = np.ones(n) if clean else np.exp(0.3 * rng.standard_normal(n))
    slope = np.full(n, -1.5) if clean else rng.normal(-1.5, 0.15, n)
    flux = quasar(wave, strength, slope)
    near = np.exp(0.1 * rng.standard_normal(n)), 0.03 * rng.standard_normal(n)
    recon = quasar(wave, strength * near[0], slope + near[1])
    if change is not None:
        flux = change(wave, flux)
    snr = np.exp(rng.normal(1.0, 0.7, n))
    noise = recon / (2.0 * snr[:, None])
    flux = flux + noise * rng.standard_normal(flux.shape)
    ivar = np.where(rng.random(flux.shape) < 0.01, 0.0, 1.0 / noise**2)
    batch = Batch(
        np.where(ivar > 0, flux, 0.0).astype(np.float32),
        ivar.astype(np.float32),
        recon.astype(np.float32),
        np.full(flux.shape, 1e-4, np.float32),
        GEOMETRY.rest_start(start, z),
        GEOMETRY.first_observed(start, z),
    )
    latent = np.stack([np.log(strength), slope, rng.standard_normal(n)], axis=1)
    return Toy(batch, start, z, snr, rng.uniform(1, 10, n), latent)


@pytest.fixture(scope="session")
def population() -> Toy:
    """Normal spectra."""
    return make_toy(800)


@pytest.fixture(scope="session")
def toy_of() -> Callable[..., Toy]:
    """Make a toy population: see :func:`make_toy`."""
    return make_toy


@pytest.fixture(scope="session")
def geometry() -> Geometry:
    """The toy's grid."""
    return GEOMETRY


@pytest.fixture(scope="session")
def windows() -> list[float]:
    """Widths of the residual windows, km/s: the defaults."""
    return WINDOWS
