"""Equivalent widths and their population."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qad.scoring.population import FeaturePopulation, covariates, fit_features
from qad.scoring.widths import Widths, feature_names, measure_widths

NAMES = feature_names()


def _feature(floor: float = 1.0) -> FeaturePopulation:
    coef = np.array([np.arcsinh(30.0 / (2 * floor)), 0.0, 0.0, 0.0])
    return FeaturePopulation(floor, coef, 0.3, 0.3, np.array([[0.0, 0.0], [1.0, 4.0]]))


def test_equivalent_widths_of_known_lines_come_out_within_their_errors(toy_of, geometry) -> None:
    toy = toy_of(300, seed=4, clean=True)
    widths = measure_widths(toy.batch, geometry)
    # Gaussian lines of known width on a power law; C IV and [O III] stand alone in their windows
    for name, true in (("C IV", 24.0), ("[O III]", 13.0)):
        column = NAMES.index(f"ew:{name}")
        value, error = widths.value[:, column], widths.error[:, column]
        measured = np.isfinite(value)
        assert measured.sum() > 20
        pull = (value[measured] - true) / error[measured]
        # the wings of the neighbouring lines lie under the continuum windows: a tenth of the width
        assert abs(np.median(value[measured]) / true - 1) < 0.15
        faint = pull[toy.snr[measured] < 3]
        assert 0.6 < 1.4826 * np.median(np.abs(faint - np.median(faint))) < 1.4


def test_slope_is_that_of_the_power_law(toy_of, geometry) -> None:
    toy = toy_of(300, seed=4, clean=True)
    widths = measure_widths(toy.batch, geometry)
    column = NAMES.index("slope:1458-1705")
    assert np.nanmedian(widths.value[:, column]) == pytest.approx(-1.5, abs=0.15)


def test_a_line_outside_the_window_is_not_measured(toy_of, geometry) -> None:
    toy = toy_of(300, seed=4)
    widths = measure_widths(toy.batch, geometry)
    lya = widths.value[:, NAMES.index("ew:Lya")]
    assert np.isnan(lya[toy.z < 1.5]).all()
    assert np.isfinite(lya[(toy.z > 2.4) & (toy.snr > 2)]).mean() > 0.85


@given(value=st.floats(0.5, 300), error=st.floats(0.01, 50), more=st.floats(1.1, 10))
def test_a_larger_error_never_makes_a_width_stranger(value: float, error: float, more: float) -> None:
    feature, x = _feature(), np.array([[0.5, 2.0]])
    near = feature.deviation(np.array([value]), np.array([error]), x)
    far = feature.deviation(np.array([value]), np.array([error * more]), x)
    assert abs(far[0]) <= abs(near[0]) + 1e-9


def test_a_well_measured_width_deviates_by_its_distance_in_log() -> None:
    feature, x = _feature(floor=0.01), np.array([[0.5, 2.0]])
    for factor in (0.1, 0.37, 1.0, 2.9):
        found = feature.deviation(np.array([30.0 * factor]), np.array([1e-4]), x)
        assert found[0] == pytest.approx(np.log(factor) / 0.3, abs=0.02)


def test_a_missing_width_does_not_deviate() -> None:
    found = _feature().deviation(np.array([np.nan]), np.array([np.nan]), np.array([[0.5, 2.0]]))
    assert found[0] == 0


def test_weak_lines_stand_out_and_normal_ones_have_unit_scatter(population, toy_of, geometry) -> None:
    def fade(wave: np.ndarray, flux: np.ndarray) -> np.ndarray:
        return (wave / 2500.0) ** -1.5 + 0.1 * (flux - (wave / 2500.0) ** -1.5)

    normal = measure_widths(population.batch, geometry)
    features = fit_features(normal, covariates(population.norm, population.z))
    weak = toy_of(200, seed=9, change=fade)
    column = NAMES.index("ew:C IV")

    def deviation(widths: Widths, toy: object) -> np.ndarray:
        x = covariates(toy.norm, toy.z)
        found = features[column].deviation(widths.value[:, column], widths.error[:, column], x)
        return found[np.isfinite(widths.value[:, column]) & (toy.snr > 3)]

    assert 0.7 < np.std(deviation(normal, population)) < 1.4
    assert np.median(deviation(measure_widths(weak.batch, geometry), weak)) < -3.5
