"""The options that every command shares, and the decorator that gives them to a command.

A command is a function whose first parameter is a :class:`~qad.cli.runtime.Run`::

    def extract(run: Run, source: Annotated[str | None, typer.Option(help="Local release tree.")] = None) -> None:
        config = run.load({"extract.source": source})
        from qad.extraction.stage import extract

        run.stage("extract", extract, config)

    def register(app: typer.Typer) -> None:
        command(app, "extract", examples=["qad extract --source /data/dr1"])(extract)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer


@dataclass(frozen=True)
class Common:
    """What the shared options said."""

    config: Path | None = None
    settings: tuple[str, ...] | None = None
    root: Path | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    force: bool = False
    dry_run: bool = False
    verify: bool = False
    jobs: int = 0
    scheduler: str | None = None
    shard: str | None = None


_Config = Annotated[
    Path | None, typer.Option("--config", envvar="QAD_CONFIG", metavar="PATH", help="Read this configuration file.")
]
_Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a configuration key; repeatable."),
]
_Root = Annotated[Path | None, typer.Option("--root", envvar="QAD_ROOT", metavar="DIR", help="Work directory.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
_Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print every unit of work.")]
_Force = Annotated[bool, typer.Option("--force", help="Redo finished work.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")]
_Verify = Annotated[bool, typer.Option("--verify", help="Compare files by hash, not by size and time.")]
_Jobs = Annotated[int, typer.Option("--jobs", "-j", min=0, metavar="N", help="Worker processes; 0: one per core.")]

VIEW: dict[str, Any] = {
    "config": _Config,
    "settings": _Settings,
    "root": _Root,
    "json": _Json,
    "quiet": _Quiet,
    "verbose": _Verbose,
}
"""Shared options of a command that only looks."""
STAGE: dict[str, Any] = {**VIEW, "force": _Force, "dry_run": _DryRun, "verify": _Verify, "jobs": _Jobs}
"""Shared options of a command that writes."""
SCHEDULER = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Run the units on this Dask cluster: tcp://host:8786, or a scheduler file."),
]


BY_NAME = "A pixel's shard is a hash of its name; no shard waits for another."


def shard_option(help_text: str) -> Any:
    """Return the option ``--shard``, whose help says what falls to a shard and who joins them."""
    text = f"Do one of N parts of the work, I from 0 to N-1; auto: as the Kubernetes or Slurm array says. {help_text}"
    return Annotated[str | None, typer.Option("--shard", metavar="I/N|auto", help=text)]


def spread(shard_help: str) -> dict[str, Any]:
    """Return the shared options of a command that can run on more than one machine."""
    return {**STAGE, "scheduler": SCHEDULER, "shard": shard_option(shard_help)}


Where = Annotated[
    str | None,
    typer.Option(metavar="EXPR", help="Only rows for which this SQL expression holds: 'z > 2 and snr > 3'."),
]
Sort = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Order the rows by a column; -COLUMN orders downwards.")
]
Form = Annotated[
    Literal["table", "csv", "json", "parquet", "fits"] | None,
    typer.Option("--format", help="Format of the rows (default: table, or as the name after -o says)."),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the rows to this file.")]


def command(
    app: typer.Typer, name: str, examples: Sequence[str], shared: dict[str, Any] = STAGE, within: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as the command `name`, with the `shared` options and `examples` at the end of its help.

    The function's docstring is the help; its first parameter receives the :class:`~qad.cli.runtime.Run`.  `within` is the
    command that `app` is, where that is not ``qad`` itself.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]
        defaults = Common()

        def call(*args: Any, **given: Any) -> None:
            from qad.cli.runtime import running

            common = {key: given.pop(key) for key in shared}
            common["settings"] = tuple(common.get("settings") or ())
            with running(f"{within} {name}".strip(), Common(**common)) as run:
                function(run, *args, **given)

        extra = [
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, default=getattr(defaults, key), annotation=annotation
            )
            for key, annotation in shared.items()
        ]
        keyword = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
            for parameter in own
        ]
        call.__signature__ = inspect.Signature([*keyword, *extra])  # type: ignore[attr-defined]
        call.__annotations__ = {**{p.name: hints[p.name] for p in own}, **shared, "return": None}
        call.__doc__ = function.__doc__
        call.__name__ = function.__name__
        shown = "\n".join(f"  {example}" for example in examples)
        app.command(name, help=inspect.getdoc(function), epilog=f"\b\nExamples:\n{shown}", no_args_is_help=False)(call)
        return function

    return register


def words(values: list[str] | None) -> list[str] | None:
    """Return the words of a repeatable option that also takes commas."""
    return [word.strip() for value in values for word in value.split(",") if word.strip()] if values else None


def pixels(values: list[str]) -> list[int]:
    """Return the pixel numbers of ``--healpix LIST|@FILE``."""
    from qad.errors import ConfigError

    numbers = []
    for value in values:
        text, origin = value, "--healpix"
        if value.startswith("@"):
            origin = value[1:]
            try:
                text = Path(origin).expanduser().read_text("utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"--healpix {value}: cannot be read: {error}") from None
        lines = (line.partition("#")[0] for line in text.splitlines())
        for word in " ".join(lines).replace(",", " ").split():
            if not (word.isascii() and word.isdigit()):
                raise ConfigError(f"{origin}: {word!r} is no healpix number")
            numbers.append(int(word))
    if not numbers:
        raise ConfigError("--healpix names no pixel")
    return numbers
