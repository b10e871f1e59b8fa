"""``qad index``: the tables follow the files, and both answer questions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from qad.cli.options import STAGE, VIEW, Form, Output, Sort, Where, command
from qad.cli.runtime import Run

Schema = Annotated[str | None, typer.Option("--schema", metavar="NAME", help="Schema that holds the tables.")]
TABLE_ROWS = 20
"""Rows that a table for people has at most, if nothing else was said."""


class _SyncByDefault(TyperGroup):
    """``qad index`` alone is ``qad index sync``, ``qad index --status`` is ``qad index status``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            verb = "status" if "--status" in args else "sync"
            args = [verb, *(word for word in args if word != "--status")]
        return super().parse_args(ctx, args)


def sync(run: Run, schema: Schema = None) -> None:
    """Bring the PostgreSQL index up to the files.

    It holds the scalar columns of spectra, scores and matches, the pixels, and the last label of each target.
    The connection string is index.dsn, or the environment variable QAD_INDEX__DSN; there is no flag for it because every
    user of a machine can read another's command line.  The files are the truth: the index can be dropped and rebuilt.
    """
    config = run.load({"index.db_schema": schema})
    from qad.index.stage import index

    run.stage("index", index, config)


def status(run: Run, schema: Schema = None) -> None:
    """Say how many files the PostgreSQL index is behind, and change nothing."""
    config = run.load({"index.db_schema": schema})
    from qad.index.stage import index_status

    document = index_status(config)
    if run.common.json:
        run.print_json(document)
        return
    print(f"{document['database']}, schema {document['schema']}, version {document['schema_version']}")
    for name, table in document["tables"].items():
        print(
            f"  {name.ljust(8)}  {table['rows']:>12,} rows  {table['files']:>7,} files"
            f"  {table['behind']:>7,} behind  {table['gone']:>5,} gone"
        )
    behind = document["n_behind"]
    print(f"{behind:,} files behind: `qad index sync` catches up" if behind else "up to date")


def query(
    run: Run,
    sql: Annotated[
        str | None, typer.Argument(metavar="[SQL]", help="A whole SELECT over pixel, spectrum, score, match, label.")
    ] = None,
    table: Annotated[
        Literal["spectrum", "score", "match", "label", "pixel"] | None,
        typer.Option("--from", help="Table whose rows are asked for (default spectrum)."),
    ] = None,
    where: Where = None,
    cone: Annotated[
        str | None,
        typer.Option(
            metavar="RA,DEC,RADIUS", help="Only positions so near: degrees, the radius with deg, arcmin, arcsec."
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="RA1,RA2,DEC1,DEC2", help="Only positions between, degrees; RA1 above RA2 goes across 0."),
    ] = None,
    sort: Sort = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", "--limit", min=0, metavar="N", help=f"Rows at most (default {TABLE_ROWS} in a table; 0: all)."
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C", help="Columns; those of spectrum, score and label can stand beside the table's; 'all'."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model whose scores and matches are meant (default: score.name).")
    ] = None,
    form: Form = None,
    output: Output = None,
    engine: Annotated[
        Literal["auto", "postgres", "files"],
        typer.Option(help="Who answers; auto: PostgreSQL if it is configured and up to date, else the files."),
    ] = "auto",
    schema: Schema = None,
) -> None:
    """Ask for rows: by SQL, or by place, condition, order and number.

    Without a server the Parquet files answer, with the same rows.  Tables join by targetid, survey, program, healpix.
    Give expressions a name with AS, and round a fraction before a CAST to integer: there the engines differ.
    """
    from qad.cli import rows
    from qad.index.query import Question, ask, open_engine
    from qad.index.sky import parse_box, parse_cone

    config = run.load({"index.db_schema": schema, "score.name": name})
    shape = rows.output_format(form, output)
    rows.check_parts(
        sql, {"--from": table, "--where": where, "--sort": sort, "--top": top, "--columns": columns}, cone, box
    )
    area = parse_cone(cone) if cone is not None else parse_box(box) if box is not None else None
    limit = top if top is not None else TABLE_ROWS if shape == "table" and not run.common.json else 0
    wanted = [part.strip() for part in (columns or "").split(",") if part.strip()]
    question = Question(sql or "", table or "spectrum", config.score.name, wanted, where or "", sort or "", limit, area)
    with open_engine(config, engine) as (asked, reason):
        frame = ask(asked, question)
        rows.tell(run, asked.place, reason, frame.height)
    rows.give(run, frame, shape, output, asked.place)


def register(app: typer.Typer) -> None:
    """Add the command and its three."""
    group = typer.Typer(
        cls=_SyncByDefault,
        help="The optional PostgreSQL index: bring it up to the files (sync, the default), see how it stands, ask it.",
        epilog="\b\nExamples:\n  qad index sync\n  qad index status\n  qad index query --where 'z > 4' --top 10",
        no_args_is_help=False,
        rich_markup_mode=None,
    )
    command(
        group,
        "sync",
        ["QAD_INDEX__DSN=postgresql://me@localhost/qad qad index sync", "qad index sync --force --verify"],
        STAGE,
        "index",
    )(sync)
    command(group, "status", ["qad index status", "qad index status --json"], VIEW, "index")(status)
    examples = [
        "qad index query --cone 180.1,2.5,30arcmin --sort -score --columns targetid,z,score,label",
        "qad index query --where 'z > 4 and snr > 3' -o far.fits",
        "qad index query --from match --where \"catalog = 'milliquas'\" --box 350,10,-2,2",
        'qad index query "SELECT program, count(*) AS n FROM spectrum GROUP BY program ORDER BY n"',
        'qad index query "SELECT targetid, rank, label FROM score JOIN label USING (targetid) ORDER BY rank"',
    ]
    command(group, "query", examples, VIEW, "index")(query)
    app.add_typer(group, name="index")
