"""The mutations by name, and how one is drawn."""

from __future__ import annotations

import random
from collections.abc import Callable

from mutating.expect import REJECT, Expect, Mutant, Pair, refused
from mutating.fitsbytes import CHECKSUMS, Part, join, split
from qad.desi.checksum import MODULUS, data_sum

Drawn = random.Random


class Inapplicable(Exception):
    """The mutation does not fit the pair."""


Mutation = Callable[[Drawn, Pair], Mutant | None]
MUTATIONS: dict[str, Mutation] = {}
"""By name; one that does not apply to a pair returns None."""
TABLES = ("FIBERMAP", "EXP_FIBERMAP", "SCORES", "REDSHIFTS")
UNREAD = {"coadd": ("PRIMARY", "B_RESOLUTION", "R_RESOLUTION", "Z_RESOLUTION"),
          "redrock": ("PRIMARY", "FIBERMAP", "EXP_FIBERMAP", "TSNR2")}  # fmt: skip
"""HDUs that decide nothing: where they are valid, nothing has changed."""
FREE = {
    "EXP_FIBERMAP": ("fiber", "petal_loc", "tileid", "night"),
    "SCORES": ("tsnr2_qso", "tsnr2_lya", "tsnr2_lrg"),
}
"""Columns of `spectra` that an HDU decides which may lack."""


def mutation(function: Mutation) -> Mutation:
    """Enter a mutation under its name."""
    MUTATIONS[function.__name__] = function
    return function


def draw(name: str, seed: int, pair: Pair) -> Mutant | None:
    """Return the mutant of a name and a seed, always the same; None if it does not apply to the pair."""
    try:
        return MUTATIONS[name](random.Random(f"{name} {seed}"), pair)
    except Inapplicable:
        return None


def damaged(what: str, which: str, pair: Pair, raw: bytes, expect: Expect) -> Mutant:
    """Return a mutant of which one file has other bytes."""
    return Mutant(f"{which}: {what}", which, pair.having(which, raw), expect)


def either(drawn: Drawn) -> str:
    """Return one of the two files."""
    return drawn.choice(("coadd", "coadd", "redrock"))


def in_some_way(
    drawn: Drawn, what: str, which: str, pair: Pair, edit: Callable[[list[Part]], object], expect: Expect
) -> Mutant:
    """Return a mutant whose checksums are right, absent, or still those of the file as it was: then it must be refused."""
    way = drawn.choice(("sealed", "sealed", "bare", "stale"))
    parts = split(pair.file(which))
    before = [(tuple(part.cards), part.data) for part in parts]
    edit(parts)
    changed = [part for part in parts if (tuple(part.cards), part.data) not in before]
    for part in changed:
        if way == "sealed":
            part.seal()
        elif way == "bare":
            part.drop(*CHECKSUMS)
    is_told = any(not _sums_hold(part) for part in changed)
    if way == "stale" and is_told and (REJECT not in expect.kinds or expect.gone):
        expect = refused("CHECKSUM", "DATASUM")
    elif way == "stale" and is_told:
        expect = Expect((REJECT,), ("CHECKSUM", "DATASUM", *expect.words) if expect.words else ())
    return damaged(f"{what} ({way})", which, pair, join(parts), expect)


def _sums_hold(part: Part) -> bool:
    """Whether an HDU's checksums are absent or right: 0 and 2^32 - 1 are one number to them, and order is none."""
    if any(part.place(key) < 0 for key in CHECKSUMS):
        return True
    total, told = data_sum(part.data), part.text("DATASUM")
    return told == str(total) and (total + data_sum(part.header)) % MODULUS == 0


def without(which: str, missing: set[str], pair: Pair) -> Expect:
    """Return what must become of a file that lacks some HDUs."""
    if which == "redrock":
        return refused("REDSHIFTS") if "REDSHIFTS" in missing else Expect(("same",))
    if "FIBERMAP" in missing:
        return refused("FIBERMAP")
    there = {part.name for part in split(pair.coadd)} - missing
    kept = [camera for camera in "BRZ" if {f"{camera}_{what}" for what in ("WAVELENGTH", "FLUX", "IVAR")} <= there]
    torn = [c for c in "BRZ" if c not in kept and any(name.startswith(f"{c}_") for name in there)]
    n_masks = sum(f"{camera}_MASK" in there for camera in kept)
    if torn or not kept or (n_masks < len(kept) and (n_masks or len(kept) < 3)):
        return refused("missing", "lacks")
    free = [column for name in missing for column in FREE.get(name, ())]
    lost = [camera for camera in "BRZ" if camera not in kept]
    like = None
    if lost or not n_masks:
        like = pair.having("coadd", _as_if(pair.coadd, lost, has_masks=bool(n_masks)))
    return Expect(("changed" if free or like else "same",), columns=free, like=like)


def _as_if(coadd: bytes, lost: list[str], has_masks: bool) -> bytes:
    """Return a coadd with the ivar of some cameras 0, and no mask set unless `has_masks`."""
    parts = split(coadd)
    for part in parts:
        if part.name.endswith("_MASK") and part.place("ZIMAGE") >= 0 and not has_masks:
            raise Inapplicable
        zero = part.name in {f"{camera}_IVAR" for camera in lost} or (part.name.endswith("_MASK") and not has_masks)
        if zero:
            part.put_image(part.image() * 0)
            part.seal()
    return join(parts)
