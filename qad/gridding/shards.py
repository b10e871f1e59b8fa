"""Which shard and which split a target belongs to: fixed functions of its TARGETID, for ever.

Rows are never split at random: two spectra of one quasar on both sides of a split would let a model be tested on what
it was trained on.  The hash is the finaliser of SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195),
the same on every machine and in every version of this package.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = 0, 1, 2
_SPLIT_SALT = 0x5DEECE66D
"""Makes the split independent of the shard: any fixed number."""


def hash64(targetid: NDArray[np.int64], salt: int = 0) -> NDArray[np.uint64]:
    """Return a well-mixed 64-bit number per TARGETID, negative ones included."""
    x = targetid.astype(np.int64, copy=False).view(np.uint64) ^ np.uint64(salt)
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def shard_of(targetid: NDArray[np.int64], n_shards: int) -> NDArray[np.int64]:
    """Return the shard, from 0, of each target."""
    return (hash64(targetid) % np.uint64(n_shards)).astype(np.int64)


def split_of(targetid: NDArray[np.int64], validation_share: float, test_share: float) -> NDArray[np.uint8]:
    """Return ``TRAIN``, ``VALIDATION`` or ``TEST`` of each target.

    The test set is the lowest part of the hash's range and the validation set follows: a larger `test_share` keeps every
    target that was in the test set there.
    """
    uniform = (hash64(targetid, _SPLIT_SALT) >> np.uint64(11)) * 2.0**-53
    split = np.full(len(targetid), TRAIN, np.uint8)
    split[uniform < test_share + validation_share] = VALIDATION
    split[uniform < test_share] = TEST
    return split
