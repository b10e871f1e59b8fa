"""Reading agrees with astropy, on real files and on made ones."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qad.desi.checksum import DataSum, data_sum
from qad.desi.fits import FitsFile
from qad.errors import InputError

REAL = (
    "real/desi/edr/spectro/redux/fuji/healpix/sv3/dark/91/9144/coadd-sv3-dark-9144.fits",
    "real/desi/edr/spectro/redux/fuji/healpix/sv3/dark/260/26065/coadd-sv3-dark-26065.fits",
    "real/desi/edr/spectro/redux/fuji/tiles/cumulative/80693/20210204/coadd-2-80693-thru20210204.fits",
    "real/desi/dr1/spectro/redux/iron/tiles/cumulative/80613/20210324/coadd-4-80613-thru20210324.fits",
    "real/desi/dr1/spectro/redux/iron/tiles/cumulative/80613/20210324/redrock-4-80613-thru20210324.fits",
    "real/desi/dr2/spectro/redux/loa/healpix/special/dark/272/27247/coadd-special-dark-27247.fits",
    "real/desi/dr2/spectro/redux/loa/healpix/special/dark/272/27247/redrock-special-dark-27247.fits",
    "real/desi/other/redrock-0-100-thru20210505-test.fits",
    "real/desi/other/quasarnp_test_coadd.fits",
    "release/spectro/redux/iron/healpix/main/bright/0/47/coadd-main-bright-47.fits",
    "release/spectro/redux/iron/healpix/main/dark/0/47/redrock-main-dark-47.fits",
)


@pytest.mark.parametrize("name", REAL)
def test_real_files_of_four_productions_read_as_astropy_reads_them(shared_data: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        with FitsFile(shared_data / name) as file, fits.open(shared_data / name) as expected:
            assert [hdu.name for hdu in file.hdus[1:]] == [hdu.name for hdu in expected[1:]]
            for hdu in file.hdus[1:]:
                if hdu.kind == "table":
                    _same_table(file, hdu.name, expected[hdu.index])
                elif not hdu.name.endswith("RESOLUTION"):
                    np.testing.assert_array_equal(file.image(hdu.name), expected[hdu.index].data)


def _same_table(file: FitsFile, name: str, expected: fits.BinTableHDU) -> None:
    table = file.table(name)
    for column in expected.columns:
        values = expected.data[column.name]
        if column.format == "L":
            with pytest.raises(InputError, match="form L"):
                table.column(column.name)
        elif values.dtype.kind == "U":
            assert table.texts(column.name) == [text.rstrip() for text in values.tolist()]
        else:
            np.testing.assert_array_equal(table.column(column.name).data, values)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fits")


@settings(max_examples=40, deadline=None)
@given(data=hnp.arrays(np.uint32, st.integers(0, 5000)))
def test_datasum_is_that_of_astropy_however_it_is_cut(data: np.ndarray) -> None:
    raw = data.astype(">u4").tobytes()
    raw = raw.ljust(-(-len(raw) // 2880) * 2880, b"\0")
    words = np.frombuffer(raw, np.uint8)
    expected = int(fits.ImageHDU()._compute_checksum(words)) % (2**32 - 1)
    total = DataSum()
    for start in range(0, len(raw), 2880 * 3):
        total.add(memoryview(raw)[start : start + 2880 * 3])
    assert total.value == data_sum(raw) == expected


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 30)),
    kind=st.sampled_from(["f4", "f8", "i2", "i4", "u1", "u2", "u4"]),
    verify=st.booleans(),
    data=st.data(),
)
def test_wanted_rows_are_the_rows_whatever_their_order(
    scratch: Path, shape: tuple[int, int], kind: str, verify: bool, data: st.DataObject
) -> None:
    values = np.random.default_rng(shape[0]).integers(0, 250, shape).astype(kind)
    path = scratch / "rows.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(values, name="B_FLUX")]).writeto(
        path, overwrite=True, checksum=verify
    )
    rows = np.array(data.draw(st.lists(st.integers(0, shape[0] - 1), max_size=50)), int)
    with FitsFile(path, verify) as file:
        found = file.image("B_FLUX", rows)
        np.testing.assert_array_equal(found, values[rows])
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(file.image("B_FLUX"), values)


def test_rows_of_an_image_larger_than_a_chunk(scratch: Path) -> None:
    values = np.arange(700 * 2751, dtype=np.float32).reshape(700, 2751)
    path = scratch / "large.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(values, name="B_FLUX")]).writeto(path, checksum=True)
    rows = np.array([699, 0, 190, 191, 381, 382, 5, 5])
    for verify in (True, False):
        with FitsFile(path, verify) as file:
            np.testing.assert_array_equal(file.image("B_FLUX", rows), values[rows])


def test_a_row_that_is_not_there_is_an_error(scratch: Path) -> None:
    path = scratch / "three.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((3, 4)), name="B_FLUX")]).writeto(path)
    with FitsFile(path) as file, pytest.raises(InputError, match="row 3 is wanted"):
        file.image("B_FLUX", np.array([3]))


def test_tables_with_null_unsigned_scaled_and_vector_columns(scratch: Path) -> None:
    columns = [
        fits.Column("TARGETID", "K", array=np.array([2**60, -5, 999]), null=999),
        fits.Column("BIG", "J", bzero=2**31, array=np.array([0, 2**31, 2**32 - 1], np.uint32)),
        fits.Column("VECTOR", "4E", dim="(2,2)", array=np.arange(12, dtype=np.float32).reshape(3, 2, 2)),
        fits.Column("TEXT", "12A", array=np.array(["QSO", "a b ", "\x1b[31m<b>"])),
        fits.Column("FLAG", "L", array=np.array([True, False, True])),
        fits.Column("BITS", "11X", array=np.zeros((3, 11), bool)),
        fits.Column("NUMBER", "D", array=np.array([1.5, np.nan, np.inf])),
    ]
    path = scratch / "table.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="T")]).writeto(path, checksum=True)
    with FitsFile(path) as file:
        table = file.table("T")
        assert table.numbers("TARGETID", np.int64).tolist() == [2**60, -5, None]
        assert table.column("BIG").tolist() == [0, 2**31, 2**32 - 1]
        assert table.column("VECTOR").reshape(3, 4).tolist() == np.arange(12.0).reshape(3, 4).tolist()
        assert table.texts("TEXT") == ["QSO", "a b", "\x1b[31m<b>"]
        assert table.texts("TEXT", np.array([2, 0])) == ["\x1b[31m<b>", "QSO"]
        assert table.numbers("NUMBER", np.float64).tolist() == [1.5, None, None]
        assert "FLAG" in table
        assert "ABSENT" not in table
        for name, reason in (("FLAG", "form L"), ("BITS", "form X"), ("ABSENT", "is missing")):
            with pytest.raises(InputError, match=reason):
                table.column(name)
        with pytest.raises(InputError, match="expected text"):
            table.texts("NUMBER")
        with pytest.raises(InputError, match="expected int64"):
            table.numbers("TEXT", np.int64)


def test_scaled_columns_and_images_come_as_floats(scratch: Path) -> None:
    path = scratch / "scaled.fits"
    columns = [fits.Column(name, "I", array=np.array([0, 1, 2])) for name in ("SHORT", "SPARE")]
    image = fits.ImageHDU(np.array([[0, 1, 2]], np.int16), name="B_FLUX")
    image.header["ASCALE"] = 0.5
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="T"), image]).writeto(path)
    raw = path.read_bytes()
    for old, new in (("TTYPE2  = 'SPARE   '", "TSCAL1  =        5.0E-01"), ("ASCALE  =", "BSCALE  =")):
        assert raw.count(old.encode()) == 1
        raw = raw.replace(old.encode().ljust(24), new.encode().ljust(24))
    path.write_bytes(raw)
    with FitsFile(path) as file:
        assert file.table("T").column("SHORT").tolist() == [0.0, 0.5, 1.0]
        assert file.image("B_FLUX").tolist() == [[0.0, 0.5, 1.0]]


def test_numbers_that_do_not_fit_their_type_are_null(scratch: Path) -> None:
    columns = [
        fits.Column("LONG", "K", array=np.array([1, 2**40, -(2**40)])),
        fits.Column("FLOAT", "D", array=np.array([1.0, 1e300, 3e9])),
        fits.Column("UNSIGNED", "K", bzero=2**63, array=np.array([1, 2**64 - 1, 2**63], np.uint64)),
    ]
    path = scratch / "range.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="T")]).writeto(path)
    with FitsFile(path) as file:
        table = file.table("T")
        assert table.numbers("LONG", np.int32).tolist() == [1, None, None]
        assert table.numbers("FLOAT", np.float32).tolist() == [1.0, None, 3e9]
        assert table.numbers("FLOAT", np.int32, any_kind=True).tolist() == [1, None, None]
        assert table.numbers("UNSIGNED", np.int64).tolist() == [1, None, None]


def test_numbers_of_another_kind_and_vectors_do_not_stand_for_a_column_of_numbers(scratch: Path) -> None:
    columns = [
        fits.Column("WHOLE", "J", array=np.array([1, 2])),
        fits.Column("REAL", "E", array=np.array([1.5, 2.5])),
        fits.Column("PAIRS", "2E", array=np.ones((2, 2))),
        fits.Column("TEXT", "8A", array=["a", "b"]),
    ]
    path = scratch / "kinds.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="T")]).writeto(path)
    with FitsFile(path) as file:
        table = file.table("T")
        for name, dtype, found in (
            ("WHOLE", np.float32, "int32"),
            ("REAL", np.int32, "float32"),
            ("PAIRS", np.float32, "float32 vectors"),
        ):
            with pytest.raises(InputError, match=f"T: column {name} holds {found}, expected {np.dtype(dtype)}"):
                table.numbers(name, dtype)
        assert table.numbers("WHOLE", np.float64, any_kind=True).tolist() == [1.0, 2.0]
        assert table.reals("PAIRS").shape == (2, 2)
        for name in ("WHOLE", "TEXT"):
            with pytest.raises(InputError, match=f"column {name} holds .*, expected real numbers"):
                table.reals(name)


def test_text_that_is_not_utf8_stays_visible(scratch: Path) -> None:
    path = scratch / "bytes.fits"
    rows = np.array([(b"\xff\xfeQSO",), (b"A\0B",)], dtype=[("TEXT", "S6")])
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(rows, name="T")]).writeto(path)
    with FitsFile(path) as file:
        assert file.table("T").texts("TEXT") == ["\\xff\\xfeQSO", "A"]


@pytest.mark.parametrize("name", ["B_MASK", "T"])
def test_an_hdu_of_another_kind_is_refused(scratch: Path, name: str) -> None:
    path = scratch / "kinds.fits"
    columns = [fits.Column("A", "K", array=np.arange(3))]
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 3)), name="B_MASK")]
    fits.HDUList([*hdus, fits.BinTableHDU.from_columns(columns, name="T")]).writeto(path, overwrite=True)
    with FitsFile(path) as file:
        with pytest.raises(InputError, match=name):
            file.image(name) if name == "T" else file.table(name)
        with pytest.raises(InputError, match="ABSENT is missing"):
            file.table("ABSENT")


def test_a_column_that_stands_twice_is_refused_only_when_it_is_read(scratch: Path) -> None:
    path = scratch / "twice.fits"
    columns = [fits.Column(name, "K", array=np.arange(3)) for name in ("AAA", "BBB", "CCC")]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="T")]).writeto(path)
    path.write_bytes(path.read_bytes().replace(b"'BBB ", b"'aaa "))
    with FitsFile(path) as file:
        assert file.table("T").column("CCC").tolist() == [0, 1, 2]
        with pytest.raises(InputError, match="stands twice"):
            file.table("T").column("AAA")


class TestTiledMasks:
    """Some older DESI files keep masks as tile-compressed images."""

    def test_a_rice_mask_reads_as_it_was(self, scratch: Path) -> None:
        mask = np.random.default_rng(1).integers(0, 2**11, (9, 300)).astype(np.int32)
        path = scratch / "rice.fits"
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(mask, name="B_MASK")]).writeto(path, checksum=True)
        with FitsFile(path) as file:
            assert file.hdu("B_MASK").kind == "compressed"
            assert file.image_shape("B_MASK") == (9, 300)
            rows = np.array([8, 2, 2])
            np.testing.assert_array_equal(file.image("B_MASK", rows), mask[rows])

    def test_an_unsigned_mask_reads_as_it_was(self, scratch: Path) -> None:
        mask = (2**31 + np.arange(60, dtype=np.uint32)).reshape(3, 20)
        path = scratch / "unsigned.fits"
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(mask, name="B_MASK")]).writeto(path)
        with FitsFile(path) as file:
            np.testing.assert_array_equal(file.image("B_MASK"), mask)

    @pytest.mark.parametrize("codec", ["GZIP_1", "HCOMPRESS_1"])
    def test_a_codec_that_can_expand_without_bound_is_refused(self, scratch: Path, codec: str) -> None:
        mask = np.zeros((32, 320), np.int32)
        path = scratch / f"{codec}.fits"
        hdu = fits.CompImageHDU(mask, name="B_MASK", compression_type=codec, tile_shape=(32, 320))
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
        with FitsFile(path) as file, pytest.raises(InputError, match=codec):
            file.image("B_MASK")

    def test_a_shape_that_lies_is_refused_before_memory_is_asked_for(self, scratch: Path) -> None:
        mask = np.zeros((4, 30), np.int32)
        path = scratch / "lies.fits"
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(mask, name="B_MASK")]).writeto(path)
        raw = path.read_bytes()
        for lie in (b"999999999", b"       -4", b"        5"):
            spoilt = raw.replace(b"ZNAXIS2 =                    4", b"ZNAXIS2 =            " + lie)
            assert spoilt != raw
            (scratch / "lie.fits").write_bytes(spoilt)
            with FitsFile(scratch / "lie.fits") as file, pytest.raises(InputError, match="B_MASK"):
                file.image("B_MASK")

    def test_damaged_tiles_are_our_error(self, scratch: Path) -> None:
        mask = np.random.default_rng(1).integers(0, 2**30, (9, 300)).astype(np.int32)
        path = scratch / "damaged.fits"
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(mask, name="B_MASK")]).writeto(path, checksum=True)
        with FitsFile(path) as file:
            offset = file.hdu("B_MASK").offset
        raw = bytearray(path.read_bytes())
        raw[offset : offset + 72] = b"\xff" * 72
        path.write_bytes(raw)
        with FitsFile(path) as file, pytest.raises(InputError, match="DATASUM"):
            file.image("B_MASK")
        with FitsFile(path, verify=False) as file, pytest.raises(InputError, match="B_MASK"):
            file.image("B_MASK")


def test_a_wrong_datasum_is_refused_unless_not_verified(scratch: Path) -> None:
    path = scratch / "sum.fits"
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    columns = [fits.Column("A", "K", array=np.arange(3))]
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(values, name="B_FLUX"), fits.BinTableHDU.from_columns(columns, name="T")]
    fits.HDUList(hdus).writeto(path, checksum=True)
    raw = bytearray(path.read_bytes())
    with FitsFile(path) as file:
        for name in ("B_FLUX", "T"):
            raw[file.hdu(name).offset + 3] ^= 1
    path.write_bytes(raw)
    with FitsFile(path) as file:
        for read in (lambda: file.image("B_FLUX", np.array([2])), lambda: file.table("T")):
            with pytest.raises(InputError, match="DATASUM"):
                read()
    with FitsFile(path, verify=False) as file:
        assert file.image("B_FLUX")[2, 3] == 11
        assert file.table("T").column("A").tolist() == [1, 1, 2] or len(file.table("T")) == 3


def test_a_changed_header_is_found_by_its_checksum(scratch: Path) -> None:
    path = scratch / "header.fits"
    hdu = fits.ImageHDU(np.zeros((3, 4)), name="B_FLUX")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, checksum=True)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"'B_FLUX  '", b"'B_FLUY  '"))
    with pytest.raises(InputError, match="CHECKSUM"):
        FitsFile(path)
    with FitsFile(path, verify=False) as file:
        assert "B_FLUY" in file


@pytest.mark.parametrize("text", ["12x", "-4", "99999999999", "²"])
def test_a_datasum_that_is_no_number_is_refused(scratch: Path, text: str) -> None:
    from qad.desi.header import Header, expected_datasum

    raw = (f"DATASUM = '{text}'".encode("ascii", "replace").ljust(80) + b"END".ljust(80)).ljust(2880)
    with pytest.raises(InputError, match="DATASUM"):
        expected_datasum(Header(raw, "x.fits", "B_FLUX"))


def test_header_values_are_typed() -> None:
    from qad.desi.header import Header

    cards = [
        "I       =                  -12 / an integer",
        "F       =              1.5D+03 / a number",
        "L       =                    F",
        "S       = 'it''s  '           / a text",
        "EMPTY   =",
    ]
    raw = b"".join(card.ljust(80).encode() for card in [*cards, "END"]).ljust(2880)
    header = Header(raw, "x.fits", "B_FLUX")
    assert header.integer("I") == -12
    assert header.number("F") == 1500.0
    assert header.logical("L") is False
    assert header.text("S") == "it's"
    assert header.shown("I") == "-12"
    assert header.shown("ABSENT") == ""
    assert header.integer("ABSENT", 3) == 3
    assert header.number("ABSENT", 1.0) == 1.0
    for read in (header.integer, header.number, header.logical, header.text):
        with pytest.raises(InputError, match="is missing"):
            read("ABSENT")
        with pytest.raises(InputError, match="EMPTY"):
            read("EMPTY")


def _forget(path: Path) -> None:
    """Write a file to disk and drop it from memory."""
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


@pytest.fixture(scope="module")
def plane(scratch: Path) -> tuple[Path, np.ndarray]:
    image = np.random.default_rng(1).normal(size=(1300, 2751)).astype(np.float32)
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image, name="B_FLUX")])
    hdus.writeto(scratch / "plane.fits", checksum=True)
    return scratch / "plane.fits", image


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 1299), max_size=300), st.integers(1, 40), st.booleans(), st.booleans())
def test_rows_are_the_rows_however_many_wherever_they_lie(
    plane: tuple[Path, np.ndarray], some: list[int], step: int, verify: bool, cold: bool
) -> None:
    path, image = plane
    for rows in (np.array(some, np.int64), np.arange(0, 1300, step)):
        if cold:
            _forget(path)
        with FitsFile(path, verify) as file:
            np.testing.assert_array_equal(file.image("B_FLUX", rows), image[rows])


@pytest.mark.parametrize("kept_rows", [200.5, 1000.0])
@pytest.mark.parametrize("rows", [np.arange(0, 1300, 7), np.arange(0, 1300, 2), np.arange(1300), None])
def test_file_cut_off_while_it_is_open_is_refused(
    plane: tuple[Path, np.ndarray], tmp_path: Path, kept_rows: float, rows: np.ndarray | None
) -> None:
    copy = tmp_path / "cut.fits"
    copy.write_bytes(plane[0].read_bytes())
    for verify in (True, False):
        with FitsFile(copy, verify) as file:
            os.truncate(copy, int(file.hdu("B_FLUX").offset + kept_rows * 2751 * 4))
            with pytest.raises(InputError, match="cut off while it was read"):
                file.image("B_FLUX", rows)
        copy.write_bytes(plane[0].read_bytes())
