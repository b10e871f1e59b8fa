"""Profiles, absorption, continuum and other redshifts, each against what is known of it."""

from __future__ import annotations

import numpy as np
import pytest
from made import make

from qad.analysis.absorption import broad_absorption
from qad.analysis.complexes import COMPLEXES
from qad.analysis.continuum import luminosities, slopes
from qad.analysis.fit import fit_complex
from qad.analysis.lines import fit_all, leads, line_columns
from qad.analysis.profile import widths
from qad.analysis.redshift import alternative_redshifts
from qad.analysis.spectra import WAVE, Spectra, dereddened
from qad.cosmology import luminosity_distance_cm
from qad.desi.dust import transmission
from qad.desi.lsf import lsf_sigma
from qad.lines import LIGHT_SPEED_KMS
from qad.schema import LINE_COMPLEXES, MEASURED_LINES


def test_table_and_fits_name_the_same_lines() -> None:
    fitted = {
        line.name: leads(group, i) for group in COMPLEXES for i, line in enumerate(group.lines) if line.is_reported
    }
    assert fitted == {name: has_shape for name, _, has_shape in MEASURED_LINES}
    assert tuple(group.name for group in COMPLEXES) == LINE_COMPLEXES


def test_width_and_half_flux_velocity_of_one_and_of_two_gaussians() -> None:
    alone = np.array([[-420.0, np.log(1000.0), 1.0, 0.0, 0.0]])
    fwhm, shift = widths(alone)
    assert fwhm[0] == pytest.approx(2354.8, rel=1e-3)
    assert shift[0] == pytest.approx(-420.0, abs=2.0)
    double = np.array([[-300.0, np.log(800.0), 0.4, np.log(3.0), -1.5]])
    fwhm, shift = widths(double)
    v = np.arange(-20_000.0, 20_000.0, 1.0)

    def gaussian(centre: float, sigma: float) -> np.ndarray:
        return np.exp(-0.5 * ((v - centre) / sigma) ** 2) / sigma

    profile = 0.4 * gaussian(-300.0, 800.0) + 0.6 * gaussian(-300.0 - 1200.0, 2400.0)
    above = v[profile >= profile.max() / 2]
    total = np.cumsum(profile)
    assert fwhm[0] == pytest.approx(above[-1] - above[0], rel=2e-3)
    assert shift[0] == pytest.approx(np.interp(0.5, total / total[-1], v), abs=5.0)


@pytest.mark.parametrize("z", [0.05, 0.5, 0.9])
def test_instrument_spread_is_taken_off_a_narrow_line(z: float) -> None:
    # [O III] of 200 km/s, on pixels of 0.8 Å, as the instrument shows it
    flux = np.full(len(WAVE), 2.0)
    for wave, share in ((5008.24, 1.0), (4960.30, 1 / 2.98)):
        centre = wave * (1 + z)
        sigma = np.sqrt((centre * 200 / 2.3548 / LIGHT_SPEED_KMS) ** 2 + lsf_sigma(centre) ** 2)
        fine = WAVE[:, None] + np.linspace(-0.36, 0.36, 10)
        flux += share * 300 * np.exp(-0.5 * ((fine - centre) / sigma) ** 2).mean(axis=1) / (sigma * np.sqrt(2 * np.pi))
    spectra = Spectra(np.array([z]), flux[None], np.full((1, len(WAVE)), 400.0))
    columns = line_columns(spectra, fit_all(spectra))
    assert columns["oiii5008_flux"][0] == pytest.approx(300, rel=0.03)
    assert columns["oiii5008_fwhm"][0] == pytest.approx(200, rel=0.06)
    assert columns["oiii5008_shift"][0] == pytest.approx(0, abs=8)


def test_narrow_absorption_and_missing_pixels_do_not_move_a_line() -> None:
    made = make(12, (1.6, 2.0), 12.0, seed=8)
    group = next(group for group in COMPLEXES if group.name == "civ")
    plain = fit_complex(made.spectra, group)
    flux, ivar = made.spectra.flux.copy(), made.spectra.ivar.copy()
    for i, z in enumerate(made.spectra.z):
        velocity = (WAVE / (1549.06 * (1 + z)) - 1) * LIGHT_SPEED_KMS
        flux[i] *= 1 - 0.9 * np.exp(-0.5 * ((velocity + 1500) / 120) ** 2)
        ivar[i, np.abs(velocity - 3000) < 400] = 0
    spoiled = fit_complex(Spectra(made.spectra.z, flux, ivar), group)
    place = plain.n_basis
    pull = (spoiled.par[:, place] - plain.par[:, place]) / np.sqrt(plain.cov[:, place, place])
    assert np.abs(np.median(pull)) < 0.8
    assert np.abs(pull).max() < 3


def quasar_with_trough(z: float, low: float, high: float, depth: float, noise: float) -> Spectra:
    rest = WAVE / (1 + z)
    line = 2.0 * np.exp(-0.5 * ((rest / 1549.06 - 1) * LIGHT_SPEED_KMS / 2000) ** 2)
    flux = 3.0 * (rest / 1550) ** -1.5 * (1 + line)
    squared = (rest / 1549.06) ** 2
    velocity = LIGHT_SPEED_KMS * (squared - 1) / (squared + 1)
    flux = np.where((velocity > high) & (velocity < low), flux * (1 - depth), flux)
    rng = np.random.default_rng(2)
    return Spectra(np.array([z]), (flux + noise * rng.normal(size=len(WAVE)))[None], np.full((1, len(WAVE)), noise**-2))


def test_absorption_and_balnicity_of_a_known_trough() -> None:
    found = broad_absorption(quasar_with_trough(2.2, -5000.0, -12_000.0, 0.6, 0.1))
    # 1 - 0.4 / 0.9 over 7000 km/s; BI leaves out the first 2000
    assert found["ai_civ"][0] == pytest.approx(7000 * (1 - 0.4 / 0.9), rel=0.1)
    assert found["bi_civ"][0] == pytest.approx(5000 * (1 - 0.4 / 0.9), rel=0.15)
    assert abs(found["ai_civ"][0] - 7000 * (1 - 0.4 / 0.9)) < 3 * found["ai_civ_err"][0]
    assert found["bal_vmin"][0] == pytest.approx(-5000, abs=300)
    assert found["bal_vmax"][0] == pytest.approx(-12_000, abs=300)
    narrow = broad_absorption(quasar_with_trough(2.2, -5000.0, -6500.0, 0.6, 0.1))
    assert narrow["bi_civ"][0] == 0
    assert narrow["ai_civ"][0] == pytest.approx(1500 * (1 - 0.4 / 0.9), rel=0.25)


@pytest.mark.parametrize("noise", [0.1, 3.0])
def test_noise_is_no_absorption(noise: float) -> None:
    found = broad_absorption(quasar_with_trough(2.2, 0.0, 0.0, 0.0, noise))
    assert found["ai_civ"][0] == 0
    assert found["bi_civ"][0] == 0
    assert np.isnan(found["bal_vmin"][0])
    assert np.isnan(broad_absorption(quasar_with_trough(0.9, 0.0, 0.0, 0.0, 0.1))["ai_civ"][0])


def test_slope_and_luminosity_of_simulated_continua() -> None:
    made = make(20, (0.8, 1.2), 10.0, seed=4)
    found = slopes(made.spectra)
    difference = found["slope_uv"] - np.array([quasar.slope for quasar in made.quasars])
    assert abs(np.nanmedian(difference)) < 0.08
    assert np.nanmedian(np.abs(difference)) < 0.12
    fits = fit_all(made.spectra)
    bright = luminosities(made.spectra, fits)
    distance = luminosity_distance_cm(made.spectra.z)
    again = bright["flux_3000"] * 1e-17 * 3000 * (1 + made.spectra.z) * 4 * np.pi * distance**2
    assert np.allclose(bright["loglum_3000"], np.log10(again))
    # the continuum is rendered as 1 near 3000 Å, give or take its wiggles
    assert np.nanmedian(bright["flux_3000"] / made.scale) == pytest.approx(1.0, abs=0.04)
    assert (np.isnan(bright["flux_5100"]) == (made.spectra.z > 9824 / 5112 - 1)).all()


def test_luminosity_distance_is_that_of_astropy() -> None:
    from astropy.cosmology import FlatLambdaCDM

    z = np.array([0.1, 1.0, 3.0])
    known = FlatLambdaCDM(70, 0.3).luminosity_distance(z).to_value("cm")
    assert np.allclose(luminosity_distance_cm(z), known, rtol=1e-3)


def test_a_line_taken_for_another_is_found_out() -> None:
    made = make(12, (0.7, 1.6), 4.0, seed=6)
    right = alternative_redshifts(made.spectra)
    assert (np.asarray(right["z_alt_dchi2"]) < 0).all()
    taken = 2798.75 * (1 + made.spectra.z) / 1908.73 - 1
    wrong = alternative_redshifts(Spectra(taken, made.spectra.flux, made.spectra.ivar))
    assert (np.asarray(wrong["z_alt_dchi2"]) > 9).sum() >= 11
    assert np.abs(np.asarray(wrong["z_alt"]) - made.spectra.z).max() < 0.02
    assert wrong["z_alt_lines"][0] == "C III] is Mg II"


def test_extinction_is_undone_before_anything_is_measured() -> None:
    flux, ivar = np.full((1, len(WAVE)), 2.0), np.full((1, len(WAVE)), 4.0)
    passed = transmission(WAVE, np.array([0.3]))
    spectra = dereddened(np.array([1.0]), flux * passed, ivar / passed**2, np.array([0.3]))
    assert np.allclose(spectra.flux, flux)
    assert np.allclose(spectra.ivar, ivar)
    spoiled = flux.copy()
    spoiled[0, 5], ivar[0, 6] = np.nan, -1
    spectra = dereddened(np.array([1.0]), spoiled, ivar, np.array([np.nan]))
    assert spectra.ivar[0, 5] == spectra.ivar[0, 6] == spectra.flux[0, 5] == 0
