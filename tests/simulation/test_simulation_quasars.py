"""Simulated quasars have the redshifts, lines, slopes and forest that DESI's have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad import iron
from qad.cosmology import distance_modulus
from qad.lines import EMISSION_LINES, LYA
from qad.simulation import quasars, stellar
from qad.simulation.absorption import Absorbers, forest, hydrogen, mean_transmission
from qad.simulation.profiles import smc_transmission
from qad.simulation.quasars import Quasar, continuum, draw_quasar, draw_redshift, emission, render
from qad.simulation.sky import WAVE


def plain(z: float, seed: int = 0) -> Quasar:
    """Return a quasar without host, dust, absorbers and wiggles."""
    quasar = draw_quasar(np.random.default_rng(seed), z)
    quasar.host = quasar.ebv = quasar.wiggle = 0.0
    quasar.absorbers = Absorbers(forest=False)
    return quasar


def test_redshifts_have_the_percentiles_of_dr1() -> None:
    rng = np.random.default_rng(1)
    z = np.array([draw_redshift(rng) for _ in range(40_000)])
    for share, value, tolerance in (
        (1, 0.22, 0.04),
        (10, 0.78, 0.03),
        (50, 1.68, 0.03),
        (90, 2.65, 0.03),
        (99, 3.56, 0.08),
    ):
        assert np.percentile(z, share) == pytest.approx(value, abs=tolerance)
    assert np.mean((z > 0.9) & (z < 2.1)) == pytest.approx(0.58, abs=0.01)
    assert np.mean((z > 2.1) & (z < 3.0)) == pytest.approx(0.24, abs=0.01)


@pytest.mark.parametrize(("name", "z"), [("C IV", 2.2), ("Mg II", 1.2), ("[O III]", 0.6), ("Hbeta", 0.6)])
def test_a_line_adds_its_equivalent_width(name: str, z: float) -> None:
    with_line, without = plain(z), plain(z)
    without.lines[name].ew = 0.0
    wave_rest = WAVE / (1 + z)
    base = continuum(with_line, wave_rest)
    line = emission(with_line, wave_rest, base) - emission(without, wave_rest, base)
    level = float(continuum(with_line, np.array([with_line.lines[name].wave]))[0])
    measured = np.trapezoid(line, wave_rest) / level
    assert measured == pytest.approx(with_line.lines[name].ew, rel=0.02)


@pytest.mark.parametrize("name", ["C IV", "Mg II", "Si IV", "Hbeta", "Halpha"])
def test_median_equivalent_widths_are_those_of_the_composite(name: str) -> None:
    rng = np.random.default_rng(2)
    drawn = [draw_quasar(rng).lines for _ in range(600)]
    parts = {"Si IV": ("Si IV", "O IV]")}.get(name, (name,))
    median = np.median([sum(lines[part].ew for part in parts) for lines in drawn])
    listed = next(line.ew for line in EMISSION_LINES if line.name == name)
    assert median == pytest.approx(listed, rel=0.35)


def test_brighter_quasars_have_weaker_carbon_lines() -> None:
    """The Baldwin effect."""
    rng = np.random.default_rng(3)
    drawn = [draw_quasar(rng, 2.0) for _ in range(800)]
    ew = np.log([quasar.lines["C IV"].ew for quasar in drawn])
    slope = np.polyfit([quasar.r_mag for quasar in drawn], ew, 1)[0]
    assert 0.08 < slope < 0.30


def test_continuum_slopes_scatter_about_that_of_the_composite() -> None:
    rng = np.random.default_rng(4)
    slopes = [draw_quasar(rng).slope for _ in range(1000)]
    assert np.mean(slopes) == pytest.approx(-1.56, abs=0.05)
    quasar = plain(1.5)
    low, high = continuum(quasar, np.array([1800.0, 3600.0]))
    assert np.log(high / low) / np.log(2.0) == pytest.approx(quasar.slope, abs=0.02)


@pytest.mark.parametrize("z", [2.6, 3.2])
def test_forest_has_the_mean_transmission(z: float) -> None:
    inside = (1060 * (1 + z) < WAVE) & (1180 * (1 + z) > WAVE)
    rng = np.random.default_rng(5)
    passed = np.mean([forest(WAVE, z, rng) for _ in range(40)], axis=0)
    assert passed[inside].mean() == pytest.approx(mean_transmission(WAVE[inside] / LYA - 1).mean(), abs=0.02)
    assert np.all(passed[LYA * (1 + z) + 2 < WAVE] == 1.0)
    beta = (980 * (1 + z) < WAVE) & (1015 * (1 + z) > WAVE)
    assert passed[beta].mean() < mean_transmission(WAVE[beta] / LYA - 1).mean()


def test_damped_absorption_has_the_width_of_its_column() -> None:
    """The equivalent width of damped Lyman alpha is 7.3 Å sqrt(N / 1e20 cm-2) (Draine 2011, chapter 9)."""
    wave = np.arange(1100.0, 1350.0, 0.05)
    passed = hydrogen(wave, 20.7)
    assert np.trapezoid(1 - passed, wave) == pytest.approx(7.3 * np.sqrt(10**0.7), rel=0.06)
    assert passed[np.argmin(np.abs(wave - LYA))] < 1e-6


def test_normal_quasars_have_no_broad_absorption() -> None:
    rng = np.random.default_rng(6)
    assert not any(draw_quasar(rng).absorbers.troughs for _ in range(200))


def test_iron_has_the_equivalent_widths_asked_for() -> None:
    wave = np.arange(1500.0, 7000.0, 0.5)
    uv = iron.iron(wave, 3000.0, 45.0, 0.0)
    optical = iron.iron(wave, 3000.0, 0.0, 18.0)
    for spectrum, (low, high), ew in ((uv, iron.UV_RANGE, 45.0), (optical, iron.OPTICAL_RANGE, 18.0)):
        inside = (wave > low) & (wave < high)
        assert np.trapezoid(spectrum[inside], wave[inside]) == pytest.approx(ew, rel=0.02)


def test_broader_iron_is_smoother() -> None:
    wave = np.arange(2200.0, 2650.0, 0.5)
    narrow, broad = (iron.iron(wave, fwhm, 45.0, 0.0) for fwhm in (1200.0, 9000.0))
    assert np.abs(np.diff(broad)).max() < 0.5 * np.abs(np.diff(narrow)).max()


def test_galaxies_break_at_4000_angstrom_the_more_the_older() -> None:
    def strength(age: float) -> float:
        return float(
            stellar.galaxy(np.arange(4050.0, 4250.0), age).mean()
            / stellar.galaxy(np.arange(3750.0, 3950.0), age).mean()
        )

    assert strength(1.0) > 1.6 > 1.4 > strength(0.0)


def test_hot_stars_have_balmer_lines_and_cool_ones_bands() -> None:
    wave = WAVE
    white_dwarf = stellar.star(wave, "WD", 13_000.0)
    hbeta = np.interp([4862.71, 4650.0], wave, white_dwarf)
    assert hbeta[0] < 0.75 * hbeta[1]
    dwarf = stellar.star(wave, "M", 3100.0)
    assert np.interp(7100.0, wave, dwarf) < 0.7 * np.interp(7040.0, wave, dwarf)


def test_distance_modulus_agrees_with_known_values() -> None:
    """H0 = 70, Omega_m = 0.3: 38.3 at z = 0.1, 44.1 at z = 1, 46.98 at z = 3 (astropy.cosmology)."""
    from astropy.cosmology import FlatLambdaCDM

    cosmology = FlatLambdaCDM(70, 0.3)
    for z in (0.1, 1.0, 3.0):
        assert distance_modulus(z) == pytest.approx(cosmology.distmod(z).value, abs=0.01)


@settings(max_examples=25, deadline=None)
@given(z=st.floats(0.05, 5.2), seed=st.integers(0, 2**31))
def test_any_quasar_is_finite_and_not_negative(z: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    flux = render(draw_quasar(rng, z), WAVE, rng)
    assert flux.shape == WAVE.shape
    assert np.isfinite(flux).all()
    assert (flux >= 0).all()
    assert flux.max() > 0


@settings(max_examples=20, deadline=None)
@given(ebv=st.floats(0.0, 2.0))
def test_dust_dims_the_blue_more(ebv: float) -> None:
    passed = smc_transmission(np.array([1500.0, 3000.0, 6000.0]), ebv)
    assert np.all(np.diff(passed) >= 0)
    assert np.all(passed <= 1)


def test_quasars_are_not_fainter_than_their_hosts_allow() -> None:
    rng = np.random.default_rng(8)
    for _ in range(300):
        quasar = draw_quasar(rng)
        magnitude = quasar.r_mag - distance_modulus(quasar.z) + 2.5 * np.log10(1 + quasar.z)
        assert magnitude < quasars.FAINTEST + 0.01 or quasar.r_mag == 14.5
