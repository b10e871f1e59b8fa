"""Everything that is measured on a few targets, for people: documents to print, drawings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.analysis.lines import fit_all
from qad.analysis.measure import measure_spectra
from qad.analysis.stage import CANDIDATE, load_templates, measured_templates
from qad.config import Config
from qad.errors import InputError
from qad.schema import LINE_COMPLEXES, MEASURED_LINES, MEASURES, SCORES, SPECTRUM_KEY
from qad.storage.atomic import write_bytes
from qad.storage.parquet import read_frame

if TYPE_CHECKING:
    import polars as pl

    from qad.desi.templates import Template

_LINE_PREFIXES = tuple(f"{name}_" for name, _, _ in MEASURED_LINES)


def measure_targets(config: Config, targetids: Sequence[int], png: Path | None = None) -> list[dict[str, Any]]:
    """Measure every spectrum of some targets, and draw each into the folder `png` if one is given.

    Returns
    -------
    list of dict
        One a spectrum, JSON types: ``targetid`` (text), ``survey``, ``program``, ``healpix``, ``z``, ``continuum``,
        ``absorption``, ``redshift``, ``redrock``, ``lines`` (one entry a covered line), ``fits``, and ``png``.

    Raises
    ------
    InputError
        If a target has no score or no spectrum.
    """
    from qad.analysis.source import read_blocks

    candidates = _candidates(config, targetids)
    templates = load_templates(measured_templates(config))
    documents = []
    for block in read_blocks(config.workspace, candidates):
        fits = fit_all(block.spectra)
        columns = measure_spectra(block.spectra, templates, fits)
        for i, row in enumerate(block.rows):
            values = {name: _plain(column[i]) for name, column in columns.items()}
            document = _document(row, values, block.coeff[i])
            if png is not None:
                from qad.analysis.figure import draw

                path = png / f"{row['targetid']}-{row['survey']}-{row['program']}.png"
                write_bytes(path, draw(block, i, fits, template_of(templates, row)))
                document["png"] = str(path)
            documents.append(document)
    return documents


def template_of(templates: Sequence[Template], row: dict[str, Any]) -> Template | None:
    """Return the template that redrock fitted, None where its file is not given."""
    fitted = (row["spectype"], row["subtype"])
    return next((t for t in templates if (t.name.partition(":")[0], t.subtype) == fitted), None)


def _candidates(config: Config, targetids: Sequence[int]) -> pl.DataFrame:
    import polars as pl

    scores = config.workspace.scores_file(config.measure.name)
    if not scores.is_file():
        name = config.measure.name
        raise InputError(scores, f"no scores of model {name!r}; `qad score --name {name}` makes them")
    frame = read_frame(scores, SCORES, CANDIDATE).filter(pl.col("targetid").is_in(list(targetids))).sort("rank")
    missing = set(targetids) - set(frame["targetid"].to_list())
    if missing:
        raise InputError(scores, f"no score of TARGETID {min(missing)}")
    return frame


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _document(row: dict[str, Any], values: dict[str, Any], coeff: np.ndarray) -> dict[str, Any]:
    n_coeff = row["ncoeff"] or 0
    others = {name: value for name, value in values.items() if not name.startswith(_LINE_PREFIXES)}
    return {
        "targetid": str(row["targetid"]),
        **{name: row[name] for name in SPECTRUM_KEY[1:]},
        "rank": row["rank"],
        "z": row["z"],
        "continuum": _part(others, ("slope_", "flux_", "loglum_")),
        "absorption": _part(others, ("ai_", "bi_", "bal_")),
        "redshift": _part(others, ("z_alt",)),
        "redrock": {
            "template": f"{row['spectype']}:::{row['subtype'] or ''}",
            **{name: _plain(row[name]) for name in ("chi2", "deltachi2", "npixels", "ncoeff")},
            "coeff": [_plain(value) for value in coeff[:n_coeff]],
        },
        "lines": [entry for entry in (_line(*line, values) for line in MEASURED_LINES) if entry["flux"] is not None],
        "fits": {name: values[f"{name}_fit_chi2"] for name in LINE_COMPLEXES if values[f"{name}_fit_chi2"] is not None},
    }


def _part(values: dict[str, Any], prefixes: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name.startswith(prefixes)}


def _line(name: str, text: str, has_shape: bool, values: dict[str, Any]) -> dict[str, Any]:
    wanted = ("flux", "ew", "fwhm", "shift") if has_shape else ("flux", "ew")
    entry: dict[str, Any] = {"line": name, "name": text}
    for quantity in wanted:
        entry[quantity] = values[f"{name}_{quantity}"]
        entry[f"{quantity}_err"] = values[f"{name}_{quantity}_err"]
    return {**entry, "ew_limit": values[f"{name}_ew_limit"]}


def units() -> dict[str, str]:
    """Return the unit of every measured column."""
    return {column.name: column.unit for column in MEASURES.columns}
