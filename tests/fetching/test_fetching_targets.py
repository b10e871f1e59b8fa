"""Tables of targets: what they list, in which pixels it may lie, and which rows are chosen."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.desi.layout import pixel_folder, redrock_name
from qad.desi.redrock import read_redshifts
from qad.desi.sky import healpix_of
from qad.desi.targetid import brick_of
from qad.errors import InputError
from qad.fetching.catalogue import is_table, open_tables
from qad.fetching.choice import RedrockRows
from qad.fetching.local import LocalSource
from qad.fetching.nearby import pixels_near
from qad.fetching.plan import make_plan
from qad.fetching.retry import Patience
from qad.fetching.target_table import read_pixels, read_targets
from qad.fetching.targets import ByTarget, Tally, Targets
from qad.fetching.wanted import Wanted
from qad.work.units import Pixel

FIRST = 39627866878511337
"""A TARGETID of DR1: 17 digits, two more than a float holds."""
Columns = Mapping[str, Any]


def write_fits(path: Path, columns: Columns) -> Path:
    Table(dict(columns)).write(path.with_suffix(".fits"), overwrite=True)
    return path.with_suffix(".fits")


def write_parquet(path: Path, columns: Columns) -> Path:
    pl.DataFrame(dict(columns)).write_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def write_csv(path: Path, columns: Columns) -> Path:
    pl.DataFrame(dict(columns)).write_csv(path.with_suffix(".csv"))
    return path.with_suffix(".csv")


WRITERS = [write_fits, write_parquet, write_csv]
Writer = Callable[[Path, Columns], Path]


def rows_of(targetid: list[int], ra: list[float] | None = None, dec: list[float] | None = None) -> RedrockRows:
    n = len(targetid)
    nothing = [np.nan] * n
    return RedrockRows(
        np.array(targetid, np.int64),
        ["GALAXY"] * n,
        np.zeros(n, np.int64),
        np.array(ra or nothing, float),
        np.array(dec or nothing, float),
    )


def zcatalog() -> dict[str, Any]:
    return {
        "TARGETID": np.array([FIRST, FIRST + 1, FIRST + 2, FIRST + 3, FIRST]),
        "SURVEY": ["main", "main", "sv3", "main", "main"],
        "PROGRAM": ["dark", "dark", "bright", "dark", "bright"],
        "HEALPIX": np.array([100, 100, 200, 300, 100]),
        "SPECTYPE": ["QSO", "GALAXY", "QSO", "QSO", "QSO"],
        "ZWARN": np.array([0, 0, 0, 4, 0]),
        "Z": np.array([1.0, 2.0, 3.0, 0.5, 1.0]),
    }


@pytest.mark.parametrize("write", WRITERS)
def test_a_zcatalog_lists_its_quasars_where_it_says_they_are(write: Writer, tmp_path: Path) -> None:
    targets = read_targets(write(tmp_path / "zcat", zcatalog()))
    assert targets.counts["rows"] == 5
    assert targets.counts["dropped.other_class"] == 2
    assert targets.counts["listed"] == 3
    assert targets.listed().numbers == {("main", "dark"): (100,), ("sv3", "bright"): (200,), ("main", "bright"): (100,)}
    assert targets.is_exact
    choice = ByTarget(targets)
    rows = rows_of([FIRST + 1, FIRST, FIRST + 2])
    assert choice.wanted(Pixel("main", "dark", 100), rows).tolist() == [False, True, False]
    assert choice.wanted(Pixel("sv3", "bright", 200), rows).tolist() == [False, False, True]
    # listed, but not for this pixel
    assert not choice.wanted(Pixel("main", "dark", 101), rows).any()
    assert not choice.wanted(Pixel("sv3", "dark", 200), rows).any()
    assert read_targets(write(tmp_path / "zcat", zcatalog()), ("GALAXY", "QSO"), 4).counts["listed"] == 5


@pytest.mark.parametrize("write", WRITERS)
def test_without_a_class_every_row_counts_and_names_are_found_in_any_case(write: Writer, tmp_path: Path) -> None:
    columns = {name.lower(): values for name, values in zcatalog().items() if name != "ZWARN"}
    assert read_targets(write(tmp_path / "list", columns)).counts["listed"] == 5


@pytest.mark.parametrize("write", WRITERS)
@given(targetid=st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=30, unique=True))
@settings(deadline=None, max_examples=15)
def test_no_bit_of_a_targetid_is_ever_lost(
    write: Writer, targetid: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.mktemp("ids") / "ids", {"TARGETID": np.array(targetid, np.int64)})
    assert read_targets(path).targetid.tolist() == targetid  # type: ignore[union-attr]


@pytest.mark.parametrize("write", [write_fits, write_parquet])
def test_a_targetid_that_was_a_float_is_refused(write: Writer, tmp_path: Path) -> None:
    path = write(tmp_path / "bad", {"TARGETID": np.array([float(FIRST)]), "Z": [1.0]})
    with pytest.raises(InputError, match=r"column TARGETID is .*floating point.*save it as 64-bit integers") as caught:
        read_targets(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["3.9627866878511337e+16", "39627866878511337.0"])
def test_a_targetid_written_as_a_float_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"TARGETID,Z\n{FIRST},1\n{text},2\n")
    with pytest.raises(InputError, match=r"column TARGETID is .*save it as 64-bit integers"):
        read_targets(tmp_path / "a.csv")


def test_bare_lists_need_no_header(tmp_path: Path) -> None:
    ids, places = tmp_path / "ids.txt", tmp_path / "places.csv"
    ids.write_text(f"# my targets\n{FIRST}\n{FIRST + 1}\n")
    assert read_targets(ids).targetid.tolist() == [FIRST, FIRST + 1]  # type: ignore[union-attr]
    places.write_text("150.1,2.2\n359.99,-5\n")
    targets = read_targets(places)
    assert targets.targetid is None
    assert targets.name(1) == "359.990000 -5.000000"


def test_targetids_kept_as_text_are_exact(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a", {"TARGETID": [str(FIRST), str(FIRST + 2)]})
    assert read_targets(path).targetid.tolist() == [FIRST, FIRST + 2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\x1f\x8b\x08abc", "gunzip it first"),
        (b"<html><body>", "HTML or XML"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"PK\x03\x04", "zip"),
        (b"# only this\n", "no header line"),
        (b"TARGETID\n", "lists no target: 0 rows"),
        (b"NAME,Z\nx,1\n", r"neither a column TARGETID nor positions .*there are NAME, Z"),
        (b"TARGETID\nabc\n", "column TARGETID: 'abc' is not a number"),
        (b"RA,DEC\n10h30m,2\n", "column RA: '10h30m' is not a number of degrees"),
        (b"RA,DEC\n400,2\nnan,2\n10,95\n", "lists no target: 3 rows, 3 bad_position"),
        (b"TARGETID,SURVEY\n5,../x\n", "lists no target: 1 rows, 1 bad_survey"),
        (b"TARGETID,HEALPIX\n5,49152\n", "lists no target: 1 rows, 1 bad_healpix"),
        (b"TARGETID,targetid\n5,6\n", "TARGETID is there 2 times"),
        (b"1,2,3\n4,5,6\n", "no header line"),
        (b"SIMPLE  =                    T", "cut off"),
        (b"PAR1garbage", "not a readable Parquet file"),
        (b"a\0b", "neither FITS, Parquet nor text"),
        (b"TARGETID,Z\n5\n", "not a readable CSV file"),
    ],
)
def test_what_is_no_list_of_targets_is_refused_in_one_line(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "targets"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_targets(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_targets(tmp_path / "nowhere")


def test_bad_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("RA,DEC\n10,2\n,\nnan,3\n-20,4\n361,0\n10,-91\n")
    targets = read_targets(path)
    assert (targets.counts["listed"], targets.counts["dropped.bad_position"]) == (2, 4)
    path.write_text(f"TARGETID,RA,DEC\n{FIRST},nan,3\n,1,2\n-5,10,20\n-6,,\n")
    targets = read_targets(path)
    assert targets.counts["dropped.no_targetid"] == 1
    assert targets.counts["listed"] == 3
    assert targets.counts["unplaced"] == 1  # -6: neither its position nor its number tells a place
    assert len(targets.of_pixel(Pixel("main", "dark", int(healpix_of(np.array([10.0]), np.array([20.0]))[0])))) == 1


def test_a_list_without_places_looks_where_the_numbers_may_lie(tmp_path: Path) -> None:
    ra, dec = np.array([150.0, 10.0, 359.999]), np.array([2.0, -8.3, 31.0])
    targetid = np.int64(9010) << 42 | brick_of(ra, dec) << 22 | np.arange(3)
    targets = read_targets(write_csv(tmp_path / "ids", {"TARGETID": [*targetid.tolist(), -4]}))
    assert not targets.is_exact
    assert targets.counts["unplaced"] == 1
    (numbers,) = targets.listed().numbers.values()
    assert set(healpix_of(ra, dec).tolist()) <= set(numbers)


def test_a_catalogue_of_observations_lists_each_target_once(tmp_path: Path) -> None:
    columns = {"TARGETID": [FIRST] * 3 + [FIRST + 1], "TARGET_RA": [10.0] * 4, "TARGET_DEC": [1.0] * 4}
    targets = read_targets(write_parquet(tmp_path / "a", columns))
    assert targets.targetid is not None
    assert targets.targetid.tolist() == [FIRST, FIRST + 1]
    assert targets.counts["rows"] == 4


def test_a_real_quasar_catalogue_finds_its_targets_in_the_real_release(shared_data: Path, tmp_path: Path) -> None:
    healpix = shared_data / "release/spectro/redux/iron/healpix"
    found = set()
    for name in ("healpix", "tile"):
        path = tmp_path / f"{name}.fits"
        path.write_bytes(
            gzip.decompress((shared_data / f"real/desi/catalogs/QSO_cat_fuji_dark_{name}.fits.gz").read_bytes())
        )
        targets = read_targets(path)
        wanted = Wanted(listed=targets.listed())
        plan = make_plan(LocalSource(healpix), wanted, Patience(0, ""), 2)
        choice, tally = ByTarget(targets), Tally(targets, wanted)
        for files in plan.pixels:
            listed = read_redshifts(pixel_folder(healpix, files.pixel) / redrock_name(files.pixel)).targetid
            rows = rows_of(listed.tolist())
            assert choice.wanted(files.pixel, rows).sum() == len(choice.matched(files.pixel, rows))
            tally.found(choice.matched(files.pixel, rows))
            found |= {(str(files.pixel), int(t)) for t in listed[choice.wanted(files.pixel, rows)]}
        assert len(tally.missing()) == len(targets) - len({t for _, t in found} & set(targets.targetid.tolist()))  # type: ignore[union-attr]
    assert {pixel for pixel, _ in found} == {"sv3/dark/9144", "sv1/dark/8139"}
    assert len(found) == 12  # all ten of the tile, both of 9144


# ---------------------------------------------------------------- positions


RADII = st.floats(0.05, 30)


@settings(deadline=None, max_examples=200)
@given(
    st.floats(0, 360, exclude_max=True) | st.sampled_from([0.0, 359.9999999, 45.0, 90.0]),
    st.floats(-90, 90) | st.sampled_from([-90.0, 90.0, 89.99999, 0.0, 41.8103149]),
    RADII,
    st.floats(0, 2 * np.pi),
    st.floats(0, 1),
)
def test_the_pixel_of_whatever_lies_within_the_radius_is_looked_into(
    ra: float, dec: float, radius: float, bearing: float, share: float
) -> None:
    there = offset(ra, dec, radius * share, bearing)
    _, pixels = pixels_near(np.array([ra]), np.array([dec]), radius)
    assert int(healpix_of(*(np.array([value]) for value in there))[0]) in pixels.tolist()
    assert len(pixels) <= 8


def offset(ra: float, dec: float, distance_arcsec: float, bearing: float) -> tuple[float, float]:
    """The place at a distance and bearing, by spherical trigonometry."""
    distance, delta = np.radians(distance_arcsec / 3600), np.radians(dec)
    sine = np.sin(delta) * np.cos(distance) + np.cos(delta) * np.sin(distance) * np.cos(bearing)
    new = np.arcsin(np.clip(sine, -1, 1))
    turn = np.arctan2(
        np.sin(bearing) * np.sin(distance) * np.cos(delta), np.cos(distance) - np.sin(delta) * np.sin(new)
    )
    return float((ra + np.degrees(turn)) % 360), float(np.degrees(new))


@settings(deadline=None, max_examples=100)
@given(
    st.floats(0, 360, exclude_max=True) | st.sampled_from([0.0, 359.99999]),
    st.floats(-89.9, 89.9),
    st.floats(0.1, 20),
    st.floats(0, 2 * np.pi),
    st.floats(0, 0.98) | st.floats(1.02, 3),
)
def test_a_row_is_chosen_if_it_lies_within_the_radius(
    ra: float, dec: float, radius: float, bearing: float, share: float
) -> None:
    targets = made_targets([ra], [dec], radius)
    there = offset(ra, dec, radius * share, bearing)
    pixel = Pixel("main", "dark", int(healpix_of(*(np.array([value]) for value in there))[0]))
    choice, rows = ByTarget(targets), rows_of([5], [there[0]], [there[1]])
    assert choice.wanted(pixel, rows).tolist() == [share < 1]
    assert len(choice.matched(pixel, rows)) == (share < 1)


def made_targets(ra: list[float], dec: list[float], radius: float) -> Targets:
    rows, healpix = pixels_near(np.array(ra), np.array(dec), max(radius, 1.0))
    order = np.argsort(healpix, kind="stable")
    tree = np.zeros(len(ra), np.int32)
    trees = (("", ""),)
    return Targets(
        Path("made"), None, np.array(ra), np.array(dec), trees, tree, rows[order], healpix[order], False, radius, {}
    )


def test_a_row_without_a_position_is_never_near() -> None:
    choice = ByTarget(made_targets([10.0], [20.0], 1.0))
    pixel = Pixel("main", "dark", int(choice.targets.healpix[0]))
    assert choice.wanted(pixel, rows_of([1, 2], [np.nan, 10.0], [20.0, 20.0])).tolist() == [False, True]
    assert choice.wanted(pixel, rows_of([])).tolist() == []


# ---------------------------------------------------------------- signatures and what is missing


@settings(deadline=None, max_examples=40)
@given(
    listed=st.lists(
        st.tuples(st.integers(1, 50), st.sampled_from(["dark", "bright", ""]), st.integers(0, 3)),
        min_size=1,
        max_size=30,
    ),
    random=st.randoms(),
)
def test_a_signature_depends_on_what_is_listed_for_the_pixel_alone(
    listed: list[tuple[int, str, int]], random: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("signatures")

    def signature(rows: list[tuple[int, str, int]]) -> str:
        targetid, program, healpix = zip(*rows, strict=True)
        columns = {"TARGETID": list(targetid), "PROGRAM": list(program), "HEALPIX": list(healpix)}
        return ByTarget(read_targets(write_parquet(folder / "a", columns))).signature(Pixel("main", "dark", 0))

    mixed = list(listed)
    random.shuffle(mixed)
    elsewhere = [row for row in listed if row[2] != 0 or row[1] == "bright"]
    assert signature(mixed + listed[:1]) == signature(listed)  # order and repetition do not count
    assert signature([*listed, (99, "dark", 1), (99, "bright", 0)]) == signature(listed)
    assert (signature([*elsewhere, (99, "dark", 0)]) == signature(listed)) is False


def test_a_signature_of_positions_knows_the_radius() -> None:
    pixel = Pixel("main", "dark", int(healpix_of(np.array([10.0]), np.array([20.0]))[0]))
    one, two, wide = (
        ByTarget(made_targets(*args)).signature(pixel)
        for args in (([10.0], [20.0], 1.0), ([10.0, 200.0], [20.0, 3.0], 1.0), ([10.0], [20.0], 2.0))
    )
    assert one == two
    assert one != wide


def test_the_rule_fits_a_header_card(tmp_path: Path) -> None:
    path = write_csv(tmp_path / ("quasärs" * 20), {"TARGETID": [5]})
    text = ByTarget(read_targets(path)).text
    assert len(text) <= 60
    assert text.isascii()


def test_targets_that_no_pixel_held_are_named_once(tmp_path: Path) -> None:
    columns = {
        "TARGETID": [1, 1, 2, 3, -7],
        "SURVEY": ["main", "sv3", "main", "main", "main"],
        "HEALPIX": [10, 10, 10, 11, 12],
    }
    targets = read_targets(write_csv(tmp_path / "a", columns))
    choice = ByTarget(targets)
    tally = Tally(targets, Wanted())
    tally.found(choice.matched(Pixel("sv3", "dark", 10), rows_of([1, 3])))
    assert [targets.name(i) for i in tally.missing()] == ["-7", "2", "3"]
    tally.untold(Pixel("main", "dark", 11))
    assert [targets.name(i) for i in tally.missing()] == ["-7", "2"]
    assert [targets.name(i) for i in Tally(targets, Wanted(surveys=("sv3",))).missing()] == ["1"]
    assert [targets.name(i) for i in Tally(targets, Wanted(healpix=(11,))).missing()] == ["3"]


# ---------------------------------------------------------------- lists of pixels


@pytest.mark.parametrize("write", WRITERS)
def test_a_table_of_pixels_names_each_once(write: Writer, tmp_path: Path) -> None:
    columns = {"TILEID": [1, 2, 3], "SURVEY": ["main", "main", "sv1"], "PROGRAM": ["dark"] * 3, "HEALPIX": [7, 7, 9]}
    listed = read_pixels(write(tmp_path / "a", columns))
    assert listed.numbers == {("main", "dark"): (7,), ("sv1", "dark"): (9,)}
    assert listed.is_exact
    assert read_pixels(write(tmp_path / "b", {"healpix": [5, 3, 5]})).numbers == {("", ""): (3, 5)}
    with pytest.raises(InputError, match="50000 is no healpix"):
        read_pixels(write(tmp_path / "c", {"HEALPIX": [5, 50_000]}))
    with pytest.raises(InputError, match="no column HEALPIX; there are TILEID"):
        read_pixels(write(tmp_path / "d", {"TILEID": [5]}))


def test_a_plain_list_of_numbers_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "pixels.txt"
    path.write_text("# pixels of the field\n1, 2 3\n")
    assert not is_table(path)
    path.write_text("HEALPIX\n1\n")
    assert is_table(path)
    assert is_table(write_fits(tmp_path / "a", {"HEALPIX": [1]}))


# ---------------------------------------------------------------- large tables


def test_a_wide_table_passes_through_little_memory(tmp_path: Path) -> None:
    n_rows, width = 300_000, 400
    rows = np.zeros(n_rows, [("TARGETID", ">i8"), ("SPECTYPE", "S6"), ("ZWARN", ">i8"), ("FILL", "u1", (width,))])
    rows["TARGETID"] = FIRST + np.arange(n_rows)
    rows["SPECTYPE"][::100] = b"QSO"
    fits.BinTableHDU(rows).writeto(tmp_path / "zall.fits")
    (table,) = open_tables(tmp_path / "zall.fits")
    assert table.n_rows == n_rows
    tracemalloc.start()
    targets = read_targets(tmp_path / "zall.fits")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert targets.counts["listed"] == n_rows // 100
    assert targets.targetid is not None
    assert targets.targetid[1] == FIRST + 100
    assert peak < rows.nbytes / 4


def test_unsigned_and_null_columns_of_fits_are_understood(tmp_path: Path) -> None:
    columns = [
        fits.Column("TARGETID", "K", array=np.array([5, -1, 7]), null=-1),
        fits.Column("HEALPIX", "J", array=np.array([1, 2, 3], np.uint32), bzero=2**31),
        fits.Column("SURVEY", "7A", array=np.array(["main", "sv1    ", "main\0x"])),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    targets = read_targets(tmp_path / "a.fits")
    assert targets.targetid is not None
    assert targets.targetid.tolist() == [5, 7]
    assert targets.healpix.tolist() == [1, 3]
    assert targets.counts["dropped.no_targetid"] == 1
