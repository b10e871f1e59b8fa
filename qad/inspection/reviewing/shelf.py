"""The spectra of a review, read ahead by one thread so that the next one is there when its key is pressed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from qad.inspection.reviewing.session import key_of
from qad.inspection.spectrum import Key, Spectrum, SpectrumReader
from qad.inspection.tables import Tables

KEPT = 64
"""Spectra kept in memory."""


class Shelf:
    """Reads spectra in a thread of its own, one after the other, and keeps the last ones."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._reader: SpectrumReader | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="spectra")
        self._wanted: OrderedDict[Key, Future[Spectrum | None]] = OrderedDict()

    def get(self, row: dict[str, Any]) -> Future[Spectrum | None]:
        """Return the spectrum of a candidate, soon; None if no table holds it."""
        key = key_of(row)
        if key not in self._wanted:
            self._wanted[key] = self._pool.submit(self._read, row)
        self._wanted.move_to_end(key)
        while len(self._wanted) > KEPT:
            self._wanted.popitem(last=False)[1].cancel()
        return self._wanted[key]

    def ahead(self, rows: Sequence[dict[str, Any]]) -> None:
        """Begin to read spectra that will be wanted; those that were and are no longer are left."""
        for row in rows:
            self.get(row)

    def work(self, function: Callable[[], Any]) -> Future[Any]:
        """Run another reading in the same thread."""
        return self._pool.submit(function)

    def close(self) -> None:
        """Stop; what has not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, row: dict[str, Any]) -> Spectrum | None:
        import polars as pl

        if self._reader is None:
            self._reader = SpectrumReader(self._tables)
        frame = pl.DataFrame([{name: row[name] for name in ("rank", "targetid", "survey", "program", "healpix", "z")}])
        found = self._reader.read(frame)
        return found[0] if found else None
