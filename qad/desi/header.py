"""FITS headers, read without trusting them: structure and sizes are checked before anything is asked for.

Written after the FITS standard 4.0.  Only what a data unit's place and form rest on is checked strictly; other cards
are kept as they stand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from qad.desi.checksum import MODULUS, data_sum
from qad.errors import InputError

BLOCK = 2880
"""Bytes that headers and data are padded to."""
CARD = 80
MAX_HEADER_BLOCKS = 1000
"""A DESI header takes 1 to 12 blocks; what runs on for 2.9 MB without an END is not one."""
MAX_AXES = 8
MAX_FIELDS = 999

_END = b"END" + 77 * b" "
_PRINTABLE = re.compile(rb"[\x20-\x7e]*\Z")
_INTEGER = re.compile(rb" *([+-]?[0-9]{1,19}) *(?:/.*)?\Z")
_NUMBER = re.compile(rb" *([+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[EDed][+-]?[0-9]{1,3})?) *(?:/.*)?\Z")
_LOGICAL = re.compile(rb" *([TF]) *(?:/.*)?\Z")
_TEXT = re.compile(rb" *'((?:[^']|'')*)' *(?:/.*)?\Z")
_STRUCTURE = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|TFIELDS|EXTNAME|CHECKSUM|DATASUM|BZERO|BSCALE|"
    r"T(FORM|TYPE|ZERO|SCAL|NULL)\d+|Z(IMAGE|TABLE|CMPTYPE|BITPIX|NAXIS\d*|TILE\d+))\Z"
)
ITEM_BYTES = {8: 1, 16: 2, 32: 4, 64: 8, -32: 4, -64: 8}
"""Bytes of an image element by BITPIX."""


class Header:
    """The cards of one header.

    Parameters
    ----------
    raw : bytes
        Whole blocks, up to the one that holds END.
    path, where : str
        For messages: the file and the HDU.
    """

    def __init__(self, raw: bytes, path: object, where: str) -> None:
        self.path, self.where = path, where
        self.raw = raw
        self.n_bytes = len(raw)
        self.raw_sum = data_sum(raw)
        self._cards: dict[str, bytes] = {}
        self.first = raw[:8].rstrip().decode("ascii", "replace")
        end = _place_of_end(raw)
        cards = raw if end < 0 else raw[:end]
        if not _PRINTABLE.match(cards):
            bad = next(i for i in range(0, len(cards), CARD) if not _PRINTABLE.match(cards[i : i + CARD]))
            raise self.error(f"card {bad // CARD + 1} is not ASCII text")
        for start in range(0, len(cards), CARD):
            if cards[start + 8 : start + 10] == b"= ":
                key = cards[start : start + 8].rstrip().decode()
                if key in self._cards and _STRUCTURE.match(key):
                    raise self.error(f"{key} stands twice in the header")
                self._cards.setdefault(key, cards[start + 10 : start + CARD])

    def __contains__(self, key: str) -> bool:
        return key in self._cards

    def error(self, reason: str) -> InputError:
        """Return the error that names this file and HDU."""
        return InputError(self.path, reason, where=self.where)

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number; InputError if it is not one, or absent without a `default`."""
        if default is not None and key not in self._cards:
            return default
        return int(self._match(key, _INTEGER, "a whole number"))

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number; InputError if it is not one, or absent without a `default`."""
        if default is not None and key not in self._cards:
            return default
        return float(self._match(key, _NUMBER, "a number").upper().replace(b"D", b"E"))

    def logical(self, key: str, default: bool | None = None) -> bool:
        """Return a logical value; InputError if it is not one, or absent without a `default`."""
        if default is not None and key not in self._cards:
            return default
        return self._match(key, _LOGICAL, "T or F") == b"T"

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text without the blanks at its end; InputError if it is not one, or absent without a `default`."""
        if default is not None and key not in self._cards:
            return default
        return self._match(key, _TEXT, "a text").replace(b"''", b"'").rstrip().decode()

    def shown(self, key: str) -> str:
        """Return a value of any type as text, empty if it is absent: for reports."""
        if key not in self._cards:
            return ""
        match = _TEXT.match(self._cards[key])
        return match[1].decode().strip() if match else self._cards[key].partition(b"/")[0].decode().strip()

    def _match(self, key: str, pattern: re.Pattern[bytes], what: str) -> bytes:
        if key not in self._cards:
            raise self.error(f"{key} is missing from the header")
        match = pattern.match(self._cards[key])
        if match is None:
            raise self.error(f"{key} is not {what}: {self._cards[key].decode().strip()[:40]!r}")
        return match[1]


@dataclass(frozen=True)
class HDU:
    """One HDU: its name, header, and where its data lie.

    Attributes
    ----------
    kind : str
        ``image``, ``table`` or ``compressed`` (a tile-compressed image).
    shape : tuple of int
        The image's axes, slowest first; of a table, rows and bytes a row.
    offset, n_bytes : int
        Place and size of the data unit, without its padding.
    """

    name: str
    index: int
    header: Header
    kind: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int

    @property
    def padded_bytes(self) -> int:
        """Size of the data unit with its padding."""
        return -(-self.n_bytes // BLOCK) * BLOCK


def end_of_header(block: bytes) -> bool:
    """Whether END stands in a block."""
    return _place_of_end(block) >= 0


def _place_of_end(raw: bytes) -> int:
    """Return where the card END begins, -1 if there is none."""
    place = raw.find(_END)
    while place >= 0 and place % CARD:
        place = raw.find(_END, place + 1)
    return place


def describe(header: Header, index: int, offset: int) -> HDU:
    """Check the structure that a header tells, and return the HDU whose data begin at `offset`.

    Raises
    ------
    InputError
        If a mandatory keyword lacks, or its value is impossible.
    """
    kind = _kind(header, index)
    bitpix = header.integer("BITPIX")
    if bitpix not in ITEM_BYTES:
        raise header.error(f"BITPIX is {bitpix}")
    axes = _axes(header, "NAXIS")
    n_groups, n_extra = header.integer("GCOUNT", 1), header.integer("PCOUNT", 0)
    if n_groups != 1 or n_extra < 0 or header.logical("GROUPS", False):
        raise header.error(f"GCOUNT {n_groups} and PCOUNT {n_extra}: random groups or nonsense")
    if kind == "image" and n_extra:
        raise header.error(f"an image with PCOUNT {n_extra}")
    if kind != "image" and (bitpix != 8 or len(axes) != 2 or not 0 <= header.integer("TFIELDS") <= MAX_FIELDS):
        raise header.error("a table must have BITPIX 8, NAXIS 2 and 0 to 999 TFIELDS")
    size = (prod(axes) * ITEM_BYTES[bitpix] if axes else 0) + n_extra
    name = header.text("EXTNAME", "").upper().strip()
    return HDU(name, index, header, kind, tuple(reversed(axes)), offset, size)


def compressed_shape(header: Header) -> tuple[int, ...]:
    """Return the axes of a tile-compressed image, slowest first."""
    return tuple(reversed(_axes(header, "ZNAXIS")))


def check_checksum(hdu: HDU) -> None:
    """Check a header against CHECKSUM, which with DATASUM tells it without the data.

    The words of a whole HDU add up to minus zero, so those of the header and DATASUM must.

    Raises
    ------
    InputError
        If they do not.
    """
    header = hdu.header
    if not header.text("CHECKSUM", "").strip("0 ") or not header.text("DATASUM", ""):
        return
    if (header.raw_sum + expected_datasum(header)) % MODULUS:
        raise header.error("the header does not match its CHECKSUM: damaged; fetch the file again")


def expected_datasum(header: Header) -> int:
    """Return the DATASUM that the header tells."""
    text = header.text("DATASUM").strip()
    if not text.isdigit() or len(text) > 10:
        raise header.error(f"DATASUM is not a number: {text[:40]!r}")
    return int(text) % MODULUS


def _kind(header: Header, index: int) -> str:
    if index == 0:
        if header.first != "SIMPLE" or not header.logical("SIMPLE"):
            raise header.error("not a FITS file (no SIMPLE = T)")
        return "image"
    extension = header.text("XTENSION")
    if extension == "IMAGE":
        return "image"
    if extension != "BINTABLE":
        raise header.error(f"unknown extension {extension[:20]!r}")
    return "compressed" if header.logical("ZIMAGE", False) else "table"


def _axes(header: Header, key: str) -> list[int]:
    n_axes = header.integer(key)
    if not 0 <= n_axes <= MAX_AXES:
        raise header.error(f"{key} is {n_axes}")
    axes = [header.integer(f"{key}{i}") for i in range(1, n_axes + 1)]
    if min(axes, default=0) < 0:
        raise header.error(f"{key}n is negative: {axes}")
    return axes
