"""The columns that can be shown, whichever table of the work directory they come from, read only when they are named.

`scores` is the backbone: one row a spectrum.  Scalar columns of `spectra`, the nearest match of each candidate and the last
label are joined on when ``--columns``, ``--where`` or ``--sort`` name them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.errors import InputError
from qad.inspection.columns import KEY, LABEL_COLUMNS, MAGNITUDES, MATCH_COLUMNS, magnitude
from qad.inspection.scores import ScoresFile
from qad.schema import MATCHES, SPECTRA, SPECTRUM_KEY
from qad.storage.labels import last_labels
from qad.storage.parquet import read_frame, read_metadata, read_table
from qad.storage.receipts import read_receipt
from qad.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


class Tables:
    """The tables of one model's candidates.

    Parameters
    ----------
    workspace : Workspace
    name : str
        Of the scores.
    elsewhere : str
        Folder of the model if it lies outside the work directory.

    Raises
    ------
    InputError
        If there are no scores of that name, or the file is damaged, another table, or of a newer version.
    """

    def __init__(self, workspace: Workspace, name: str, elsewhere: str = "") -> None:
        self._elsewhere = elsewhere
        self.workspace = workspace
        self.name = name
        self.scores = workspace.scores_file(name)
        if not self.scores.is_file():
            raise InputError(self.scores, f"no such file; {_other_scores(workspace)}`qad score --name {name}` makes it")
        self._file = ScoresFile(self.scores)
        self.metadata: dict[str, Any] = self._file.metadata
        self.n_rows = self._file.n_rows

    @cached_property
    def model(self) -> tuple[str, str]:
        """Name and first digits of the hash of the model that made the scores; empty digits where they are not told."""
        rows = self._file.head(1, ["model"])["model"].to_list()
        name, _, digits = (rows[0] if rows else self.name).partition("@")
        return name, digits

    @property
    def model_folders(self) -> list[Path]:
        """Where that model can lie: in the folder that was named, in this work directory, or where `score` found it."""
        named = [Path(self._elsewhere).expanduser()] if self._elsewhere else []
        remembered = read_receipt(self.workspace.receipt("score", self.name)).get("model")
        return [
            *named,
            self.workspace.model(self.model[0]),
            *([Path(remembered)] if isinstance(remembered, str) else []),
        ]

    @cached_property
    def scores_columns(self) -> list[str]:
        """Scalar columns of the scores, views and p-values included."""
        import pyarrow as pa

        return [field.name for field in self._file.schema if not pa.types.is_fixed_size_list(field.type)]

    @cached_property
    def spectra_columns(self) -> list[str]:
        """Scalar columns that only the `spectra` table has."""
        taken = set(self.scores_columns)
        return [column.name for column in SPECTRA.columns if not column.is_vector and column.name not in taken]

    @cached_property
    def match_files(self) -> list[Path]:
        """The `matches` tables of this model's candidates."""
        files = sorted(self.workspace.matches.glob(f"{self.name}-*.parquet"))
        # a model's name may begin as another's: scores/a.parquet and scores/a-b.parquet, matches/a-b-x.parquet
        others = [path.stem for path in self.workspace.scores.glob("*.parquet") if len(path.stem) > len(self.name)]
        return [path for path in files if not any(path.stem.startswith(f"{other}-") for other in others)]

    @cached_property
    def catalog_columns(self) -> list[str]:
        """The columns that catalogues brought, with the prefix ``cat_``."""
        import pyarrow.parquet as pq

        names: dict[str, None] = {}
        for path in self.match_files:
            read_metadata(path, MATCHES)
            names |= dict.fromkeys(name for name in pq.read_schema(path).names if name.startswith("cat_"))
        return list(names)

    @cached_property
    def known(self) -> list[str]:
        """Every column that can be named."""
        return [
            *self.scores_columns,
            *MAGNITUDES,
            *LABEL_COLUMNS,
            *MATCH_COLUMNS,
            *self.catalog_columns,
            *self.spectra_columns,
        ]

    def first(self, n_rows: int, columns: Sequence[str]) -> pl.DataFrame:
        """Return the first rows by rank."""
        return self._file.head(n_rows, _with_key(columns))

    def all_rows(self, columns: Sequence[str]) -> pl.DataFrame:
        """Return every row."""
        return self._file.everything(_with_key(columns))

    def of_targets(self, targetids: Sequence[int], columns: Sequence[str]) -> pl.DataFrame:
        """Return the rows of some targets, by rank."""
        return self._file.at(self._file.with_targetids(targetids), _with_key(columns))

    def latents(self, ranks: Sequence[int]) -> tuple[list[int], np.ndarray]:
        """Return ranks, and their latent positions, shape (n_rows, n_latent), float32."""
        rows = self._file.at(self._file.with_ranks(ranks), ["rank", "latent"])
        return rows["rank"].to_list(), rows["latent"].to_numpy()

    def of_ranks(self, ranks: Sequence[int], columns: Sequence[str]) -> pl.DataFrame:
        """Return the rows of some ranks with the columns of the scores that are named, in that order."""
        return self._file.at(self._file.with_ranks(ranks), columns)

    def with_columns(self, frame: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
        """Return `frame`, which has the columns of `KEY`, with further columns joined on; its order stays."""
        missing = [name for name in dict.fromkeys(names) if name not in frame.columns]
        spectra = [name for name in missing if name in self.spectra_columns or name in MAGNITUDES]
        matches = [name for name in missing if name in MATCH_COLUMNS or name in self._cat(missing)]
        labels = [name for name in missing if name in LABEL_COLUMNS]
        scores = [name for name in missing if name not in {*spectra, *matches, *labels}]
        for found, key in (
            (self._score_rows(frame, scores) if scores else None, ["rank"]),
            (self._spectra_rows(frame, spectra) if spectra else None, list(SPECTRUM_KEY)),
            (self._match_rows(matches) if matches else None, list(SPECTRUM_KEY)),
            (self._label_rows(labels) if labels else None, ["targetid"]),
        ):
            if found is not None:
                frame = frame.join(found, on=key, how="left", maintain_order="left")
        return frame

    def _cat(self, names: Sequence[str]) -> list[str]:
        return self.catalog_columns if any(name.startswith("cat_") for name in names) else []

    def _score_rows(self, frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        columns = ["rank", *names]
        if frame.height >= 10_000:
            return self._file.everything(columns)
        return self._file.at(self._file.with_ranks(frame["rank"].to_list()), columns)

    def _spectra_rows(self, frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        import polars as pl

        wanted = [name for name in names if name in self.spectra_columns]
        bands = [name.removeprefix("mag_") for name in names if name in MAGNITUDES]
        fluxes = [f"flux_{band}" for band in bands]
        columns = list(dict.fromkeys([*SPECTRUM_KEY, *wanted, *fluxes]))
        places = frame.select("survey", "program", "healpix").unique().sort("survey", "program", "healpix").rows()
        files = [self.workspace.spectra_file(*place) for place in places]
        with ThreadPoolExecutor() as pool:
            parts = list(pool.map(lambda path: read_frame(path, SPECTRA, columns), [f for f in files if f.is_file()]))
        rows = pl.concat(parts) if parts else read_frame([], SPECTRA, columns)
        magnitudes = [magnitude(pl.col(f"flux_{band}")).alias(f"mag_{band}") for band in bands]
        # a file that extract has since rewritten may hold a target twice only by a bug; one row each keeps the join exact
        return rows.with_columns(magnitudes).unique(list(SPECTRUM_KEY)).select(*SPECTRUM_KEY, *names)

    def _match_rows(self, names: Sequence[str]) -> pl.DataFrame:
        import polars as pl

        every = self.all_matches()
        described = pl.format("{} {} {}″", "catalog", "catalog_id", pl.col("sep_arcsec").round(2))
        rows = (
            every.filter(pl.col("catalog_id").is_not_null())
            .sort("sep_arcsec", maintain_order=True)
            .with_columns(described=described)
            .group_by(list(SPECTRUM_KEY), maintain_order=True)
            .agg(
                pl.len().cast(pl.Int32).alias("n_matches"),
                pl.col("described").str.join("; ").alias("matches"),
                pl.col("catalog").first().alias("match_catalog"),
                pl.col("catalog_id").first().alias("match_id"),
                pl.col("sep_arcsec").first().alias("match_sep_arcsec"),
                *(pl.col(name).drop_nulls().first() for name in self._cat(names)),
            )
        )
        return rows.select(*SPECTRUM_KEY, *names)

    def all_matches(self) -> pl.DataFrame:
        """Return the rows of all `matches` tables, unmatched targets included."""
        import polars as pl

        fixed = [column.name for column in MATCHES.columns]
        if not self.match_files:
            return read_frame([], MATCHES, fixed)
        frames: list[pl.DataFrame] = []
        for path in self.match_files:
            frame = pl.DataFrame(pl.from_arrow(read_table(path, MATCHES)))
            frames.append(frame.with_columns(pl.col(pl.Categorical).cast(pl.String)))
        return pl.concat(_common_types(frames), how="diagonal")

    def _label_rows(self, names: Sequence[str]) -> pl.DataFrame:
        import polars as pl

        labels = last_labels(self.workspace.labels)
        columns = {
            "targetid": list(labels),
            "label": [label.label for label in labels.values()],
            "label_comment": [label.comment for label in labels.values()],
            "label_who": [label.who for label in labels.values()],
            "label_when": [label.when for label in labels.values()],
        }
        types = {name: pl.Int64 if name == "targetid" else pl.String for name in columns}
        return pl.DataFrame(columns, schema=types).select("targetid", *names)


def _with_key(columns: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*KEY, *columns]))


def _common_types(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """Two catalogues may give one column name different types; text takes them all."""
    import polars as pl

    types: dict[str, set[Any]] = {}
    for frame in frames:
        for name, dtype in frame.schema.items():
            types.setdefault(name, set()).add(dtype)
    mixed = [name for name, found in types.items() if len(found) > 1]
    return [
        frame.with_columns(pl.col(name).cast(pl.String) for name in mixed if name in frame.columns) for frame in frames
    ]


def _other_scores(workspace: Workspace) -> str:
    names = sorted(path.stem for path in workspace.scores.glob("*.parquet"))
    return f"there are scores of {', '.join(names)} (--name), or " if names else ""
