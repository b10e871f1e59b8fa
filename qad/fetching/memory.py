"""What was last asked for, kept in the work directory: `qad status` tells how much of it is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qad.desi.layout import coadd_name, pixel_folder, redrock_name
from qad.fetching.partial import remove_partials
from qad.fetching.plan import PixelFiles
from qad.fetching.receipt import read_entries
from qad.storage.atomic import write_json
from qad.storage.receipts import read_receipt
from qad.work.units import Pixel
from qad.workspace import Workspace

SHOWN = 20


@dataclass(frozen=True)
class WantedStatus:
    """How much of what was asked for is here.

    Attributes
    ----------
    release, source, mode : str
    n_pixels, n_here : int
    missing : tuple of str
        The first pixels that are not here.
    """

    release: str
    source: str
    mode: str
    n_pixels: int
    n_here: int
    missing: tuple[str, ...]


def remember(workspace: Workspace, release: str, source: str, mode: str, pixels: Sequence[PixelFiles]) -> None:
    """Note what was asked for."""
    names = [str(files.pixel) for files in pixels]
    remove_partials(_path(workspace, release).parent)
    write_json(_path(workspace, release), {"source": source, "mode": mode, "pixels": names})


def wanted_status(workspace: Workspace) -> list[WantedStatus]:
    """Return how much is here of what was last asked for of each release."""
    folder = _path(workspace, "x").parent
    found = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        document = read_receipt(path)
        pixels = [pixel for name in _texts(document.get("pixels")) if (pixel := _pixel(name)) is not None]
        healpix = workspace.raw(path.stem) / "healpix"
        missing = [pixel for pixel in pixels if not _is_here(healpix, pixel)]
        shown = tuple(str(pixel) for pixel in missing[:SHOWN])
        source, mode = str(document.get("source", "")), str(document.get("mode", ""))
        found.append(WantedStatus(path.stem, source, mode, len(pixels), len(pixels) - len(missing), shown))
    return found


def _is_here(healpix: Path, pixel: Pixel) -> bool:
    entries = read_entries(pixel_folder(healpix, pixel))
    return redrock_name(pixel) in entries and coadd_name(pixel) in entries


def _path(workspace: Workspace, release: str) -> Path:
    return workspace.root / ".qad" / "fetch" / f"{release}.json"


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _pixel(name: str) -> Pixel | None:
    survey, program, number = (*name.split("/"), "", "", "")[:3]
    return Pixel(survey, program, int(number)) if number.isdigit() else None
