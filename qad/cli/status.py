"""``qad status``."""

from __future__ import annotations

import typer

from qad.cli.options import VIEW, command
from qad.cli.runtime import Run


def status(run: Run) -> None:
    """Show what each stage has left in the work directory."""
    config = run.load()
    from dataclasses import asdict

    from qad.fetching.memory import wanted_status
    from qad.status import workspace_status

    stages, wanted = workspace_status(config.workspace), wanted_status(config.workspace)
    if run.common.json:
        document = {"root": str(config.root), "stages": [stage.as_json() for stage in stages]}
        run.print_json({**document, "wanted": [asdict(release) for release in wanted]})
        return
    print(f"{config.root}")
    print(f"{'stage':<12}{'files':>8}{'rows':>12}{'MB':>12}")
    for stage in stages:
        rows = "" if stage.n_rows is None else f"{stage.n_rows:,}"
        names = f"  {', '.join(stage.names)}" if stage.names else ""
        print(f"{stage.stage:<12}{stage.n_files:>8,}{rows:>12}{stage.n_bytes / 1e6:>12,.1f}{names}")
        for path in stage.unreadable:
            print(f"  unreadable: {path}")
    for release in wanted:
        here = f"{release.n_here:,} of the {release.n_pixels:,} pixels last asked for are here"
        print(f"{release.release}: {here} (--mode {release.mode}, {release.source})")
        if release.missing:
            more = release.n_pixels - release.n_here - len(release.missing)
            print(
                f"  missing: {', '.join(release.missing)}{f' and {more:,} more' if more else ''}; run `qad fetch` again"
            )


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "status", examples=["qad status", "qad status --root first-look --json"], shared=VIEW)(status)
