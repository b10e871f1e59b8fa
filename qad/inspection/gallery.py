"""A gallery of candidates as a folder that needs nothing else: no server, no network, no library.

``index.html`` holds the table; spectra lie in ``data/spectra-*.js`` and sketches in ``data/sketches-*.js``, which the page
loads as they are looked at: a page from ``file://`` may load scripts, but not read files.  Such a file is one call with one
JSON text.  The page's own script and style are allowed by their hashes (Content-Security-Policy), and files beside it
(``'self'``, and ``file:`` since a page from disk is nobody's self); nothing else is, and no script within the page.  Text
from the data is written as text only.
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
from qad.inspection.labels import USUAL_LABELS
from qad.inspection.layout import header
from qad.inspection.panels import binned, flux_range
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
CHUNK = 8
"""Spectra of a file: what a look at one of them costs the browser, some tens of kilobytes each."""
SKETCHES = 256
"""Sketches of a file; one is 0.4 kB."""
SKETCH_WIDTH = 110
"""Points of a sketch."""
DATA = "data"
_DATA_FILE = re.compile(r"(spectra|sketches)-[0-9]{5}\.js")
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
        How many candidates, how many with a spectrum and with a reconstruction, and the bytes of the folder.

    Raises
    ------
    ConfigError
        If the folder holds something that is no gallery.
    StorageError
        If the disk is full or not writable.
    """
    check_folder(folder)
    document = _document(tables, frame, shown, smooth_px)
    with atomic_folder(folder) as partial:
        (partial / DATA).mkdir()
        counts = _write_spectra(tables, frame, partial / DATA, progress)
        (partial / PAGE).write_text(_page(_block("data", document)), encoding="utf-8")
        (partial / "candidates.csv").write_bytes(encode(frame, "csv", {}))
        counts["bytes"] = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    return counts


def check_folder(folder: Path) -> None:
    """Raise ConfigError if writing a gallery there would remove anything but a gallery."""
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not _is_gallery(folder / PAGE)):
        raise ConfigError(f"--html {folder}: exists and is no gallery of qad; name a new or empty folder")
    extra = sorted(path.name for path in folder.iterdir() if path.name not in (PAGE, DATA, "candidates.csv"))
    if (folder / DATA).is_dir():
        extra += sorted(path.name for path in (folder / DATA).iterdir() if not _DATA_FILE.fullmatch(path.name))
    if extra:
        raise ConfigError(f"--html {folder}: holds {extra[0]}, which is no part of a gallery; name another folder")


def _is_gallery(page: Path) -> bool:
    if not page.is_file():
        return False
    with page.open("rb") as handle:
        return MARKER.encode() in handle.read(4096)


def _write_spectra(tables: Tables, frame: pl.DataFrame, folder: Path, progress: Progress) -> dict[str, int]:
    """Write the files of the spectra and sketches; memory holds a batch."""
    reader = SpectrumReader(tables)
    counts = {"candidates": frame.height, "with_spectrum": 0, "with_reconstruction": 0}
    place = {key: i for i, key in enumerate(frame.select("targetid", "survey", "program", "healpix").iter_rows())}
    progress.start("gallery", frame.height, "candidates")
    first = 0
    for rows in frame.iter_slices(BATCH):
        spectra: list[Any] = [None] * rows.height
        sketches: list[Any] = [None] * rows.height
        for spectrum in reader.read(rows):
            counts["with_spectrum"] += 1
            counts["with_reconstruction"] += spectrum.recon is not None
            at = place[spectrum.key] - first
            spectra[at], sketches[at] = encode_spectrum(spectrum), sketch(spectrum)
        _write_chunks(folder, "spectra", first, spectra, CHUNK)
        _write_chunks(folder, "sketches", first, sketches, SKETCHES)
        first += rows.height
        progress.advance(rows.height)
    return counts


def _write_chunks(folder: Path, kind: str, first: int, items: Sequence[Any], size: int) -> None:
    """Write `items`, of which the first is number `first` of all, in files of `size`; a batch is a multiple of that."""
    for begin in range(0, len(items), size):
        number = (first + begin) // size
        text = json.dumps(items[begin : begin + size], ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        # one text, read by JSON.parse: no part of the data is ever code
        call = f"qadLoaded({json.dumps(kind)},{number},{json.dumps(text)});\n"
        (folder / f"{kind}-{number:05d}.js").write_text(call, encoding="ascii")


def sketch(spectrum: Spectrum) -> dict[str, str]:
    """Return the flux, and the reconstruction, as `SKETCH_WIDTH` bytes each in base64: 1 to 255 upwards, 0 for no data."""
    edges = np.linspace(spectrum.wave[0], spectrum.wave[-1] * (1 + 1e-9), SKETCH_WIDTH + 1)
    bins = np.searchsorted(edges, spectrum.wave, "right") - 1
    flux = binned(spectrum.flux, spectrum.ivar, bins, SKETCH_WIDTH)
    error = 1 / np.sqrt(binned(spectrum.ivar, spectrum.ivar, bins, SKETCH_WIDTH))
    recon = None if spectrum.recon is None else binned(spectrum.recon, np.ones_like(spectrum.wave), bins, SKETCH_WIDTH)
    low, high = flux_range(flux, error, recon)
    return {
        name: base64.b64encode(_levels(values, low, high)).decode()
        for name, values in (("flux", flux), ("recon", recon))
        if values is not None
    }


def _levels(values: np.ndarray, low: float, high: float) -> bytes:
    scaled = 1 + 254 * np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1)
    return np.where(np.isfinite(values), np.round(scaled), 0).astype(np.uint8).tobytes()


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
        "model": tables.name,
        "labels": list(USUAL_LABELS),
        "chunk": CHUNK,
        "sketches": SKETCHES,
        "smooth_px": smooth_px,
        "columns": [_column(frame, name, shown) for name in frame.columns],
        "rows": [list(row.values()) for row in rows],
        "flags": list(SCORE_FLAGS.items()),
        "lines": [
            {"name": greek(line.name), "wave": line.wave, "low": line.low, "high": line.high}
            for line in sorted(EMISSION_LINES, key=_by_strength)
        ],
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


def _page(data: str) -> str:
    assets = resources.files("qad.inspection").joinpath("assets")
    page, style, script = (
        assets.joinpath(name).read_text(encoding="utf-8") for name in ("gallery.html", "gallery.css", "gallery.js")
    )
    parts = {
        "@SCRIPT_HASH@": _hash(script),
        "@STYLE_HASH@": _hash(style),
        "@STYLE@": style,
        "@DATA@": data,
        "@SCRIPT@": script,
    }
    # the page is cut before anything is put in: a place name in the data stays text
    return "".join(parts.get(piece, piece) for piece in re.split(r"(@[A-Z_]+@)", page))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
