"""The fixed pixels of the plain autoencoder."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.models.rebin import bin_edges, expand, rebin


@settings(max_examples=50, deadline=None)
@given(st.integers(20, 400), st.data())
def test_a_constant_stays_a_constant_there_and_back(n_obs: int, data: st.DataObject) -> None:
    n_out = data.draw(st.integers(2, n_obs))
    value = data.draw(st.floats(-1e3, 1e3, width=32))
    seed = data.draw(st.integers(0, 2**32 - 1))
    ivar = np.random.default_rng(seed).uniform(0.5, 2, (2, n_obs)).astype(np.float32)
    binned = rebin(np.full((2, n_obs), value, np.float32), ivar, n_out)
    np.testing.assert_allclose(binned, value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(expand(binned, n_obs), value, rtol=1e-5, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(20, 3000), st.data())
def test_bins_share_out_all_pixels_evenly(n_obs: int, data: st.DataObject) -> None:
    edges = bin_edges(n_obs, data.draw(st.integers(2, n_obs)))
    widths = np.diff(edges)
    assert edges[0] == 0
    assert edges[-1] == n_obs
    assert widths.max() - widths.min() <= 1


def test_masked_pixels_do_not_count_and_empty_bins_are_zero() -> None:
    flux = np.array([[1.0, 99.0, 2.0, 4.0, np.nan, 7.0]], np.float32)
    ivar = np.array([[1.0, 0.0, 1.0, 3.0, 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(rebin(flux, ivar, 3), [[1.0, 3.5, 0.0]])


def test_a_straight_line_comes_back_straight() -> None:
    line = np.linspace(0, 10, 100, dtype=np.float32)[None]
    back = expand(rebin(line, np.ones_like(line), 25), 100)
    np.testing.assert_allclose(back[0, 2:-2], line[0, 2:-2], atol=1e-4)
