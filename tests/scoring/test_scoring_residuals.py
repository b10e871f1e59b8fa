"""Residual boxes: what they sum, what they find, and what they must ignore."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.scoring.residuals import Batch, BoxSums, ScatterSample, robust_weight, significance


def _noise(n: int, n_obs: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    ivar = rng.uniform(0.5, 4.0, (n, n_obs)) * (rng.random((n, n_obs)) > 0.1)
    flux = np.where(ivar > 0, rng.standard_normal((n, n_obs)) / np.sqrt(np.where(ivar > 0, ivar, 1)), 7.0)
    zero = np.zeros((n, n_obs), np.float32)
    return Batch(flux.astype(np.float32), ivar.astype(np.float32), zero, zero + 0.01, np.zeros(n, int), np.full(n, 3.6))


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 40), step=st.integers(1, 9), seed=st.integers(0, 1000))
def test_boxes_equal_sums_written_out(width: int, step: int, seed: int) -> None:
    batch = _noise(2, 60, seed)
    boxes = BoxSums(batch).boxes(width, step)
    for k, first in enumerate(range(0, 60 - width + 1, step)):
        for row in range(2):
            part = slice(first, first + width)
            good = batch.ivar[row, part] > 0
            if good.sum() < max(0.5 * width, 1):
                assert np.isnan(boxes.mean[row, k])
                continue
            ivar = batch.ivar[row, part][good].astype(float)
            weight = 1 / (1 / ivar + batch.intrinsic_var[row, part][good])
            mean = (weight * batch.flux[row, part][good]).sum() / weight.sum()
            assert boxes.mean[row, k] == pytest.approx(mean, rel=1e-5, abs=1e-7)
            assert boxes.noise_var[row, k] == pytest.approx((weight**2 / ivar).sum() / weight.sum() ** 2, rel=1e-6)
        assert boxes.centre[k] == first + (width - 1) / 2


def test_population_scatter_is_recovered_per_scale(geometry) -> None:
    rng = np.random.default_rng(3)
    batch = _noise(600, 800, 1)
    offset = 0.3 * rng.standard_normal((600, 1))
    moved = Batch((batch.flux + offset).astype(np.float32), *(getattr(batch, name) for name in
                  ("ivar", "recon", "intrinsic_var", "rest_start", "first_observed")))  # fmt: skip
    sample = ScatterSample(geometry, [4500.0])
    sample.add(moved)
    (scatter,) = sample.fit()
    # robust weights take part of an offset for outliers
    assert np.sqrt(scatter.at(np.array([400]))[0]) == pytest.approx(0.27, rel=0.15)
    deviation = significance(
        BoxSums(moved, robust_weight(moved)).boxes(scatter.width, scatter.width), scatter, moved.rest_start
    )
    assert np.std(deviation) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("sign", "width_kms"), [(-1, 2000.0), (1, 4500.0), (-1, 9000.0)])
def test_planted_signal_is_found_with_its_sign_place_and_width(
    population, toy_of, windows, sign: int, width_kms: float
) -> None:
    centre = 2100.0
    half = 0.5 * width_kms / 299_792.458

    def plant(wave: np.ndarray, flux: np.ndarray) -> np.ndarray:
        return flux * (1 + 0.8 * sign * (np.abs(wave / centre - 1) < half))

    toy = toy_of(60, seed=8, change=plant)
    keep = np.flatnonzero((toy.z > 0.9) & (toy.snr > 2))
    measured = toy.measured(population.scatters(), keep)
    scale = windows.index(width_kms)
    assert np.all(np.sign(measured.sigma[:, scale]) == sign)
    assert np.all(np.abs(measured.wave[:, scale] / centre - 1) * 299_792 < 0.5 * width_kms)
    weaker = [k for k, kms in enumerate(windows) if kms < 0.3 * width_kms or kms > 5 * width_kms]
    assert (
        np.median(np.abs(measured.sigma[:, scale])) > 1.3 * np.median(np.abs(measured.sigma[:, weaker]), axis=0).max()
    )


def test_what_a_masked_pixel_holds_never_changes_a_result(population) -> None:
    scatters = population.scatters()
    before = population.measured(scatters, slice(0, 40))
    batch = population.batch
    poisoned = np.where(batch.ivar > 0, batch.flux, 1e6).astype(np.float32)
    object.__setattr__(batch, "flux", poisoned)
    after = population.measured(scatters, slice(0, 40))
    object.__setattr__(batch, "flux", np.where(batch.ivar > 0, poisoned, 0).astype(np.float32))
    for name in ("sigma", "wave", "mean_square", "chi2_dof", "width", "evidence"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
