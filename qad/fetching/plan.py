"""What to fetch: the pixels that a source holds and their files, from listings alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from qad.desi.layout import (
    SURVEYS,
    checksum_name,
    coadd_name,
    group_of,
    parse_pixel_key,
    pixel_key,
    redrock_name,
)
from qad.errors import InputError
from qad.fetching.retry import Patience
from qad.fetching.source import RemoteFile, Source
from qad.fetching.threads import run_threads
from qad.fetching.wanted import WORD, Listed, Tree, Wanted, covers
from qad.results import Failure
from qad.work.units import Pixel

MAX_LISTINGS = 16
"""Listings under way at once: reading the pages takes the interpreter's lock, and more threads only fight for it."""
_LIST = re.compile(r"redux_([a-z0-9]{1,32})_healpix_[a-z0-9_]+\.sha256sum\Z")
_STARTS = ("coadd-", "redrock-", "redux_")
_PLACES = ("healpix", "*/healpix", "spectro/redux/*/healpix", "*/spectro/redux/*/healpix")
MANY_OF_A_GROUP = 4
"""From so many wanted pixels on, one listing of their group folder is cheaper than one of each."""


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
    def is_complete(self) -> bool:
        """Whether both the redrock file and the coadd are there."""
        return len(self.data) == 2

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
        What was asked for by number, or named by a table of pixels, and has no files: normal, the published pixel list
        names some.
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
    n_threads = min(n_threads, MAX_LISTINGS)
    numbers = _numbers(source, wanted)
    prefixes = _prefixes(source, wanted, numbers)
    found: dict[Pixel, PixelFiles] = {}
    looked: list[str] = []
    for batch in _batches(prefixes, n_threads if wanted.limit else len(prefixes)):
        for done in run_threads(source.files, batch, n_threads, patience.stop):
            if done.error is not None:
                raise done.error
            looked.append(done.item)
            found |= _pixels(done.value or (), numbers)
        if wanted.limit and sum(files.is_complete for files in found.values()) >= wanted.limit:
            break
    absent = _absent(source, wanted, numbers, found.keys(), set(looked), len(looked) == len(prefixes))
    return _plan(found, absent, wanted.limit)


def list_pixel(source: Source, pixel: Pixel) -> PixelFiles | None:
    """List one pixel's folder again; None if its files are gone."""
    files = _files(pixel, source.files(pixel_key("", pixel) + "/"))
    return files if files and files.is_complete else None


def _plan(found: Mapping[Pixel, PixelFiles], absent: tuple[str, ...], limit: int) -> Plan:
    pixels, failures = [], []
    for pixel in sorted(found):
        files = found[pixel]
        if files.is_complete:
            pixels.append(files)
        else:
            failures.append(Failure(str(pixel), f"the source has {files.data[0].name} without its partner"))
        if limit and len(pixels) == limit:
            break
    return Plan(tuple(pixels), absent, tuple(failures))


def _files(pixel: Pixel, listed: Iterable[RemoteFile]) -> PixelFiles | None:
    """Pick the wanted files of a folder; None if there is neither coadd nor redrock file."""
    by_name = {file.name: file for file in listed}
    data = tuple(by_name[name] for name in (redrock_name(pixel), coadd_name(pixel)) if name in by_name)
    lists = [file for name, file in by_name.items() if (m := _LIST.match(name)) and name == checksum_name(pixel, m[1])]
    return PixelFiles(pixel, data, lists[0] if lists else None) if data else None


def _pixels(listed: Iterable[RemoteFile], numbers: Mapping[Tree, set[int] | None]) -> dict[Pixel, PixelFiles]:
    """Return the wanted pixels of a listing."""
    folders: dict[str, list[RemoteFile]] = {}
    for file in listed:
        folder, _, name = file.key.rpartition("/")
        if name.startswith(_STARTS):  # most of a listing: spectra, emission-line and afterburner files
            folders.setdefault(folder, []).append(file)
    found = {}
    for folder, members in folders.items():
        pixel = parse_pixel_key(folder)
        # the whole key must be the pixel's: parse_pixel_key looks at its last parts only
        if pixel is None or folder != pixel_key("", pixel) or not _is_wanted(pixel, numbers):
            continue
        files = _files(pixel, members)
        if files is not None:
            found[pixel] = files
    return found


def _is_wanted(pixel: Pixel, numbers: Mapping[Tree, set[int] | None]) -> bool:
    tree = pixel.survey, pixel.program
    if tree not in numbers:
        return False
    of_tree = numbers[tree]
    return of_tree is None or pixel.healpix in of_tree


def _numbers(source: Source, wanted: Wanted) -> dict[Tree, set[int] | None]:
    """Return the wanted numbers of each survey and program to look in; None: all that are there."""
    asked = set(wanted.healpix) or None
    if wanted.listed is None:
        return dict.fromkeys(_trees(source, wanted), asked)
    numbers: dict[Tree, set[int] | None] = {}
    for tree in _listed_trees(source, wanted, wanted.listed):
        of_tree = wanted.listed.of_tree(tree)
        numbers[tree] = of_tree & asked if asked else of_tree
    return numbers


def _prefixes(source: Source, wanted: Wanted, numbers: Mapping[Tree, set[int] | None]) -> list[str]:
    """Return the folders to list, in the order of pixels."""
    prefixes: list[str] = []
    for (survey, program), of_tree in sorted(numbers.items()):
        tree = f"{survey}/{program}/"
        if of_tree is None:
            prefixes += [f"{tree}{group}/" for group in _groups(source, tree)]
            continue
        if wanted.listed and not wanted.listed.is_exact:
            # a position may lie in any survey and program; most of them never looked there
            there = set(_groups(source, tree)) if of_tree else set()
            of_tree = {number for number in of_tree if group_of(number) in there}
        prefixes += _pixel_prefixes(survey, program, sorted(of_tree))
    return prefixes


def _groups(source: Source, tree: str) -> list[int]:
    return sorted(int(name) for name in source.folders(tree) if name.isascii() and name.isdigit())


def _pixel_prefixes(survey: str, program: str, numbers: Sequence[int]) -> Iterator[str]:
    groups: dict[int, list[int]] = {}
    for number in numbers:
        groups.setdefault(group_of(number), []).append(number)
    for group, members in groups.items():
        if len(members) >= MANY_OF_A_GROUP:
            yield f"{survey}/{program}/{group}/"
        else:
            yield from (pixel_key("", Pixel(survey, program, member)) + "/" for member in members)


def _trees(source: Source, wanted: Wanted) -> list[Tree]:
    """Return the (survey, program) folders to look in."""
    if wanted.surveys and wanted.programs and wanted.healpix:
        return sorted({(survey, program) for survey in wanted.surveys for program in wanted.programs})
    trees = []
    for survey in _named(source, "", wanted.surveys, "survey"):
        programs = source.folders(f"{survey}/")
        trees += [(survey, p) for p in programs if WORD.match(p) and (not wanted.programs or p in wanted.programs)]
    if not trees:
        asked = ", ".join((*wanted.surveys, *wanted.programs)) or "any survey"
        raise InputError(
            source.url, f"holds nothing of {asked}; there are {', '.join(source.folders('')) or 'no folders'}"
        )
    return sorted(trees)


def _listed_trees(source: Source, wanted: Wanted, listed: Listed) -> list[Tree]:
    """Return the (survey, program) folders that a table names and that were asked for."""
    if all(survey and program for survey, program in listed.numbers):
        trees = sorted(listed.numbers)  # no need to ask the source
    else:
        trees = _trees(source, wanted)
    asked = [
        tree
        for tree in trees
        if (not wanted.surveys or tree[0] in wanted.surveys) and (not wanted.programs or tree[1] in wanted.programs)
    ]
    found = [tree for tree in asked if any(covers(words, tree) for words in listed.numbers)]
    if not found:
        there = ", ".join(sorted("/".join(word or "*" for word in words) for words in listed.numbers))
        asked_for = ", ".join((*wanted.surveys, *wanted.programs)) or "this source"
        raise InputError(listed.origin, f"names no pixel of {asked_for}; it has {there or 'none'}")
    return found


def _named(source: Source, prefix: str, asked: Sequence[str], what: str) -> list[str]:
    there = [name for name in source.folders(prefix) if WORD.match(name)]
    for name in asked:
        if name not in there:
            raise InputError(source.url, f"has no {what} {name}; there are {', '.join(there) or 'none'}")
    return sorted(set(asked)) or there


def _absent(
    source: Source,
    wanted: Wanted,
    numbers: Mapping[Tree, set[int] | None],
    found: Collection[Pixel],
    looked: Collection[str],
    is_all: bool,
) -> tuple[str, ...]:
    """Name what was asked for by number, was looked for, and is not there."""
    named = _named_numbers(wanted, numbers.keys())
    there = {(pixel.survey, pixel.program, pixel.healpix) for pixel in found}
    absent: list[str] = []
    for words, of_words in named.items():
        if all(words):
            pixels = (Pixel(*words, n) for n in of_words if _is_wanted(Pixel(*words, n), numbers))
            absent += [str(pixel) for pixel in pixels if pixel not in found and _is_among(pixel, looked)]
        elif is_all:
            anywhere = {n for survey, program, n in there if covers(words, (survey, program))}
            shown = "/".join(word or "*" for word in words) + "/" if any(words) else ""
            absent += [f"{shown}{n}" for n in of_words if n not in anywhere]
    if named and not found and wanted.surveys and wanted.programs:
        # nothing at all of what was named: a survey that does not exist is a slip of the keyboard, not an empty pixel
        for survey in _named(source, "", wanted.surveys, "survey"):
            _named(source, f"{survey}/", wanted.programs, f"program of {survey}")
    return tuple(absent)


def _named_numbers(wanted: Wanted, trees: Collection[Tree]) -> dict[Tree, list[int]]:
    """Return the numbers that somebody says there are, by survey and program; an empty word: any."""
    asked = set(wanted.healpix)
    if wanted.listed is None:
        words = [(s, p) for s in sorted(set(wanted.surveys)) for p in sorted(set(wanted.programs))] or [("", "")]
        return dict.fromkeys(words, sorted(asked)) if asked else {}
    if not wanted.listed.is_exact:
        return {}
    return {
        words: [number for number in numbers if not asked or number in asked]
        for words, numbers in sorted(wanted.listed.numbers.items())
        if any(covers(words, tree) for tree in trees)
    }


def _is_among(pixel: Pixel, looked: Collection[str]) -> bool:
    folder = pixel_key("", pixel) + "/"
    return folder in looked or f"{pixel.survey}/{pixel.program}/{group_of(pixel.healpix)}/" in looked


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
