"""What is known of a catalogue beforehand: its columns, radius, epoch, units and citation; :mod:`~qad.matching.surveys` lists them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qad.errors import ConfigError

VIZIER_TAP = "https://tapvizier.cds.unistra.fr/TAPVizieR/tap"
"""Where every VizieR table can be asked by its name."""


@dataclass(frozen=True)
class Known:
    """A column of a catalogue.

    Attributes
    ----------
    name : str
        What it becomes in the `matches` table, after ``cat_``: the name that the catalogue's authors gave it.
    unit : str
        What its values are in; a file that says another unit is converted.
    others : tuple of str
        Names of the same column elsewhere (VizieR, X-Match, other releases); case does not matter.
    description : str
    """

    name: str
    unit: str = ""
    others: tuple[str, ...] = ()
    description: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it goes by, the authors' first."""
        return (self.name, *self.others)


@dataclass(frozen=True)
class Motion:
    """Proper motions, and the epoch of the positions.

    Attributes
    ----------
    ra, dec : tuple of str
        Names of the proper motion columns; the first includes the factor cos(dec).
    unit : str
    epoch_column : str
        A column with the epoch of each row, Julian year, 0 where there is none; empty: the preset's own epoch holds for all.
    """

    ra: tuple[str, ...]
    dec: tuple[str, ...]
    unit: str = "mas/yr"
    epoch_column: str = ""


@dataclass(frozen=True)
class Preset:
    """A catalogue that astronomers use.

    Attributes
    ----------
    name, title : str
    radius_arcsec : float
        Largest separation of a quasar and its entry, unless another is asked for: the errors of the positions and, where the
        beam or the point-spread function is wider, that.
    ra, dec, id : tuple of str
        Names of these columns in the authors' files, VizieR and X-Match.
    columns : tuple of Known
        What is carried over.
    bibcode, url : str
        What to cite, and where its columns are described.
    vizier : str
        Name of the VizieR table; ``simbad`` for SIMBAD; empty: not there.
    tap_url, tap_table : str
        The service that answers TAP queries about it, and its name there.
    epoch : float or None
        Julian year of the positions; None: of many years.
    motion : Motion or None
    kind : str
        What its entries say: ``quasars``, ``radio``, ``xray``, ``infrared``, ``astrometry``, ``imaging``.
    roles : mapping of str to str
        Which column is the ``z``, ``type``, ``flux`` or ``flux_err`` of its kind.
    frequency_ghz : float
        Of a radio survey.
    band : str
        Of an X-ray survey.
    """

    name: str
    title: str
    radius_arcsec: float
    ra: tuple[str, ...]
    dec: tuple[str, ...]
    id: tuple[str, ...]
    columns: tuple[Known, ...]
    bibcode: str
    url: str
    vizier: str = ""
    tap_url: str = VIZIER_TAP
    tap_table: str = ""
    epoch: float | None = None
    motion: Motion | None = None
    kind: str = ""
    roles: dict[str, str] = field(default_factory=dict)
    frequency_ghz: float = 0.0
    band: str = ""

    @property
    def service(self) -> str:
        """Which service answers for it by default: ``xmatch`` if VizieR has it, else ``tap``."""
        return "xmatch" if self.vizier else "tap"

    @property
    def table(self) -> str:
        """The name of its table in the TAP service."""
        return self.tap_table or self.vizier


def preset_of(name: str) -> Preset:
    """Return a preset by name.

    Raises
    ------
    ConfigError
        If there is none; the nearest one is named.
    """
    from qad.matching.surveys import PRESETS

    found = PRESETS.get(name.lower())
    if found is None:
        close = difflib.get_close_matches(name.lower(), list(PRESETS), n=1)
        hint = f"; did you mean {close[0]}?" if close else "; `qad crossmatch --list` shows them"
        raise ConfigError(f"no catalogue is known as {name!r}{hint}")
    return found


def described() -> Sequence[dict[str, Any]]:
    """Return every preset as JSON types: what ``qad crossmatch --list`` prints."""
    from qad.matching.surveys import PRESETS

    return [
        {
            "name": preset.name,
            "title": preset.title,
            "kind": preset.kind,
            "radius_arcsec": preset.radius_arcsec,
            "epoch": preset.epoch,
            "proper_motion": preset.motion is not None,
            "columns": [known.name for known in preset.columns],
            "units": {known.name: known.unit for known in preset.columns if known.unit},
            "service": preset.service,
            "vizier": preset.vizier,
            "tap": {"url": preset.tap_url, "table": preset.table},
            "bibcode": preset.bibcode,
            "url": preset.url,
        }
        for preset in PRESETS.values()
    ]
