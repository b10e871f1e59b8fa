"""Anomalous quasars: one function a class, which changes the parameters of a normal quasar.

The classes, and how strong each shows, follow the reviews named in each docstring; `strength` runs from 0, hardly more than the
normal population has, to 1, the extremes that are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qad.lines import LIGHT_SPEED_KMS
from qad.simulation import contaminants
from qad.simulation.absorption import NarrowLine, Trough, low_ions
from qad.simulation.quasars import LINE_KINDS, Quasar, draw_quasar, draw_redshift, render

Array = NDArray[np.float64]
Plant = Callable[[Quasar, float, np.random.Generator], None]

HIGH_IONS = (
    (1548.20, 1.0),
    (1550.77, 1.0),
    (1393.76, 0.65),
    (1402.77, 0.55),
    (1238.82, 0.9),
    (1242.80, 0.9),
    (1031.93, 0.9),
    (1037.62, 0.9),
)
LOW_IONS = ((2796.35, 0.8), (2803.53, 0.75), (1854.72, 0.7), (1862.79, 0.6))
IRON_IONS = ((2344.21, 0.6), (2374.46, 0.4), (2382.76, 0.75), (2586.65, 0.6), (2600.17, 0.75), (2749.99, 0.4), (2739.55, 0.3),
             (1895.46, 0.4), (1914.06, 0.4), (1926.30, 0.35), (2062.21, 0.35), (2068.90, 0.3), (2079.65, 0.3))  # fmt: skip
"""Rest wavelength, Å, and depth over that of C IV: resonance lines of broad absorption (Hall et al. 2002, ApJS 141, 267)."""
UV_LINES = ("Lya", "N V", "Si II", "O I", "C II", "Si IV", "O IV]", "N IV]", "C IV", "1600 bump", "He II 1640", "O III]",
            "Al III", "Si III]", "C III]", "O VI", "Ly beta")  # fmt: skip
BALMER_LINES = ("Hbeta", "Hgamma", "Hdelta", "H epsilon", "Halpha")
NARROW_LINES = tuple(name for name, kind in LINE_KINDS.items() if kind.narrow)
BROAD_LINES = tuple(name for name, kind in LINE_KINDS.items() if not kind.narrow)
_SWAPS = ((2798.75, 1215.67), (2798.75, 1549.06), (2798.75, 1908.73), (1908.73, 1215.67), (1549.06, 1215.67),
          (1908.73, 1549.06), (1549.06, 1908.73), (1908.73, 2798.75), (4862.71, 2798.75))  # fmt: skip
"""Lines that redshift fits take for one another: the true one, and what it is read as."""


@dataclass(frozen=True)
class Anomaly:
    """A class: the redshifts at which its signs lie in DESI's window, and what it does to a quasar."""

    name: str
    z_min: float
    z_max: float
    plant: Plant


def _trough(
    rng: np.random.Generator,
    lines: tuple[tuple[float, float], ...],
    near: float,
    width: float,
    depth: float,
    edge: float,
) -> Trough:
    return Trough(lines, -near - width, -near, depth, edge, float(rng.uniform(0.1, 0.4)), float(rng.uniform(0, 6.28)))


def hibal(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """Broad absorption by highly ionised gas (Weymann et al. 1991, ApJ 373, 23): C IV, Si IV, N V, O VI."""
    width = 2000.0 + 14_000.0 * strength**1.3 * float(rng.uniform(0.7, 1.2))
    near = float(rng.uniform(0.0, min(9000.0, 23_000.0 - width)))
    depth = 0.35 + 0.6 * strength * float(rng.uniform(0.75, 1.0))
    quasar.absorbers.troughs.append(_trough(rng, HIGH_IONS, near, width, depth, float(rng.uniform(300.0, 1000.0))))
    quasar.ebv += 0.03 * float(rng.random())


def lobal(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """The same with Mg II and Al III, narrower, and with dust (Trump et al. 2006, ApJS 165, 1)."""
    width = 2500.0 + 9000.0 * strength
    near = float(rng.uniform(0.0, 4000.0))
    depth = 0.45 + 0.5 * strength
    edge = float(rng.uniform(300.0, 900.0))
    quasar.absorbers.troughs.append(_trough(rng, HIGH_IONS, near, width, depth, edge))
    quasar.absorbers.troughs.append(_trough(rng, LOW_IONS, near, width * float(rng.uniform(0.5, 0.8)), depth, edge))
    quasar.ebv += 0.05 + 0.25 * strength * float(rng.uniform(0.5, 1.0))


def felobal(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """Low ionisation absorption with excited iron: overlapping troughs below 2800 Å (Hall et al. 2002, ApJS 141, 267)."""
    lobal(quasar, strength, rng)
    width = 1500.0 + 6000.0 * strength
    near = float(rng.uniform(0.0, 3000.0))
    quasar.absorbers.troughs.append(
        _trough(rng, IRON_IONS, near, width, 0.55 + 0.45 * strength, float(rng.uniform(300.0, 700.0)))
    )
    quasar.ebv += 0.1 * strength


def redshifted_bal(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """A trough redward of the line (Hall et al. 2013, MNRAS 434, 222)."""
    low = 500.0 + 1500.0 * float(rng.random())
    width = 1500.0 + 5000.0 * strength
    depth = 0.35 + 0.5 * strength
    quasar.absorbers.troughs.append(Trough(HIGH_IONS, low, low + width, depth, 400.0, 0.2, float(rng.uniform(0, 6.28))))


def fast_outflow(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """C IV at 0.1 to 0.2 c, outside the window of BAL catalogues (Rodriguez Hidalgo et al. 2020, ApJ 896, 151)."""
    width = 1500.0 + 6000.0 * strength
    near = float(rng.uniform(30_000.0, 58_000.0 - width))
    lines = ((1548.20, 1.0), (1550.77, 1.0))
    quasar.absorbers.troughs.append(_trough(rng, lines, near, width, 0.25 + 0.5 * strength, 600.0))


def weak_line(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """Ultraviolet lines below EW(C IV) 10 Å, blueshifted; Mg II and H-beta normal (Diamond-Stanic et al. 2009, ApJ 699, 782)."""
    target = 9.5 - 7.0 * strength
    quasar.scale_lines(
        target / quasar.lines["C IV"].ew * 0.95, *(name for name in UV_LINES if name not in ("Lya", "C IV", "N V"))
    )
    quasar.lines["C IV"].ew = target
    quasar.lines["Lya"].ew, quasar.lines["N V"].ew = 0.75 * (14.0 - 9.0 * strength), 0.25 * (14.0 - 9.0 * strength)
    shift = -(1500.0 + 4000.0 * strength * float(rng.random()))
    for name in ("C IV", "He II 1640", "Si IV", "O IV]", "C III]"):
        line = quasar.lines[name]
        line.shape = [
            (share, v + shift * (1.0 if name == "C IV" else 0.5), fwhm * 1.2) for share, v, fwhm in line.shape
        ]


def featureless(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """A blazar: a power law, all lines below 5 Å (Plotkin et al. 2010, AJ 139, 390)."""
    quasar.scale_lines(0.15 * (1.0 - strength) + 0.01)
    quasar.iron_uv *= 0.1 * (1.0 - strength)
    quasar.iron_optical *= 0.1 * (1.0 - strength)
    quasar.balmer = 0.0
    quasar.host *= 0.3
    quasar.slope = quasar.slope_red = quasar.slope_blue = float(rng.uniform(-2.0, -0.5))
    quasar.wiggle = 0.01


def reddened(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """Dust in the quasar, E(B-V) 0.25 to 1 (Fawcett et al. 2023, MNRAS 525, 5575)."""
    quasar.ebv = 0.25 + 0.75 * strength * float(rng.uniform(0.8, 1.0))


def extremely_red(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """Boxy C IV of 100 Å and more, N V above Ly-alpha, on a red continuum (Hamann et al. 2017, MNRAS 464, 3431)."""
    quasar.lines["C IV"].ew = 90.0 + 120.0 * strength
    quasar.lines["N V"].ew = 1.1 * quasar.lines["Lya"].ew
    width = float(rng.uniform(3500.0, 6500.0))
    for name in ("C IV", "Lya", "N V", "Si IV", "O VI", "He II 1640"):
        centre = -float(rng.uniform(0.0, 1500.0))
        quasar.lines[name].shape = [
            (0.2, centre + place * width, 0.33 * width) for place in (-0.4, -0.2, 0.0, 0.2, 0.4)
        ]
    quasar.ebv += 0.1 + 0.2 * strength
    quasar.slope += 0.5


def double_peaked(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """Low ionisation lines with two humps of an accretion disc (Strateva et al. 2003, AJ 126, 1720)."""
    half = 2800.0 + 3500.0 * strength
    blue = float(rng.uniform(0.45, 0.6))
    for name in (*BALMER_LINES, "Mg II"):
        scale = 0.85 if name == "Mg II" else 1.0
        core = 0.35 * (1.0 - strength)
        humps = [
            (blue * (1 - core), -half * scale, 0.95 * half),
            ((1 - blue) * (1 - core), 1.15 * half * scale, 1.15 * half),
        ]
        quasar.lines[name].shape = [*humps, (core, 0.0, 0.8 * half)]
        quasar.lines[name].ew *= 1.2


def strong_feii(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """Iron above twice H-beta, weak [O III] (Lipari et al. 1993, ApJ 406, 451; Meusinger et al. 2012, A&A 541, A77)."""
    quasar.fwhm = float(rng.uniform(1500.0, 3500.0))
    quasar.iron_uv = 45.0 * (2.2 + 3.5 * strength)
    quasar.lines["Hbeta"].ew *= 0.8
    quasar.iron_optical = quasar.lines["Hbeta"].ew * (1.6 + 2.0 * strength)
    quasar.scale_lines(0.25, *NARROW_LINES)


def n_rich(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """Strong nitrogen, weak carbon (Jiang, Fan & Vestergaard 2008, ApJ 679, 962)."""
    quasar.lines["N III]"].ew = 4.0 + 11.0 * strength
    quasar.lines["N IV]"].ew = 2.5 + 7.0 * strength
    quasar.lines["N V"].ew *= 1.6 + 1.4 * strength * float(rng.uniform(0.7, 1.0))
    quasar.lines["C IV"].ew *= 0.7 - 0.3 * strength
    quasar.lines["C III]"].ew *= 0.8 - 0.3 * strength


def si_iv_strong(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """Si IV as strong as C IV (a group of the SQuAD catalogue, arXiv:2411.16858)."""
    total = quasar.lines["C IV"].ew * (0.75 + 0.6 * strength)
    quasar.lines["Si IV"].ew, quasar.lines["O IV]"].ew = 0.7 * total, 0.3 * total
    quasar.lines["C IV"].ew *= float(rng.uniform(0.75, 0.95))


def narrow_line(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """Type 2: a galaxy with strong narrow lines, [O III] above 100 Å (Zakamska et al. 2003, AJ 126, 2125; Yuan et al. 2016)."""
    quasar.host = 0.75 + 0.2 * strength
    quasar.host_age = float(rng.uniform(0.3, 0.9))
    quasar.scale_lines(0.12 * (1.0 - strength), *BROAD_LINES)
    quasar.iron_uv = quasar.iron_optical = quasar.balmer = 0.0
    wanted = (60.0 + 340.0 * strength) / (1.0 - quasar.host)
    quasar.scale_lines(wanted / quasar.lines["[O III]"].ew, *NARROW_LINES)
    quasar.scale_lines(1.8, "[O II]", "[Ne V]", "[Ne V] 3346", "[Ne III]")


def proximate_dla(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """A damped system within 3000 km/s, which takes the core of Ly-alpha (Prochaska et al. 2008, ApJ 675, 1002)."""
    z_gas = quasar.z + (1 + quasar.z) * float(rng.uniform(-3000.0, 300.0)) / LIGHT_SPEED_KMS
    log_n = 20.3 + 1.7 * strength
    quasar.absorbers.hydrogen.append((z_gas, log_n))
    quasar.absorbers.metals += low_ions(rng, z_gas, 0.3 + 0.5 * strength)
    quasar.absorbers.metals.append(NarrowLine(1548.20, z_gas, 0.5, 60.0))


def blend_quasar(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """Two quasars in one fibre, with light 0.3 to 1 to 1."""
    z = draw_redshift(rng)
    while abs(z - quasar.z) < 0.05:
        z = draw_redshift(rng)
    quasar.companion = draw_quasar(rng, z)
    quasar.companion_ratio = 0.3 + 0.7 * strength


def blend_galaxy(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """A foreground galaxy in the fibre: a lens, or a chance (arXiv:2412.08397 finds such pairs in DESI)."""
    quasar.companion_galaxy_z = float(rng.uniform(0.1, min(0.8, quasar.z - 0.1)))
    quasar.companion_ratio = 0.3 + 0.7 * strength


def star(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:  # noqa: ARG001
    """A star or white dwarf that redrock calls a quasar."""
    quasar.star_kind = contaminants.pick(rng, contaminants.STAR_SHARES)
    quasar.z_claimed, quasar.z = quasar.z, 0.0


def wrong_redshift(quasar: Quasar, strength: float, rng: np.random.Generator) -> None:
    """One line taken for another, or, when mild, a redshift some thousand km/s off."""
    swaps = [z for line, read in _SWAPS if 0.3 < (z := line * (1 + quasar.z) / read - 1) < 5.0]
    if strength < 0.25 or not swaps:
        shift = (3000.0 + 20_000.0 * strength) * float(rng.choice((-1.0, 1.0)))
        quasar.z_claimed = quasar.z + (1 + quasar.z) * shift / LIGHT_SPEED_KMS
    else:
        quasar.z_claimed = float(swaps[int(rng.integers(len(swaps)))])


ANOMALIES = {
    anomaly.name: anomaly
    for anomaly in (
        Anomaly("hibal", 1.6, 4.8, hibal),
        Anomaly("lobal", 0.9, 2.3, lobal),
        Anomaly("felobal", 0.8, 2.3, felobal),
        Anomaly("redshifted_bal", 1.55, 4.8, redshifted_bal),
        Anomaly("fast_outflow", 2.0, 4.8, fast_outflow),
        Anomaly("weak_line", 1.6, 4.8, weak_line),
        Anomaly("featureless", 0.3, 4.0, featureless),
        Anomaly("reddened", 0.3, 3.5, reddened),
        Anomaly("extremely_red", 1.8, 4.5, extremely_red),
        Anomaly("double_peaked", 0.1, 2.3, double_peaked),
        Anomaly("strong_feii", 0.15, 2.3, strong_feii),
        Anomaly("n_rich", 1.6, 4.0, n_rich),
        Anomaly("si_iv_strong", 1.7, 4.5, si_iv_strong),
        Anomaly("narrow_line", 0.1, 0.95, narrow_line),
        Anomaly("proximate_dla", 2.05, 4.5, proximate_dla),
        Anomaly("blend_quasar", 0.3, 4.0, blend_quasar),
        Anomaly("blend_galaxy", 0.5, 3.5, blend_galaxy),
        Anomaly("star", 0.3, 4.5, star),
        Anomaly("wrong_redshift", 0.8, 3.5, wrong_redshift),
    )
}
"""Every class by name."""


def draw_anomaly(rng: np.random.Generator, name: str, strength: float) -> Quasar:
    """Return a quasar of a class, at a redshift of DR1's distribution at which the class shows."""
    anomaly = ANOMALIES[name]
    tries = (draw_redshift(rng) for _ in range(200))
    z = next(
        (z for z in tries if anomaly.z_min <= z <= anomaly.z_max), float(rng.uniform(anomaly.z_min, anomaly.z_max))
    )
    quasar = draw_quasar(rng, z)
    anomaly.plant(quasar, strength, rng)
    return quasar


def incident(quasar: Quasar, wave: Array, rng: np.random.Generator) -> Array:
    """Return the light of a quasar with all that shares its fibre, at observed wavelengths, in arbitrary units."""
    if quasar.star_kind is not None:
        return contaminants.draw_star(rng, wave, quasar.star_kind)[0]
    flux = render(quasar, wave, rng)
    other: Array | None = None
    if quasar.companion is not None:
        other = render(quasar.companion, wave, rng)
    elif quasar.companion_galaxy_z is not None:
        other, _ = contaminants.draw_galaxy(rng, wave, quasar.companion_galaxy_z)
    return flux if other is None else flux + other * (quasar.companion_ratio * flux.mean() / other.mean())
