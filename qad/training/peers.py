"""The processes of one training run: how they find each other, and what they tell each other.

One process is the rule, and then nothing here touches JAX.  Several meet by ``jax.distributed``: the first one serves as
coordinator, writes the model and the checkpoints, and shares what it alone has read or computed.

A process that dies is noticed: the sum that the others wait for fails, or, where that does not (a machine without power, a
graphics card's network), the coordinator misses its heartbeat for ``train.peer_timeout_s`` seconds and JAX ends the others.
"""

from __future__ import annotations

import atexit
import io
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.errors import EXIT_SERVICE, ConfigError, QadError, ServiceError
from qad.settings import Train

if TYPE_CHECKING:
    from qad.training.devices import Devices

AUTO = "auto"
PROCESS_ID = ("SLURM_PROCID", "JOB_COMPLETION_INDEX", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
"""Where a launcher says which process this is: Slurm, a Kubernetes Indexed Job, Open MPI, other MPIs."""
PROCESSES = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""Where a launcher says how many there are; Kubernetes does not."""
GRACE_S = 2.0
"""How long the coordinator outlives a failed run, so that the others can say why they stop."""
_LOST = ("Gloo", "NCCL", "RCCL", "coordination", "UNAVAILABLE", "DEADLINE_EXCEEDED")


@dataclass(frozen=True)
class Peers:
    """The processes of a run.

    Attributes
    ----------
    rank, count : int
        Number of this process, from 0, and of all.
    devices : Devices, optional
        Those that they train on together; None while one process has not asked for any.
    """

    rank: int = 0
    count: int = 1
    devices: Devices | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def own(self, n: int, unit: int = 1) -> slice:
        """Return this process's share of `n` rows, whole units; the shares of all follow each other without gaps."""
        units = -(-n // unit)
        first, end = (units * rank // self.count * unit for rank in (self.rank, self.rank + 1))
        return slice(min(first, n), min(end, n))

    def share(self, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return on all processes what `make` returns on the first; on the others it is not called."""
        if self.count == 1:
            return dict(make())
        packed = np.zeros(0, np.uint8)
        if self.is_first:
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **dict(make()))
            packed = np.frombuffer(buffer.getvalue(), np.uint8)
        length = self._sum(np.array([packed.size], np.int64))[0]
        content = self._sum(packed if self.is_first else np.zeros(length, np.uint8))
        with np.load(io.BytesIO(content.tobytes()), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    def gather(self, n: int, own: Sequence[np.ndarray], unit: int = 1) -> tuple[np.ndarray, ...]:
        """Return arrays of `n` rows, of which each process gives those of :meth:`own`, bit for bit."""
        if self.count == 1:
            return tuple(own)
        gathered = []
        for part in own:
            whole = np.zeros((n, *part.shape[1:]), part.dtype)
            whole[self.own(n, unit)] = part
            gathered.append(self._sum(whole))
        return tuple(gathered)

    def largest(self, number: int) -> int:
        """Return the largest of the numbers (not negative) that the processes give; all wait for each other."""
        if self.count == 1:
            return number
        mine = np.zeros(self.count, np.int64)
        mine[self.rank] = number
        return int(self._sum(mine).max())

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum over processes of arrays that are zero but on one process, byte by byte and so exactly."""
        assert self.devices is not None
        flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        with lost_peers():
            return self.devices.sum_bytes(flat).view(values.dtype).reshape(values.shape)


def join(section: Train) -> Peers:
    """Meet the other processes of the run that ``[train]`` describes, or return the only one.

    Raises
    ------
    ConfigError
        If address, number or count are missing or impossible.
    ServiceError
        If the others do not come within ``train.peer_timeout_s``.
    """
    if not section.coordinator:
        if section.processes > 1:
            raise ConfigError(
                f"train.processes is {section.processes}, but train.coordinator names no HOST:PORT to meet at"
            )
        return Peers()
    from qad.models.runtime import start_jax

    jax = start_jax()
    if not jax.distributed.is_initialized():
        _initialize(jax, section)
    with lost_peers(), _silent_stdout():
        from qad.training.devices import Devices

        devices = Devices.choose(section.devices)
        peers = Peers(jax.process_index(), jax.process_count(), devices)
        # Gloo waits only 30 s for a first meeting, and for ever afterwards: meet before the first has work of its own
        peers.largest(0)
    return peers


def _initialize(jax: Any, section: Train) -> None:
    address = None if section.coordinator == AUTO else section.coordinator
    number, count = placement(section, os.environ)
    if address is not None:
        _, colon, port = address.rpartition(":")
        if not (colon and port.isdecimal() and 0 < int(port) < 65536):
            raise ConfigError(f"train.coordinator {address!r} is not HOST:PORT, nor {AUTO}")
        if number is None or count is None:
            missing = "train.process_id" if number is None else "train.processes"
            raise ConfigError(f"{missing} is not set, and no launcher (Slurm, Kubernetes, MPI) says it")
        if number >= count:
            raise ConfigError(f"train.process_id is {number}, of {count} processes: they are counted from 0")
    # its C++ handler of SIGTERM would take the place of ours
    jax.config.update("jax_enable_preemption_service", False)
    seconds = max(1, int(section.peer_timeout_s))
    try:
        with warnings.catch_warnings(action="ignore"), _deadline(section):
            jax.distributed.initialize(
                address,
                count,
                number,
                initialization_timeout=seconds + 60,
                heartbeat_timeout_seconds=seconds,
                shutdown_timeout_seconds=seconds,
            )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"train.coordinator is {section.coordinator!r}: {error} Name HOST:PORT instead") from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ServiceError(f"train.coordinator is {section.coordinator!r}: {reason}") from None


@contextmanager
def _deadline(section: Train) -> Iterator[None]:
    """End the process with a line if the block lasts too long: JAX, which cannot be interrupted there, would abort it."""

    def give_up() -> None:
        print(
            f"qad train: the processes of this run did not meet at {section.coordinator} within "
            f"{section.peer_timeout_s:g} s (train.peer_timeout_s); start them all",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_SERVICE)

    timer = threading.Timer(section.peer_timeout_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def placement(section: Train, environ: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Return the number of this process and of all, from the settings or the launcher's environment; None: unknown."""
    number = section.process_id if section.process_id >= 0 else _first_number(environ, PROCESS_ID)
    count = section.processes if section.processes > 0 else _first_number(environ, PROCESSES)
    return number, count


def _first_number(environ: Mapping[str, str], names: Sequence[str]) -> int | None:
    return next((int(environ[name]) for name in names if environ.get(name, "").isdecimal()), None)


@contextmanager
def lost_peers() -> Iterator[None]:
    """Turn what JAX says when another process has died into one line."""
    try:
        yield
    except QadError:
        raise
    except (RuntimeError, ValueError) as error:
        if not is_lost_peer(error):
            raise
        raise ServiceError(
            "another process of this training run is gone; see what it said, then start all again: "
            f"training goes on from the last checkpoint ({str(error).splitlines()[0][:120]})"
        ) from None


def is_lost_peer(error: Exception) -> bool:
    """Return whether JAX says with this error that another process cannot be reached."""
    return any(word in str(error) for word in _LOST)


def leave_at_exit(peers: Peers, code: int) -> None:
    """Let this process of a failed run end with this code when it ends: JAX would wait for the others, and then abort."""
    if peers.count > 1:
        atexit.register(_leave, peers, code)


def _leave(peers: Peers, code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if peers.is_first:
        # the others lose their connections while their coordinator still answers, so that they end with a line
        from jax.extend.backend import clear_backends

        clear_backends()
        time.sleep(GRACE_S)
    os._exit(code)


@contextmanager
def _silent_stdout() -> Iterator[None]:
    """Keep stdout clean of what Gloo prints when it connects; it writes below Python."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)
