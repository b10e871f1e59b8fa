"""The norm: one amplitude for every redshift, that no single pixel and no unit can upset."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.gridding.normalize import (
    BREAK_WAVE,
    FOREST_END,
    MAX_FLUX,
    MIN_SIGNIFICANCE,
    amplitude,
    norm_of,
    normalise,
    reference_shape,
)
from qad.gridding.wavelength import Grid, grid_of
from qad.settings import BuildGrid

GRID = grid_of(BuildGrid())
seeds = st.integers(0, 2**32 - 1)


def windows(n: int, seed: int, snr: float = 5.0, grid: Grid = GRID) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra of the reference shape times 1, 2, 3, …, with noise of the same signal-to-noise ratio."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.2, 5.0, n)
    wave_rest = grid.wave_rest(grid.start(z), z)
    level = np.arange(1, n + 1)[:, None]
    ivar = np.broadcast_to((snr / level) ** 2, wave_rest.shape) * (rng.uniform(size=wave_rest.shape) > 0.05)
    flux = level * reference_shape(wave_rest) + rng.normal(size=wave_rest.shape) * level / snr
    return np.where(ivar > 0, flux, 0.0), ivar, wave_rest


def test_reference_shape_is_that_of_vanden_berk() -> None:
    assert reference_shape(np.array([2500.0]))[0] == pytest.approx(1.0)
    slope = np.diff(np.log(reference_shape(np.array([1300.0, 4900.0])))) / np.diff(np.log([1300.0, 4900.0]))
    assert slope[0] == pytest.approx(-1.56)
    below, above = reference_shape(np.array([BREAK_WAVE * (1 - 1e-9), BREAK_WAVE * (1 + 1e-9)]))
    assert below == pytest.approx(above)


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from([0.3, 2.0, 30.0]))
def test_amplitude_is_found_at_every_redshift(seed: int, snr: float) -> None:
    found, sigma = amplitude(*windows(8, seed, snr))
    expected = np.arange(1, 9)
    np.testing.assert_array_less(np.abs(found - expected), 6 * sigma + 1e-3 * expected)


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(-20, 20))
def test_amplitude_scales_with_the_flux(seed: int, exponent: float) -> None:
    flux, ivar, wave_rest = windows(4, seed)
    factor = 10.0**exponent
    found, sigma = amplitude(flux, ivar, wave_rest)
    scaled, sigma_scaled = amplitude(flux * factor, ivar / factor**2, wave_rest)
    np.testing.assert_allclose(scaled, factor * found, rtol=1e-9)
    np.testing.assert_allclose(sigma_scaled, factor * sigma, rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(0, 2180), st.sampled_from([1e30, -1e30, 1e10, 1e-30]))
def test_one_spike_does_not_matter(seed: int, pixel: int, height: float) -> None:
    flux, ivar, wave_rest = windows(3, seed)
    clean = norm_of(flux, ivar, wave_rest)
    flux[:, pixel] = height
    np.testing.assert_allclose(norm_of(flux, ivar, wave_rest), clean, rtol=5e-3)
    ivar[:, pixel] = 1e30
    np.testing.assert_allclose(norm_of(flux, ivar, wave_rest), clean, rtol=1e-2)


def test_forest_does_not_count() -> None:
    flux, ivar, wave_rest = windows(20, 1)
    clean = norm_of(flux, ivar, wave_rest)
    absorbed = np.where(wave_rest < FOREST_END, 0.3 * flux, flux)
    np.testing.assert_array_equal(norm_of(absorbed, ivar, wave_rest), clean)


def test_forest_counts_where_there_is_nothing_else() -> None:
    wave_rest = np.linspace(800, 1200, 2180)[None]
    flux = 3 * reference_shape(wave_rest)
    assert norm_of(flux, np.ones_like(flux), wave_rest)[0] == pytest.approx(3.0, rel=1e-3)


def test_bright_line_does_not_carry_the_norm_away() -> None:
    z = np.array([2.0])
    wave_rest = GRID.wave_rest(GRID.start(z), z)
    flux = reference_shape(wave_rest)
    flux += 5 * flux * np.exp(-0.5 * ((wave_rest - 1549.0) / 15.0) ** 2)
    norm = norm_of(flux, np.full_like(flux, 1e4), wave_rest)
    assert norm[0] == pytest.approx(1.0, rel=0.03)


def test_spectrum_without_signal_is_divided_by_its_noise() -> None:
    rng = np.random.default_rng(5)
    wave_rest = np.broadcast_to(GRID.wave_rest(np.array([2000]), np.array([1.0])), (50, GRID.n_obs))
    flux = rng.normal(size=wave_rest.shape)
    ivar = np.ones_like(flux)
    _, sigma = amplitude(flux, ivar, wave_rest)
    norm = norm_of(flux, ivar, wave_rest)
    np.testing.assert_allclose(norm, MIN_SIGNIFICANCE * sigma, rtol=0.5)
    assert (norm > 0).all()
    assert norm_of(flux - 100.0, ivar, wave_rest) == pytest.approx(MIN_SIGNIFICANCE * sigma)


def test_dead_spectrum_has_no_norm() -> None:
    wave_rest = GRID.wave_rest(np.array([2000, 2000]), np.array([1.0, 1.0]))
    flux, ivar = np.zeros_like(wave_rest), np.ones_like(wave_rest)
    ivar[1] = 0
    assert norm_of(flux, ivar, wave_rest).tolist() == [0.0, 0.0]


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(-30, 30))
def test_normalised_values_are_finite_and_keep_the_signal_to_noise_ratio(seed: int, exponent: float) -> None:
    flux, ivar, wave_rest = windows(3, seed)
    factor = 10.0**exponent
    flux, ivar = flux * factor, ivar / factor**2
    norm = norm_of(flux, ivar, wave_rest)
    flux_out, ivar_out, n_wild = normalise(flux, ivar, norm)
    assert flux_out.dtype == ivar_out.dtype == np.float32
    assert n_wild.tolist() == [0, 0, 0]
    np.testing.assert_allclose(flux_out * np.sqrt(ivar_out), flux * np.sqrt(ivar), rtol=1e-5, atol=1e-6)


def test_pixel_that_cannot_be_a_measurement_is_masked_and_counted() -> None:
    flux, ivar, wave_rest = windows(1, 3)
    ivar[0, 100:103] = 1.0
    flux[0, 100], flux[0, 101], ivar[0, 102] = 1e30, -1e12, 1e30
    norm = norm_of(flux, ivar, wave_rest)
    flux_out, ivar_out, n_wild = normalise(flux, ivar, norm)
    assert n_wild.tolist() == [3]
    assert ivar_out[0, 100:103].tolist() == flux_out[0, 100:103].tolist() == [0.0, 0.0, 0.0]
    assert (np.abs(flux_out) <= MAX_FLUX).all()
