"""Writing FITS headers: cards, whole blocks, and the checksums that tell of the data below them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qad.desi.checksum import MODULUS, data_sum
from qad.desi.header import BLOCK, CARD

Cards = Mapping[str, Any]
_END = b"END".ljust(CARD)
_NO_CHECKSUM = "0" * 16
_UNPRINTABLE = re.compile(r"[^ -~]")
HISTORY_CHARACTERS = CARD - 8
"""What a HISTORY card holds beside its keyword."""


def card(key: str, value: Any) -> bytes:
    """Return one card.

    Raises
    ------
    ValueError
        If the value does not fit.
    """
    if isinstance(value, bool):
        shown = ("T" if value else "F").rjust(20)
    elif isinstance(value, int | float):
        shown = f"{value!r}".rjust(20)
    else:
        shown = "'" + str(value).replace("'", "''").ljust(8) + "'"
    text = f"{key:<8}= {shown}".ljust(CARD)
    if len(text) > CARD:
        raise ValueError(f"the card {key} is longer than {CARD} characters")
    return text.encode("ascii")


def padded(header: bytes) -> bytes:
    """Return a header filled up with blanks to whole blocks."""
    return header.ljust(-(-len(header) // BLOCK) * BLOCK)


def header_block(cards: Cards) -> bytes:
    """Return a header of these cards, in their order."""
    return padded(b"".join(card(key, value) for key, value in cards.items()) + _END)


def edited(raw: bytes, changes: Cards, history: Sequence[str] = ()) -> bytes:
    """Return a header with other values, every other card as it stands.

    Parameters
    ----------
    raw : bytes
        A header as it was read, whole blocks.
    changes : mapping
        New values by keyword; a keyword that the header lacks is added at its end.
    history : sequence of str
        HISTORY cards to add at the end, each cut at 72 characters; what is not printable ASCII becomes a question mark.
    """
    kept, waiting = [], {key.ljust(8).encode(): card(key, value) for key, value in changes.items()}
    for start in range(0, len(raw), CARD):
        old = raw[start : start + CARD]
        if old == _END:
            break
        kept.append(waiting.pop(old[:8], old) if old[8:10] == b"= " else old)
    while kept and not kept[-1].strip():  # blank cards before END give way
        kept.pop()
    told = [f"HISTORY {_UNPRINTABLE.sub('?', line[:HISTORY_CHARACTERS])}".ljust(CARD).encode() for line in history]
    return padded(b"".join([*kept, *waiting.values(), *told, _END]))


def sealed(raw: bytes, datasum: int) -> bytes:
    """Return a header with the CHECKSUM and DATASUM of itself and data that add up to `datasum`."""
    header = edited(raw, {"CHECKSUM": _NO_CHECKSUM, "DATASUM": str(datasum)})
    total = (data_sum(header) + datasum) % MODULUS
    return edited(header, {"CHECKSUM": encode_checksum(MODULUS - total)})


def encode_checksum(value: int) -> str:
    """Return a 32-bit sum as the 16 characters of a CHECKSUM card (FITS standard 4.0, appendix J.2)."""
    excluded = {*range(0x3A, 0x41), *range(0x5B, 0x61)}
    text = bytearray(16)
    for i in range(4):
        byte = value >> (24 - 8 * i) & 0xFF
        quotient, remainder = divmod(byte, 4)
        chars = [quotient + 0x30 + (remainder if j == 0 else 0) for j in range(4)]
        while any(char in excluded for char in chars):
            for j in (0, 2):
                if chars[j] in excluded or chars[j + 1] in excluded:
                    chars[j] += 1
                    chars[j + 1] -= 1
        for j, char in enumerate(chars):
            text[4 * j + i] = char
    return (text[-1:] + text[:-1]).decode("ascii")
