"""Shapes of known objects and faults: found where they are planted, with the right name, and not taken for each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qad.scoring import artefacts
from qad.scoring.evidence import TESTS, find_faults
from qad.scoring.linelaw import fit_line_law
from qad.scoring.matched import amplitudes
from qad.scoring.matcher import Matcher, Projector, fit_shape_spread
from qad.scoring.residuals import Batch
from qad.scoring.shapes import FAMILIES, bank
from qad.scoring.views import Measured, measure

C = 299_792.458


@pytest.fixture(scope="module")
def matcher(population, geometry) -> Matcher:
    projector = Projector.of(geometry, np.zeros((1, 0), np.float32))
    batch = population.batch.without(find_faults(population.batch, geometry)[0])
    objects, faults = projector.amplitudes(batch)
    return Matcher(projector, fit_shape_spread([objects], [faults], population.z))


@pytest.fixture(scope="module")
def measured_by(population, geometry, matcher) -> Callable[..., Measured]:
    scatters = population.scatters()

    def of(toy, rows: np.ndarray) -> Measured:
        b = toy.batch
        part = Batch(*(a[rows] for a in (b.flux, b.ivar, b.recon, b.intrinsic_var, b.rest_start, b.first_observed)))
        more = {name: getattr(toy, name)[rows] for name in ("z", "snr", "norm", "latent")}
        return measure(part, geometry, scatters, **more, matcher=matcher)

    return of


def _trough(velocity: float, *lines: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def change(wave: np.ndarray, flux: np.ndarray) -> np.ndarray:
        inside = np.zeros(wave.shape, bool)
        for line in lines:
            inside |= np.abs((wave / line - 1) * C - velocity) < 1500
        return flux * (1 - 0.5 * inside)

    return change


@pytest.mark.parametrize(
    ("family", "velocity", "lines", "z"),
    [
        ("bal", -9000.0, (1549.06, 1398.0, 1240.8), (1.7, 3.2)),
        ("redshifted_bal", 3500.0, (1549.06, 1398.0, 1240.8), (1.7, 3.2)),
        ("fast_outflow", -40_000.0, (1549.06,), (2.1, 3.2)),
        ("lobal", -5000.0, (2799.0, 1858.0), (1.0, 2.3)),
    ],
)
def test_a_planted_trough_shows_in_its_family_at_its_velocity(
    toy_of, measured_by, geometry, family, velocity, lines, z
) -> None:
    toy = toy_of(300, seed=41, change=_trough(velocity, *lines))
    rows = np.flatnonzero((toy.z > z[0]) & (toy.z < z[1]) & (toy.snr > 2))
    found = measured_by(toy, rows)
    own = FAMILIES.index(family)
    assert np.median(found.family[:, own]) > 8
    shapes = bank(geometry)
    near = np.abs(shapes.velocity[found.family_best[:, own]] - velocity) < 1600
    assert near.mean() > 0.8


def test_a_family_whose_lines_lie_outside_the_window_is_not_seen(population, measured_by) -> None:
    found = measured_by(population, np.arange(200))
    low = population.z[:200] < 0.8
    assert np.isnan(found.family[low, FAMILIES.index("damped_lya")]).all()
    assert (found.family_best[low, FAMILIES.index("damped_lya")] == -1).all()


def test_what_the_factors_can_draw_is_no_evidence(population, geometry) -> None:
    shapes = bank(geometry)
    batch = population.batch
    index = int(np.flatnonzero(shapes.family == FAMILIES.index("lobal"))[4])
    loading = shapes.values[:, [index]].astype(np.float32)
    free = amplitudes(batch, shapes, np.zeros((shapes.n_bins, 0), np.float32))
    bound = amplitudes(batch, shapes, 10 * loading)
    seen = np.isfinite(free.variance[:, index])
    assert np.median(bound.variance[seen, index] / free.variance[seen, index]) > 10


@pytest.mark.parametrize("fault", ["camera", "amplifier"])
def test_steps_of_the_instrument_are_called_artefacts(toy_of, measured_by, fault: str) -> None:
    toy = toy_of(200, seed=42)
    observed = toy.wave * (1 + toy.z[:, None])
    inside = (observed > 5780) & (observed < 7570) if fault == "camera" else (observed > 6700) & (observed < 7570)
    level = np.median(toy.batch.recon, axis=1, keepdims=True)
    step = 0.6 * toy.batch.recon if fault == "camera" else 0.5 * level
    flux = np.where(toy.batch.ivar > 0, toy.batch.flux + step * inside, 0).astype(np.float32)
    object.__setattr__(toy.batch, "flux", flux)
    found = measured_by(toy, np.flatnonzero(toy.snr > 2))
    assert np.mean(artefacts.probability(found.evidence) >= 0.5) > 0.6


def test_troughs_are_not_called_steps(toy_of, measured_by) -> None:
    toy = toy_of(300, seed=43, change=_trough(-9000.0, 1549.06, 1398.0, 1240.8))
    found = measured_by(toy, np.flatnonzero((toy.z > 1.7) & (toy.snr > 2)))
    assert np.mean(found.evidence[:, TESTS.index("step")] >= 1.0) < 0.05


def test_lines_that_fall_together_are_less_strange_than_one_against_the_others() -> None:
    rng = np.random.default_rng(0)
    common = rng.standard_normal((4000, 1))
    law = fit_line_law(0.9 * common + 0.45 * rng.standard_normal((4000, 3)))
    together, against = np.array([[2.0, 2.0, 2.0]]), np.array([[2.0, 2.0, -2.0]])
    nothing = np.zeros((0, 3))
    assert law.views(law.judged(against), nothing)[0][0] > 3 * law.views(law.judged(together), nothing)[0][0]


def test_a_direction_sees_what_is_weak_everywhere() -> None:
    rng = np.random.default_rng(1)
    law = fit_line_law(rng.standard_normal((4000, 5)))
    weak = np.full((1, 5), -1.8)
    distance, along = law.views(law.judged(weak), -np.ones((1, 5)))
    assert along[0, 0] > 3.5
    assert distance[0] < along[0, 0]
