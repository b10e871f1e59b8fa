"""``qad inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
    top: Annotated[
        int | None,
        typer.Option(metavar="N", help="Rows shown (default 20; with --plot and --png 1; with --review 1000)."),
    ] = None,
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
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="Draw the rows as pictures: one FILE.png, or a folder of one each."),
    ] = None,
    review: Annotated[
        bool, typer.Option("--review", help="Look through the rows full-screen and label them by keyboard.")
    ] = False,
    smooth_px: Annotated[
        int | None, typer.Option("--smooth", "--smooth-px", metavar="N", help="Pixels of the running mean in plots.")
    ] = None,
    zoom: Annotated[
        str | None, typer.Option(metavar="LO:HI", help="Plot only this stretch, Å of the lower axis.")
    ] = None,
    rest: Annotated[
        bool | None, typer.Option("--rest/--observed", help="Wavelengths of the lower axis and of --zoom.")
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C", help="What plots show: raw, error, model, lines, residual, zoom; '-raw' leaves out."
        ),
    ] = None,
    graphics: Annotated[
        Literal["auto", "text", "kitty", "iterm2", "sixel"] | None,
        typer.Option(help="How --plot draws: pictures where the terminal shows them, or text."),
    ] = None,
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
            "inspect.top": _default_top(plot, png, review, html) if top is None else top,
            "inspect.where": where,
            "inspect.sort": sort,
            "inspect.smooth_px": smooth_px,
            "inspect.zoom": zoom,
            "inspect.frame": None if rest is None else "rest" if rest else "observed",
            "inspect.graphics": graphics,
        }
    )
    if columns == "?":
        view.list_columns(config)
        return
    if columns is not None:
        config = view.with_columns(config, columns)
    if layers is not None:
        config = view.with_layers(config, layers)
    wanted = view.Wanted(form, output, plot, html, label, comment or "", png, review)
    result = view.run(config, wanted, silent=run.common.json, quiet=run.common.quiet)
    if run.common.json:
        run.print_json(result.as_json())


def _default_top(plot: bool, png: Path | None, review: bool, html: Path | None) -> int | None:
    """Return how many rows are meant where nobody says: one plot, a session's worth of review, else as configured."""
    if review:
        return 1000
    return 1 if (plot or png) and not html else None


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = [
        "qad inspect",
        "qad inspect 39627612345678901 --plot",
        "qad inspect --where 'z > 2 and snr > 3 and artefact < 0.5' --sort -snr --columns +mag_r,label",
        "qad inspect 39627612345678901 --plot --observed --zoom 4700:5100",
        "qad inspect --top 50 --png figures",
        "qad inspect --review --where 'artefact < 0.5'",
        "qad inspect --top 200 --html gallery",
        "qad inspect --where \"label = 'interesting'\" -o interesting.fits",
        "qad inspect 39627612345678901 --label interesting --comment 'C IV trough at -9000 km/s'",
    ]
    command(app, "inspect", examples=examples, shared=VIEW)(inspect)
