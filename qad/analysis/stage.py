"""The stage `measure`: lines, continuum, absorption and other redshifts of the candidates, one `measures` table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.config import Config
from qad.errors import ConfigError, InputError
from qad.results import RunOptions, StageResult
from qad.schema import MEASURES, SCORES, SPECTRUM_KEY
from qad.storage.atomic import remove_stale_parts
from qad.storage.parquet import make_table, read_frame, was_made_so, write_table
from qad.storage.provenance import InputFile, Provenance
from qad.storage.receipts import hashes_of, write_receipt
from qad.work.engine import available_cores

if TYPE_CHECKING:
    import polars as pl

    from qad.analysis.source import Block
    from qad.desi.templates import Template

CANDIDATE = ("rank", *SPECTRUM_KEY, "ra", "dec", "z")


def measure(config: Config, options: RunOptions) -> StageResult:
    """Measure the first candidates of a model and write ``measures/<name>.parquet``.

    Raises
    ------
    InputError
        If there are no scores or spectra, or a template cannot be used.
    """
    section, workspace = config.measure, config.workspace
    scores, output = workspace.scores_file(section.name), workspace.measures_file(section.name)
    if not scores.is_file():
        raise InputError(scores, f"no scores of model {section.name!r}; `qad score --name {section.name}` makes them")
    files = measured_templates(config)
    receipt = workspace.receipt("measure", section.name)
    hashes = hashes_of([scores, *files], receipt, options.verify)
    settings = {key: value for key, value in config.section("measure").items() if key != "templates"}
    names = [f"scores/{scores.name}", *(path.name for path in files)]
    inputs = [InputFile(name, sha256) for name, sha256 in zip(names, hashes, strict=True)]
    provenance = Provenance("measure", settings, inputs)
    candidates = read_candidates(scores, section.top)
    counts: dict[str, float] = {"candidates": candidates.height}
    if not options.force and was_made_so(output, MEASURES, provenance):
        return StageResult("measure", n_skipped=1, paths=(output,), counts=counts, dry_run=options.dry_run)
    if options.dry_run:
        return StageResult("measure", n_done=1, paths=(output,), counts=counts, dry_run=True)
    remove_stale_parts(output.parent)
    columns = _measure_all(config, candidates, load_templates(files), options)
    write_table(output, make_table(MEASURES, columns), MEASURES, provenance)
    write_receipt(receipt, [scores, *files], hashes)
    counts |= {"measured": len(columns["rank"]), "without_spectrum": candidates.height - len(columns["rank"])}
    return StageResult("measure", n_done=1, paths=(output,), counts=counts)


def read_candidates(scores: Path, top: int) -> pl.DataFrame:
    """Return key, position, redshift and rank of the candidates to measure; `top` 0 means all."""
    import polars as pl

    frame = read_frame(scores, SCORES, CANDIDATE).sort("rank")
    return frame.filter(pl.col("rank") <= top) if top else frame


def load_templates(files: Iterable[Path]) -> list[Template]:
    """Return redrock's templates."""
    from qad.desi.templates import read_template

    return [read_template(path) for path in files]


def measured_templates(config: Config) -> list[Path]:
    """Return the files of redrock's templates that ``measure.templates`` names, none where it is empty."""
    from qad.desi.templates import template_files

    if not config.measure.templates:
        return []
    folder = config.path_of("measure.templates")
    if not folder.is_dir():
        raise ConfigError(f"measure.templates: {folder} is no folder; it holds rrtemplate-QSO-*.fits")
    return template_files(folder)


def _measure_all(
    config: Config, candidates: pl.DataFrame, templates: list[Template], options: RunOptions
) -> dict[str, Any]:
    from qad.analysis.source import read_blocks

    options.progress.start("measure", candidates.height, "spectra")
    parts = []
    jobs = options.jobs or available_cores()
    # the compiled fit holds no lock of the interpreter, so that threads share the cores
    with ThreadPoolExecutor(jobs) as pool:
        blocks = read_blocks(config.workspace, candidates)
        for part in _in_order(pool, lambda block: measure_block(block, templates), blocks, 2 * jobs):
            parts.append(part)
            options.progress.advance(len(part["rank"]))
    if not parts:
        return {column.name: [] for column in MEASURES.columns}
    joined = {name: [value for part in parts for value in part[name]] for name in parts[0]}
    order = sorted(range(len(joined["rank"])), key=lambda i: joined["rank"][i])
    return {name: [values[i] for i in order] for name, values in joined.items()}


def _in_order(pool: ThreadPoolExecutor, work: Any, items: Iterable[Any], ahead: int) -> Iterator[Any]:
    """Yield the results in the order of the items, with at most `ahead` items in memory."""
    waiting: list[Any] = []
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def measure_block(block: Block, templates: list[Template]) -> dict[str, list[Any]]:
    """Return the columns of the `measures` table for a block of candidates; None where not measured."""
    import numpy as np

    from qad.analysis.measure import measure_spectra

    columns: dict[str, list[Any]] = {name: [row[name] for row in block.rows] for name in CANDIDATE}
    for name, values in measure_spectra(block.spectra, templates).items():
        listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
        columns[name] = [None if isinstance(value, float) and value != value else value for value in listed]
    columns["redrock_chi2_dof"] = [_reduced(row) for row in block.rows]
    columns["redrock_deltachi2"] = [row["deltachi2"] for row in block.rows]
    columns["redrock_template"] = [f"{row['spectype']}:::{row['subtype'] or ''}" for row in block.rows]
    return columns


def _reduced(row: dict[str, Any]) -> float | None:
    dof = (row["npixels"] or 0) - (row["ncoeff"] or 0)
    return None if row["chi2"] is None or dof <= 0 else row["chi2"] / dof
