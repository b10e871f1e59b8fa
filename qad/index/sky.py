"""Places on the sky as SQL conditions: exact in every engine, and narrowed by declination zones where an index has them.

The sky is cut into zones of a tenth of a degree of declination, and positions are indexed by (zone, right ascension)
(Gray, Nieto-Santisteban and Szalay 2007, "The Zones Algorithm for Finding Points-Near-a-Point or Cross-Matching Spatial
Datasets"): a small area is a short interval of right ascension in each of a few zones.  No extension is needed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qad.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

ZONES_PER_DEGREE = 10
MAX_ZONE = 901
"""Beyond the poles: where a declination that cannot be lies."""
MAX_INTERVALS = 128
"""A larger area is one interval of zones: so many conditions would cost more than the rows that they spare."""
MARGIN = 1e-9
"""Degrees by which intervals are wider than they must be; the exact condition decides."""
UNITS = {"deg": 1.0, "d": 1.0, "": 1.0, "arcmin": 1 / 60, "'": 1 / 60, "m": 1 / 60, "arcsec": 1 / 3600, '"': 1 / 3600}
UNITS |= {"s": 1 / 3600, "rad": math.degrees(1.0)}
_LENGTH = re.compile(r"\s*([-+0-9.eE]+?)\s*([a-z'\"]*)\s*\Z")


def zone_of(dec: np.ndarray) -> np.ndarray:
    """Return the zone of declinations in degrees, int16."""
    import numpy as np

    zone = np.floor(np.nan_to_num(dec, nan=MAX_ZONE, posinf=MAX_ZONE, neginf=-MAX_ZONE) * ZONES_PER_DEGREE)
    return np.clip(zone, -MAX_ZONE, MAX_ZONE).astype(np.int16)


@dataclass(frozen=True)
class Cone:
    """All positions within `radius` of a centre; degrees."""

    ra: float
    dec: float
    radius: float

    def condition(self, ra: str, dec: str) -> str:
        """Return the exact SQL condition on two columns: the haversine of the separation (Sinnott 1984, S&T 68, 158)."""
        limit = math.sin(math.radians(self.radius) / 2) ** 2
        north, south = self.dec + self.radius + MARGIN, self.dec - self.radius - MARGIN
        separation = (
            f"power(sin(radians({dec} - {_float(self.dec)}) / 2e0), 2e0) + cos(radians({dec})) * "
            f"{_float(math.cos(math.radians(self.dec)))} * power(sin(radians({ra} - {_float(self.ra)}) / 2e0), 2e0)"
        )
        return f"({dec} BETWEEN {_float(south)} AND {_float(north)} AND {separation} <= {_float(limit)})"

    def intervals(self) -> list[tuple[int, int, float, float]]:
        """Return first zone, last zone, and right ascensions from and to, that together hold all of it."""
        first, last = _zones(self.dec - self.radius, self.dec + self.radius)
        if last - first >= MAX_INTERVALS:
            return [(first, last, 0.0, 360.0)]
        found = []
        for zone in range(first, last + 1):
            width = self._half_width(zone / ZONES_PER_DEGREE, (zone + 1) / ZONES_PER_DEGREE)
            found += [(zone, zone, low, high) for low, high in _wrapped(self.ra - width, self.ra + width)]
        return found

    def _half_width(self, south: float, north: float) -> float:
        """Return the largest difference in right ascension at which the cone reaches into a zone, degrees."""
        radius, centre = math.radians(self.radius), math.radians(self.dec)
        south = max(south, self.dec - self.radius, -90.0)
        north = min(north, self.dec + self.radius, 90.0)
        places = [south, north]
        if self.radius < 90 and abs(math.sin(centre)) <= math.cos(radius):
            # the circle is widest where its meridians touch it
            touching = math.degrees(math.asin(math.sin(centre) / math.cos(radius)))
            places += [touching] if south < touching < north else []
        return max(self._half_width_at(place) for place in places) + 1000 * MARGIN

    def _half_width_at(self, place: float) -> float:
        spare = math.sin(math.radians(self.radius) / 2) ** 2 - math.sin(math.radians(place - self.dec) / 2) ** 2
        below = math.cos(math.radians(self.dec)) * math.cos(math.radians(place))
        if spare <= 0:
            return 0.0
        return 180.0 if spare >= below else math.degrees(2 * math.asin(math.sqrt(spare / below)))


@dataclass(frozen=True)
class Box:
    """Right ascension from `west` eastwards to `east`, across 0 where that is smaller, and a range of declination."""

    west: float
    east: float
    south: float
    north: float

    def condition(self, ra: str, dec: str) -> str:
        """Return the exact SQL condition on two columns."""
        joint = "AND" if self.west <= self.east else "OR"
        inside = f"({ra} >= {_float(self.west)} {joint} {ra} <= {_float(self.east)})"
        return f"({dec} BETWEEN {_float(self.south)} AND {_float(self.north)} AND {inside})"

    def intervals(self) -> list[tuple[int, int, float, float]]:
        """Return first zone, last zone, and right ascensions from and to, that together hold all of it."""
        first, last = _zones(self.south, self.north)
        across = [(self.west, 360.0), (0.0, self.east)] if self.west > self.east else [(self.west, self.east)]
        if last - first >= MAX_INTERVALS:
            return [(first, last, low, high) for low, high in across]
        return [(zone, zone, low, high) for zone in range(first, last + 1) for low, high in across]


def zone_condition(area: Cone | Box, zone: str, ra: str) -> str:
    """Return the SQL condition that an index on (zone, ra) answers; the exact condition goes with it."""
    parts = [
        f"({zone} = {first}" if first == last else f"({zone} BETWEEN {first} AND {last}"
        for first, last, _low, _high in area.intervals()
    ]
    ranges = [
        "" if (low, high) == (0.0, 360.0) else f" AND {ra} BETWEEN {_float(low)} AND {_float(high)}"
        for _first, _last, low, high in area.intervals()
    ]
    return "(" + " OR ".join(f"{part}{between})" for part, between in zip(parts, ranges, strict=True)) + ")"


def parse_cone(text: str) -> Cone:
    """Return the cone of ``RA,DEC,RADIUS``: degrees, the radius with a unit.

    Raises
    ------
    ConfigError
        If it is not that, or no place on the sky.
    """
    usage = f"--cone {text!r}: write it as RA,DEC,RADIUS in degrees, the radius with its unit: 10.68,41.27,5arcmin"
    parts = text.split(",")
    if len(parts) != 3:
        raise ConfigError(usage)
    ra, dec, radius = (_length(part, usage) for part in parts)
    if not re.search(r"[a-z'\"]\s*\Z", parts[2]):
        raise ConfigError(f"--cone {text!r}: the radius needs its unit: deg, arcmin or arcsec")
    if not (0 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= 180):
        raise ConfigError(f"--cone {text!r}: RA lies in 0 to 360, DEC in -90 to 90, RADIUS in 0 to 180 degrees")
    return Cone(ra % 360.0, dec, radius)


def parse_box(text: str) -> Box:
    """Return the box of ``RA1,RA2,DEC1,DEC2`` in degrees; RA1 above RA2 goes across 0.

    Raises
    ------
    ConfigError
        If it is not that, or no place on the sky.
    """
    usage = f"--box {text!r}: write it as RA1,RA2,DEC1,DEC2 in degrees; RA1 above RA2 goes across 0"
    parts = text.split(",")
    if len(parts) != 4:
        raise ConfigError(usage)
    west, east, south, north = (_length(part, usage) for part in parts)
    if not (0 <= west <= 360 and 0 <= east <= 360 and -90 <= south <= north <= 90):
        raise ConfigError(f"--box {text!r}: RA lies in 0 to 360, DEC1 below DEC2 in -90 to 90")
    return Box(west, east, south, north)


def _length(text: str, usage: str) -> float:
    found = _LENGTH.match(text)
    try:
        value = float(found.group(1)) * UNITS[found.group(2)] if found else math.nan
    except (ValueError, KeyError):
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(usage)
    return value


def _zones(south: float, north: float) -> tuple[int, int]:
    first, last = (math.floor(value * ZONES_PER_DEGREE) for value in (south - MARGIN, north + MARGIN))
    # the zones beyond the poles are empty but for a declination of exactly 90 degrees
    return max(first, -900), min(last, 900)


def _wrapped(low: float, high: float) -> list[tuple[float, float]]:
    """Return intervals of right ascension in 0 to 360."""
    if high - low >= 360:
        return [(0.0, 360.0)]
    if low < 0:
        return [(low + 360, 360.0), (0.0, high)]
    return [(low, 360.0), (0.0, high - 360)] if high > 360 else [(low, high)]


def _float(value: float) -> str:
    """Return a number that both engines read as a double: with an exponent it is no decimal."""
    text = repr(float(value))
    return f"({text})" if "e" in text else f"({text}e0)"
