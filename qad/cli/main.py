"""The ``qad`` executable: registers the commands.  Only Typer may be imported here; heavy libraries load in stages."""

from __future__ import annotations

from typing import Annotated

import typer

from qad.cli import (
    build_grid,
    config,
    crossmatch,
    evaluate,
    extract,
    fetch,
    index,
    inspect,
    measure,
    publish,
    run,
    score,
    simulate,
    status,
    train,
)

app = typer.Typer(
    name="qad",
    help="Find anomalous quasars in the Dark Energy Spectroscopic Instrument's spectra.",
    epilog="\b\nFirst look, without network or GPU:\n"
    "  qad simulate release --quasars 500 --healpix 2\n"
    "  qad run --source release\n"
    "  qad inspect",
    no_args_is_help=True,
    rich_markup_mode=None,  # Rich's help costs 0.1 s at every start and in every completion
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = (
    fetch,
    extract,
    build_grid,
    train,
    score,
    evaluate,
    measure,
    crossmatch,
    inspect,
    publish,
    run,
    simulate,
    index,
    status,
    config,
)
"""In the order of the data: the order of the help."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from qad import __version__

        print(f"qad {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Find anomalous quasars in the Dark Energy Spectroscopic Instrument's spectra."""


for _command in COMMANDS:
    _command.register(app)
