"""Where a DESI release keeps its healpix products: folders, file names, object keys.

::

    healpix/<survey>/<program>/<pixel//100>/<pixel>/
        coadd-<survey>-<program>-<pixel>.fits
        redrock-<survey>-<program>-<pixel>.fits
        redux_<specprod>_healpix_<survey>_<program>_<pixel//100>_<pixel>.sha256sum

Pixels are HEALPix nside 64, nested, written without padding; the group is an integer division (pixel 47 lies in group
0, 9144 in 91).  Source: ``desispec.io.util.healpix_subdirectory`` and the data model's page of the folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from qad.errors import InputError
from qad.work.units import Pixel

NSIDE = 64
"""HEALPix nside of the healpix products; the order is nested."""
N_PIXELS = 12 * NSIDE**2
GROUP_SIZE = 100
"""Pixels that share a group folder."""
SPECPROD = "iron"
"""The spectroscopic production of DR1."""
RELEASES = {"fuji": "edr", "iron": "dr1", "loa": "dr2"}
"""Release of each production (desihub/desida documentation)."""
SURVEYS = ("main", "sv1", "sv2", "sv3", "special", "cmx")
PROGRAMS = ("dark", "bright", "backup", "other")

_PLACES = ("healpix", "*/healpix", "redux/*/healpix", "spectro/redux/*/healpix", "*/spectro/redux/*/healpix")
_WORD = re.compile(r"[a-z][a-z0-9]{0,15}\Z")
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,5})\Z")
_FILE = re.compile(r"(coadd|redrock)-([a-z][a-z0-9]{0,15})-([a-z][a-z0-9]{0,15})-(0|[1-9][0-9]{0,5})\.fits\Z")


def group_of(healpix: int) -> int:
    """Return the number of the folder that holds a pixel's folder."""
    return healpix // GROUP_SIZE


def pixel_key(prefix: str, pixel: Pixel) -> str:
    """Return a pixel's folder below `prefix` (that of ``healpix/`` itself) as an object key, without a slash at the end."""
    parts = (pixel.survey, pixel.program, str(group_of(pixel.healpix)), str(pixel.healpix))
    return "/".join((prefix.rstrip("/"), *parts)) if prefix else "/".join(parts)


def pixel_folder(root: Path, pixel: Pixel) -> Path:
    """Return a pixel's folder; `root` is the ``healpix`` folder."""
    return root / pixel_key("", pixel)


def coadd_name(pixel: Pixel) -> str:
    """Return the file name of a pixel's coadded spectra."""
    return f"coadd-{pixel.name}.fits"


def redrock_name(pixel: Pixel) -> str:
    """Return the file name of a pixel's redshifts."""
    return f"redrock-{pixel.name}.fits"


def checksum_name(pixel: Pixel, specprod: str = SPECPROD) -> str:
    """Return the file name of the SHA-256 list of a pixel's folder."""
    return f"redux_{specprod}_healpix_{pixel_key('', pixel).replace('/', '_')}.sha256sum"


def parse_file_name(name: str) -> tuple[str, Pixel] | None:
    """Return the kind (``coadd`` or ``redrock``) and the pixel that a file name tells, or None for any other name."""
    match = _FILE.match(name)
    if match is None or int(match[4]) >= N_PIXELS:
        return None
    return match[1], Pixel(match[2], match[3], int(match[4]))


def parse_pixel_key(key: str) -> Pixel | None:
    """Return the pixel whose folder (``…/<survey>/<program>/<group>/<pixel>``) `key` names, or None."""
    parts = PurePosixPath(key).parts[-4:]
    if len(parts) < 4 or not all(_WORD.match(part) for part in parts[:2]):
        return None
    if not all(_NUMBER.match(part) for part in parts[2:]):
        return None
    pixel = Pixel(parts[0], parts[1], int(parts[3]))
    is_place = group_of(pixel.healpix) == int(parts[2]) and pixel.healpix < N_PIXELS
    return pixel if is_place else None


def locate_healpix(source: Path) -> Path:
    """Return the ``healpix`` folder of a release tree.

    Parameters
    ----------
    source : Path
        The folder itself, or one that holds it as ``healpix``, ``spectro/redux/<specprod>/healpix`` or
        ``<release>/spectro/redux/<specprod>/healpix``.

    Raises
    ------
    InputError
        If there is no such folder, or more than one.
    """
    if not source.is_dir():
        raise InputError(source, "no such folder" if not source.exists() else "is not a folder")
    if source.name == "healpix" or _holds_surveys(source):
        return source
    for pattern in _PLACES:
        found = sorted(path for path in source.glob(pattern) if path.is_dir())
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(source)) for path in found)
            raise InputError(source, f"holds more than one production ({names}); name one of them")
        if found:
            return found[0]
    raise InputError(
        source,
        "holds no release: looked for <survey>/<program>/<group>/<pixel>/, healpix/, spectro/redux/<specprod>/healpix/ "
        "and <release>/spectro/redux/<specprod>/healpix/",
    )


def specprod_of(healpix_folder: Path) -> str:
    """Return the production whose ``healpix`` folder this is, as its path tells, or empty."""
    path = healpix_folder.absolute()
    return path.parent.name if path.name == "healpix" and path.parent.parent.name == "redux" else ""


def find_pixels(healpix_folder: Path) -> list[Pixel]:
    """Return the pixels that have a folder below ``healpix``, sorted.

    Only names that DESI gives count: a folder in the wrong group, or with a padded number, is not a pixel.
    """
    found = []
    for survey in _subfolders(healpix_folder):
        for program in _subfolders(survey):
            for group in _subfolders(program):
                for folder in _subfolders(group):
                    pixel = parse_pixel_key("/".join((survey.name, program.name, group.name, folder.name)))
                    if pixel is not None:
                        found.append(pixel)
    return sorted(found)


def _holds_surveys(folder: Path) -> bool:
    return any((folder / survey / program).is_dir() for survey in SURVEYS for program in PROGRAMS)


def _subfolders(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    for name in sorted(names):
        yield folder / name
