"""Files replaced, cut off, with flipped bits, and HDUs that are removed, doubled, renamed or in another order."""

from __future__ import annotations

import gzip
from functools import cache

from mutating.expect import REJECT, SAME, UNCHANGED, Expect, Mutant, Pair, refused
from mutating.fitsbytes import BLOCK, CARD, CHECKSUMS, Part, edited, find, join, split
from mutating.registry import Drawn, damaged, either, in_some_way, mutation, without

HTML = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>Please log in.</body></html>\n"


@cache
def bomb() -> bytes:
    """Return 100 kB of gzip that hold 100 MB."""
    return gzip.compress(bytes(100 << 20), 9)


@mutation
def replaced(drawn: Drawn, pair: Pair) -> Mutant:
    """Something else stands in the file's place."""
    which = either(drawn)
    raw = pair.file(which)
    others = {
        "empty": b"",
        "HTML": HTML,
        "HTML, padded": HTML.ljust(len(raw)),
        "zero bytes": bytes(len(raw)),
        "ones": b"\xff" * len(raw),
        "blanks": b" " * len(raw),
        "random bytes": drawn.randbytes(100_000),
        "gzip": gzip.compress(raw[:200_000], 1),
        "a gzip bomb": bomb(),
        "Parquet": b"PAR1" + raw[:1000] + b"PAR1",
        "JSON": b'{"error": "SlowDown"}',
        "a byte order mark before it": b"\xef\xbb\xbf" + raw,
        "a newline before it": b"\n" + raw,
        "a block of zeros before it": bytes(BLOCK) + raw,
        "a primary HDU alone": raw[: raw.index(b"XTENSION")],
        "the extensions without the primary HDU": raw[raw.index(b"XTENSION") :],
        "line ends changed": raw.replace(b"\n", b"\r\n") if b"\n" in raw else raw + b"\r\n",
        "upper case": raw.upper() if raw.upper() != raw else b"",
        "the file twice": raw + raw,
    }
    what = drawn.choice(sorted(others))
    return damaged(what, which, pair, others[what], refused())


@mutation
def not_a_file(drawn: Drawn, pair: Pair) -> Mutant:
    """No file of bytes at all."""
    which = either(drawn)
    special = drawn.choice(("absent", "folder", "link", "pipe"))
    expect = refused()
    if special == "absent" and which == "coadd" and not wanted_by_redrock(pair):
        expect = UNCHANGED  # fetch leaves out the coadds of pixels without a quasar
    return Mutant(f"{which}: {special}", which, pair, expect, special)


def wanted_by_redrock(pair: Pair) -> bool:
    """Whether the redrock file has a row that is wanted as far as it knows."""
    rows = find(split(pair.redrock), "REDSHIFTS")
    return bool(((rows.column("SPECTYPE") == b"QSO") & (rows.column("ZWARN") == 0)).any())


@mutation
def swapped_files(drawn: Drawn, pair: Pair) -> Mutant:
    """The coadd under the redrock file's name, and the other way round, or one of them twice."""
    coadd, redrock = drawn.choice([(pair.redrock, pair.coadd), (pair.coadd, pair.coadd), (pair.redrock, pair.redrock)])
    which = "redrock" if redrock is pair.coadd else "coadd"
    words = ("REDSHIFTS",) if which == "redrock" else ("camera", "B_", "FIBERMAP")
    return Mutant(f"{which}: the other one", which, Pair(pair.pixel, coadd, redrock), refused(*words))


@mutation
def sparse(drawn: Drawn, pair: Pair) -> Mutant:
    """A hole at the end, up to a terabyte: a download that reserved its place."""
    which, n_bytes = either(drawn), drawn.choice((BLOCK, 10 << 20, 4 << 30, 1 << 40))
    n_bytes += -(len(pair.file(which)) + n_bytes) % BLOCK
    special = f"sparse {len(pair.file(which)) + n_bytes}"
    return Mutant(f"{which}: {n_bytes:,} bytes of nothing at its end", which, pair, refused(), special)


@mutation
def sparse_claim(drawn: Drawn, pair: Pair) -> Mutant | None:
    """An HDU of tens of gigabytes, of which the file really has them, as a hole."""
    which = either(drawn)
    parts = split(pair.file(which))
    part = drawn.choice([part for part in parts if part.number("NAXIS") >= 2])
    part.put("NAXIS3" if part.number("NAXIS") == 3 else "NAXIS2", drawn.choice((1 << 22, 1 << 23)))
    if drawn.random() < 0.5:
        part.drop(*CHECKSUMS)
    else:
        part.seal()
    width = part.number("NAXIS1") * abs(part.number("BITPIX")) // 8
    width *= part.number("NAXIS2") if part.number("NAXIS") == 3 else 1
    if width < 100:
        return None
    n_rows = part.number("NAXIS3" if part.number("NAXIS") == 3 else "NAXIS2")
    last = parts.index(part)
    raw = join(parts[: last + 1])
    size = len(raw) - len(part.data) + -(-width * n_rows // BLOCK) * BLOCK
    expect = refused() if part.name != "TSNR2" else Expect((REJECT,))
    return Mutant(
        f"{which}: {part.name} of {n_rows:,} rows",
        which,
        pair.having(which, raw),
        expect,
        f"sparse {size}",
    )


def places(raw: bytes) -> dict[str, list[int]]:
    """Return offsets at which a file may be cut, by what is there."""
    found: dict[str, list[int]] = {"in a header": [], "in data": [], "before data": [], "in padding": []}
    offset = 0
    for part in split(raw):
        found["in a header"] += [offset + 1, offset + CARD, offset + len(part.header) - 1]
        found["in a header"] += [*range(offset + BLOCK, offset + len(part.header), BLOCK)]
        offset += len(part.header)
        if part.data:
            found["before data"].append(offset)
            found["in data"] += [offset + 1, offset + len(part.data) // 2]
            found["in data"] += [offset + BLOCK] if len(part.data) > BLOCK else []
            found["in padding"].append(offset + len(part.data) - 1)
        offset += len(part.data)
    return found


@mutation
def cut_off(drawn: Drawn, pair: Pair) -> Mutant:
    """The end is missing, from every kind of place on."""
    which = either(drawn)
    raw = pair.file(which)
    kinds = places(raw) | {"anywhere": [drawn.randrange(1, len(raw))], "a byte": [len(raw) - 1], "at once": [0, 1, 79]}
    what = drawn.choice(sorted(kinds))
    place = drawn.choice(kinds[what])
    if place in boundaries(raw):
        place += 1
    return damaged(f"cut {what}, at {place}", which, pair, raw[:place], refused())


def boundaries(raw: bytes) -> dict[int, int]:
    """Return where each HDU but the first begins, and its number."""
    found, offset = {}, 0
    for number, part in enumerate(split(raw)):
        found[offset] = number
        offset += len(part.header) + len(part.data)
    return found


@mutation
def cut_between(drawn: Drawn, pair: Pair) -> Mutant:
    """The end is missing from an HDU on: what is left is valid, so the HDUs that lack must be missed by name."""
    which = either(drawn)
    raw = pair.file(which)
    place, number = drawn.choice(sorted(boundaries(raw).items())[1:])
    missing = {part.name for part in split(raw)[number:]}
    what = f"cut before {split(raw)[number].name}"
    return damaged(what, which, pair, raw[:place], without(which, missing, pair))


@mutation
def end_of_zeros(drawn: Drawn, pair: Pair) -> Mutant:
    """The right size, but zeros from somewhere on: a download that reserved its place and stopped."""
    which = either(drawn)
    raw = pair.file(which)
    kinds = places(raw)
    place = drawn.choice(kinds[drawn.choice(sorted(kinds))])
    changed = raw[:place] + bytes(len(raw) - place)
    expect = refused() if changed != raw else UNCHANGED
    return damaged(f"zeros from {place} on", which, pair, changed, expect)


@mutation
def shifted(drawn: Drawn, pair: Pair) -> Mutant:
    """Bytes are lost or put in between."""
    which = either(drawn)
    raw = pair.file(which)
    place, n = drawn.randrange(len(raw) - BLOCK), drawn.choice((1, 2, 4, CARD, BLOCK))
    lost = drawn.random() < 0.5
    changed = raw[:place] + raw[place + n :] if lost else raw[:place] + drawn.randbytes(n) + raw[place:]
    what = f"{n} bytes {'lost' if lost else 'put in'} at {place}"
    return damaged(what, which, pair, changed, refused())


@mutation
def flipped_bit(drawn: Drawn, pair: Pair) -> Mutant:
    """One bit is turned over: in a header, in data, in padding."""
    which = either(drawn)
    raw = bytearray(pair.file(which))
    parts = split(bytes(raw))
    number = drawn.randrange(len(parts))
    offset = sum(len(part.header) + len(part.data) for part in parts[:number])
    part = parts[number]
    where = drawn.choice(("header", "data", "padding", "anywhere"))
    n_cards = len(b"".join(part.cards)) + CARD
    if where == "padding":
        place = (
            len(part.header) + len(part.data) - 1 if part.data else drawn.randrange(n_cards, len(part.header) + 1) - 1
        )
    elif where == "data" and part.data:
        place = len(part.header) + drawn.randrange(len(part.data))
    elif where == "anywhere":
        offset, place = 0, drawn.randrange(len(raw))
    else:
        place = drawn.randrange(n_cards)
    raw[offset + place] ^= 1 << drawn.randrange(8)
    # if that was in the keyword of a checksum, nothing that is read has changed
    is_lost = any(offset + place in keyword for keyword in checksum_keywords(pair.file(which)))
    expect = Expect((REJECT, SAME)) if is_lost else refused()
    return damaged(f"{part.name} {where}, byte {offset + place}", which, pair, bytes(raw), expect)


def checksum_keywords(raw: bytes) -> list[range]:
    """Return the places of the keywords of CHECKSUM and DATASUM cards: spoilt, they are no checksum cards any more."""
    found, offset = [], 0
    for part in split(raw):
        for i, card in enumerate(part.cards):
            if card[:8].decode("ascii", "replace").strip() in CHECKSUMS:
                found.append(range(offset + i * CARD, offset + i * CARD + 10))
        offset += len(part.header) + len(part.data)
    return found


@mutation
def burst(drawn: Drawn, pair: Pair) -> Mutant | None:
    """A run of bytes is other than it was: random, zeros, or a sector of another place."""
    which = either(drawn)
    raw = pair.file(which)
    n = drawn.choice((3, 16, 64, 512, 4096))
    place, other = drawn.randrange(len(raw) - n), drawn.randrange(len(raw) - n)
    new = drawn.choice((drawn.randbytes(n), bytes(n), raw[other : other + n]))
    if raw[place : place + n] == new:
        return None
    changed = raw[:place] + new + raw[place + n :]
    is_lost = any(keyword.start < place + n and place < keyword.stop for keyword in checksum_keywords(raw))
    expect = Expect((REJECT, SAME)) if is_lost else refused()
    return damaged(f"{n} bytes at {place}", which, pair, changed, expect)


@mutation
def checksum_wrong(drawn: Drawn, pair: Pair) -> Mutant:
    """CHECKSUM or DATASUM say another number, or no number."""
    which = either(drawn)
    parts = split(pair.file(which))
    part = drawn.choice([part for part in parts if part.place("CHECKSUM") >= 0])
    key = drawn.choice(CHECKSUMS)
    old = part.text(key)
    if key == "CHECKSUM":
        value: object = drawn.choice((old[::-1] if old[::-1] != old else "A" * 16, "a" * 16, 17, old[:8]))
    else:
        value = drawn.choice((str(int(old) + 1), "1" * 12, "-1", "x", 5, str(2**32)))
    part.put(key, value)
    if key == "DATASUM" and drawn.random() < 0.5:  # a header that agrees with the wrong sum
        part.put("DATASUM", str((int(old) + drawn.randrange(1, 2**32 - 2)) % (2**32 - 1)))
        part.drop("CHECKSUM")
    what = f"{part.name} {key} {part.text(key)!r}"
    # an HDU without data has DATASUM 0, and 2^32 - 1 is 0 as well
    return damaged(what, which, pair, join(parts), refused("SUM"))


@mutation
def checksum_absent(drawn: Drawn, pair: Pair) -> Mutant:
    """Files without checksums are read."""
    which = either(drawn)
    parts = split(pair.file(which))
    for part in parts if drawn.random() < 0.5 else drawn.sample(parts, 3):
        part.drop(*drawn.choice((CHECKSUMS, CHECKSUMS[:1])))
    return damaged("no checksums", which, pair, join(parts), UNCHANGED)


@mutation
def removed(drawn: Drawn, pair: Pair) -> Mutant:
    """HDUs are missing."""
    which = either(drawn)
    parts = split(pair.file(which))
    names = [part.name for part in parts[1:]]
    missing = set(drawn.sample(names, drawn.choice((1, 1, 1, 2, 3))))
    if drawn.random() < 0.2:
        camera = drawn.choice("BRZ")
        missing = {name for name in names if name.startswith(f"{camera}_")} or missing
    raw = join([part for part in parts if part.name not in missing])
    return damaged(f"without {', '.join(sorted(missing))}", which, pair, raw, without(which, missing, pair))


@mutation
def doubled(drawn: Drawn, pair: Pair) -> Mutant:
    """An HDU stands twice, the second time with other values or in another case."""
    which = either(drawn)
    parts = split(pair.file(which))
    part = drawn.choice(parts[1:])
    again = Part(list(part.cards), part.data)
    if drawn.random() < 0.5:
        again.put("EXTNAME", part.name.lower())
        again.seal()
    parts.insert(drawn.randrange(1, len(parts) + 1), again)
    return damaged(f"{part.name} twice", which, pair, join(parts), refused("twice"))


@mutation
def reordered(drawn: Drawn, pair: Pair) -> Mutant:
    """HDUs stand in another order, and others between them."""
    which = either(drawn)
    primary, *rest = split(pair.file(which))
    if drawn.random() < 0.3:
        stranger = Part(list(rest[-1].cards), rest[-1].data)
        stranger.put("EXTNAME", "STRANGER")
        stranger.seal()
        rest.append(stranger)
    drawn.shuffle(rest)
    return damaged("another order", which, pair, join([primary, *rest]), UNCHANGED)


@mutation
def renamed(drawn: Drawn, pair: Pair) -> Mutant:
    """An HDU has another name, or none."""
    which = either(drawn)
    parts = split(pair.file(which))
    part = drawn.choice(parts[1:])
    name = part.name
    new = drawn.choice(("OTHER", "", "SCORES ", name + "2", "X" * 60))
    if new.strip() in {other.name for other in parts}:
        new = "OTHER"
    expect = without(which, {name}, pair)

    def rename(edit: list[Part]) -> None:
        find(edit, name).put("EXTNAME", new)

    return damaged(f"{name} is {new!r}", which, pair, edited(pair.file(which), rename), expect)


@mutation
def names_swapped(drawn: Drawn, pair: Pair) -> Mutant:
    """Two HDUs have each other's names; every other byte is right."""
    which = either(drawn)
    names = [part.name for part in split(pair.file(which))[1:]]
    read = [name for name in names if not name.endswith("RESOLUTION") and name not in ("TSNR2",)]
    first, second = drawn.sample(names if drawn.random() < 0.3 else read, 2)

    def swap(parts: list[Part]) -> None:
        one, other = find(parts, first), find(parts, second)
        one.put("EXTNAME", second)
        other.put("EXTNAME", first)

    unread = ("B_RESOLUTION", "R_RESOLUTION", "Z_RESOLUTION", "TSNR2")
    expect = refused()
    if which == "redrock" and "REDSHIFTS" not in (first, second):
        expect = UNCHANGED
    elif first in unread and second in unread:
        expect = Expect((REJECT, SAME))
    elif {first, second} == {"EXP_FIBERMAP", "SCORES"}:
        expect = Expect(
            (REJECT, "changed"),
            columns=("fiber", "petal_loc", "tileid", "night", "tsnr2_qso", "tsnr2_lya", "tsnr2_lrg"),
        )
    return in_some_way(drawn, f"{first} and {second}", which, pair, swap, expect)
