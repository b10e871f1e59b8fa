"""Tile-compressed masks, as older DESI files have them, with headers that lie and tiles that are damaged."""

from __future__ import annotations

from mutating.expect import ANY, Expect, Mutant, Pair, refused
from mutating.fitsbytes import Part, find, split
from mutating.registry import Drawn, Inapplicable, in_some_way, mutation


def some_tiles(drawn: Drawn, pair: Pair) -> Part:
    """Return a tile-compressed HDU of a coadd."""
    parts = [part for part in split(pair.coadd) if part.place("ZIMAGE") >= 0]
    if not parts:
        raise Inapplicable
    return drawn.choice(parts)


@mutation
def tile_header(drawn: Drawn, pair: Pair) -> Mutant:
    """A codec that can expand a thousandfold, sizes that lie, parameters of the codec that are nonsense."""
    part = some_tiles(drawn, pair)
    wide, high = part.number("ZNAXIS1"), part.number("ZNAXIS2")
    bad: list[tuple[str, object]] = [("ZCMPTYPE", codec) for codec in ("GZIP_1", "GZIP_2", "HCOMPRESS_1", "X", "", 5)]
    bad += [("ZNAXIS", n) for n in (0, 1, 3, -1, 999)]
    bad += [("ZNAXIS1", n) for n in (0, -1, wide - 1, wide + 1, 2**40)]
    bad += [("ZNAXIS2", n) for n in (0, -1, high + 1, 2**40)]
    bad += [("ZBITPIX", n) for n in (-32, -64, 7, 0, "x")]
    bad += [("ZTILE1", n) for n in (0, -1, 2**40, "x")]
    odd: list[tuple[str, object]] = [("ZVAL1", n) for n in (0, 1, -1, 10**9, "x")]
    odd += [("ZVAL2", n) for n in (0, 1, 2, 3, 8, -4, 10**9)]
    odd += [("ZBITPIX", n) for n in (8, 16, 64)] + [("ZTILE1", 7), ("ZTILE2", 2), ("ZNAME1", "X")]
    odd += [("TFORM1", form) for form in ("1PB(1)", "1QB", "1PJ", "1PI(9)", "1PB(999999999)", "8B", "2J")]
    odd += [("NAXIS2", n) for n in (0, high - 1, 1)] + [("PCOUNT", n) for n in (0, 1, 2880)]
    is_bad = drawn.random() < 0.5
    key, value = drawn.choice(bad if is_bad else odd)

    def put(parts: list[Part]) -> None:
        find(parts, part.name).put(key, value)

    expect = refused() if is_bad else Expect((ANY,))
    return in_some_way(drawn, f"{part.name} {key} = {value}", "coadd", pair, put, expect)


@mutation
def tile_bytes(drawn: Drawn, pair: Pair) -> Mutant:
    """Random bytes in the descriptors of tiles, or in the tiles, with checksums that are right or absent."""
    part = some_tiles(drawn, pair)
    size = part.number("NAXIS1") * part.number("NAXIS2")
    n, is_descriptor = drawn.choice((1, 2, 4, 16)), drawn.random() < 0.5
    end = size if is_descriptor else size + part.number("PCOUNT")
    places = [drawn.randrange(0 if is_descriptor else size, end) for _ in range(n)]

    def spoil(parts: list[Part]) -> None:
        edit = find(parts, part.name)
        data = bytearray(edit.data)
        for place in places:
            data[place] = drawn.choice((0, 255, 127, 128, drawn.randrange(256)))
        edit.data = bytes(data)

    what = f"{part.name}: bytes {places} of its {'descriptors' if is_descriptor else 'tiles'}"
    return in_some_way(drawn, what, "coadd", pair, spoil, Expect((ANY,)))
