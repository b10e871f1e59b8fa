"""``qad inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qad.cli.options import VIEW, Form, Output, Sort, Where, command
from qad.cli.runtime import Run


def inspect(
    run: Run,
    targetid: Annotated[
        list[str] | None, typer.Argument(metavar="[TARGETID]...", help="Show everything known of these targets.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Model whose scores are shown.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of that model if it lies outside the work directory.")
    ] = None,
    top: Annotated[int | None, typer.Option(metavar="N", help="Rows shown (default 20; with --plot 1).")] = None,
    where: Where = None,
    sort: Sort = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Columns shown; '+a,b' adds some, 'all' shows all, '?' lists them."),
    ] = None,
    form: Form = None,
    output: Output = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw the spectrum, its reconstruction and the lines in the terminal.")
    ] = False,
    smooth_px: Annotated[int | None, typer.Option(metavar="N", help="Pixels of the running mean in plots.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a gallery of the rows that opens in any browser.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Label the targets: interesting, known, artefact, boring, or any word."),
    ] = None,
    comment: Annotated[str | None, typer.Option(metavar="TEXT", help="Say more with --label.")] = None,
) -> None:
    """Show candidates: table, details, plot, gallery, files."""
    from qad.inspection import view

    config = run.load(
        {
            "inspect.targetid": view.parse_targetids(targetid) if targetid else None,
            "inspect.name": name,
            "inspect.model": model,
            "inspect.top": 1 if top is None and plot and not html else top,
            "inspect.where": where,
            "inspect.sort": sort,
            "inspect.smooth_px": smooth_px,
        }
    )
    if columns == "?":
        view.list_columns(config)
        return
    if columns is not None:
        config = view.with_columns(config, columns)
    wanted = view.Wanted(form, output, plot, html, label, comment or "")
    result = view.run(config, wanted, silent=run.common.json, quiet=run.common.quiet)
    if run.common.json:
        run.print_json(result.as_json())


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = [
        "qad inspect",
        "qad inspect 39627612345678901 --plot",
        "qad inspect --where 'z > 2 and snr > 3 and artefact < 0.5' --sort -snr --columns +mag_r,label",
        "qad inspect --top 200 --html gallery",
        "qad inspect --where \"label = 'interesting'\" -o interesting.fits",
        "qad inspect 39627612345678901 --label interesting --comment 'C IV trough at -9000 km/s'",
    ]
    command(app, "inspect", examples=examples, shared=VIEW)(inspect)
