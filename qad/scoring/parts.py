"""The passes over the grid, in parts that any process can do: each leaves one file, and a part that is there is done.

The files lie below ``scores/.work/``, in a folder named by what decides their content, so that a run goes on where another was
killed, and shards find each other's parts.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qad.scoring.evidence import find_faults
from qad.scoring.geometry import Geometry
from qad.scoring.matched import Amplitudes
from qad.scoring.matcher import Matcher, Projector, ShapeSpread, fit_shape_spread
from qad.scoring.residuals import Batch, Scatter, ScatterSample
from qad.scoring.views import Measured, measure
from qad.storage.atomic import write_bytes
from qad.storage.flatcache import GridCache, reopen_grid
from qad.workspace import Workspace

if TYPE_CHECKING:
    from qad.models.base import SpectrumModel

PART_ROWS = 4096
"""Spectra of a part: some seconds of work."""
MAX_REFERENCE = 20_000
"""Most spectra that a calibration keeps: the tail beyond them is extrapolated, and the file stays small."""


@dataclass(frozen=True)
class Task:
    """What a process must know to do a part.

    Attributes
    ----------
    root : Path
        The work directory.
    grid_key : str
        Content of the grid.
    model : Path
        Folder of the model.
    model_hash : str
    windows_kms : tuple of float
    batch_size : int
    folder : Path
        Where the parts' files lie.
    """

    root: Path
    grid_key: str
    model: Path
    model_hash: str
    windows_kms: tuple[float, ...]
    batch_size: int
    folder: Path

    @property
    def spread_file(self) -> Path:
        """The population's spread, which the views need."""
        return self.folder / "spread.npz"


@dataclass(frozen=True)
class Part:
    """Rows `first` to `end` of a pass (``population`` or ``views``) over the spectra that it takes."""

    kind: str
    first: int
    end: int
    output: Path

    def __str__(self) -> str:
        return f"{self.kind} of spectra {self.first} to {self.end}"

    def __len__(self) -> int:
        return self.end - self.first


def plan_parts(task: Task, kind: str, n_rows: int) -> list[Part]:
    """Cut a pass over `n_rows` spectra into parts of whole batches: how it is cut leaves no trace."""
    size = max(PART_ROWS // task.batch_size, 1) * task.batch_size
    return [
        Part(kind, first, min(first + size, n_rows), task.folder / f"{kind}-{i:06d}.npz")
        for i, first in enumerate(range(0, n_rows, size))
    ]


def do_part(part: Part, task: Task) -> int:
    """Do a part unless its file is there, and return its spectra."""
    from qad.models.threads import one_blas_thread

    if not part.output.is_file():
        with one_blas_thread():  # its sums must not depend on how many cores a machine has
            arrays = _population(part, task) if part.kind == "population" else _views(part, task)
        write_arrays(part.output, arrays)
    return len(part)


@dataclass(frozen=True)
class Spread:
    """What normal spectra do: the scatter of boxes of each width, and that of known shapes."""

    scatters: tuple[Scatter, ...]
    shapes: ShapeSpread


def read_population(parts: Sequence[Part], geometry: Geometry, windows_kms: Sequence[float]) -> Spread:
    """Return the spread of the population whose parts are done."""
    sample = ScatterSample(geometry, list(windows_kms))
    objects, faults, z = [], [], []
    for part in parts:
        arrays = read_arrays(part.output)
        sample.take([tuple(arrays[f"{kind}_{i}"] for kind in ScatterSample.KINDS) for i in range(len(windows_kms))])
        objects.append(Amplitudes(arrays["object"], arrays["object_variance"]))
        faults.append(Amplitudes(arrays["fault"], arrays["fault_variance"]))
        z.append(arrays["z"])
    return Spread(tuple(sample.fit()), fit_shape_spread(objects, faults, np.concatenate(z)))


def read_views(parts: Sequence[Part]) -> Measured:
    """Return what was measured in parts that are done."""
    names = [field.name for field in fields(Measured)]
    read = (read_arrays(part.output) for part in parts)
    return Measured.join([Measured(*(arrays[name] for name in names)) for arrays in read])


def write_spread(path: Path, spread: Spread) -> None:
    """Keep the population's spread for the processes that measure."""
    widths = np.array([[scatter.width, scatter.bin_pixels] for scatter in spread.scatters], np.int64)
    tau2 = {f"tau2_{i}": scatter.tau2 for i, scatter in enumerate(spread.scatters)}
    shapes = {"objects": spread.shapes.objects, "faults": spread.shapes.faults}
    write_arrays(path, {"widths": widths, **shapes, **tau2})


def read_spread(path: Path) -> Spread:
    """Return the spread that :func:`write_spread` kept."""
    arrays = read_arrays(path)
    scatters = [Scatter(int(w), int(b), arrays[f"tau2_{i}"]) for i, (w, b) in enumerate(arrays["widths"])]
    return Spread(tuple(scatters), ShapeSpread(arrays["objects"], arrays["faults"]))


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to one file, whole."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file; one that cannot be read is removed, so that the next run makes it again.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    from qad.errors import InputError

    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        path.unlink(missing_ok=True)
        raise InputError(path, f"not a readable part ({error}); removed, run `qad score` again") from None


def reference_rows(cache: GridCache) -> np.ndarray:
    """Return the rows that calibrate: all, or MAX_REFERENCE chosen by a hash of the target, whatever the order of rows."""
    n = len(cache)
    if n <= MAX_REFERENCE:
        return np.arange(n)
    identity = cache.table["targetid"].to_numpy().astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = (identity ^ (identity >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.sort(np.lexsort((identity, mixed))[:MAX_REFERENCE])


class _Opened:
    """Grid and model of a task, opened once per process."""

    def __init__(self, task: Task) -> None:
        from qad.models.directory import load_model

        self.cache = reopen_grid(Workspace(task.root), task.grid_key)
        self.model: SpectrumModel = load_model(task.model)
        self.geometry = Geometry.of(self.cache.grid)
        self.reference = reference_rows(self.cache)
        self.projector = Projector.of(self.geometry, self.model.loading)

    def column(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return a scalar column of the grid at some rows."""
        return self.cache.table[name].to_numpy()[rows]

    def batches(self, rows: np.ndarray, size: int) -> Iterator[tuple[Batch, np.ndarray, np.ndarray]]:
        """Yield batches, their latents and their rows."""
        for first in range(0, len(rows), size):
            part = rows[first : first + size]
            flux, ivar = np.asarray(self.cache.flux[part]), np.asarray(self.cache.ivar[part])
            start, z = self.cache.start[part], self.column("z", part)
            found = self.model.infer(flux, ivar, start)
            rest_start = self.geometry.rest_start(start, z)
            first_observed = self.geometry.first_observed(start, z)
            yield Batch(flux, ivar, found.recon, found.intrinsic_var, rest_start, first_observed), found.latent, part


@lru_cache(maxsize=1)
def _opened(task: Task) -> _Opened:
    return _Opened(task)


def _population(part: Part, task: Task) -> dict[str, np.ndarray]:
    opened = _opened(task)
    sample = ScatterSample(opened.geometry, list(task.windows_kms))
    found = []
    rows = opened.reference[part.first : part.end]
    for batch, _, _ in opened.batches(rows, task.batch_size):
        clean = batch.without(find_faults(batch, opened.geometry)[0])
        sample.add(clean)
        found.append(opened.projector.amplitudes(clean))
    taken = sample.taken()
    boxes = {
        f"{kind}_{i}": array for i, scale in enumerate(taken) for kind, array in zip(sample.KINDS, scale, strict=True)
    }
    shapes = {}
    for name, items in zip(("object", "fault"), zip(*found, strict=True), strict=True):
        shapes[name] = np.concatenate([item.value for item in items])
        shapes[f"{name}_variance"] = np.concatenate([item.variance for item in items])
    return {**boxes, **shapes, "z": opened.column("z", rows)}


def _views(part: Part, task: Task) -> dict[str, np.ndarray]:
    opened, spread = _opened(task), read_spread(task.spread_file)
    matcher = Matcher(opened.projector, spread.shapes)
    rows = np.arange(part.first, part.end)
    measured = Measured.join(
        [
            measure(
                batch,
                opened.geometry,
                spread.scatters,
                z=opened.column("z", chosen),
                snr=opened.column("snr", chosen),
                norm=opened.column("norm", chosen),
                latent=latent,
                matcher=matcher,
            )
            for batch, latent, chosen in opened.batches(rows, task.batch_size)
        ]
    )
    return {field.name: getattr(measured, field.name) for field in fields(Measured)}
