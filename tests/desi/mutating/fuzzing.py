"""A target for fuzzers: small files to begin with, what is done with a file, and a mutator that knows of cards.

An input is a byte of options, then the file.
"""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from qad.desi.cards import header_block, padded
from qad.desi.coadd import CoaddFile, read_cut
from qad.desi.columns import TableRows
from qad.desi.fits import FitsFile, walk_hdus
from qad.desi.redrock import read_fibermap, read_redshifts
from qad.errors import InputError

VERIFY, CHECK_DATA, FEW_BYTES = 1, 2, 4
"""Bits of the options."""
CARD, BLOCK = 80, 2880
KEYS = (
    "SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "PCOUNT", "GCOUNT", "GROUPS", "TFIELDS", "TFORM1",
    "TTYPE1", "TNULL1", "TSCAL1", "TZERO1", "TFORM2", "EXTNAME", "CHECKSUM", "DATASUM", "BZERO", "BSCALE", "ZIMAGE", "ZTABLE",
    "ZCMPTYPE", "ZBITPIX", "ZNAXIS", "ZNAXIS1", "ZNAXIS2", "ZTILE1", "ZNAME1", "ZVAL1", "QADMODE", "QADSHA", "END",
)  # fmt: skip
VALUES = (
    "0", "1", "-1", "2", "3", "4", "8", "16", "32", "64", "-32", "-64", "999", "1000", "2147483648", "9223372036854775807",
    "99999999999999999999", "T", "F", "1.5", "1E308", "1E999", "NaN", "''", "'IMAGE   '", "'BINTABLE'", "'TABLE   '", "'K'", "'E'",
    "'3A'", "'11X'", "'0D'", "'1PB(3)'", "'1QJ'", "'999999999K'", "'FIBERMAP'", "'B_FLUX'", "'B_MASK'", "'REDSHIFTS'", "'rows'", "'RICE_1'",
)  # fmt: skip


def _image(name: str, values: np.ndarray, **more: Any) -> bytes:
    bitpix = {"f4": -32, "f8": -64, "i4": 32, "i2": 16, "u1": 8, "i8": 64}[values.dtype.str[1:]]
    axes = {f"NAXIS{i}": n for i, n in enumerate(reversed(values.shape), 1)}
    cards = {"XTENSION": "IMAGE", "BITPIX": bitpix, "NAXIS": values.ndim, **axes, "PCOUNT": 0, "GCOUNT": 1}
    return header_block({**cards, "EXTNAME": name, **more}) + _padded(values)


def _table(name: str, rows: np.ndarray, forms: dict[str, str], **more: Any) -> bytes:
    columns = {
        key: value
        for i, (column, form) in enumerate(forms.items(), 1)
        for key, value in ((f"TTYPE{i}", column), (f"TFORM{i}", form))
    }
    sizes = {"BITPIX": 8, "NAXIS": 2, "NAXIS1": rows.dtype.itemsize, "NAXIS2": len(rows), "PCOUNT": 0, "GCOUNT": 1}
    cards = {"XTENSION": "BINTABLE", **sizes, "TFIELDS": len(forms), **columns, "EXTNAME": name, **more}
    return header_block(cards) + _padded(rows)


def _padded(values: np.ndarray) -> bytes:
    raw = values.tobytes()
    return raw.ljust(-(-len(raw) // BLOCK) * BLOCK, b"\0")


PRIMARY = header_block({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True})


def seeds() -> list[bytes]:
    """Return inputs to begin with: a coadd and a redrock file of three rows, and every form of image and column."""
    n, n_wave = 3, 5
    ids = np.array([(5, b"TGT", 1.5), (-3, b"SKY", np.nan), (2**60, b"", 0)], [("a", ">i8"), ("b", "S3"), ("c", ">f8")])
    fibermap = _table("FIBERMAP", ids, {"TARGETID": "K", "OBJTYPE": "3A", "TARGET_RA": "D"}, TNULL1=5)
    plane = np.arange(n * n_wave, dtype=">f4").reshape(n, n_wave)
    coadd = [PRIMARY, fibermap]
    for camera, start in (("B", 3600.0), ("R", 5760.0), ("Z", 7520.0)):
        coadd.append(_image(f"{camera}_WAVELENGTH", (start + 0.8 * np.arange(n_wave)).astype(">f8")))
        coadd += [_image(f"{camera}_{what}", plane) for what in ("FLUX", "IVAR")]
        coadd.append(_image(f"{camera}_MASK", plane.astype(">i4")))
    fits = np.zeros(n, [("a", ">i8"), ("z", ">f8"), ("w", ">i8"), ("s", "S6"), ("c", ">f8", (10,))])
    forms = {"TARGETID": "K", "Z": "D", "ZWARN": "K", "SPECTYPE": "6A", "COEFF": "10D"}
    redrock = PRIMARY + _table("REDSHIFTS", fits, forms, TNULL3=999999) + fibermap
    mixed = np.zeros(
        n, [(f"f{i}", t) for i, t in enumerate(("i1", "u1", ">i2", ">i4", ">f4", ">c8", "V2", "V8", ">c16"))]
    )
    mixed_forms = {f"X{i}": form for i, form in enumerate(("L", "B", "I", "J", "E", "C", "11X", "1PE(3)", "M"))}
    table = _table("MIXED", mixed, mixed_forms, TZERO3=32768, TSCAL4=0.5, TZERO5=1.0)
    images = [_image(f"I{t}", np.ones((2, 3), t)) for t in ("u1", ">i2", ">i4", ">i8", ">f4", ">f8")]
    scaled = [_image("S", np.ones((2, 3), ">i2"), BZERO=32768), _image("T", np.ones(4, ">i4"), BSCALE=0.1, BZERO=2.0)]
    cut = header_block({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "QADMODE": "rows", "QADSHA": "0" * 64, "QADSEL": "x"})
    files = [
        b"".join(coadd), redrock, PRIMARY + table, PRIMARY + b"".join(images), PRIMARY + b"".join(scaled),
        cut + fibermap, PRIMARY, PRIMARY + fibermap[: BLOCK * 2 - 1], _tiled(plane.astype(np.int32)), _sealed(), b"", b"<html>",
    ]  # fmt: skip
    return [bytes([options]) + file for file in files for options in (0, VERIFY | CHECK_DATA)]


def _tiled(mask: np.ndarray) -> bytes:
    from astropy.io import fits

    raw = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(mask, name="B_MASK")]).writeto(raw)
    return raw.getvalue()


def _sealed() -> bytes:
    from astropy.io import fits

    raw = io.BytesIO()
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.ones((2, 3), np.float32), name="B_FLUX")]
    fits.HDUList(hdus).writeto(raw, checksum=True)
    return raw.getvalue()


def explore(data: bytes, path: Path) -> None:
    """Do with a file whatever qad does with one; InputError is the only error that is foreseen."""
    options, raw = (data[0], data[1:]) if data else (0, b"")
    path.write_bytes(raw)
    for look in (_look_into, _look_at_coadd, _look_at_redrock, _walk):
        try:
            look(path, options)
        except InputError as error:
            text = str(error)
            assert str(path) in text, text
            assert text.isprintable(), text


def _look_into(path: Path, options: int) -> None:
    with FitsFile(path, bool(options & VERIFY)) as file:
        if options & CHECK_DATA:
            file.check_data()
        for hdu in file.hdus:
            try:
                if hdu.kind == "table":
                    _look_at_columns(file.table(hdu.name))
                elif hdu.name:
                    shape = file.image_shape(hdu.name)
                    limit = 1000 if options & FEW_BYTES else 1 << 20
                    file.image(hdu.name, max_bytes=limit)
                    file.image(hdu.name, np.array([shape[0] - 1, 0]))
                    file.image(hdu.name, np.array([shape[0]]))
            except InputError:
                continue


def _look_at_columns(table: TableRows) -> None:
    for name in ("TARGETID", "OBJTYPE", "TARGET_RA", "COEFF", *(f"X{i}" for i in range(9))):
        for read in (table.column, table.texts, table.reals):
            try:
                read(name)
            except InputError:
                continue
        for dtype in (np.int64, np.int16, np.float32):
            try:
                table.numbers(name, dtype, any_kind=True)
            except InputError:
                continue


def _look_at_coadd(path: Path, options: int) -> None:
    read_cut(path)
    with CoaddFile(path, bool(options & VERIFY)) as coadd:
        coadd.specprod()
        coadd.fibermap({"TARGET_RA": np.float64})
        coadd.first_exposures({"NIGHT": np.int32}, coadd.targetid)
        coadd.scores({"TSNR2_QSO": np.float32}, coadd.targetid)
        for name in "brz":
            coadd.camera(name, np.arange(len(coadd.targetid)))


def _look_at_redrock(path: Path, options: int) -> None:
    found = read_redshifts(path, bool(options & VERIFY))
    read_fibermap(path, {"TARGET_RA": np.float64}, found.targetid, bool(options & VERIFY))


def _walk(path: Path, _: int) -> None:
    raw = path.read_bytes()
    assert len(list(walk_hdus(lambda start, n: raw[start : start + n], len(raw), path))) > 0


def mutated(data: bytes, drawn: random.Random) -> bytes:
    """Return an input of which a card, a block or some bytes are other than they were."""
    raw = bytearray(data[1:])
    options = drawn.randrange(8) if drawn.random() < 0.2 or not data else data[0]
    for _ in range(drawn.choice((1, 1, 2, 4))):
        n_cards = len(raw) // CARD
        used = [
            i
            for i in range(n_cards)
            if raw[i * CARD : i * CARD + 8].strip() and raw[i * CARD + 8 : i * CARD + 10] == b"= "
        ]
        way = drawn.randrange(8)
        if way <= 3 and used:
            start = drawn.choice(used) * CARD
            key = bytes(raw[start : start + 8]) if way < 3 else drawn.choice(KEYS).ljust(8).encode()
            value = drawn.choice(VALUES) if way != 1 else str(drawn.randrange(-2, 100))
            raw[start : start + CARD] = (key + b"= " + value.rjust(20).encode()).ljust(CARD)[:CARD]
        elif way == 4 and used:
            start, other = drawn.choice(used) * CARD, drawn.choice(used) * CARD
            raw[start : start + CARD] = raw[other : other + CARD]
        elif way == 5 and raw:
            start = drawn.randrange(len(raw) // BLOCK + 1) * BLOCK
            other = drawn.randrange(len(raw) // BLOCK + 1) * BLOCK
            block = raw[other : other + BLOCK]
            raw[start:start] = block if drawn.random() < 0.5 else b""
            if drawn.random() < 0.5:
                del raw[other : other + BLOCK]
        elif way == 6 and raw:
            del raw[drawn.randrange(len(raw)) :]
            if drawn.random() < 0.7:
                raw = bytearray(padded(bytes(raw)))
        elif raw:
            raw[drawn.randrange(len(raw))] = drawn.randrange(256)
    return bytes([options]) + bytes(raw)


def read_corpus(path: Path) -> list[bytes]:
    """Return the inputs of a corpus: a zip file."""
    with zipfile.ZipFile(path) as corpus:
        return [corpus.read(name) for name in sorted(corpus.namelist())]


def write_corpus(path: Path, inputs: list[bytes]) -> None:
    """Write a corpus, the same bytes for the same inputs."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as corpus:
        for i, data in enumerate(sorted(inputs, key=lambda item: (len(item), item))):
            corpus.writestr(zipfile.ZipInfo(f"{i:04}"), data, zipfile.ZIP_DEFLATED, 9)
