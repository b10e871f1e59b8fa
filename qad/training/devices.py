"""The devices that train together: parameters on each, every batch split over them.

XLA's partitioner makes one program of it: each device works on its rows of the batch, and sums over the batch (loss, gradients)
are summed over devices.  A batch that the devices do not divide is filled up with rows of weight 0, which no sum sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from qad.errors import ConfigError

RESIDENT_SHARE = 0.5
"""Data of at most this share of a device's free memory lie on it as a whole; the rest is for what training computes."""
_AXIS = "batch"


@dataclass(frozen=True)
class Devices:
    """Devices in one line along the batch, those of each process together.

    Attributes
    ----------
    mesh : jax.sharding.Mesh
    """

    mesh: Mesh

    @classmethod
    def choose(cls, n: int = 0) -> Devices:
        """Take the first `n` devices of each process; 0: all.

        Raises
        ------
        ConfigError
            If there are fewer.
        """
        here = jax.local_device_count()
        if n > here:
            kind = jax.local_devices()[0].platform
            raise ConfigError(f"train.devices is {n}, and this process has {here} ({kind}); 0 takes all")
        by_process: dict[int, list[Any]] = {}
        for device in jax.devices():
            by_process.setdefault(device.process_index, []).append(device)
        fewest = min(len(devices) for devices in by_process.values())
        chosen = [by_process[process][: n or fewest] for process in sorted(by_process)]
        return cls(Mesh(np.array(chosen).ravel(), (_AXIS,)))

    @property
    def count(self) -> int:
        """How many devices, of all processes."""
        return int(self.mesh.size)

    @cached_property
    def local(self) -> list[Any]:
        """Those of this process."""
        return [device for device in self.mesh.devices.flat if device.process_index == jax.process_index()]

    @cached_property
    def whole(self) -> NamedSharding:
        """The same values on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @cached_property
    def parts(self) -> NamedSharding:
        """Rows split over the devices."""
        return NamedSharding(self.mesh, PartitionSpec(_AXIS))

    def padded(self, size: int) -> int:
        """Return the rows of a batch once the devices divide them."""
        return -(-size // self.count) * self.count

    def own(self, size: int) -> slice:
        """Return which rows of a batch of `size`, a multiple of the devices, this process holds."""
        each = size // self.count
        first = list(self.mesh.devices.flat).index(self.local[0])
        return slice(first * each, (first + len(self.local)) * each)

    def replicate(self, tree: Any) -> Any:
        """Put arrays that are equal on all processes on every device."""
        return jax.tree.map(lambda leaf: self._put(np.asarray(leaf), self.whole, np.shape(leaf)), tree)

    def split(self, rows: Mapping[str, np.ndarray], size: int) -> dict[str, Any]:
        """Put this process's rows of arrays of `size` rows on its devices."""
        if len(self.local) == self.count:
            return dict(jax.device_put(dict(rows), self.parts))
        return {name: self._put(values, self.parts, (size, *values.shape[1:])) for name, values in rows.items()}

    def hold(self, n_bytes: int) -> bool:
        """Return whether each device has room for this much data beside the training; a processor reads its memory anyway."""
        return all(n_bytes <= RESIDENT_SHARE * free for free in map(_free_bytes, self.local))

    def sum_bytes(self, values: np.ndarray) -> np.ndarray:
        """Return the sum over processes of uint8 arrays of one length, modulo 256."""
        rows = np.zeros((len(self.local), values.size), np.uint8)
        rows[0] = values
        placed = self._put(rows, self.parts, (self.count, values.size))
        total = jax.jit(lambda array: array.sum(axis=0, dtype=np.uint8), out_shardings=self.whole)(placed)
        return np.array(total.addressable_data(0))

    def _put(self, values: np.ndarray, sharding: NamedSharding, shape: tuple[int, ...]) -> Any:
        if len(self.local) == self.count:
            return jax.device_put(values, sharding)
        return jax.make_array_from_process_local_data(sharding, values, shape)


def _free_bytes(device: Any) -> int:
    """Return a device's free memory; 0 where it does not say, as a processor."""
    stats = device.memory_stats() or {}
    return int(stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0))
