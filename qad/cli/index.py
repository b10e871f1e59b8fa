"""``qad index``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qad.cli.options import command
from qad.cli.runtime import Run

EXAMPLES = (
    "QAD_INDEX__DSN=postgresql://me@localhost/qad qad index",
    "qad index --status",
    "qad index --force --verify",
)


def index(
    run: Run,
    status: Annotated[
        bool, typer.Option("--status", help="Say how many files the index is behind, and change nothing.")
    ] = False,
    schema: Annotated[str | None, typer.Option(metavar="NAME", help="Schema that holds the tables.")] = None,
) -> None:
    """Bring the PostgreSQL index up to the files.

    It holds the scalar columns of spectra, scores and matches.
    The connection string is index.dsn, or the environment variable QAD_INDEX__DSN; there is no flag for it because every
    user of a machine can read another's command line.  The files are the truth: the index can be dropped and rebuilt.
    """
    config = run.load({"index.db_schema": schema})
    if status:
        from qad.index.stage import index_status

        _print_status(run, index_status(config))
        return
    from qad.index.stage import index

    run.stage("index", index, config)


def _print_status(run: Run, document: dict[str, Any]) -> None:
    if run.common.json:
        run.print_json(document)
        return
    print(f"{document['database']}, schema {document['schema']}, version {document['schema_version']}")
    for name, table in document["tables"].items():
        print(
            f"  {name.ljust(8)}  {table['rows']:>12,} rows  {table['files']:>7,} files"
            f"  {table['behind']:>7,} behind  {table['gone']:>5,} gone"
        )
    print(
        "up to date" if not document["n_behind"] else f"{document['n_behind']:,} files behind: `qad index` catches up"
    )


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "index", examples=EXAMPLES)(index)
