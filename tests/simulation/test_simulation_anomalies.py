"""Each class of anomaly and artefact changes what it says, and nothing is marked in the data."""

from __future__ import annotations

import numpy as np
import pytest

from qad.simulation import artefacts, sky
from qad.simulation.anomalies import ANOMALIES, draw_anomaly, incident
from qad.simulation.instrument import Spectrum, observe
from qad.simulation.profiles import shifted
from qad.simulation.quasars import Quasar, draw_quasar
from qad.simulation.sky import WAVE

SEED = 17


def pair(name: str, strength: float, z: float, seed: int = SEED) -> tuple[np.ndarray, np.ndarray, Quasar]:
    """Return rest wavelengths, and the light with an anomaly over the light without; the quasar is otherwise the same."""
    normal, odd = (draw_quasar(np.random.default_rng(seed), z) for _ in range(2))
    normal.absorbers.forest = odd.absorbers.forest = False
    ANOMALIES[name].plant(odd, strength, np.random.default_rng(seed + 1))
    fluxes = [incident(quasar, WAVE, np.random.default_rng(seed + 2)) for quasar in (odd, normal)]
    return WAVE / (1 + z), fluxes[0] / fluxes[1], odd


def mean(wave: np.ndarray, ratio: np.ndarray, low: float, high: float) -> float:
    """Return the mean of a ratio between two wavelengths."""
    return float(ratio[(wave > low) & (wave < high)].mean())


@pytest.mark.parametrize("name", list(ANOMALIES))
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_every_class_is_finite_and_in_its_window(name: str, strength: float) -> None:
    for seed in range(4):
        rng = np.random.default_rng([seed, 5])
        quasar = draw_anomaly(rng, name, strength)
        z = quasar.z_claimed if name == "star" else quasar.z
        assert z is not None
        assert ANOMALIES[name].z_min <= z <= ANOMALIES[name].z_max
        flux = incident(quasar, WAVE, rng)
        assert np.isfinite(flux).all()
        assert flux.min() >= 0
        assert flux.mean() > 0


@pytest.mark.parametrize("name", sorted(set(ANOMALIES) - {"star", "wrong_redshift"}))
def test_strong_ones_depart_more_than_mild_ones(name: str) -> None:
    z = 2.2 if ANOMALIES[name].z_max > 2.2 else 0.9 if ANOMALIES[name].z_max < 1 else 2.0
    departures = []
    for strength in (0.05, 0.95):
        found = []
        for seed in range(6):
            wave, ratio, _ = pair(name, strength, z, seed)
            use = wave > 1230
            found.append(np.std(np.log(np.maximum(ratio[use] / np.median(ratio[use]), 1e-3))))
        departures.append(np.mean(found))
    assert departures[1] > departures[0]
    assert departures[1] > 0.02


def test_hibal_absorbs_blueward_of_carbon_and_silicon_only() -> None:
    wave, ratio, quasar = pair("hibal", 0.9, 2.4)
    trough = quasar.absorbers.troughs[0]
    for line in (1549.0, 1397.0):
        middle = shifted(line, 0.5 * (trough.low + trough.high))
        assert mean(wave, ratio, middle - 5, middle + 5) < 0.75
    assert mean(wave, ratio, 1700, 1850) > 0.75  # dust takes a little, no trough


def test_lobal_absorbs_magnesium_and_felobal_iron_too() -> None:
    for name, lines in (("lobal", (2798.0,)), ("felobal", (2798.0, 2600.0, 2382.8))):
        wave, ratio, quasar = pair(name, 0.9, 1.4)
        for line in lines:
            trough = min(
                (t for t in quasar.absorbers.troughs for x, _ in t.lines if abs(x - line) < 3), key=lambda t: t.low
            )
            middle = shifted(line, 0.5 * (trough.low + trough.high))
            side = mean(wave, ratio, 3000, 3100)
            assert mean(wave, ratio, middle - 4, middle + 4) < 0.75 * side


def test_redshifted_bal_absorbs_redward() -> None:
    wave, ratio, _ = pair("redshifted_bal", 0.9, 2.2)
    assert mean(wave, ratio, shifted(1549, 3000), shifted(1549, 4000)) < 0.75
    assert mean(wave, ratio, shifted(1549, -6000), shifted(1549, -3000)) > 0.95


def test_fast_outflow_absorbs_beyond_the_bal_window() -> None:
    wave, ratio, quasar = pair("fast_outflow", 0.9, 2.6)
    trough = quasar.absorbers.troughs[0]
    assert trough.high <= -30_000
    assert trough.low >= -60_000
    assert mean(wave, ratio, shifted(1549, trough.low * 0.8 + trough.high * 0.2), shifted(1549, trough.high)) < 0.9
    assert mean(wave, ratio, 1450, 1700) == pytest.approx(1.0, abs=0.01)


def test_weak_line_quasars_lack_carbon_but_keep_magnesium() -> None:
    _, _, quasar = pair("weak_line", 0.5, 2.2)
    normal = draw_quasar(np.random.default_rng(SEED), 2.2)
    assert quasar.lines["C IV"].ew < 10
    assert quasar.lines["Lya"].ew + quasar.lines["N V"].ew < 15.4
    assert quasar.lines["Mg II"].ew == normal.lines["Mg II"].ew
    assert quasar.lines["C IV"].shape[0][1] < normal.lines["C IV"].shape[0][1] - 1000


def test_featureless_has_no_line_of_five_angstrom_near_carbon_and_magnesium() -> None:
    _, _, quasar = pair("featureless", 0.9, 2.0)
    assert max(line.ew for line in quasar.lines.values() if line.wave < 4000) < 5


def test_reddened_is_redder_by_the_dust() -> None:
    wave, ratio, quasar = pair("reddened", 0.5, 1.2)
    assert quasar.ebv > 0.25
    assert mean(wave, ratio, 2000, 2200) < 0.6 * mean(wave, ratio, 3500, 3700)


def test_extremely_red_has_boxy_carbon_of_a_hundred_angstrom() -> None:
    _, _, quasar = pair("extremely_red", 0.5, 2.5)
    assert quasar.lines["C IV"].ew > 100
    assert quasar.lines["N V"].ew > quasar.lines["Lya"].ew
    places = [shift for _, shift, _ in quasar.lines["C IV"].shape]
    assert len(places) == 5


def test_double_peaked_has_two_humps() -> None:
    quasar = draw_quasar(np.random.default_rng(SEED), 0.2)
    quasar.host = 0.0
    ANOMALIES["double_peaked"].plant(quasar, 0.9, np.random.default_rng(1))
    flux = incident(quasar, WAVE, np.random.default_rng(2))
    wave = WAVE / 1.2
    humps = [shifted(6564.6, v) for v in (-5950.0, 6840.0)]
    core = mean(wave, flux, 6600, 6640)
    assert all(mean(wave, flux, hump - 15, hump + 15) > 1.05 * core for hump in humps)


def test_strong_iron_exceeds_twice_h_beta_and_oxygen_is_weak() -> None:
    _, _, quasar = pair("strong_feii", 0.5, 0.6)
    assert quasar.iron_optical > 2 * quasar.lines["Hbeta"].ew
    assert quasar.iron_uv > 2 * 45


def test_nitrogen_rich_quasars_have_strong_nitrogen_and_weak_carbon() -> None:
    wave, ratio, quasar = pair("n_rich", 0.9, 2.4)
    assert quasar.lines["N III]"].ew > 5
    assert mean(wave, ratio, 1745, 1755) > 1.05
    assert mean(wave, ratio, 1543, 1553) < 0.95


def test_silicon_strong_rivals_carbon() -> None:
    _, _, quasar = pair("si_iv_strong", 0.8, 2.4)
    assert quasar.lines["Si IV"].ew + quasar.lines["O IV]"].ew > 0.8 * quasar.lines["C IV"].ew


def test_narrow_line_objects_are_galaxies_with_strong_oxygen() -> None:
    quasar = draw_quasar(np.random.default_rng(SEED), 0.5)
    ANOMALIES["narrow_line"].plant(quasar, 0.9, np.random.default_rng(1))
    flux = incident(quasar, WAVE, np.random.default_rng(2))
    wave = WAVE / 1.5
    near = (wave > 4985) & (wave < 5030)
    level = np.median(flux[(wave > 5050) & (wave < 5150)])
    assert np.trapezoid(flux[near] / level - 1, wave[near]) > 100
    assert max(quasar.lines[name].ew for name in ("Hbeta", "Mg II", "Halpha")) < 5


def test_proximate_dla_blackens_lyman_alpha() -> None:
    wave, ratio, quasar = pair("proximate_dla", 0.5, 2.5)
    z_gas, log_n = quasar.absorbers.hydrogen[-1]
    assert log_n == pytest.approx(21.15)
    centre = 1215.67 * (1 + z_gas) / 3.5
    assert mean(wave, ratio, centre - 5, centre + 5) < 0.02


def test_blends_add_the_light_of_the_second_object() -> None:
    for name in ("blend_quasar", "blend_galaxy"):
        _, ratio, quasar = pair(name, 1.0, 1.8)
        assert quasar.companion_ratio == 1.0
        assert ratio.mean() == pytest.approx(2.0, rel=0.35)
        assert ratio.min() > 1.0


def test_stars_and_wrong_redshifts_are_called_what_they_are_not() -> None:
    rng = np.random.default_rng(3)
    star = draw_anomaly(rng, "star", 0.5)
    assert star.z == 0.0
    assert (star.z_claimed or 0.0) > 0.2
    for strength in (0.1, 0.5, 1.0):
        wrong = draw_anomaly(rng, "wrong_redshift", strength)
        assert abs((wrong.z_claimed or wrong.z) - wrong.z) > 0.005


@pytest.fixture
def bright() -> tuple[Spectrum, Spectrum]:
    """The same observation of a quasar twice: one to spoil, one to compare with."""
    flux = np.full(WAVE.size, 2.0)
    first, second = (observe(flux, np.random.default_rng(9), 1.0) for _ in range(2))
    return first, second


_PLACES = {
    "sky_spike": ("z", 7700, 9824),
    "false_absorption": ("z", 8500, 8700),
    "spurious_emission": ("z", 7800, 8200),
    "collimator_dip": ("b", 4100, 4700),
}


@pytest.mark.parametrize("name", list(artefacts.ARTEFACTS))
def test_artefacts_change_flux_where_they_belong_and_mask_nothing(name: str, bright: tuple[Spectrum, Spectrum]) -> None:
    spoiled, clean = bright
    artefacts.ARTEFACTS[name](spoiled, 0.8, np.random.default_rng(2))
    changed = {camera: (np.abs(spoiled.flux[camera] - clean.flux[camera]) > 0.01) for camera in sky.CAMERAS}
    assert any(part.any() for part in changed.values())
    for camera in sky.CAMERAS:
        assert np.array_equal(spoiled.mask[camera], clean.mask[camera])
        assert np.array_equal(spoiled.ivar[camera] > 0, clean.ivar[camera] > 0)
    if name in _PLACES:
        camera, low, high = _PLACES[name]
        wave = sky.camera_wave(camera)
        assert not changed[camera][(wave < low) | (wave > high)].any()
        assert not any(changed[other].any() for other in sky.CAMERAS if other != camera)


def test_false_absorption_takes_most_of_the_light(bright: tuple[Spectrum, Spectrum]) -> None:
    spoiled, clean = bright
    artefacts.false_absorption(spoiled, 0.8, np.random.default_rng(2))
    wave = sky.camera_wave("z")
    core = (wave > 8590) & (wave < 8610)
    assert spoiled.flux["z"][core].mean() < 0.4 * clean.flux["z"][core].mean()
