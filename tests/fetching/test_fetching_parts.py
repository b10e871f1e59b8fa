"""The parts of fetching that need no server: lists, keys, plans, receipts, retries, a local folder as source."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_release import SMALL, write_fits, write_list, write_pixel
from s3server import run_qad, tree_bytes

import qad
from qad.desi.layout import checksum_name, coadd_name, pixel_folder, redrock_name
from qad.errors import ConfigError, InputError, QadError, ServiceError, StorageError
from qad.fetching.answers import refusal, retry_after
from qad.fetching.checksums import MismatchError, UnverifiedError, check_datasums, parse_list
from qad.fetching.local import LocalSource
from qad.fetching.partial import partial_path
from qad.fetching.plan import Wanted, find_healpix, make_plan
from qad.fetching.retry import Patience, StoppedError
from qad.fetching.source import ChangedError, DeniedError, MissingError, RemoteFile, TransientError, is_safe_key
from qad.fetching.threads import run_threads
from qad.results import StageResult
from qad.work.units import Pixel

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
NAMES = st.text("abcdefghij-._0123456789", min_size=1, max_size=40).filter(lambda name: not name.startswith("./"))


@settings(deadline=None)
@given(st.dictionaries(NAMES, HEX, max_size=12), st.booleans(), st.booleans())
def test_a_list_reads_back_as_it_was_written(entries: dict[str, str], dotted: bool, binary: bool) -> None:
    lines = [f"{sha} {'*' if binary else ' '}{'./' if dotted else ''}{name}" for name, sha in entries.items()]
    assert parse_list("".join(line + "\n" for line in lines).encode()) == entries


@settings(deadline=None)
@given(HEX, HEX, st.integers(0, 70), st.integers(0, 7))
def test_a_flipped_bit_never_makes_a_list_say_the_same(one: str, two: str, place: int, bit: int) -> None:
    content = bytearray(f"{one}  coadd.fits\n{two}  redrock.fits\n".encode())
    content[place] ^= 1 << bit
    try:
        found = parse_list(bytes(content))
    except MismatchError:
        return
    assert found != {"coadd.fits": one, "redrock.fits": two}


@pytest.mark.parametrize(
    "content",
    [
        b"<html>log in</html>\n",
        b"0" * 64 + b"  ../coadd.fits\n",
        b"0" * 64 + b"  /etc/passwd\n",
        b"0" * 63 + b"  coadd.fits\n",
        b"0" * 64 + b" coadd.fits\n",
        b"0" * 64 + b"  coadd.fits\n" + b"1" * 64 + b"  coadd.fits\n",
        b"0" * 64 + b"  co\xc3\xa4dd.fits\n",
        b"\n" + b"0" * 64 + b"  coadd.fits\n",
        b"x" * (2 << 20),
    ],
)
def test_a_list_with_one_strange_line_is_none(content: bytes) -> None:
    with pytest.raises(MismatchError):
        parse_list(content)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_key_that_passes_can_leave_its_folder(key: str) -> None:
    if is_safe_key(key):
        path = Path(os.path.normpath(Path("/root") / key))
        assert path.is_relative_to("/root")
        assert path != Path("/root")
        assert "\0" not in key
        assert key.isprintable()


@pytest.mark.parametrize(
    "key", ["../a", "a/../b", "/a", "a//b", "a/", "a\nb", "a\0b", "a\\b", "a/./b", "", "x" * 201, "a\x1bb"]
)
def test_hostile_keys_are_not_safe(key: str) -> None:
    assert not is_safe_key(key)


def test_only_a_plain_etag_is_taken_for_an_md5() -> None:
    assert RemoteFile("a", 1, "d41d8cd98f00b204e9800998ecf8427e").md5
    assert not RemoteFile("a", 1, "d41d8cd98f00b204e9800998ecf8427e-140").md5
    assert not RemoteFile("a", 1, "").md5


def test_datasums_find_every_flipped_byte_of_the_data(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    write_fits(path, 1, 3)
    check_datasums(path)
    content = bytearray(path.read_bytes())
    for place in range(len(content) - 2880 * 3, len(content), 977):
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(MismatchError):
            check_datasums(path)
        content[place] ^= 1


def test_without_datasum_nothing_vouches(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    write_fits(path, 1, 3, checksum=False)
    with pytest.raises(UnverifiedError, match="no DATASUM"):
        check_datasums(path)


# ---------------------------------------------------------------- retries and threads


def test_a_service_that_came_back_is_believed_and_one_that_did_not_is_down() -> None:
    patience = Patience(1, "s3://here")
    answers = iter([TransientError("lost"), 5])

    def work() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patience.repeat(work) == 5
    alone = patience.attempts()
    alone.failed(TransientError("lost"))
    with pytest.raises(ServiceError, match=r"s3://here: lost \(2 attempts\)"):
        alone.failed(TransientError("lost"))
    one_of_many = patience.attempts()
    one_of_many.failed(TransientError("lost"))
    patience.answered()
    with pytest.raises(QadError) as caught:
        one_of_many.failed(TransientError("lost"))
    assert not isinstance(caught.value, ServiceError)


def test_progress_gives_the_budget_back() -> None:
    attempts = Patience(1, "s3://here").attempts()
    for _ in range(5):
        attempts.failed(TransientError("lost"), progressed=True)
    with pytest.raises(ServiceError):
        attempts.failed(TransientError("lost"))


def test_a_wait_ends_when_somebody_asks_to_stop() -> None:
    patience = Patience(8, "s3://here")
    threading.Timer(0.05, patience.stop.set).start()
    with pytest.raises(StoppedError):
        patience.attempts().failed(TransientError("busy", retry_after_s=60))


def test_threads_hand_back_results_failures_and_bugs() -> None:
    def work(number: int) -> int:
        if number == 3:
            raise QadError("three")
        return number * number

    done = list(run_threads(work, range(6), 3, threading.Event()))
    assert sorted(item.value for item in done if item.value is not None) == [0, 1, 4, 16, 25]
    assert [(item.item, str(item.error)) for item in done if item.error] == [(3, "three")]
    stop = threading.Event()
    with pytest.raises(ZeroDivisionError):
        list(run_threads(lambda number: 1 // number, [0, 1], 2, stop))
    assert stop.is_set()


def test_a_full_disk_in_one_thread_stops_the_others() -> None:
    stop = threading.Event()
    seen = []

    def work(number: int) -> None:
        seen.append(number)
        if number == 0:
            raise StorageError("full")
        stop.wait(10)

    with pytest.raises(StorageError):
        list(run_threads(work, range(50), 4, stop))
    assert len(seen) <= 5


# ---------------------------------------------------------------- plans


@pytest.fixture(scope="module")
def many_pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of 30 pixels of empty files: enough to plan with."""
    root = tmp_path_factory.mktemp("plan")
    for number in (*range(20), 100, 250, 9144):
        for program in ("dark", "bright") if number < 5 else ("dark",):
            pixel = Pixel("main", program, number)
            folder = pixel_folder(root / "healpix", pixel)
            folder.mkdir(parents=True)
            for name in (coadd_name(pixel), redrock_name(pixel), checksum_name(pixel), "emline.fits", "hpixexp.csv"):
                (folder / name).touch()
    return root


def fetch(**keys: object) -> StageResult:
    """Fetch whole files."""
    return qad.fetch(**{"mode": "files", **keys})


def plan_of(root: Path, **wanted: object) -> list[str]:
    source = LocalSource(root / "healpix")
    return [str(files.pixel) for files in make_plan(source, Wanted(**wanted), Patience(0, ""), 2).pixels]  # type: ignore[arg-type]


def test_a_plan_names_each_pixel_once_in_order(many_pixels: Path) -> None:
    everything = plan_of(many_pixels)
    assert len(everything) == len(set(everything)) == 28
    assert everything[:2] == ["main/bright/0", "main/bright/1"]
    assert everything[-1] == "main/dark/9144"


def test_a_plan_takes_only_what_is_wanted(many_pixels: Path) -> None:
    assert plan_of(many_pixels, programs=("bright",)) == [f"main/bright/{n}" for n in range(5)]
    assert plan_of(many_pixels, healpix=(9144, 3, 3)) == ["main/bright/3", "main/dark/3", "main/dark/9144"]
    assert plan_of(many_pixels, limit=7) == plan_of(many_pixels)[:7]
    few = {"surveys": ("main",), "programs": ("dark",), "healpix": (1, 2, 3, 4, 5, 100, 30000)}
    assert plan_of(many_pixels, **few) == [f"main/dark/{n}" for n in (1, 2, 3, 4, 5, 100)]


def test_the_healpix_folder_is_found_from_above(small_release: Path) -> None:
    for folder in ("", "spectro/redux/iron", "spectro/redux/iron/healpix"):
        assert find_healpix(LocalSource(small_release / folder)).folders("") == ["main", "sv3"]
    assert find_healpix(LocalSource(small_release.parent).below(f"{small_release.name}/")).folders("") == [
        "main",
        "sv3",
    ]
    with pytest.raises(InputError, match="holds no release"):
        find_healpix(LocalSource(small_release / "spectro/redux/iron/healpix/main/dark"))


@pytest.mark.parametrize(
    "words", [{"surveys": ("../x",)}, {"programs": ("Dark",)}, {"healpix": (-1,)}, {"healpix": (49152,)}]
)
def test_words_that_cannot_be_are_refused(words: dict[str, tuple[object, ...]]) -> None:
    with pytest.raises(ConfigError):
        Wanted(**words)  # type: ignore[arg-type]


# ---------------------------------------------------------------- a local folder as source


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A made release that a test may damage."""
    for pixel in SMALL[1:]:
        write_pixel(tmp_path / "release/healpix", pixel)
    return tmp_path / "release"


def test_a_local_release_is_copied_and_verified_and_not_again(release: Path, tmp_path: Path) -> None:
    first = fetch(root=tmp_path / "work", source=str(release))
    assert (first.n_done, first.counts["verified.sha256"]) == (2, 4)
    assert tree_bytes(tmp_path / "work/raw/dr1") == tree_bytes(release)
    receipt = json.loads((tmp_path / "work/raw/dr1/healpix/main/dark/0/48/.qad-fetch.json").read_text())
    assert {item["verified"] for item in receipt["files"].values()} == {"sha256", "entries"}
    second = fetch(root=tmp_path / "work", source=str(release))
    assert (second.n_done, second.n_skipped, second.counts["bytes"]) == (0, 2, 0)


def test_the_real_release_is_copied_byte_for_byte(real_release: Path, tmp_path: Path) -> None:
    result = fetch(root=tmp_path, source=str(real_release))
    assert (result.failures, result.n_done, result.counts["verified.sha256"]) == ((), 6, 12)
    assert tree_bytes(tmp_path / "raw/dr1/healpix") == tree_bytes(real_release / "spectro/redux/iron/healpix")


def damage(path: Path) -> None:
    """Flip one bit, and leave size and time as they were."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_verify_finds_a_damaged_local_file_and_fetches_it_again(release: Path, tmp_path: Path) -> None:
    fetch(root=tmp_path / "work", source=str(release))
    copy = tmp_path / "work/raw/dr1"
    damage(copy / "healpix/main/dark/0/48" / coadd_name(SMALL[1]))
    damage(copy / "healpix/sv3/bright/260/26065" / checksum_name(SMALL[2]))
    looked = fetch(root=tmp_path / "work", source=str(release), verify=True, dry_run=True)
    assert looked.counts["files_to_fetch"] == 2
    result = fetch(root=tmp_path / "work", source=str(release), verify=True)
    assert (result.counts["files_fetched"], result.counts["files_skipped"]) == (2, 4)
    assert tree_bytes(copy) == tree_bytes(release)


def test_a_file_touched_since_is_looked_at_without_being_asked(release: Path, tmp_path: Path) -> None:
    fetch(root=tmp_path / "work", source=str(release))
    path = tmp_path / "work/raw/dr1/healpix/main/dark/0/48" / coadd_name(SMALL[1])
    os.utime(path)  # touched, not changed: its bytes are read once and the receipt takes the new time
    assert fetch(root=tmp_path / "work", source=str(release)).n_skipped == 2
    entry = json.loads((path.parent / ".qad-fetch.json").read_text())["files"][path.name]
    assert entry["mtime_ns"] == path.stat().st_mtime_ns
    damage(path)
    os.utime(path)
    assert fetch(root=tmp_path / "work", source=str(release)).counts["files_fetched"] == 1
    assert tree_bytes(tmp_path / "work/raw/dr1") == tree_bytes(release)


def test_a_missing_file_is_fetched_and_force_fetches_all(release: Path, tmp_path: Path) -> None:
    fetch(root=tmp_path / "work", source=str(release))
    next((tmp_path / "work").rglob("redrock-main*.fits")).unlink()
    assert fetch(root=tmp_path / "work", source=str(release)).counts["files_fetched"] == 1
    assert fetch(root=tmp_path / "work", source=str(release), force=True).counts["files_fetched"] == 6


def test_files_that_another_tool_put_there_are_adopted_by_their_hash(release: Path, tmp_path: Path) -> None:
    fetch(root=tmp_path / "work", source=str(release))
    for receipt in (tmp_path / "work").rglob(".qad-fetch.json"):
        receipt.write_text("{ torn")
    result = fetch(root=tmp_path / "work", source=str(release))
    # lists are small and fetched again; the spectra are only read
    assert (result.counts["files_fetched"], result.counts["files_skipped"]) == (2, 4)
    assert fetch(root=tmp_path / "work", source=str(release)).n_skipped == 2


def test_a_damaged_source_fails_its_pixel_by_name_and_the_rest_goes_on(release: Path, tmp_path: Path) -> None:
    damage(release / "healpix/main/dark/0/48" / coadd_name(SMALL[1]))
    done = run_qad(
        *("fetch", "--source", str(release), "--mode", "files", "--root", str(tmp_path / "work")), cwd=tmp_path
    )
    assert done.returncode == 1
    assert "main/dark/48 failed: coadd-main-dark-48.fits: SHA-256" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "work").rglob("coadd*")) == [coadd_name(SMALL[2])]


def test_without_any_voucher_a_file_gets_no_name(tmp_path: Path) -> None:
    folder = write_pixel(tmp_path / "release/healpix", SMALL[0], with_list=False)
    assert fetch(root=tmp_path / "one", source=str(tmp_path / "release")).counts["verified.datasum"] == 2
    write_fits(folder / coadd_name(SMALL[0]), 1, 2, checksum=False)
    (failure,) = fetch(root=tmp_path / "two", source=str(tmp_path / "release")).failures
    assert "nothing vouches for it" in failure.reason
    assert "qad extract --source" in failure.reason
    assert not list((tmp_path / "two").rglob("coadd*"))


def test_links_in_a_source_are_followed_inside_it_only(release: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.fits"
    write_fits(secret, 1, 1)
    inside = pixel_folder(release / "healpix", Pixel("main", "dark", 49))
    inside.symlink_to(release / "healpix/main/dark/0/48")
    outside = write_pixel(release / "healpix", Pixel("main", "dark", 50))
    (outside / coadd_name(Pixel("main", "dark", 50))).unlink()
    (outside / coadd_name(Pixel("main", "dark", 50))).symlink_to(secret)
    write_list(outside, Pixel("main", "dark", 50))
    (outside / "loop").symlink_to(outside / "loop")
    result = fetch(root=tmp_path / "work", source=str(release))
    assert result.counts["keys_refused"] == 2
    assert [failure.unit for failure in result.failures] == ["main/dark/50"]
    assert not list((tmp_path / "work").rglob("coadd-main-dark-50.fits"))


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        fetch(root=tmp_path / "work", source=str(tmp_path / "nowhere"))
    (tmp_path / "empty/healpix").mkdir(parents=True)
    with pytest.raises(InputError, match="holds nothing of any survey"):
        fetch(root=tmp_path / "work", source=str(tmp_path / "empty"))


def test_a_partial_file_is_taken_up_from_a_local_source_too(release: Path, tmp_path: Path) -> None:
    pixel = SMALL[1]
    source = LocalSource(release / "healpix")
    (coadd,) = (file for file in source.files("main/") if file.name == coadd_name(pixel))
    folder = pixel_folder(tmp_path / "work/raw/dr1/healpix", pixel)
    folder.mkdir(parents=True)
    content = (release / "healpix" / coadd.key).read_bytes()
    partial_path(folder / coadd.name, coadd).write_bytes(content[:10_000])
    result = fetch(root=tmp_path / "work", source=str(release))
    assert result.counts["bytes_resumed"] == 10_000
    assert tree_bytes(tmp_path / "work/raw/dr1") == tree_bytes(release)
    assert not list((tmp_path / "work").rglob("*part"))


def test_a_file_that_another_process_is_fetching_is_left_to_it(release: Path, tmp_path: Path) -> None:
    pixel = SMALL[1]
    (coadd,) = (f for f in LocalSource(release / "healpix").files("main/") if f.name == coadd_name(pixel))
    folder = pixel_folder(tmp_path / "work/raw/dr1/healpix", pixel)
    folder.mkdir(parents=True)
    with partial_path(folder / coadd.name, coadd).open("wb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        (failure,) = fetch(root=tmp_path / "work", source=str(release)).failures
    assert (failure.unit, "another process" in failure.reason) == ("main/dark/48", True)
    assert not (folder / coadd.name).exists()


@pytest.mark.parametrize(
    ("status", "code", "key", "kind", "text"),
    [
        (403, "RequestTimeTooSkewed", "a", InputError, "clock"),
        (403, "InvalidAccessKeyId", "", InputError, "--no-sign-request"),
        (301, "PermanentRedirect", "a", InputError, "fetch.region"),
        (307, "", "", InputError, "elsewhere"),
        (404, "NoSuchBucket", "", InputError, "no such bucket"),
        (403, "AccessDenied", "", InputError, "--sign"),
        (403, "AccessDenied", "a", DeniedError, "refuses"),
        (404, "NoSuchKey", "a", MissingError, "gone"),
        (412, "PreconditionFailed", "a", ChangedError, "changed"),
        (416, "InvalidRange", "a", ChangedError, "shorter"),
        (503, "SlowDown", "a", TransientError, "503 SlowDown"),
        (400, "RequestTimeout", "a", TransientError, "400"),
        (429, "", "", TransientError, "429"),
        (418, "Teapot", "a", TransientError, "418"),
    ],
)
def test_every_refusal_says_what_it_means(status: int, code: str, key: str, kind: type[Exception], text: str) -> None:
    response = {"Error": {"Code": code, "Message": "words"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = refusal(response, "s3://here/", key)
    assert type(error) is kind
    assert text in str(error)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("inf", 0.0), ("nan", 0.0), ("Wed, 21 Oct", 0.0), ("", 0.0)],
)
def test_retry_after_is_read_where_it_makes_sense(header: str, seconds: float) -> None:
    assert retry_after({"HTTPHeaders": {"retry-after": header}}) == seconds


def test_a_receipt_holds_no_clock_but_that_of_the_files(release: Path, tmp_path: Path) -> None:
    fetch(root=tmp_path / "one", source=str(release))
    time.sleep(0.01)
    fetch(root=tmp_path / "two", source=str(release))
    documents = []
    for name in ("one", "two"):
        receipt = next((tmp_path / name).rglob("main/dark/0/48/.qad-fetch.json"))
        document = json.loads(receipt.read_text())
        for item in document["files"].values():
            item.pop("mtime_ns")
        documents.append(document)
    assert documents[0] == documents[1]
