"""``qad config``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qad.cli.options import VIEW, command
from qad.cli.runtime import Run


def config(
    run: Run,
    check: Annotated[bool, typer.Option("--check", help="Only say whether the configuration is valid.")] = False,
    init: Annotated[
        bool, typer.Option("--init", help="Write a commented qad.toml with every key at its default.")
    ] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="File that --init writes.", show_default=True)
    ] = Path("qad.toml"),
) -> None:
    """Show the settings, and where each value comes from."""
    if init:
        _write_default(output)
        return
    settings = run.load()
    if check:
        if not run.common.quiet:
            print(f"configuration is valid: {settings.file or 'built-in defaults'}")
        return
    if run.common.json:
        entries = [{"key": f"{s}.{k}", "value": value, "origin": origin} for s, k, value, origin in settings.items()]
        file = None if settings.file is None else str(settings.file)
        run.print_json({"file": file, "root": str(settings.root), "settings": entries})
        return
    print(f"# file: {settings.file or 'none (built-in defaults)'}\n# root: {settings.root}")
    from qad.config import as_toml

    current = ""
    for section, key, value, origin in settings.items():
        if section != current:
            print(f"\n[{section}]")
            current = section
        print(f"{key} = {as_toml(value)}" + (f"  # {origin}" if origin != "default" else ""))


def _write_default(output: Path) -> None:
    from qad.config import default_toml
    from qad.errors import ConfigError
    from qad.storage.atomic import write_text

    if output.exists():
        raise ConfigError(f"{output} exists; delete it first, or give another name with --output")
    write_text(output.absolute(), default_toml())
    print(f"wrote {output}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = [
        "qad config",
        "qad config --init",
        "qad config --check --config run2.toml",
        "qad config --set train.epochs=80",
    ]
    command(app, "config", examples=examples, shared=VIEW)(config)
