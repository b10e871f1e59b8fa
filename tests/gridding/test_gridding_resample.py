"""Resampling: flux conserved, noise known, masked pixels without a say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.gridding.resample import MIN_COVERED, resample
from qad.gridding.wavelength import FIRST_EDGE, Grid, grid_of
from qad.schema import N_WAVE, WAVE_STEP
from qad.settings import BuildGrid

STEPS = (2e-5, 1e-4, 2e-4, 5e-4, 5e-3)
redshifts = st.floats(0.0, 6.0)
grids = st.sampled_from(STEPS).map(lambda step: grid_of(BuildGrid(dloglam=step)))
seeds = st.integers(0, 2**32 - 1)


def window_edges(grid: Grid, z: float) -> np.ndarray:
    redshift = np.array([z])
    return grid.edges(grid.start(redshift), redshift)


def slow_reference(flux: np.ndarray, ivar: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition, one output pixel and one input pixel at a time."""
    flux_out, ivar_out = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for k, (low, high) in enumerate(itertools.pairwise(edges)):
        first = max(int((low - FIRST_EDGE) / WAVE_STEP) - 1, 0)
        last = min(int((high - FIRST_EDGE) / WAVE_STEP) + 2, N_WAVE)
        covered = total = error = 0.0
        for j in range(first, last):
            left = FIRST_EDGE + WAVE_STEP * j
            overlap = (min(high, left + WAVE_STEP) - max(low, left)) / WAVE_STEP
            if overlap > 0 and ivar[j] > 0:
                covered += overlap
                total += overlap * flux[j]
                error += overlap**2 / ivar[j]
        if covered * WAVE_STEP >= MIN_COVERED * (high - low) and covered > 0:
            flux_out[k], ivar_out[k] = total / covered, covered**2 / error
    return flux_out, ivar_out


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(STEPS[1:]), redshifts, seeds)
def test_equals_a_slow_independent_reference(step: float, z: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    flux = rng.normal(1.0, 2.0, N_WAVE)
    ivar = rng.uniform(0.1, 3.0, N_WAVE) * (rng.uniform(size=N_WAVE) > 0.1)
    edges = window_edges(grid_of(BuildGrid(dloglam=step)), z)
    flux_out, ivar_out = resample(flux[None], ivar[None], edges)
    expected_flux, expected_ivar = slow_reference(flux, ivar, edges[0])
    # a pixel that is covered by half to the last bit may fall on either side
    same = (ivar_out[0] > 0) == (expected_ivar > 0)
    assert same.mean() > 0.999
    np.testing.assert_allclose(flux_out[0][same], expected_flux[same], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ivar_out[0][same], expected_ivar[same], rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(grids, redshifts, seeds, st.floats(1e-20, 1e20))
def test_constant_in_gives_constant_out(grid: Grid, z: float, seed: int, level: float) -> None:
    mask = np.random.default_rng(seed).uniform(size=(1, N_WAVE)) > 0.3
    flux_out, ivar_out = resample(np.full((1, N_WAVE), level), mask.astype(float), window_edges(grid, z))
    assert (ivar_out > 0).any()
    np.testing.assert_allclose(flux_out[ivar_out > 0], level, rtol=1e-9)
    assert (flux_out[ivar_out == 0] == 0).all()


@settings(max_examples=30, deadline=None)
@given(grids, redshifts, seeds)
def test_integral_of_flux_is_kept_over_good_spans(grid: Grid, z: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    flux, ivar = rng.normal(size=(1, N_WAVE)), rng.uniform(0.1, 5.0, (1, N_WAVE))
    edges = window_edges(grid, z)
    flux_out, ivar_out = resample(flux, ivar, edges)
    inside = np.flatnonzero((edges[0, :-1] > FIRST_EDGE) & (edges[0, 1:] < FIRST_EDGE + WAVE_STEP * N_WAVE))
    assert (ivar_out[0, inside] > 0).all()
    first, last = inside[0], inside[-1] + 1
    running = np.concatenate([[0.0], np.cumsum(flux[0])]) * WAVE_STEP
    ends = np.interp(edges[0, [first, last]], FIRST_EDGE + WAVE_STEP * np.arange(N_WAVE + 1), running)
    integral = (flux_out[0, first:last] * np.diff(edges[0, first : last + 1])).sum()
    assert integral == pytest.approx(ends[1] - ends[0], abs=1e-8)


@settings(max_examples=20, deadline=None)
@given(grids, redshifts, seeds, st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e300]))
def test_masked_pixel_never_changes_a_result(grid: Grid, z: float, seed: int, junk: float) -> None:
    rng = np.random.default_rng(seed)
    flux, ivar = rng.normal(size=(1, N_WAVE)), rng.uniform(0.1, 2.0, (1, N_WAVE))
    ivar[rng.uniform(size=ivar.shape) < 0.2] = 0
    edges = window_edges(grid, z)
    changed = np.where(ivar > 0, flux, junk)
    for first, second in zip(resample(flux, ivar, edges), resample(changed, ivar, edges), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 0.0])
def test_bad_ivar_or_flux_is_a_masked_pixel(bad: float) -> None:
    flux, ivar = np.ones((1, N_WAVE)), np.ones((1, N_WAVE))
    edges = window_edges(grid_of(BuildGrid()), 1.0)
    ivar[0, 4000] = 0
    expected = resample(flux, ivar, edges)
    ivar[0, 4000] = bad
    np.testing.assert_array_equal(resample(flux, ivar, edges), expected)
    ivar[0, 4000], flux[0, 4000] = 1, np.nan
    np.testing.assert_array_equal(resample(flux, ivar, edges), expected)


def test_spike_stays_in_its_own_pixel() -> None:
    """A running sum would lose everything redward of a spike of 1e30."""
    rng = np.random.default_rng(1)
    flux, ivar = rng.normal(size=(1, N_WAVE)), np.ones((1, N_WAVE))
    edges = window_edges(grid_of(BuildGrid()), 2.0)
    clean, _ = resample(flux, ivar, edges)
    flux[0, 3000], ivar[0, 6000] = 1e30, 1e-30
    hit, ivar_out = resample(flux, ivar, edges)
    assert (np.abs(hit - clean) > 1e-9).sum() <= 2
    assert (ivar_out[0] < 1e-20).sum() <= 2
    assert np.isfinite(hit).all()


@pytest.mark.parametrize("step", [1e-4, 2e-4])
def test_pulls_of_resampled_noise_have_unit_width(step: float) -> None:
    rng = np.random.default_rng(2)
    n_draws = 400
    ivar = np.broadcast_to(rng.uniform(0.2, 4.0, N_WAVE), (n_draws, N_WAVE)).copy()
    ivar[:, rng.uniform(size=N_WAVE) < 0.1] = 0
    flux = rng.normal(size=ivar.shape) / np.sqrt(np.where(ivar > 0, ivar, 1.0))
    edges = np.repeat(window_edges(grid_of(BuildGrid(dloglam=step)), 1.7), n_draws, axis=0)
    flux_out, ivar_out = resample(flux, ivar, edges)
    good = ivar_out[0] > 0
    pulls = (flux_out * np.sqrt(ivar_out))[:, good]
    assert pulls.std() == pytest.approx(1.0, abs=0.005)
    # per pixel: the scatter of a variance from n draws is sqrt(2/n)
    ratio = pulls.var(axis=0)
    assert np.abs(ratio.mean() - 1) < 0.01
    assert ratio.std() == pytest.approx(np.sqrt(2 / n_draws), rel=0.1)


def test_neighbours_correlate_as_documented() -> None:
    rng = np.random.default_rng(3)
    flux = rng.normal(size=(300, N_WAVE))
    edges = np.repeat(window_edges(grid_of(BuildGrid()), 0.5), 300, axis=0)
    flux_out, ivar_out = resample(flux, np.ones_like(flux), edges)
    pulls = flux_out * np.sqrt(ivar_out)
    blue = (pulls[:, 5:205] * pulls[:, 6:206]).mean()
    red = (pulls[:, -205:-5] * pulls[:, -204:-4]).mean()
    assert blue == pytest.approx(0.10, abs=0.02)
    assert red == pytest.approx(0.03, abs=0.02)


def test_pixel_covered_by_less_than_half_is_empty() -> None:
    flux, ivar = np.ones((1, N_WAVE)), np.ones((1, N_WAVE))
    edges = FIRST_EDGE + WAVE_STEP * np.array([[10.0, 14.0, 18.0]])
    ivar[0, 10:12] = 0
    assert resample(flux, ivar, edges)[1][0, 0] == pytest.approx(2.0)
    ivar[0, 12] = 0
    assert resample(flux, ivar, edges)[1][0].tolist() == [0.0, pytest.approx(4.0)]


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_rows_do_not_know_of_each_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.uniform(0, 5, 6)
    grid = grid_of(BuildGrid())
    flux, ivar = rng.normal(size=(6, N_WAVE)), rng.uniform(0, 2, (6, N_WAVE))
    edges = grid.edges(grid.start(z), z)
    together = resample(flux, ivar, edges)
    order = rng.permutation(6)
    shuffled = resample(flux[order], ivar[order], edges[order])
    alone = [resample(flux[i : i + 1], ivar[i : i + 1], edges[i : i + 1]) for i in range(6)]
    for which in (0, 1):
        np.testing.assert_array_equal(shuffled[which], together[which][order])
        np.testing.assert_array_equal(np.concatenate([pair[which] for pair in alone]), together[which])
