"""What a CATALOG argument names: a file, a catalogue that is known beforehand, or a table that a service has.

::

    PATH                    a file, or a folder of Parquet files or a HATS catalogue
    PRESET:PATH             the same, with the columns, radius and epoch of a known catalogue
    PRESET                  the known catalogue itself, asked of its service; PRESET@xmatch, PRESET@tap: of this one
    vizier:TABLE            any table of VizieR, by CDS X-Match
    tap:URL#TABLE           a table of a TAP service
    NAME=...                any of these, under this name
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from qad.errors import ConfigError
from qad.matching.catalogs import catalog_name
from qad.matching.presets import Preset, preset_of
from qad.matching.surveys import PRESETS
from qad.workspace import safe_name

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)=(?P<rest>.+)\Z", re.DOTALL)
_PREFIXED = re.compile(r"(?P<prefix>[A-Za-z0-9_]+):(?P<rest>.+)\Z", re.DOTALL)


@dataclass(frozen=True)
class Reference:
    """A catalogue to match with.

    Attributes
    ----------
    name : str
        Stands in the name of the table that comes of it.
    service : str
        ``file``, ``xmatch`` or ``tap``.
    path : Path or None
        Of a file.
    table, url : str
        Of a table that a service has; an empty `url` is the service's usual one.
    preset : str
        Name of the known catalogue that it is; empty: none.
    """

    name: str
    service: Literal["file", "xmatch", "tap"]
    path: Path | None = None
    table: str = ""
    url: str = ""
    preset: str = ""

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        return f"{self.preset or self.table} ({self.service})"


def parse_reference(text: str, base: Path) -> Reference:
    """Return what a CATALOG argument names; a relative path lies below `base`.

    Raises
    ------
    ConfigError
        If it names an unknown catalogue or service, or an empty table.
    """
    path = base / Path(os.path.expandvars(text)).expanduser()
    is_file = _exists(path)
    name, at, _ = text.partition("@")
    if name.lower() in PRESETS and not (at and is_file):
        return _asked(text)
    if is_file:
        return Reference(catalog_name(path), "file", path)
    named, prefixed = _NAMED.match(text), _PREFIXED.match(text)
    if named is not None:
        found = parse_reference(named["rest"], base)
        return replace(found, name=safe_name(named["name"], "catalogue name"))
    if prefixed is not None:
        return _prefixed(prefixed["prefix"], prefixed["rest"], base)
    if at and "/" not in text and "." not in text:
        return _asked(text)
    return Reference(catalog_name(path), "file", path)


def _prefixed(prefix: str, rest: str, base: Path) -> Reference:
    if prefix == "vizier":
        return Reference(catalog_name(Path(rest.replace("/", "_"))), "xmatch", table=rest)
    if prefix == "tap":
        url, hash_, table = rest.rpartition("#")
        if not hash_ or not table or not re.match(r"https?://", url):
            raise ConfigError(f"tap:{rest}: write it as tap:URL#TABLE, such as tap:https://host/tap#schema.table")
        return Reference(catalog_name(Path(table.replace("/", "_"))), "tap", table=table, url=url)
    preset = preset_of(prefix)
    return Reference(preset.name, "file", base / Path(os.path.expandvars(rest)).expanduser(), preset=preset.name)


def _asked(text: str) -> Reference:
    """Return the reference that ``PRESET`` or ``PRESET@SERVICE`` is."""
    name, at, service = text.partition("@")
    preset = preset_of(name)
    service = service if at else preset.service
    if service == "tap":
        return Reference(preset.name, "tap", table=preset.table, url=preset.tap_url, preset=preset.name)
    if service != "xmatch":
        raise ConfigError(f"{text}: no service {service!r}; there are xmatch and tap")
    if not preset.vizier:
        raise ConfigError(f"{text}: VizieR does not have {preset.name}; use {preset.name}@tap")
    return Reference(preset.name, "xmatch", table=preset.vizier, preset=preset.name)


def reference_preset(reference: Reference) -> Preset | None:
    """Return the known catalogue that a reference is, or None."""
    return preset_of(reference.preset) if reference.preset else None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for the file system
        return False
