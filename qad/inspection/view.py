"""What one ``qad inspect`` does: look, then show, write, plot or label, as was asked for."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qad.config import Config
from qad.errors import ConfigError
from qad.inspection.scene import PlotOptions, parse_zoom
from qad.inspection.stage import InspectResult, inspect, open_tables, select
from qad.results import NoProgress, RunOptions

if TYPE_CHECKING:
    import polars as pl

    from qad.inspection.formats import Format
    from qad.inspection.tables import Tables

SUFFIXES: dict[str, Format] = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".fits": "fits", ".fit": "fits"}
MAX_INT64 = 2**63 - 1


@dataclass(frozen=True)
class Wanted:
    """What to do with the rows."""

    form: Literal["table", "csv", "json", "parquet", "fits"] | None = None
    output: Path | None = None
    plot: bool = False
    html: Path | None = None
    label: str | None = None
    comment: str = ""
    png: Path | None = None
    review: bool = False


def parse_targetids(texts: Sequence[str]) -> list[int]:
    """Return TARGETIDs as numbers, each once.

    Raises
    ------
    ConfigError
        If one is not a whole number of 64 bits.
    """
    found: dict[int, None] = {}
    for text in texts:
        if not re.fullmatch(r"-?[0-9]{1,19}", text) or abs(int(text)) > MAX_INT64:
            raise ConfigError(f"{text[:40]!r} is not a TARGETID: a whole number such as 39627612345678901")
        found[int(text)] = None
    return list(found)


def with_columns(config: Config, text: str) -> Config:
    """Return the configuration with the columns of ``a,b,c``, ``+a,b`` beside the configured ones, or ``all``.

    Raises
    ------
    ConfigError
        If no column is named.
    """
    names = [name.strip() for name in text.removeprefix("+").split(",") if name.strip()]
    if not names:
        raise ConfigError(f"--columns {text!r}: name columns as a,b,c; '?' lists them")
    if names == ["all"]:
        names = open_tables(config).known
    columns = [*config.inspect.columns, *names] if text.startswith("+") else names
    return replace(config, inspect=config.inspect.model_copy(update={"columns": list(dict.fromkeys(columns))}))


def with_layers(config: Config, text: str) -> Config:
    """Return the configuration with the layers of ``a,b,c``; names that begin with ``-`` are taken from the configured ones.

    Raises
    ------
    ConfigError
        If a layer is not known.
    """
    from qad.inspection.scene import LAYERS

    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name.removeprefix("-") not in LAYERS]
    if unknown or not names:
        raise ConfigError(f"--layers {text!r}: name some of {', '.join(LAYERS)}; -name leaves one out")
    out = {name[1:] for name in names if name.startswith("-")}
    kept = [name for name in names if not name.startswith("-")] or config.inspect.layers
    layers = [name for name in LAYERS if name in kept and name not in out]
    return replace(config, inspect=config.inspect.model_copy(update={"layers": layers}))


def list_columns(config: Config) -> None:
    """Print every column that can be named, with its unit and what it holds."""
    from qad.inspection.show import show_columns

    show_columns(open_tables(config))


def run(config: Config, wanted: Wanted, silent: bool = False, quiet: bool = False) -> InspectResult:
    """Do what was asked for.

    Parameters
    ----------
    config : Config
    wanted : Wanted
    silent : bool
        Print nothing: the caller prints the result.
    quiet : bool
        Print the rows, but neither progress nor what was written.

    Raises
    ------
    QadError
        As :func:`qad.inspection.stage.inspect` does, and where an output cannot be written.
    """
    form = output_format(wanted)
    _check(config, wanted)
    if wanted.label is not None:
        return _label(config, wanted, quiet or silent)
    if wanted.review:
        from qad.inspection.reviewing.start import review

        return review(config)
    tables = open_tables(config)
    result = inspect(config, RunOptions(), tables)
    if wanted.png is not None:
        return _pictures(config, tables, wanted.png, result, quiet or silent)
    if wanted.html is not None:
        return _gallery(config, tables, wanted.html, result, quiet or silent)
    if wanted.output is not None:
        return _write(tables, wanted.output, form, result, quiet or silent)
    if not silent:
        _print(config, tables, wanted, form, result)
    return result


def output_format(wanted: Wanted) -> Format | Literal["table"]:
    """Return the format of the rows: as asked for, or as the name of the file says.

    Raises
    ------
    ConfigError
        If the file's name says nothing, or a table for people is to go into a file.
    """
    if wanted.output is None:
        return wanted.form or "table"
    form = wanted.form or SUFFIXES.get(wanted.output.suffix.lower())
    if form is None or form == "table":
        raise ConfigError(f"-o {wanted.output}: say which --format: csv, json, parquet or fits")
    return form


def _check(config: Config, wanted: Wanted) -> None:
    if wanted.label is not None and not config.inspect.targetid:
        raise ConfigError("--label needs the TARGETIDs that it is for")
    if wanted.comment and wanted.label is None:
        raise ConfigError("--comment goes with --label")
    if wanted.plot and (wanted.form not in (None, "table") or wanted.output or wanted.html):
        raise ConfigError("--plot draws in the terminal: leave out --format, -o and --html")
    if wanted.html and (wanted.form or wanted.output):
        raise ConfigError("--html writes a gallery: leave out --format and -o")
    parse_zoom(config.inspect.zoom)
    asked = [
        name
        for name, value in (
            ("--plot", wanted.plot),
            ("--html", wanted.html),
            ("--png", wanted.png),
            ("--review", wanted.review),
            ("-o", wanted.output),
            ("--format", wanted.form not in (None, "table")),
        )
        if value
    ]
    if len(asked) > 1 and (wanted.png or wanted.review):
        raise ConfigError(f"{' and '.join(asked)} go into different places: one at a time")


def _print(
    config: Config, tables: Tables, wanted: Wanted, form: Format | Literal["table"], result: InspectResult
) -> None:
    from qad.inspection import show
    from qad.inspection.formats import encode, json_bytes

    frame = _rows(result)
    if form == "json" and result.targets:
        show.write_stdout(json_bytes(list(result.targets)), form)
    elif form != "table":
        show.write_stdout(encode(frame, form, tables.metadata), form)
    elif wanted.plot:
        _plot(config, tables, result)
    elif result.targets:
        show.show_details(result.targets)
    else:
        show.show_table(frame, int(result.counts["scored"]))


def _plot(config: Config, tables: Tables, result: InspectResult) -> None:
    from qad.inspection import show

    rows = _plot_rows(config, tables, result)
    if not rows.height:
        print("qad inspect: no row to plot", file=sys.stderr)
        return
    drawn = show.show_plots(tables, rows, plot_options(config), config.inspect.graphics, config.inspect.background)
    _say_missing(config, rows.height - drawn, rows.height)


def plot_options(config: Config) -> PlotOptions:
    """Return how the configuration wants spectra drawn."""
    section = config.inspect
    return PlotOptions(section.smooth_px, section.frame, parse_zoom(section.zoom), frozenset(section.layers))


def _say_missing(config: Config, missing: int, total: int) -> None:
    if missing:
        print(
            f"qad inspect: {missing} of {total} have no spectrum below {config.root}; "
            "`qad extract` and `qad build-grid` make them",
            file=sys.stderr,
        )


def _pictures(config: Config, tables: Tables, path: Path, result: InspectResult, quiet: bool) -> InspectResult:
    from qad.inspection.pngs import write_pictures
    from qad.terminal.progress import terminal_progress

    rows = _plot_rows(config, tables, result)
    with nullcontext(NoProgress()) if quiet else terminal_progress() as progress:
        paths = write_pictures(
            tables, rows, path.expanduser(), plot_options(config), config.inspect.background == "dark", progress
        )
    if not quiet:
        print(f"{paths[0]}" if len(paths) == 1 else f"{path}: {len(paths):,} pictures")
        _say_missing(config, rows.height - len(paths), rows.height)
    return replace(
        result, n_done=len(paths), paths=(*result.paths, *paths), counts={**result.counts, "pictures": len(paths)}
    )


def _plot_rows(config: Config, tables: Tables, result: InspectResult) -> pl.DataFrame:
    """Return the rows to plot; a target that was not scored has only its place and redshift."""
    import polars as pl

    from qad.inspection.columns import KEY
    from qad.inspection.show import PLOT_COLUMNS

    rows = select(config, tables, [*KEY, *PLOT_COLUMNS])
    scored = set(rows.select("targetid", "survey", "program", "healpix").rows())
    extra = [
        {"targetid": int(target["targetid"]), **{name: entry[name] for name in ("survey", "program", "healpix")}}
        | {"z": entry["redrock"]["z"], "snr": entry["observation"].get("snr")}
        for target in result.targets
        for entry in target["spectra"]
        if (int(target["targetid"]), entry["survey"], entry["program"], entry["healpix"]) not in scored
    ]
    return (
        pl.concat([rows, pl.DataFrame(extra, schema_overrides=_types(rows, extra))], how="diagonal") if extra else rows
    )


def _types(rows: pl.DataFrame, extra: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: rows.schema[name] for name in extra[0]}


def _write(
    tables: Tables, path: Path, form: Format | Literal["table"], result: InspectResult, quiet: bool
) -> InspectResult:
    from qad.inspection.formats import FORMATS, json_bytes, write
    from qad.storage.atomic import write_bytes

    frame = _rows(result)
    if form == "json" and result.targets:
        write_bytes(path, json_bytes(list(result.targets)))
    else:
        known = next(name for name in FORMATS if name == form)
        write(path, frame, known, tables.metadata)
    if not quiet:
        print(f"{path}: {frame.height:,} rows")
    return replace(result, paths=(*result.paths, path))


def _gallery(config: Config, tables: Tables, folder: Path, result: InspectResult, quiet: bool) -> InspectResult:
    from qad.inspection.gallery import PAGE, gallery_columns, write_gallery
    from qad.terminal.progress import terminal_progress

    shown = config.inspect.columns
    frame = select(config, tables, gallery_columns(tables, shown))
    folder = folder.expanduser().resolve()
    with nullcontext(NoProgress()) if quiet else terminal_progress() as progress:
        counts = write_gallery(tables, frame, folder, shown, config.inspect.smooth_px, progress)
    if not quiet:
        missing = counts["candidates"] - counts["with_reconstruction"]
        print(
            f"{folder / PAGE}: {counts['candidates']:,} candidates"
            f"{f', {missing:,} without a model' if missing else ''}, {counts['bytes'] / 1e6:.1f} MB"
        )
    return replace(
        result,
        n_done=counts["candidates"],
        paths=(*result.paths, folder / PAGE),
        counts={**result.counts, **{f"gallery.{name}": count for name, count in counts.items()}},
    )


def _label(config: Config, wanted: Wanted, quiet: bool) -> InspectResult:
    from qad.inspection.labels import append_labels, new_labels

    labels = new_labels(config.inspect.targetid, wanted.label or "", wanted.comment, config.inspect.name)
    inspect(config, RunOptions())  # a target that nobody knows is no target to label
    append_labels(config.workspace.labels, labels)
    if not quiet:
        print(f"{len(labels)} labelled {labels[0].label}")
    result = inspect(config, RunOptions())
    return replace(result, paths=(*result.paths, config.workspace.labels))


def _rows(result: InspectResult) -> pl.DataFrame:
    import polars as pl

    return pl.DataFrame() if result.frame is None else result.frame
