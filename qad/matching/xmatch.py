"""The CDS X-Match service: positions go up as CSV, the rows of a VizieR table around them come back.

Its interface: http://cdsxmatch.u-strasbg.fr/xmatch/doc/API-calls.html (parameters ``REQUEST``, ``cat1``, ``cat2``, ``colRA1``,
``colDec1``, ``distMaxArcsec``, ``RESPONSEFORMAT``, ``selection``; 100 MB of upload, 180 arcsec at most).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qad.errors import ConfigError
from qad.matching.remote import Refused, Unanswered
from qad.matching.sky import Floats

URL = "http://cdsxmatch.u-strasbg.fr/xmatch/api/v1/sync"
MAX_RADIUS_ARCSEC = 180.0
_PIECE = 1 << 20


@dataclass(frozen=True)
class XMatch:
    """A table of VizieR (or ``simbad``), and how far around the positions to look.

    Raises
    ------
    ConfigError
        If that is farther than the service looks.
    """

    url: str
    table: str
    radius_arcsec: float
    timeout_s: float

    def __post_init__(self) -> None:
        if self.radius_arcsec > MAX_RADIUS_ARCSEC:
            raise ConfigError(
                f"{self.table}: X-Match looks {MAX_RADIUS_ARCSEC:g} arcsec around a position at most, not "
                f"{self.radius_arcsec:g}; lower --radius or crossmatch.annulus_arcsec"
            )

    @property
    def question(self) -> dict[str, Any]:
        """See :class:`~qad.matching.remote.Service`."""
        return {"service": "xmatch", "url": self.url, "table": self.table, "radius_arcsec": self.radius_arcsec}

    def ask(self, ra: Floats, dec: Floats, answer: Path) -> None:
        """See :class:`~qad.matching.remote.Service`."""
        import urllib3

        rows = "".join(f"{a!r},{d!r}\n" for a, d in zip(ra.tolist(), dec.tolist(), strict=True))
        form: dict[str, Any] = {
            "REQUEST": "xmatch",
            "RESPONSEFORMAT": "votable",
            "selection": "all",
            "distMaxArcsec": repr(self.radius_arcsec),
            "cat1": ("candidates.csv", f"qad_ra,qad_dec\n{rows}", "text/csv"),
            "colRA1": "qad_ra",
            "colDec1": "qad_dec",
            "cat2": self.table if self.table == "simbad" else f"vizier:{self.table}",
        }
        with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(self.timeout_s)) as pool:
            try:
                response = pool.request("POST", self.url, fields=form, preload_content=False, redirect=False)
                _check_status(response)
                with answer.open("wb") as file:
                    for piece in response.stream(_PIECE):
                        file.write(piece)
            except urllib3.exceptions.HTTPError as error:
                raise Unanswered(_reason(error)) from None


def _check_status(response: Any) -> None:
    if response.status == 200:
        return
    text = " ".join(response.read(2000).decode("utf-8", "replace").split())[:200]
    said = f"HTTP {response.status}{': ' if text else ''}{text}"
    if response.status in (408, 425, 429) or response.status >= 500:
        wait = response.headers.get("Retry-After", "")
        raise Unanswered(said, float(wait) if wait.isdigit() else 0.0)
    raise Refused(said)


def _reason(error: BaseException) -> str:
    text = str(error)
    return " ".join((text.rpartition(": ")[2] or text or type(error).__name__).split())[:200]
