"""Bit names."""

from __future__ import annotations

from qad.desi.masks import FIBERSTATUS_BITS, SPECMASK_BITS, ZWARN_BITS, bit_names


def test_bits_are_named_from_the_lowest() -> None:
    assert bit_names(0, ZWARN_BITS) == []
    assert bit_names(513, ZWARN_BITS) == ["SKY", "NODATA"]
    assert bit_names(8, FIBERSTATUS_BITS) == ["RESTRICTED"]
    assert bit_names(1 << 22 | 1 << 31, FIBERSTATUS_BITS) == ["BADAMPB", "bit 31"]


def test_a_negative_value_is_read_as_bits() -> None:
    assert bit_names(-1, SPECMASK_BITS)[0] == "SOMEBADPIX"
    assert len(bit_names(-1, SPECMASK_BITS)) == 64


def test_no_bit_has_two_names() -> None:
    for bits in (ZWARN_BITS, SPECMASK_BITS, FIBERSTATUS_BITS):
        assert len(set(bits.values())) == len(bits)
