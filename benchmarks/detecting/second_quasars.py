"""The second simulation's quasars: another line list, other shapes, and a continuum of templates that are mixed.

Written apart from ``qad.simulation``.  Lines are those of the composite of Francis et al. (1991, ApJ 373, 465), with the
equivalent widths told there, and of NIST's tables for what it does not reach; profiles are Lorentzians, Gauss-Hermite series and
log-normal shapes; the continuum is a sum of a thermal bump, a power law and hot dust; six correlated factors move all of it.
"""

# ruff: noqa: ARG001 - every class takes the same arguments
from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np

C = 299_792.458
LINES = {
    "O VI": (1033.0, 9.0, "lorentz"), "Lya": (1215.7, 58.0, "lorentz"), "N V": (1240.8, 12.0, "hermite"),
    "O I": (1304.5, 3.0, "lorentz"), "Si IV": (1399.8, 9.5, "hermite"), "N IV": (1486.0, 0.4, "hermite"),
    "C IV": (1548.9, 34.0, "lorentz"), "He II": (1640.0, 7.0, "lognormal"), "N III": (1750.0, 0.5, "hermite"),
    "Al III": (1858.5, 2.2, "hermite"), "C III": (1907.0, 20.0, "lognormal"), "Mg II": (2799.0, 40.0, "lorentz"),
    "Ne V": (3426.3, 1.4, "narrow"), "O II": (3728.6, 2.2, "narrow"), "Ne III": (3869.5, 2.0, "narrow"),
    "Hd": (4102.8, 7.0, "hermite"), "Hg": (4341.6, 15.0, "hermite"), "Hb": (4862.6, 52.0, "hermite"),
    "O III a": (4960.2, 5.0, "narrow"), "O III b": (5008.2, 15.0, "narrow"), "He I": (5877.0, 6.0, "lognormal"),
    "Ha": (6564.6, 210.0, "hermite"), "N II": (6585.3, 4.0, "narrow"), "S II": (6725.0, 2.5, "narrow"),
}  # fmt: skip
"""Rest wavelength and equivalent width, Å, and the family of the profile."""
HIGH = ("O VI", "N V", "Si IV", "N IV", "C IV", "He II")
UV = (*HIGH, "Lya", "O I", "N III", "Al III", "C III")
BALMER = ("Hd", "Hg", "Hb", "Ha")
NARROW = tuple(name for name, (_, _, kind) in LINES.items() if kind == "narrow")
_IRON = np.array(
    [(1785, 0.4), (2080, 0.5), (2250, 0.7), (2343, 1.0), (2381, 1.3), (2403, 1.1), (2492, 1.0), (2563, 0.9), (2600, 1.1),
     (2630, 0.8), (2740, 0.6), (2760, 0.5), (2950, 0.3), (3190, 0.3), (4179, 0.25), (4234, 0.3), (4490, 0.35), (4523, 0.4),
     (4556, 0.45), (4584, 0.5), (4630, 0.3), (4925, 0.3), (5019, 0.3), (5170, 0.45), (5198, 0.35), (5235, 0.35), (5276, 0.4),
     (5317, 0.4), (5363, 0.25)]
)  # fmt: skip
"""Multiplets of Fe II (Å, relative strength): numbers 191, 1 to 3, 60 to 64, 27, 28, 37, 38, 42, 48 and 49 of Moore's tables."""
_METALS = ((2796.4, 2803.5, 0.6), (1548.2, 1550.8, 0.6), (2600.2, 2382.8, 0.9), (1393.8, 1402.8, 0.5))


@dataclass
class Source:
    """What a spectrum is made of; anomalies change it, or leave something in `after`."""

    z: float
    factors: np.ndarray
    ew: dict[str, float]
    fwhm: float
    skew: float
    blueshift: float
    slope: float
    bump: float
    iron: float
    iron_optical: float
    host: float
    host_old: float
    dust: float
    boxy: bool = False
    humps: float = 0.0
    troughs: list[tuple[tuple[float, ...], float, float, float]] = field(default_factory=list)
    damped: list[tuple[float, float]] = field(default_factory=list)
    companion: Source | None = None
    galaxy: tuple[float, float] | None = None
    ratio: float = 0.0
    star: float = 0.0
    z_read: float | None = None
    seed: int = 0


def draw_z(rng: np.random.Generator) -> float:
    """Return a redshift: two humps, as samples selected by colour and for the forest have them."""
    while True:
        z = rng.gamma(9.0, 0.165) + 0.1 if rng.random() < 0.72 else rng.normal(2.45, 0.35)
        if 0.15 < z < 4.6:
            return float(z)


def draw_source(rng: np.random.Generator, z: float | None = None) -> Source:
    """Return a normal quasar."""
    z = draw_z(rng) if z is None else z
    factors = rng.standard_t(8, 6) * np.sqrt(6 / 8)
    loading = np.array([0.22, 0.12, 0.05, 0.0, 0.0, 0.0])
    ew = {}
    for name, (_, width, kind) in LINES.items():
        own = 0.18 * rng.standard_t(6)
        shift = float(loading @ factors) + own
        if name in HIGH:
            shift -= 0.2 * factors[1]
        if kind == "narrow":
            shift += -0.35 * factors[1] + 0.3 * factors[3]
        ew[name] = width * float(np.exp(np.clip(shift, -1.2, 1.2)))
    ew["O III a"] = ew["O III b"] / 3.0
    return Source(
        z=z,
        factors=factors,
        ew=ew,
        fwhm=float(np.clip(4300.0 * np.exp(0.32 * factors[2] - 0.12 * factors[1]), 1400, 12_000)),
        skew=0.12 * float(factors[4]),
        blueshift=float(np.clip(700 + 450 * factors[1] + 200 * rng.normal(), -400, 4500)),
        slope=float(-1.5 + 0.28 * factors[5] + 0.1 * rng.normal()),
        bump=float(0.25 * np.exp(0.35 * rng.normal())),
        iron=float(0.20 * np.exp(0.3 * rng.normal() + 0.2 * factors[1])),
        iron_optical=float(0.22 * np.exp(0.3 * rng.normal() + 0.4 * factors[1])),
        host=float(np.clip(rng.beta(1.2, 9.0) * (2.2 - z), 0.0, 0.55)) if z < 1.6 else 0.0,
        host_old=float(rng.uniform(0.2, 0.9)),
        dust=float(rng.gamma(0.8, 0.022)),
        seed=int(rng.integers(2**31)),
    )


def profile(kind: str, v: np.ndarray, fwhm: float, shift: float, skew: float) -> np.ndarray:
    """Return a line's shape over velocity, km/s, with area 1."""
    width = fwhm / 2.355
    x = (v - shift) / width
    if kind == "lorentz":  # falls as the 3.2nd power, so that it has wings and an area
        shape = 1.0 / (1.0 + np.abs(x / (1.0 + skew * np.sign(x))) ** 3.2 / 2.2)
        return shape / (width * 4.0)
    if kind == "lognormal":
        b = 0.25 + abs(skew)
        inner = np.maximum(1.0 - x * b * 0.6, 1e-3)
        return np.exp(-0.5 * (np.log(inner) / (0.6 * b)) ** 2) / (width * 2.5)
    h3, h4 = 0.5 * skew, 0.06
    series = 1 + h3 * (2 * x**3 - 3 * x) / np.sqrt(3) + h4 * (4 * x**4 - 12 * x**2 + 3) / np.sqrt(24)
    return np.maximum(np.exp(-0.5 * x**2) * series, 0.0) / (width * 2.5066)


def continuum(source: Source, rest: np.ndarray) -> np.ndarray:
    """Return the accretion disc, hot dust and slow undulations, about 1 at 3000 Å."""
    x = rest / 3000.0
    disc = x**source.slope / (1.0 + (rest / 5200.0) ** 4) ** 0.25 * (1.0 + (rest / 5200.0) ** 4) ** 0.45
    disc *= np.exp(-np.maximum(1150.0 / rest - 1.0, 0.0) * 0.9)
    thermal = source.bump * (rest < 3646) * (1 - np.exp(-0.9 * (rest / 3646.0) ** 3)) * np.exp(-(3646 - rest) / 1300.0)
    smooth_edge = source.bump * (rest >= 3646) * np.exp(-(rest - 3646.0) / 130.0) * 0.59
    dust = 0.18 * np.clip(rest / 9000.0, 0, None) ** 3
    rng = np.random.default_rng(source.seed)
    waves = sum(
        0.012 * rng.normal() * np.sin(k * np.log(rest / 1000.0) * 2.2 + rng.uniform(0, 6.28)) for k in range(1, 7)
    )
    return (disc + thermal + smooth_edge + dust) * np.exp(waves)


def emission(source: Source, rest: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return the lines and iron."""
    total = np.zeros_like(rest)
    for name, (place, _, kind) in LINES.items():
        v = (rest / place - 1.0) * C
        near = np.abs(v) < 60_000
        if not near.any() or source.ew[name] <= 0:
            continue
        height = np.interp(place, rest, base) if rest[0] < place < rest[-1] else base[near].mean()
        shift = -source.blueshift * (1.0 if name in HIGH else 0.3 if name in UV else 0.0)
        total[near] += source.ew[name] * height * (C / place) * _shape(source, name, kind, v[near], shift)
    for place, strength in _IRON:
        v = (rest / place - 1.0) * C
        amount = source.iron if place < 3500 else source.iron_optical
        total += 0.33 * amount * strength * base / (1.0 + (v / (0.75 * source.fwhm + 900.0)) ** 2)
    return total


def _shape(source: Source, name: str, kind: str, v: np.ndarray, shift: float) -> np.ndarray:
    if kind == "narrow":
        return 0.75 * profile("hermite", v, 480, 0, 0) + 0.25 * profile("hermite", v, 1100, -220, 0)
    if source.humps and name in (*BALMER, "Mg II"):
        w = source.humps
        return 0.52 * profile("hermite", v, 0.9 * w, -w, 0.1) + 0.48 * profile("hermite", v, 1.1 * w, 1.1 * w, -0.1)
    if source.boxy and name in (*HIGH, "Lya"):
        w = source.fwhm
        return 0.5 * (np.tanh((v + w) / 400) - np.tanh((v - w) / 400)) / (2 * w)
    return profile(kind, v, source.fwhm, shift, source.skew)


def galaxy(rest: np.ndarray, old: float) -> np.ndarray:
    """Return a galaxy of two black bodies, with the break at 4000 Å, absorption lines and, where young, emission."""

    def planck(t: float) -> np.ndarray:
        x = 1.4388e8 / (rest * t)
        return (5500.0 / rest) ** 5 * np.expm1(1.4388e8 / (5500.0 * t)) / np.expm1(np.minimum(x, 500.0))

    light = old * planck(4700.0) + (1 - old) * planck(11_000.0)
    light *= 1.0 - 0.45 * old / (1.0 + np.exp((rest - 3990.0) / 30.0))
    for place, depth, width in ((3934.8, 0.45, 9), (3969.6, 0.45, 9), (4305.0, 0.2, 14), (5175.0, 0.22, 18), (5893.6, 0.2, 7),
                                (4862.7, 0.15 * (1 - old) + 0.05, 12)):  # fmt: skip
        light *= 1.0 - depth * old**0.5 * np.exp(-0.5 * ((rest - place) / width) ** 2)
    for place, amount in ((3728.6, 1.0), (4862.7, 0.5), (5008.2, 0.6), (6564.6, 1.8), (6585.3, 0.6)):
        light += (1 - old) ** 2 * 6.0 * amount / (2.507 * 2.2) * np.exp(-0.5 * ((rest - place) / 2.2) ** 2)
    return light


def star(wave: np.ndarray, temperature: float) -> np.ndarray:
    """Return a star of a temperature, K: a black body with Balmer lines, metals or molecular bands."""
    x = 1.4388e8 / (wave * temperature)
    light = (5500.0 / wave) ** 5 / np.expm1(np.minimum(x, 500.0)) * np.expm1(1.4388e8 / (5500.0 * temperature))
    if temperature > 7000:
        for place in (3836.5, 3890.2, 3971.2, 4102.9, 4341.7, 4862.7, 6564.6):
            light *= 1.0 - 0.55 / (1.0 + ((wave - place) / 14.0) ** 2)
    else:
        for place, depth, width in (
            (3934.8, 0.6, 12),
            (3969.6, 0.6, 12),
            (4305, 0.3, 15),
            (5175, 0.35, 20),
            (5893.6, 0.3, 8),
        ):
            light *= 1.0 - depth * np.exp(-0.5 * ((wave - place) / width) ** 2)
    if temperature < 4000:
        for head in (4955.0, 5450.0, 6160.0, 6700.0, 7055.0, 7590.0, 8430.0):
            light *= 1.0 - 0.5 * (wave > head) * np.exp(-(wave - head) / 140.0)
    return light


def forest(wave: np.ndarray, z: float, rng: np.random.Generator) -> np.ndarray:
    """Return the transmission of clouds of hydrogen drawn one by one, with the effective depth 0.0018 (1 + z)^3.92.

    That is the fit of Faucher-Giguère et al. (2008, ApJ 681, 831).
    """
    depth = np.zeros_like(wave)
    end = 1215.67 * (1 + z)
    if wave[0] >= end:
        return np.ones_like(wave)
    limit = int(np.searchsorted(wave, end))
    z_gas = wave[:limit] / 1215.67 - 1
    mean = 0.0018 * (1 + z_gas) ** 3.92
    n_clouds = int(rng.poisson(0.55 * limit))
    chosen = rng.integers(0, limit, n_clouds)
    strength = rng.pareto(1.3, n_clouds) * mean[chosen]
    np.add.at(depth, chosen, np.minimum(strength, 8.0))
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.4) ** 2)
    depth = np.convolve(depth, kernel / kernel.sum() * 1.1, mode="same")
    blue = wave < 1025.7 * (1 + z)
    depth[blue] += 0.25 * np.interp(wave[blue] * 1215.67 / 1025.72, wave, depth)
    return np.exp(-depth)


def damped(wave: np.ndarray, z: float, log_n: float) -> np.ndarray:
    """Return the transmission of a damped system: the Lorentzian wing of Lyman alpha, tau = 0.689 N_20.3 (Å / Δλ)^2 · 100.

    From tau = (e^2/m c^2) N f λ^4 γ / (4 π c Δλ^2): 68.9 at N = 2e20 cm-2 and 1 Å.
    """
    offset = wave / (1 + z) - 1215.67
    tau = 68.9 * 10.0 ** (log_n - 20.3) / np.maximum(offset**2, 0.05)
    return np.exp(-np.minimum(tau, 60.0))


def light_of(source: Source, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what reaches the telescope at observed wavelengths, Å, in arbitrary units."""
    if source.star:
        return star(wave, source.star)
    rest = wave / (1 + source.z)
    base = continuum(source, rest)
    flux = (base + emission(source, rest, base)) * 10 ** (-0.4 * source.dust * (7.2 * (1500 / rest) ** 1.35 + 0.5))
    for lines, low, high, depth in source.troughs:
        for number, place in enumerate(lines):
            v = (rest / place - 1.0) * C
            inside = 0.5 * (np.tanh((v - low) / 500) - np.tanh((v - high) / 500))
            ragged = 0.75 + 0.25 * np.sin(v / 1300.0 + 2.0 * number + source.seed % 7)
            flux *= 1.0 - np.minimum(depth * (1.0 if number == 0 else 0.7), 0.98) * inside * ragged
    flux *= forest(wave, source.z, rng)
    for z_gas, log_n in source.damped:
        flux *= damped(wave, z_gas, log_n)
    for first, second, share in _METALS:
        for _ in range(rng.poisson(0.35 * min(source.z, 2.0))):
            z_gas = rng.uniform(0.3, max(source.z - 0.05, 0.31))
            width, depth = rng.uniform(0.8, 2.2), rng.uniform(0.15, 0.85)
            for place, part in ((first, 1.0), (second, share)):
                flux *= 1.0 - depth * part * np.exp(-0.5 * ((wave - place * (1 + z_gas)) / width) ** 2)
    if source.host > 0:
        flux += source.host / (1 - source.host) * float(np.median(base)) * galaxy(rest, source.host_old)
    if source.companion is not None:
        other = light_of(source.companion, wave, rng)
        flux = flux + other * source.ratio * flux.mean() / other.mean()
    if source.galaxy is not None:
        other = galaxy(wave / (1 + source.galaxy[0]), source.galaxy[1])
        flux = flux + other * source.ratio * flux.mean() / other.mean()
    return flux


# --- anomalies: each changes a source; strength 0 is hardly more than the normal population has, 1 the extremes

_HIGH_TROUGHS = (1549.0, 1397.0, 1240.0, 1034.0)


def bal(s: Source, a: float, rng: np.random.Generator) -> None:
    """Broad absorption of high ions."""
    width, near = 1800 + 12_000 * a * rng.uniform(0.6, 1.2), rng.uniform(0, 8000)
    s.troughs.append((_HIGH_TROUGHS, -near - width, -near, 0.3 + 0.6 * a))


def low_bal(s: Source, a: float, rng: np.random.Generator) -> None:
    """Broad absorption also of Mg II and Al III, and dust."""
    width, near = 2000 + 7000 * a, rng.uniform(0, 3500)
    s.troughs.append((_HIGH_TROUGHS, -near - width, -near, 0.4 + 0.5 * a))
    s.troughs.append(((2799.0, 1858.0), -near - 0.7 * width, -near, 0.35 + 0.5 * a))
    s.dust += 0.04 + 0.12 * a


def iron_bal(s: Source, a: float, rng: np.random.Generator) -> None:
    """Broad absorption of iron too, overlapping where strong."""
    low_bal(s, a, rng)
    width = 1500 + 5000 * a
    for place in (2344.0, 2382.0, 2600.0, 2750.0, 2070.0):
        s.troughs.append(((place,), -width - 500, -500, 0.4 + 0.5 * a))


def infall(s: Source, a: float, rng: np.random.Generator) -> None:
    """Absorption redward of the lines."""
    s.troughs.append((_HIGH_TROUGHS[:3], 500, 2000 + 5500 * a, 0.3 + 0.5 * a))


def weak(s: Source, a: float, rng: np.random.Generator) -> None:
    """Ultraviolet lines that are a tenth to a third as strong."""
    for name in UV:
        s.ew[name] *= 0.33 - 0.26 * a
    s.blueshift += 1500 + 2500 * a


def blazar(s: Source, a: float, rng: np.random.Generator) -> None:
    """A power law without lines."""
    s.ew = {name: value * 0.12 * (1 - a) for name, value in s.ew.items()}
    s.iron = s.iron_optical = 0.02 * (1 - a)
    s.bump, s.slope = 0.0, float(rng.uniform(-1.9, -0.6))


def red(s: Source, a: float, rng: np.random.Generator) -> None:
    """Dust."""
    s.dust = 0.18 + 0.6 * a


def boxes(s: Source, a: float, rng: np.random.Generator) -> None:
    """C IV and its kin broad and boxy, and strong."""
    s.boxy, s.fwhm = True, float(rng.uniform(3200, 5500))
    s.ew["C IV"] = 80 + 110 * a
    s.ew["N V"] = s.ew["Lya"]


def humps(s: Source, a: float, rng: np.random.Generator) -> None:
    """Two humps in the lines of low ionisation."""
    s.humps = 2500 + 3500 * a


def iron_rich(s: Source, a: float, rng: np.random.Generator) -> None:
    """Iron three to six times as strong."""
    s.iron *= 2.2 + 3.0 * a
    s.iron_optical *= 2.2 + 3.0 * a
    for name in NARROW:
        s.ew[name] *= 0.3


def nitrogen(s: Source, a: float, rng: np.random.Generator) -> None:
    """N III], N IV] and N V strong, C IV weak."""
    s.ew["N III"], s.ew["N IV"] = 4 + 10 * a, 3 + 7 * a
    s.ew["N V"] *= 1.7 + a
    s.ew["C IV"] *= 0.65 - 0.25 * a


def type_two(s: Source, a: float, rng: np.random.Generator) -> None:
    """A galaxy with strong narrow lines."""
    for name in LINES:
        s.ew[name] *= (6 + 20 * a) if name in NARROW else 0.1 * (1 - a)
    s.host, s.iron, s.iron_optical, s.bump = 0.7 + 0.2 * a, 0.01, 0.01, 0.0


def damped_near(s: Source, a: float, rng: np.random.Generator) -> None:
    """A damped system at the quasar's redshift."""
    s.damped.append((s.z + (1 + s.z) * float(rng.uniform(-2500, 200)) / C, 20.4 + 1.5 * a))


def two_quasars(s: Source, a: float, rng: np.random.Generator) -> None:
    """A second quasar in the fibre."""
    z = draw_z(rng)
    while abs(z - s.z) < 0.06:
        z = draw_z(rng)
    s.companion, s.ratio = draw_source(rng, z), 0.3 + 0.7 * a


def with_galaxy(s: Source, a: float, rng: np.random.Generator) -> None:
    """A galaxy in front."""
    s.galaxy, s.ratio = (float(rng.uniform(0.1, min(0.75, s.z - 0.1))), float(rng.uniform(0.4, 0.95))), 0.3 + 0.7 * a


def a_star(s: Source, a: float, rng: np.random.Generator) -> None:
    """A star that was taken for a quasar."""
    s.z_read, s.star = s.z, float(np.exp(rng.uniform(np.log(3200), np.log(20_000))))


def misread(s: Source, a: float, rng: np.random.Generator) -> None:
    """A redshift that takes one line for another."""
    pairs = ((2799.0, 1549.0), (2799.0, 1907.0), (1907.0, 1549.0), (1549.0, 1215.7), (1907.0, 2799.0), (2799.0, 4862.6))
    options = [z for true, read in pairs if 0.2 < (z := true * (1 + s.z) / read - 1) < 4.6]
    wrong = s.z + (1 + s.z) * float(rng.choice((-1, 1))) * (3000 + 15_000 * a) / C
    s.z_read = float(rng.choice(options)) if a > 0.3 and options else wrong


ANOMALIES = {
    "bal": (bal, 1.6, 4.5), "low_bal": (low_bal, 0.9, 2.3), "iron_bal": (iron_bal, 0.8, 2.3), "infall": (infall, 1.6, 4.5),
    "weak": (weak, 1.6, 4.5), "blazar": (blazar, 0.3, 4.0), "red": (red, 0.3, 3.5), "boxes": (boxes, 1.7, 4.3),
    "humps": (humps, 0.2, 2.2), "iron_rich": (iron_rich, 0.2, 2.3), "nitrogen": (nitrogen, 1.6, 4.0),
    "type_two": (type_two, 0.15, 0.9), "damped_near": (damped_near, 2.1, 4.4), "two_quasars": (two_quasars, 0.3, 4.0),
    "with_galaxy": (with_galaxy, 0.5, 3.5), "a_star": (a_star, 0.3, 4.4), "misread": (misread, 0.6, 3.5),
}  # fmt: skip
"""Function, and the redshifts at which the class shows."""


def draw_anomaly(rng: np.random.Generator, name: str, strength: float) -> Source:
    """Return an anomalous source."""
    change, low, high = ANOMALIES[name]
    z = draw_z(rng)
    for _ in range(300):
        if low <= z <= high:
            break
        z = draw_z(rng)
    source = copy.deepcopy(draw_source(rng, min(max(z, low), high)))
    change(source, strength, rng)
    return source
