"""What a fetch would bring, without bringing it: pixels, quasars, bytes in each mode, and how long it would take."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qad.desi.layout import pixel_folder, redrock_name
from qad.errors import InputError
from qad.fetching.choice import RedrockRows
from qad.fetching.download import Transfer, read_range
from qad.fetching.estimate import (
    Amount,
    Estimate,
    count_listed,
    count_targets,
    estimate,
    row_requests,
    sample_pixels,
)
from qad.fetching.line import REQUEST_CPU_S
from qad.fetching.order import Order
from qad.fetching.pixel import Target, pending
from qad.fetching.plan import PixelFiles, Plan
from qad.fetching.receipt import is_current, read_entries
from qad.fetching.redrock import read_rows
from qad.fetching.rows import PLAIN_GAP_BYTES
from qad.fetching.threads import run_threads
from qad.work.units import Pixel

SAMPLED_PIXELS = 20
"""Redrock files that are read to count quasars where nothing else tells: some 40 MB of DR1."""
VERIFYING_THREADS = 8


def looking_threads(verify: bool) -> int:
    """Return how many threads look at what is here: hashing takes several, all else one holds the interpreter's lock."""
    return VERIFYING_THREADS if verify else 1


@dataclass(frozen=True)
class Outlook:
    """What would be fetched.

    Attributes
    ----------
    todo : dict of Pixel to list of str
        The names of the files that are not here, by pixel.
    estimate : Estimate
        Of the pixels that are not here.
    n_counted : int
        Pixels whose wanted rows are known; the others are guessed from these.
    rate : float
        Bytes a second of the sample; 0 if there was none.
    seconds : mapping of str to float
        By mode, where it is known.
    """

    todo: dict[Pixel, list[str]]
    estimate: Estimate
    n_counted: int
    rate: float
    seconds: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        modes = {"files": self.estimate.files, "hdus": self.estimate.hdus, "rows": self.estimate.rows}
        return {
            "quasars": _rounded(self.estimate.n_wanted),
            "pixels_counted": self.n_counted,
            "bytes_by_mode": {name: _rounded(amount) for name, amount in modes.items() if amount is not None},
            "measured_bytes_per_second": round(self.rate),
            "seconds_by_mode": {name: round(seconds, 1) for name, seconds in self.seconds.items()},
        }


def look_ahead(transfer: Transfer, target: Target, order: Order, plan: Plan) -> Outlook:
    """Look at what is here and at a sample of what is not.

    Writes nothing below the work directory.
    """
    stop = transfer.patience.stop
    todo: dict[Pixel, list[str]] = {}
    for done in run_threads(partial(pending, target), plan.pixels, looking_threads(target.verify), stop):
        if done.error is not None:
            raise done.error
        if done.value:
            todo[done.item.pixel] = [file.name for file in done.value]
    left = [files for files in plan.pixels if files.pixel in todo]
    counts = count_listed(order.targets, left) if order.targets is not None else None
    counts = counts if counts is not None else _count_local(target, left)
    rate = 0.0
    if left and not counts:
        sampled, rate = _sample(transfer, target, left)
        counts |= sampled
    found = estimate(left, counts, target.resolution)
    rate = rate or transfer.line.rate
    return Outlook(todo, found, len(counts), rate, _seconds(transfer, target, left, found, rate))


def _count_local(target: Target, pixels: Sequence[PixelFiles]) -> dict[Pixel, int]:
    """Count wanted rows of pixels whose redrock file is here."""
    counts = {}
    for files in pixels:
        folder = pixel_folder(target.healpix, files.pixel)
        redrock = files.data[0]
        if is_current(folder / redrock.name, redrock, read_entries(folder).get(redrock.name)):
            with suppress(InputError):  # fetching will say what is wrong with it
                counts[files.pixel] = _count(target, files.pixel, read_rows(folder / redrock.name))
    return counts


def _sample(transfer: Transfer, target: Target, pixels: Sequence[PixelFiles]) -> tuple[dict[Pixel, int], float]:
    """Count wanted rows of some pixels, and return with them the bytes a second that their redrock files came at."""
    chosen = sample_pixels(pixels, SAMPLED_PIXELS)
    began = time.monotonic()
    counts = {}
    for done in run_threads(partial(_read, transfer), chosen, len(chosen), transfer.patience.stop):
        if done.value is not None:
            counts[done.item.pixel] = _count(target, done.item.pixel, done.value)
    return counts, transfer.meter.received / max(time.monotonic() - began, 1e-6)


def _read(transfer: Transfer, files: PixelFiles) -> RedrockRows:
    content = bytearray()
    redrock = files.data[0]
    read_range(transfer, redrock, 0, redrock.size, lambda piece, _: content.extend(piece))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / redrock_name(files.pixel)
        path.write_bytes(content)
        return read_rows(path)


def _count(target: Target, pixel: Pixel, rows: RedrockRows) -> int:
    return int(np.count_nonzero(target.choice.wanted(pixel, rows)))


def _seconds(
    transfer: Transfer, target: Target, pixels: Sequence[PixelFiles], found: Estimate, rate: float
) -> dict[str, float]:
    """Return how long each mode would take at a rate; many small requests also wait for the line's round trips."""
    seconds = {"files": found.files.value / rate}
    if found.hdus is not None:
        seconds["hdus"] = found.hdus.value / rate
    if found.rows is not None and found.n_wanted is not None:
        share = found.n_wanted.value / max(found.n_targets, 1)
        is_plain = transfer.source.transport == "plain"
        gap = min(transfer.line.gap_bytes, PLAIN_GAP_BYTES) if is_plain else transfer.line.gap_bytes
        requests = gaps = 0.0
        for files in pixels:
            n_rows = sum(count_targets(file.size) for file in files.data[1:])
            more = row_requests(n_rows, round(share * n_rows), gap, target.resolution)
            requests, gaps = requests + more[0], gaps + more[1]
        times = 2 if is_plain else 1
        each = max(transfer.line.latency_s / transfer.line.connections, REQUEST_CPU_S)
        seconds["rows"] = times * max((found.rows.value + gaps) / rate, requests * each)
    return seconds


def _rounded(amount: Amount | None) -> dict[str, int] | None:
    return None if amount is None else {"value": round(amount.value), "error": round(amount.error)}
