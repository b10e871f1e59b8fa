"""One run of a command: its configuration, lock, log, progress, report and exit code."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from qad.cli.options import Common
from qad.errors import EXIT_BUG, EXIT_SOME_FAILED, Interrupted, QadError
from qad.index import INDEXED_STAGES

if TYPE_CHECKING:
    from qad.config import Config
    from qad.results import Progress, RunOptions, StageResult

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHOWN_FAILURES = 20
_log = logging.getLogger("qad")
_log.addHandler(logging.NullHandler())


class Run:
    """What a command gets: its shared options, and the ways to load, work and print."""

    def __init__(self, name: str, common: Common) -> None:
        self.name = name
        self.common = common

    def load(self, flags: Mapping[str, Any] | None = None) -> Config:
        """Return the configuration; `flags` maps ``section.key`` to what a flag said, None where it was not given."""
        from qad.config import load_config

        root = None if self.common.root is None else str(self.common.root)
        shared = {"paths.root": root, "cluster.scheduler": self.common.scheduler}
        return load_config(self.common.config, {**shared, **(flags or {})}, list(self.common.settings or ()))

    def progress(self) -> AbstractContextManager[Progress]:
        """Return the progress that suits stderr, or a silent one with ``--quiet``; a context manager."""
        from qad.results import NoProgress
        from qad.terminal.progress import terminal_progress

        return nullcontext(NoProgress()) if self.common.quiet else terminal_progress()

    def stage(self, verb: str, function: Callable[[Config, RunOptions], StageResult], config: Config) -> StageResult:
        """Run a stage under its lock, with log and progress, print its report, and exit 1 if a unit failed."""
        result = self.work(verb, function, config)
        self.report(result)
        if verb in INDEXED_STAGES and not result.dry_run:
            self.sync_index(config)
        if result.failures:
            raise typer.Exit(result.exit_code)
        return result

    def work(self, verb: str, function: Callable[[Config, RunOptions], StageResult], config: Config) -> StageResult:
        """Run a stage under its lock, with log and progress, and return its result."""
        from qad.parallel import parse_share
        from qad.results import RunOptions
        from qad.storage.lock import stage_lock
        from qad.terminal.log import stage_log

        common = self.common
        share = parse_share(common.shard)
        cluster = config.cluster_for(share, common.scheduler is not None)
        options = RunOptions(
            force=common.force,
            dry_run=common.dry_run,
            verify=common.verify,
            jobs=common.jobs,
            cluster=cluster,
            share=share,
        )
        started = time.monotonic()
        with ExitStack() as stack:
            if not common.dry_run:
                if not config.is_locked_by_its_stage(verb):
                    stack.enter_context(stage_lock(config.workspace.locks, verb, share))
                stack.enter_context(stage_log(config.workspace.log, verb))
            _log.info("start", extra={"stage": verb, "config": dict(config.section(verb.replace("-", "_")))})
            progress = stack.enter_context(self.progress())
            result = function(config, replace(options, progress=progress))
            details = {**result.details, "shard": str(share)} if share else result.details
            result = replace(result, seconds=time.monotonic() - started, details=details)
            _log.info("end", extra={"result": result.as_json()})
        return result

    def sync_index(self, config: Config) -> None:
        """Let the PostgreSQL index, if one is configured, follow the files."""
        from qad.index.stage import sync
        from qad.results import RunOptions

        result = sync(config, RunOptions())
        if result is not None and not (self.common.json or self.common.quiet):
            print(summary(result))

    def report(self, result: StageResult) -> None:
        """Print what a stage did: JSON on stdout, or a summary."""
        if self.common.json:
            self.print_json(result.as_json())
            return
        if not self.common.quiet:
            print(summary(result))
            self._print_counts(result.counts)
        self.report_failures(result)

    def report_failures(self, result: StageResult) -> None:
        """List the units that failed, and why, on stderr."""
        from qad.terminal.console import printable

        for failure in result.failures[: None if self.common.verbose else SHOWN_FAILURES]:
            print(printable(f"qad {result.stage}: {failure.unit} failed: {failure.reason}"), file=sys.stderr)
        hidden = len(result.failures) - SHOWN_FAILURES
        if hidden > 0 and not self.common.verbose:
            print(f"qad {result.stage}: and {hidden} more failed; --verbose or --json lists them", file=sys.stderr)

    def _print_counts(self, counts: Mapping[str, float]) -> None:
        width = max((len(name) for name in counts), default=0)
        for name, value in counts.items():
            print(f"  {name.ljust(width)}  {value:,.6g}" if value % 1 else f"  {name.ljust(width)}  {int(value):,}")

    def print_json(self, document: Any) -> None:
        """Print one JSON document on stdout."""
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str))


def summary(result: StageResult) -> str:
    """Return a stage's result as one line."""
    word = "to do" if result.dry_run else "done"
    parts = [f"{result.n_done:,} {word}", f"{result.n_skipped:,} already done"]
    if result.failures:
        parts.append(f"{len(result.failures):,} failed")
    shard = f" (shard {result.details['shard']})" if "shard" in result.details else ""
    return f"{result.stage}{shard}: {', '.join(parts)} in {result.seconds:.1f} s"


@contextmanager
def running(name: str, common: Common) -> Iterator[Run]:
    """Run a command's body: one line and the right exit code for every error, never a traceback."""
    with _stop_signals():
        try:
            yield Run(name, common)
            sys.stdout.flush()
        except Interrupted as stop:
            resume = (
                ""
                if name.split()[-1] in ("inspect", "status", "config", "query")
                else f"; `qad {name}` again goes on from here"
            )
            _fail(name, f"stopped by {signal.Signals(stop.signal_number).name}{resume}", stop.exit_code)
        except QadError as error:
            _fail(name, str(error), error.exit_code)
        except BrokenPipeError:
            # whoever read our output has gone (`| head`): stop quietly, as coreutils do
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(128 + signal.SIGPIPE) from None
        except MemoryError:
            _fail(name, "out of memory; use fewer --jobs or a smaller batch", EXIT_SOME_FAILED)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if os.environ.get("QAD_TRACEBACK"):
                raise
            _fail(name, f"a bug in qad: {type(error).__name__}: {error}; QAD_TRACEBACK=1 shows where", EXIT_BUG)


def _fail(name: str, text: str, code: int) -> None:
    from qad.terminal.console import printable

    print(f"qad {name}: {printable(' '.join(text.split()))}", file=sys.stderr, flush=True)
    raise typer.Exit(code) from None


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Turn the first stop signal into Interrupted; a second one acts as if we were not here."""

    def stop(number: int, _frame: FrameType | None) -> None:
        for name in STOP_SIGNALS:
            signal.signal(name, signal.SIG_DFL)
        raise Interrupted(number)

    previous = {
        name: signal.signal(name, stop) for name in STOP_SIGNALS if signal.getsignal(name) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
