"""``qad publish``: a folder with all that a deposit needs, made aside and renamed when it is whole."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qad
from qad.config import Config
from qad.errors import ConfigError, InputError
from qad.results import RunOptions, StageResult
from qad.schema import MEASURES, SCORES, SPECTRA
from qad.storage.atomic import atomic_folder
from qad.storage.parquet import read_frame, read_metadata
from qad.storage.provenance import hash_document, hash_file

if TYPE_CHECKING:
    import polars as pl

    from qad.inspection.tables import Tables

PROVENANCE, SUMS = "provenance.json", "SHA256SUMS"
FORMAT = "publish/1"
MAX_PUBLISHED = 50_000
"""Candidates of a catalogue: their spectra are held in memory, 3 GB for so many."""
_LIBRARIES = ("numpy", "polars", "pyarrow", "astropy", "jax", "flax", "matplotlib", "cdspyreadme")


@dataclass(frozen=True)
class Content:
    """What is published."""

    frame: pl.DataFrame
    measures: pl.DataFrame | None
    everything: pl.DataFrame
    evaluation: dict[str, Any] | None
    catalogues: tuple[str, ...]
    provenance: dict[str, Any]


def publish(config: Config, options: RunOptions, folder: Path) -> StageResult:
    """Write the catalogue of ``[publish]`` into `folder`.

    Raises
    ------
    ConfigError
        If the folder holds what `publish` did not write, or nothing is selected.
    InputError
        If there are no scores, or a table cannot be used.
    """
    folder = folder.expanduser().resolve()
    before = _own(folder)
    content = gather(config)
    counts: dict[str, float] = dict(content.provenance["counts"])
    if before is not None and not options.force and _same(before, content.provenance):
        return StageResult("publish", n_skipped=1, paths=(folder,), counts=counts, dry_run=options.dry_run)
    if options.dry_run:
        return StageResult("publish", n_done=1, paths=(folder,), counts=counts, dry_run=True)
    with atomic_folder(folder) as aside:
        files = list(_write(config, content, aside, options))
        counts |= {"files": len(files), "bytes": sum((aside / name).stat().st_size for name in files)}
    return StageResult("publish", n_done=1, paths=(folder,), counts=counts)


def gather(config: Config) -> Content:
    """Return what is published by these settings."""
    from qad.inspection.tables import Tables
    from qad.publishing.select import measures, select

    section, workspace = config.publish, config.workspace
    tables = Tables(workspace, section.name, config.score.model)
    frame = select(config, tables)
    if frame.height > MAX_PUBLISHED:
        raise ConfigError(
            f"{frame.height:,} candidates are too many for one catalogue with spectra: at most {MAX_PUBLISHED:,}"
        )
    measured = measures(config, frame)
    evaluation_file = workspace.root / "evaluation" / f"{section.name}.json"
    evaluation = _evaluation(evaluation_file)
    names = [tables.scores, *tables.match_files]
    names += [workspace.measures_file(section.name)] if measured is not None else []
    names += [evaluation_file] if evaluation is not None else []
    model = _model_file(tables)
    names += [model] if model is not None else []
    names += _spectra_files(config, frame)
    prefix = f"{section.name}-"
    return Content(
        frame,
        measured,
        read_frame(tables.scores, SCORES, ["score", "z"]),
        evaluation,
        tuple(path.stem.removeprefix(prefix) for path in tables.match_files),
        {
            "format": FORMAT,
            "date": _date(),
            **_release(config, frame),
            "selection": config.section("publish"),
            "labels_sha256": _labels_hash(frame),
            "model": dict(zip(("name", "sha256_begins"), tables.model, strict=True)),
            "measures": {} if measured is None else _stage_metadata(workspace.measures_file(section.name)),
            "scores": {key: value for key, value in tables.metadata.items() if key != "qad.inputs"},
            "counts": {
                "scored": tables.n_rows,
                "published": frame.height,
                "measured": 0 if measured is None else measured.height,
            },
            "inputs": [{"name": _name(workspace.root, path), "sha256": hash_file(path)} for path in names],
            "versions": {"qad": qad.__version__, "python": sys.version.split()[0], **_versions()},
        },
    )


def _write(config: Config, content: Content, folder: Path, options: RunOptions) -> Iterator[str]:
    """Write every file below `folder` and yield the names."""
    from qad.publishing.words import citation_cff, readme

    progress = options.progress
    progress.start("publish", None, "files")
    written: list[str] = []
    for name, data in _files(config, content, folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is not None:
            path.write_bytes(data)
        written.append(name)
        progress.advance()
    from qad.publishing.citations import LICENSE
    from qad.publishing.tables import dictionary

    columns = {"candidates": dictionary(content.frame)}
    if content.measures is not None:
        columns["measures"] = dictionary(content.measures)
    last = {
        "CITATION.cff": citation_cff(content.provenance),
        "LICENSE": LICENSE,
        PROVENANCE: json.dumps(content.provenance, indent=2, ensure_ascii=False) + "\n",
    }
    last["README.md"] = readme(content.provenance, columns, [*written, *last, SUMS], content.catalogues)
    for name, text in last.items():
        (folder / name).write_text(text, "utf-8")
    written += last
    sums = [f"{hash_file(folder / name)}  {name}\n" for name in sorted(written)]
    (folder / SUMS).write_text("".join(sums), "ascii")
    yield from (*written, SUMS)


def _files(config: Config, content: Content, folder: Path) -> Iterator[tuple[str, bytes | None]]:
    """Yield name and content of the data files; None: the file is written already."""
    from qad.analysis.source import read_blocks
    from qad.publishing import cds, figures, spectra, tables, words
    from qad.publishing.citations import ACKNOWLEDGEMENT

    provenance, frame = content.provenance, content.frame
    title = provenance["selection"]["title"]
    header = {
        "ORIGIN": f"qad {qad.__version__}",
        "DATE": provenance["date"],
        "RELEASE": provenance["release"] or "unknown",
    }
    parts = {"candidates": (frame, f"{title}: candidates by rank")}
    if content.measures is not None:
        parts["measures"] = (content.measures, f"{title}: lines, continuum, absorption, other redshifts")
    made = {name: tables.astropy_table(rows, text) for name, (rows, text) in parts.items()}
    for name, table in made.items():
        yield f"{name}.fits", tables.fits_bytes(table, name.upper(), header)
        yield f"{name}.ecsv", tables.ecsv_bytes(table)
        yield f"{name}.parquet", tables.parquet_bytes(parts[name][0], {"qad.publish": json.dumps(header)})
    infos = {"title": title, "release": header["RELEASE"], "made_with": header["ORIGIN"], "licence": "CC BY 4.0"}
    yield "candidates.vot", tables.votable_bytes(made, infos)
    (folder / "cds").mkdir()
    authors = ", ".join(
        " ".join(reversed([part.strip() for part in name.split(",")])) for name in provenance["selection"]["authors"]
    )
    said = {
        "title": title,
        "authors": authors or "to be filled in",
        "date": provenance["date"][:4],
        "abstract": words.abstract(provenance),
    }
    said |= {
        "description": "Selection: " + "; ".join(words.selection(provenance)) + ".",
        "acknowledgements": ACKNOWLEDGEMENT,
    }
    cds.write_cds(folder / "cds", made, said)
    yield "cds/ReadMe", None
    for name in made:
        yield f"cds/{name}.dat", None
    blocks = list(read_blocks(config.workspace, frame))
    yield "spectra.fits", spectra.spectra_bytes(frame, blocks, header)
    drawn = {
        "scores": figures.score_figure(content.everything, frame),
        "coverage": figures.coverage_figure(content.everything, frame),
        "top20": figures.contact_sheet(frame, blocks),
    }
    if content.evaluation is not None:
        drawn["completeness"] = figures.completeness_figure(content.evaluation)
    for name, figure in drawn.items():
        for form, data in figures.encoded(figure).items():
            yield f"figures/{name}.{form}", data


def _own(folder: Path) -> dict[str, Any] | None:
    """Return the provenance of a folder that `publish` wrote and nobody touched since; None where there is none or it is empty.

    Raises
    ------
    ConfigError
        If the folder holds anything else.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file, not a folder")
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if not present:
        return None
    advice = "name another folder, or move what is yours away"
    try:
        document = json.loads((folder / PROVENANCE).read_text("utf-8"))
        lines = [line.split("  ", 1) for line in (folder / SUMS).read_text("ascii").splitlines()]
        sums = {name: sha256 for sha256, name in lines}
        is_ours = document["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise ConfigError(f"{folder} was not made by `qad publish`; {advice}")
    foreign = sorted(present - set(sums) - {SUMS})
    if foreign:
        raise ConfigError(f"{folder / foreign[0]} was not written by `qad publish`; {advice}")
    changed = [name for name, digest in sums.items() if name in present and hash_file(folder / name) != digest]
    if changed:
        raise ConfigError(f"{folder / sorted(changed)[0]} was changed since `qad publish` wrote it; {advice}")
    return document if present == {*sums, SUMS} else {}


def _same(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the same would be written, but for the date."""
    undated = [{key: value for key, value in document.items() if key != "date"} for document in (before, now)]
    # tuples and the like become what JSON makes of them
    return bool(hash_document(undated[0]) == hash_document(json.loads(json.dumps(undated[1]))))


def _date() -> str:
    """Return today's date, UTC, or that of ``SOURCE_DATE_EPOCH``."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        return datetime.datetime.fromtimestamp(int(text), datetime.UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        raise ConfigError(f"SOURCE_DATE_EPOCH is {text!r}, expected seconds since 1970") from None


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _release(config: Config, frame: pl.DataFrame) -> dict[str, str]:
    """Return release and production of the published spectra; several are joined."""
    found: dict[str, set[str]] = {"release": set(), "specprod": set()}
    for path in _spectra_files(config, frame):
        metadata = read_metadata(path, SPECTRA)
        for key, values in found.items():
            if metadata.get(f"qad.{key}"):
                values.add(str(metadata[f"qad.{key}"]))
    return {key: ", ".join(sorted(values)) for key, values in found.items()}


def _spectra_files(config: Config, frame: pl.DataFrame) -> list[Path]:
    places = frame.select("survey", "program", "healpix").unique().sort("survey", "program", "healpix").iter_rows()
    files = [config.workspace.spectra_file(*place) for place in places]
    return [path for path in files if path.is_file()]


def _model_file(tables: Tables) -> Path | None:
    return next((folder / "model.json" for folder in tables.model_folders if (folder / "model.json").is_file()), None)


def _labels_hash(frame: pl.DataFrame) -> str:
    """Return a hash of the labels that are published: the file grows, these count."""
    return hash_document(frame.select("targetid", "label", "label_comment").rows()) if "label" in frame.columns else ""


def _stage_metadata(path: Path) -> dict[str, Any]:
    return {key: value for key, value in read_metadata(path, MEASURES).items() if key in ("qad.version", "qad.config")}


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _evaluation(path: Path) -> dict[str, Any] | None:
    """Return what `qad evaluate` found, None where it has not run.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
        cells = found["completeness"]
        usable = isinstance(cells, list) and all("by" in entry and "cell" in entry for entry in cells)
    except (ValueError, KeyError, TypeError):
        usable = False
    if not usable:
        raise InputError(path, "not an evaluation that can be drawn; run `qad evaluate --force`, or move it away")
    return dict(found)
