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

FIBERSTATUS_BITS = {
    0: "UNASSIGNED",
    1: "STUCKPOSITIONER",
    2: "BROKENFIBER",
    3: "RESTRICTED",
    8: "MISSINGPOSITION",
    9: "BADPOSITION",
    10: "POORPOSITION",
    12: "LOWTRANSMISSION",
    13: "NEARCHARGETRAP",
    14: "VARIABLETHRU",
    15: "LOWEFFTIME",
    16: "BADFIBER",
    17: "BADTRACE",
    18: "BADFLAT",
    19: "BADARC",
    20: "MANYBADCOL",
    21: "MANYREJECTED",
    22: "BADAMPB",
    23: "BADAMPR",
    24: "BADAMPZ",
    25: "BADPETALPOS",
    26: "BADPETALSKY",
    27: "BADPETALSTDSTAR",
    28: "BADPETALFLUXCAL",
    29: "BADPETALSNR",
    30: "BADREADNOISE",
}
"""COADD_FIBERSTATUS (desispec ``data/maskbits.yaml``, fibermask)."""

SCORE_FLAGS = {
    0: "few_pixels",
    1: "redshift_edge",
    2: "snr_edge",
    3: "small_population",
    4: "artefact",
    5: "spike",
    6: "camera_missing",
    7: "foreign_calibration",
    8: "extrapolated",
}
"""``flags`` of the scores, as :mod:`qad.scoring.rank` sets them; a test compares the two."""


def bit_names(value: int, names: Mapping[int, str]) -> list[str]:
    """Return the names of the set bits of a non-negative mask, ``bit 5`` where a bit has none."""
    return [names.get(bit, f"bit {bit}") for bit in range(value.bit_length()) if value >> bit & 1]
