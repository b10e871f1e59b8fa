"""Masks, ivar and the merging of cameras, as laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.desi.coadd import Camera
from qad.extraction.cameras import merge_cameras
from qad.extraction.clean import Cleaned, clean_camera, median_snr, wave_limits
from qad.schema import N_WAVE

LIMITS = (3600.0, 9824.0)


def camera(seed: int, start: int = 0, n_wave: int = 60, n_rows: int = 3) -> Camera:
    chance = np.random.default_rng(seed)
    ivar = chance.gamma(2, 1, (n_rows, n_wave)).astype(np.float32)
    ivar[chance.random(ivar.shape) < 0.1] = 0
    flux = chance.normal(1, 1, ivar.shape).astype(np.float32)
    mask = np.where(chance.random(ivar.shape) < 0.1, 1 << chance.integers(0, 11, ivar.shape), 0).astype(np.int32)
    return Camera("b", start, flux, ivar, mask)


def copy(item: Camera) -> Camera:
    return Camera(
        item.name, item.start, item.flux.copy(), item.ivar.copy(), None if item.mask is None else item.mask.copy()
    )


@given(seed=st.integers(0, 999), bit=st.integers(0, 30))
def test_a_pixel_counts_only_with_ivar_and_without_any_mask_bit(seed: int, bit: int) -> None:
    item = camera(seed)
    assert item.mask is not None
    item.mask[:, 7] = 1 << bit
    before = copy(item)
    cleaned = clean_camera(item, *LIMITS)
    good = (before.ivar > 0) & (before.mask == 0)
    np.testing.assert_array_equal(cleaned.ivar, np.where(good, before.ivar, 0))
    np.testing.assert_array_equal(cleaned.flux, np.where(good, before.flux, 0))
    assert not cleaned.ivar[:, 7].any()


@settings(max_examples=30)
@given(seed=st.integers(0, 999), value=st.floats(width=32))
def test_what_a_masked_pixel_holds_never_changes_a_result(seed: int, value: float) -> None:
    item = camera(seed)
    assert item.mask is not None
    other = copy(item)
    hidden = item.mask != 0
    other.flux[hidden] = value
    np.testing.assert_array_equal(clean_camera(item, *LIMITS).flux, clean_camera(other, *LIMITS).flux)


@pytest.mark.parametrize(("low", "high"), [(3600.0, 9824.0), (3608.0, 3616.0), (3604.1, 3620.0), (5000.0, 9000.0)])
def test_pixels_outside_the_wanted_wavelengths_get_ivar_0(low: float, high: float) -> None:
    item = Camera("b", 0, np.ones((1, 60), np.float32), np.ones((1, 60), np.float32), None)
    cleaned = clean_camera(item, low, high)
    wave = 3600 + 0.8 * np.arange(60)
    np.testing.assert_array_equal(cleaned.ivar[0] > 0, (wave > low - 1e-6) & (wave < high + 1e-6))


def test_limits_in_every_camera_are_those_of_the_grid() -> None:
    assert wave_limits(3600.0, 9824.0) == (0, N_WAVE)
    assert wave_limits(5760.0, 5800.0) == (2700, 2751)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), n_shared=st.integers(0, 60))
def test_merged_pixels_are_weighted_means_and_weights_add_up(seed: int, n_shared: int) -> None:
    first = clean_camera(camera(seed, 100), *LIMITS)
    second = clean_camera(camera(seed + 1, 160 - n_shared), *LIMITS)
    flux, ivar = merge_cameras([second, first], 3)
    weight, weighted = np.zeros((3, N_WAVE)), np.zeros((3, N_WAVE))
    for item in (first, second):
        place = slice(item.start, item.start + 60)
        weight[:, place] += item.ivar.astype(float)
        weighted[:, place] += item.ivar.astype(float) * item.flux
    np.testing.assert_allclose(ivar, weight, rtol=1e-6)
    np.testing.assert_allclose(flux * weight, weighted, rtol=1e-5, atol=1e-5)
    assert not flux[ivar == 0].any()


@given(seed=st.integers(0, 999))
def test_where_the_other_camera_is_bad_a_pixel_is_copied_bit_for_bit(seed: int) -> None:
    good = clean_camera(camera(seed, 0), *LIMITS)
    dead = Cleaned(30, np.zeros((3, 60), np.float32), np.zeros((3, 60), np.float32), 0)
    flux, ivar = merge_cameras([good, dead], 3)
    np.testing.assert_array_equal(flux[:, :60].view(np.int32), good.flux.view(np.int32))
    np.testing.assert_array_equal(ivar[:, :60].view(np.int32), good.ivar.view(np.int32))


def test_no_camera_gives_zeros() -> None:
    flux, ivar = merge_cameras([], 2)
    assert flux.shape == ivar.shape == (2, N_WAVE)
    assert not ivar.any()


@settings(max_examples=40)
@given(seed=st.integers(0, 999), n_wave=st.integers(1, 40), share=st.floats(0, 1))
def test_signal_to_noise_is_numpys_median(seed: int, n_wave: int, share: float) -> None:
    chance = np.random.default_rng(seed)
    ivar = (chance.gamma(2, 1, (4, n_wave)) * (chance.random((4, n_wave)) < share)).astype(np.float32)
    flux = chance.normal(size=(4, n_wave)).astype(np.float32)
    snr, n_good = median_snr(flux, ivar)
    for i in range(4):
        good = ivar[i] > 0
        assert n_good[i] == good.sum()
        if good.any():
            assert snr[i] == pytest.approx(np.median(flux[i][good] * np.sqrt(ivar[i][good])), rel=1e-5, abs=1e-6)
        else:
            assert np.isnan(snr[i])
