"""Which candidates are published, with which columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qad.config import Config
from qad.errors import ConfigError, InputError
from qad.inspection.columns import MAGNITUDES
from qad.inspection.table import Query, candidates
from qad.inspection.tables import Tables
from qad.publishing.columns import designation
from qad.schema import MEASURES, SPECTRUM_KEY
from qad.storage.labels import last_labels
from qad.storage.parquet import read_frame

if TYPE_CHECKING:
    import polars as pl

FIRST = ("rank", *SPECTRUM_KEY, "ra", "dec", "z")
FROM_SPECTRA = ("zerr", "zwarn", "spectype", "subtype", "deltachi2", "ebv", *MAGNITUDES)
FROM_MATCHES = ("n_matches", "match_catalog", "match_id", "match_sep_arcsec")
FROM_LABELS = ("label", "label_comment")
NOT_PUBLISHED = {"model"}


def select(config: Config, tables: Tables) -> pl.DataFrame:
    """Return the candidates of ``[publish]`` by rank, one column each as they are published, ``name`` first.

    Raises
    ------
    ConfigError
        If an expression is wrong, or nothing is left.
    """
    import polars as pl

    section = config.publish
    query = Query(0 if section.labels else section.top, _where(section.where, section.artefact_max), "rank")
    columns = [*FIRST, *FROM_SPECTRA, *_scores_columns(tables)]
    columns += FROM_MATCHES if tables.match_files else ()
    columns += FROM_LABELS if last_labels(tables.workspace.labels) else ()
    if section.labels and "label" not in columns:
        raise ConfigError(
            f"publish.labels: nothing is labelled in {tables.workspace.labels}; `qad inspect --review` labels"
        )
    columns = list(dict.fromkeys(columns))
    frame = candidates(tables, query, columns).select(columns)
    if section.labels:
        frame = frame.filter(pl.col("label").is_in(section.labels))
        frame = frame.head(section.top) if section.top else frame
    if not frame.height:
        raise ConfigError("no candidate is left to publish: widen --top, --where or --label")
    names = [designation(ra, dec) for ra, dec in zip(frame["ra"], frame["dec"], strict=True)]
    return frame.with_columns(pl.Series("name", names, pl.String)).select("name", *columns)


def measures(config: Config, frame: pl.DataFrame) -> pl.DataFrame | None:
    """Return what was measured on the selected candidates, None where `qad measure` has not run.

    Raises
    ------
    InputError
        If the measurements are of other scores.
    """
    path = config.workspace.measures_file(config.publish.name)
    if not path.is_file():
        return None
    key = ["rank", *SPECTRUM_KEY]
    columns = [column.name for column in MEASURES.columns if column.name not in {"ra", "dec", "z"}]
    found = read_frame(path, MEASURES, columns)
    joined = frame.select("name", *key).join(found, on=key, how="inner", maintain_order="left")
    if joined.height < min(frame.height, found.height) and not joined.height:
        raise InputError(path, "was measured on other scores; run `qad measure` again")
    return joined


def _where(expression: str, artefact_max: float) -> str:
    parts = [f"({expression})"] if expression.strip() else []
    parts += [f"artefact <= {artefact_max}"] if artefact_max < 1 else []
    return " and ".join(parts)


def _scores_columns(tables: Tables) -> list[str]:
    return [name for name in tables.scores_columns if name not in NOT_PUBLISHED]
