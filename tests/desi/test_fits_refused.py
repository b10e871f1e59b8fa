"""Files that must be refused, at once, with little memory and with one kind of error."""

from __future__ import annotations

import gzip
import os
import random
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from qad.desi.fits import FitsFile
from qad.errors import InputError


def card(key: str, value: object) -> bytes:
    text = f"{'T' if value is True else value:>20}" if not isinstance(value, str) else f"'{value:<8}'"
    return f"{key:<8}= {text}".ljust(80).encode()


def header(*cards: tuple[str, object]) -> bytes:
    raw = b"".join(card(*item) for item in cards) + b"END".ljust(80)
    return raw.ljust(-(-len(raw) // 2880) * 2880)


PRIMARY = header(("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0), ("EXTEND", True))


def image(*, bitpix: object = -32, axes: tuple[object, ...] = (4, 3), name: str = "B_FLUX", **more: object) -> bytes:
    cards = [("XTENSION", "IMAGE"), ("BITPIX", bitpix), ("NAXIS", len(axes))]
    cards += [(f"NAXIS{i}", n) for i, n in enumerate(axes, 1)]
    cards += [("PCOUNT", more.pop("pcount", 0)), ("GCOUNT", more.pop("gcount", 1)), ("EXTNAME", name)]
    return header(*cards, *more.items())


def table(*, width: object = 8, rows: object = 3, fields: object = 1, form: str = "K", **more: object) -> bytes:
    return header(
        ("XTENSION", "BINTABLE"), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", width), ("NAXIS2", rows),
        ("PCOUNT", more.pop("pcount", 0)), ("GCOUNT", more.pop("gcount", 1)), ("TFIELDS", fields),
        ("TFORM1", form), ("TTYPE1", "TARGETID"), ("EXTNAME", "FIBERMAP"), *more.items(),
    )  # fmt: skip


DATA = bytes(2880)
REFUSED = {
    "empty": b"",
    "html": b"<!DOCTYPE html><html><body>Log in</body></html>".ljust(2880),
    "text": b"no such key".ljust(2880),
    "gzip": gzip.compress(PRIMARY),
    "short header": PRIMARY[:1000],
    "simple false": PRIMARY.replace(b"= " + b"T".rjust(20), b"= " + b"F".rjust(20), 1),
    "no END": PRIMARY.replace(b"END", b"ENX"),
    "binary header": PRIMARY.replace(b"EXTEND", b"EXT\xff\x00D"),
    "no data": PRIMARY + image(),
    "cut data": PRIMARY + image() + DATA[:-1],
    "huge axis": PRIMARY + image(axes=(2**62, 2**62)),
    "more digits than a number": PRIMARY + image(axes=("9" * 30, 1)),
    "negative axis": PRIMARY + image(axes=(-4, 3)) + DATA,
    "two negative axes": PRIMARY + image(axes=(-4, -3)) + DATA,
    "many axes": PRIMARY + header(("XTENSION", "IMAGE"), ("BITPIX", 8), ("NAXIS", 999)),
    "negative naxis": PRIMARY + header(("XTENSION", "IMAGE"), ("BITPIX", 8), ("NAXIS", -1)),
    "missing axis": PRIMARY + header(("XTENSION", "IMAGE"), ("BITPIX", 8), ("NAXIS", 1), ("PCOUNT", 0)),
    "axis is text": PRIMARY + image(axes=("four", 3)) + DATA,
    "bitpix 7": PRIMARY + image(bitpix=7) + DATA,
    "negative gcount": PRIMARY + image(gcount=-1) + DATA,
    "many groups": PRIMARY + image(gcount=2**40) + DATA,
    "negative pcount": PRIMARY + table(pcount=-(2**40)) + DATA,
    "image with a heap": PRIMARY + image(pcount=2880) + DATA,
    "huge heap": PRIMARY + table(pcount=2**60) + DATA,
    "huge tfields": PRIMARY + table(fields=2**31) + DATA,
    "negative tfields": PRIMARY + table(fields=-1) + DATA,
    "table of floats": PRIMARY + table().replace(b"BITPIX  =                    8", b"BITPIX  =                  -32") + DATA,
    "unknown extension": PRIMARY + image().replace(b"'IMAGE   '", b"'DUMP    '") + DATA,
    "axis twice": PRIMARY + image(NAXIS1=9) .replace(b"PCOUNT  =                    0", b"NAXIS1  =                    9") + DATA,
    "name twice": PRIMARY + (image() + DATA) * 2,
    "name twice in another case": PRIMARY + image() + DATA + image(name="b_flux") + DATA,
    "junk after the last HDU": PRIMARY + image() + DATA + b"junk".ljust(2880),
    "a few bytes after the last HDU": PRIMARY + image() + DATA + b"junk",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file_is_refused_before_memory_is_asked_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / "coadd.fits"
    path.write_bytes(REFUSED[name])
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            FitsFile(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10e6
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG_TABLES = {
    "width differs from the columns": table(width=9),
    "unknown form": table(form="Z"),
    "form is nonsense": table(form="8 8K"),
    "form repeats for ever": table(form="999999999K"),
    "form has more digits": table(form="9" * 30 + "K"),
    "form is missing": table().replace(b"TFORM1 ", b"TFORMX "),
    "fewer columns than told": table(fields=2),
}


@pytest.mark.parametrize("name", WRONG_TABLES)
def test_a_table_whose_columns_are_nonsense_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "coadd.fits"
    path.write_bytes(PRIMARY + WRONG_TABLES[name] + DATA)
    with FitsFile(path) as file, pytest.raises(InputError, match="FIBERMAP"):
        file.table("FIBERMAP")


@pytest.mark.parametrize(
    ("hdu", "name"),
    [
        (image(axes=(0, 2**62)), "B_FLUX"),
        (table(width=0, rows=2**62, fields=0), "FIBERMAP"),
        (table(width=0, rows=2**62, form="0A"), "FIBERMAP"),
    ],
)
def test_rows_without_a_byte_are_refused(tmp_path: Path, hdu: bytes, name: str) -> None:
    """A file of any size can claim any number of them; found by the fuzzer, which got 1.4 GB out of 6 kB."""
    path = tmp_path / "coadd.fits"
    path.write_bytes(PRIMARY + hdu)
    with FitsFile(path) as file, pytest.raises(InputError, match=rf"{name}: has \d+ rows without"):
        file.image(name) if name == "B_FLUX" else file.table(name)


def test_a_sparse_file_as_large_as_its_header_claims_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "coadd.fits"
    path.write_bytes(PRIMARY + table(rows=2**33))
    os.truncate(path, 2880 * 2 + -(-(2**36) // 2880) * 2880)
    with FitsFile(path) as file, pytest.raises(InputError, match="too large"):
        file.table("FIBERMAP")
    path.write_bytes(PRIMARY + image(axes=(2**31, 8)))
    os.truncate(path, 2880 * 2 + -(-(2**36) // 2880) * 2880)
    with FitsFile(path) as file, pytest.raises(InputError, match="too large"):
        file.image("B_FLUX", np.array([0]))


def test_a_header_without_end_stops_at_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "coadd.fits"
    path.write_bytes(b"SIMPLE  =                    T".ljust(80) + b"COMMENT".ljust(80) * 36 * 1100)
    with pytest.raises(InputError, match=r"without END|cut off"):
        FitsFile(path)


def test_thousands_of_hdus_stop_at_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "coadd.fits"
    path.write_bytes(PRIMARY + b"".join(image(axes=(), name=f"N{i}") for i in range(1200)))
    with pytest.raises(InputError, match="HDUs"):
        FitsFile(path)


def test_headers_of_many_megabytes_stop_at_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "coadd.fits"
    one = image(axes=(), name="N0").partition(b"END")[0] + b"COMMENT".ljust(80) * 36 * 900 + b"END".ljust(80)
    one = one.ljust(-(-len(one) // 2880) * 2880)
    path.write_bytes(PRIMARY + b"".join(one.replace(b"'N0 ", f"'N{i} ".encode()) for i in range(5)))
    with pytest.raises(InputError, match="headers of more than"):
        FitsFile(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "coadd.fits")
    with pytest.raises(InputError):
        FitsFile(tmp_path / "coadd.fits")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        FitsFile(tmp_path / "absent.fits")


def small_file(path: Path) -> bytes:
    """Write a small FITS file with all that a coadd has, and return its bytes."""
    columns = [
        fits.Column("TARGETID", "K", array=np.array([5, -3, 2**60])),
        fits.Column("OBJTYPE", "3A", array=["TGT", "SKY", ""]),
        fits.Column("COEFF", "10D", array=np.ones((3, 10)), dim="(10)"),
    ]
    flux = np.arange(12, dtype=np.float32).reshape(3, 4)
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.BinTableHDU.from_columns(columns, name="FIBERMAP"),
            fits.ImageHDU(flux, name="B_FLUX"),
            fits.ImageHDU(flux.astype(np.uint32), name="B_MASK"),
            fits.CompImageHDU(flux.astype(np.int32), name="R_MASK"),
        ]
    ).writeto(path, checksum=True)
    return path.read_bytes()


def read_all(path: Path, verify: bool) -> None:
    with FitsFile(path, verify) as file:
        for hdu in file.hdus[1:]:
            if hdu.kind == "table":
                rows = file.table(hdu.name)
                for name in ("TARGETID", "OBJTYPE", "COEFF"):
                    rows.column(name)
            elif hdu.name:
                file.image(hdu.name)


@pytest.mark.parametrize("verify", [True, False])
def test_no_flipped_byte_makes_anything_but_our_error(tmp_path: Path, verify: bool) -> None:
    original = small_file(tmp_path / "good.fits")
    chance = random.Random(20260101 + verify)
    places = [i for i, byte in enumerate(original) if byte not in (0, 32)]
    path = tmp_path / "mutant.fits"
    n_refused = 0
    for _ in range(400):
        mutant = bytearray(original)
        for place in chance.sample(places, chance.choice((1, 1, 1, 2, 5))):
            mutant[place] = chance.choice((mutant[place] ^ 1 << chance.randrange(8), chance.randrange(256), 45, 57))
        path.write_bytes(mutant)
        try:
            read_all(path, verify)
        except InputError:
            n_refused += 1
    if verify:
        assert n_refused > 380, "checksums must find nearly all (a flip may restore the byte)"


def test_every_flipped_bit_of_a_file_with_checksums_is_found(tmp_path: Path) -> None:
    original = small_file(tmp_path / "good.fits")
    chance = random.Random(7)
    path = tmp_path / "mutant.fits"
    with FitsFile(tmp_path / "good.fits") as file:
        hdu = file.hdu("B_FLUX")
        places = [hdu.offset + i for i in range(hdu.n_bytes)]
    places += chance.sample(range(len(original)), 200)
    # a checksum card whose keyword is spoilt is no checksum card any more; nothing that is read has changed
    keywords = [m.start() for m in re.finditer(b"(CHECKSUM|DATASUM )= ", original)]
    for place in places:
        if any(start <= place < start + 10 for start in keywords):
            continue
        mutant = bytearray(original)
        mutant[place] ^= 1 << chance.randrange(8)
        path.write_bytes(mutant)
        with pytest.raises(InputError):
            read_all(path, True)


def test_an_hdu_without_data_has_a_datasum_too(tmp_path: Path) -> None:
    path = tmp_path / "coadd.fits"
    for datasum in ("0", "1234567890"):
        path.write_bytes(header(("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0), ("DATASUM", datasum)))
        with FitsFile(path) as file:
            if datasum == "0":
                file.check_data()
            else:
                with pytest.raises(InputError, match="do not match their DATASUM"):
                    file.check_data()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ZCMPTYPE", "GZIP_1"),  # expands a thousandfold
        ("ZCMPTYPE", "PLIO_1"),  # astropy's decoder reads beyond the end of a damaged tile
        ("ZVAL1", 10**9),
        ("ZVAL2", 10**9),  # crashes astropy's decoder, and the process with it
        ("ZVAL2", 3),
        ("TFIELDS", 0),
        ("TTYPE1", "GZIP_COMPRESSED_DATA"),
        ("TFORM1", "1PE(3)"),
    ],
)
def test_tiles_that_their_decoder_cannot_be_trusted_with_are_refused(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "coadd.fits"
    mask = np.arange(12, dtype=np.int32).reshape(3, 4)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(mask, name="B_MASK")]).writeto(path)
    raw = path.read_bytes()
    start = raw.index(f"{key:<8}=".encode())
    path.write_bytes(raw[:start] + card(key, value) + raw[start + 80 :])
    with FitsFile(path) as file, pytest.raises(InputError, match="B_MASK"):
        file.image("B_MASK")


def test_every_truncation_is_found(tmp_path: Path) -> None:
    original = small_file(tmp_path / "good.fits")
    path = tmp_path / "cut.fits"
    for n_bytes in [*range(0, len(original), 777), len(original) - 1]:
        path.write_bytes(original[:n_bytes])
        if n_bytes % 2880 == 0 and n_bytes:
            # a cut between two HDUs leaves a valid file: the HDU that lacks is missed by name
            continue
        with pytest.raises(InputError):
            FitsFile(path)
