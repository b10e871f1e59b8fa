"""The grid and its windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.gridding.resample import resample
from qad.gridding.wavelength import FIRST_EDGE, LAST_EDGE, grid_of
from qad.lines import EMISSION_LINES
from qad.schema import N_WAVE, WAVE_START, WAVE_STEP
from qad.settings import BuildGrid

WAVE = WAVE_START + WAVE_STEP * np.arange(N_WAVE)


def test_default_grid() -> None:
    grid = grid_of(BuildGrid())
    assert (grid.n_obs, grid.n_rest, grid.frame) == (2181, 5447, "rest")
    assert grid.wave[0] == pytest.approx(800.0, rel=1e-8)
    assert grid.wave[-1] >= 9824.0 > grid.wave[-2]


def test_finer_step_gives_more_pixels() -> None:
    assert grid_of(BuildGrid(dloglam=1e-4)).n_obs == 4361


def test_observed_frame_has_one_window() -> None:
    grid = grid_of(BuildGrid(frame="observed"))
    assert grid.n_obs == grid.n_rest == 2181
    z = np.array([0.0, 1.5, 6.0])
    assert grid.start(z).tolist() == [0, 0, 0]
    np.testing.assert_array_equal(grid.edges(grid.start(z), z)[0], grid.edges(grid.start(z), z)[2])
    np.testing.assert_allclose(grid.wave_rest(grid.start(z), z)[1] * 2.5, grid.wave)
    assert grid.wave[0] == pytest.approx(WAVE[0])
    assert grid.wave[-1] == pytest.approx(WAVE[-1], rel=1e-4)


@given(st.floats(0.01, 3.4), st.sampled_from([2e-5, 1e-4, 2e-4, 1e-3]))
def test_window_begins_with_the_first_pixel_whose_centre_is_observed(z: float, step: float) -> None:
    grid = grid_of(BuildGrid(dloglam=step))
    redshift = np.array([z])
    start = grid.start(redshift)
    centre = grid.wave * (1 + z)
    assert centre[start[0]] >= FIRST_EDGE * (1 - 1e-9)
    assert start[0] == 0 or centre[start[0] - 1] < FIRST_EDGE
    # the pixel after the last would not be covered by half
    assert centre[start[0] + grid.n_obs - 1] * 10**step > LAST_EDGE * (1 - 1e-9)


@given(st.floats(-0.01, 8.0), st.floats(300, 3000), st.floats(3100, 12000))
def test_window_lies_on_the_grid_whatever_the_grid(z: float, rest_min: float, rest_max: float) -> None:
    grid = grid_of(BuildGrid(rest_min=rest_min, rest_max=rest_max))
    start = grid.start(np.array([z]))[0]
    assert 0 <= start <= grid.n_rest - grid.n_obs


def test_beyond_the_blue_end_the_window_begins_at_pixel_0() -> None:
    grid = grid_of(BuildGrid())
    z = np.array([3.4, 3.6, 5.0])
    assert grid.start(z).tolist()[1:] == [0, 0]
    assert grid.start(z)[0] > 0
    assert grid.edges(grid.start(z), z)[2, 0] == pytest.approx(4800.0, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.3, 5.0), st.sampled_from(EMISSION_LINES), st.sampled_from([1e-4, 2e-4]))
def test_emission_line_lands_on_its_rest_wavelength(z: float, line: object, step: float) -> None:
    grid = grid_of(BuildGrid(dloglam=step))
    centre = line.wave * (1 + z)  # type: ignore[attr-defined]
    if not 3650 < centre < 9780 or line.wave < 820:  # type: ignore[attr-defined]
        return
    redshift = np.array([z])
    start = grid.start(redshift)
    profile = np.exp(-0.5 * ((WAVE - centre) / 4.0) ** 2)
    flux, _ = resample(profile[None], np.ones((1, N_WAVE)), grid.edges(start, redshift))
    wave_rest = 10 ** (grid.loglam0 + grid.dloglam * (start[0] + np.arange(grid.n_obs)))
    width = wave_rest * step * np.log(10)
    found = (flux[0] * width * wave_rest).sum() / (flux[0] * width).sum()
    # the centroid in rest wavelength, to a hundredth of a pixel
    assert found == pytest.approx(line.wave, abs=0.02 * step * np.log(10) * line.wave)  # type: ignore[attr-defined]
    assert abs(wave_rest[flux[0].argmax()] - line.wave) < 1.1 * step * np.log(10) * line.wave  # type: ignore[attr-defined]


def test_redshifts_off_the_grid_are_known() -> None:
    grid = grid_of(BuildGrid())
    z = np.array([np.nan, np.inf, -1.0, -2.0, 1e6, 11.5, 0.0, 2.0, 7.0])
    assert grid.holds(z).tolist() == [False, False, False, False, False, False, True, True, True]
