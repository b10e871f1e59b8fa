"""Planning: listings read fast and right, pixels named by a table, and what a plan would cost."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from list_server import ListServer, etag_of, pixel_keys

from qad.desi.layout import checksum_name, coadd_name, pixel_folder, redrock_name
from qad.desi.redrock import read_redshifts
from qad.errors import InputError, ServiceError
from qad.fetching.choice import ByClass, RedrockRows
from qad.fetching.estimate import count_targets, estimate, rows_bytes, sample_pixels
from qad.fetching.line import Line
from qad.fetching.listing import _quick, read_page
from qad.fetching.local import LocalSource
from qad.fetching.plan import PixelFiles, Plan, make_plan
from qad.fetching.retry import Patience
from qad.fetching.s3 import S3Source, open_source
from qad.fetching.source import RemoteFile, is_safe_key
from qad.fetching.tilepix import read_tilepix
from qad.fetching.wanted import Listed, Wanted
from qad.settings import Fetch
from qad.simulation.release import HEALPIX_FOLDER, simulate
from qad.work.units import Pixel

PREFIX = "dr1/spectro/redux/iron/healpix"
PIXELS = [
    *(Pixel("main", "dark", n) for n in (*range(300, 420), 9144, 26065)),
    *(Pixel("main", "bright", n) for n in range(310, 330)),
    Pixel("sv3", "dark", 26065),
]


@contextmanager
def source_of(server: ListServer, prefix: str = PREFIX) -> Iterator[S3Source]:
    settings = Fetch(endpoint_url=server.url)
    source = open_source(settings, True, f"s3://{server.bucket}/{prefix}", Patience(0, server.url), Line(4))
    try:
        yield source
    finally:
        source.close()


@pytest.fixture(scope="module")
def server() -> Iterator[ListServer]:
    with ListServer(pixel_keys(PREFIX, PIXELS)) as running:
        yield running


def plan_of(server: ListServer, **wanted: object) -> Plan:
    with source_of(server) as source:
        return make_plan(source, Wanted(**wanted), Patience(0, ""), 4)  # type: ignore[arg-type]


def names(plan: Plan) -> list[str]:
    return [str(files.pixel) for files in plan.pixels]


# ---------------------------------------------------------------- listings


def test_every_key_comes_out_of_many_pages_as_it_is(server: ListServer) -> None:
    with source_of(server, "dr1") as source:
        files = source.files("")
        folders = source.folders("spectro/redux/iron/healpix/main/")
    assert [file.key for file in files] == [key.removeprefix("dr1/") for key in server.keys]
    assert [file.etag for file in files[:50]] == [etag_of(key.encode()) for key in server.keys[:50]]
    assert [file.size for file in files[:50]] == [1000 + i for i in range(50)]
    assert folders == ["bright", "dark"]


KEY_TEXT = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20
) | st.sampled_from(["../a", "a//b", "a&b<c>", "a%2Fb", "a+b c", "<Contents>", "é/ü.fits", "x" * 250, "a\nb", "/a"])


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(KEY_TEXT, min_size=1, max_size=30))
def test_odd_keys_are_decoded_and_hostile_ones_refused(keys: set[str]) -> None:
    with ListServer([f"p/{key}" for key in keys]) as server, source_of(server, "p") as source:
        found = [file.key for file in source.files("")]
    proper = {key for key in keys if not key.endswith("/")}
    assert set(found) == {key for key in proper if is_safe_key(key)}
    assert source.refused == sum(not is_safe_key(key) for key in proper)


@pytest.mark.parametrize(
    "text",
    [
        "<Contents><Key>a</Key></Contents>",
        "<Contents><Size>1</Size></Contents>",
        "<Contents><Key>a</Key><Size>-1</Size></Contents>",
        "<Contents><Key>a&amp;b</Key><Size>1</Size></Contents>",
        "<Contents><Key>a</Key><Size>1</Size><Owner><ID>x</ID></Owner></Contents>",
        "<Contents><Key>a</Key><Size>1</Size></Contents><CommonPrefixes/>",
        "<Contents>" + "<Key>a</Key>" * 5000,
    ],
)
def test_a_page_that_is_written_otherwise_is_left_to_the_parser(text: str) -> None:
    assert _quick(text.encode(), 0, len(text)) is None


def test_the_parser_reads_what_the_pattern_does_not() -> None:
    item = "<Contents><Owner><ID>x</ID></Owner><Key>a+b%26c</Key><Size>7</Size><ETag>&quot;e&quot;</ETag></Contents>"
    rest = "<Name>b</Name><IsTruncated>false</IsTruncated>"
    plain = read_page(f"<ListBucketResult>{item}{rest}</ListBucketResult>".encode())
    assert (plain.files, plain.bucket, plain.is_truncated) == ([("a+b%26c", 7, "e")], "b", False)
    coded = read_page(f"<ListBucketResult><EncodingType>url</EncodingType>{item}{rest}</ListBucketResult>".encode())
    assert coded.files == [("a b&c", 7, "e")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "<html><body>log in</body></html>",
        "<ListBucketResult></ListBucketResult>",
        "<ListBucketResult><IsTruncated>maybe</IsTruncated></ListBucketResult>",
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents></ListBucketResult>",
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>1</Size>",
    ],
)
def test_what_is_no_listing_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueError):
        read_page(text.encode())


def test_an_object_is_read_whatever_the_order_of_its_elements() -> None:
    text = b'<Contents><Size>7</Size><ETag>"e-2"</ETag><StorageClass>S</StorageClass><Key>a%20b</Key></Contents>'
    assert _quick(text, 0, len(text)) == [("a%20b", 7, "e-2")]


def test_an_answer_of_something_else_is_no_empty_bucket(server: ListServer) -> None:
    other = ListServer([])
    other.listing = lambda _: b"<html><body>log in</body></html>"  # type: ignore[method-assign]
    with other, source_of(other) as source, pytest.raises(ServiceError, match="proxy or login page"):
        source.files("")


# ---------------------------------------------------------------- plans


def test_a_plan_of_a_listing_holds_each_pixel_with_its_three_files(server: ListServer) -> None:
    plan = plan_of(server)
    assert [files.pixel for files in plan.pixels] == sorted(PIXELS)
    assert all(len(files.all) == 3 and files.is_complete for files in plan.pixels)
    assert (plan.absent, plan.failures) == ((), ())


def test_explicit_pixels_are_found_and_the_ones_without_files_named(server: ListServer) -> None:
    listed = Listed(
        "tilepix.fits",
        {
            ("main", "dark"): (9144, *range(310, 320), 9913),
            ("main", "bright"): (4561,),
            ("sv3", "dark"): (26065,),
            ("special", "other"): (1,),
        },
        True,
    )
    before = server.n_requests
    plan = plan_of(server, listed=listed)
    assert names(plan) == [f"main/dark/{n}" for n in range(310, 320)] + ["main/dark/9144", "sv3/dark/26065"]
    assert set(plan.absent) == {"main/bright/4561", "main/dark/9913", "special/other/1"}
    # one folder of ten pixels, five single pixels: the rest of the bucket is not looked at
    assert server.n_requests - before <= 6
    assert plan.failures == ()


def test_filters_apply_on_top_of_a_list(server: ListServer) -> None:
    listed = Listed("list.csv", {("main", "dark"): (310, 311, 9144), ("main", "bright"): (310, 4561)}, True)
    assert names(plan_of(server, listed=listed, programs=("bright",))) == ["main/bright/310"]
    assert names(plan_of(server, listed=listed, healpix=(310, 312))) == ["main/bright/310", "main/dark/310"]
    assert names(plan_of(server, listed=listed, limit=2)) == ["main/bright/310", "main/dark/310"]
    assert plan_of(server, listed=listed, programs=("dark",)).absent == ()
    with pytest.raises(InputError, match=r"list.csv: names no pixel of sv1; it has main/bright, main/dark"):
        plan_of(server, listed=listed, surveys=("sv1",))


def test_numbers_alone_are_looked_for_in_every_survey_and_program(server: ListServer) -> None:
    plan = plan_of(server, listed=Listed("list", {("", ""): (310, 26065, 5)}, True))
    assert names(plan) == ["main/bright/310", "main/dark/310", "main/dark/26065", "sv3/dark/26065"]
    assert plan.absent == ("5",)
    plan = plan_of(server, listed=Listed("list", {("main", ""): (310, 5), ("sv3", "dark"): (26065,)}, True))
    assert names(plan) == ["main/bright/310", "main/dark/310", "sv3/dark/26065"]
    assert plan.absent == ("main/*/5",)


def test_places_where_something_may_lie_are_not_missed_if_they_hold_nothing(server: ListServer) -> None:
    before = server.n_requests
    plan = plan_of(server, listed=Listed("list", {("", ""): (310, 5, 30_000, 40_000, 45_000)}, False))
    assert names(plan) == ["main/bright/310", "main/dark/310"]
    assert plan.absent == ()
    assert server.n_requests - before <= 1 + 2 + 3 + 2  # root, surveys, groups of three trees, two pixels


def test_a_limit_calls_nothing_absent_that_was_not_looked_for(server: ListServer) -> None:
    numbers = (300, 5000, 9144, 10_000, 11_000, 12_000, 13_000)
    plan = plan_of(server, listed=Listed("list", {("main", "dark"): numbers}, True), limit=1)
    assert names(plan) == ["main/dark/300"]
    assert set(plan.absent) <= {"main/dark/5000", "main/dark/10000"}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.sampled_from([*range(295, 335), 9144, 26065, 40_000]), min_size=1), st.booleans())
def test_what_is_named_is_either_planned_or_absent(server: ListServer, numbers: set[int], is_exact: bool) -> None:
    plan = plan_of(server, listed=Listed("list", {("main", "dark"): tuple(sorted(numbers))}, is_exact))
    there = {pixel.healpix for pixel in PIXELS if pixel.program == "dark" and pixel.survey == "main"}
    assert {files.pixel.healpix for files in plan.pixels} == numbers & there
    assert set(plan.absent) == ({f"main/dark/{n}" for n in numbers - there} if is_exact else set())


TREES = st.dictionaries(
    st.tuples(st.sampled_from(["", "main", "sv1"]), st.sampled_from(["", "dark", "bright"])),
    st.sets(st.integers(0, 6)).map(lambda numbers: tuple(sorted(numbers))),
)


@given(TREES, TREES)
def test_two_lists_together_name_what_both_name(
    one: dict[tuple[str, str], tuple[int, ...]], two: dict[tuple[str, str], tuple[int, ...]]
) -> None:
    first, second = Listed("a", one, True), Listed("b", two, True)
    for tree in (("main", "dark"), ("sv1", "bright"), ("sv3", "dark"), ("sv3", "other")):
        assert first.within(second).of_tree(tree) == first.of_tree(tree) & second.of_tree(tree)


def test_one_file_without_its_partner_fails_its_pixel() -> None:
    keys = [key for key in pixel_keys(PREFIX, PIXELS[:3]) if not key.endswith(f"{redrock_name(PIXELS[1])}")]
    with ListServer(keys) as server:
        plan = plan_of(server)
    assert names(plan) == [str(PIXELS[0]), str(PIXELS[2])]
    assert [failure.unit for failure in plan.failures] == [str(PIXELS[1])]


def test_a_pixel_in_a_wrong_folder_is_none() -> None:
    right = pixel_keys(PREFIX, [PIXELS[0]])
    wrong = [key.replace("/3/300/", "/4/300/") for key in right] + [key.replace(PREFIX, f"{PREFIX}/x") for key in right]
    with ListServer([*right, *wrong]) as server:
        assert names(plan_of(server)) == ["main/dark/300"]


# ---------------------------------------------------------------- the published list of pixels


def tilepix_bytes(folder: Path, checksum: bool = True) -> bytes:
    """As the release has it: a row for each tile, petal and pixel, many of them twice."""
    rows = [(str(p.survey), str(p.program), p.healpix) for p in PIXELS] * 3 + [("main", "dark", 9913)]
    survey, program, healpix = zip(*rows, strict=True)
    columns = [
        fits.Column("TILEID", "J", array=np.arange(len(rows))),
        fits.Column("SURVEY", "7A", array=survey),
        fits.Column("PROGRAM", "6A", array=program),
        fits.Column("PETAL_LOC", "I", array=np.arange(len(rows)) % 10),
        fits.Column("HEALPIX", "J", array=healpix),
    ]
    path = folder / "tilepix.fits"
    hdu = fits.BinTableHDU.from_columns(columns, name="TILEPIX")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, checksum=checksum, overwrite=True)
    return path.read_bytes()


@pytest.mark.parametrize("with_list", [True, False])
def test_the_published_list_of_pixels_is_read_from_the_source(tmp_path: Path, with_list: bool) -> None:
    content = tilepix_bytes(tmp_path)
    bodies = {f"{PREFIX}/tilepix.fits": content}
    if with_list:
        line = f"{hashlib.sha256(content).hexdigest()}  ./tilepix.fits\n"
        bodies[f"{PREFIX}/redux_iron_healpix.sha256sum"] = line.encode()
    with ListServer(pixel_keys(PREFIX, PIXELS), bodies=bodies) as server, source_of(server) as source:
        before = server.n_keys
        listed = read_tilepix(source, Patience(0, ""))
        assert server.n_keys - before == len(bodies)  # the release itself is not listed
        plan = make_plan(source, Wanted(listed=listed), Patience(0, ""), 4)
    assert [files.pixel for files in plan.pixels] == sorted(PIXELS)
    assert plan.absent == ("main/dark/9913",)


def test_a_damaged_or_missing_list_of_pixels_is_refused_in_one_line(tmp_path: Path) -> None:
    content = tilepix_bytes(tmp_path)
    damaged = {
        f"{PREFIX}/tilepix.fits": content[:-1] + b"\1",
        f"{PREFIX}/redux_iron_healpix.sha256sum": f"{hashlib.sha256(content).hexdigest()}  tilepix.fits\n".encode(),
    }
    with ListServer([], bodies=damaged) as server, pytest.raises(InputError) as caught:
        tilepix_of(server)
    assert re.search(r"tilepix.fits: SHA-256 [^\n]*--healpix @FILE\Z", str(caught.value))
    with ListServer(pixel_keys(PREFIX, PIXELS[:1])) as server, pytest.raises(InputError, match="no such file"):
        tilepix_of(server)


def tilepix_of(server: ListServer) -> Listed:
    with source_of(server) as source:
        return read_tilepix(source, Patience(0, ""))


# ---------------------------------------------------------------- what it would cost


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated")
    simulate(root, quasars=40, healpix=6, contaminants=1.0, seed=2)
    return root / HEALPIX_FOLDER


@pytest.fixture(scope="module")
def simulated_plan(simulated: Path) -> Plan:
    return make_plan(LocalSource(simulated), Wanted(), Patience(0, ""), 1)


def redrock_rows(healpix: Path, files: PixelFiles) -> RedrockRows:
    found = read_redshifts(pixel_folder(healpix, files.pixel) / redrock_name(files.pixel))
    nothing = np.full(len(found.targetid), np.nan)
    return RedrockRows(found.targetid, found.spectype, found.zwarn, nothing, nothing)


def test_a_coadds_size_tells_its_rows(simulated: Path, simulated_plan: Plan) -> None:
    for files in simulated_plan.pixels:
        assert count_targets(files.data[1].size) == len(redrock_rows(simulated, files).targetid)


def test_real_coadds_tell_their_rows(real_release: Path) -> None:
    healpix = real_release / "spectro/redux/iron/healpix"
    plan = make_plan(LocalSource(healpix), Wanted(), Patience(0, ""), 1)
    for files in plan.pixels:
        if str(files.pixel) != "main/bright/47":  # has no resolution matrices
            assert count_targets(files.data[1].size) == len(redrock_rows(healpix, files).targetid)


def test_counts_of_every_pixel_give_the_bytes_of_each_mode(simulated: Path, simulated_plan: Plan) -> None:
    counts = {
        files.pixel: int(ByClass().wanted(files.pixel, redrock_rows(simulated, files)).sum())
        for files in sample_pixels(simulated_plan.pixels, 100)
    }
    found = estimate(simulated_plan.pixels, counts)
    assert found.files.value == sum(file.size for files in simulated_plan.pixels for file in files.all)
    assert found.n_wanted is not None
    assert (found.n_wanted.value, found.n_wanted.error) == (sum(counts.values()), 0)
    assert found.hdus is not None
    assert found.rows is not None
    hdus = rows = 0.0
    for files in simulated_plan.pixels:
        folder = pixel_folder(simulated, files.pixel)
        with fits.open(folder / coadd_name(files.pixel)) as coadd:
            of_resolution = sum(hdu.size for hdu in coadd if hdu.name.endswith("RESOLUTION"))
            of_spectra = sum(hdu.size for hdu in coadd if hdu.name.endswith(("_FLUX", "_IVAR", "_MASK")))
            padding = sum(-hdu.size % 2880 for hdu in coadd)
            n_rows = len(coadd["FIBERMAP"].data)
        own = (folder / coadd_name(files.pixel)).stat().st_size
        small = files.n_bytes - own
        hdus += small + own - of_resolution
        rows += small + own - of_resolution - padding - of_spectra * (1 - counts[files.pixel] / n_rows)
    assert found.hdus.value == pytest.approx(hdus, rel=0.01)
    assert found.rows.value == pytest.approx(rows, rel=0.02)
    assert found.rows.value < found.hdus.value < found.files.value


def test_a_pixel_without_quasars_costs_only_its_redrock_file_and_list(simulated_plan: Plan) -> None:
    none = estimate(simulated_plan.pixels, dict.fromkeys((files.pixel for files in simulated_plan.pixels), 0))
    small = sum(file.size for files in simulated_plan.pixels for file in files.all if file is not files.data[1])
    assert none.hdus == none.rows
    assert none.rows is not None
    assert none.rows.value == small


def made_pixels(n: int, seed: int) -> tuple[list[PixelFiles], dict[Pixel, int]]:
    """Pixels as main/dark has them, and the quasars of each."""
    rng = np.random.default_rng(seed)
    pixels, quasars = [], {}
    for number in range(n):
        pixel = Pixel("main", "dark", number)
        n_targets = int(rng.integers(1, 2000))
        size = 170_000 + 446_372 * n_targets
        files = RemoteFile(redrock_name(pixel), 100_000, ""), RemoteFile(coadd_name(pixel), size, "")
        pixels.append(PixelFiles(pixel, files, RemoteFile(checksum_name(pixel), 1000, "")))
        quasars[pixel] = int(rng.binomial(n_targets, min(1.0, max(0.0, rng.normal(0.12, 0.04)))))
    return pixels, quasars


def test_a_sample_says_what_the_whole_holds_within_its_error() -> None:
    n_inside = 0
    for seed in range(40):
        pixels, quasars = made_pixels(300, seed)
        true = estimate(pixels, quasars)
        sampled = {files.pixel: quasars[files.pixel] for files in sample_pixels(pixels, 20)}
        found = estimate(pixels, sampled)
        assert found.n_wanted is not None
        assert true.n_wanted is not None
        assert found.rows is not None
        assert true.rows is not None
        assert found.n_wanted.value == pytest.approx(true.n_wanted.value, rel=0.4)
        assert 0 < found.n_wanted.error < 0.2 * true.n_wanted.value
        n_inside += abs(found.rows.value - true.rows.value) < 2 * found.rows.error
    assert n_inside >= 34  # 95 % of 40, less what chance may take


def test_a_sample_is_spread_evenly_and_always_the_same() -> None:
    pixels, _ = made_pixels(100, 0)
    places = [files.pixel.healpix for files in sample_pixels(pixels, 10)]
    assert places == list(range(5, 100, 10))
    assert sample_pixels(pixels, 1000) == pixels
    assert sample_pixels([], 10) == []


def test_without_any_count_only_whole_files_are_known() -> None:
    pixels, _ = made_pixels(3, 0)
    found = estimate(pixels, {})
    assert (found.hdus, found.rows, found.n_wanted) == (None, None, None)
    assert found.files.value == sum(files.n_bytes for files in pixels)
    empty = estimate([], {})
    assert empty.rows is not None
    assert empty.rows.value == 0


def test_resolution_matrices_are_most_of_a_row() -> None:
    size = 170_000 + 446_372 * 949
    assert rows_bytes(size, 112, resolution=True) > 4 * rows_bytes(size, 112)
