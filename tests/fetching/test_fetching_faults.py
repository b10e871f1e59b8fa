"""A network that lies, breaks and falls silent: nothing wrong under a final name, and whole in the end where it can be.

A real server stands behind a proxy that spoils its answers.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from made_release import SMALL, write_list, write_pixel
from s3server import BUCKET, KEY, SECRET, Exchange, FaultProxy, S3Server, tree_bytes
from spoil import cut, denied, gone, internal_error, login_page, slow_down, stall

import qad
from qad.desi.layout import checksum_name, coadd_name, pixel_folder, redrock_name
from qad.errors import InputError, ServiceError, StorageError
from qad.fetching.partial import partial_path
from qad.fetching.source import RemoteFile
from qad.results import StageResult
from qad.work.units import Pixel

FIRST = SMALL[0]
COADD = coadd_name(FIRST)
LIST = checksum_name(FIRST)


def bring(proxy: FaultProxy, root: Path, **more: object) -> StageResult:
    """Fetch, with short waits."""
    keys = {"source": f"s3://{BUCKET}/dr1", "timeout_s": 1.0, "retries": 4, "connections": 3, "mode": "files", **more}
    return qad.fetch(root=root, endpoint_url=proxy.url, **keys)


def on(ending: str, spoil: Callable[[Exchange], None], times: int = 1) -> Callable[[Exchange], None]:
    """Return a fault that spoils the first answers for objects with this ending."""
    count = itertools.count()

    def fault(found: Exchange) -> None:
        path = found.target.partition("?")[0]
        if path.endswith(ending) and found.status in (200, 206) and next(count) < times:
            spoil(found)

    return fault


def published(release: Path) -> dict[str, bytes]:
    return tree_bytes(release / "spectro/redux/iron/healpix")


def stall_before_the_body(found: Exchange) -> None:
    found.stall_at = 0


def flip(found: Exchange) -> None:
    body = bytearray(found.body)
    body[len(body) // 3] ^= 0x10
    found.body = bytes(body)


def ignore_range(found: Exchange) -> None:
    found.status, found.reason = 200, "OK"
    found.headers = [(k, v) for k, v in found.headers if k.lower() != "content-range"]


def shorten(found: Exchange) -> None:
    found.body = found.body[:-2880]
    found.set_header("Content-Length", str(len(found.body)))


def other_bytes(found: Exchange) -> None:
    found.body = found.body[2880:] + found.body[:2880]


def other_range(found: Exchange) -> None:
    assert found.range is not None
    first, last = found.range
    size = {k.lower(): v for k, v in found.headers}["content-range"].rpartition("/")[2]
    found.set_header("Content-Range", f"bytes {first + 1}-{last + 1}/{size}")


PASSING = [
    cut,
    stall,
    stall_before_the_body,
    flip,
    ignore_range,
    shorten,
    other_bytes,
    other_range,
    slow_down,
    internal_error,
    login_page,
    denied,
]


@pytest.mark.parametrize(
    ("ending", "spoil"),
    [*((COADD, spoil) for spoil in PASSING), *((LIST, spoil) for spoil in (cut, flip, shorten, login_page))],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_fault_that_passes_leaves_a_whole_release(
    proxy: FaultProxy, tmp_path: Path, small_release: Path, ending: str, spoil: Callable[[Exchange], None]
) -> None:
    proxy.reset(on(ending, spoil))
    result = bring(proxy, tmp_path)
    assert result.failures == ()
    assert tree_bytes(tmp_path / "raw/dr1/healpix") == published(small_release)
    assert not list(tmp_path.rglob("*part"))


def test_a_link_that_breaks_again_and_again_gets_there_without_fetching_twice(
    proxy: FaultProxy, tmp_path: Path, small_release: Path
) -> None:
    def cut_early(found: Exchange) -> None:
        if len(found.body) > 150_000:
            found.cut_at = 100_000

    proxy.reset(on(".fits", cut_early, times=1000))
    result = bring(proxy, tmp_path, retries=1)
    content = published(small_release)
    assert result.failures == ()
    assert tree_bytes(tmp_path / "raw/dr1/healpix") == content
    assert proxy.bytes_of("") <= 1.1 * sum(map(len, content.values()))


def test_a_link_that_falls_silent_again_and_again_gets_there_too(
    proxy: FaultProxy, tmp_path: Path, small_release: Path
) -> None:
    def stall_early(found: Exchange) -> None:
        if len(found.body) > 250_000:
            found.stall_at = 200_000

    proxy.reset(on(".fits", stall_early, times=1000))
    assert bring(proxy, tmp_path, retries=1, timeout_s=0.3).failures == ()
    content = published(small_release)
    assert tree_bytes(tmp_path / "raw/dr1/healpix") == content
    assert proxy.bytes_of("") <= 1.1 * sum(map(len, content.values()))


@pytest.mark.parametrize("spoil", [internal_error, slow_down, login_page], ids=lambda spoil: spoil.__name__)
def test_a_listing_that_fails_for_a_while_is_repeated(
    proxy: FaultProxy, tmp_path: Path, small_release: Path, spoil: Callable[[Exchange], None]
) -> None:
    proxy.reset(on(f"/{BUCKET}", spoil, times=2))
    assert bring(proxy, tmp_path).failures == ()
    assert tree_bytes(tmp_path / "raw/dr1/healpix") == published(small_release)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [(login_page, "login page"), (slow_down, "503 SlowDown"), (stall_before_the_body, "imeout")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_service_that_never_answers_well_ends_the_run_with_its_last_words(
    proxy: FaultProxy, tmp_path: Path, spoil: Callable[[Exchange], None], text: str
) -> None:
    proxy.reset(lambda found: spoil(found))
    with pytest.raises(ServiceError, match=text):
        bring(proxy, tmp_path, retries=1, timeout_s=0.5)
    assert tree_bytes(tmp_path / "raw") == {}


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (flip, "the source gives the same bytes again"),
        (other_bytes, "the source gives the same bytes again"),
        (ignore_range, "answered 200"),
        (shorten, "announced"),
        (login_page, "login page"),
        (gone, "is now gone"),
        (denied, "refuses this object"),
        (internal_error, "answered 500"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_object_that_never_comes_right_fails_its_pixel_alone(
    proxy: FaultProxy, tmp_path: Path, small_release: Path, spoil: Callable[[Exchange], None], text: str
) -> None:
    other = SMALL[2]
    proxy.reset(on(COADD, spoil, times=1000))
    result = bring(proxy, tmp_path, retries=1)
    assert [failure.unit for failure in result.failures] == ["main/dark/47"]
    assert COADD in result.failures[0].reason
    assert text in result.failures[0].reason
    assert (result.n_done, result.counts["pixels_failed"]) == (2, 1)
    there = tree_bytes(tmp_path / "raw/dr1/healpix")
    assert f"main/dark/0/47/{COADD}" not in there
    assert there.items() <= published(small_release).items()
    assert f"sv3/bright/260/26065/{coadd_name(other)}" in there
    # the same command, when the fault is gone, makes it whole
    proxy.reset()
    assert bring(proxy, tmp_path).n_done == 1
    assert tree_bytes(tmp_path / "raw/dr1/healpix") == published(small_release)


def test_other_bytes_each_time_are_given_up_too(proxy: FaultProxy, tmp_path: Path) -> None:
    def flip_somewhere(found: Exchange) -> None:
        body = bytearray(found.body)
        body[found.number] ^= 1
        found.body = bytes(body)

    proxy.reset(on(COADD, flip_somewhere, times=1000))
    (failure,) = bring(proxy, tmp_path).failures
    assert "other bytes came each of 3 times" in failure.reason
    assert not list(tmp_path.rglob(f"*{COADD}*"))


@pytest.fixture
def own_prefix(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Pixel]:
    """A release of one pixel (2.6 MB coadd) that a test may change, served under a prefix of its own."""
    root = tmp_path_factory.mktemp("own")
    pixel = Pixel("main", "dark", 10016)
    write_pixel(root / "healpix", pixel, n_rows=120)
    s3.put_tree(root, root.name)
    return f"s3://{BUCKET}/{root.name}", root, pixel


def change(s3: S3Server, root: Path, pixel: Pixel, seed: int) -> None:
    """Publish another version of the pixel."""
    write_pixel(root / "healpix", pixel, n_rows=120, seed=seed)
    s3.put_tree(root, root.name)


def test_an_object_that_changes_between_two_ranges_is_never_mixed(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, own_prefix: tuple[str, Path, Pixel]
) -> None:
    url, root, pixel = own_prefix
    done = []

    def change_after_the_first_part(found: Exchange) -> None:
        if found.target.partition("?")[0].endswith(coadd_name(pixel)) and found.range and not done:
            done.append(found.range)
            change(s3, root, pixel, seed=7)

    proxy.reset(change_after_the_first_part)
    result = bring(proxy, tmp_path, source=url, part_mib=1)
    assert len(done) == 1
    assert result.failures == ()
    assert tree_bytes(tmp_path / "raw/dr1/healpix") == tree_bytes(root / "healpix")
    assert not list(tmp_path.rglob("*part"))


def test_an_object_that_never_rests_fails_by_name(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, own_prefix: tuple[str, Path, Pixel]
) -> None:
    url, root, pixel = own_prefix
    seeds = itertools.count(10)

    def change_each_time(found: Exchange) -> None:
        if found.target.partition("?")[0].endswith(coadd_name(pixel)) and found.range:
            change(s3, root, pixel, seed=next(seeds))

    proxy.reset(change_each_time)
    (failure,) = bring(proxy, tmp_path, source=url, part_mib=1).failures
    assert "changed at the source" in failure.reason
    assert not list(tmp_path.rglob(coadd_name(pixel)))


def test_a_partial_file_of_another_version_is_thrown_away(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, own_prefix: tuple[str, Path, Pixel]
) -> None:
    url, root, pixel = own_prefix
    proxy.reset(on(coadd_name(pixel), cut, times=1000))
    assert bring(proxy, tmp_path, source=url, retries=0).failures
    (partial,) = tmp_path.rglob("*.qad-part")
    assert partial.stat().st_size > 0
    change(s3, root, pixel, seed=3)
    proxy.reset()
    result = bring(proxy, tmp_path, source=url)
    assert (result.failures, result.counts["bytes_resumed"]) == ((), 0)
    assert tree_bytes(tmp_path / "raw/dr1/healpix") == tree_bytes(root / "healpix")
    assert not list(tmp_path.rglob("*part"))


def test_a_damaged_partial_file_is_found_by_its_hash(
    proxy: FaultProxy, tmp_path: Path, own_prefix: tuple[str, Path, Pixel]
) -> None:
    url, root, pixel = own_prefix
    proxy.reset(on(coadd_name(pixel), cut, times=1000))
    bring(proxy, tmp_path, source=url, retries=0)
    (partial,) = tmp_path.rglob("*.qad-part")
    content = bytearray(partial.read_bytes())
    content[5000] ^= 4
    partial.write_bytes(content)
    proxy.reset()
    assert bring(proxy, tmp_path, source=url).failures == ()
    assert tree_bytes(tmp_path / "raw/dr1/healpix") == tree_bytes(root / "healpix")


def test_a_file_replaced_at_the_source_is_fetched_again(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, own_prefix: tuple[str, Path, Pixel]
) -> None:
    url, root, pixel = own_prefix
    bring(proxy, tmp_path, source=url)
    change(s3, root, pixel, seed=5)
    assert bring(proxy, tmp_path, source=url).counts["files_fetched"] == 3
    assert tree_bytes(tmp_path / "raw/dr1/healpix") == tree_bytes(root / "healpix")


def test_a_flipped_bit_in_the_stored_list_fails_its_pixel_by_name(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, own_prefix: tuple[str, Path, Pixel]
) -> None:
    url, root, pixel = own_prefix
    path = pixel_folder(root / "healpix", pixel) / checksum_name(pixel)
    good = path.read_text()
    path.write_text(("0" if good[0] != "0" else "1") + good[1:])
    s3.put_tree(root, root.name)
    (failure,) = bring(proxy, tmp_path, source=url).failures
    assert coadd_name(pixel) in failure.reason
    assert "or its list is" in failure.reason
    assert not list(tmp_path.rglob(coadd_name(pixel)))
    # it was read once more before the file was blamed
    assert sum(checksum_name(pixel) in line for line in proxy.requests) == 2
    path.write_text(good)
    s3.put_tree(root, root.name)
    assert bring(proxy, tmp_path, source=url).failures == ()


def test_a_list_that_is_none_is_refused(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, own_prefix: tuple[str, Path, Pixel]
) -> None:
    url, root, pixel = own_prefix
    path = pixel_folder(root / "healpix", pixel) / checksum_name(pixel)
    path.write_bytes(path.read_bytes().replace(b"  ./coadd", b"  ../coadd"))
    s3.put_tree(root, root.name)
    (failure,) = bring(proxy, tmp_path, source=url).failures
    assert "line 1 is not" in failure.reason
    assert not list(tmp_path.rglob("*.fits"))


def test_without_a_list_an_md5_etag_vouches(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("nolist")
    write_pixel(root / "healpix", FIRST, with_list=False)
    s3.put_tree(root, root.name)
    proxy.reset(on(COADD, flip))
    result = bring(proxy, tmp_path, source=f"s3://{BUCKET}/{root.name}")
    assert result.counts["verified.etag-md5"] == 2
    assert tree_bytes(tmp_path / "raw/dr1/healpix") == tree_bytes(root / "healpix")


def test_without_list_and_md5_every_hdu_must_match_its_datasum(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("multipart")
    folder = write_pixel(root / "healpix", FIRST, n_rows=240, with_list=False)
    s3.put_tree(root, root.name)
    client = s3.client()
    key = f"{root.name}/healpix/main/dark/0/47/{COADD}"
    body = (folder / COADD).read_bytes()
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(body), 5 << 20), start=1):
        piece = body[start : start + (5 << 20)]
        answer = client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=piece)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    client.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    assert "-" in client.head_object(Bucket=BUCKET, Key=key)["ETag"]
    client.close()
    proxy.reset(on(COADD, flip))
    result = bring(proxy, tmp_path, source=f"s3://{BUCKET}/{root.name}")
    assert result.failures == ()
    assert result.counts["verified.datasum"] == 1
    assert tree_bytes(tmp_path / "raw/dr1/healpix") == tree_bytes(root / "healpix")


def test_a_signed_request_is_not_sent_on_to_another_host(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = FaultProxy(s3.port)

    def redirect(found: Exchange) -> None:
        body = b"<?xml version='1.0'?><Error><Code>TemporaryRedirect</Code><Endpoint>elsewhere</Endpoint></Error>"
        found.replace(307, "Temporary Redirect", body, "application/xml", Location=elsewhere.url + found.target)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    proxy.reset(redirect)
    try:
        with pytest.raises(InputError, match="served elsewhere"):
            bring(proxy, tmp_path, anonymous=False)
        assert elsewhere.requests == []
    finally:
        elsewhere.close()


def test_hostile_keys_never_become_paths(proxy: FaultProxy, tmp_path: Path, small_release: Path) -> None:
    keys = [
        "healpix/main/dark/0/47/../../../../../../../escaped.fits",
        "healpix//etc/passwd",
        "healpix/main/dark/0/47/coadd%0Aevil.fits",
        "healpix/main/dark/0/47/nul%00.fits",
        "healpix/main/dark/0/47/back%5Cslash.fits",
        f"healpix/main/dark/0/47/{'x' * 300}.fits",
        "healpix/main/dark/0/47/%1b[31mred.fits",
    ]
    item = "<Contents><Key>{}</Key><Size>5</Size><ETag>&quot;{}&quot;</ETag></Contents>"
    root = "dr1/spectro/redux/iron/"
    more = "".join(item.format(root + key, "0" * 32) for key in keys)

    def add_keys(found: Exchange) -> None:
        # the listings of files only, not those of folders
        if "list-type" in found.target and "delimiter" not in found.target and b"main/dark/0/" in found.body:
            body = re.sub(rb"<EncodingType>.*?</EncodingType>", b"", found.body)
            closing = b"<EncodingType>url</EncodingType>" + more.encode() + b"</ListBucketResult>"
            found.body = body.replace(b"</ListBucketResult>", closing)
            found.set_header("Content-Length", str(len(found.body)))

    proxy.reset(add_keys)
    result = bring(proxy, tmp_path / "work")
    assert result.failures == ()
    assert result.counts["keys_refused"] == len(keys)
    assert tree_bytes(tmp_path / "work/raw/dr1/healpix") == published(small_release)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_a_folder_of_more_than_a_thousand_keys_is_listed_to_its_end(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("many")
    folder = write_pixel(root / "healpix", FIRST)
    s3.put_tree(root, root.name)
    client = s3.client()
    for number in range(1003):
        # sorts before "coadd", and needs url-decoding
        key = f"{root.name}/healpix/main/dark/0/47/a +%26é{number}.txt"
        client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    client.close()
    result = bring(proxy, tmp_path, source=f"s3://{BUCKET}/{root.name}")
    assert (result.n_done, result.counts["files_fetched"]) == (1, 3)
    assert sorted(tree_bytes(tmp_path / "raw")) == [
        f"dr1/healpix/main/dark/0/47/{p.name}" for p in sorted(folder.iterdir())
    ]
    assert any("continuation-token" in line for line in proxy.requests)


def test_a_symbolic_link_in_the_work_directory_is_not_followed_out_of_it(proxy: FaultProxy, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "work/raw/dr1/healpix").mkdir(parents=True)
    (tmp_path / "work/raw/dr1/healpix/main").symlink_to(outside)
    with pytest.raises(StorageError, match="symbolic link that leads out"):
        bring(proxy, tmp_path / "work")
    assert list(outside.iterdir()) == []


def test_a_link_planted_as_partial_file_is_removed_not_written_through(
    proxy: FaultProxy, tmp_path: Path, small_release: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    bring(proxy, tmp_path / "work")
    folder = tmp_path / "work/raw/dr1/healpix/main/dark/0/47"
    entry = json.loads((folder / ".qad-fetch.json").read_text())["files"][COADD]
    (folder / COADD).unlink()
    partial_path(folder / COADD, RemoteFile(COADD, entry["size"], entry["etag"])).symlink_to(victim)
    assert bring(proxy, tmp_path / "work").failures == ()
    assert victim.read_text() == "precious"
    assert tree_bytes(tmp_path / "work/raw/dr1/healpix") == published(small_release)


def test_a_pixel_without_its_redrock_file_fails_by_name(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("half")
    folder = write_pixel(root / "healpix", FIRST)
    (folder / redrock_name(FIRST)).unlink()
    write_pixel(root / "healpix", SMALL[2])
    s3.put_tree(root, root.name)
    result = bring(proxy, tmp_path, source=f"s3://{BUCKET}/{root.name}")
    assert [failure.unit for failure in result.failures] == ["main/dark/47"]
    assert "without its partner" in result.failures[0].reason
    assert result.n_done == 1


def test_a_list_made_again_without_change_of_the_file_is_believed(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, own_prefix: tuple[str, Path, Pixel]
) -> None:
    url, root, pixel = own_prefix
    bring(proxy, tmp_path, source=url)
    write_list(pixel_folder(root / "healpix", pixel), pixel)
    path = pixel_folder(root / "healpix", pixel) / checksum_name(pixel)
    path.write_text(path.read_text() + f"{'1' * 64}  another.fits\n")
    s3.put_tree(root, root.name)
    proxy.reset()
    result = bring(proxy, tmp_path, source=url)
    assert (result.counts["files_fetched"], result.counts["files_skipped"]) == (1, 2)
    assert proxy.bytes_of(".fits") == 0
