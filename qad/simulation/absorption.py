"""Absorption between a quasar and us: the Lyman-alpha forest, damped systems, metals; and broad troughs near the quasar."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qad.lines import LIGHT_SPEED_KMS, LYA
from qad.schema import WAVE_STEP
from qad.simulation.profiles import shifted, smooth_box, velocity_kms, voigt_depth

Array = NDArray[np.float64]

LYB, LYMAN_LIMIT = 1025.72, 911.76
OVERSAMPLING = 4
FOREST_LOG_SCATTER = 1.7
"""Scatter of ln τ of the log-normal forest (Le Goff et al. 2011, A&A 534, A135, have transmissions of this skewness)."""
FOREST_CORRELATION = 0.9
"""Correlation length of the forest, Å observed: about 70 km/s, the Jeans scale and thermal width at z = 2.5."""
LYB_DEPTH = 0.16
"""Oscillator strength times wavelength of Lyman beta over that of Lyman alpha."""
DLA_PER_Z = 0.20
"""Damped systems (log N > 20.3) per unit redshift at z about 2.5 (Noterdaeme et al. 2012, A&A 547, L1)."""
LLS_PER_Z = 1.6
"""Optically thick systems per unit redshift at z about 3 (Songaila & Cowie 2010, ApJ 721, 1448)."""
MGII_PER_Z, MGII_EW = 0.55, 0.7
"""Mg II absorbers with EW > 0.3 Å per unit redshift, and their e-folding width, Å (Zhu & Menard 2013, ApJ 770, 130)."""
ASSOCIATED_SHARE = 0.12
"""Share of quasars with a narrow C IV absorber of their own surroundings (Vestergaard 2003, ApJ 599, 116, finds a quarter, weaker ones too)."""
CIV_PER_Z, CIV_EW = 1.0, 0.35
"""The same for C IV (Cooksey et al. 2013, ApJ 763, 37)."""


@dataclass(frozen=True)
class Trough:
    """A broad absorption trough in several lines.

    Attributes
    ----------
    lines : tuple of (float, float)
        Rest wavelength, Å, and depth of each line over `depth`.
    low, high : float
        Velocities, km/s; negative: outflow.
    depth : float
        Share of the light taken at the bottom of a line of relative depth 1.
    edge : float
        Width of the edges, km/s.
    ripple : float
        Relative depth of the substructure.
    ripple_phase : float
    """

    lines: tuple[tuple[float, float], ...]
    low: float
    high: float
    depth: float
    edge: float = 600.0
    ripple: float = 0.25
    ripple_phase: float = 0.0

    def transmission(self, wave_rest: Array) -> Array:
        """Return the share of light that passes; `wave_rest` in the quasar's frame, Å."""
        passed = np.ones_like(wave_rest)
        for line, share in self.lines:
            limits = (shifted(line, self.low - 6 * self.edge), shifted(line, self.high + 6 * self.edge))
            near = slice(*np.searchsorted(wave_rest, limits))
            v = velocity_kms(wave_rest[near], line)
            shape = smooth_box(v, self.low, self.high, self.edge)
            shape *= 1.0 - self.ripple * (0.5 + 0.5 * np.sin(v / 900.0 + self.ripple_phase))
            passed[near] *= 1.0 - min(self.depth * share, 1.0) * shape
        return passed


@dataclass(frozen=True)
class NarrowLine:
    """A narrow absorption line: rest wavelength, Å, redshift, rest equivalent width, Å, width, km/s."""

    wave: float
    z: float
    ew: float
    sigma_kms: float


@dataclass
class Absorbers:
    """What lies in front of a quasar; `hydrogen` lists (redshift, log10 column density, cm-2)."""

    hydrogen: list[tuple[float, float]] = field(default_factory=list)
    metals: list[NarrowLine] = field(default_factory=list)
    troughs: list[Trough] = field(default_factory=list)
    forest: bool = True

    def transmission(self, wave: Array, z: float, rng: np.random.Generator) -> Array:
        """Return the share of light that passes, mean over each pixel; `wave` observed, Å, `z` of the quasar."""
        passed = np.ones_like(wave)
        if self.forest and wave[0] < LYA * (1 + z):
            passed *= forest(wave, z, rng)
        for z_gas, log_n in self.hydrogen:
            passed *= hydrogen(wave / (1 + z_gas), log_n)
        for line in self.metals:
            _absorb_narrow(passed, wave, line)
        for trough in self.troughs:
            passed *= trough.transmission(wave / (1 + z))
        return passed


def draw_absorbers(rng: np.random.Generator, z: float) -> Absorbers:
    """Return the absorbers of a normal line of sight to a quasar at `z`: no broad trough, little within 5000 km/s."""
    until = z - (1 + z) * 5000.0 / LIGHT_SPEED_KMS
    hydrogen_lines = [
        (place, 20.3 + min(rng.exponential(0.35), 1.7)) for place in _places(rng, _first_z(LYA), until, DLA_PER_Z)
    ]
    limits = [
        (place, 17.2 + min(rng.exponential(0.7), 2.5))
        for place in _places(rng, _first_z(LYMAN_LIMIT), until, LLS_PER_Z)
    ]
    metals: list[NarrowLine] = []
    for place in _places(rng, 0.3, min(until, 2.5), MGII_PER_Z):
        metals += magnesium(rng, place, 0.3 + float(rng.exponential(MGII_EW)))
    for place in _places(rng, _first_z(1549.0), until, CIV_PER_Z):
        metals += carbon(rng, place, 0.2 + float(rng.exponential(CIV_EW)))
    for place, log_n in hydrogen_lines:
        metals += low_ions(rng, place, 0.25 * (log_n - 19.5))
    if rng.random() < ASSOCIATED_SHARE:
        own = z + (1 + z) * float(rng.uniform(-3000.0, 300.0)) / LIGHT_SPEED_KMS
        metals += carbon(rng, own, 0.2 + float(rng.exponential(2 * CIV_EW)))
    return Absorbers([*hydrogen_lines, *limits], metals)


def _first_z(line: float) -> float:
    """Return the redshift from which on a line lies in DESI's window."""
    return max(3550.0 / line - 1.0, 0.0)


def _places(rng: np.random.Generator, low: float, high: float, rate: float) -> list[float]:
    span = max(high - low, 0.0)
    return [float(low + span * u) for u in rng.random(rng.poisson(rate * span))]


def magnesium(rng: np.random.Generator, z: float, ew: float) -> list[NarrowLine]:
    """Return the doublet of Mg II with the iron lines that come with it; `ew` of the stronger line, Å."""
    width = float(np.clip(40.0 * ew, 25.0, 130.0))
    ratio = float(rng.uniform(0.55, 0.95))
    lines = (
        (2796.35, 1.0),
        (2803.53, ratio),
        (2600.17, 0.45),
        (2586.65, 0.3),
        (2382.76, 0.45),
        (2374.46, 0.2),
        (2344.21, 0.3),
    )
    return [NarrowLine(line, z, ew * share, width) for line, share in lines]


def carbon(rng: np.random.Generator, z: float, ew: float) -> list[NarrowLine]:
    """Return the doublets of C IV and Si IV; `ew` of the strongest line, Å."""
    width = float(np.clip(70.0 * ew, 30.0, 150.0))
    silicon = float(rng.uniform(0.1, 0.7))
    lines = ((1548.20, 1.0), (1550.77, 0.65), (1393.76, silicon), (1402.77, 0.6 * silicon))
    return [NarrowLine(line, z, ew * share, width) for line, share in lines]


def low_ions(rng: np.random.Generator, z: float, ew: float) -> list[NarrowLine]:
    """Return the metals of a damped system; `ew` of Si II 1526, Å."""
    lines = ((1260.42, 1.0), (1302.17, 1.0), (1334.53, 1.1), (1526.71, 1.0), (1608.45, 0.6), (1670.79, 1.1), (2382.76, 1.5),
             (2600.17, 1.4), (2796.35, 2.2), (2803.53, 1.9))  # fmt: skip
    return [NarrowLine(line, z, ew * share * float(rng.uniform(0.7, 1.3)), 50.0) for line, share in lines]


def _absorb_narrow(passed: Array, wave: Array, line: NarrowLine) -> None:
    """Multiply by a line, in place: on a fine grid, then the mean over each pixel."""
    centre = line.wave * (1 + line.z)
    sigma = centre * line.sigma_kms / LIGHT_SPEED_KMS
    low, high = np.searchsorted(wave, (centre - 6 * sigma - 2, centre + 6 * sigma + 2))
    if high <= low:
        return
    fine = _fine(wave[low:high])
    area = line.ew * (1 + line.z)
    shape = np.exp(-0.5 * ((fine - centre) / sigma) ** 2)
    passed[low:high] *= (
        np.exp(-_saturated(area / (sigma * 2.5066282746)) * shape).reshape(-1, OVERSAMPLING).mean(axis=1)
    )


@lru_cache(maxsize=1)
def _growth() -> tuple[Array, Array]:
    """Return the curve of growth of a Gaussian: equivalent width in units of sqrt(2 pi) sigma, and central depth."""
    x = np.linspace(-8.0, 8.0, 801)
    shape = np.exp(-0.5 * x * x)
    depth = np.geomspace(1e-3, 1e4, 200)
    width = np.array([np.trapezoid(1.0 - np.exp(-tau * shape), x) for tau in depth]) / 2.5066282746
    return width, depth


def _saturated(width: float) -> float:
    """Return the central optical depth at which a Gaussian line has that equivalent width."""
    widths, depths = _growth()
    return float(np.interp(width, widths, depths))


def _fine(wave: Array) -> Array:
    offsets = (np.arange(OVERSAMPLING) - (OVERSAMPLING - 1) / 2) * (WAVE_STEP / OVERSAMPLING)
    return np.asarray((wave[:, None] + offsets).reshape(-1))


def hydrogen(wave: Array, log_n: float) -> Array:
    """Return the transmission of neutral hydrogen in its own rest frame, Å: Lyman alpha and beta with damping wings, and the limit."""
    depth = np.zeros_like(wave)
    if log_n > 18.0:
        depth += voigt_depth(wave, LYA, 0.4164, 6.265e8, log_n, 30.0)
        depth += voigt_depth(wave, LYB, 0.07912, 1.897e8, log_n, 30.0)
    depth += np.where(wave < LYMAN_LIMIT, 6.3e-18 * 10.0**log_n * (wave / LYMAN_LIMIT) ** 3, 0.0)
    return np.asarray(np.exp(-np.minimum(depth, 50.0)))


def mean_transmission(z: Array) -> Array:
    """Return the mean transmission of the Lyman-alpha forest, exp(-0.0023 (1 + z)^3.65)."""
    return np.asarray(np.exp(-0.0023 * (1.0 + np.asarray(z)) ** 3.65))


@lru_cache(maxsize=1)
def _depth_table() -> tuple[Array, Array]:
    """Return ln of the median optical depth by the mean transmission that it gives, log-normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    ln_depth = np.linspace(-14.0, 5.0, 400)
    mean = np.exp(-np.exp(ln_depth[:, None] + FOREST_LOG_SCATTER * nodes)) @ (weights / weights.sum())
    return mean[::-1], ln_depth[::-1]


def forest(wave: Array, z: float, rng: np.random.Generator) -> Array:
    """Return the forest in front of a quasar at `z`: log-normal optical depth with :func:`mean_transmission` on average.

    The depth of Lyman beta follows that of Lyman alpha of the same gas.
    """
    from scipy.ndimage import gaussian_filter1d

    fine = _fine(wave[wave < LYA * (1 + z)])
    # Lyman beta needs the gas up to the quasar, also where its Lyman alpha lies beyond this grid
    gas_wave = np.arange(fine[0], LYA * (1 + z), WAVE_STEP / OVERSAMPLING)
    field_ = gaussian_filter1d(rng.standard_normal(gas_wave.size), FOREST_CORRELATION * OVERSAMPLING / WAVE_STEP / 2)
    field_ /= max(float(field_.std()), 1e-9) if field_.size > 500 else 0.4
    mean, ln_depth = _depth_table()
    depth = np.exp(np.interp(mean_transmission(gas_wave / LYA - 1), mean, ln_depth) + FOREST_LOG_SCATTER * field_)
    total = np.interp(fine, gas_wave, depth)
    in_beta = fine < LYB * (1 + z)
    total[in_beta] += LYB_DEPTH * np.interp(fine[in_beta] * (LYA / LYB), gas_wave, depth)
    passed = np.ones_like(wave)
    passed[: fine.size // OVERSAMPLING] = np.exp(-total).reshape(-1, OVERSAMPLING).mean(axis=1)
    return passed
