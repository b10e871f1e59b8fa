"""``qad fetch``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qad.cli.options import BY_NAME, STAGE, command, pixels, shard_option, words
from qad.cli.runtime import Run
from qad.errors import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from qad.results import StageResult

EXAMPLES = (
    "qad fetch --survey sv3 --program dark --limit 10",
    "qad fetch --survey main --program dark --dry-run",
    "qad fetch --survey main --program dark --resume",
    "qad fetch --healpix 23040,23041 --mode files",
    "qad fetch --targets my-quasars.fits",
    "qad fetch --source /data/desi/dr1 --verify",
    "qad fetch --source s3://my-copy/dr1 --endpoint-url http://127.0.0.1:9000 --sign",
)


SHOWN_NAMES = 10
_JOBS = Annotated[
    int,
    typer.Option("--jobs", "-j", min=0, metavar="N", help="Requests under way; 0: as fetch.connections says (128)."),
]
_VERIFY = Annotated[bool, typer.Option("--verify", help="Read local files again, and fetch damaged ones.")]
SHARED: dict[str, Any] = {**STAGE, "jobs": _JOBS, "verify": _VERIFY, "shard": shard_option(BY_NAME)}


def fetch(
    run: Run,
    source: Annotated[
        str | None, typer.Option(metavar="URL|DIR", help="s3://bucket/prefix, or a local release tree to copy from.")
    ] = None,
    release: Annotated[
        str | None, typer.Option(metavar="NAME", help="Release: dr1, edr; with --source, any name for it.")
    ] = None,
    survey: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this survey (main, sv1, sv2, sv3, …); repeatable.")
    ] = None,
    program: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this program (dark, bright, backup, other); repeatable."),
    ] = None,
    healpix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST|@FILE",
            help="Only these pixels: 9144,9145, @FILE with one per line, or @TABLE (FITS, Parquet, CSV) with HEALPIX, "
            "SURVEY and PROGRAM; repeatable.",
        ),
    ] = None,
    tilepix: Annotated[
        bool | None,
        typer.Option("--tilepix/--no-tilepix", help="Only the pixels that the release's own tilepix.fits names."),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Only these targets: a FITS, Parquet or CSV table of TARGETIDs, or of positions."
        ),
    ] = None,
    radius: Annotated[
        float | None, typer.Option(metavar="ARCSEC", help="How far a target may lie from a listed position (1).")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=0, help="Stop after N pixels; 0: no limit.")] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="rows|hdus|files",
            help="Of the coadds the wanted rows; all rows of pixels with wanted ones, without resolution matrices; or all.",
        ),
    ] = None,
    spectype: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Redrock class whose rows are wanted (QSO); repeatable.")
    ] = None,
    zwarn: Annotated[
        int | None, typer.Option(metavar="BITS", min=0, help="ZWARN bits that wanted rows may have.")
    ] = None,
    resolution: Annotated[
        bool | None,
        typer.Option("--resolution/--no-resolution", help="The resolution matrices too (five times the bytes)."),
    ] = None,
    resume: Annotated[
        bool | None, typer.Option("--resume/--no-resume", help="Go on with partial files, or start them again.")
    ] = None,
    endpoint_url: Annotated[str | None, typer.Option(metavar="URL", help="Another S3 server.")] = None,
    sign: Annotated[
        bool | None, typer.Option("--sign/--no-sign-request", help="Sign requests with AWS credentials, or send none.")
    ] = None,
) -> None:
    """Fetch a release's quasars: redrock files, and of the coadds the rows of quasars alone, verified.

    Whole files are checked by the release's SHA-256 lists, whole HDUs by their DATASUM, rows by the encrypted connection;
    over plain HTTP both are read until two answers agree. Nothing gets its name before.
    A second run fetches only what is missing or has changed, and goes on inside partial files.  A request that fails is
    repeated (fetch.retries: 8 times, waiting at most 52 s in all; all requests share a budget of 500 repeats).
    """
    numbers, table = _pixels(healpix)
    flags = {
        "fetch.source": source,
        "fetch.release": release,
        "fetch.survey": words(survey),
        "fetch.program": words(program),
        "fetch.healpix": numbers,
        "fetch.pixels": table,
        "fetch.tilepix": tilepix,
        "fetch.targets": targets,
        "fetch.radius_arcsec": radius,
        "fetch.limit": limit,
        "fetch.mode": mode,
        "fetch.spectype": words(spectype),
        "fetch.zwarn": zwarn,
        "fetch.resolution": resolution,
        "fetch.resume": resume,
        "fetch.endpoint_url": endpoint_url,
        "fetch.anonymous": None if sign is None else not sign,
    }
    config = run.load(flags)
    from qad.fetching.stage import fetch

    result = run.work("fetch", fetch, config)
    retry = list(_retry_commands(result, run, flags))
    run.report(replace(result, details={**result.details, "retry": retry} if retry else result.details))
    if not (run.common.json or run.common.quiet):
        for text in _outlook(result) if result.dry_run else _story(result):
            print(text)
        for command in retry:
            print(f"to try again: {command}")
    if result.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _pixels(values: list[str] | None) -> tuple[list[int] | None, str | None]:
    """Return the numbers that ``--healpix`` names, and the table."""
    from qad.errors import ConfigError
    from qad.fetching.catalogue import is_table

    tables = [value for value in values or () if value.startswith("@") and is_table(Path(value[1:]).expanduser())]
    if len(tables) > 1:
        raise ConfigError(f"--healpix names {len(tables)} tables; give one")
    rest = [value for value in values or () if value not in tables]
    return pixels(rest) if rest else None, tables[0][1:] if tables else None


def _story(result: StageResult) -> Iterator[str]:
    """Tell what a fetch has brought, for people."""
    from qad.results import format_bytes

    counts = result.counts
    if counts["bytes_whole"]:
        rows = f"{int(counts['rows_fetched']):,} rows; " if counts["rows_fetched"] else ""
        share = counts["bytes"] / counts["bytes_whole"]
        whole = f"{share:.1%} of the {format_bytes(counts['bytes_whole'])} of the whole files"
        yield f"{rows}{format_bytes(counts['bytes'])} received, {whole}"
    absent = result.details["absent"]
    if absent:
        yield f"absent, which is normal: {_some(absent)}"
    missing = result.details.get("targets_missing")
    if missing:
        yield f"listed targets that no pixel holds: {_some(missing, int(counts['targets.missing']))}"


def _outlook(result: StageResult) -> Iterator[str]:
    """Tell what a fetch would bring, for people."""
    from qad.results import format_bytes
    from qad.terminal.progress import format_duration

    found = result.details
    if found["quasars"] is not None:
        error = f" ± {found['quasars']['error']:,}" if found["quasars"]["error"] else ""
        yield f"about {found['quasars']['value']:,}{error} wanted rows, counted in {found['pixels_counted']:,} pixels"
    yield f"at {format_bytes(found['measured_bytes_per_second'])}/s, as measured:"
    for mode, amount in found["bytes_by_mode"].items():
        error = f" ± {format_bytes(amount['error'])}" if amount["error"] else ""
        seconds = format_duration(found["seconds_by_mode"][mode])
        mark = "*" if mode == found["mode"] else " "
        yield f" {mark} --mode {mode:<6} {format_bytes(amount['value']):>9}{error}, {seconds}"


def _retry_commands(result: StageResult, run: Run, flags: Mapping[str, Any]) -> Iterator[str]:
    """Return the commands that fetch what failed, one a survey and program."""
    kept = []
    for key, value in {**flags, "paths.root": run.common.root}.items():
        if value is None or key in ("fetch.survey", "fetch.program", "fetch.healpix", "fetch.limit"):
            continue
        kept += ["--root", str(value)] if key == "paths.root" else ["--set", f"{key}={_text(value)}"]
    if run.common.config is not None:
        kept = ["--config", str(run.common.config), *kept]
    by_tree: dict[tuple[str, str], list[str]] = {}
    for failure in result.failures:
        survey, program, number = failure.unit.split("/")
        by_tree.setdefault((survey, program), []).append(number)
    for (survey, program), numbers in by_tree.items():
        where = ["--survey", survey, "--program", program, "--healpix", ",".join(numbers)]
        yield shlex.join(["qad", "fetch", *where, *kept])


def _text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


def _some(names: Sequence[str], n_all: int = 0) -> str:
    n_all = n_all or len(names)
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {n_all - SHOWN_NAMES:,} more" if n_all > SHOWN_NAMES else "")


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "fetch", examples=EXAMPLES, shared=SHARED)(fetch)
