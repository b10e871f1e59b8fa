"""Batches on their way to the devices: assembled and sent by a thread while the devices work on the ones before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qad.training.batches import fixed_batches
from qad.training.devices import Devices
from qad.training.tasks import Task

AHEAD = 2
"""Batches that wait on the devices: one to go on with, and one on its way."""


def take(arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the same rows of several arrays, contiguous."""
    return {name: array[rows] for name, array in arrays.items()}


@dataclass
class Feed:
    """Gives a task's batches to its devices, as rows of its arrays, or as row numbers where the arrays lie on the devices.

    Attributes
    ----------
    task : Task
    devices : Devices
    size : int
        Spectra in a batch.
    resident : bool, optional
        Keep all data on each device; None: if there is room.
    """

    task: Task
    devices: Devices
    size: int
    resident: bool | None = None
    data: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.resident is None:
            self.resident = self.devices.hold(sum(array.nbytes for array in self.task.arrays.values()))
        if self.resident:
            self.data = self.devices.replicate(self.task.arrays)

    def batches(
        self, rows: np.ndarray, first: int = 0, note: Callable[[], int] | None = None
    ) -> Generator[tuple[np.ndarray, dict[str, Any]]]:
        """Yield (row numbers, arrays on the devices) of each batch from number `first` on.

        `note` gives a number that travels with each batch under the name ``note``, one per device.
        """

        def send(rows: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
            return self._send(rows, weight, None if note is None else note())

        waiting: deque[tuple[np.ndarray, Future[dict[str, Any]]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as pool:
            for batch_rows, weight in fixed_batches(rows, self.size, first):
                waiting.append((batch_rows, pool.submit(send, batch_rows, weight)))
                if len(waiting) > AHEAD:
                    ready, sent = waiting.popleft()
                    yield ready, sent.result()
            while waiting:
                ready, sent = waiting.popleft()
                yield ready, sent.result()

    def _send(self, rows: np.ndarray, weight: np.ndarray, note: int | None) -> dict[str, Any]:
        size = self.devices.padded(len(rows))
        missing = size - len(rows)
        own = self.devices.own(size)
        rows = np.concatenate([rows, np.repeat(rows[-1:], missing)])[own]
        weight = np.concatenate([weight, np.zeros(missing, np.float32)])[own]
        if self.resident:
            batch = {"rows": rows.astype(np.int32), "weight": weight}
        else:
            batch = take(self.task.arrays, rows) | {"weight": weight}
        sent = self.devices.split(batch, size)
        if note is not None:
            each = np.full(len(self.devices.local), note, np.float32)
            sent |= self.devices.split({"note": each}, self.devices.count)
        return sent
