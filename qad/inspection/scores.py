"""The scores table as `inspect` asks for it: opened once, and read no further than the answer needs.

The footer of 1.7 million rows takes a tenth of a second to parse, each time; a column of all rows as long again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.errors import InputError
from qad.schema import SCORES
from qad.storage.parquet import checked_metadata

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


class ScoresFile:
    """A scores table; rows are in order of rank.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    metadata : dict
        The ``qad.*`` entries of the file.
    schema : pyarrow.Schema
    n_rows : int

    Raises
    ------
    InputError
        If the file is missing, damaged, another table, or of a newer version.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path = path
        try:
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
        except FileNotFoundError:
            raise InputError(path, "no such file") from None
        except (pa.ArrowException, OSError) as error:
            raise InputError(path, f"not a readable Parquet file: {_line(error)}") from None
        self.schema = self._file.schema_arrow
        self.metadata: dict[str, Any] = checked_metadata(path, self.schema, SCORES)
        self.n_rows: int = self._file.metadata.num_rows

    def head(self, n_rows: int, columns: Sequence[str]) -> pl.DataFrame:
        """Return the first rows; only their row groups are read."""
        groups = int(np.searchsorted(self._ends, n_rows)) + 1
        return self._frame(self._read(range(min(groups, self._file.num_row_groups)), columns)).head(n_rows)

    def everything(self, columns: Sequence[str]) -> pl.DataFrame:
        """Return all rows."""
        return self._frame(self._read(None, columns))

    def at(self, rows: Sequence[int] | np.ndarray, columns: Sequence[str]) -> pl.DataFrame:
        """Return rows by their numbers from 0, in rising order; only their row groups are read."""
        wanted = np.unique(np.asarray(rows, np.int64))
        groups = np.unique(np.searchsorted(self._ends, wanted, "right"))
        table = self._read(groups.tolist(), columns)
        starts = np.r_[0, self._ends[:-1]]
        sizes = (self._ends - starts)[groups]
        # where each row lies among the rows of the groups that were read
        before = np.r_[0, np.cumsum(sizes)[:-1]] if len(groups) else np.zeros(0, np.int64)
        group_of = np.searchsorted(groups, np.searchsorted(self._ends, wanted, "right"))
        places = before[group_of] + wanted - starts[groups][group_of] if len(wanted) else wanted
        return self._frame(table.take(places))

    def with_targetids(self, targetids: Sequence[int]) -> np.ndarray:
        """Return the numbers of the rows of some targets."""
        return np.flatnonzero(np.isin(self._targetids, np.asarray(targetids, np.int64)))

    def with_ranks(self, ranks: Iterable[int | None]) -> np.ndarray:
        """Return the numbers of the rows of some ranks; None, of a spectrum that was not scored, has no row."""
        wanted = np.asarray(sorted(rank for rank in ranks if rank is not None), np.int64)
        guess = wanted[(wanted >= 1) & (wanted <= self.n_rows)] - 1
        # ranks count from 1 without gaps; a file that somebody cut or joined is searched
        if len(guess) and np.array_equal(self.at(guess, ["rank"])["rank"].to_numpy(), guess + 1):
            return guess
        return np.flatnonzero(np.isin(self._column("rank"), wanted))

    @cached_property
    def _ends(self) -> np.ndarray:
        """The number of the first row after each row group."""
        metadata = self._file.metadata
        return np.cumsum([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)], dtype=np.int64)

    @cached_property
    def _targetids(self) -> np.ndarray:
        return self._column("targetid")

    def _column(self, name: str) -> np.ndarray:
        return np.asarray(self._read(None, [name]).column(name).to_numpy())

    def _read(self, groups: Any, columns: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        names = list(columns)
        missing = [name for name in names if name not in self.schema.names]
        if missing:
            raise InputError(self._path, f"column {missing[0]} is missing", where=SCORES.tag)
        try:
            return self._file.read(names) if groups is None else self._file.read_row_groups(list(groups), names)
        except (pa.ArrowException, OSError) as error:
            raise InputError(self._path, f"damaged: {_line(error)}", where=SCORES.tag) from None

    def _frame(self, table: pa.Table) -> pl.DataFrame:
        import polars as pl

        return pl.DataFrame(pl.from_arrow(table)).with_columns(pl.col(pl.Categorical).cast(pl.String))


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
