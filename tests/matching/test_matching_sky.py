"""All pairs within a radius are those of astropy, wherever on the sphere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qad.matching.sky import SkyIndex, normal_ra, separation_arcsec

RADIUS = 1.5


def pairs_of(left: tuple, right: tuple, radius: float, block: int = 1 << 17) -> dict[tuple[int, int], float]:
    """Return separation by pair of rows, the second list streamed in blocks."""
    index = SkyIndex(np.asarray(left[0], float), np.asarray(left[1], float), radius)
    ra, dec = normal_ra(np.asarray(right[0], float)), np.asarray(right[1], float)
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(ra), block):
        for pairs in index.pairs(ra[start : start + block], dec[start : start + block]):
            keys = list(zip(pairs.left.tolist(), (pairs.right + start).tolist(), strict=True))
            assert not found.keys() & set(keys)
            found.update(zip(keys, pairs.sep_arcsec.tolist(), strict=True))
    return found


def astropy_pairs(left: tuple, right: tuple, radius: float) -> dict[tuple[int, int], float]:
    """Return the same from `SkyCoord.search_around_sky`."""
    import astropy.units as u
    from astropy.coordinates import SkyCoord

    first, second = SkyCoord(*left, unit="deg"), SkyCoord(*right, unit="deg")
    i, j, sep, _ = second.search_around_sky(first, radius * u.arcsec)
    return dict(zip(zip(i.tolist(), j.tolist(), strict=True), sep.arcsec.tolist(), strict=True))


def assert_same_pairs(left: tuple, right: tuple, radius: float, block: int = 1 << 17) -> int:
    found, expected = pairs_of(left, right, radius, block), astropy_pairs(left, right, radius)
    for key in found.keys() ^ expected.keys():  # only rounding at the very edge may differ
        sep = found.get(key, expected.get(key))
        assert abs(sep - radius) < 1e-7, f"pair {key} at {sep} arcsec"
    for key in found.keys() & expected.keys():
        assert abs(found[key] - expected[key]) < 1e-6
    return len(expected)


def random_sky(rng, n):
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


def around(rng, ra, dec, sigma_arcsec):
    theta, phi = np.radians(dec), np.radians(ra)
    unit = np.stack([np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), np.sin(theta)], 1)
    unit += rng.normal(0, np.radians(sigma_arcsec / 3600), unit.shape)
    x, y, z = unit.T
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))


def test_pairs_on_the_whole_sky_equal_skycoord():
    rng = np.random.default_rng(0)
    left = random_sky(rng, 3000)
    near = around(rng, *(np.repeat(x, 3) for x in left), 1.2)
    far = random_sky(rng, 30_000)
    right = tuple(np.concatenate(x) for x in zip(near, far, strict=True))
    assert assert_same_pairs(left, right, RADIUS, block=1000) > 1000


def test_pairs_in_clusters_equal_skycoord():
    rng = np.random.default_rng(1)
    centres = random_sky(rng, 12)
    left = around(rng, *(np.repeat(x, 100) for x in centres), 5.0)
    right = around(rng, *(np.repeat(x, 300) for x in centres), 5.0)
    assert assert_same_pairs(left, right, RADIUS) > 1000


@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_pairs_at_the_poles_equal_skycoord(pole):
    rng = np.random.default_rng(2)
    left = around(rng, np.zeros(200), np.full(200, pole), 3.0)
    right = around(rng, np.zeros(400), np.full(400, pole), 3.0)
    left = np.append(left[0], [0.0, 123.0]), np.append(left[1], [pole, pole])
    assert assert_same_pairs(left, right, RADIUS) > 1000


def test_pairs_across_ra_zero_equal_skycoord():
    rng = np.random.default_rng(3)
    dec = rng.uniform(-89, 89, 300)
    left = around(rng, np.zeros(300), dec, 1.0)
    right = around(rng, np.zeros(300), dec, 1.0)
    assert assert_same_pairs(left, right, RADIUS) > 100


@pytest.mark.parametrize("radius", [0.01, 30.0, 3600.0])
def test_pairs_at_small_and_large_radii_equal_skycoord(radius):
    rng = np.random.default_rng(4)
    left = random_sky(rng, 500)
    right = around(rng, *(np.repeat(x, 4) for x in left), radius)
    assert assert_same_pairs(left, right, radius) > 200


DEC = st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 90.0, 89.9997, -89.9997, 0.0]), st.floats(89.99, 90))
RA = st.one_of(st.floats(0, 360, exclude_max=True), st.sampled_from([0.0, 359.99999, 1e-9, 180.0]))


@settings(deadline=None, max_examples=300)
@given(
    centres=st.lists(st.tuples(RA, DEC), min_size=1, max_size=12),
    radius=st.sampled_from([0.5, 1.5, 60.0, 3600.0]),
    seed=st.integers(0, 2**32 - 1),
)
@example(centres=[(0.0, 90.0), (359.9999999, 0.0)], radius=1.5, seed=0)
def test_pairs_equal_skycoord_anywhere(centres, radius, seed):
    rng = np.random.default_rng(seed)
    ra, dec = (np.array(x, float) for x in zip(*centres, strict=True))
    right = around(rng, np.repeat(ra, 3), np.repeat(dec, 3), radius)
    assert_same_pairs((ra, dec), right, radius)


def test_order_of_rows_and_size_of_blocks_do_not_matter():
    rng = np.random.default_rng(6)
    left = random_sky(rng, 200)
    right = around(rng, *(np.repeat(x, 2) for x in left), 1.0)
    order = rng.permutation(400)
    base = pairs_of(left, right, RADIUS)
    shuffled = pairs_of(left, (right[0][order], right[1][order]), RADIUS, block=7)
    assert {(i, int(order[j])): sep for (i, j), sep in shuffled.items()} == base


def test_positions_without_a_place_on_the_sphere_have_no_partner():
    left = np.array([10.0, np.nan, 10.0, np.inf]), np.array([5.0, 5.0, 95.0, 5.0])
    assert pairs_of(left, (np.array([10.0]), np.array([5.0])), RADIUS) == {(0, 0): 0.0}
    assert pairs_of((np.empty(0), np.empty(0)), (np.array([10.0]), np.array([5.0])), RADIUS) == {}


def test_right_ascension_is_periodic():
    assert pairs_of(([-0.0001], [0.0]), ([359.9999], [0.0]), RADIUS) == {(0, 0): pytest.approx(0, abs=1e-6)}
    assert normal_ra(np.array([-1e-20, 360.0, -180.0])).tolist() == [0.0, 0.0, 180.0]


@settings(deadline=None)
@given(RA, DEC, RA, DEC)
def test_separation_equals_skycoord(ra1, dec1, ra2, dec2):
    from astropy.coordinates import SkyCoord

    expected = SkyCoord(ra1, dec1, unit="deg").separation(SkyCoord(ra2, dec2, unit="deg")).arcsec
    assert abs(float(separation_arcsec(ra1, dec1, ra2, dec2)) - expected) < (1e-6 if expected < 3600 * 170 else 1e-2)
