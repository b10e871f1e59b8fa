"""What a service knows around the candidates: asked in portions, kept on disk, asked again only where it is not there.

An answer lies below ``answers/<catalogue>/`` under a name that is a hash of the question, beside a JSON file that says what
was asked of whom, when, and the answer's hash.  A run that was killed goes on with the questions that have no answer.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from qad.desi.sky import healpix_of
from qad.errors import InputError, ServiceError
from qad.matching.sky import Floats
from qad.matching.votable import query_status
from qad.storage.atomic import atomic_path, write_json
from qad.storage.provenance import hash_file

LONGEST_WAIT_S = 60.0


class Unanswered(Exception):
    """A question got no answer; asking again may help.

    Parameters
    ----------
    reason : str
    wait_s : float
        How long the service says to wait; 0: it does not say.
    """

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        self.wait_s = wait_s
        super().__init__(reason)


class Refused(Exception):
    """The service understood and will not answer: the question is wrong."""


class Overflow(Exception):
    """The answer is cut off at the service's limit of rows."""


class Service(Protocol):
    """Answers which rows of a table lie around positions."""

    @property
    def question(self) -> dict[str, Any]:
        """What is asked, without the positions: JSON types."""
        ...

    def ask(self, ra: Floats, dec: Floats, answer: Path) -> None:
        """Write the VOTable of the rows around these positions.

        Raises
        ------
        Unanswered, Refused, Overflow
        """


@dataclass(frozen=True)
class Patience:
    """How often to ask.

    Attributes
    ----------
    retries : int
        After the first time.
    chunk : int
        Positions in a question.
    wait : callable
        Sleeps for so many seconds.
    """

    retries: int
    chunk: int
    wait: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Answers:
    """The answers to all questions about a list of positions, kept in a folder."""

    service: Service
    folder: Path
    patience: Patience

    def missing(self, ra: Floats, dec: Floats) -> int:
        """Return how many questions have no answer yet."""
        return sum(self._known(part_ra, part_dec) is None for part_ra, part_dec in self._portions(ra, dec))

    def fetch(
        self, ra: Floats, dec: Floats, force: bool = False, advance: Callable[[float], None] | None = None
    ) -> list[Path]:
        """Return the files of the answers about these positions, those that are not there asked for.

        Parameters
        ----------
        ra, dec : ndarray
            Degrees; each position is asked about once.
        force : bool
            Ask again about all.
        advance : callable, optional
            Is told how many positions have been answered.

        Raises
        ------
        ServiceError
            If a question stays without an answer; those that have one are kept.
        InputError
            If the service refuses the question.
        """
        paths: list[Path] = []
        for part_ra, part_dec in self._portions(ra, dec):
            paths += self._answered(part_ra, part_dec, force)
            if advance is not None:
                advance(len(part_ra))
        return paths

    def _portions(self, ra: Floats, dec: Floats) -> Iterator[tuple[Floats, Floats]]:
        """Yield the positions, neighbours together, in an order that does not depend on theirs."""
        valid = np.isfinite(ra) & (np.abs(dec) <= 90)
        places = np.unique(np.stack([ra[valid], dec[valid]]), axis=1)
        order = np.argsort(healpix_of(*places), kind="stable")
        places = places[:, order]
        for start in range(0, places.shape[1], self.patience.chunk):
            part = places[:, start : start + self.patience.chunk]
            yield part[0], part[1]

    def _answered(self, ra: Floats, dec: Floats, force: bool) -> list[Path]:
        known = None if force else self._known(ra, dec)
        if known is None:
            known = self._ask(ra, dec)
        if known["overflow"]:
            half = len(ra) // 2
            return [*self._answered(ra[:half], dec[:half], force), *self._answered(ra[half:], dec[half:], force)]
        return [self._path(ra, dec)]

    def _question(self, ra: Floats, dec: Floats) -> dict[str, Any]:
        positions = hashlib.sha256(np.stack([ra, dec]).astype("<f8").tobytes()).hexdigest()
        return {**self.service.question, "n_positions": len(ra), "positions_sha256": positions}

    def _path(self, ra: Floats, dec: Floats) -> Path:
        text = json.dumps(self._question(ra, dec), sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.vot"

    def _known(self, ra: Floats, dec: Floats) -> dict[str, Any] | None:
        """Return what is noted of an answer that is there and whole, or None."""
        path = self._path(ra, dec)
        try:
            noted = json.loads(path.with_suffix(".json").read_text())
            if noted["overflow"] or noted["sha256"] == hash_file(path):
                return dict(noted)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def _ask(self, ra: Floats, dec: Floats) -> dict[str, Any]:
        """Ask until there is an answer, keep it, and return what is noted of it."""
        path = self._path(ra, dec)
        noted: dict[str, Any] = {"question": self._question(ra, dec), "overflow": False}
        try:
            with atomic_path(path) as partial:
                self._insist(ra, dec, partial)
            noted["sha256"], noted["bytes"] = hash_file(path), path.stat().st_size
        except Overflow as error:
            if len(ra) == 1:
                raise InputError(
                    self.service.question["url"], f"{error} around one position; ask for a smaller radius"
                ) from None
            noted["overflow"] = True
        noted["when"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(path.with_suffix(".json"), noted)
        return noted

    def _insist(self, ra: Floats, dec: Floats, answer: Path) -> None:
        url, tries = self.service.question["url"], self.patience.retries + 1
        for attempt in range(tries):
            try:
                self.service.ask(ra, dec, answer)
                check_answer(answer)
                return
            except Refused as error:
                raise InputError(url, f"refused: {error}", where=str(self.service.question["table"])) from None
            except Unanswered as error:
                if attempt + 1 == tries:
                    raise ServiceError(
                        f"{url}: no answer after {tries} attempts: {error}; answers so far are kept, run again to go on"
                    ) from None
                # full jitter: many runs that failed together do not come back together
                wait = min(LONGEST_WAIT_S, 2.0**attempt) * random.uniform(0.5, 1.0)
                self.patience.wait(max(wait, min(error.wait_s, LONGEST_WAIT_S)))


def check_answer(answer: Path) -> None:
    """Look whether a VOTable is whole, and what it says of itself (DALI 1.1, section 4.4.1: ``QUERY_STATUS``).

    Raises
    ------
    Unanswered
        If it is cut off, or no VOTable.
    Refused
        If it is an error.
    Overflow
        If the service left rows out.
    """
    try:
        infos = query_status(answer)
    except InputError as error:
        raise Unanswered(error.reason) from None
    status = infos.get("QUERY_STATUS", "OK").upper()
    if status == "ERROR":
        raise Refused(" ".join(infos.get("QUERY_STATUS text", "an error").split()))
    if status == "OVERFLOW":
        raise Overflow("the service left rows out at its limit")
