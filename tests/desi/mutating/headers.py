"""Header cards that are missing, doubled, of another type, impossible, or lie about sizes."""

from __future__ import annotations

from mutating.expect import ANY, CHANGED, REJECT, SAME, UNCHANGED, Expect, Mutant, Pair, refused
from mutating.fitsbytes import CARD, END, Part, find, join, split
from mutating.pairs import quasars
from mutating.registry import FREE, UNREAD, Drawn, damaged, either, in_some_way, mutation

HUGE = (2**31, 2**40, 2**62, 2**63 - 1, 10**19, 10**30)
NEGATIVE = (-1, -2880, -(2**31), -(2**63))
NO_NUMBER = (b"'12'", b"3.5", b"T", b"", b"1E3", b"0x10", b"(1, 2)", b"1 2", b"NaN", b"=")


def told(which: str, name: str, expect: Expect) -> Expect:
    """Return what is allowed for an HDU: what decides nothing, or may lack, may also pass."""
    if name in UNREAD[which]:
        return Expect((REJECT, SAME))
    if name in FREE and which == "coadd":
        return Expect((REJECT, SAME, CHANGED), columns=FREE[name])
    return expect


def some_hdu(drawn: Drawn, pair: Pair, *kinds: str) -> tuple[str, Part]:
    """Return file and HDU with one of these XTENSION values (any without)."""
    which = either(drawn)
    parts = [part for part in split(pair.file(which)) if not kinds or part.text("XTENSION") in kinds]
    return which, drawn.choice(parts)


def with_card(drawn: Drawn, pair: Pair, which: str, part: Part, key: str, value: object, expect: Expect) -> Mutant:
    """Return a mutant of which one card has another value."""

    def put(parts: list[Part]) -> None:
        find(parts, part.name).put(key, value)

    shown = value.decode() if isinstance(value, bytes) else value
    return in_some_way(drawn, f"{part.name} {key} = {shown}", which, pair, put, told(which, part.name, expect))


@mutation
def size_huge_or_negative(drawn: Drawn, pair: Pair) -> Mutant:
    """An axis, heap, group or field count that is far too large, or negative: always refused, at once."""
    which, part = some_hdu(drawn, pair)
    keys = ["NAXIS", "PCOUNT", "GCOUNT", *(f"NAXIS{i}" for i in range(1, part.number("NAXIS") + 1))]
    keys += ["TFIELDS"] if part.text("XTENSION") == "BINTABLE" else []
    key = drawn.choice(keys)
    value = drawn.choice((*HUGE, *NEGATIVE))

    def put(parts: list[Part]) -> None:
        find(parts, part.name).put(key, str(value).rjust(20).encode())

    return in_some_way(drawn, f"{part.name} {key} = {value}", which, pair, put, refused())


@mutation
def size_wrong(drawn: Drawn, pair: Pair) -> Mutant:
    """An axis, BITPIX, PCOUNT, GCOUNT or TFIELDS that is a little wrong."""
    which, part = some_hdu(drawn, pair, "IMAGE", "BINTABLE")
    changes: list[tuple[str, object]] = [("GCOUNT", 0), ("GCOUNT", 2), ("NAXIS", 0), ("NAXIS", 9), ("PCOUNT", 2880)]
    for i in range(1, part.number("NAXIS") + 1):
        old = part.number(f"NAXIS{i}")
        changes += [(f"NAXIS{i}", new) for new in (0, old - 1, old + 1, 2 * old, 1) if new != old]
    changes += [("BITPIX", new) for new in (0, 7, 8, 16, 32, 64, -16, -32, -64, 128) if new != part.number("BITPIX")]
    if part.text("XTENSION") == "BINTABLE":
        fields = part.number("TFIELDS")
        changes += [("TFIELDS", new) for new in (0, 1, fields - 1, fields + 1, 999, 1000) if new != fields]
    key, value = drawn.choice(changes)
    expect = refused()
    if part.name == "REDSHIFTS" and key == "NAXIS2":
        # rows that it no longer tells of, or one of zeros from its padding: with checksums that are right a valid table
        lost = {int(targetid) for targetid in part.column("TARGETID")[int(str(value)) :]}
        gone = dict.fromkeys(lost & set(quasars(pair)), "not_in_redrock")
        expect = Expect((REJECT, SAME, CHANGED), gone=gone)
    return with_card(drawn, pair, which, part, key, value, expect)


@mutation
def value_of_another_type(drawn: Drawn, pair: Pair) -> Mutant:
    """A text, a real number, nothing where a whole number must stand."""
    which, part = some_hdu(drawn, pair, "IMAGE", "BINTABLE")
    keys = ["BITPIX", "NAXIS", "NAXIS1", "PCOUNT", "GCOUNT"]
    keys += ["TFIELDS"] if part.text("XTENSION") == "BINTABLE" else []
    key, value = drawn.choice(keys), drawn.choice(NO_NUMBER)

    def put(parts: list[Part]) -> None:
        find(parts, part.name).put(key, value)

    what = f"{part.name} {key} = {value.decode()}"
    return in_some_way(drawn, what, which, pair, put, refused())


@mutation
def card_missing(drawn: Drawn, pair: Pair) -> Mutant:
    """A mandatory card is missing."""
    which, part = some_hdu(drawn, pair)
    keys = ["SIMPLE"] if part.name == "PRIMARY" else ["XTENSION"]
    keys += ["BITPIX", "NAXIS", *(f"NAXIS{i}" for i in range(1, part.number("NAXIS") + 1))]
    tables = []
    if part.text("XTENSION") == "BINTABLE":
        tables = [f"TFORM{drawn.randint(1, part.number('TFIELDS'))}"]
        keys += ["TFIELDS", *tables]
    key = drawn.choice(keys)

    def drop(parts: list[Part]) -> None:
        find(parts, part.name).drop(key)

    expect = told(which, part.name, refused()) if key in tables else refused()
    return in_some_way(drawn, f"{part.name} without {key}", which, pair, drop, expect)


@mutation
def card_doubled(drawn: Drawn, pair: Pair) -> Mutant:
    """A card on which the place or form of data rests stands twice."""
    which, part = some_hdu(drawn, pair)
    keys = [
        key
        for key in ("BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "TFIELDS", "TFORM1", "TTYPE2", "EXTNAME", "CHECKSUM")
        if part.place(key) >= 0
    ]
    key = drawn.choice(keys)

    def double(parts: list[Part]) -> None:
        edit = find(parts, part.name)
        again = Part([edit.cards[edit.place(key)]], b"")
        if drawn.random() < 0.5 and key not in ("EXTNAME", "CHECKSUM", "TFORM1", "TTYPE2"):
            again.put(key, 0)
        edit.cards.insert(drawn.randrange(edit.place(key) + 1, len(edit.cards) + 1), again.cards[0])

    expect = refused("twice")
    mutant = in_some_way(drawn, f"{part.name} {key} twice", which, pair, double, expect)
    # sealing and stripping take CHECKSUM cards out again
    return mutant if key != "CHECKSUM" else Mutant(mutant.what, which, mutant.pair, Expect((REJECT, SAME)))


@mutation
def extension_of_another_kind(drawn: Drawn, pair: Pair) -> Mutant:
    """XTENSION names another kind, or a table says that it is a compressed image, an image that it is groups."""
    which, part = some_hdu(drawn, pair, "IMAGE", "BINTABLE")
    changes: list[tuple[str, object]] = [("XTENSION", kind) for kind in ("TABLE", "A3DTABLE", "FOREIGN", "DUMP", "")]
    other = "BINTABLE" if part.text("XTENSION") == "IMAGE" else "IMAGE"
    changes += [("XTENSION", other), ("GROUPS", True)]
    if other == "IMAGE" and part.place("ZIMAGE") < 0:
        changes += [("ZIMAGE", True), ("ZTABLE", True)]
    key, value = drawn.choice(changes)
    return with_card(drawn, pair, which, part, key, value, refused())


@mutation
def end_missing(drawn: Drawn, pair: Pair) -> Mutant:
    """A header without END, or with END too early, or spelt in another way."""
    which = either(drawn)
    parts = split(pair.file(which))
    number = drawn.randrange(len(parts))
    part = parts[number]
    way = drawn.choice(("none", "early", "lower case", "with a value", "shifted"))
    header = bytearray(part.header)
    place = len(part.cards) * CARD
    if way == "early":
        n = drawn.randrange(1, len(part.cards) - 2)
        header[n * CARD : (n + 1) * CARD] = END
    else:
        new = {"none": b"", "lower case": b"end", "with a value": b"END     = T", "shifted": b" END"}[way]
        header[place : place + CARD] = new.ljust(CARD)
    raw = b"".join(bytes(header) + p.data if p is part else p.header + p.data for p in parts)
    if way == "early":
        # checksum cards that follow an early END are lost; with them nothing is left that could tell
        is_told = all(0 <= part.place(key) < n for key in ("CHECKSUM", "DATASUM"))
        is_cut = n * CARD // 2880 < (len(header) - 1) // 2880
        expect = refused() if is_told or is_cut else Expect((ANY,))
    else:
        expect = refused()
    return damaged(f"{part.name}: END {way}", which, pair, raw, expect)


@mutation
def not_ascii(drawn: Drawn, pair: Pair) -> Mutant:
    """A header card with bytes that no header may have: in a value, a comment, a keyword."""
    which, part = some_hdu(drawn, pair)
    byte = drawn.choice((b"\x00", b"\x1b", b"\x7f", b"\x80", b"\xe9", b"\xff", b"\t", b"\n"))
    number = drawn.randrange(len(part.cards))
    place = drawn.choice((0, 9, 30, 79))

    def spoil(parts: list[Part]) -> None:
        card = bytearray(find(parts, part.name).cards[number])
        card[place : place + 1] = byte
        find(parts, part.name).cards[number] = bytes(card)

    what = f"{part.name} card {number + 1} byte {place} is {byte!r}"
    mutant = in_some_way(drawn, what, which, pair, spoil, refused())
    touched = part.cards[number][:8].decode().strip() in ("CHECKSUM", "DATASUM")
    # sealing and stripping take CHECKSUM cards out again
    return Mutant(what, which, mutant.pair, Expect((REJECT, SAME))) if touched else mutant


@mutation
def odd_but_allowed(drawn: Drawn, pair: Pair) -> Mutant:
    """Cards that the standard allows and DESI does not use: nothing changes."""
    which, part = some_hdu(drawn, pair)
    long_text = b"LONGKEY = 'a long text that goes on in the next card&'".ljust(CARD)
    ways: dict[str, list[bytes]] = {
        "CONTINUE": [long_text, b"CONTINUE  'here &'".ljust(CARD), b"CONTINUE  '' / to its end".ljust(CARD)],
        "HIERARCH": [b"HIERARCH ESO DET CHIP NAME = 'x' / long keyword".ljust(CARD)],
        "COMMENT": [b"COMMENT <script>alert(1)</script> =cmd|' /C calc'!A0".ljust(CARD)] * drawn.choice((1, 40, 400)),
        "blank cards": [b" " * CARD] * drawn.choice((1, 36, 72)),
        "HISTORY END": [b"HISTORY END".ljust(CARD), b"HISTORY SIMPLE  = F".ljust(CARD)],
        "a keyword twice": [b"RANDOM  =                    1".ljust(CARD), b"RANDOM  = 'two     '".ljust(CARD)],
        "a quote in a text": [b"QUOTE   = 'it''s / no comment' / comment".ljust(CARD)],
        "a text without an end": [b"OPEN    = 'it never ends".ljust(CARD)],
        "a value of nothing": [b"NOTHING = ".ljust(CARD)],
        "INHERIT": [b"INHERIT =                    T".ljust(CARD)],
        "BLANK": [b"BLANK   =                  -99".ljust(CARD)] if part.number("BITPIX") > 0 else [],
        "hostile text": [b"ATTACK  = '../../etc/passwd;rm -rf $HOME'".ljust(CARD)],
    }
    what = drawn.choice(sorted(ways))

    def add(parts: list[Part]) -> None:
        edit = find(parts, part.name)
        edit.cards[-2:-2] = ways[what]

    mutant = in_some_way(drawn, f"{part.name}: {what}", which, pair, add, UNCHANGED)
    return mutant if ways[what] else Mutant(mutant.what, which, pair, UNCHANGED)


@mutation
def cards_in_another_order(drawn: Drawn, pair: Pair) -> Mutant:
    """Optional cards stand in another order: nothing changes."""
    which, part = some_hdu(drawn, pair)
    n_first = 4 + part.number("NAXIS") + 2 + (part.text("XTENSION") == "BINTABLE")

    def shuffle(parts: list[Part]) -> None:
        edit = find(parts, part.name)
        rest = edit.cards[n_first:]
        drawn.shuffle(rest)
        edit.cards[n_first:] = rest

    # the checksum of a header does not know the order of its cards
    what = f"{part.name}: cards in another order"
    mutant = in_some_way(drawn, what, which, pair, shuffle, UNCHANGED)
    return Mutant(what, which, mutant.pair, UNCHANGED)


@mutation
def name_impossible(drawn: Drawn, pair: Pair) -> Mutant:
    """EXTNAME is a number, a logical, or missing."""
    which, part = some_hdu(drawn, pair, "IMAGE", "BINTABLE")
    value = drawn.choice((b"                   5", b"T", b"", None))
    from mutating.registry import without

    def put(parts: list[Part]) -> None:
        edit = find(parts, part.name)
        if value is None:
            edit.drop("EXTNAME")
        else:
            edit.put("EXTNAME", value)

    expect = without(which, {part.name}, pair) if value is None else refused("EXTNAME", "HDU")
    return in_some_way(drawn, f"{part.name}: EXTNAME = {value!r}", which, pair, put, expect)


@mutation
def scaling_impossible(drawn: Drawn, pair: Pair) -> Mutant:
    """BZERO and BSCALE that are no numbers are refused; others scale, and the result stays finite."""
    which = "coadd"
    parts = [part for part in split(pair.coadd) if part.name.endswith(("_FLUX", "_IVAR", "_MASK", "_WAVELENGTH"))]
    part = drawn.choice(parts)
    key = drawn.choice(("BZERO", "BSCALE"))
    value = drawn.choice((b"'1'", b"NaN", b"INF", b"T", b"1e999", b"1E308", b"-1E308", b"0", b"1e-320"))
    is_tiled = part.place("ZIMAGE") >= 0  # there BZERO and BSCALE say nothing
    expect = refused() if value in (b"'1'", b"NaN", b"INF", b"T") and not is_tiled else Expect((ANY,))
    return with_card(drawn, pair, which, part, key, value.rjust(20), expect)


@mutation
def header_bytes(drawn: Drawn, pair: Pair) -> Mutant:
    """Random bytes in headers without checksums: refused, or read as the valid tables that they still are."""
    which = either(drawn)
    parts = split(pair.file(which))
    for part in parts:
        part.drop("CHECKSUM", "DATASUM")
    for _ in range(drawn.choice((1, 1, 2, 3, 8))):
        part = drawn.choice(parts)
        number = drawn.randrange(len(part.cards))
        card = bytearray(part.cards[number])
        used = [i for i, byte in enumerate(card) if byte != 32]
        card[drawn.choice(used)] = drawn.choice(b"0123456789-+.'TFEKJDA= /\x00\xff")
        part.cards[number] = bytes(card)
    return damaged("random bytes in headers", which, pair, join(parts), Expect((ANY,)))
