"""Faults of the instrument are told from the sky's own strange objects."""

from __future__ import annotations

import numpy as np
import pytest

from qad.scoring import artefacts
from qad.scoring.evidence import TESTS, find_faults
from qad.scoring.views import Measured


def _observed(toy, wave: np.ndarray) -> np.ndarray:
    return wave * (1 + toy.z[:, None])


@pytest.fixture(scope="module")
def plain(population) -> Measured:
    return population.measured(population.scatters())


def test_normal_spectra_are_hardly_ever_called_artefacts(plain) -> None:
    assert np.mean(artefacts.probability(plain.evidence) >= 0.5) < 0.02


def test_a_broad_absorption_line_is_no_artefact(population, toy_of) -> None:
    def trough(wave: np.ndarray, flux: np.ndarray) -> np.ndarray:
        velocity = (wave / 1549.06 - 1) * 299_792.458
        return flux * (1 - 0.8 * (np.abs(velocity + 8000) < 4000))

    toy = toy_of(200, seed=31, change=trough)
    chance = artefacts.probability(toy.measured(population.scatters(), toy.z > 1.7).evidence)
    assert np.mean(chance >= 0.5) < 0.06


def test_false_absorption_of_the_detector_is_called_an_artefact(population, toy_of) -> None:
    toy = toy_of(150, seed=32)
    observed = _observed(toy, toy.wave)
    dip = 0.9 * np.exp(-0.5 * ((observed - 8600) / 28) ** 4)
    flux = np.where(toy.batch.ivar > 0, toy.batch.flux * (1 - dip), 0).astype(np.float32)
    object.__setattr__(toy.batch, "flux", flux)
    bright = np.flatnonzero(toy.snr > 2)
    evidence = toy.measured(population.scatters(), bright).evidence
    chance = artefacts.probability(evidence)
    assert np.mean(chance >= 0.5) > 0.7
    assert "band" in artefacts.words(evidence[np.argmax(chance)])


def test_noise_beyond_the_ivar_in_one_camera_is_called_an_artefact(population, toy_of) -> None:
    toy = toy_of(100, seed=33)
    observed = _observed(toy, toy.wave)
    rng = np.random.default_rng(5)
    extra = np.where((observed > 5800) & (observed < 7520) & (toy.batch.ivar > 0), 2.5, 0.0)
    sigma = 1 / np.sqrt(np.where(toy.batch.ivar > 0, toy.batch.ivar, np.inf))
    flux = toy.batch.flux + extra * sigma * rng.standard_normal(sigma.shape)
    object.__setattr__(toy.batch, "flux", flux.astype(np.float32))
    assert np.mean(artefacts.probability(toy.measured(population.scatters()).evidence) >= 0.5) > 0.9


def test_a_spike_is_left_out_of_the_residuals_and_told(population, geometry) -> None:
    batch = population.batch
    row = int(np.argmax(population.snr))
    flux = batch.flux.copy()
    pixel = 300
    flux[row, pixel] += 40 / np.sqrt(max(float(batch.ivar[row, pixel]), 1e-3))
    original = batch.flux
    before = population.measured(population.scatters(), slice(row, row + 1))
    object.__setattr__(batch, "flux", flux)
    bad, height = find_faults(batch, geometry)
    after = population.measured(population.scatters(), slice(row, row + 1))
    object.__setattr__(batch, "flux", original)
    assert bad[row, pixel]
    assert height[row] > 20
    assert np.abs(after.sigma[0, 0]) < np.abs(before.sigma[0, 0]) + 3


def test_words_name_the_strongest_test() -> None:
    evidence = np.zeros(len(TESTS))
    evidence[TESTS.index("step")] = 9.0
    assert "step" in artefacts.words(evidence)
