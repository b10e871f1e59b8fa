"""Quasars: a continuum, emission lines, iron, the Balmer continuum, the host galaxy and mild dust, with natural scatter.

Equivalent widths are those of the composite of Vanden Berk et al. (2001, AJ 122, 549, table 2); their scatter, the
Baldwin effect and the run of widths and blueshifts follow the reviews cited beside each number.  Everything is drawn
into a :class:`Quasar` first, so that an anomaly is a change of its parameters, and only then turned into a spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qad import iron
from qad.cosmology import distance_modulus
from qad.lines import LIGHT_SPEED_KMS
from qad.profiles import FWHM_PER_SIGMA, add_gaussian
from qad.simulation import stellar
from qad.simulation.absorption import Absorbers, draw_absorbers
from qad.simulation.profiles import (
    draw,
    random_curve,
    smc_transmission,
)

Array = NDArray[np.float64]

REDSHIFT_QUANTILES = ((0.0, 0.05), (0.01, 0.22), (0.10, 0.78), (0.135, 0.90), (0.32, 1.30), (0.50, 1.68), (0.715, 2.10),
                      (0.90, 2.65), (0.955, 3.00), (0.99, 3.56), (0.999, 4.3), (1.0, 5.2))  # fmt: skip
"""Share of quasars below a redshift: main survey of DR1 (table nofz_QSO of the DR1 paper's data)."""
R_MAG_DENSITY = (
    (16.5, 0.0005),
    (18.0, 0.008),
    (19.0, 0.05),
    (20.0, 0.21),
    (21.0, 0.52),
    (22.0, 0.93),
    (22.7, 1.05),
    (23.1, 0.2),
)
"""Relative number of quasars by r magnitude: counts of Palanque-Delabrouille et al. (2016, A&A 587, A41) to DESI's limit r = 23."""
CONTINUUM_PIVOT = 3000.0
SLOPE_MEAN, SLOPE_SCATTER = -1.56, 0.32
"""Continuum slope in F_lambda, 1300 to 5000 Å (Vanden Berk et al. 2001; scatter as in Krawczyk et al. 2013, ApJS 206, 4)."""
LINE_SCATTER = 0.22
"""Scatter of ln EW line by line, on top of 0.20 that all lines of a quasar share: about 0.3 in all (Shen et al. 2011)."""
COMMON_SCATTER = 0.20
BALDWIN_PIVOT = -23.5
"""Absolute magnitude at which the mean equivalent widths hold: about the median of DESI's quasars, whose stacked lines agree with the composite's."""
HOST_SHARE = 0.10
"""Median share of the host's light at 5100 Å at absolute magnitude -22.5, less for brighter quasars (Jalan et al. 2023, MNRAS 521, L11)."""
FAINTEST = -21.0
"""Absolute magnitude below which the host would drown the quasar and redrock call it a galaxy."""


@dataclass
class EmissionLine:
    """An emission line: rest wavelength and equivalent width, Å, and its Gaussians as (share, shift, FWHM), km/s."""

    wave: float
    ew: float
    shape: list[tuple[float, float, float]]


@dataclass(frozen=True)
class _LineKind:
    """What the population says of a line: `baldwin` is d ln EW / d mag, `width` and `shift` scale the quasar's own."""

    name: str
    wave: float
    ew: float
    baldwin: float = 0.0
    width: float = 1.0
    shift: float = 0.0
    narrow: bool = False


_BROAD = (
    _LineKind("C III 977", 977.02, 3.0, 0.10, 1.1, 0.5),
    _LineKind("Ly beta", 1025.72, 2.5, 0.08, 1.0, 0.4),
    _LineKind("O VI", 1033.82, 8.5, 0.12, 1.1, 0.6),
    _LineKind("Lya", 1215.67, 72.0, 0.10, 0.95, 0.35),
    _LineKind("N V", 1240.14, 18.0, 0.02, 1.2, 0.5),
    _LineKind("Si II", 1262.59, 1.5, 0.02, 1.0, 0.1),
    _LineKind("O I", 1304.35, 1.7, 0.02, 0.8, 0.0),
    _LineKind("C II", 1335.31, 0.7, 0.02, 0.8, 0.1),
    _LineKind("Si IV", 1396.76, 5.2, 0.06, 1.1, 0.6),
    _LineKind("O IV]", 1402.06, 3.0, 0.06, 1.1, 0.5),
    _LineKind("N IV]", 1486.50, 0.3, 0.05, 0.9, 0.3),
    _LineKind("C IV", 1549.06, 24.0, 0.16, 1.05, 1.0),
    _LineKind("1600 bump", 1600.0, 2.5, 0.05, 3.0, 0.0),
    _LineKind("He II 1640", 1640.42, 2.5, 0.20, 1.6, 1.0),
    _LineKind("O III]", 1663.48, 0.9, 0.08, 0.8, 0.3),
    _LineKind("N III]", 1750.26, 0.45, 0.05, 0.9, 0.2),
    _LineKind("Al III", 1857.40, 1.6, 0.02, 0.9, 0.2),
    _LineKind("Si III]", 1892.03, 2.6, 0.03, 0.8, 0.2),
    _LineKind("C III]", 1908.73, 16.0, 0.09, 1.15, 0.4),
    _LineKind("Mg II", 2798.75, 32.0, 0.10, 0.85, 0.0),
    _LineKind("He II 3204", 3204.0, 0.7, 0.1, 1.2, 0.4),
    _LineKind("H epsilon", 3971.20, 2.0, 0.02, 0.95, 0.0),
    _LineKind("Hdelta", 4102.89, 5.0, 0.02, 0.95, 0.0),
    _LineKind("Hgamma", 4341.69, 12.6, 0.02, 0.95, 0.0),
    _LineKind("He II 4687", 4687.02, 1.2, 0.15, 1.3, 0.6),
    _LineKind("Hbeta", 4862.71, 46.0, 0.02, 1.0, 0.0),
    _LineKind("He I", 5877.25, 5.0, 0.03, 1.1, 0.0),
    _LineKind("Halpha", 6564.60, 195.0, 0.02, 0.9, 0.0),
    _LineKind("O I 8446", 8448.7, 6.0, 0.02, 0.8, 0.0),
)
_NARROW = (
    _LineKind("[Ne IV]", 2423.83, 0.3, 0.15, narrow=True),
    _LineKind("[Ne V] 3346", 3346.79, 0.35, 0.15, narrow=True),
    _LineKind("[Ne V]", 3426.85, 1.2, 0.15, narrow=True),
    _LineKind("[O II]", 3728.48, 1.6, 0.20, narrow=True),
    _LineKind("[Ne III]", 3869.86, 1.4, 0.15, narrow=True),
    _LineKind("[O III] 4364", 4364.44, 0.4, 0.15, narrow=True),
    _LineKind("Hbeta narrow", 4862.71, 1.3, 0.18, narrow=True),
    _LineKind("[O III] 4960", 4960.30, 4.4, 0.12, narrow=True),
    _LineKind("[O III]", 5008.24, 13.2, 0.12, narrow=True),
    _LineKind("[O I]", 6302.05, 1.2, 0.15, narrow=True),
    _LineKind("[N II] 6550", 6549.86, 1.0, 0.15, narrow=True),
    _LineKind("Halpha narrow", 6564.60, 5.0, 0.15, narrow=True),
    _LineKind("[N II]", 6585.27, 3.0, 0.15, narrow=True),
    _LineKind("[S II] 6718", 6718.29, 1.6, 0.15, narrow=True),
    _LineKind("[S II] 6733", 6732.67, 1.5, 0.15, narrow=True),
    _LineKind("[Ar III]", 7137.77, 0.6, 0.15, narrow=True),
    _LineKind("[S III] 9071", 9071.1, 2.0, 0.15, narrow=True),
    _LineKind("[S III]", 9533.2, 5.0, 0.15, narrow=True),
)
LINE_KINDS = {kind.name: kind for kind in (*_BROAD, *_NARROW)}


@dataclass
class Quasar:
    """Everything that a quasar's spectrum is made from.

    Attributes
    ----------
    z, r_mag : float
    fwhm : float
        Width of the broad H-beta line, km/s.
    slope, slope_red, slope_blue : float
        Of the continuum, F_lambda, below and above 5000 Å and below 1200 Å.
    lines : dict of str to EmissionLine
    iron_uv, iron_optical : float
        Equivalent widths, Å, of iron in 2200 to 2650 and 4434 to 4684 Å.
    balmer : float
        Balmer continuum over the continuum at 3646 Å.
    host, host_age : float
        The host's share of the light at 5100 Å, and its age, see :func:`qad.simulation.stellar.galaxy`.
    ebv : float
        Dust of the quasar itself, mag.
    wiggle_seed : int
        Seed of the broad departures of the continuum from power laws.
    absorbers : Absorbers
    companion, companion_galaxy_z, companion_ratio
        A second quasar, or the redshift of a galaxy, in the same fibre, and its light over the quasar's.
    star_kind : str or None
        A star in the quasar's place.
    z_claimed : float or None
        The wrong redshift at which redrock puts it.
    """

    z: float
    r_mag: float
    fwhm: float
    slope: float
    slope_red: float
    slope_blue: float
    lines: dict[str, EmissionLine]
    iron_uv: float
    iron_optical: float
    balmer: float
    host: float
    host_age: float
    ebv: float
    wiggle_seed: int
    wiggle: float = 0.03
    absorbers: Absorbers = field(default_factory=Absorbers)
    companion: Quasar | None = None
    companion_galaxy_z: float | None = None
    companion_ratio: float = 0.0
    star_kind: str | None = None
    z_claimed: float | None = None

    def scale_lines(self, factor: float, *names: str) -> None:
        """Multiply the equivalent widths of the named lines, or of all."""
        for name in names or self.lines:
            self.lines[name].ew *= factor


def draw_redshift(rng: np.random.Generator) -> float:
    """Return a redshift of DR1's distribution."""
    share, z = np.array(REDSHIFT_QUANTILES).T
    return float(np.interp(rng.random(), share, z))


def draw_quasar(rng: np.random.Generator, z: float | None = None) -> Quasar:
    """Return a normal quasar: no broad absorption, no anomaly."""
    z = draw_redshift(rng) if z is None else z
    to_absolute = -distance_modulus(z) + 2.5 * np.log10(1.0 + z)  # with the K correction of F_nu ~ const.
    r_mag = max(min(draw(rng, R_MAG_DENSITY), FAINTEST - to_absolute), 14.5)
    magnitude = r_mag + to_absolute
    # "eigenvector 1": strong iron goes with weak [O III], narrow H-beta and blueshifted C IV (Boroson & Green 1992; Richards 2011)
    vector = float(rng.normal())
    fwhm = float(4000.0 * np.exp(0.38 * rng.normal() - 0.14 * vector))
    host = float(np.clip(HOST_SHARE * 10.0 ** (0.24 * (magnitude + 22.5)) * np.exp(0.6 * rng.normal()), 0.0, 0.6))
    return Quasar(
        z=z,
        r_mag=r_mag,
        fwhm=float(np.clip(fwhm, 1300.0, 14_000.0)),
        slope=SLOPE_MEAN + SLOPE_SCATTER * float(rng.normal()),
        slope_red=-0.75 + 0.3 * float(rng.normal()),
        slope_blue=-0.7 + 0.4 * float(rng.normal()),
        lines=_draw_lines(rng, float(magnitude), vector, fwhm),
        iron_uv=45.0 * float(np.exp(0.3 * rng.normal() + 0.18 * vector)),
        iron_optical=18.0 * float(np.exp(0.35 * rng.normal() + 0.45 * vector)),
        balmer=0.18 * float(np.exp(0.35 * rng.normal())),
        host=host,
        host_age=float(rng.beta(2.0, 1.6)),
        ebv=float(min(rng.exponential(0.018), 0.12)),
        wiggle_seed=int(rng.integers(2**31)),
        absorbers=draw_absorbers(rng, z),
    )


def _draw_lines(rng: np.random.Generator, magnitude: float, vector: float, fwhm: float) -> dict[str, EmissionLine]:
    common = COMMON_SCATTER * rng.normal()
    luminosity = float(np.clip(magnitude - BALDWIN_PIVOT, -4.0, 4.0))
    blueshift = -float(np.clip(650.0 + 420.0 * vector - 130.0 * luminosity + 250.0 * rng.normal(), -300.0, 5000.0))
    asymmetry = 0.25 * float(rng.normal())
    core = float(np.clip(0.55 + 0.15 * rng.normal(), 0.2, 0.85))
    narrow_fwhm = float(np.clip(450.0 * np.exp(0.3 * rng.normal()), 200.0, 1100.0))
    narrow_common = 0.45 * rng.normal() - 0.45 * vector
    wing = float(np.clip(0.3 + 0.2 * rng.normal(), 0.0, 0.7))
    wing_shift = -float(abs(rng.normal(300.0, 200.0)))
    lines = {}
    for kind in LINE_KINDS.values():
        ln_ew = kind.baldwin * luminosity + LINE_SCATTER * rng.normal()
        if kind.narrow:
            scatter = narrow_common
            shape = [(1.0 - wing, 0.0, narrow_fwhm), (wing, wing_shift, 2.3 * narrow_fwhm)]
        else:
            # high ionisation lines weaken as the C IV blueshift grows (Richards et al. 2011, AJ 141, 167)
            scatter = common - 0.22 * vector * kind.shift
            width = fwhm * kind.width * float(np.exp(0.08 * rng.normal()))
            shift = blueshift * kind.shift
            skew = (asymmetry - 0.2 * kind.shift) * width
            shape = [(core, 0.5 * shift, 0.75 * width), (1.0 - core, 1.4 * shift + skew, 2.0 * width)]
        lines[kind.name] = EmissionLine(kind.wave, kind.ew * float(np.exp(ln_ew + scatter)), shape)
    for strong, weak in (("[O III]", "[O III] 4960"), ("[N II]", "[N II] 6550")):
        lines[weak].ew = lines[strong].ew / 2.98  # the ratio is fixed by atomic physics (Storey & Zeippen 2000)
    return lines


def continuum(quasar: Quasar, wave_rest: Array) -> Array:
    """Return the power laws and their wiggles, 1 near 3000 Å."""
    x = np.log(wave_rest / CONTINUUM_PIVOT)
    red, blue = np.log(5000.0 / CONTINUUM_PIVOT), np.log(1200.0 / CONTINUUM_PIVOT)
    log_flux = quasar.slope * x
    log_flux += (quasar.slope_red - quasar.slope) * 0.1 * np.logaddexp(0.0, (x - red) / 0.1)
    log_flux -= (quasar.slope_blue - quasar.slope) * 0.05 * np.logaddexp(0.0, (blue - x) / 0.05)
    if quasar.wiggle:
        grid = np.linspace(np.log(550.0 / CONTINUUM_PIVOT), np.log(9900.0 / CONTINUUM_PIVOT), 200)
        curve = random_curve(np.random.default_rng(quasar.wiggle_seed), grid, 0.25, quasar.wiggle)
        log_flux += np.interp(x, grid, curve)
    return np.asarray(np.exp(log_flux))


def emission(quasar: Quasar, wave_rest: Array, base: Array) -> Array:
    """Return lines, iron and Balmer continuum; `base` is the continuum at `wave_rest`."""
    total = np.zeros_like(wave_rest)
    lines = list(quasar.lines.values())
    level = continuum(quasar, np.array([line.wave for line in lines]))
    for line, height in zip(lines, level, strict=True):
        if line.ew > 0:
            for share, shift, fwhm in line.shape:
                centre = line.wave * (1.0 + shift / LIGHT_SPEED_KMS)
                sigma = centre * fwhm / (FWHM_PER_SIGMA * LIGHT_SPEED_KMS)
                add_gaussian(total, wave_rest, centre, sigma, float(share * line.ew * height))
    total += base * iron.iron(wave_rest, quasar.fwhm, quasar.iron_uv, quasar.iron_optical)
    if quasar.balmer > 0:
        edge = float(continuum(quasar, np.array([3646.0]))[0])
        total += quasar.balmer * edge * iron.balmer_continuum(wave_rest)
    return total


def render(quasar: Quasar, wave: Array, rng: np.random.Generator) -> Array:
    """Return the flux that reaches the Milky Way at observed wavelengths `wave`, Å: continuum 1 near rest 3000 Å.

    Each value is the mean over a pixel as narrow as the grid's step; the spectrograph comes later.
    """
    wave_rest = wave / (1.0 + quasar.z)
    base = continuum(quasar, wave_rest)
    nuclear = (base + emission(quasar, wave_rest, base)) * smc_transmission(wave_rest, quasar.ebv)
    nuclear *= quasar.absorbers.transmission(wave, quasar.z, rng)
    if quasar.host > 0 and wave_rest[-1] > 2000.0:
        level = float(continuum(quasar, np.array([5100.0]))[0]) * quasar.host / (1.0 - quasar.host)
        nuclear += level * stellar.galaxy(wave_rest, quasar.host_age)
    return np.asarray(nuclear)
