"""The details of a target for a person: sections of names and values, on a terminal or as plain lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qad.inspection.canvas import Piece
from qad.inspection.text import cell, number, one_line

LABEL_WIDTH = 12
_WITH_BITS = {"zwarn": "zwarn_bits", "coadd_fiberstatus": "fiberstatus_bits"}
_SCORE_ORDER = (
    "rank",
    "score",
    "p_value",
    "score_sd",
    "artefact",
    "class_guess",
    "group",
    "chi2_dof",
    "worst_wave_rest",
)


def report_lines(document: Mapping[str, Any], width: int | None) -> list[list[Piece]]:
    """Return the report of one target as lines of pieces (text, style)."""
    lines: list[list[Piece]] = [[(f"TARGETID {document['targetid']}", "title")]]
    for label in document["labels"]:
        said = f"{label['label'] or 'taken back'}{': ' + label['comment'] if label['comment'] else ''} ({label['who']}, {label['when'][:16]})"
        lines += _section("label", [said], width)
    for entry in document["spectra"]:
        lines += [[("", "")], *_entry_lines(entry, width)]
    return lines


def _entry_lines(entry: Mapping[str, Any], width: int | None) -> list[list[Piece]]:
    place = entry["position"]
    head = f"{entry['survey']}/{entry['program']}/{entry['healpix']}"
    where = f"  ra {place['ra']:.5f}°  dec {place['dec']:+.5f}°" if None not in place.values() else ""
    lines: list[list[Piece]] = [[(head, "title"), (where, "")]]
    scores = entry["scores"]
    if scores:
        lines += _section(
            "score", [_pair(name, scores[name]) for name in _SCORE_ORDER if scores.get(name) is not None], width
        )
        lines += _section("reason", str(scores.get("reason") or "-").split(" "), width, gap=" ")
        lines += _section("views", [_view(view) for view in entry["views"]], width)
        lines += _section("flags", _flags(entry["flags"]), width)
    else:
        lines += _section("score", ["none: the spectrum was not scored"], width)
    for title in ("redrock", "observation", "imaging"):
        values = entry[title]
        pairs = [_pair(name, value, values) for name, value in values.items() if not name.endswith("_bits")]
        lines += _section(title, [pair for pair in pairs if pair], width)
    lines += _section("AB mag", [_magnitude(band) for band in entry["photometry"]] or ["none"], width)
    lines += _section("matches", [_match(match) for match in entry["matches"]] or ["none"], width, gap="; ")
    return lines + _section(
        "lines, obs Å", [f"{line['name']} {line['wave_obs']:.0f}" for line in entry["lines"]], width
    )


def _section(title: str, parts: list[str], width: int | None, gap: str = "  ") -> list[list[Piece]]:
    """Return parts on as many lines as they need, below each other, with the title before the first."""
    room = None if width is None else max(20, width - LABEL_WIDTH - 2)
    rows, row = [], ""
    for part in (one_line(part) for part in parts):
        longer = f"{row}{gap}{part}" if row else part
        if row and room is not None and len(longer) > room:
            rows.append(row)
            row = part
        else:
            row = longer
    rows.append(row)
    titles = [title] + [""] * (len(rows) - 1)
    return [
        [(f"{name.rjust(LABEL_WIDTH)}  ", "name"), (text, "")] for name, text in zip(titles, rows, strict=True) if text
    ]


def _pair(name: str, value: Any, values: Mapping[str, Any] | None = None) -> str:
    if value is None or value == "":
        return ""
    bits = (values or {}).get(_WITH_BITS.get(name, ""), [])
    unit = {"coadd_exptime": " s", "ebv": " mag", "worst_wave_rest": " Å"}.get(name, "")
    return f"{name.removeprefix('coadd_')} {cell(name, value)}{unit}{' ' + '+'.join(bits) if bits else ''}"


def _view(view: Mapping[str, Any]) -> str:
    value = "-" if view["value"] is None else number(view["value"])
    p_value = "" if view["p_value"] is None else f" (p {number(view['p_value'])})"
    return f"{view['name']} {value}{p_value}"


def _flags(flags: Mapping[str, Any]) -> list[str]:
    return [", ".join(flags["names"]) or "none"]


def _magnitude(band: Mapping[str, Any]) -> str:
    error = "" if band["error"] is None else f" ± {band['error']:.3f}"
    return f"{band['band']} {band['mag']:.2f}{error}"


def _match(match: Mapping[str, Any]) -> str:
    if match["catalog_id"] is None:
        return f"{match['catalog']}: none"
    more = [f"{name.removeprefix('cat_')} {value}" for name, value in match.items() if name.startswith("cat_")]
    return " ".join([f"{match['catalog']}: {match['catalog_id']} at {match['sep_arcsec']:.2f}″", *more])
