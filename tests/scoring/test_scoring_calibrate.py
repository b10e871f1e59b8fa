"""Calibration: p-values mean what they say at every S/N and redshift, and one file holds all that was learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qad.errors import ConfigError, InputError
from qad.scoring.calibrate import Calibration, fit_calibration
from qad.scoring.calibration_file import load_calibration, save_calibration
from qad.scoring.combine import NullLaw, combine
from qad.scoring.conditional import Neighbours, Tail, ViewCalibration, position
from qad.scoring.views import Measured

META = {"geometry_hash": "g", "model": "m", "neighbours": 100, "weights": {"local": 1.0, "latent": 1.0, "line": 1.0}}


@pytest.fixture(scope="module")
def fitted(population, windows) -> tuple[Calibration, Measured]:
    scatters = population.scatters()
    measured = population.measured(scatters)
    return fit_calibration(measured, scatters, {**META, "windows_kms": windows}), measured


def test_p_values_of_normal_spectra_are_uniform_at_every_snr_and_redshift() -> None:
    rng = np.random.default_rng(0)
    n = 12_000
    snr, z = np.exp(rng.normal(0.7, 0.8, n)), rng.uniform(0.3, 3.5, n)
    raw = (1 + 0.5 * np.log(snr) ** 2 + z) * rng.gamma(4.0, 1.0 + 0.2 * z, n)
    neighbours = Neighbours(snr, z, 200).of(snr, z)
    log_p = ViewCalibration.fit(raw, neighbours, np.ones(n, bool), position(snr, z)).log_p(
        raw, neighbours, position(snr, z)
    )
    for level in (0.5, 0.1, 0.01):
        assert np.mean(log_p < np.log(level)) == pytest.approx(level, rel=0.15)
    for low, high in zip(np.quantile(snr, np.arange(6) / 6), np.quantile(snr, np.arange(1, 7) / 6), strict=True):
        for z_low, z_high in ((0.3, 1.4), (1.4, 2.4), (2.4, 3.5)):
            cell = (snr >= low) & (snr <= high) & (z >= z_low) & (z <= z_high)
            assert 0.003 < np.mean(log_p[cell] < np.log(0.01)) < 0.02


def test_anomalies_in_the_population_do_not_spoil_the_calibration() -> None:
    rng = np.random.default_rng(1)
    n, n_odd = 6000, 180
    snr, z = np.exp(rng.normal(0.7, 0.8, n)), rng.uniform(0.3, 3.5, n)
    raw = rng.chisquare(6, n)
    raw[:n_odd] *= 6
    neighbours = Neighbours(snr, z, 200).of(snr, z)
    usual = np.arange(n) >= n_odd
    log_p = ViewCalibration.fit(raw, neighbours, usual, position(snr, z)).log_p(raw, neighbours, position(snr, z))
    assert 0.005 < np.mean(log_p[n_odd:] < np.log(0.01)) < 0.02
    assert np.mean(log_p[:n_odd] < np.log(0.01)) > 0.75


def test_tail_is_monotone_and_never_ends() -> None:
    tail = Tail.fit(np.random.default_rng(2).standard_normal(5000))
    x = np.linspace(-4, 60, 500)
    log_p = tail.log_p(x)
    assert np.all(np.diff(log_p) <= 1e-12)
    assert np.isfinite(log_p).all()
    assert tail.log_p(np.array([2.326]))[0] == pytest.approx(np.log(0.01), abs=0.3)


def test_score_of_independent_uniform_p_values_has_uniform_p() -> None:
    rng = np.random.default_rng(3)
    log_p = {name: np.log(rng.random(20_000)) for name in ("local", "latent", "line")}
    score = combine(log_p, META["weights"])
    p = np.exp(NullLaw.fit(score).log_p(score))
    for level in (0.3, 0.01, 0.001):
        assert np.mean(p < level) == pytest.approx(level, rel=0.35)


def test_a_weight_that_names_no_view_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        combine({"local": np.zeros(3)}, {"locale": 1.0})
    assert "locale" in str(error.value)
    with pytest.raises(ConfigError):
        combine({"local": np.zeros(3)}, {"local": 0.0})


def test_false_positive_rate_of_the_score_is_near_nominal(fitted) -> None:
    calibration, measured = fitted
    p = np.exp(calibration.apply(measured).log_p_score)
    assert 0.001 <= np.mean(p < 0.01) < 0.025
    assert 0.04 < np.mean(p < 0.1) < 0.15


def test_row_order_never_matters(fitted) -> None:
    calibration, measured = fitted
    shuffled = np.random.default_rng(4).permutation(len(measured))
    again = fit_calibration(measured.rows(shuffled), calibration.scatters, dict(calibration.meta))
    first = calibration.apply(measured).score
    second = again.apply(measured.rows(shuffled)).score
    np.testing.assert_allclose(second, first[shuffled], rtol=1e-6)


def test_planted_troughs_outrank_normal_spectra(fitted, population, toy_of) -> None:
    calibration, measured = fitted

    def trough(wave: np.ndarray, flux: np.ndarray) -> np.ndarray:
        velocity = (wave / 1549.06 - 1) * 299_792.458
        return flux * (1 - 0.7 * (np.abs(velocity + 9000) < 3500))

    toy = toy_of(200, seed=21, change=trough)
    odd = toy.measured(list(calibration.scatters), np.flatnonzero((toy.z > 1.7) & (toy.snr > 2)))
    limit = np.quantile(calibration.apply(measured).score, 0.99)
    assert np.mean(calibration.apply(odd).score > limit) > 0.8


def test_saved_calibration_gives_the_same_scores_and_the_same_bytes(fitted, tmp_path: Path) -> None:
    calibration, measured = fitted
    save_calibration(tmp_path / "a.npz", calibration)
    loaded = load_calibration(tmp_path / "a.npz")
    save_calibration(tmp_path / "b.npz", loaded)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.testing.assert_array_equal(loaded.apply(measured).score, calibration.apply(measured).score)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text"])
def test_damaged_calibration_is_one_clear_error(fitted, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.npz"
    save_calibration(path, fitted[0])
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"no archive"}[damage])
    with pytest.raises(InputError) as error:
        load_calibration(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("n", [1, 2, 12])
def test_a_handful_of_spectra_still_gets_finite_scores(population, windows, n: int) -> None:
    scatters = population.scatters()
    few = population.measured(scatters, slice(0, n))
    scored = fit_calibration(few, scatters, {**META, "windows_kms": windows}).apply(few)
    assert np.isfinite(scored.score).all()
    assert np.isfinite(scored.log_p_score).all()


def test_spectra_that_cannot_be_scored_are_known_as_such(fitted) -> None:
    _, measured = fitted
    latent = measured.latent.copy()
    latent[3, 1] = np.nan
    norm = measured.norm.copy()
    norm[5] = np.inf
    finite = replace(measured, latent=latent, norm=norm).is_finite
    assert np.flatnonzero(~finite).tolist() == [3, 5]
