"""The factor model: its algebra against plain float64 linear algebra, and what missing pixels may not do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.models.factor import FactorModel
from qad.models.windows import cut, groups

N_REST, N_OBS, K = 120, 50, 3


@pytest.fixture(scope="module")
def model() -> FactorModel:
    rng = np.random.default_rng(0)
    return FactorModel(
        mean=rng.normal(1, 0.2, N_REST).astype(np.float32),
        loading=rng.normal(0, 0.3, (N_REST, K)).astype(np.float32),
        variance=rng.uniform(1e-3, 1e-2, N_REST).astype(np.float32),
        n_obs=N_OBS,
        grid_hash="toy",
    )


def spectra(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    flux = rng.normal(1, 0.5, (n, N_OBS)).astype(np.float32)
    ivar = rng.uniform(1, 100, (n, N_OBS)).astype(np.float32)
    ivar[rng.random((n, N_OBS)) < 0.2] = 0
    return flux, ivar, rng.integers(0, N_REST - N_OBS + 1, n).astype(np.int32)


def posterior_by_hand(
    model: FactorModel, flux: np.ndarray, ivar: np.ndarray, start: int
) -> tuple[np.ndarray, np.ndarray]:
    """The conditional of a joint Gaussian, by the data covariance: another road than the model's own."""
    good = ivar > 0
    here = np.arange(start, start + N_OBS)[good]
    loading = model.loading[here].astype(np.float64)
    data = loading @ loading.T + np.diag(model.variance[here] + 1.0 / ivar[good].astype(np.float64))
    gain = np.linalg.solve(data, loading).T
    mean = gain @ (flux[good].astype(np.float64) - model.mean[here])
    return mean, np.eye(K) - gain @ loading


def test_posterior_equals_the_conditional_of_the_joint_gaussian(model: FactorModel) -> None:
    flux, ivar, start = spectra(40)
    latent, covariance = model.posterior(flux, ivar, start, robust_passes=0)
    for i in range(40):
        mean, spread = posterior_by_hand(model, flux[i], ivar[i], int(start[i]))
        np.testing.assert_allclose(latent[i], mean, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(covariance[i], spread, rtol=1e-3, atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_masked_pixel_never_changes_a_result(model: FactorModel, seed: int, junk: float) -> None:
    flux, ivar, start = spectra(5, seed)
    spoiled = np.where(ivar > 0, flux, np.float32(junk))
    for clean, dirty in zip(
        vars(model.infer(flux, ivar, start)).values(), vars(model.infer(spoiled, ivar, start)).values(), strict=True
    ):
        np.testing.assert_array_equal(clean, dirty)


def test_not_a_number_under_the_mask_never_changes_a_result(model: FactorModel) -> None:
    flux, ivar, start = spectra(5)
    spoiled = np.where(ivar > 0, flux, np.float32(np.nan))
    np.testing.assert_array_equal(model.infer(flux, ivar, start).latent, model.infer(spoiled, ivar, start).latent)


def test_order_and_company_of_spectra_do_not_matter(model: FactorModel) -> None:
    flux, ivar, start = spectra(150)
    together = model.infer(flux, ivar, start)
    order = np.random.default_rng(2).permutation(150)
    shuffled = model.infer(flux[order], ivar[order], start[order])
    alone = model.infer(flux[7:8], ivar[7:8], start[7:8])
    np.testing.assert_allclose(shuffled.latent, together.latent[order], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(alone.latent[0], together.latent[7], rtol=1e-4, atol=1e-5)


def test_a_spectrum_without_data_has_the_prior(model: FactorModel) -> None:
    result = model.infer(np.ones((1, N_OBS), np.float32), np.zeros((1, N_OBS), np.float32), np.array([3]))
    np.testing.assert_allclose(result.latent, 0)
    np.testing.assert_allclose(result.latent_sd, 1, rtol=1e-6)
    np.testing.assert_allclose(result.recon[0], model.mean[3 : 3 + N_OBS])


def test_one_wild_pixel_moves_the_robust_fit_less_than_the_gaussian_one(model: FactorModel) -> None:
    flux, _, start = spectra(1)
    ivar = np.full((1, N_OBS), 100, np.float32)
    flux[0] = model.mean[start[0] : start[0] + N_OBS]
    flux[0, 25] += 5
    gaussian, _ = model.posterior(flux, ivar, start, robust_passes=0)
    robust, _ = model.posterior(flux, ivar, start)
    assert np.abs(robust).max() < 0.2 * np.abs(gaussian).max()


def test_groups_hold_every_spectrum_once_at_its_place() -> None:
    flux, ivar, start = spectra(150)
    seen = []
    for group in groups(flux, ivar, start):
        for i, row in enumerate(group.rows):
            here = slice(group.offset[i], group.offset[i] + N_OBS)
            np.testing.assert_array_equal(group.ivar[i, here], ivar[row])
            np.testing.assert_array_equal(group.flux[i, here], np.where(ivar[row] > 0, flux[row], 0))
            assert group.ivar[i].sum() == pytest.approx(ivar[row].sum(), rel=1e-5)
            assert group.low + group.offset[i] == start[row]
            seen.append(row)
    assert sorted(seen) == list(range(150))


def test_cut_takes_the_window_of_each_row() -> None:
    values = np.arange(40.0).reshape(2, 20)
    np.testing.assert_array_equal(cut(values, np.array([3, 10]), 4), [[3, 4, 5, 6], [30, 31, 32, 33]])
    np.testing.assert_array_equal(cut(values[0], np.array([0, 16]), 4), [[0, 1, 2, 3], [16, 17, 18, 19]])
