"""Starting a review: what it needs is checked before the screen is taken."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from qad.config import Config
from qad.errors import ConfigError, InputError, Interrupted
from qad.inspection.scene import PlotOptions, parse_zoom
from qad.inspection.stage import InspectResult, open_tables, select
from qad.inspection.tables import Tables
from qad.terminal.console import is_plain

if TYPE_CHECKING:
    from qad.inspection.reviewing.session import Session

MIN_SIZE = (60, 20)


def review(config: Config) -> InspectResult:
    """Run the review on this terminal, and return how many candidates were labelled.

    Raises
    ------
    ConfigError
        If there is no terminal that can show it, or no row to review.
    Interrupted
        If a signal ended it; what was labelled is on disk.
    """
    import os

    if is_plain(sys.stdout) or not sys.stdin.isatty():
        raise ConfigError("--review needs a terminal: stdin or stdout is a pipe, or TERM is dumb")
    columns, lines = os.get_terminal_size(sys.stdout.fileno())
    if columns < MIN_SIZE[0] or lines < MIN_SIZE[1]:
        raise ConfigError(
            f"--review needs {MIN_SIZE[0]} x {MIN_SIZE[1]} characters; this terminal has {columns} x {lines}"
        )
    started = time.monotonic()
    tables = open_tables(config)
    session = open_session(config, tables)
    section = config.inspect
    options = PlotOptions(section.smooth_px, section.frame, parse_zoom(section.zoom), frozenset(section.layers))
    from qad.inspection.capabilities import terminal_capabilities
    from qad.inspection.reviewing.app import Review

    able = terminal_capabilities("text", section.background)
    before = len(session.feed.last)
    app = Review(tables, session, options, able.background)
    app.run()
    if app.stopped_by:
        raise Interrupted(app.stopped_by)
    labelled = len(session.feed.last) - before
    print(f"{session.n_labelled} of {len(session.order)} labelled; labels: {config.workspace.labels}")
    return InspectResult(
        stage="inspect",
        n_done=len(session.rows),
        paths=(tables.scores, config.workspace.labels),
        counts={"rows": len(session.rows), "scored": tables.n_rows, "labelled": labelled},
        seconds=time.monotonic() - started,
    )


def open_session(config: Config, tables: Tables) -> Session:
    """Return the session of the configured rows.

    Raises
    ------
    ConfigError
        If no row is wanted.
    InputError
        If the targets that were named have no scores.
    """
    from qad.inspection.reviewing.session import Session

    frame = select(config, tables, tables.scores_columns)
    if not frame.height:
        if config.inspect.targetid:
            raise InputError(tables.scores, "holds none of the targets; only scored ones can be reviewed")
        raise ConfigError("no candidate passes --where; nothing to review")
    return Session(frame, config.workspace.labels, config.inspect.name)
