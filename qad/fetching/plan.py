"""What to fetch: the pixels that a source holds and their files, from listings alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qad.desi.layout import (
    N_PIXELS,
    SURVEYS,
    checksum_name,
    coadd_name,
    group_of,
    parse_pixel_key,
    pixel_key,
    redrock_name,
)
from qad.errors import ConfigError, InputError
from qad.fetching.retry import Patience
from qad.fetching.source import RemoteFile, Source
from qad.fetching.threads import run_threads
from qad.results import Failure
from qad.work.units import Pixel

_WORD = re.compile(r"[a-z][a-z0-9]{0,15}\Z")
_LIST = re.compile(r"redux_([a-z0-9]{1,32})_healpix_[a-z0-9_]+\.sha256sum\Z")
_STARTS = ("coadd-", "redrock-", "redux_")
_PLACES = ("healpix", "*/healpix", "spectro/redux/*/healpix", "*/spectro/redux/*/healpix")
MANY_OF_A_GROUP = 4
"""From so many wanted pixels on, one listing of their group folder is cheaper than one of each."""


@dataclass(frozen=True)
class Wanted:
    """Which pixels were asked for; empty means all."""

    surveys: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    healpix: tuple[int, ...] = ()
    limit: int = 0

    def __post_init__(self) -> None:
        for word in (*self.surveys, *self.programs):
            if not _WORD.match(word):
                raise ConfigError(f"{word!r} is no survey or program; surveys are {', '.join(SURVEYS)}")
        for healpix in self.healpix:
            if not 0 <= healpix < N_PIXELS:
                raise ConfigError(f"there is no healpix {healpix}: at nside 64 they run from 0 to {N_PIXELS - 1}")


@dataclass(frozen=True)
class PixelFiles:
    """The files of one pixel.

    Attributes
    ----------
    data : tuple of RemoteFile
        What is wanted, the redrock file first.
    checksums : RemoteFile or None
        The folder's SHA-256 list.
    """

    pixel: Pixel
    data: tuple[RemoteFile, ...]
    checksums: RemoteFile | None

    @property
    def all(self) -> tuple[RemoteFile, ...]:
        """Every file."""
        return (*self.data, self.checksums) if self.checksums else self.data

    @property
    def n_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.all)


@dataclass(frozen=True)
class Plan:
    """What to fetch.

    Attributes
    ----------
    pixels : tuple of PixelFiles
        Sorted.
    absent : tuple of str
        What was asked for by number and has no files: normal, the published pixel list names some.
    failures : tuple of Failure
        Pixels of which only one of the two files is there.
    """

    pixels: tuple[PixelFiles, ...]
    absent: tuple[str, ...]
    failures: tuple[Failure, ...]


def find_healpix(source: Source) -> Source:
    """Return the source rooted at the ``healpix`` folder that lies at or below it.

    Raises
    ------
    InputError
        If there is none, or more than one.
    """
    names = source.folders("")
    if source.url.rstrip("/").endswith("/healpix") or set(names) & set(SURVEYS):
        return source
    for place in _PLACES:
        found = _expand(source, place, names)
        if len(found) > 1:
            raise InputError(source.url, f"holds more than one production ({', '.join(found)}); name one of them")
        if found:
            return source.below(found[0])
    raise InputError(
        source.url,
        f"holds no release: looked for healpix/ and {', '.join(f'{place}/' for place in _PLACES[2:])}"
        + (f"; there are {', '.join(names[:8])}" if names else "; there is nothing at all"),
    )


def make_plan(source: Source, wanted: Wanted, patience: Patience, n_threads: int) -> Plan:
    """List a source, rooted at its ``healpix`` folder, as far as it is wanted.

    Raises
    ------
    InputError
        If a survey or program that was named is not there, or there is nothing at all.
    """
    prefixes = _prefixes(source, wanted)
    numbers = set(wanted.healpix)
    found: dict[Pixel, list[RemoteFile]] = {}
    for batch in _batches(prefixes, n_threads if wanted.limit else len(prefixes)):
        for done in run_threads(source.files, batch, n_threads, patience.stop):
            if done.error is not None:
                raise done.error
            _sort_in(found, done.value or (), numbers)
        if wanted.limit and _count_complete(found) >= wanted.limit:
            break
    absent = _absent(source, wanted, {pixel for pixel in found if _files(pixel, found[pixel])})
    return _plan(found, absent, wanted.limit)


def list_pixel(source: Source, pixel: Pixel) -> PixelFiles | None:
    """List one pixel's folder again; None if its files are gone."""
    complete = _files(pixel, source.files(pixel_key("", pixel) + "/"))
    return complete if complete and len(complete.data) == 2 else None


def _plan(found: dict[Pixel, list[RemoteFile]], absent: tuple[str, ...], limit: int) -> Plan:
    pixels, failures = [], []
    for pixel in sorted(found):
        files = _files(pixel, found[pixel])
        if files is None:
            continue
        if len(files.data) == 2:
            pixels.append(files)
        else:
            failures.append(Failure(str(pixel), f"the source has {files.data[0].name} without its partner"))
        if limit and len(pixels) == limit:
            break
    return Plan(tuple(pixels), absent, tuple(failures))


def _count_complete(found: dict[Pixel, list[RemoteFile]]) -> int:
    all_files = (_files(pixel, files) for pixel, files in found.items())
    return sum(1 for files in all_files if files is not None and len(files.data) == 2)


def _files(pixel: Pixel, listed: Iterable[RemoteFile]) -> PixelFiles | None:
    """Pick the wanted files of a folder; None if there is neither coadd nor redrock file."""
    by_name = {file.name: file for file in listed}
    data = tuple(by_name[name] for name in (redrock_name(pixel), coadd_name(pixel)) if name in by_name)
    lists = [file for name, file in by_name.items() if (m := _LIST.match(name)) and name == checksum_name(pixel, m[1])]
    return PixelFiles(pixel, data, lists[0] if lists else None) if data else None


def _sort_in(found: dict[Pixel, list[RemoteFile]], files: Iterable[RemoteFile], numbers: set[int]) -> None:
    for file in files:
        if not file.name.startswith(_STARTS):  # most of a listing: spectra, emission-line and afterburner files
            continue
        folder = file.key.rpartition("/")[0]
        pixel = parse_pixel_key(folder)
        # the whole key must be the pixel's: parse_pixel_key looks at its last parts only
        if pixel is not None and folder == pixel_key("", pixel) and (not numbers or pixel.healpix in numbers):
            found.setdefault(pixel, []).append(file)


def _prefixes(source: Source, wanted: Wanted) -> list[str]:
    """Return the folders to list, in the order of pixels."""
    prefixes: list[str] = []
    for survey, program in _trees(source, wanted):
        tree = f"{survey}/{program}/"
        if wanted.healpix:
            prefixes += _pixel_prefixes(survey, program, sorted(set(wanted.healpix)))
        else:
            groups = [name for name in source.folders(tree) if name.isascii() and name.isdigit()]
            prefixes += [f"{tree}{group}/" for group in sorted(groups, key=int)]
    return prefixes


def _pixel_prefixes(survey: str, program: str, numbers: Sequence[int]) -> Iterator[str]:
    groups: dict[int, list[int]] = {}
    for number in numbers:
        groups.setdefault(group_of(number), []).append(number)
    for group, members in groups.items():
        if len(members) >= MANY_OF_A_GROUP:
            yield f"{survey}/{program}/{group}/"
        else:
            yield from (pixel_key("", Pixel(survey, program, member)) + "/" for member in members)


def _trees(source: Source, wanted: Wanted) -> list[tuple[str, str]]:
    """Return the (survey, program) folders to look in."""
    if wanted.surveys and wanted.programs and wanted.healpix:
        return sorted({(survey, program) for survey in wanted.surveys for program in wanted.programs})
    trees = []
    for survey in _named(source, "", wanted.surveys, "survey"):
        programs = source.folders(f"{survey}/")
        trees += [(survey, p) for p in programs if _WORD.match(p) and (not wanted.programs or p in wanted.programs)]
    if not trees:
        asked = ", ".join((*wanted.surveys, *wanted.programs)) or "any survey"
        raise InputError(
            source.url, f"holds nothing of {asked}; there are {', '.join(source.folders('')) or 'no folders'}"
        )
    return sorted(trees)


def _named(source: Source, prefix: str, asked: Sequence[str], what: str) -> list[str]:
    there = [name for name in source.folders(prefix) if _WORD.match(name)]
    for name in asked:
        if name not in there:
            raise InputError(source.url, f"has no {what} {name}; there are {', '.join(there) or 'none'}")
    return sorted(set(asked)) or there


def _absent(source: Source, wanted: Wanted, found: set[Pixel]) -> tuple[str, ...]:
    """Name what was asked for by number and is not there."""
    numbers = sorted(set(wanted.healpix))
    if not (wanted.surveys and wanted.programs):
        there = {pixel.healpix for pixel in found}
        return tuple(str(number) for number in numbers if number not in there)
    asked = [Pixel(*tree, number) for tree in _trees(source, wanted) for number in numbers]
    if asked and not found:
        # nothing at all of what was named: a survey that does not exist is a slip of the keyboard, not an empty pixel
        for survey in _named(source, "", wanted.surveys, "survey"):
            _named(source, f"{survey}/", wanted.programs, f"program of {survey}")
    return tuple(str(pixel) for pixel in asked if pixel not in found)


def _expand(source: Source, place: str, names: Sequence[str]) -> list[str]:
    """Return the folders of the source that a pattern with ``*`` names."""
    prefixes = [""]
    for part in place.split("/"):
        listings = ((prefix, names if not prefix else source.folders(prefix)) for prefix in prefixes)
        prefixes = [f"{prefix}{name}/" for prefix, there in listings for name in there if part in ("*", name)]
    return prefixes


def _batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), max(size, 1)):
        yield items[start : start + size]
