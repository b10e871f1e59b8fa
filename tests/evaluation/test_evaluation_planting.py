"""What is planted is in the spectrum: the level changes as the class says, the noise and the inverse variance stay."""

from __future__ import annotations

import numpy as np
import pytest

from qad.evaluation.orders import LEVELS, draw_orders
from qad.evaluation.planting import Observed, plant_anomaly, plant_artefact
from qad.evaluation.twins import bare_quasar, light, nearest
from qad.schema import N_WAVE
from qad.simulation.anomalies import ANOMALIES
from qad.simulation.artefacts import ARTEFACTS
from qad.simulation.sky import WAVE

NOISE = 0.3


def observed(z: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return flux, ivar and level of a quasar; a fortieth of the pixels do not count."""
    rng = np.random.default_rng(seed)
    level = light(bare_quasar(np.random.default_rng(7), z), WAVE)
    level = (3.0 * level / level.mean()).astype(np.float32)
    ivar = np.where(rng.random(N_WAVE) < 0.025, 0.0, 1 / NOISE**2).astype(np.float32)
    flux = np.where(ivar > 0, level + NOISE * rng.standard_normal(N_WAVE), 0.0).astype(np.float32)
    return flux, ivar, level


def redshift_of(name: str) -> float:
    anomaly = ANOMALIES[name]
    return float(np.clip(2.2, anomaly.z_min + 0.05, anomaly.z_max - 0.05))


@pytest.mark.parametrize("name", list(ANOMALIES))
def test_every_class_changes_flux_where_it_counts_and_never_the_ivar(name: str) -> None:
    z = redshift_of(name)
    flux, ivar, level = observed(z)
    made = plant_anomaly(name, 0.9, Observed(flux, ivar, level, z), np.random.default_rng(3))
    np.testing.assert_array_equal(made.ivar, ivar)
    np.testing.assert_array_equal(made.flux[ivar == 0], flux[ivar == 0])
    assert np.isfinite(made.flux).all()
    change = np.abs(made.flux - flux)[ivar > 0]
    if name == "wrong_redshift":
        assert abs(made.z - z) > 0.01
        assert change.max() < 1e-5
    else:
        assert made.z == z
        assert np.sqrt(np.mean(change**2)) > 0.03 * level.mean()


@pytest.mark.parametrize("name", sorted(set(ANOMALIES) - {"wrong_redshift"}))
def test_the_noise_stays_and_an_object_is_as_bright_as_it_was(name: str) -> None:
    z = redshift_of(name)
    differences = []
    for seed in (1, 2):
        flux, ivar, level = observed(z, seed)
        made = plant_anomaly(name, 0.7, Observed(flux, ivar, level, z), np.random.default_rng(3))
        differences.append(np.where(ivar > 0, made.flux - flux, np.nan))
    both = np.isfinite(differences[0]) & np.isfinite(differences[1])
    np.testing.assert_allclose(differences[0][both], differences[1][both], atol=1e-4 * level.max())
    assert abs(np.nanmean(differences[0])) < 0.02 * level.mean()


@pytest.mark.parametrize("name", ["hibal", "weak_line", "blend_galaxy", "star"])
def test_a_diluted_plant_is_that_share_of_it(name: str) -> None:
    flux, ivar, level = observed(2.2)
    whole, tenth, none = (
        plant_anomaly(name, 0.8, Observed(flux, ivar, level, 2.2), np.random.default_rng(4), dilution=d).flux - flux
        for d in (1.0, 0.1, 0.0)
    )
    np.testing.assert_allclose(tenth, 0.1 * whole, atol=1e-4 * float(np.abs(whole).max()))
    assert not none.any()


def band(flux: np.ndarray, z: float, low: float, high: float) -> float:
    """Return the mean flux between two rest wavelengths, Å."""
    rest = WAVE / (1 + z)
    return float(flux[(rest > low) & (rest < high)].mean())


def test_classes_do_what_their_names_say() -> None:
    z = 2.2
    _, ivar, level = observed(z)
    ivar = np.ones_like(ivar)

    def ratio(name: str, low: float, high: float) -> float:
        made = plant_anomaly(name, 0.9, Observed(level, ivar, level, z), np.random.default_rng(11)).flux
        return band(made, z, low, high) / band(level, z, low, high)

    assert ratio("reddened", 1300, 1350) < 0.6 * ratio("reddened", 2900, 3000)
    assert ratio("weak_line", 1540, 1556) < 0.8 * ratio("weak_line", 1690, 1705)
    assert ratio("n_rich", 1742, 1758) > 1.1 * ratio("n_rich", 1690, 1705)
    assert ratio("hibal", 1440, 1540) < 0.9 * ratio("hibal", 1690, 1705)
    assert ratio("proximate_dla", 1212, 1219) < 0.3


def test_the_twin_is_near_its_quasar_in_continuum_and_lines() -> None:
    misfits = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        z = float(rng.uniform(0.6, 2.6))
        level = 4.0 * light(bare_quasar(rng, z), WAVE)
        twin = nearest(level, z, np.random.default_rng(seed + 100))
        use = 1230 * (1 + z) < WAVE
        misfits.append(float(np.std(np.log(twin.factor * light(twin.quasar, WAVE) / level)[use])))
    assert np.median(misfits) < 0.08


@pytest.mark.parametrize("name", list(ARTEFACTS))
def test_an_artefact_changes_the_merged_spectrum_in_some_cameras_only(name: str) -> None:
    flux, ivar, level = observed(1.4)
    made = plant_artefact(name, 0.9, Observed(flux, ivar, level, 1.4), np.random.default_rng(2))
    assert np.isfinite(made.flux).all()
    assert (made.ivar[ivar == 0] == 0).all()
    changed = ~np.isclose(made.flux, flux, atol=1e-5)
    assert 2 < changed.sum() < 0.8 * N_WAVE
    assert not made.flux[made.ivar == 0].any()


def test_orders_give_every_class_its_redshifts_and_every_strength_its_turn() -> None:
    z = np.random.default_rng(0).uniform(0.2, 4.0, 400)
    rows = np.arange(50, 400)
    orders = draw_orders(z, rows, 600, list(ANOMALIES), seed=1)
    assert orders == draw_orders(z, rows, 600, list(ANOMALIES), seed=1)
    assert orders != draw_orders(z, rows, 600, list(ANOMALIES), seed=2)
    assert [order.number for order in orders] == list(range(1, 601))
    anomalies = [order for order in orders if not order.is_artefact]
    assert len(orders) - len(anomalies) == 120
    for order in anomalies:
        assert ANOMALIES[order.name].z_min <= z[order.base] <= ANOMALIES[order.name].z_max
        assert order.base >= 50
        if order.partner is not None:
            assert abs(z[order.partner] - z[order.base]) > 0.05
    counts = np.unique([order.name for order in anomalies], return_counts=True)[1]
    assert counts.max() - counts.min() <= 1
    for name in ANOMALIES:
        assert {order.strength for order in anomalies if order.name == name} == set(LEVELS)


def test_classes_that_no_redshift_shows_are_left_out() -> None:
    z = np.full(60, 0.5)
    names = {order.name for order in draw_orders(z, np.arange(60), 200, list(ANOMALIES), 0) if not order.is_artefact}
    assert "hibal" not in names
    assert "narrow_line" in names
