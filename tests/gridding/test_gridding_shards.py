"""Shards and splits: fixed, even, by target."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qad.gridding.shards import TEST, TRAIN, VALIDATION, hash64, shard_of, split_of

TARGETS = 39627700000000000 + np.arange(200_000)
int64 = st.integers(-(2**63), 2**63 - 1)


def test_hash_is_splitmix64() -> None:
    # the first outputs of the reference generator from seed 0 (Vigna, splitmix64.c): its state is a multiple of the step
    states = (np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).view(np.int64)
    assert [hex(value) for value in hash64(states)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_a_target_stays_in_its_shard_and_split_for_ever() -> None:
    targets = np.array([39627700000000001, 39628473198710603, -112, 0, 616088561849565184])
    assert shard_of(targets, 128).tolist() == [126, 114, 55, 47, 41]
    assert split_of(targets, 0.3, 0.3).tolist() == [2, 2, 0, 0, 1]


def test_shards_are_even() -> None:
    counts = np.bincount(shard_of(TARGETS, 128), minlength=128)
    expected = len(TARGETS) / 128
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert 75 < chi2 < 190  # 127 degrees of freedom, sigma 16


def test_splits_have_their_shares_and_do_not_follow_shards() -> None:
    split = split_of(TARGETS, 0.05, 0.1)
    assert abs((split == VALIDATION).mean() - 0.05) < 0.002
    assert abs((split == TEST).mean() - 0.1) < 0.003
    shares = [(split[shard_of(TARGETS, 16) == shard] == TRAIN).mean() for shard in range(16)]
    assert max(shares) - min(shares) < 0.03


@given(st.lists(int64, min_size=1, max_size=50), st.integers(1, 4096))
def test_every_int64_has_a_shard(targets: list[int], n_shards: int) -> None:
    array = np.array(targets, np.int64)
    shards = shard_of(array, n_shards)
    assert ((shards >= 0) & (shards < n_shards)).all()
    np.testing.assert_array_equal(shards[::-1], shard_of(array[::-1], n_shards))


def test_larger_test_share_keeps_the_test_set() -> None:
    small, large = split_of(TARGETS, 0.05, 0.05), split_of(TARGETS, 0.05, 0.2)
    assert (large[small == TEST] == TEST).all()
    assert (split_of(TARGETS, 0.0, 0.0) == TRAIN).all()
