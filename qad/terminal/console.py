"""Consoles: results on stdout, everything else on stderr; plain when piped, dumb or asked for."""

from __future__ import annotations

import os
import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 200
"""Columns assumed when nobody is looking: wide enough that no identifier is cut."""


def out_console() -> Console:
    """Return the console for results."""
    return _console(sys.stdout)


def error_console() -> Console:
    """Return the console for progress and messages."""
    return _console(sys.stderr)


def is_plain(stream: IO[str]) -> bool:
    """Whether `stream` wants neither colour nor moving bars."""
    return not stream.isatty() or os.environ.get("TERM") == "dumb"


def _console(stream: IO[str]) -> Console:
    from rich.console import Console

    plain = is_plain(stream)
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=plain, no_color=True if plain else None)


def printable(text: str) -> str:
    """Return `text` with control characters made visible: data must not steer a person's terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
