"""A drawing on character cells: eight braille dots a cell, or one ASCII character a cell where there is no Unicode."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np

Piece = tuple[str, str]
"""Text and the name of its style."""

_BRAILLE = 0x2800
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bit of each dot of a braille character by row and column (Unicode, Braille Patterns)."""


class Canvas:
    """A canvas of `columns` x `rows` character cells, addressed in dots from the top left.

    Parameters
    ----------
    columns, rows : int
    braille : bool
        Eight dots a cell; else one, drawn with the mark of its style.
    marks : dict of str to str
        The ASCII character of each style.
    """

    def __init__(self, columns: int, rows: int, braille: bool, marks: dict[str, str] | None = None) -> None:
        self.columns, self.rows = columns, rows
        self.across, self.down = (2, 4) if braille else (1, 1)
        self._braille = braille
        self._marks = marks or {}
        self._dots = np.zeros((rows * self.down, columns * self.across), np.int16)
        self._top = np.zeros((rows, columns), np.int16)
        self._styles: list[str] = [""]
        self._text: dict[tuple[int, int], tuple[str, str]] = {}

    @property
    def width(self) -> int:
        """Dots across."""
        return self.columns * self.across

    @property
    def height(self) -> int:
        """Dots down."""
        return self.rows * self.down

    def dot(self, x: int, y: int, style: str) -> None:
        """Set a dot; outside the canvas nothing happens.  In a cell only the dots of the last style are shown."""
        if 0 <= x < self.width and 0 <= y < self.height:
            number = self._number(style)
            self._dots[y, x] = number
            self._top[y // self.down, x // self.across] = number

    def _number(self, style: str) -> int:
        if style not in self._styles[1:]:
            self._styles.append(style)
        return self._styles.index(style, 1)

    def column(self, x: int, y0: int, y1: int, style: str) -> None:
        """Set the dots of one column between two heights."""
        for y in range(max(0, min(y0, y1)), min(self.height - 1, max(y0, y1)) + 1):
            self.dot(x, y, style)

    def curve(self, y: np.ndarray, style: str) -> None:
        """Draw heights, one a dot column, joined; NaN leaves a gap."""
        before: int | None = None
        for x, value in enumerate(y):
            if not np.isfinite(value):
                before = None
                continue
            # far outside is as good as just outside, and does not overflow
            here = round(float(np.clip(value, -self.height, 2 * self.height)))
            start = here if before is None else before + int(np.sign(here - before))
            self.column(x, start, here, style)
            before = here

    def put(self, column: int, row: int, text: str, style: str = "") -> None:
        """Write text over the drawing, cell by cell; what does not fit is cut."""
        for i, character in enumerate(text):
            if 0 <= column + i < self.columns and 0 <= row < self.rows:
                self._text[row, column + i] = (character, style)

    def is_empty(self, column: int, row: int) -> bool:
        """Whether a cell has neither dot nor text."""
        return (row, column) not in self._text and not self._top[row, column]

    def lines(self) -> Iterator[list[Piece]]:
        """Yield the rows from the top as pieces of (text, style)."""
        for row in range(self.rows):
            cells = [self._cell(row, column) for column in range(self.columns)]
            pieces = (
                (style, "".join(text for text, _ in group)) for style, group in groupby(cells, key=lambda c: c[1])
            )
            yield [(text, style) for style, text in pieces]

    def _cell(self, row: int, column: int) -> Piece:
        if (row, column) in self._text:
            return self._text[row, column]
        top, left = row * self.down, column * self.across
        number = int(self._top[row, column])
        if not number:
            return " ", ""
        # a cell has one colour: dots of what was drawn before would thicken what lies over them
        block = self._dots[top : top + self.down, left : left + self.across] == number
        style = self._styles[number]
        if self._braille:
            return chr(_BRAILLE + int(_BITS[block].sum())), style
        return self._marks.get(style, "*"), style
