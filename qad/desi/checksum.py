"""The checksums of FITS: the ones-complement sums of DATASUM and CHECKSUM (FITS standard 4.0, appendix J)."""

from __future__ import annotations

from typing import Any

import numpy as np

MODULUS = 2**32 - 1
"""Ones-complement addition of 32-bit words is addition modulo this number."""
_CHUNK = 1 << 20


class DataSum:
    """A DATASUM in the making: give it the bytes in order, in pieces of whole 32-bit words."""

    def __init__(self) -> None:
        self._total = 0

    def add(self, data: Any) -> None:
        """Add a buffer whose length is a multiple of four bytes."""
        words = np.frombuffer(data, ">u4")
        # a sum of 2^20 words fits 64 bits, and a piece of this size stays in the processor's cache
        for start in range(0, len(words), _CHUNK):
            self._total += int(words[start : start + _CHUNK].sum(dtype=np.uint64))

    @property
    def value(self) -> int:
        """The sum so far, below 2^32 - 1: the two zeros of ones-complement are one."""
        return self._total % MODULUS


def data_sum(data: Any) -> int:
    """Return the DATASUM of a buffer whose length is a multiple of four bytes, modulo 2^32 - 1."""
    total = DataSum()
    total.add(data)
    return total.value
