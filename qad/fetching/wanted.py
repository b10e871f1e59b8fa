"""Which pixels were asked for: by survey, program and number, or by a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from qad.desi.layout import N_PIXELS, SURVEYS
from qad.errors import ConfigError

WORD = re.compile(r"[a-z][a-z0-9]{0,15}\Z")
"""What a survey or program can be called."""
Tree = tuple[str, str]
"""A survey and program."""


@dataclass(frozen=True)
class Listed:
    """The pixels that a table names.

    Attributes
    ----------
    origin : str
        The table, for messages.
    numbers : mapping of (str, str) to tuple of int
        Healpix numbers by survey and program; an empty word stands for every survey or program.
    is_exact : bool
        The table says that these pixels exist; else they are where something may lie, and most may hold nothing.
    """

    origin: str
    numbers: Mapping[Tree, tuple[int, ...]]
    is_exact: bool

    def of_tree(self, tree: Tree) -> set[int]:
        """Return the numbers listed for a survey and program."""
        found: set[int] = set()
        for words, numbers in self.numbers.items():
            if covers(words, tree):
                found.update(numbers)
        return found

    def within(self, other: Listed) -> Listed:
        """Return the pixels that both tables name."""
        numbers: dict[Tree, set[int]] = {}
        for own, of_own in self.numbers.items():
            for words, of_words in other.numbers.items():
                tree = own[0] or words[0], own[1] or words[1]
                if covers(own, tree) and covers(words, tree):
                    numbers.setdefault(tree, set()).update(set(of_own) & set(of_words))
        return Listed(self.origin, {tree: tuple(sorted(found)) for tree, found in numbers.items()}, self.is_exact)


def covers(words: Tree, tree: Tree) -> bool:
    """Whether a survey and program, either of which may be empty for every one, stand for those of `tree`."""
    return words[0] in ("", tree[0]) and words[1] in ("", tree[1])


@dataclass(frozen=True)
class Wanted:
    """Which pixels were asked for; empty means all.

    Attributes
    ----------
    surveys, programs : tuple of str
    healpix : tuple of int
    limit : int
        0: no limit.
    listed : Listed or None
        Only pixels that a table names.
    """

    surveys: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    healpix: tuple[int, ...] = ()
    limit: int = 0
    listed: Listed | None = None

    def __post_init__(self) -> None:
        for word in (*self.surveys, *self.programs):
            if not WORD.match(word):
                raise ConfigError(f"{word!r} is no survey or program; surveys are {', '.join(SURVEYS)}")
        for healpix in self.healpix:
            if not 0 <= healpix < N_PIXELS:
                raise ConfigError(f"there is no healpix {healpix}: at nside 64 they run from 0 to {N_PIXELS - 1}")
