"""How a run is spread over more than one machine: on a Dask cluster, or as one of several runs that share the units.

A *cluster* does all units of one run.  A *share* is for batch systems that start the same command many times: each run does
the units that fall to it, and none knows of the others.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from qad.errors import ConfigError

Item = TypeVar("Item")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")


@dataclass(frozen=True)
class Cluster:
    """A running Dask cluster.

    Attributes
    ----------
    scheduler : str
        Address, such as ``tcp://host:8786``, or the scheduler file that ``dask scheduler --scheduler-file`` writes.
    timeout_s : float
        Seconds to wait for the scheduler, and for a worker when there is none.
    shared : Path
        The work directory, which every worker must see.
    """

    scheduler: str
    timeout_s: float
    shared: Path


@dataclass(frozen=True)
class Share:
    """The units of one run among `count` runs of the same command; `index` counts from 0.

    Attributes
    ----------
    index, count : int
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def takes(self, name: str) -> bool:
        """Whether a unit falls to this run: by a hash of its name, whatever other units there are.

        A list may grow while the runs start (extract lists what fetch is still bringing): a unit's number in it would change,
        and a unit that changed hands could be left out by all.
        """
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return every `count`-th item from `index`: for a list that is the same in every run."""
        return items[self.index :: self.count]


def chosen(share: Share | None, items: Iterable[Item]) -> list[Item]:
    """Return the items whose name (``str``) falls to `share`; all without one."""
    return [item for item in items if share is None or share.takes(str(item))]


def parse_share(text: str | None, environ: Mapping[str, str] | None = None) -> Share | None:
    """Return the share that ``--shard`` names: ``I/N``, or ``auto`` for what the batch system says; None without one.

    ``auto`` reads, in this order, Kubernetes (``JOB_COMPLETION_INDEX``, with N from ``QAD_SHARDS`` or ``JOB_COMPLETIONS``)
    and Slurm (``SLURM_ARRAY_TASK_ID`` with ``_MIN``, ``_MAX`` and ``_STEP``; with ``QAD_SHARDS`` the task's number is I).

    Raises
    ------
    ConfigError
        If it is neither, the environment lacks what ``auto`` needs, or I is not below N.
    """
    if text is None:
        return None
    if text == "auto":
        return _from_environment(os.environ if environ is None else environ)
    index, slash, count = text.partition("/")
    if not (slash and _NUMBER.match(index) and _NUMBER.match(count)):
        raise ConfigError(f"--shard {text}: write I/N, such as 0/8 (I counts from 0), or auto")
    return _checked(int(index), int(count), f"--shard {text}")


def _from_environment(environ: Mapping[str, str]) -> Share:
    shards = _number(environ, "QAD_SHARDS")
    if "JOB_COMPLETION_INDEX" in environ:
        count = shards if shards is not None else _number(environ, "JOB_COMPLETIONS")
        if count is None:
            raise ConfigError(
                "--shard auto: JOB_COMPLETION_INDEX is set, but not how many there are; set QAD_SHARDS to the job's completions"
            )
        return _checked(_needed(environ, "JOB_COMPLETION_INDEX"), count, "--shard auto (JOB_COMPLETION_INDEX)")
    if "SLURM_ARRAY_TASK_ID" in environ:
        task = _needed(environ, "SLURM_ARRAY_TASK_ID")
        return _of_slurm(environ, task) if shards is None else _checked(task, shards, "--shard auto (QAD_SHARDS)")
    raise ConfigError(
        "--shard auto: neither JOB_COMPLETION_INDEX (a Kubernetes Indexed Job) nor SLURM_ARRAY_TASK_ID (a Slurm array) is set"
    )


def _of_slurm(environ: Mapping[str, str], task: int) -> Share:
    low, high = _needed(environ, "SLURM_ARRAY_TASK_MIN"), _needed(environ, "SLURM_ARRAY_TASK_MAX")
    step = _number(environ, "SLURM_ARRAY_TASK_STEP") or 1
    count = (high - low) // step + 1
    n_tasks = _number(environ, "SLURM_ARRAY_TASK_COUNT")
    # of --array=0,3,7 Slurm says no more than the ends: units would be left out
    if (task - low) % step or (high - low) % step or (n_tasks is not None and n_tasks != count):
        raise ConfigError(
            f"--shard auto: the Slurm array is no plain range ({n_tasks} tasks from {low} to {high}); set QAD_SHARDS to N for "
            "an array that lists some of 0 to N-1"
        )
    return _checked((task - low) // step, count, "--shard auto (SLURM_ARRAY_TASK_ID)")


def _needed(environ: Mapping[str, str], name: str) -> int:
    value = _number(environ, name)
    if value is None:
        raise ConfigError(f"--shard auto: {name} is not set")
    return value


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "").strip()
    if not text:
        return None
    if not _NUMBER.match(text):
        raise ConfigError(f"--shard auto: {name} is {text!r}, no number")
    return int(text)


def _checked(index: int, count: int, what: str) -> Share:
    if not count:
        raise ConfigError(f"{what}: 0 shards; N is at least 1")
    if index >= count:
        raise ConfigError(f"{what}: shard {index} of {count}; I counts from 0 to {count - 1}")
    return Share(index, count)
