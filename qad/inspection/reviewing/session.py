"""A review without its screen: the candidates in their order, where one is, what was labelled, and how to take it back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.errors import ConfigError
from qad.inspection.labels import append_labels, new_labels, user
from qad.inspection.reviewing.feed import LabelFeed
from qad.inspection.spectrum import Key
from qad.schema import SPECTRUM_KEY
from qad.storage.expression import apply_where, parse_sort, parse_where
from qad.storage.labels import Label

if TYPE_CHECKING:
    import polars as pl

NOTED = "noted"
"""The label of a target that has only a comment."""


class Session:
    """The state of a review.

    Parameters
    ----------
    frame : polars.DataFrame
        The candidates in their first order, with the key columns, ``rank`` and ``z``.
    path : Path
        The labels file.
    model : str
        Name of the scores, kept with each label.

    Attributes
    ----------
    rows : list of dict
        The candidates.
    order : list of int
        Indices into `rows`, as sorted and filtered.
    at : int
        Place in `order`; 0 where it is empty.
    only_unlabelled : bool
        Whether next and previous skip labelled candidates.
    where, sort : str
        The filter and the order in force.
    """

    def __init__(self, frame: pl.DataFrame, path: Path, model: str) -> None:
        self._frame = frame.with_row_index("_row")
        self._path, self._model = path, model
        self._undo: list[tuple[Label, Label | None]] = []
        self.rows: list[dict[str, Any]] = frame.to_dicts()
        self.order = list(range(len(self.rows)))
        self.at = 0
        self.only_unlabelled = False
        self.where, self.sort = "", "rank"
        self.feed = LabelFeed(path)
        self.feed.poll()
        self.at = self._first_unlabelled()

    @property
    def current(self) -> dict[str, Any] | None:
        """The candidate that is shown."""
        return self.rows[self.order[self.at]] if self.order else None

    @property
    def key(self) -> Key | None:
        """Its key."""
        return None if self.current is None else key_of(self.current)

    @property
    def label(self) -> Label | None:
        """Its last label."""
        return None if self.current is None else self.feed.last.get(self.current["targetid"])

    @property
    def n_labelled(self) -> int:
        """How many of the candidates in force are labelled."""
        return sum(self._is_labelled(i) for i in self.order)

    def _is_labelled(self, index: int) -> bool:
        return self.rows[index]["targetid"] in self.feed.last

    def _first_unlabelled(self) -> int:
        return next((at for at, index in enumerate(self.order) if not self._is_labelled(index)), 0)

    def step(self, direction: int) -> bool:
        """Go to the next (1) or previous (-1) candidate; return False where there is none."""
        at = self.at + direction
        while 0 <= at < len(self.order):
            if not (self.only_unlabelled and self._is_labelled(self.order[at])):
                self.at = at
                return True
            at += direction
        return False

    def upcoming(self, n: int) -> list[dict[str, Any]]:
        """Return the candidates that are likely to be looked at next."""
        near = [*self.order[self.at + 1 : self.at + 1 + n], *self.order[max(0, self.at - 1) : self.at]]
        return [self.rows[index] for index in near]

    def go(self, text: str) -> None:
        """Go to a rank or a TARGETID.

        Raises
        ------
        ConfigError
            If it is no number, or no candidate of the list has it.
        """
        if not text.strip().lstrip("-").isdigit():
            raise ConfigError(f"{text.strip()[:40]!r} is neither a rank nor a TARGETID")
        number = int(text)
        for name in ("targetid", "rank"):
            for at, index in enumerate(self.order):
                if self.rows[index].get(name) == number:
                    self.at = at
                    return
        hidden = any(number in (row["targetid"], row["rank"]) for row in self.rows)
        raise ConfigError(f"{number} is {'hidden by the filter' if hidden else 'not among the candidates loaded'}")

    def say(self, label: str, comment: str | None = None) -> Label:
        """Label the candidate shown, on disk before this returns; its comment stays unless a new one is given.

        Raises
        ------
        StorageError
            If it cannot be written: then nothing is labelled.
        """
        before, row = self.label, self.current
        if row is None:
            raise ConfigError("there is no candidate to label")
        kept = before.comment if before is not None and before.who == user() else ""
        (new,) = new_labels([row["targetid"]], label, kept if comment is None else comment, self._model)
        append_labels(self._path, [new])
        self._undo.append((new, before))
        self.feed.poll()
        return new

    def comment(self, text: str) -> Label:
        """Say something of the candidate shown; its label stays, or is `NOTED`."""
        return self.say(self.label.label if self.label else NOTED, text)

    def undo(self) -> str:
        """Take back the last label of this session, go to its candidate, and return what was done.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        if not self._undo:
            return "nothing to take back"
        self.feed.poll()
        mine, before = self._undo[-1]
        now = self.feed.last.get(mine.targetid)
        self._undo.pop()
        self._show(mine.targetid)
        if now != mine:
            return f"{now.who if now else 'somebody'} has labelled it since: left as it is"
        again = replace(mine, label="", comment="") if before is None else before
        (stamp,) = new_labels([mine.targetid], "x")
        append_labels(self._path, [replace(again, when=stamp.when, who=stamp.who if before is None else before.who)])
        self.feed.poll()
        return f"took back {mine.label}"

    def _show(self, targetid: int) -> None:
        place = next((at for at, index in enumerate(self.order) if self.rows[index]["targetid"] == targetid), None)
        if place is not None:
            self.at = place

    def arrange(self, where: str | None = None, sort: str | None = None) -> None:
        """Filter and sort anew; the candidate shown stays shown if it passes.

        Raises
        ------
        ConfigError
            If an expression or a column is wrong: then nothing changes.
        """
        where = self.where if where is None else where.strip()
        sort = self.sort if sort is None else sort
        order = self._order(where, sort)
        if not order:
            raise ConfigError(f"no candidate passes {where!r}")
        here = self.order[self.at] if self.order else -1
        self.where, self.sort, self.order = where, sort, order
        self.at = order.index(here) if here in order else self._first_unlabelled()

    def _order(self, where: str, sort: str) -> list[int]:
        import polars as pl

        said = [self.feed.last.get(row["targetid"]) for row in self.rows]
        frame = self._frame.with_columns(
            pl.Series("label", [label.label if label else None for label in said], pl.String),
            pl.Series("label_comment", [label.comment if label else None for label in said], pl.String),
            pl.Series("label_who", [label.who if label else None for label in said], pl.String),
        )
        known = [name for name in frame.columns if name != "_row"]
        if where:
            expression, _ = parse_where(where, known)
            frame = apply_where(frame, expression, where)
        column, downwards = parse_sort(sort, known)
        ranked = frame.sort(column, "rank", descending=[downwards, False], nulls_last=True)
        return [int(row) for row in ranked["_row"].to_list()]

    def add(self, frame: pl.DataFrame) -> None:
        """Take a further candidate (one row with the session's columns) after the one shown, and go there."""
        import polars as pl

        (row,) = frame.to_dicts()
        known = next((i for i, other in enumerate(self.rows) if key_of(other) == key_of(row)), None)
        if known is None:
            known = len(self.rows)
            self.rows.append(row)
            more = frame.with_row_index("_row", known).select(self._frame.columns)
            self._frame = pl.concat([self._frame, more], how="vertical_relaxed")
        if known in self.order:
            self.at = self.order.index(known)
        else:
            self.order.insert(self.at + 1, known)
            self.at = min(self.at + 1, len(self.order) - 1)


def key_of(row: dict[str, Any]) -> Key:
    """Return what identifies a candidate's spectrum."""
    targetid, survey, program, healpix = (row[name] for name in SPECTRUM_KEY)
    return targetid, survey, program, healpix
