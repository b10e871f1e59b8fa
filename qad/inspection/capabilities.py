"""What the terminal can show: pictures by which protocol, the size of a cell, a dark or a light background.

A terminal is asked, not guessed: its name and version (XTVERSION), its cell size (XTWINOPS 16), its background (OSC 11) and
last its device attributes (DA1), which every terminal answers, so that the wait ends with that answer.  Only a terminal
that names itself as one of those that know kitty's protocol is sent that protocol's own question: others would print it.
References: xterm control sequences (ctlseqs), kitty's graphics protocol, iTerm2's inline images, DEC STD 070 (sixel).
"""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Protocol = Literal["text", "kitty", "iterm2", "sixel"]
Background = Literal["dark", "light"]
TIMEOUT_S = 0.3
"""Longest wait for an answer: a terminal on this machine needs milliseconds, one across an ocean a fifth of a second."""
CELL = (9, 18)
"""Pixels of a character cell, wide and high, where the terminal does not tell."""
_ASK = "\x1b[>0q\x1b[16t\x1b]11;?\x1b\\\x1b[c"
_ASK_KITTY = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[c"
_DA1 = re.compile(r"\x1b\[\?([0-9;]*)c")
_VERSION = re.compile(r"\x1bP>\|(.*?)\x1b\\", re.DOTALL)
_CELL = re.compile(r"\x1b\[6;([0-9]+);([0-9]+)t")
_COLOUR = re.compile(r"\x1b\]11;rgba?:([0-9a-fA-F]+)/([0-9a-fA-F]+)/([0-9a-fA-F]+)")
_SIXEL = "4"
"""The attribute of DA1 that stands for sixel graphics."""
_KITTY_NAMES = ("kitty", "ghostty", "konsole")
_ITERM_NAMES = ("iterm2", "wezterm")

Ask = Callable[[str], str]
"""Writes a question to the terminal and returns what it answered."""


@dataclass(frozen=True)
class Capabilities:
    """What a terminal can show.

    Attributes
    ----------
    protocol : {"text", "kitty", "iterm2", "sixel"}
    cell : tuple of int
        Pixels of a character cell, wide and high.
    background : {"dark", "light"}
    through_tmux : bool
        Pictures must be wrapped for tmux to hand them on.
    """

    protocol: Protocol = "text"
    cell: tuple[int, int] = CELL
    background: Background = "dark"
    through_tmux: bool = False


def terminal_capabilities(
    graphics: Protocol | Literal["auto"] = "auto", background: Background | Literal["auto"] = "auto"
) -> Capabilities:
    """Return what stdout's terminal can show; what is given is taken, the rest is asked for.

    Nothing is asked where stdin or stdout is no terminal, where TERM is dumb, or where the process is in the background:
    there, and where no answer comes, the plots are text.
    """
    ask = terminal_asker() if graphics == "auto" or graphics != "text" or background == "auto" else None
    found = detect(os.environ, ask)
    if graphics != "auto":
        inside = bool(os.environ.get("TMUX")) and graphics in ("kitty", "iterm2")
        found = replace(found, protocol=graphics, through_tmux=inside)
    return found if background == "auto" else replace(found, background=background)


def detect(environment: Mapping[str, str], ask: Ask | None) -> Capabilities:
    """Return what a terminal can show from its answers; `ask` is None where it cannot be asked."""
    if ask is None:
        return Capabilities(background=_told_background(environment))
    answer = ask(_ASK)
    colour = _answered_background(answer)
    background = colour or _told_background(environment)
    cell = CELL
    if found := _CELL.search(answer):
        high, wide = int(found[1]), int(found[2])
        cell = (wide, high) if 2 <= wide <= 200 and 2 <= high <= 400 else CELL
    return Capabilities(_protocol(environment, answer, ask), cell, background)


def _protocol(environment: Mapping[str, str], answer: str, ask: Ask) -> Protocol:
    attributes = _DA1.search(answer)
    if attributes is None:
        return "text"
    has_sixel = _SIXEL in attributes[1].split(";")[1:]
    if _is_multiplexed(environment):
        # the variables tell of the terminal outside; kitty's pictures would stay where the pane was: only what the
        # multiplexer says of itself counts
        return "sixel" if has_sixel else "text"
    name = _name(environment, answer)
    if name.startswith(_ITERM_NAMES):
        return "iterm2"
    if name.startswith(_KITTY_NAMES) and "\x1b_Gi=31;OK" in ask(_ASK_KITTY):
        return "kitty"
    return "sixel" if has_sixel else "text"


def _is_multiplexed(environment: Mapping[str, str]) -> bool:
    term = environment.get("TERM", "")
    return bool(environment.get("TMUX") or environment.get("STY")) or term.startswith(("tmux", "screen"))


def _name(environment: Mapping[str, str], answer: str) -> str:
    """Return the terminal's name, by its own word, else by what it put into the environment."""
    if found := _VERSION.search(answer):
        return found[1].strip().lower()
    program = environment.get("LC_TERMINAL") or environment.get("TERM_PROGRAM", "")
    if program:
        return program.lower().removesuffix(".app") if program != "iTerm.app" else "iterm2"
    return environment.get("TERM", "").removeprefix("xterm-").lower()


def _answered_background(answer: str) -> Background | None:
    found = _COLOUR.search(answer)
    if found is None:
        return None
    red, green, blue = (int(part, 16) / (16 ** len(part) - 1) for part in found.groups())
    # relative luminance of the sRGB primaries (ITU-R BT.709), without gamma: the middle is all that matters
    return "light" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "dark"


def _told_background(environment: Mapping[str, str]) -> Background:
    """Return what COLORFGBG (rxvt, Konsole) says of the background: colours 7 and 15 are light."""
    colour = environment.get("COLORFGBG", "").rpartition(";")[2]
    return "light" if colour in ("7", "15") else "dark"


def terminal_asker() -> Ask | None:
    """Return what asks the terminal of stdin and stdout, None if there is none that may be asked."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") in ("dumb", "linux"):
        return None
    try:
        descriptor = sys.stdin.fileno()
        if os.tcgetpgrp(descriptor) != os.getpgrp():
            return None
    except (OSError, ValueError):
        return None
    sys.stdout.flush()
    return lambda question: _ask(descriptor, sys.stdout.fileno(), question)


def _ask(source: int, sink: int, question: str) -> str:
    """Write a question and return the answer, read without echo until DA1's end or the time is up."""
    import termios
    import tty

    try:
        before = termios.tcgetattr(source)
    except termios.error:
        return ""
    try:
        # drains nothing: what was typed ahead stays in the queue only if it is no answer, which is the lesser evil
        tty.setcbreak(source, termios.TCSADRAIN)
        os.write(sink, question.encode())
        return _read_answer(source)
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)


def _read_answer(source: int) -> str:
    answer, until = b"", time.monotonic() + TIMEOUT_S
    while (left := until - time.monotonic()) > 0:
        if not select.select([source], [], [], left)[0]:
            break
        piece = os.read(source, 1024)
        answer += piece
        if not piece or _DA1.search(answer.decode("latin-1")):
            break
    return answer.decode("latin-1")
