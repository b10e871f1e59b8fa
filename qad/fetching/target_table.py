"""Reading what a person lists: tables of targets, and tables of pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qad.desi.layout import N_PIXELS
from qad.desi.targetid import candidate_pixels
from qad.errors import InputError
from qad.fetching.catalogue import Block, Kind, Table, Words, open_tables
from qad.fetching.nearby import pixels_near
from qad.fetching.targets import Targets
from qad.fetching.wanted import WORD, Listed

DEFAULT_RADIUS_ARCSEC = 1.0
"""A fibre covers 1.5 arcsec, and positions of two catalogues agree to a tenth of that."""
POSITIONS = (("TARGET_RA", "TARGET_DEC"), ("RA", "DEC"))
_ANY = ("", "")


def read_targets(
    path: Path,
    spectype: Sequence[str] = ("QSO",),
    zwarn: int = 0,
    radius_arcsec: float = DEFAULT_RADIUS_ARCSEC,
) -> Targets:
    """Read a table of targets.

    Parameters
    ----------
    path : Path
        FITS, Parquet or CSV with TARGETID, or with TARGET_RA and TARGET_DEC or RA and DEC (degrees, ICRS).  SURVEY,
        PROGRAM and HEALPIX say where a target is; without HEALPIX its position does, and without that its TARGETID.
        Of a table with SPECTYPE and ZWARN only the rows count that are of a wanted class.
    spectype : sequence of str
    zwarn : int
        ZWARN bits that are allowed to be set.
    radius_arcsec : float
        How far a target may lie from a listed position.

    Raises
    ------
    InputError
        If the file is no such table, or lists nothing.
    """
    layout = _choose(path)
    reader = _Reader(layout, frozenset(name.upper() for name in spectype), zwarn)
    for block in layout.table.read(layout.kinds):
        reader.add(block)
    if not reader.n_kept:
        dropped = ", ".join(f"{n} {name}" for name, n in reader.counts.items() if n and name != "rows")
        reason = f"lists no target: {reader.counts['rows']} rows" + (f", {dropped}" if dropped else "")
        raise InputError(path, reason.replace("dropped.", ""), layout.table.where)
    return reader.targets(radius_arcsec)


def read_pixels(path: Path) -> Listed:
    """Read a table of pixels: HEALPIX, and SURVEY and PROGRAM where it has them; the release's ``tilepix.fits`` is one.

    Raises
    ------
    InputError
        If the file is no such table, or lists nothing.
    """
    tables = open_tables(path)
    found = next(((table, name) for table in tables if (name := table.find("HEALPIX", "integer"))), None)
    if found is None:
        raise InputError(path, f"has no column HEALPIX; there are {tables[0].shown_columns}", tables[0].where)
    table, name = found
    names = [table.find(word, "text") for word in ("SURVEY", "PROGRAM")]
    kinds: dict[str, Kind] = {name: "integer", **{word: "text" for word in names if word}}
    seen: dict[tuple[str, str], set[int]] = {}
    for block in table.read(kinds):
        _add_pixels(seen, block, table, name, names)
    if not any(seen.values()):
        raise InputError(path, "lists no healpix: 0 rows", table.where)
    return Listed(str(path), {tree: tuple(sorted(numbers)) for tree, numbers in seen.items()}, is_exact=True)


def _add_pixels(
    seen: dict[tuple[str, str], set[int]], block: Block, table: Table, name: str, names: Sequence[str | None]
) -> None:
    numbers = block[name]
    trees, tree = _trees([block[word] if word else None for word in names], len(numbers))
    bad = np.ma.getmaskarray(numbers) | (numbers.data < 0) | (numbers.data >= N_PIXELS)
    if bad.any():
        raise InputError(table.path, f"{numbers[bad][0]} is no healpix: they run from 0 to {N_PIXELS - 1}", table.where)
    for place, words in enumerate(trees):
        wrong = [word for word in words if word and not WORD.match(word)]
        if wrong:
            raise InputError(table.path, f"{wrong[0][:20]!r} is no survey or program", table.where)
        seen.setdefault(words, set()).update(np.unique(numbers.data[tree == place]).tolist())


@dataclass(frozen=True)
class _Layout:
    """The columns of a table that tell of targets, by what they are; None where there is no such column."""

    table: Table
    names: dict[str, str | None]

    @property
    def kinds(self) -> dict[str, Kind]:
        """What to read each column as."""
        return {name: _KINDS[role] for role, name in self.names.items() if name}


_KINDS: dict[str, Kind] = {
    "targetid": "integer",
    "healpix": "integer",
    "zwarn": "integer",
    "survey": "text",
    "program": "text",
    "spectype": "text",
    "ra": "float",
    "dec": "float",
}


_STORED = {"targetid": np.int64, "healpix": np.int32, "ra": np.float64, "dec": np.float64}


def _choose(path: Path) -> _Layout:
    tables = open_tables(path)
    for table in tables:
        names = _find(table)
        if names["targetid"] or names["ra"]:
            return _Layout(table, names)
    pairs = " or ".join("/".join(pair) for pair in POSITIONS)
    raise InputError(
        path,
        f"has neither a column TARGETID nor positions ({pairs}, degrees); there are {tables[0].shown_columns}",
        tables[0].where,
    )


def _find(table: Table) -> dict[str, str | None]:
    """Return the columns that are worth reading."""
    names = {role: table.find(role.upper(), kind) for role, kind in _KINDS.items() if role not in ("ra", "dec")}
    names |= {"ra": None, "dec": None}
    if not (names["spectype"] and names["zwarn"]):
        names["spectype"] = names["zwarn"] = None
    if not (names["targetid"] and names["healpix"]):
        for pair in POSITIONS:
            ra, dec = (table.find(name, "float") for name in pair)
            if ra and dec:
                return names | {"ra": ra, "dec": dec}
    return names


class _Reader:
    """Gathers what is kept of a table, block by block."""

    def __init__(self, layout: _Layout, spectype: frozenset[str], zwarn: int) -> None:
        self._layout = layout
        self._spectype = spectype
        self._zwarn = zwarn
        self._trees: dict[tuple[str, str], int] = {}
        self._kept: dict[str, list[np.ndarray]] = {}
        self.counts: Counter[str] = Counter()
        self.n_kept = 0

    def add(self, block: Block) -> None:
        """Take the rows that count."""
        columns = {role: block[name] if name else None for role, name in self._layout.names.items()}
        n_rows = len(next(_arrays(columns.values())))
        self.counts["rows"] += n_rows
        keep = np.ones(n_rows, bool)
        trees, tree = _trees([columns["survey"], columns["program"]], n_rows)
        is_word = np.array([all(not word or WORD.match(word) for word in words) for words in trees], bool)
        reasons = {**self._reasons(columns), "bad_survey": is_word[tree] if len(trees) else keep}
        for reason, good in reasons.items():
            self.counts[f"dropped.{reason}"] += int((keep & ~good).sum())
            keep &= good
        place = np.array([self._trees.setdefault(words, len(self._trees)) for words in trees], np.int32)
        kept = {"tree": place[tree[keep]]}
        for role in ("targetid", "healpix", "ra", "dec"):
            values = columns[role]
            if values is not None:
                kept[role] = np.ma.getdata(values)[keep].astype(_STORED[role])
        if kept.get("ra") is not None:
            self._mend(kept)
        for role, values in kept.items():
            self._kept.setdefault(role, []).append(values)
        self.n_kept += int(keep.sum())

    def _reasons(self, columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return, by the reason for which a row is dropped, which rows are good."""
        good = {}
        if columns["spectype"] is not None:
            good["other_class"] = self._is_wanted(columns["spectype"], columns["zwarn"])
        if columns["targetid"] is not None:
            good["no_targetid"] = ~np.ma.getmaskarray(columns["targetid"])
        elif columns["ra"] is not None:
            good["bad_position"] = _is_position(columns["ra"], columns["dec"])
        if columns["healpix"] is not None:
            numbers = columns["healpix"]
            good["bad_healpix"] = ~np.ma.getmaskarray(numbers) & (numbers.data >= 0) & (numbers.data < N_PIXELS)
        return good

    def _is_wanted(self, spectype: Words, zwarn: np.ma.MaskedArray) -> np.ndarray:
        is_class = np.array([*(name.upper() in self._spectype for name in spectype.names), False], bool)
        is_good = ~np.ma.getmaskarray(zwarn) & ((zwarn.data & ~np.int64(self._zwarn)) == 0)
        return is_class[spectype.codes] & is_good

    def _mend(self, kept: dict[str, np.ndarray]) -> None:
        """Put NaN for impossible positions of targets that have a TARGETID as well."""
        good = _is_position(kept["ra"], kept["dec"])
        self.counts["bad_position"] += int((~good).sum())
        kept["ra"], kept["dec"] = np.where(good, kept["ra"], np.nan), np.where(good, kept["dec"], np.nan)

    def targets(self, radius_arcsec: float) -> Targets:
        """Find the pixels of what was kept."""
        kept = {role: np.concatenate(parts) for role, parts in self._kept.items()}
        if "targetid" in kept and "healpix" not in kept:
            # a catalogue of observations repeats its targets
            first = _first_of_each(kept["targetid"], kept["tree"])
            kept = {role: values[first] for role, values in kept.items()}
        rows, healpix = _places(kept, radius_arcsec)
        order = np.argsort(healpix, kind="stable")
        n = len(kept["tree"])
        unplaced = n - int(np.count_nonzero(np.bincount(rows, minlength=n)))
        by_position = "targetid" not in kept
        return Targets(
            self._layout.table.path,
            kept.get("targetid"),
            kept["ra"] if by_position else None,
            kept["dec"] if by_position else None,
            tuple(self._trees),
            kept["tree"],
            rows[order],
            healpix[order],
            "healpix" in kept,
            radius_arcsec,
            {**{name: count for name, count in self.counts.items() if count}, "listed": n, "unplaced": unplaced},
        )


def _arrays(columns: Any) -> Iterator[Any]:
    return (column.codes if isinstance(column, Words) else column for column in columns if column is not None)


def _trees(columns: Sequence[Words | None], n_rows: int) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Return the different (survey, program) of a block, in lower case, and which one each row has."""
    if columns == [None, None] or not n_rows:
        return [_ANY] * bool(n_rows), np.zeros(n_rows, np.int64)
    survey, program = (column or Words([], np.full(n_rows, -1, np.int32)) for column in columns)
    width = len(program.names) + 1
    different, tree = np.unique((survey.codes + 1).astype(np.int64) * width + program.codes + 1, return_inverse=True)
    words = [["", *(name.lower() for name in column.names)] for column in (survey, program)]
    return [(words[0][int(code) // width], words[1][int(code) % width]) for code in different], tree


def _first_of_each(targetid: np.ndarray, tree: np.ndarray) -> np.ndarray:
    """Return the first row of each different pair, in the order of rows."""
    order = np.lexsort((tree, targetid))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(targetid[order]) != 0) | (np.diff(tree[order]) != 0)
    return np.sort(order[is_new])


def _is_position(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Whether positions are some; RA may also run from -180 to 180."""
    with np.errstate(invalid="ignore"):
        return np.asarray((ra >= -180.0) & (ra <= 360.0) & (np.abs(dec) <= 90.0))


def _places(kept: Mapping[str, np.ndarray], radius_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of a target and a pixel that may hold it."""
    n = len(kept["tree"])
    if "healpix" in kept:
        return np.arange(n, dtype=np.int32), kept["healpix"]
    has_position = np.isfinite(kept["ra"]) if "ra" in kept else np.zeros(n, bool)
    placed, others = np.flatnonzero(has_position), np.flatnonzero(~has_position)
    pairs = []
    if len(placed):
        rows, healpix = pixels_near(kept["ra"][placed], kept["dec"][placed], max(radius_arcsec, DEFAULT_RADIUS_ARCSEC))
        pairs.append((placed[rows], healpix))
    if len(others):
        rows, healpix = candidate_pixels(kept["targetid"][others])
        pairs.append((others[rows], healpix))
    return np.concatenate([rows for rows, _ in pairs]), np.concatenate([healpix for _, healpix in pairs])
