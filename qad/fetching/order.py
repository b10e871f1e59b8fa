"""What was asked for: which pixels, and which of their rows, from the settings and the tables that they name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from qad.fetching.choice import ByClass, Choice
from qad.fetching.retry import Patience
from qad.fetching.source import Source
from qad.fetching.target_table import read_pixels, read_targets
from qad.fetching.targets import ByTarget, Targets
from qad.fetching.tilepix import read_tilepix
from qad.fetching.wanted import Listed, Wanted
from qad.settings import Fetch


@dataclass(frozen=True)
class Order:
    """What was asked for.

    Attributes
    ----------
    wanted : Wanted
        The pixels.
    choice : Choice
        Their rows.
    targets : Targets or None
        The table of targets, if one was given.
    """

    wanted: Wanted
    choice: Choice
    targets: Targets | None


def read_order(settings: Fetch, source: Source, patience: Patience) -> Order:
    """Read the tables that the settings name; what several of them name is wanted.

    Raises
    ------
    InputError, ConfigError
        If one cannot be read, or has no column that tells a pixel or target.
    """
    targets = None
    lists: list[Listed] = []
    if settings.targets:
        path = Path(settings.targets).expanduser()
        targets = read_targets(path, settings.spectype, settings.zwarn, settings.radius_arcsec)
        lists.append(targets.listed())
    if settings.pixels:
        lists.append(read_pixels(Path(settings.pixels).expanduser()))
    if settings.tilepix:
        lists.append(read_tilepix(source, patience))
    wanted = Wanted(
        tuple(settings.survey),
        tuple(settings.program),
        tuple(settings.healpix),
        settings.limit,
        reduce(Listed.within, lists) if lists else None,
    )
    choice = ByTarget(targets) if targets is not None else ByClass(tuple(settings.spectype), settings.zwarn)
    return Order(wanted, choice, targets)
