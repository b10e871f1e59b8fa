"""A FITS file as a list of HDUs whose cards and data can be changed in any way, allowed or not."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qad.desi.cards import card, padded, sealed
from qad.desi.checksum import data_sum

BLOCK, CARD = 2880, 80
END = b"END".ljust(CARD)
CHECKSUMS = ("CHECKSUM", "DATASUM")
_TYPES = {"L": "i1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}


@dataclass
class Part:
    """One HDU: its cards of 80 bytes, without END, and its data with their padding."""

    cards: list[bytes]
    data: bytes

    @property
    def name(self) -> str:
        """Its EXTNAME, or PRIMARY."""
        return self.text("EXTNAME") or "PRIMARY"

    @property
    def header(self) -> bytes:
        """Its cards, END, and blanks up to whole blocks."""
        return padded(b"".join(self.cards) + END)

    def place(self, key: str) -> int:
        """Return the number of a card, -1 where there is none."""
        start = key.ljust(8).encode() + b"= "
        return next((i for i, old in enumerate(self.cards) if old.startswith(start)), -1)

    def text(self, key: str) -> str:
        """Return a value as text, empty where there is none."""
        number = self.place(key)
        if number < 0:
            return ""
        value = self.cards[number][10:].decode("ascii", "replace")
        quoted = re.match(r" *'([^']*)'", value)
        return quoted[1].strip() if quoted else value.partition("/")[0].strip()

    def number(self, key: str) -> int:
        """Return a whole number, 0 where there is none."""
        return int(self.text(key) or 0)

    def put(self, key: str, value: object) -> None:
        """Set a value, in its place, or in a card before the last one; bytes stand as they are."""
        new = key.ljust(8).encode() + b"= " + value if isinstance(value, bytes) else card(key, value)
        number = self.place(key)
        if number < 0:
            self.cards.insert(max(len(self.cards) - 1, 0), new.ljust(CARD))
        else:
            self.cards[number] = new.ljust(CARD)

    def drop(self, *keys: str) -> None:
        """Take cards out."""
        starts = tuple(key.ljust(8).encode() for key in keys)
        self.cards = [old for old in self.cards if not old.startswith(starts)]

    def seal(self) -> None:
        """Make CHECKSUM and DATASUM right."""
        self.drop(*CHECKSUMS)
        raw = sealed(b"".join(self.cards) + END, data_sum(self.data))
        self.cards = [raw[i : i + CARD] for i in range(0, len(raw), CARD)]
        self.cards = self.cards[: self.cards.index(END)]

    # data

    @property
    def n_rows(self) -> int:
        """Rows of a table, or of an image of two axes."""
        return self.number("NAXIS2")

    def columns(self) -> dict[str, tuple[int, np.dtype, int]]:
        """Return number, type and offset in the row of each column."""
        found, offset = {}, 0
        for i in range(1, self.number("TFIELDS") + 1):
            form = re.match(r"(\d*)([A-Z])", self.text(f"TFORM{i}"))
            assert form is not None
            repeat, letter = int(form[1] or 1), form[2]
            dtype = np.dtype(f"S{repeat}" if letter == "A" else (_TYPES[letter], (repeat,) if repeat > 1 else ()))
            found[self.text(f"TTYPE{i}")] = (i, dtype, offset)
            offset += dtype.itemsize
        return found

    def column(self, name: str) -> np.ndarray:
        """Return a copy of a column's values."""
        _, dtype, offset = self.columns()[name]
        return self._rows()[:, offset : offset + dtype.itemsize].copy().view(dtype.base).reshape(self.n_rows, -1)[:, 0]

    def put_column(self, name: str, values: np.ndarray) -> None:
        """Set a column's values."""
        _, dtype, offset = self.columns()[name]
        rows = self._rows()
        rows[:, offset : offset + dtype.itemsize] = (
            np.ascontiguousarray(values, dtype.base).view(np.uint8).reshape(self.n_rows, -1)
        )
        self._put_rows(rows)

    def image(self) -> np.ndarray:
        """Return a copy of an image of two axes."""
        dtype = {-32: ">f4", -64: ">f8", 32: ">i4"}[self.number("BITPIX")]
        return self._rows().copy().view(dtype)

    def put_image(self, values: np.ndarray) -> None:
        """Set the values of an image."""
        self._put_rows(np.ascontiguousarray(values).view(np.uint8).reshape(self.n_rows, -1))

    def take_rows(self, order: Sequence[int]) -> None:
        """Put rows in another order, leave some out, or repeat them."""
        self._put_rows(self._rows()[list(order)])
        self.put("NAXIS3" if self.number("NAXIS") == 3 else "NAXIS2", len(order))

    def _rows(self) -> np.ndarray:
        n_rows = self.number("NAXIS3") if self.number("NAXIS") == 3 else self.n_rows
        width = self.number("NAXIS1") * (abs(self.number("BITPIX")) // 8)
        width *= self.number("NAXIS2") if self.number("NAXIS") == 3 else 1
        return np.frombuffer(self.data, np.uint8, n_rows * width).reshape(n_rows, width).copy()

    def _put_rows(self, rows: np.ndarray) -> None:
        raw = rows.tobytes()
        self.data = raw.ljust(-(-len(raw) // BLOCK) * BLOCK, b"\0")


def split(raw: bytes) -> list[Part]:
    """Return the HDUs of a file that is right."""
    parts, offset = [], 0
    while offset < len(raw):
        cards = []
        while (one := raw[offset : offset + CARD]) != END:
            cards.append(one)
            offset += CARD
        offset = -(-(offset + CARD) // BLOCK) * BLOCK
        part = Part(cards, b"")
        axes = [part.number(f"NAXIS{i}") for i in range(1, part.number("NAXIS") + 1)]
        size = int(np.prod(axes)) * (abs(part.number("BITPIX")) // 8) + part.number("PCOUNT") if axes else 0
        end = offset + -(-size // BLOCK) * BLOCK
        part.data = raw[offset:end]
        parts.append(part)
        offset = end
    return parts


def join(parts: Sequence[Part]) -> bytes:
    """Return the bytes of a file."""
    return b"".join(piece for part in parts for piece in (part.header, part.data))


def find(parts: Sequence[Part], name: str) -> Part:
    """Return an HDU by name."""
    return next(part for part in parts if part.name == name)


def edited(raw: bytes, edit: Callable[[list[Part]], object]) -> bytes:
    """Return a file with other HDUs, those that have changed with right checksums."""
    parts = split(raw)
    before = [(tuple(part.cards), part.data) for part in parts]
    edit(parts)
    for part in parts:
        if (tuple(part.cards), part.data) not in before:
            part.seal()
    return join(parts)
