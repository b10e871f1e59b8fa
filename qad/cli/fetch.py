"""``qad fetch``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qad.cli.options import STAGE, command, pixels, words
from qad.cli.runtime import Run

EXAMPLES = (
    "qad fetch --survey sv3 --program dark --limit 10",
    "qad fetch --survey main --program dark --healpix 23040,23041 --dry-run",
    "qad fetch --healpix @pixels.txt --jobs 16",
    "qad fetch --source /data/desi/dr1 --verify",
    "qad fetch --source s3://my-copy/dr1 --endpoint-url http://127.0.0.1:9000 --sign",
)


_JOBS = Annotated[
    int, typer.Option("--jobs", "-j", min=0, metavar="N", help="Pixels in flight; 0: as fetch.connections says (8).")
]
_VERIFY = Annotated[bool, typer.Option("--verify", help="Read local files again, and fetch damaged ones.")]
SHARED: dict[str, Any] = {**STAGE, "jobs": _JOBS, "verify": _VERIFY}


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
            metavar="LIST|@FILE", help="Only these pixels: 9144,9145 or a file with one per line; repeatable."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=0, help="Stop after N pixels; 0: no limit.")] = None,
    mode: Annotated[str | None, typer.Option(metavar="files", help="files: whole coadd and redrock files.")] = None,
    resume: Annotated[
        bool | None, typer.Option("--resume/--no-resume", help="Go on with partial files, or start them again.")
    ] = None,
    endpoint_url: Annotated[str | None, typer.Option(metavar="URL", help="Another S3 server.")] = None,
    sign: Annotated[
        bool | None, typer.Option("--sign/--no-sign-request", help="Sign requests with AWS credentials, or send none.")
    ] = None,
) -> None:
    """Fetch a release's coadd and redrock files, verified.

    Every file is checked by the release's SHA-256 lists before it gets its name.
    A second run fetches only what is missing or has changed, and goes on inside partial files.  A request that fails is
    repeated (fetch.retries: 8 times, waiting at most 52 s in all).
    """
    config = run.load(
        {
            "fetch.source": source,
            "fetch.release": release,
            "fetch.survey": words(survey),
            "fetch.program": words(program),
            "fetch.healpix": None if healpix is None else pixels(healpix),
            "fetch.limit": limit,
            "fetch.mode": mode,
            "fetch.resume": resume,
            "fetch.endpoint_url": endpoint_url,
            "fetch.anonymous": None if sign is None else not sign,
        }
    )
    from qad.fetching.stage import fetch

    run.stage("fetch", fetch, config)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "fetch", examples=EXAMPLES, shared=SHARED)(fetch)
