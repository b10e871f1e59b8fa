"""The fit of the factor model finds what was planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toygrid import Toy, make_toy

from qad.training.em import MIN_SPECTRA, Fit, bin_windows, fit_factor_model
from qad.training.trim import block_misfit, trim_weights

N_REST = 300


@pytest.fixture(scope="module")
def planted() -> Toy:
    """Windows of half the rest frame: what lies apart is tied together by those between."""
    return make_toy(n=800, n_rest=N_REST, n_obs=160, k=2, seed=4, snr=10)


@pytest.fixture(scope="module")
def fit(planted: Toy) -> Fit:
    return fit_factor_model(planted.flux, planted.ivar, planted.start, N_REST, 2, iterations=25)


def test_fit_recovers_the_planted_mean(planted: Toy, fit: Fit) -> None:
    scatter = planted.mean.std()
    assert np.sqrt(np.mean((fit.model.mean - planted.mean) ** 2)) < 0.15 * scatter


def test_fit_recovers_the_planted_factors(planted: Toy, fit: Fit) -> None:
    """The cosines of the angles between the two subspaces are all near 1: factors themselves can rotate."""
    found, planted_basis = np.linalg.qr(fit.model.loading)[0], np.linalg.qr(planted.loading)[0]
    assert np.linalg.svd(found.T @ planted_basis)[1].min() > 0.98


def test_fit_recovers_the_planted_intrinsic_variance(planted: Toy, fit: Fit) -> None:
    inside = slice(30, N_REST - 30)
    ratio = fit.model.variance[inside] / planted.psi[inside]
    assert 0.85 < np.median(ratio) < 1.15
    assert np.median(fit.model.variance[160:270]) > 1.5 * np.median(fit.model.variance[30:140])


def test_factors_are_ordered_and_their_signs_fixed(fit: Fit) -> None:
    scaled = fit.model.loading / np.sqrt(fit.model.variance)[:, None]
    power = np.square(scaled).sum(axis=0)
    assert np.all(np.diff(power) <= 0)
    assert np.all(fit.model.loading.sum(axis=0) >= 0)
    np.testing.assert_allclose((scaled.T @ scaled)[0, 1] / power[0], 0, atol=1e-4)


def test_same_seed_gives_the_same_bytes(planted: Toy) -> None:
    first, second = (
        fit_factor_model(planted.flux[:200], planted.ivar[:200], planted.start[:200], N_REST, 2, iterations=3, seed=5)
        for _ in range(2)
    )
    assert first.model.mean.tobytes() == second.model.mean.tobytes()
    assert first.model.loading.tobytes() == second.model.loading.tobytes()


def test_masked_pixels_never_change_the_fit(planted: Toy) -> None:
    rows = slice(0, 200)
    spoiled = np.where(planted.ivar > 0, planted.flux, np.float32(1e9))
    clean, dirty = (
        fit_factor_model(flux[rows], planted.ivar[rows], planted.start[rows], N_REST, 2, iterations=3)
        for flux in (planted.flux, spoiled)
    )
    np.testing.assert_array_equal(clean.model.loading, dirty.model.loading)
    np.testing.assert_array_equal(clean.model.variance, dirty.model.variance)


def test_spectra_with_broad_features_are_trimmed(planted: Toy) -> None:
    """A twentieth of the sample has a trough: almost all of it gets no weight, and the rest keeps its own."""
    flux = planted.flux.copy()
    odd = np.arange(0, len(flux), 20)
    flux[odd, 60:90] -= 1.0
    fit = fit_factor_model(flux, planted.ivar, planted.start, N_REST, 2, iterations=12, trim=0.06)
    normal = np.setdiff1d(np.arange(len(flux)), odd)
    assert (fit.weight[odd] < 0.5).mean() > 0.9
    assert (fit.weight[normal] > 0.5).mean() > 0.97


def test_pixels_that_nobody_covers_are_continued_with_a_large_variance(planted: Toy) -> None:
    narrow = replace(planted, start=np.minimum(planted.start, 60))
    fit = fit_factor_model(narrow.flux, narrow.ivar, narrow.start, N_REST, 2, iterations=5)
    unseen = slice(60 + 160, N_REST)
    assert np.isfinite(fit.model.loading).all()
    assert np.ptp(fit.model.mean[unseen]) == 0
    assert fit.model.variance[unseen].min() > fit.model.variance[: 60 + 160].max()
    assert MIN_SPECTRA > 1


def test_bins_of_the_rest_frame_hold_the_weighted_mean(planted: Toy) -> None:
    flux, ivar, start = bin_windows(planted.flux, planted.ivar, planted.start, 16)
    for i in (0, 7, 99):
        rest_flux, rest_ivar = np.zeros(320), np.zeros(320)
        here = slice(planted.start[i], planted.start[i] + 160)
        rest_flux[here], rest_ivar[here] = planted.flux[i], planted.ivar[i]
        total = rest_ivar.reshape(20, 16).sum(axis=1)
        mean = (rest_flux * rest_ivar).reshape(20, 16).sum(axis=1) / np.maximum(total, 1e-9)
        mine = np.zeros((2, 40))
        mine[0, start[i] : start[i] + flux.shape[1]] = flux[i]
        mine[1, start[i] : start[i] + flux.shape[1]] = ivar[i]
        np.testing.assert_allclose(mine[0, :20], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mine[1, :20], total, rtol=1e-4)


def test_block_misfit_is_one_for_noise_and_large_for_a_step() -> None:
    rng = np.random.default_rng(0)
    weight = np.full((200, 160), 4.0, np.float32)
    noise = (rng.standard_normal((200, 160)) / 2).astype(np.float32)
    assert block_misfit(noise, weight).mean() == pytest.approx(1, abs=0.1)
    assert block_misfit(noise + np.float32(0.5), weight).min() > 5


def test_trimming_judges_spectra_among_those_of_like_signal() -> None:
    """Misfit grows with signal: without the comparison only bright spectra would be trimmed."""
    rng = np.random.default_rng(1)
    signal = np.sort(rng.uniform(0, 10, 2000))
    misfit = np.exp(signal / 2 + 0.1 * rng.standard_normal(2000))
    trimmed = trim_weights(misfit, signal, 0.05) < 0.5
    assert trimmed.sum() == pytest.approx(100, abs=5)
    assert trimmed[:1000].sum() > 30
