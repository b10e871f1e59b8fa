"""``fetch``: bring a release's files here, whole and verified."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from qad.config import Config
from qad.desi.layout import RELEASES, locate_healpix, pixel_folder
from qad.errors import ConfigError
from qad.fetching.download import Meter, Transfer
from qad.fetching.local import LocalSource
from qad.fetching.pixel import PixelResult, Target, fetch_pixel, pending
from qad.fetching.plan import PixelFiles, Plan, Wanted, find_healpix, make_plan
from qad.fetching.receipt import regular_status
from qad.fetching.retry import Patience
from qad.fetching.source import Source
from qad.fetching.threads import run_threads
from qad.results import Failure, RunOptions, StageResult

MB = 1e6
_log = logging.getLogger("qad.fetch")

Value = TypeVar("Value")


def fetch(config: Config, options: RunOptions) -> StageResult:
    """Fetch coadd and redrock files, and the checksum lists that vouch for them, below ``raw/<release>/healpix``.

    Parameters
    ----------
    config : Config
        Section ``fetch``.
    options : RunOptions
        `jobs` is the number of pixels in flight, one file of each at a time; 0 means ``fetch.connections``.

    Returns
    -------
    StageResult
        Units are pixels.  `counts`: ``pixels``, ``files_fetched``, ``files_skipped``, ``pixels_absent``,
        ``pixels_failed``, ``bytes`` (received), ``bytes_resumed`` (found in partial files), ``bytes_skipped``,
        ``keys_refused`` (hostile names in the listing), ``verified.<how>`` (files); of a dry run ``pixels``,
        ``files_to_fetch`` and ``bytes_to_fetch``.  `details`: ``absent`` (what was asked for by number and has no files),
        ``source``, ``bytes_per_second``.

    Raises
    ------
    ServiceError
        If the server cannot be reached after all retries.
    InputError
        If the source holds no release, or nothing that was asked for.
    StorageError
        If the disk is full or not writable.
    Interrupted
        If a signal asked to stop; partial files are kept.
    """
    settings = config.fetch
    url = source_url(config)
    wanted = Wanted(tuple(settings.survey), tuple(settings.program), tuple(settings.healpix), settings.limit)
    target = Target(
        config.root, config.workspace.raw(settings.release) / "healpix", force=options.force, verify=options.verify
    )
    n_threads = options.jobs or settings.connections
    patience = Patience(settings.retries, url)
    options.progress.note(f"listing {url}")
    source = _in_thread(lambda: _open(config, url, patience, n_threads), patience)
    try:
        plan = _in_thread(lambda: make_plan(source, wanted, patience, n_threads), patience)
        work = _Work(plan, target, source, patience, n_threads, options)
        return work.look() if options.dry_run else work.do(settings.part_mib << 20, settings.resume)
    finally:
        source.close()


def source_url(config: Config) -> str:
    """Return the source; where it is not set, the public bucket's folder of the wanted release.

    Raises
    ------
    ConfigError
        If no production is known of the release.
    """
    settings = config.fetch
    if "fetch.source" in config.origins or settings.release == "dr1":
        return settings.source
    specprods = {release: specprod for specprod, release in RELEASES.items()}
    if settings.release not in specprods:
        raise ConfigError(
            f"release {settings.release}: known are {', '.join(sorted(specprods))}; give --source for another one"
        )
    return f"s3://desidata/{settings.release}/spectro/redux/{specprods[settings.release]}"


def _open(config: Config, url: str, patience: Patience, n_connections: int) -> Source:
    """Return the source rooted at its ``healpix`` folder."""
    if not url.startswith("s3://"):
        if "://" in url:
            raise ConfigError(f"source {url}: neither s3://bucket/prefix nor a local folder")
        return LocalSource(locate_healpix(Path(url).expanduser()))
    from qad.fetching.s3 import S3Source, make_client, split_url

    bucket, prefix = split_url(url)
    client = make_client(config.fetch, "fetch.region" in config.origins, n_connections)
    source = S3Source(client, bucket, f"{prefix}/" if prefix else "", patience)
    patience.is_up = source.is_up
    try:
        return find_healpix(source)
    except BaseException:
        source.close()
        raise


@dataclass
class _Work:
    """A run of the stage over its plan."""

    plan: Plan
    target: Target
    source: Source
    patience: Patience
    n_threads: int
    options: RunOptions
    meter: Meter = field(default_factory=Meter)
    shown_bytes: int = 0

    def look(self) -> StageResult:
        """Say what would be done."""
        n_pixels = n_files = n_bytes = 0
        for done in run_threads(partial(pending, self.target), self.plan.pixels, self.n_threads, self.patience.stop):
            if done.error is not None:
                raise done.error
            n_pixels += bool(done.value)
            n_files += len(done.value or ())
            n_bytes += sum(file.size for file in done.value or ())
        counts = {"pixels": len(self.plan.pixels), "files_to_fetch": n_files, "bytes_to_fetch": n_bytes}
        n_skipped = len(self.plan.pixels) - n_pixels
        return self._result(n_pixels, n_skipped, list(self.plan.failures), counts)

    def do(self, part_bytes: int, resume: bool) -> StageResult:
        """Fetch."""
        transfer = Transfer(self.source, self.patience, part_bytes, resume, self.meter)
        self._warn_of_space()
        started = time.monotonic()
        self.options.progress.start("fetch", sum(files.n_bytes for files in self.plan.pixels) / MB, "MB")
        failures = list(self.plan.failures)
        counts: Counter[str] = Counter()
        work = partial(fetch_pixel, transfer, self.target)
        for done in run_threads(work, self.plan.pixels, self.n_threads, self.patience.stop, self._show):
            name = str(done.item.pixel)
            if done.error is None and done.value is not None:
                counts += _count(done.value)
                _log.info("fetched", extra={"unit": name, "files": done.value.n_fetched, "kept": done.value.n_kept})
            else:
                failures.append(Failure(name, str(done.error)))
                _log.warning("failed", extra={"unit": name, "reason": str(done.error)})
        rate = self.meter.received / max(time.monotonic() - started, 1e-9)
        result = self._result(counts["done"], counts["skipped"], failures, self._counts(counts, failures))
        return replace(result, details={**result.details, "bytes_per_second": round(rate)})

    def _counts(self, counts: Counter[str], failures: list[Failure]) -> dict[str, float]:
        verified = {name: n for name, n in sorted(counts.items()) if name.startswith("verified.")}
        return {
            "pixels": len(self.plan.pixels) + len(self.plan.failures),
            "pixels_absent": len(self.plan.absent),
            "pixels_failed": len(failures),
            "files_fetched": counts["files_fetched"],
            "files_skipped": counts["files_skipped"],
            "bytes": self.meter.received,
            "bytes_resumed": self.meter.resumed,
            "bytes_skipped": self.meter.kept,
            "keys_refused": self.source.refused,
            **verified,
        }

    def _result(self, n_done: int, n_skipped: int, failures: list[Failure], counts: Mapping[str, float]) -> StageResult:
        if self.source.refused:
            self.options.progress.note(f"{self.source.refused} names in the listing could leave their folder: refused")
        return StageResult(
            "fetch",
            n_done=n_done,
            n_skipped=n_skipped,
            failures=tuple(sorted(failures, key=lambda failure: failure.unit)),
            paths=(self.target.healpix,),
            counts=counts,
            dry_run=self.options.dry_run,
            details={"source": self.source.url, "absent": list(self.plan.absent)},
        )

    def _show(self) -> None:
        handled = self.meter.handled
        self.options.progress.advance((handled - self.shown_bytes) / MB)
        self.shown_bytes = handled

    def _warn_of_space(self) -> None:
        there = next(path for path in (self.target.root, *self.target.root.parents) if path.exists())
        free = shutil.disk_usage(there).free
        needed = sum(self._missing_bytes(files) for files in self.plan.pixels)
        if needed > free:
            self.options.progress.note(
                f"{needed / 1e9:.1f} GB are wanted and {free / 1e9:.1f} GB are free below {there}"
            )

    def _missing_bytes(self, files: PixelFiles) -> int:
        """Return the bytes of the files that are not there at their size: a quick look, not a proof."""
        folder = pixel_folder(self.target.healpix, files.pixel)
        there = ((file, regular_status(folder / file.name)) for file in files.all)
        return sum(file.size for file, status in there if status is None or status.st_size != file.size)


def _count(result: PixelResult) -> Counter[str]:
    counts = Counter({"files_fetched": result.n_fetched, "files_skipped": result.n_kept})
    counts["done" if result.n_fetched else "skipped"] += 1
    counts.update(f"verified.{how}" for how in result.verified)
    return counts


def _in_thread(work: Callable[[], Value], patience: Patience) -> Value:
    """Run work that talks to the network where a signal's exception cannot get lost in a library."""
    (done,) = run_threads(lambda _: work(), [None], 1, patience.stop)
    if done.error is not None:
        raise done.error
    return cast(Value, done.value)
