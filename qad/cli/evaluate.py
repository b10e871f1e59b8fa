"""``qad evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from qad.cli.options import STAGE, command
from qad.cli.runtime import Run
from qad.errors import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from rich.table import Table

CRITERIA = {"fpr_0.001": "0.1 % FPR", "fpr_0.01": "1 % FPR"}
NAMES_WIDTH, FIGURE_WIDTH = 25, 13
"""Columns that the names, with the numbers behind them, and a figure with its error take; on narrower terminals errors go."""


def evaluate(
    run: Run,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Model whose scores are evaluated.")] = None,
    spectra: Annotated[
        int | None, typer.Option(metavar="N", help="Spectra to plant something into, a fifth of them artefacts.")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="CLASS", help="Plant only this class; repeatable.")
    ] = None,
    prevalence: Annotated[
        float | None, typer.Option(metavar="R", help="Share of anomalies that precision is told for.")
    ] = None,
    top: Annotated[
        list[int] | None, typer.Option(metavar="K", help="Length of a list that somebody looks through; repeatable.")
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(metavar="PATH|none", help="Judge the scores by this truth.parquet; none: plant in any case."),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="S", help="Seed of every random number.")] = None,
) -> None:
    """Tell how complete the search is, and how pure.

    Anomalies and artefacts of known kind and strength are planted into copies of spectra that the model was not trained
    on, before normalisation and with the noise that they have; these go through gridding and scoring as the others did.
    Told are the shares that are found, by class, strength, S/N and redshift. The scores themselves stay as they are. For a
    simulated release the scores are judged by its truth.parquet instead.
    """
    config = run.load(
        {
            "evaluate.name": name,
            "evaluate.spectra": spectra,
            "evaluate.classes": classes,
            "evaluate.prevalence": prevalence,
            "evaluate.top": top,
            "evaluate.truth": truth,
            "evaluate.seed": seed,
        }
    )
    from qad.evaluation.stage import evaluate

    result = run.work("evaluate", evaluate, config)
    run.report(result)
    document = result.details.get("evaluation")
    if document and not (run.common.json or run.common.quiet):
        show(document)
        print(f"figures in {result.paths[0]}, plot in {result.paths[1]}")
    if result.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def show(document: dict[str, Any]) -> None:
    """Print an evaluation as tables."""
    from qad.terminal.console import out_console

    console = out_console()
    for table in (
        _ranking(document),
        _completeness(document, console.width),
        _false_positives(document, console.width),
    ):
        console.print()
        console.print(table)
    if document["mode"] == "planted":
        print("The list's own anomalies count as false positives here: completeness and precision are lower bounds.")


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.show_header = any(columns)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    return table


def _figure(figure: dict[str, float | None] | None, with_error: bool = True) -> str:
    if not figure or figure["value"] is None:
        return "-"
    error = f" ± {figure['error']:.2f}" if with_error and figure["error"] is not None else ""
    return f"{figure['value']:.2f}{error}"


def _ranking(document: dict[str, Any]) -> Table:
    ranking, settings, artefacts = document["ranking"], document["settings"], document["artefacts"]
    planted = document["mode"] == "planted"
    among = f"if {settings['prevalence']:.1%} of spectra are anomalies" if planted else "as the truth says"
    table = _table(f"The ranking, {among}", "", "")
    table.add_row("area under the ROC curve", _figure(ranking["auroc"]))
    table.add_row("average precision", _figure(ranking["ap"]))
    for key in ranking:
        what, _, k = key.rpartition("_")
        if what == "precision_at":
            table.add_row(f"precision among the first {k}", _figure(ranking[key]))
        elif what == "artefacts_in":
            table.add_row(f"share of planted artefacts among the first {k}", _figure(ranking[key]))
    table.add_row("rank correlation with S/N", _figure(ranking["snr_correlation"]))
    table.add_row("artefacts that are called artefacts", _figure(artefacts["called"]))
    table.add_row("anomalies that are called artefacts", _figure(artefacts["anomalies_called"]))
    return table


def _completeness(document: dict[str, Any], width: int) -> Table:
    entries = [entry for entry in document["completeness"] if entry["by"] != "class and strength"]
    criteria = [key for key, value in entries[0].items() if isinstance(value, dict)] if entries else []
    names = [CRITERIA.get(key) or f"first {key.removeprefix('top_')}" for key in criteria]
    wide = width >= NAMES_WIDTH + FIGURE_WIDTH * len(criteria)
    title = "Completeness: the share found at a false-positive rate, or in the first"
    table = _table(title, "", "n", *names)
    previous = "all"
    for entry in entries:
        if entry["by"] != previous:
            table.add_section()
            table.add_row(f"by {'S/N' if entry['by'] == 'snr' else entry['by']}")
            previous = entry["by"]
        indent = "" if entry["by"] == "all" else "  "
        table.add_row(f"{indent}{entry['cell']}", f"{entry['n']:,}", *(_figure(entry[key], wide) for key in criteria))
    return table


def _false_positives(document: dict[str, Any], width: int) -> Table:
    entries = document["false_positives"]
    rates = {(entry["snr"], entry["z"]): entry for entry in entries}
    snrs, zs = (list(dict.fromkeys(entry[key] for entry in entries)) for key in ("snr", "z"))
    title = "Share of spectra without a plant at p < 0.01, in per cent"
    table = _table(title, "S/N", *(f"z {z}" for z in zs))
    wide = width >= FIGURE_WIDTH * len(zs)
    for snr in snrs:
        found = [rates.get((snr, z)) for z in zs]
        per_cent = [e and {"value": 100 * e["rate"], "error": 100 * (e["error"] or 0.0)} for e in found]
        table.add_row(snr, *("-" if e is None else _rate(e, wide) for e in per_cent))
    return table


def _rate(figure: dict[str, float], with_error: bool) -> str:
    return f"{figure['value']:.1f}" + (f" ± {figure['error']:.1f}" if with_error else "")


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = [
        "qad evaluate",
        "qad evaluate --spectra 5000 --prevalence 0.005 --top 200",
        "qad evaluate --class hibal --class weak_line",
        "qad evaluate --truth release/truth.parquet",
        "qad evaluate --truth none --json",
    ]
    command(app, "evaluate", examples=examples, shared=STAGE)(evaluate)
