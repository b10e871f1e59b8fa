"""``fetch``: bring a release's files here, verified: whole, or the rows of quasars alone."""

from __future__ import annotations

import gc
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from qad.config import Config
from qad.desi.layout import RELEASES, locate_healpix, pixel_folder
from qad.errors import ConfigError
from qad.fetching.crew import Crew
from qad.fetching.download import Meter, Transfer
from qad.fetching.estimate import count_targets, hdus_bytes, rows_bytes
from qad.fetching.fleet import Fleet, count_processes
from qad.fetching.line import Line
from qad.fetching.local import LocalSource
from qad.fetching.look import look_ahead, looking_threads
from qad.fetching.memory import remember
from qad.fetching.order import Order, read_order
from qad.fetching.pixel import PixelResult, Target, fetch_pixel, settle_pixel
from qad.fetching.plan import PixelFiles, Plan, find_healpix, make_plan
from qad.fetching.receipt import regular_status
from qad.fetching.retry import Patience
from qad.fetching.source import Source
from qad.fetching.targets import Tally
from qad.fetching.threads import Done, run_threads
from qad.parallel import Share
from qad.results import BYTES, Failure, RunOptions, StageResult, format_bytes

LOCAL_THREADS = 8
COLLECTED_OBJECTS = 50_000
TYPICAL_SHARE = 0.12
"""Wanted rows among those of main/dark: what progress expects before the first pixels tell."""
SHOWN_TARGETS = 1000
_log = logging.getLogger("qad.fetch")

Value = TypeVar("Value")


def fetch(config: Config, options: RunOptions) -> StageResult:
    """Fetch redrock files, what is wanted of the coadds, and the checksum lists, below ``raw/<release>/healpix``.

    Parameters
    ----------
    config : Config
        Section ``fetch``.
    options : RunOptions
        `jobs` is the number of requests under way; 0 means ``fetch.connections``.

    Returns
    -------
    StageResult
        Units are pixels.  `counts`: ``pixels``, ``files_fetched``, ``files_skipped``, ``rows_fetched`` (of cut coadds),
        ``pixels_absent``, ``pixels_failed``, ``bytes`` (received), ``bytes_resumed`` (found in partial files),
        ``bytes_skipped``, ``bytes_whole`` (of the whole files of the pixels done now), ``requests_repeated``,
        ``keys_refused`` (hostile names in the listing), ``targets.<what>`` (of a table of targets),
        ``verified.<how>`` (files); of a dry run ``pixels``, ``files_to_fetch`` and ``bytes_to_fetch``.  `details`:
        ``absent`` (what was asked for by number and has no files), ``source``, ``mode``, ``bytes_per_second``,
        ``targets_missing`` (the first listed targets that no pixel holds); of a dry run see
        :class:`~qad.fetching.look.Outlook`.

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
    patience = Patience(settings.retries, url)
    line = Line(options.jobs or (settings.connections if "://" in url else LOCAL_THREADS))
    options.progress.note(f"listing {url}")
    source = _in_thread(lambda: _open(config, url, patience, line), patience)
    crew = Crew(patience.stop, line.spare)
    transfer = Transfer(source, patience, line, crew, settings.part_mib << 20, settings.resume, Meter())
    fleet = Fleet(transfer)
    try:
        if not (options.dry_run or source.transport == "disk"):
            fleet.build(settings.processes or count_processes(settings.mode, line.connections))
        order = _in_thread(lambda: read_order(settings, source, patience), patience)
        plan = _in_thread(lambda: make_plan(source, order.wanted, patience, line.connections), patience)
        target = Target(
            config.root,
            config.workspace.raw(settings.release) / "healpix",
            options.force,
            options.verify,
            settings.mode,
            settings.resolution,
            order.choice,
        )
        work = _Work(order, share_of(plan, options.share), target, transfer, fleet, options, settings.processes)
        if options.dry_run:
            return work.look()
        remember(config.workspace, settings.release, source.url, settings.mode, plan.pixels)
        return work.do()
    finally:
        fleet.close()
        source.close()


def share_of(plan: Plan, share: Share | None) -> Plan:
    """Return what of a plan falls to `share`: pixels, and those that cannot be fetched, by their names."""
    if share is None:
        return plan
    pixels = tuple(files for files in plan.pixels if share.takes(str(files.pixel)))
    return Plan(pixels, plan.absent, tuple(failure for failure in plan.failures if share.takes(failure.unit)))


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


def _open(config: Config, url: str, patience: Patience, line: Line) -> Source:
    """Return the source rooted at its ``healpix`` folder."""
    if not url.startswith("s3://"):
        if "://" in url:
            raise ConfigError(f"source {url}: neither s3://bucket/prefix nor a local folder")
        return LocalSource(locate_healpix(Path(url).expanduser()))
    from qad.fetching.s3 import open_source

    source = open_source(config.fetch, "fetch.region" in config.origins, url, patience, line)
    try:
        return find_healpix(source)
    except BaseException:
        source.close()
        raise


@dataclass
class _Work:
    """A run of the stage over its plan."""

    order: Order
    plan: Plan
    target: Target
    transfer: Transfer
    fleet: Fleet
    options: RunOptions
    n_processes: int
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def look(self) -> StageResult:
        """Say what would be done."""
        patience = self.transfer.patience
        outlook = _in_thread(lambda: look_ahead(self.transfer, self.target, self.order, self.plan), patience)
        found = outlook.as_json()
        n_bytes = found["bytes_by_mode"].get(self.target.mode, {"value": 0})["value"]
        counts = {
            "pixels": len(self.plan.pixels),
            "pixels_absent": len(self.plan.absent),
            "files_to_fetch": sum(len(names) for names in outlook.todo.values()),
            "bytes_to_fetch": n_bytes,
            **self._target_counts(),
        }
        n_done = len(outlook.todo)
        return self._result(n_done, len(self.plan.pixels) - n_done, list(self.plan.failures), counts, found)

    def do(self) -> StageResult:
        """Fetch."""
        with _calm_collector():
            return self._do()

    def _do(self) -> StageResult:
        self._warn_of_space()
        started = time.monotonic()
        shown = _Shown(self)
        self.options.progress.start("fetch", shown.expected, BYTES)
        self.failures = list(self.plan.failures)
        tally = Tally(self.order.targets, self.order.wanted) if self.order.targets is not None else None
        left = self._settle(shown, tally)
        for done in self._run(left, shown):
            name = str(done.item.pixel)
            shown.pixel_done(done.item)
            if done.error is None and done.value is not None:
                self._note(done.item, done.value, tally)
                _log.info("fetched", extra={"unit": name, "files": done.value.n_fetched, "kept": done.value.n_kept})
            else:
                self.failures.append(Failure(name, str(done.error)))
                _log.warning("failed", extra={"unit": name, "reason": str(done.error)})
                if tally is not None:
                    tally.untold(done.item.pixel)
        rate = self.transfer.meter.received / max(time.monotonic() - started, 1e-9)
        more: dict[str, Any] = {"bytes_per_second": round(rate)}
        counts = self._counts()
        # of a part of the pixels nobody can say what is in none
        if tally is not None and not self.order.wanted.limit and not self.options.share:
            missing = tally.missing()
            counts["targets.missing"] = len(missing)
            more["targets_missing"] = [tally.name(index) for index in missing[:SHOWN_TARGETS]]
        return self._result(self.counts["done"], self.counts["skipped"], self.failures, counts, more)

    def _run(self, left: list[PixelFiles], shown: _Shown) -> Iterator[Done[PixelFiles, PixelResult]]:
        """Fetch pixels on the threads of this process and, where that is worth its start, of others."""
        transfer = self.transfer
        if transfer.source.transport != "disk":
            suitable = count_processes(self.target.mode, transfer.line.connections, left)
            self.fleet.launch(self.target, self.n_processes or suitable)
        work = partial(fetch_pixel, transfer, self.target)
        stop, n_threads = transfer.patience.stop, transfer.line.connections
        return run_threads(work, left, n_threads, stop, shown.tick, transfer.crew, self.fleet.ships)

    def _settle(self, shown: _Shown, tally: Tally | None) -> list[PixelFiles]:
        """Pass over the pixels in which nothing is to do, and return the others.

        Threads enough to fill a line would only stand in each other's way here.
        """
        settled = set()
        work = partial(settle_pixel, self.transfer, self.target)
        n_threads = looking_threads(self.target.verify)
        for done in run_threads(work, self.plan.pixels, n_threads, self.transfer.patience.stop, shown.tick):
            if done.value is not None:
                settled.add(done.item.pixel)
                shown.pixel_done(done.item)
                self._note(done.item, done.value, tally)
        _log.info("nothing to do", extra={"pixels": len(settled)})
        return [files for files in self.plan.pixels if files.pixel not in settled]

    def _note(self, files: PixelFiles, result: PixelResult, tally: Tally | None) -> None:
        self.counts.update(
            {
                "files_fetched": result.n_fetched,
                "files_skipped": result.n_kept,
                "rows_fetched": result.n_rows,
                "done" if result.n_fetched else "skipped": 1,
                "bytes_whole": files.n_bytes if result.n_fetched else 0,
            }
        )
        self.counts.update(f"verified.{how}" for how in result.verified)
        if tally is not None:
            if result.matched is None:
                tally.untold(files.pixel)
            else:
                tally.found(result.matched)

    def _counts(self) -> dict[str, float]:
        meter = self.transfer.meter
        return {
            "pixels": len(self.plan.pixels) + len(self.plan.failures),
            "pixels_absent": len(self.plan.absent),
            "pixels_failed": len(self.failures),
            "files_fetched": self.counts["files_fetched"],
            "files_skipped": self.counts["files_skipped"],
            "rows_fetched": self.counts["rows_fetched"],
            "bytes": meter.received,
            "bytes_whole": self.counts["bytes_whole"],
            "bytes_resumed": meter.resumed,
            "bytes_skipped": meter.kept,
            "requests_repeated": self.fleet.repeated,
            "keys_refused": self.transfer.source.refused,
            **self._target_counts(),
            **{name: n for name, n in sorted(self.counts.items()) if name.startswith("verified.")},
        }

    def _target_counts(self) -> dict[str, float]:
        targets = self.order.targets
        return {f"targets.{name}": n for name, n in targets.counts.items()} if targets is not None else {}

    def _result(
        self,
        n_done: int,
        n_skipped: int,
        failures: list[Failure],
        counts: Mapping[str, float],
        more: Mapping[str, Any],
    ) -> StageResult:
        source = self.transfer.source
        if source.refused:
            self.options.progress.note(f"{source.refused} names in the listing could leave their folder: refused")
        return StageResult(
            "fetch",
            n_done=n_done,
            n_skipped=n_skipped,
            failures=tuple(sorted(failures, key=lambda failure: failure.unit)),
            paths=(self.target.healpix,),
            counts=counts,
            dry_run=self.options.dry_run,
            details={"source": source.url, "mode": self.target.mode, "absent": list(self.plan.absent), **more},
        )

    def _warn_of_space(self) -> None:
        there = next(path for path in (self.target.root, *self.target.root.parents) if path.exists())
        free = shutil.disk_usage(there).free
        needed = sum(expected_bytes(self.target, files) for files in self.plan.pixels if not self._is_there(files))
        if needed > free:
            self.options.progress.note(
                f"about {format_bytes(needed)} are wanted and {format_bytes(free)} are free below {there}"
            )

    def _is_there(self, files: PixelFiles) -> bool:
        """Whether a pixel's redrock file is there at its size: a quick look, not a proof."""
        redrock = files.data[0]
        status = regular_status(pixel_folder(self.target.healpix, files.pixel) / redrock.name)
        return status is not None and status.st_size == redrock.size


class _Shown:
    """What progress shows: bytes of those that are expected, which the pixels done so far correct."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._handled = 0
        self._pixels_done = 0
        self._expected_of_done = 0.0
        self.expected = float(sum(expected_bytes(work.target, files) for files in work.plan.pixels))

    def pixel_done(self, files: PixelFiles) -> None:
        """Learn from a pixel how good the guess was."""
        self._pixels_done += 1
        self._expected_of_done += expected_bytes(self._work.target, files)

    def tick(self) -> None:
        """Show how it stands."""
        transfer, progress = self._work.transfer, self._work.options.progress
        handled = transfer.meter.handled
        progress.expect(max(handled, self._guess(handled)))
        progress.tell(self._state())
        progress.advance(handled - self._handled)
        self._handled = handled

    def _guess(self, handled: int) -> float:
        """Return how many bytes it will be in all."""
        if self._pixels_done == len(self._work.plan.pixels):
            return handled
        # before that the pixels in work, of which nobody knows how far they are, would mislead
        if self._work.target.mode == "files" or self._pixels_done < 2 * self._work.transfer.line.connections:
            return self.expected
        return self.expected * handled / self._expected_of_done

    def _state(self) -> str:
        fleet, n_pixels = self._work.fleet, len(self._work.plan.pixels)
        words = [f"{self._pixels_done}/{n_pixels} pixels", f"{fleet.in_flight} requests"]
        words += [f"{fleet.repeated} repeated"] if fleet.repeated else []
        words += [f"{len(self._work.failures)} failed"] if self._work.failures else []
        return ", ".join(words)


def expected_bytes(target: Target, files: PixelFiles) -> float:
    """Return about how many bytes a pixel will take."""
    if target.mode == "files":
        return files.n_bytes
    coadd = files.data[-1].size
    rest = files.n_bytes - coadd
    if target.mode == "hdus":
        return rest + hdus_bytes(coadd, target.resolution)
    return rest + rows_bytes(coadd, round(TYPICAL_SHARE * count_targets(coadd)), target.resolution)


@contextmanager
def _calm_collector() -> Iterator[None]:
    """Let the collector of cyclic garbage look less often: requests make many objects and hardly any cycle."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECTED_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _in_thread(work: Callable[[], Value], patience: Patience) -> Value:
    """Run work that talks to the network where a signal's exception cannot get lost in a library."""
    (done,) = run_threads(lambda _: work(), [0], 1, patience.stop)
    if done.error is not None:
        raise done.error
    return cast(Value, done.value)
