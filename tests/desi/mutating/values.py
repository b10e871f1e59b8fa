"""Values that cannot be: fluxes, redshifts, positions, TARGETIDs, texts; columns that are missing or of another type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mutating.expect import ANY, CHANGED, UNCHANGED, Expect, Mutant, Pair, refused
from mutating.fitsbytes import Part, edited, find, split
from mutating.pairs import quasars
from mutating.registry import Drawn, in_some_way, mutation

EVIL = ("\x1b[2J\x1b]0;t\x07", "<script>alert(1)", "=cmd|'/C calc'!A0", "'; DROP TABLE x;", "%s%n{0}", "a\nb\r\tc", "../../../etc", "\x00\x01\x02", "\u202eabc")  # fmt: skip
NULLABLE = {
    "FIBERMAP": ("COADD_NUMEXP", "COADD_EXPTIME", "DESI_TARGET", "MORPHTYPE", "PHOTSYS", "MASKBITS", "EBV", "FLUX_G", "FLUX_R", "FLUX_Z", "FLUX_W1", "FLUX_W2", "FLUX_IVAR_G", "FLUX_IVAR_R", "FLUX_IVAR_Z", "FLUX_IVAR_W1", "FLUX_IVAR_W2", "PMRA", "PMDEC", "PARALLAX", "REF_ID"),
    "REDSHIFTS": ("ZERR", "CHI2", "DELTACHI2", "NPIXELS", "NCOEFF", "COEFF", "SUBTYPE"),
    "EXP_FIBERMAP": ("FIBER", "PETAL_LOC", "TILEID", "NIGHT"),
    "SCORES": ("TSNR2_QSO", "TSNR2_LYA", "TSNR2_LRG"),
}  # fmt: skip
"""Columns that may lack, by HDU: they are null then, under their own name in lower case."""
REQUIRED = {
    "FIBERMAP": ("TARGETID",),
    "REDSHIFTS": ("TARGETID", "Z", "ZWARN", "SPECTYPE"),
    "EXP_FIBERMAP": ("TARGETID",),
    "SCORES": ("TARGETID",),
}
FILE_OF = {"FIBERMAP": "coadd", "EXP_FIBERMAP": "coadd", "SCORES": "coadd", "REDSHIFTS": "redrock"}


def row_of(part: Part, targetid: int) -> int:
    """Return the first row of a target."""
    return int(np.flatnonzero(part.column("TARGETID") == targetid)[0])


def in_cell(drawn: Drawn, pair: Pair, hdu: str, column: str, value: Any, targetid: int, expect: Expect) -> Mutant:
    """Return a mutant with another value in one row of a column."""

    def put(parts: list[Part]) -> None:
        part = find(parts, hdu)
        values = part.column(column)
        values[row_of(part, targetid)] = value
        part.put_column(column, values)

    return in_some_way(drawn, f"{hdu} {column} of {targetid} = {value!r}", FILE_OF[hdu], pair, put, expect)


def some_quasar(drawn: Drawn, pair: Pair) -> int | None:
    """Return one of the TARGETIDs that come out, None if none does."""
    found = quasars(pair)
    return drawn.choice(found) if found else None


@mutation
def redshift_impossible(drawn: Drawn, pair: Pair) -> Mutant | None:
    """z is NaN, infinite, not above -1, or a million."""
    target = some_quasar(drawn, pair)
    if target is None:
        return None
    value = drawn.choice((np.nan, np.inf, -np.inf, -1.0, -1.5, -1e300, 1e6, 1e300, 7.5, -0.5))
    reason = "bad_z" if not value > -1 or np.isinf(value) else "z_range"
    expect = Expect((CHANGED,), gone={target: reason})
    return in_cell(drawn, pair, "REDSHIFTS", "Z", value, target, expect)


@mutation
def row_unwanted(drawn: Drawn, pair: Pair) -> Mutant | None:
    """A row says that it is no good quasar: it is dropped for that reason, and no other row changes."""
    target = some_quasar(drawn, pair)
    if target is None:
        return None
    hdu, column, value, reason = drawn.choice(
        [
            ("REDSHIFTS", "ZWARN", 4, "zwarn"),
            ("REDSHIFTS", "ZWARN", -1, "zwarn"),
            ("REDSHIFTS", "ZWARN", -(2**63), "zwarn"),
            ("REDSHIFTS", "ZWARN", 999999, "zwarn"),  # TNULL in redrock's own files
            ("REDSHIFTS", "SPECTYPE", b"GALAXY", "spectype"),
            ("REDSHIFTS", "SPECTYPE", b"", "spectype"),
            ("REDSHIFTS", "SPECTYPE", b"\xff\xfe", "spectype"),
            ("FIBERMAP", "OBJTYPE", b"SKY", "objtype"),
            ("FIBERMAP", "OBJTYPE", b"", "objtype"),
            ("FIBERMAP", "COADD_FIBERSTATUS", 1, "fiberstatus"),
            ("FIBERMAP", "COADD_FIBERSTATUS", -1, "fiberstatus"),
            ("FIBERMAP", "TARGET_RA", np.nan, "bad_position"),
            ("FIBERMAP", "TARGET_RA", np.inf, "bad_position"),
            ("FIBERMAP", "TARGET_RA", -1.0, "bad_position"),
            ("FIBERMAP", "TARGET_RA", 1e6, "bad_position"),
            ("FIBERMAP", "TARGET_DEC", np.nan, "bad_position"),
            ("FIBERMAP", "TARGET_DEC", -90.5, "bad_position"),
            ("FIBERMAP", "TARGET_DEC", 1e300, "bad_position"),
        ]
    )
    expect = Expect((CHANGED,), gone={target: reason})
    return in_cell(drawn, pair, hdu, column, value, target, expect)


@mutation
def number_impossible(drawn: Drawn, pair: Pair) -> Mutant | None:
    """A number that only describes a row is NaN, infinite or huge: null or kept, and nothing else changes."""
    target = some_quasar(drawn, pair)
    hdu = drawn.choice(sorted(NULLABLE))
    columns = find(split(pair.file(FILE_OF[hdu])), hdu).columns()
    floats = [
        name for name in NULLABLE[hdu] if name in columns and columns[name][1].base.kind == "f" and name != "COEFF"
    ]
    if target is None or not floats:
        return None
    column = drawn.choice(floats)
    value = drawn.choice((np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45))
    expect = Expect(("same", CHANGED), columns=(column.lower(),), rows=(target,))
    return in_cell(drawn, pair, hdu, column, value, target, expect)


@mutation
def pixels_impossible(drawn: Drawn, pair: Pair) -> Mutant | None:
    """Flux NaN or infinite, ivar NaN, infinite or negative: the pixel has ivar 0, and nothing else changes."""
    target = some_quasar(drawn, pair)
    names = {part.name for part in split(pair.coadd)}
    cameras = [camera for camera in "BRZ" if f"{camera}_FLUX" in names]
    if target is None:
        return None
    camera, n = drawn.choice(cameras), drawn.choice((1, 3, 200))
    what = drawn.choice(("FLUX", "IVAR"))
    values = (np.nan, np.inf, -np.inf) if what == "FLUX" else (np.nan, np.inf, -np.inf, -1.0, -1e30)
    value = drawn.choice(values)
    row = row_of(find(split(pair.coadd), "FIBERMAP"), target)
    n_wave = find(split(pair.coadd), f"{camera}_FLUX").number("NAXIS1")
    pixels = [drawn.randrange(n_wave) for _ in range(n)]

    def put(hdu: str, new: float) -> Callable[[list[Part]], None]:
        def edit(parts: list[Part]) -> None:
            part = find(parts, hdu)
            image = part.image()
            image[row, pixels] = new
            part.put_image(image)

        return edit

    like = pair.having("coadd", edited(pair.coadd, put(f"{camera}_IVAR", 0.0)))
    text = f"{n} pixels of {camera}_{what} of {target} are {value}"
    expect = Expect((CHANGED,), like=like)
    return in_some_way(drawn, text, "coadd", pair, put(f"{camera}_{what}", value), expect)


@mutation
def pixels_huge(drawn: Drawn, pair: Pair) -> Mutant | None:
    """Huge and tiny fluxes and weights: that row stays finite, and no other changes."""
    target = some_quasar(drawn, pair)
    if target is None:
        return None
    row = row_of(find(split(pair.coadd), "FIBERMAP"), target)
    flux, ivar = drawn.choice(((3e38, 3e38), (-3e38, 1e-38), (1e-45, 1e-45), (1e30, 1.0), (1e-30, 1e30), (0.0, 1.0)))
    names = {part.name for part in split(pair.coadd)}

    def put(parts: list[Part]) -> None:
        for camera in "BRZ":
            for what, value in (("FLUX", flux), ("IVAR", ivar)):
                if f"{camera}_{what}" in names:
                    part = find(parts, f"{camera}_{what}")
                    image = part.image()
                    image[row] = value
                    part.put_image(image)

    columns = ("flux", "ivar", "snr", "snr_b", "snr_r", "snr_z", "n_good")
    expect = Expect((CHANGED,), rows=(target,), columns=columns)
    return in_some_way(drawn, f"flux {flux}, ivar {ivar} in all of {target}", "coadd", pair, put, expect)


@mutation
def row_dead(drawn: Drawn, pair: Pair) -> Mutant | None:
    """All ivar of a row is 0, negative or NaN, all flux is NaN, or every pixel is masked: dropped as no_data."""
    target = some_quasar(drawn, pair)
    if target is None:
        return None
    row = row_of(find(split(pair.coadd), "FIBERMAP"), target)
    what, value = drawn.choice(
        (("IVAR", 0.0), ("IVAR", -0.0), ("IVAR", -1.0), ("IVAR", np.nan), ("FLUX", np.nan), ("MASK", 4))
    )

    def kill(parts: list[Part]) -> None:
        for part in parts:
            if part.name.endswith(f"_{what}"):
                image = part.image()
                image[row] = value
                part.put_image(image)

    expect = Expect((CHANGED,), gone={target: "no_data"})
    return in_some_way(drawn, f"all {what} of {target} is {value}", "coadd", pair, kill, expect)


@mutation
def rows_shuffled(drawn: Drawn, pair: Pair) -> Mutant:
    """The rows of one file are in another order: nothing changes."""
    which = drawn.choice(("coadd", "redrock"))
    n_rows = find(split(pair.file(which)), "FIBERMAP" if which == "coadd" else "REDSHIFTS").n_rows
    order = drawn.sample(range(n_rows), n_rows)

    def shuffle(parts: list[Part]) -> None:
        for part in parts:
            if part.name.endswith(("FLUX", "IVAR", "MASK", "RESOLUTION")) or part.name in (
                "REDSHIFTS",
                "FIBERMAP",
                "SCORES",
                "TSNR2",
            ):
                part.take_rows(order)

    raw = edited(pair.file(which), shuffle)
    return Mutant(f"{which}: rows {order}", which, pair.having(which, raw), UNCHANGED)


@mutation
def targetid_elsewhere(drawn: Drawn, pair: Pair) -> Mutant | None:
    """A TARGETID of one file is not in the other: its row is dropped and counted, no row gets another row's redshift."""
    target = some_quasar(drawn, pair)
    if target is None:
        return None
    hdu = drawn.choice(("REDSHIFTS", "FIBERMAP"))
    value = drawn.choice((0, -1, 2**63 - 1, -(2**63), target + 1, 123))
    expect = Expect((CHANGED,), gone={target: "not_in_coadd"})
    if hdu == "FIBERMAP":  # the row's exposures and scores are not those of the new name either
        expect = Expect((CHANGED,), gone={target: "not_in_coadd"})
    return in_cell(drawn, pair, hdu, "TARGETID", value, target, expect)


@mutation
def targetid_doubled(drawn: Drawn, pair: Pair) -> Mutant | None:
    """A second row has the TARGETID of a quasar: the first row of each file counts, the second is dropped."""
    target = some_quasar(drawn, pair)
    hdu = drawn.choice(("REDSHIFTS", "FIBERMAP"))
    part = find(split(pair.file(FILE_OF[hdu])), hdu)
    if target is None or part.n_rows < 2:
        return None
    values = part.column("TARGETID")
    first = row_of(part, target)
    later = range(first + 1, part.n_rows)
    if not later:
        return None
    row = drawn.choice(later)
    lost = int(values[row])
    reason = "duplicate" if hdu == "REDSHIFTS" else "not_in_coadd"
    gone = {lost: reason} if lost in quasars(pair) else {}

    def double(parts: list[Part]) -> None:
        edit = find(parts, hdu)
        new = edit.column("TARGETID")
        new[row] = target
        edit.put_column("TARGETID", new)

    expect = Expect((CHANGED if gone else "same",), gone=gone)
    what = f"{hdu}: row {row} has the TARGETID of row {first}"
    return in_some_way(drawn, what, FILE_OF[hdu], pair, double, expect)


@mutation
def rows_repeated(drawn: Drawn, pair: Pair) -> Mutant:
    """Every row of the redrock file stands twice, or some are missing: the first counts, the missing are counted."""
    rows = find(split(pair.redrock), "REDSHIFTS")
    n_rows = rows.n_rows
    targets = [int(t) for t in rows.column("TARGETID")]
    if drawn.random() < 0.5 or n_rows < 2:
        order, gone, what = [*range(n_rows), *range(n_rows)], {}, "every row twice"
    else:
        order = sorted(drawn.sample(range(n_rows), n_rows - 1))
        left_out = ({*range(n_rows)} - {*order}).pop()
        gone = {targets[left_out]: "not_in_redrock"} if targets[left_out] in quasars(pair) else {}
        what = f"without row {left_out}"

    def take(parts: list[Part]) -> None:
        find(parts, "REDSHIFTS").take_rows(order)

    expect = Expect((CHANGED if gone else "same",), gone=gone)
    return in_some_way(drawn, what, "redrock", pair, take, expect)


@mutation
def hostile_text(drawn: Drawn, pair: Pair) -> Mutant | None:
    """Escape sequences, markup, formulas and control characters in texts: kept as data, and nothing else changes."""
    target = some_quasar(drawn, pair)
    if target is None:
        return None
    hdu, column = drawn.choice((("REDSHIFTS", "SUBTYPE"), ("FIBERMAP", "MORPHTYPE"), ("FIBERMAP", "PHOTSYS")))
    value = drawn.choice(EVIL).encode()
    expect = Expect(("same", CHANGED), columns=(column.lower(),), rows=(target,))
    return in_cell(drawn, pair, hdu, column, value, target, expect)


@mutation
def column_missing(drawn: Drawn, pair: Pair) -> Mutant:
    """A column has another name: null where it may lack, else refused by its name."""
    hdu = drawn.choice(sorted(FILE_OF))
    part = find(split(pair.file(FILE_OF[hdu])), hdu)
    wanted = [name for name in (*NULLABLE[hdu], *REQUIRED.get(hdu, ())) if name in part.columns()]
    column = drawn.choice(wanted)
    number = part.columns()[column][0]

    def rename(parts: list[Part]) -> None:
        find(parts, hdu).put(f"TTYPE{number}", "SOMETHING")

    if column in REQUIRED.get(hdu, ()):
        expect = refused(column)
    else:
        expect = Expect(("same", CHANGED), columns=(column.lower(),))
    return in_some_way(drawn, f"{hdu} without {column}", FILE_OF[hdu], pair, rename, expect)


@mutation
def column_doubled(drawn: Drawn, pair: Pair) -> Mutant:
    """Two columns have the name of one that is read: refused by its name."""
    hdu = drawn.choice(sorted(FILE_OF))
    part = find(split(pair.file(FILE_OF[hdu])), hdu)
    wanted = [name for name in (*NULLABLE[hdu], *REQUIRED.get(hdu, ())) if name in part.columns()]
    column = drawn.choice(wanted)
    unread = [i for name, (i, _, _) in part.columns().items() if name not in wanted]
    free = unread or [i for name, (i, _, _) in part.columns().items() if name not in (column, *REQUIRED.get(hdu, ()))]
    number = drawn.choice(free)

    def rename(parts: list[Part]) -> None:
        find(parts, hdu).put(f"TTYPE{number}", drawn.choice((column, column.lower())))

    return in_some_way(drawn, f"{hdu} {column} twice", FILE_OF[hdu], pair, rename, refused(column))


@mutation
def column_of_another_type(drawn: Drawn, pair: Pair) -> Mutant:
    """The form of a column that is read names another kind of value of the same width: refused by its name."""
    hdu = drawn.choice(sorted(FILE_OF))
    part = find(split(pair.file(FILE_OF[hdu])), hdu)
    positions = ("TARGET_RA", "TARGET_DEC", "COADD_FIBERSTATUS", "OBJTYPE") if hdu == "FIBERMAP" else ()
    wanted = [n for n in (*NULLABLE[hdu], *REQUIRED.get(hdu, ()), *positions) if n in part.columns()]
    column = drawn.choice(wanted)
    number, dtype, _ = part.columns()[column]
    size = dtype.itemsize
    forms = {"f": {4: ("J", "4A", "4B", "32X", "2I"), 8: ("K", "8A", "2E", "64X", "C", "1PE(1)")},
             "i": {2: ("2A", "16X", "2B"), 4: ("E", "4A", "2I"), 8: ("D", "8A", "2J", "64X", "1PJ(3)")}}  # fmt: skip
    form = f"{size}{drawn.choice('BL')}"
    if column == "COEFF":
        form = drawn.choice(("80A", "80B", "10K", "20J", "640X", "5M"))
    elif dtype.kind in forms:
        form = drawn.choice(forms[dtype.kind][size])

    def retype(parts: list[Part]) -> None:
        find(parts, hdu).put(f"TFORM{number}", form)

    what = f"{hdu} {column} has form {form}"
    return in_some_way(drawn, what, FILE_OF[hdu], pair, retype, refused(column))


@mutation
def form_impossible(drawn: Drawn, pair: Pair) -> Mutant:
    """A TFORM that is no form, or of another width: refused by its HDU."""
    hdu = drawn.choice(("FIBERMAP", "REDSHIFTS"))
    part = find(split(pair.file(FILE_OF[hdu])), hdu)
    number = drawn.randint(1, part.number("TFIELDS"))
    form = drawn.choice(
        ("", "Z", "999999999D", "0K", "-1K", "K K", "12345678901K", "k", "1.5E", "QQ", "2147483647A", "3M")
    )

    def put(parts: list[Part]) -> None:
        find(parts, hdu).put(f"TFORM{number}", form)

    return in_some_way(drawn, f"{hdu} TFORM{number} = {form!r}", FILE_OF[hdu], pair, put, refused(hdu))


@mutation
def column_scaled(drawn: Drawn, pair: Pair) -> Mutant:
    """TSCAL, TZERO or TNULL that are nonsense: refused, or values that stay finite."""
    hdu = drawn.choice(sorted(FILE_OF))
    part = find(split(pair.file(FILE_OF[hdu])), hdu)
    number = drawn.randint(1, part.number("TFIELDS"))
    key = drawn.choice(("TSCAL", "TZERO", "TNULL"))
    value = drawn.choice((b"'x'", b"T", b"NaN", b"1E999", b"1E308", b"0", b"-1", b"99999999999999999999999"))

    def put(parts: list[Part]) -> None:
        find(parts, hdu).put(f"{key}{number}", value.rjust(20))

    what = f"{hdu} {key}{number} = {value.decode()}"
    return in_some_way(drawn, what, FILE_OF[hdu], pair, put, Expect((ANY,)))


@mutation
def wavelength_wrong(drawn: Drawn, pair: Pair) -> Mutant:
    """Wavelengths that are not DESI's: shifted, scaled, NaN, reversed, of another camera."""
    names = {part.name for part in split(pair.coadd)}
    name = drawn.choice([f"{camera}_WAVELENGTH" for camera in "BRZ" if f"{camera}_WAVELENGTH" in names])
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "shifted by 0.4 Å": lambda wave: wave + 0.4,
        "shifted below the grid": lambda wave: wave - 8000,
        "shifted above the grid": lambda wave: wave + 8000,
        "in nm": lambda wave: wave / 10,
        "NaN": lambda wave: wave * np.nan,
        "one NaN": lambda wave: np.where(np.arange(len(wave)) == 5, np.nan, wave),
        "one infinite": lambda wave: np.where(np.arange(len(wave)) == 5, np.inf, wave),
        "reversed": lambda wave: wave[::-1],
        "all zero": lambda wave: wave * 0,
        "huge": lambda wave: wave * 1e300,
        "redshifted": lambda wave: wave * 1.001,
    }
    what = drawn.choice(sorted(ways))

    def put(parts: list[Part]) -> None:
        part = find(parts, name)
        n = part.number("NAXIS1")
        wave = np.frombuffer(part.data, ">f8", n)
        new = np.ascontiguousarray(ways[what](wave), ">f8").tobytes()
        part.data = new.ljust(len(part.data), b"\0")

    return in_some_way(drawn, f"{name} {what}", "coadd", pair, put, refused(name))


@mutation
def pixel_empty(drawn: Drawn, pair: Pair) -> Mutant:
    """No quasar, or no row at all: an empty, valid table."""
    if drawn.random() < 0.5:

        def empty(parts: list[Part]) -> None:
            for part in parts:
                if part.name.endswith(("FLUX", "IVAR", "MASK", "RESOLUTION")) or part.text("XTENSION") == "BINTABLE":
                    part.take_rows([])

        both = Pair(pair.pixel, edited(pair.coadd, empty), edited(pair.redrock, empty))
        gone = dict.fromkeys(quasars(pair), "")
        return Mutant("no row at all", "coadd", both, Expect((CHANGED, "same"), gone=gone))

    def no_quasar(parts: list[Part]) -> None:
        part = find(parts, "REDSHIFTS")
        part.put_column("SPECTYPE", np.full(part.n_rows, b"GALAXY"))

    gone = dict.fromkeys(quasars(pair), "spectype")
    raw = edited(pair.redrock, no_quasar)
    return Mutant("no quasar", "redrock", pair.having("redrock", raw), Expect((CHANGED, "same"), gone=gone))
