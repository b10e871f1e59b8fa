"""TAP services: positions go up as a table, the rows of a table around them come back (IVOA TAP 1.1, UWS 1.1), by pyvo."""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from qad.errors import ConfigError, InputError
from qad.matching.columns import ColumnError, Field, Wanted, choose_columns
from qad.matching.remote import Refused, Unanswered
from qad.matching.sky import ARCSEC_PER_DEG, Floats

MAX_ROWS = 2_000_000
"""Rows asked for; a service may give fewer, and says so."""
_PIECE = 1 << 20
_REGULAR = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_POLL_S = (0.2, 10.0)
"""First and longest time between two looks at a job."""


@dataclass(frozen=True)
class Tap:
    """A table of a TAP service, the columns that are wanted, and how far around the positions to look."""

    url: str
    table: str
    radius_arcsec: float
    timeout_s: float
    wanted: Wanted

    @property
    def question(self) -> dict[str, Any]:
        """See :class:`~qad.matching.remote.Service`."""
        known = self.wanted.preset.name if self.wanted.preset is not None else ""
        named = [self.wanted.ra, self.wanted.dec, self.wanted.id, *self.wanted.columns, known]
        return {
            "service": "tap",
            "url": self.url,
            "table": self.table,
            "radius_arcsec": self.radius_arcsec,
            "columns": named,
        }

    def ask(self, ra: Floats, dec: Floats, answer: Path) -> None:
        """See :class:`~qad.matching.remote.Service`."""
        from astropy.table import Table

        uploaded = Table({"qad_ra": ra, "qad_dec": dec})
        with self._errors():
            job = self._service.submit_job(self._query, maxrec=MAX_ROWS, uploads={"candidates": uploaded})
            try:
                job.run()
                self._wait(job)
                with self._session.get(job.result_uri, stream=True) as response, answer.open("wb") as file:
                    response.raise_for_status()
                    for piece in response.iter_content(_PIECE):
                        file.write(piece)
            finally:
                with contextlib.suppress(Exception):
                    job.delete()

    def _wait(self, job: Any) -> None:
        """Wait until a job has ended, and raise what became of it."""
        pause, ends = _POLL_S[0], time.monotonic() + self.timeout_s
        while (phase := job.phase) not in ("COMPLETED", "ERROR", "ABORTED"):
            if time.monotonic() > ends:
                raise Unanswered(f"the job is still {phase} after {self.timeout_s:g} s; raise crossmatch.timeout_s")
            time.sleep(pause)
            pause = min(2 * pause, _POLL_S[1])
        if phase == "ABORTED":
            raise Unanswered("the service ended the job")
        if phase == "ERROR":
            job.raise_if_error()
            raise Refused("the job failed")

    @cached_property
    def _query(self) -> str:
        try:
            layout = choose_columns(self._fields, self.wanted)
        except ColumnError as error:
            raise InputError(self.url, str(error), where=self.table) from None
        quoted = {field.name: field.description for field in self._fields}
        columns = ", ".join(f"c.{quoted[name]}" for name in layout.names)
        ra, dec = (f"c.{quoted[field.name]}" for field in (layout.ra, layout.dec))
        circle = f"CIRCLE('ICRS', q.qad_ra, q.qad_dec, {self.radius_arcsec / ARCSEC_PER_DEG!r})"
        return (
            f"SELECT {columns} FROM {_table(self.table)} AS c JOIN TAP_UPLOAD.candidates AS q "
            f"ON 1=CONTAINS(POINT('ICRS', {ra}, {dec}), {circle})"
        )

    @cached_property
    def _fields(self) -> list[Field]:
        """The columns of the table, by what the service says of itself; `description` holds the name as ADQL has it."""
        names = ", ".join("'" + name.replace("'", "''") + "'" for name in (self.table, f'"{self.table}"'))
        with self._errors():
            found = self._service.run_sync(f"SELECT column_name FROM TAP_SCHEMA.columns WHERE table_name IN ({names})")
        columns = [str(name) for name in found.getcolumn("column_name")]
        if not columns:
            raise InputError(self.url, "the service has no such table", where=self.table)
        return [Field(name.strip('"'), "text", "", _quoted(name)) for name in columns]

    @cached_property
    def _service(self) -> Any:
        return _pyvo().dal.TAPService(self.url, session=self._session)

    @cached_property
    def _session(self) -> Any:
        _pyvo()
        import requests

        timeout_s = self.timeout_s

        class Session(requests.Session):
            """requests waits for ever unless each request says how long."""

            def request(self, *args: Any, **keys: Any) -> Any:
                keys.setdefault("timeout", timeout_s)
                return super().request(*args, **keys)

        return Session()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what pyvo and requests raise into one of our own; pyvo's remarks on a service's VOTables are for its keepers."""
        _pyvo()
        import requests
        from pyvo.dal import DALFormatError, DALQueryError, DALServiceError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except DALQueryError as error:
            raise Refused(_one_line(error)) from None
        except DALServiceError as error:
            code = getattr(error, "code", None)
            if isinstance(code, int) and 400 <= code < 500 and code not in (404, 408, 425, 429):
                raise Refused(_one_line(error)) from None
            raise Unanswered(_one_line(error)) from None
        except (DALFormatError, requests.RequestException) as error:
            raise Unanswered(_one_line(error)) from None


def _pyvo() -> Any:
    try:
        import pyvo
        import pyvo.dal
    except ImportError:
        raise ConfigError(
            "TAP services are asked by pyvo, which is not installed: pip install 'desi-qad[vo]'"
        ) from None
    return pyvo


def _quoted(name: str) -> str:
    """Return a column name as ADQL takes it; a service quotes those of its names that are words of the language (TAP 1.1, 4.3)."""
    if name.startswith('"'):
        return name
    return name if _REGULAR.match(name) else '"' + name.replace('"', '""') + '"'


def _table(name: str) -> str:
    if all(_REGULAR.match(part) for part in name.split(".")):
        return name
    return name if name.startswith('"') else f'"{name}"'


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    _, caused, cause = text.rpartition("(Caused by ")  # what urllib3 says last is what happened
    reason = cause.rpartition(": ")[2].removesuffix('"))') if caused else text
    return reason[:300] or type(error).__name__
