"""A network that lies, breaks and falls silent, while rows and HDUs are cut out: the same files as without faults."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from made_release import TRUE, TruePixel, quasars_of, write_list, write_true_pixel
from s3server import BUCKET, KEY, SECRET, Exchange, FaultProxy, S3Server, run_qad, tree_bytes
from spoil import (
    DATA,
    PASSING,
    Spoil,
    close_after,
    cut_with_reset,
    denied,
    flip_some,
    gone,
    internal_error,
    now_and_then,
    on,
    other_bytes,
    redirect,
    refuse,
    words_moved,
)

import qad
from qad.desi.layout import coadd_name, pixel_folder, redrock_name
from qad.errors import ConfigError, InputError, QadError, ServiceError
from qad.results import StageResult

MODES = ("rows", "hdus")
FIRST = TRUE[0].pixel
COADD, REDROCK = coadd_name(FIRST), redrock_name(FIRST)
Reference = Callable[..., dict[str, bytes]]


def bring(server: FaultProxy | S3Server, source: str, root: Path, **more: object) -> StageResult:
    """Fetch, with short waits."""
    keys = {"timeout_s": 0.7, "retries": 5, "connections": 4, **more}
    return qad.fetch(source=source, root=root, endpoint_url=server.url, **keys)


def fetched(root: Path) -> dict[str, bytes]:
    return tree_bytes(root / "raw/dr1/healpix")


def parts_left(root: Path) -> list[Path]:
    return list(root.rglob("*part"))


@pytest.fixture(scope="session")
def reference(s3: S3Server, true_source: str, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """What each mode leaves of the made release where nothing goes wrong."""
    known: dict[tuple[str, str], dict[str, bytes]] = {}

    def of(mode: str, url: str = s3.url) -> dict[str, bytes]:
        key = mode, url.partition("://")[0]
        if key not in known:
            root = tmp_path_factory.mktemp("reference")
            assert qad.fetch(source=true_source, root=root, endpoint_url=url, mode=mode).failures == ()
            known[key] = fetched(root)
        return known[key]

    return of


@pytest.mark.parametrize("spoil", PASSING, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("mode", MODES)
def test_faults_that_pass_leave_the_files_of_a_run_without_faults(
    proxy: FaultProxy, true_source: str, reference: Reference, tmp_path: Path, mode: str, spoil: Spoil
) -> None:
    whole = reference(mode)
    proxy.reset(now_and_then(spoil, seed=PASSING.index(spoil)))
    result = bring(proxy, true_source, tmp_path, mode=mode)
    # a 403 is not repeated twice for one object: then its pixel fails by name, and the next run brings it
    if spoil is denied and result.failures:
        assert "refuses this object" in result.failures[0].reason
        assert fetched(tmp_path).items() <= whole.items()
        proxy.reset()
        result = bring(proxy, true_source, tmp_path, mode=mode)
    assert result.failures == ()
    assert fetched(tmp_path) == whole
    assert not parts_left(tmp_path)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", MODES)
def test_bits_that_flip_anywhere_on_the_way_are_found(
    proxy: FaultProxy, true_source: str, reference: Reference, tmp_path: Path, mode: str, seed: int
) -> None:
    drawn = random.Random(seed)
    whole = reference(mode)
    proxy.reset(now_and_then(lambda found: flip_some(found, drawn, drawn.choice([1, 1, 64])), seed))
    assert bring(proxy, true_source, tmp_path, mode=mode).failures == ()
    assert fetched(tmp_path) == whole


@pytest.mark.parametrize("mode", MODES)
def test_words_in_another_order_are_found(
    proxy: FaultProxy, true_source: str, reference: Reference, tmp_path: Path, mode: str
) -> None:
    def fault(found: Exchange) -> None:
        # once of each large answer; headers come in small ones
        if found.path.endswith(COADD) and len(found.body) > 100_000 and found.range not in seen:
            seen.append(found.range)
            words_moved(found)

    seen: list[tuple[int, int] | None] = []

    whole = reference(mode)
    proxy.reset(fault)
    bring(proxy, true_source, tmp_path, mode=mode)
    assert fetched(tmp_path).items() <= whole.items()


@pytest.mark.parametrize("spoil", [flip_some, other_bytes], ids=lambda spoil: spoil.__name__)
def test_a_row_that_comes_wrong_in_one_of_two_answers_is_asked_for_again(
    proxy: FaultProxy, true_source: str, reference: Reference, tmp_path: Path, spoil: Spoil
) -> None:
    """Each range of rows in turn: the first of its two answers is spoilt."""
    seen: list[tuple[int, int]] = []
    whole = reference("rows")
    drawn = random.Random(5)

    def fault(found: Exchange) -> None:
        if not found.path.endswith(COADD) or not found.range:
            return
        first, last = found.range
        if not any(first < stop and last > start for start, stop in seen):
            seen.append(found.range)
            flip_some(found, drawn) if spoil is flip_some else spoil(found)

    proxy.reset(fault)
    result = bring(proxy, true_source, tmp_path)
    # whole data units cannot come wrong more than three times: they are checked together
    assert all("does not match its DATASUM" in failure.reason for failure in result.failures)
    assert fetched(tmp_path).items() <= whole.items()
    proxy.reset()
    bring(proxy, true_source, tmp_path)
    assert fetched(tmp_path) == whole


@pytest.mark.parametrize("mode", [*MODES, "files"])
def test_refused_connections_are_waited_for(
    proxy: FaultProxy, true_source: str, reference: Reference, tmp_path: Path, mode: str
) -> None:
    whole = reference(mode)
    proxy.reset(now_and_then(refuse(proxy, 0.4), seed=2, span=20, most=2))
    assert bring(proxy, true_source, tmp_path, mode=mode).failures == ()
    assert fetched(tmp_path) == whole


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("spoil", "text"),
    [(gone, "is now gone"), (denied, "refuses this object"), (redirect, "served elsewhere"), (internal_error, "500")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_coadd_that_never_comes_fails_its_pixel_alone(
    proxy: FaultProxy, true_source: str, reference: Reference, tmp_path: Path, mode: str, spoil: Spoil, text: str
) -> None:
    whole = reference(mode)
    proxy.reset(on(COADD, spoil, times=10_000, after=3))
    result = bring(proxy, true_source, tmp_path, mode=mode, retries=1)
    assert [failure.unit for failure in result.failures] == [str(FIRST)]
    assert text in result.failures[0].reason
    there = fetched(tmp_path)
    assert there.items() <= whole.items()
    assert [name for name in whole.keys() - there.keys() if not name.endswith(".sha256sum")] == [
        next(name for name in whole if name.endswith(COADD))
    ]
    proxy.reset()
    assert bring(proxy, true_source, tmp_path, mode=mode).n_done == 1
    assert fetched(tmp_path) == whole
    assert not parts_left(tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_bytes_that_never_come_the_same_way_get_no_name(
    proxy: FaultProxy, true_source: str, reference: Reference, tmp_path: Path, mode: str
) -> None:
    whole = reference(mode)
    drawn = random.Random(1)
    proxy.reset(on(COADD, lambda found: flip_some(found, drawn), times=10_000, after=12))
    (failure,) = bring(proxy, true_source, tmp_path, mode=mode).failures
    assert COADD in failure.reason
    assert fetched(tmp_path).items() <= whole.items()
    assert not list(tmp_path.rglob(COADD))


def test_a_server_that_goes_down_ends_the_run_and_nothing_is_wrong(
    proxy: FaultProxy, true_source: str, reference: Reference, tmp_path: Path
) -> None:
    whole = reference("rows")
    count = itertools.count()
    proxy.reset(lambda found: internal_error(found) if next(count) > 40 else None)
    with suppress(ServiceError):
        assert bring(proxy, true_source, tmp_path, retries=1).failures
    with pytest.raises(ServiceError, match="what is fetched stays"):
        bring(proxy, true_source, tmp_path, retries=1)
    assert fetched(tmp_path).items() <= whole.items()
    proxy.reset()
    assert bring(proxy, true_source, tmp_path).failures == ()
    assert fetched(tmp_path) == whole


# ---------------------------------------------------------------- objects that change


@pytest.fixture
def own(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A release of one pixel that a test may change, served under a prefix of its own."""
    root = tmp_path_factory.mktemp("own")
    publish(s3, root, seed=0)
    return f"s3://{BUCKET}/{root.name}", root


def publish(s3: S3Server, root: Path, seed: int) -> None:
    write_true_pixel(root / "healpix", TruePixel(FIRST, 20, 3, with_resolution=False, seed=seed))
    s3.put_tree(root, root.name)


@pytest.fixture
def versions(
    s3: S3Server, own: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[dict[str, bytes]]]:
    """Return what a mode leaves of each of two versions of the pixel; the first is published at the end."""

    def of(mode: str) -> list[dict[str, bytes]]:
        found: list[dict[str, bytes]] = []
        for seed in (1, 0):
            publish(s3, own[1], seed)
            root = tmp_path_factory.mktemp("version")
            qad.fetch(source=own[0], root=root, endpoint_url=s3.url, mode=mode)
            found.insert(0, fetched(root))
        return found

    return of


@pytest.mark.parametrize("after", [0, 4, 12, 30])
@pytest.mark.parametrize("mode", MODES)
def test_an_object_that_changes_between_two_ranges_is_never_mixed(
    s3: S3Server,
    proxy: FaultProxy,
    own: tuple[str, Path],
    versions: Callable[[str], list[dict[str, bytes]]],
    tmp_path: Path,
    mode: str,
    after: int,
) -> None:
    first, second = versions(mode)
    proxy.reset(on(".fits", lambda _: publish(s3, own[1], seed=1), after=after))
    result = bring(proxy, own[0], tmp_path, mode=mode)
    there = fetched(tmp_path)
    assert result.failures == ()
    assert there in (first, second)
    proxy.reset()
    bring(proxy, own[0], tmp_path, mode=mode)
    is_over = s3_seed_is_second(s3, own)
    assert fetched(tmp_path) == (second if is_over else first)
    assert not parts_left(tmp_path)


def s3_seed_is_second(s3: S3Server, own: tuple[str, Path]) -> bool:
    """Whether the second version is the one that is served."""
    client = s3.client()
    key = f"{own[1].name}/healpix/main/dark/91/9144/{COADD}"
    served = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    client.close()
    now = pixel_folder(own[1] / "healpix", FIRST) / COADD
    assert served == now.read_bytes()
    write_true_pixel(own[1] / "again", TruePixel(FIRST, 20, 3, with_resolution=False, seed=1))
    return served == (pixel_folder(own[1] / "again", FIRST) / COADD).read_bytes()


@pytest.mark.parametrize("mode", MODES)
def test_what_was_begun_of_another_version_is_thrown_away(
    s3: S3Server,
    proxy: FaultProxy,
    own: tuple[str, Path],
    versions: Callable[[str], list[dict[str, bytes]]],
    tmp_path: Path,
    mode: str,
) -> None:
    _, second = versions(mode)
    bring(proxy, own[0], tmp_path / "whole", mode=mode)
    n_requests = sum(COADD in line for line in proxy.requests)
    proxy.reset(on(COADD, gone, times=10_000, after=n_requests - 4))
    assert bring(proxy, own[0], tmp_path, mode=mode).failures
    assert parts_left(tmp_path)
    publish(s3, own[1], seed=1)
    proxy.reset()
    result = bring(proxy, own[0], tmp_path, mode=mode)
    assert (result.failures, result.counts["bytes_resumed"]) == ((), 0)
    assert fetched(tmp_path) == second
    assert not parts_left(tmp_path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ["go on", "no-resume", "damaged", "cut short"])
def test_what_an_earlier_run_has_left_is_taken_up_or_thrown_away(
    proxy: FaultProxy, own: tuple[str, Path], tmp_path: Path, mode: str, what: str
) -> None:
    bring(proxy, own[0], tmp_path / "whole", mode=mode)
    n_requests = sum(COADD in line for line in proxy.requests)
    root = tmp_path / "work"
    proxy.reset(on(COADD, gone, times=10_000, after=n_requests - 4))
    assert bring(proxy, own[0], root, mode=mode).failures
    parts = parts_left(root)
    assert parts
    for path in parts:
        raw = bytearray(path.read_bytes())
        if what == "damaged":
            raw[len(raw) // 2] ^= 1
        elif what == "cut short":
            del raw[len(raw) * 3 // 4 :]
        path.write_bytes(raw)
    proxy.reset()
    result = bring(proxy, own[0], root, mode=mode, resume=what != "no-resume")
    assert result.failures == ()
    assert (result.counts["bytes_resumed"] > 0) == (what != "no-resume")
    assert fetched(root) == fetched(tmp_path / "whole")
    assert not parts_left(root)


@pytest.mark.parametrize("mode", MODES)
def test_a_pixel_that_is_replaced_is_fetched_again(
    s3: S3Server,
    proxy: FaultProxy,
    own: tuple[str, Path],
    versions: Callable[[str], list[dict[str, bytes]]],
    tmp_path: Path,
    mode: str,
) -> None:
    first, second = versions(mode)
    bring(proxy, own[0], tmp_path, mode=mode)
    assert fetched(tmp_path) == first
    publish(s3, own[1], seed=1)
    bring(proxy, own[0], tmp_path, mode=mode)
    assert fetched(tmp_path) == second


def test_new_redshifts_of_the_same_coadd_give_other_rows(
    s3: S3Server, proxy: FaultProxy, own: tuple[str, Path], tmp_path: Path
) -> None:
    """Redrock's file decides what is wanted: where it is replaced, the cut is made again."""
    bring(proxy, own[0], tmp_path)
    folder = pixel_folder(own[1] / "healpix", FIRST)
    coadd = (folder / COADD).read_bytes()
    publish(s3, own[1], seed=1)
    # the second version's redshifts for the first one's targets
    write_true_pixel(own[1] / "healpix", TruePixel(FIRST, 20, 6, with_resolution=False))
    (folder / COADD).write_bytes(coadd)
    write_list(folder, FIRST)
    s3.put_tree(own[1], own[1].name)
    bring(proxy, own[0], tmp_path / "anew")
    bring(proxy, own[0], tmp_path)
    assert fetched(tmp_path) == fetched(tmp_path / "anew")


def test_rows_of_an_earlier_choice_are_not_lost_when_damage_is_mended(
    proxy: FaultProxy, own: tuple[str, Path], tmp_path: Path
) -> None:
    """The receipt may not say that rows are here which a damaged FIBERMAP could no longer name."""
    bring(proxy, own[0], tmp_path)
    bring(proxy, own[0], tmp_path, spectype=["STAR"])
    ours = pixel_folder(tmp_path / "raw/dr1/healpix", FIRST) / COADD
    raw = bytearray(ours.read_bytes())
    place = raw.index(b"END" + b" " * 77, raw.index(b"FIBERMAP"))
    raw[-(-place // 2880) * 2880 + 40] ^= 1
    status = ours.stat()
    ours.write_bytes(raw)
    os.utime(ours, ns=(status.st_atime_ns, status.st_mtime_ns))
    bring(proxy, own[0], tmp_path, spectype=["STAR"], verify=True)
    bring(proxy, own[0], tmp_path)
    assert held_targets(ours) >= quasars_of(ours.with_name(REDROCK))


def held_targets(coadd: Path) -> set[int]:
    from astropy.io import fits

    with fits.open(coadd, checksum=True) as file:
        return {int(n) for n in file["FIBERMAP"].data["TARGETID"]}


# ---------------------------------------------------------------- ways to the server


@pytest.mark.parametrize("mode", [*MODES, "files"])
def test_signed_requests_bring_the_same(
    proxy: FaultProxy,
    true_source: str,
    reference: Reference,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    whole = reference(mode)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    proxy.reset(now_and_then(internal_error, seed=1, most=2))
    assert bring(proxy, true_source, tmp_path, mode=mode, anonymous=False).failures == ()
    assert fetched(tmp_path) == whole
    asked = [line for line in proxy.requests if ".fits" in line]
    assert all("X-Amz-Signature=" in line for line in asked)
    assert SECRET not in "".join(proxy.requests)


@pytest.mark.parametrize("mode", [*MODES, "files"])
def test_the_proxy_of_the_environment_is_gone_through_unless_it_says_no(
    s3: S3Server,
    proxy: FaultProxy,
    true_source: str,
    reference: Reference,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    whole = reference(mode)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    bring(s3, true_source, tmp_path / "straight", mode=mode)
    assert proxy.requests == [], "no_proxy names 127.0.0.1"
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name)
    bring(s3, true_source, tmp_path / "through", mode=mode)
    assert fetched(tmp_path / "straight") == fetched(tmp_path / "through") == whole
    assert all(line.startswith(f"GET {s3.url}/") for line in proxy.requests)
    assert any(".fits" in line for line in proxy.requests)
    assert any("list-type" in line for line in proxy.requests)


@pytest.mark.parametrize("mode", MODES)
def test_over_tls_rows_come_once_and_the_authority_is_that_of_the_aws_tools(
    tls_proxy: FaultProxy,
    certificate: Path,
    true_source: str,
    reference: Reference,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    whole = reference(mode, tls_proxy.url)
    for spoil in (None, cut_with_reset, close_after):
        tls_proxy.reset(now_and_then(spoil, seed=3, most=3) if spoil else lambda _: None)
        root = tmp_path / (spoil.__name__ if spoil else "first")
        assert bring(tls_proxy, true_source, root, mode=mode).failures == ()
        assert fetched(root) == whole
        if spoil is None:
            ranges = [line for line in tls_proxy.requests if ".fits" in line]
            receipt = json.loads((pixel_folder(root / "raw/dr1/healpix", FIRST) / ".qad-fetch.json").read_text())
            assert receipt["files"][COADD]["verified"] == ("tls" if mode == "rows" else "datasum")
            assert len(ranges) < 100


def test_a_proxy_carries_tls_unread(
    tls_proxy: FaultProxy,
    proxy: FaultProxy,
    certificate: Path,
    true_source: str,
    reference: Reference,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    whole = reference("rows", tls_proxy.url)
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name)
    assert bring(tls_proxy, true_source, tmp_path).failures == ()
    assert fetched(tmp_path) == whole
    assert {line.split()[0] for line in proxy.requests} == {"CONNECT"}


def test_a_certificate_that_nobody_vouches_for_is_one_line(
    tls_proxy: FaultProxy, true_source: str, tmp_path: Path
) -> None:
    arguments = ("fetch", "--source", true_source, "--endpoint-url", tls_proxy.url, "--root", str(tmp_path / "work"))
    done: subprocess.CompletedProcess[str] = run_qad(*arguments, cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.startswith("qad fetch:")]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    assert "certificate" in lines[0]
    assert "AWS_CA_BUNDLE" in lines[0]
    assert "Traceback" not in done.stderr


def test_an_authority_that_is_no_file_is_one_line(tls_proxy: FaultProxy, true_source: str, tmp_path: Path) -> None:
    arguments = ("fetch", "--source", true_source, "--endpoint-url", tls_proxy.url, "--root", str(tmp_path / "work"))
    done = run_qad(*arguments, cwd=tmp_path, AWS_CA_BUNDLE=str(tmp_path / "nowhere.pem"))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", [*MODES, "files"])
def test_kept_connections_that_the_server_closes_cost_nothing(
    proxy: FaultProxy, true_source: str, reference: Reference, tmp_path: Path, mode: str
) -> None:
    """Every answer is the last of its connection, and none says so."""

    def close(found: Exchange) -> None:
        found.is_last = found.path.endswith(DATA)

    whole = reference(mode)
    proxy.reset(close)
    result = bring(proxy, true_source, tmp_path, mode=mode, retries=0)
    assert result.failures == ()
    assert fetched(tmp_path) == whole


def test_errors_are_ours(proxy: FaultProxy, tmp_path: Path) -> None:
    for source in (f"s3://{BUCKET}/nowhere", "s3://no-such-bucket/x"):
        with pytest.raises(QadError) as caught:
            bring(proxy, source, tmp_path)
        assert isinstance(caught.value, InputError | ConfigError)
