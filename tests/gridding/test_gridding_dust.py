"""The dust law: DESI's numbers, and what any law must do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qad.desi.dust import extinction_per_ebv, fitzpatrick, transmission

# computed with desiutil 4.0.1, `desiutil.dust.dust_transmission(wave, 0.1, Rv)`
DESIUTIL_WAVE = [1500.0, 2175.0, 2699.0, 2701.0, 3600.0, 4400.0, 5500.0, 6500.0, 7600.0, 9000.0, 9824.0]
DESIUTIL = {
    2.5: [
        0.39936213859214376, 0.3707949206479239, 0.539315089863018, 0.5396959794738309, 0.6442994367892986, 0.6974580117345636,
        0.7762309239801412, 0.8272855185488176, 0.8638388587618383, 0.8942816264138976, 0.9071686925163056,
    ],
    3.1: [
        0.5197183860173898, 0.4613904700293974, 0.6014349453479982, 0.6017172239901667, 0.6780470705045168, 0.7194653270554738,
        0.7820066558566052, 0.8236169557604077, 0.8593803688091227, 0.8924223115595504, 0.9068734186545219,
    ],
}  # fmt: skip


@pytest.mark.parametrize("r_v", [2.5, 3.1])
def test_transmission_is_that_of_desiutil(r_v: float) -> None:
    np.testing.assert_allclose(transmission(DESIUTIL_WAVE, 0.1, r_v), DESIUTIL[r_v], rtol=1e-12)


def test_curve_has_the_colour_excess_that_it_is_named_for() -> None:
    # Fitzpatrick (1999), table 3: A(5470 Å) = 3.055 E(B-V), A(4110 Å) = 4.315 E(B-V) at R_V = 3.1
    np.testing.assert_allclose(fitzpatrick([5470.0, 4110.0]), [3.055, 4.315], atol=2e-3)


def test_schlafly_and_finkbeiner_coefficients_follow() -> None:
    """A_b per unit of the map's E(B-V): Schlafly and Finkbeiner (2011, table 6), DECam g, r, z at R_V = 3.1."""
    # effective wavelengths, Å; the table integrates over the filter, hence the tolerance
    np.testing.assert_allclose(extinction_per_ebv([4830.8, 6409.0, 9142.7]), [3.212, 2.164, 1.211], rtol=0.03)


@given(st.floats(0, 3), st.floats(0, 3), st.floats(2.2, 5.5))
def test_dust_adds_up_and_reddens(first: float, second: float, r_v: float) -> None:
    wave = np.linspace(3600, 9824, 200)
    together = transmission(wave, first + second, r_v)
    np.testing.assert_allclose(together, transmission(wave, first, r_v) * transmission(wave, second, r_v), rtol=1e-9)
    assert ((together > 0) & (together <= 1)).all()
    assert (np.diff(together) >= 0).all()


def test_shape_is_that_of_ebv_then_wave() -> None:
    assert transmission(5000.0, 0.1).shape == ()
    assert transmission([5000.0, 6000.0], [0.0, 0.1, 0.2]).shape == (3, 2)
    np.testing.assert_array_equal(transmission([5000.0, 6000.0], [0.0])[0], 1.0)
