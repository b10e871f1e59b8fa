"""The bits of DESI's masks, by name.

Sources: ``redrock.zwarning`` (ZWARN), ``desispec.maskbits`` (SPECMASK and FIBERSTATUS), and the data model's page of bit
masks.
"""

from __future__ import annotations

from collections.abc import Mapping

ZWARN_BITS: Mapping[str, int] = {
    "SKY": 0,
    "LITTLE_COVERAGE": 1,
    "SMALL_DELTA_CHI2": 2,
    "NEGATIVE_MODEL": 3,
    "MANY_OUTLIERS": 4,
    "Z_FITLIMIT": 5,
    "NEGATIVE_EMISSION": 6,
    "UNPLUGGED": 7,
    "BAD_TARGET": 8,
    "NODATA": 9,
    "BAD_MINFIT": 10,
    "POORDATA": 11,
    "LOW_DEL_CHI2": 16,
    "LOW_DEL_CHI2_BGS": 17,
    "BAD_SPECQA": 18,
    "BAD_PETALQA": 19,
}
"""Redrock's warnings; 0 is a good fit."""

SPECMASK_BITS: Mapping[str, int] = {
    "SOMEBADPIX": 0,
    "ALLBADPIX": 1,
    "COSMIC": 2,
    "LOWFLAT": 3,
    "BADFIBERFLAT": 4,
    "BRIGHTSKY": 5,
    "BADSKY": 6,
    "BAD2DFIT": 7,
    "NODATA": 8,
    "BADFIBER": 9,
    "BADCOLUMN": 10,
    "SATURATED": 11,
    "CONTAMINATED": 12,
}
"""Bits of {B,R,Z}_MASK; every one of them is bad."""

FIBERSTATUS_BITS: Mapping[str, int] = {
    "UNASSIGNED": 0,
    "STUCKPOSITIONER": 1,
    "BROKENFIBER": 2,
    "RESTRICTED": 3,
    "MISSINGPOSITION": 8,
    "BADPOSITION": 9,
    "POORPOSITION": 10,
    "LOWTRANSMISSION": 12,
    "NEARCHARGETRAP": 13,
    "VARIABLETHRU": 14,
    "LOWEFFTIME": 15,
    "BADFIBER": 16,
    "BADTRACE": 17,
    "BADFLAT": 18,
    "BADARC": 19,
    "MANYBADCOL": 20,
    "MANYREJECTED": 21,
    "BADAMPB": 22,
    "BADAMPR": 23,
    "BADAMPZ": 24,
    "BADPETALPOS": 25,
    "BADPETALSKY": 26,
    "BADPETALSTDSTAR": 27,
    "BADPETALFLUXCAL": 28,
    "BADPETALSNR": 29,
    "BADREADNOISE": 30,
}
"""Bits of FIBERSTATUS and COADD_FIBERSTATUS; RESTRICTED is harmless."""


def bit_names(value: int, bits: Mapping[str, int]) -> list[str]:
    """Return the names of the bits that are set in `value`, from the lowest; an unknown one as ``bit n``."""
    known = {number: name for name, number in bits.items()}
    unsigned = int(value) & (2**64 - 1)
    return [known.get(number, f"bit {number}") for number in range(64) if unsigned >> number & 1]
