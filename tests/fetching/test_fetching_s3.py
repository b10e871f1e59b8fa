"""``qad fetch`` from a real S3 server: whole, verified, resumed, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_release import PREFIX, SMALL, write_pixel
from s3server import BUCKET, KEY, SECRET, Exchange, FaultProxy, S3Server, free_ports, run_qad, tree_bytes

from qad.desi.layout import find_pixels, locate_healpix
from qad.work.units import Pixel

SOURCE = f"s3://{BUCKET}/{PREFIX}"
BIG = Pixel("main", "dark", 23040)
COADD = "coadd-main-dark-23040.fits"


def fetch(url: str, root: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_qad("fetch", *arguments(url, root, *more), cwd=root.parent, **environment)


def arguments(url: str, root: Path, *more: str) -> list[str]:
    source = () if "--source" in more else ("--source", SOURCE)
    mode = () if "--mode" in more else ("--mode", "files")
    return [*source, *mode, "--endpoint-url", url, "--root", str(root), *more]


def start(url: str, root: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "qad", "fetch", *arguments(url, root, *more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def counts(done: subprocess.CompletedProcess[str]) -> dict[str, float]:
    assert done.stdout, done.stderr
    found: dict[str, float] = json.loads(done.stdout)["counts"]
    return found


def healpix_of(root: Path) -> Path:
    return root / "raw/dr1/healpix"


def wait_for_partial(root: Path, process: subprocess.Popen[str], n_bytes: int = 200_000) -> Path:
    """Return the coadd's partial file when it has some bytes."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        for path in root.rglob(f".{COADD}.*.qad-part"):
            if path.stat().st_size >= n_bytes:
                return path
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"no partial file; {process.communicate()}")


@pytest.fixture(scope="session")
def big_release(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of one pixel whose coadd has several parts of 1 MiB, served below ``big/``."""
    root = tmp_path_factory.mktemp("big")
    write_pixel(root / "healpix", BIG, n_rows=180)
    s3.put_tree(root, "big")
    return root


BIG_SOURCE = ("--source", f"s3://{BUCKET}/big", "--set", "fetch.part_mib=1")


def test_a_whole_release_arrives_byte_for_byte_and_a_second_run_asks_for_nothing(
    proxy: FaultProxy, tmp_path: Path, small_release: Path
) -> None:
    published = tree_bytes(small_release / "spectro/redux/iron/healpix")
    root = tmp_path / "work"
    first = fetch(proxy.url, root, "--json")
    assert first.returncode == 0, first.stderr
    assert tree_bytes(healpix_of(root)) == published
    assert counts(first)["verified.sha256"] == 2 * len(SMALL)
    assert counts(first)["verified.etag-md5"] == len(SMALL)
    assert counts(first)["bytes"] == sum(map(len, published.values()))
    proxy.reset()
    second = fetch(proxy.url, root, "--json")
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["n_skipped"] == len(SMALL)
    assert not [line for line in proxy.requests if "list-type" not in line], "only listings"
    # what fetch leaves is a release that the next stage finds
    assert find_pixels(locate_healpix(root / "raw/dr1")) == sorted(SMALL)


def test_real_spectra_arrive_byte_for_byte(s3: S3Server, tmp_path: Path, real_release: Path) -> None:
    s3.put_tree(real_release / "spectro", "real/spectro")
    root = tmp_path / "work"
    done = fetch(s3.url, root, "--source", f"s3://{BUCKET}/real", "--json")
    assert done.returncode == 0, done.stderr
    assert tree_bytes(healpix_of(root)) == tree_bytes(real_release / "spectro/redux/iron/healpix")
    assert counts(done)["verified.sha256"] == 12


def test_a_dry_run_counts_and_writes_nothing(s3: S3Server, tmp_path: Path) -> None:
    root = tmp_path / "work"
    done = fetch(s3.url, root, "--dry-run", "--json", "--survey", "main")
    document = json.loads(done.stdout)
    assert (done.returncode, document["n_done"], document["counts"]["files_to_fetch"]) == (0, 2, 6)
    assert document["counts"]["bytes_to_fetch"] > 0
    assert not root.exists()


def test_pixels_of_a_list_that_have_no_files_are_absent_not_failed(s3: S3Server, tmp_path: Path) -> None:
    wanted = tmp_path / "pixels.txt"
    wanted.write_text("47\n4561 # listed in tilepix.fits, without files\n4730, 48\n")
    done = fetch(
        s3.url, tmp_path / "work", "--json", "--survey", "main", "--program", "dark", "--healpix", f"@{wanted}"
    )
    document = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (document["n_done"], document["counts"]["pixels_absent"]) == (2, 2)
    assert document["absent"] == ["main/dark/4561", "main/dark/4730"]


def test_a_killed_fetch_goes_on_from_the_byte(
    s3: S3Server, proxy: FaultProxy, tmp_path: Path, big_release: Path
) -> None:
    root = tmp_path / "work"
    proxy.delay_s = 0.1
    process = start(proxy.url, root, *BIG_SOURCE)
    wait_for_partial(root, process, 700_000)
    process.kill()
    process.communicate()
    held = sum(path.stat().st_size for path in root.rglob(f".{COADD}.*.qad-part"))
    assert not list(root.rglob(COADD)), "nothing has its final name yet"
    proxy.delay_s = 0
    proxy.reset()
    done = fetch(proxy.url, root, *BIG_SOURCE, "--json")
    assert done.returncode == 0, done.stderr
    size = (big_release / "healpix/main/dark/230/23040" / COADD).stat().st_size
    assert counts(done)["bytes_resumed"] == held
    assert proxy.bytes_of(COADD) == size - held
    assert tree_bytes(healpix_of(root)) == tree_bytes(big_release / "healpix")
    assert not list(root.rglob("*part")), "no stray file"


def test_no_resume_starts_again(proxy: FaultProxy, tmp_path: Path, big_release: Path) -> None:
    root = tmp_path / "work"
    proxy.delay_s = 0.02
    process = start(proxy.url, root, *BIG_SOURCE)
    wait_for_partial(root, process)
    process.kill()
    process.communicate()
    proxy.delay_s = 0
    proxy.reset()
    done = fetch(proxy.url, root, *BIG_SOURCE, "--json", "--no-resume")
    size = (big_release / "healpix/main/dark/230/23040" / COADD).stat().st_size
    assert (done.returncode, counts(done)["bytes_resumed"], proxy.bytes_of(COADD)) == (0, 0, size)
    assert not list(root.rglob("*part"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_at_once_and_keeps_the_partial_file(
    proxy: FaultProxy, tmp_path: Path, big_release: Path, number: signal.Signals
) -> None:
    def stall(found: Exchange) -> None:
        if found.target.partition("?")[0].endswith(COADD) and found.range and found.range[0] == 1 << 20:
            found.stall_at = 300_000

    proxy.reset(stall)
    root = tmp_path / "work"
    process = start(proxy.url, root, *BIG_SOURCE)
    partial = wait_for_partial(root, process, 1 << 20)
    process.send_signal(number)
    # far below the 30 s of the read that hangs
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 128 + number, errors
    assert f"stopped by {number.name}" in errors.splitlines()[-1]
    assert "Traceback" not in errors, errors
    assert partial.stat().st_size >= 1 << 20
    assert not list(root.rglob(COADD))


def test_a_second_fetch_in_one_folder_says_so(proxy: FaultProxy, tmp_path: Path, big_release: Path) -> None:
    proxy.delay_s = 0.5
    root = tmp_path / "work"
    process = start(proxy.url, root, *BIG_SOURCE)
    wait_for_partial(root, process, 65_536)
    second = fetch(proxy.url, root, *BIG_SOURCE)
    process.kill()
    process.communicate()
    assert second.returncode == 2
    assert f"another qad fetch (process {process.pid} on " in second.stderr


def test_an_unreachable_server_is_exit_4_in_one_line(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    done = fetch(f"http://127.0.0.1:{port}", tmp_path / "work", "--set", "fetch.retries=2")
    lines = [line for line in done.stderr.splitlines() if line.startswith("qad fetch:")]
    assert done.returncode == 4
    assert len(lines) == 1
    assert "no connection" in lines[0]
    assert "(3 attempts)" in lines[0]
    assert "--endpoint-url" in lines[0]


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        (("--source", "s3://nosuchbucket/dr1"), 3, "nosuchbucket"),
        (("--source", f"s3://{BUCKET}/nowhere"), 3, "holds no release"),
        (("--source", "https://example.org/dr1"), 2, "neither s3://"),
        (("--source", "s3://"), 2, "no bucket"),
        (("--survey", "mian"), 3, "has no survey mian; there are main, sv3"),
        (("--survey", "mian", "--program", "dark", "--healpix", "47"), 3, "has no survey mian"),
        (("--healpix", "49152"), 2, "no healpix 49152"),
        (("--healpix", "4x"), 2, "'4x' is no healpix number"),
        (("--survey", "../.."), 2, "is no survey"),
    ],
)
def test_what_cannot_be_asked_for_is_one_clear_line(
    s3: S3Server, tmp_path: Path, more: tuple[str, ...], code: int, text: str
) -> None:
    done = fetch(s3.url, tmp_path / "work", *more)
    line = done.stderr.splitlines()[-1]
    assert (done.returncode, line.startswith("qad fetch:"), text in line) == (code, True, True), done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_release_needs_a_source(tmp_path: Path) -> None:
    done = run_qad("fetch", "--release", "dr9", "--root", str(tmp_path / "work"), cwd=tmp_path)
    assert done.returncode == 2
    assert "known are dr1, dr2, edr; give --source" in done.stderr


def test_a_private_bucket_takes_signed_requests_only(s3: S3Server, tmp_path: Path) -> None:
    client = s3.client()
    client.create_bucket(Bucket="private")
    folder = write_pixel(tmp_path / "healpix", SMALL[0])
    for path in folder.iterdir():
        key = path.relative_to(tmp_path).as_posix()
        client.put_object(Bucket="private", Key=key, Body=path.read_bytes())
    client.close()
    source = ("--source", "s3://private")
    refused = fetch(s3.url, tmp_path / "work", *source)
    assert refused.returncode == 3
    assert "access denied" in refused.stderr
    assert "--sign" in refused.stderr
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    taken = fetch(s3.url, tmp_path / "work", *source, "--sign", **keys)
    assert taken.returncode == 0, taken.stderr
    assert SECRET not in "".join(path.read_text() for path in (tmp_path / "work/log").iterdir())
    nameless = fetch(s3.url, tmp_path / "work", *source, "--sign", AWS_EC2_METADATA_DISABLED="true", HOME=str(tmp_path))
    assert nameless.returncode == 2
    assert "--no-sign-request" in nameless.stderr


def test_the_server_can_be_named_as_for_the_aws_tools(s3: S3Server, tmp_path: Path) -> None:
    done = run_qad(
        *("fetch", "--source", SOURCE, "--limit", "1", "--mode", "files", "--root", str(tmp_path / "work")),
        cwd=tmp_path,
        AWS_ENDPOINT_URL_S3=s3.url,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
def test_a_full_disk_is_exit_5_and_leaves_nothing_half_named(
    proxy: FaultProxy, tmp_path: Path, big_release: Path
) -> None:
    root = tmp_path / "work"
    root.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(root)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        done = fetch(proxy.url, root, *BIG_SOURCE)
        assert done.returncode == 5, done.stderr
        assert "no space left" in done.stderr.splitlines()[-1]
        assert str(healpix_of(root)) in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
        assert not list(root.rglob(COADD))
        assert proxy.bytes_of(COADD) <= 3 << 20, "it stops asking"
    finally:
        subprocess.run(["umount", str(root)], check=True)
