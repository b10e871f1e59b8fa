"""Text on its way to a person: plain characters where a terminal or a format has no others, nothing that steers it."""

from __future__ import annotations

import math
import os
import unicodedata
from typing import Any, TextIO

from qad.terminal.console import printable

_PLAIN = str.maketrans(
    {
        "α": "alpha",
        "β": "beta",
        "γ": "gamma",
        "δ": "delta",
        "λ": "lambda",
        "σ": "sigma",
        "χ": "chi",
        "Δ": "Delta",
        "µ": "u",
        "μ": "u",
        "×": "x",
        "−": "-",
        "–": "-",
        "—": "-",
        "…": "...",
        "±": "+-",
        "≥": ">=",
        "≤": "<=",
        "″": '"',
        "→": "->",
        "·": ".",
        "▼": "v",
        "│": "|",
        "─": "-",
        "┼": "+",
    }
)


def ascii_text(text: str) -> str:
    """Return a text in ASCII: Greek letters spelled, accents dropped, ``?`` for the rest."""
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    return "".join(c for c in plain if not unicodedata.combining(c)).encode("ascii", "replace").decode("ascii")


def greek(name: str) -> str:
    """Return a line's name as papers write it: Lyα, Hβ."""
    for word, letter in (("alpha", "α"), ("beta", "β"), ("gamma", "γ"), ("delta", "δ")):
        name = name.replace(f"H{word}", f"H{letter}")
    return name.replace("Lya", "Lyα")


def takes_unicode(stream: TextIO) -> bool:
    """Whether a person at `stream` can be shown more than ASCII.

    Python itself answers a locale of C with UTF-8 (PEP 538 sets LC_CTYPE, PEP 540 the streams), so its encoding does not
    tell what the terminal shows: what the user set does.  No locale at all, as in most containers, counts as UTF-8.
    """
    if os.environ.get("TERM") == "dumb" or not (stream.encoding or "").lower().replace("-", "").startswith("utf8"):
        return False
    ctype = os.environ.get("LC_CTYPE", "")
    ctype = "" if ctype == "C.UTF-8" else ctype
    locale = os.environ.get("LC_ALL") or ctype or os.environ.get("LANG", "")
    return locale not in ("C", "POSIX")


def one_line(text: str, unicode: bool = True) -> str:
    """Return a text on one line, control characters made visible, in ASCII unless `unicode`."""
    shown = printable(" ".join(text.split()))
    return shown if unicode else ascii_text(shown)


def shortened(text: str, width: int, unicode: bool = True) -> str:
    """Return a text cut to a width, with dots where something was cut."""
    if len(text) <= width:
        return text
    return text[: width - 1] + "…" if unicode else text[: width - 3] + "..."


def number(value: float, digits: int = 3) -> str:
    """Return a number with some significant digits, ``-`` for NaN."""
    if math.isnan(value):
        return "-"
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(decimals, digits)}f}"


_DECIMALS = {
    "z": 4,
    "ra": 5,
    "dec": 5,
    "snr": 1,
    "snr_b": 1,
    "snr_r": 1,
    "snr_z": 1,
    "score": 2,
    "artefact": 2,
    "sep_arcsec": 2,
    "match_sep_arcsec": 2,
    "chi2_dof": 2,
    "worst_wave_rest": 0,
    "ebv": 3,
}
"""Decimals that suit a column; other numbers get three significant digits."""


def cell(name: str, value: Any) -> str:
    """Return a table cell as text: numbers as suits the column, whole numbers whole, ``-`` for none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        if name.startswith("mag_") and math.isfinite(value):
            return f"{value:.2f}"
        decimals = _DECIMALS.get(name)
        return number(value) if decimals is None or not math.isfinite(value) else f"{value:.{decimals}f}"
    return str(value)
