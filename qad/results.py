"""What a stage is told and what it returns: the same for the command line and for Python callers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from qad.errors import EXIT_OK, EXIT_SOME_FAILED
from qad.parallel import Cluster, Share

BYTES = "B"
"""The unit of a task that counts bytes: they are shown as kB, MB, GB."""


class Progress(Protocol):
    """How a stage tells of its progress; :mod:`qad.terminal.progress` shows it, :class:`NoProgress` does not."""

    def start(self, description: str, total: float | None = None, unit: str = "") -> None:
        """Begin a task of `total` units (None: unknown); ends the task before it."""

    def expect(self, total: float) -> None:
        """Say that the task is now thought to have `total` units."""

    def tell(self, state: str) -> None:
        """Say in a few words how the work stands, beside the count."""

    def advance(self, amount: float = 1) -> None:
        """Say that `amount` more units are done."""

    def note(self, message: str) -> None:
        """Show one line that stays."""


class NoProgress:
    """A :class:`Progress` that says nothing."""

    def start(self, description: str, total: float | None = None, unit: str = "") -> None:
        """Do nothing."""

    def expect(self, total: float) -> None:
        """Do nothing."""

    def tell(self, state: str) -> None:
        """Do nothing."""

    def advance(self, amount: float = 1) -> None:
        """Do nothing."""

    def note(self, message: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class RunOptions:
    """How to run a stage, beside its configuration.

    Attributes
    ----------
    force : bool
        Redo finished units.
    dry_run : bool
        Say what would be done and write nothing.
    verify : bool
        Compare inputs by hash rather than by size and time.
    jobs : int
        Worker processes; 0 means one per core, 1 runs in this process.
    progress : Progress
        Where to report.
    cluster : Cluster or None
        Run the units there instead of here.
    share : Share or None
        Do only these of the units.
    """

    force: bool = False
    dry_run: bool = False
    verify: bool = False
    jobs: int = 0
    progress: Progress = field(default_factory=NoProgress)
    cluster: Cluster | None = None
    share: Share | None = None


@dataclass(frozen=True)
class Failure:
    """One unit of work that failed, and why; `exit_code` is what the command ends with if no unit failed otherwise."""

    unit: str
    reason: str
    exit_code: int = EXIT_SOME_FAILED


@dataclass(frozen=True)
class StageResult:
    """What a stage did.

    Attributes
    ----------
    stage : str
        The verb.
    n_done, n_skipped : int
        Units done now, and units found finished.
    failures : tuple of Failure
    paths : tuple of Path
        What the stage is answerable for, done now or before.
    counts : mapping of str to number
        What went in, what came out, what was dropped by which reason (``dropped.<reason>``), bytes.
    seconds : float
    dry_run : bool
        Nothing was written; `n_done` is what would be done.
    details : mapping
        What else a stage has to tell; JSON types only, a TARGETID as a string.
    """

    stage: str
    n_done: int = 0
    n_skipped: int = 0
    failures: tuple[Failure, ...] = ()
    paths: tuple[Path, ...] = ()
    counts: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    dry_run: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """What the command ends with: the failures' own code if they share one, else that some failed."""
        codes = {failure.exit_code for failure in self.failures}
        return codes.pop() if len(codes) == 1 else EXIT_SOME_FAILED if codes else EXIT_OK

    def as_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        rate = self.n_done / self.seconds if self.seconds > 0 else None
        return {
            "stage": self.stage,
            "n_done": self.n_done,
            "n_skipped": self.n_skipped,
            "n_failed": len(self.failures),
            "failures": [{"unit": f.unit, "reason": f.reason} for f in self.failures],
            "paths": [str(path) for path in self.paths],
            "counts": dict(self.counts),
            "seconds": round(self.seconds, 3),
            "units_per_second": None if rate is None else round(rate, 3),
            "dry_run": self.dry_run,
            **self.details,
        }


def add_counts(total: dict[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """Add the counts of one unit to `total`, in place, and return it."""
    for name, value in more.items():
        total[name] = total.get(name, 0) + value
    return total


def format_bytes(n_bytes: float) -> str:
    """Return bytes as people read them: 512 B, 12.3 kB, 1.70 TB (powers of a thousand)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n_bytes) < 999.5:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.3g} TB" if n_bytes < 1000 else f"{n_bytes:,.0f} TB"
