"""A gallery of candidates as one HTML page that needs nothing else: no server, no network, no library.

The page's own script and style are allowed by their hashes (Content-Security-Policy) and nothing else is: data lies in
inert JSON blocks that a browser never runs, and the script writes it as text only.  It works from ``file://``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.errors import ConfigError
from qad.inspection.bits import SCORE_FLAGS
from qad.inspection.columns import LABEL_COLUMNS, MAGNITUDES, describe_column
from qad.inspection.formats import encode, rows_as_json
from qad.inspection.layout import header
from qad.inspection.spectrum import Spectrum, SpectrumReader
from qad.inspection.tables import Tables
from qad.inspection.text import greek
from qad.lines import EMISSION_LINES, Line
from qad.results import Progress
from qad.storage.atomic import atomic_folder

if TYPE_CHECKING:
    import polars as pl

MARKER = "qad-gallery/1"
PAGE = "index.html"
LIMIT = 60_000.0
"""Largest stored value relative to the spectrum's scale: float16 ends at 65504."""
BATCH = 512
"""Spectra read and encoded at once: each pass over the grid's shards costs as much as some spectra, each spectrum 0.1 MB."""
_FROM_SPECTRA = (
    "zerr",
    "zwarn",
    "deltachi2",
    "subtype",
    "ebv",
    "morphtype",
    "pmra",
    "pmdec",
    "parallax",
    "coadd_numexp",
    "fiber",
    "petal_loc",
    "tileid",
    "night",
)


def gallery_columns(tables: Tables, shown: Sequence[str]) -> list[str]:
    """Return the columns of a gallery: those of the table first, then all that help to judge a candidate."""
    more = [*tables.scores_columns, *MAGNITUDES, *LABEL_COLUMNS, "n_matches", "matches", *tables.catalog_columns]
    needed = ("rank", "targetid", *shown)
    return list(dict.fromkeys([*needed, *more, *(name for name in _FROM_SPECTRA if name in tables.known)]))


def write_gallery(
    tables: Tables, frame: pl.DataFrame, folder: Path, shown: Sequence[str], smooth_px: int, progress: Progress
) -> dict[str, int]:
    """Write a gallery of the rows of `frame`; a half gallery never appears under its name.

    Parameters
    ----------
    tables : Tables
    frame : polars.DataFrame
        Rows with the columns of :func:`gallery_columns`.
    folder : Path
        Replaced if it is a gallery already.
    shown : sequence of str
        Columns of the page's table; the others stand beside the plot.
    smooth_px : int
    progress : Progress

    Returns
    -------
    dict
        How many candidates, and how many with a spectrum and with a reconstruction.

    Raises
    ------
    ConfigError
        If the folder holds something that is no gallery.
    StorageError
        If the disk is full or not writable.
    """
    check_folder(folder)
    blocks, counts = _spectra_blocks(tables, frame, progress)
    document = _document(tables, frame, shown, smooth_px)
    page = _page([_block("data", document), *blocks])
    with atomic_folder(folder) as partial:
        (partial / PAGE).write_text(page, encoding="utf-8")
        (partial / "candidates.csv").write_bytes(encode(frame, "csv", {}))
    return counts


def check_folder(folder: Path) -> None:
    """Raise ConfigError if writing a gallery there would remove anything but a gallery."""
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not _is_gallery(folder / PAGE)):
        raise ConfigError(f"--html {folder}: exists and is no gallery of qad; name a new or empty folder")
    extra = sorted(path.name for path in folder.iterdir() if path.name not in (PAGE, "candidates.csv"))
    if extra:
        raise ConfigError(f"--html {folder}: holds {extra[0]}, which is no part of a gallery; name another folder")


def _is_gallery(page: Path) -> bool:
    if not page.is_file():
        return False
    with page.open("rb") as handle:
        return MARKER.encode() in handle.read(4096)


def _spectra_blocks(tables: Tables, frame: pl.DataFrame, progress: Progress) -> tuple[list[str], dict[str, int]]:
    reader = SpectrumReader(tables)
    counts = {"candidates": frame.height, "with_spectrum": 0, "with_reconstruction": 0}
    place = {key: i for i, key in enumerate(frame.select("targetid", "survey", "program", "healpix").iter_rows())}
    blocks: list[str] = []
    progress.start("gallery", frame.height, "candidates")
    for rows in frame.iter_slices(BATCH):
        for spectrum in reader.read(rows):
            counts["with_spectrum"] += 1
            counts["with_reconstruction"] += spectrum.recon is not None
            blocks.append(_block(f"s{place[spectrum.key]}", encode_spectrum(spectrum)))
        progress.advance(rows.height)
    return blocks, counts


def encode_spectrum(spectrum: Spectrum) -> dict[str, Any]:
    """Return a spectrum as JSON types: arrays as base64 of little-endian float16, in units of ``scale``."""
    good = spectrum.ivar > 0
    level = float(np.median(np.abs(spectrum.flux[good]))) if good.any() else 1.0
    scale = level if np.isfinite(level) and level > 0 else 1.0
    sigma = np.divide(1.0, np.sqrt(spectrum.ivar), out=np.zeros_like(spectrum.ivar), where=good)
    logs = np.log10(spectrum.wave)
    is_log = bool(np.ptp(np.diff(logs)) < np.ptp(np.diff(spectrum.wave)) / spectrum.wave[0])
    axis = logs if is_log else spectrum.wave
    document: dict[str, Any] = {
        "z": spectrum.z,
        "log": is_log,
        "first": float(axis[0]),
        "step": float((axis[-1] - axis[0]) / (len(axis) - 1)),
        "scale": scale,
        "note": spectrum.note,
        "dereddened": spectrum.dereddened,
        "flux": _base64(np.where(good, spectrum.flux, 0), scale),
        # a good pixel's error must not become 0, which stands for no data
        "sigma": _base64(np.where(good, np.maximum(sigma, 1e-7 * scale), 0), scale),
    }
    if spectrum.recon is not None and spectrum.model_var is not None:
        document["recon"] = _base64(spectrum.recon, scale)
        document["scatter"] = _base64(np.sqrt(np.maximum(spectrum.model_var, 0)), scale)
    return document


def _base64(values: np.ndarray, scale: float) -> str:
    scaled = np.clip(np.nan_to_num(values / scale), -LIMIT, LIMIT)
    return base64.b64encode(scaled.astype("<f2").tobytes()).decode()


def _document(tables: Tables, frame: pl.DataFrame, shown: Sequence[str], smooth_px: int) -> dict[str, Any]:
    rows = rows_as_json(frame)
    return {
        "about": f"model {tables.name}, {frame.height:,} of {tables.n_rows:,} scored spectra",
        "smooth_px": smooth_px,
        "columns": [_column(frame, name, shown) for name in frame.columns],
        "rows": [list(row.values()) for row in rows],
        "flags": list(SCORE_FLAGS.items()),
        "lines": [{"name": greek(line.name), "wave": line.wave} for line in sorted(EMISSION_LINES, key=_by_strength)],
    }


def _by_strength(line: Line) -> float:
    return -float(line.ew)


def _column(frame: pl.DataFrame, name: str, shown: Sequence[str]) -> dict[str, Any]:
    unit, description = describe_column(name)
    is_constant = name in ("survey", "program") and frame[name].n_unique() == 1
    return {
        "name": name,
        "label": header(name),
        "unit": unit,
        "description": description,
        "numeric": name != "targetid" and frame.schema[name].is_numeric(),
        "shown": name in shown and not is_constant,
    }


def _block(identifier: str, document: Mapping[str, Any]) -> str:
    """Return an inert block of JSON; no text in it can end the block or begin another element."""
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{identifier}">{safe}</script>'


def _page(blocks: Sequence[str]) -> str:
    assets = resources.files("qad.inspection").joinpath("assets")
    page, style, script = (
        assets.joinpath(name).read_text(encoding="utf-8") for name in ("gallery.html", "gallery.css", "gallery.js")
    )
    parts = {
        "@SCRIPT_HASH@": _hash(script),
        "@STYLE_HASH@": _hash(style),
        "@STYLE@": style,
        "@DATA@": "\n".join(blocks),
        "@SCRIPT@": script,
    }
    # the page is cut before anything is put in: a place name in the data stays text
    return "".join(parts.get(piece, piece) for piece in re.split(r"(@[A-Z_]+@)", page))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
