"""Names of the bits of DESI's masks, for people to read."""

from __future__ import annotations

from collections.abc import Mapping

ZWARN_BITS = {
    0: "SKY",
    1: "LITTLE_COVERAGE",
    2: "SMALL_DELTA_CHI2",
    3: "NEGATIVE_MODEL",
    4: "MANY_OUTLIERS",
    5: "Z_FITLIMIT",
    6: "NEGATIVE_EMISSION",
    7: "UNPLUGGED",
    8: "BAD_TARGET",
    9: "NODATA",
    10: "BAD_MINFIT",
    11: "POORDATA",
    16: "LOW_DEL_CHI2",
    17: "LOW_DEL_CHI2_BGS",
    18: "BAD_SPECQA",
    19: "BAD_PETALQA",
}
"""ZWARN of redrock (DESI data model, redrock file)."""


def bit_names(value: int, names: Mapping[int, str]) -> list[str]:
    """Return the names of the set bits of a non-negative mask, ``bit 5`` where a bit has none."""
    return [names.get(bit, f"bit {bit}") for bit in range(value.bit_length()) if value >> bit & 1]
