"""What a simulated release is made from, and what each of its rows shall be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from qad.desi import layout
from qad.errors import ConfigError
from qad.simulation import targets
from qad.simulation.anomalies import ANOMALIES
from qad.simulation.artefacts import ARTEFACTS
from qad.simulation.contaminants import KINDS, pick
from qad.storage.provenance import hash_document
from qad.work.units import Pixel

SURVEYS = tuple(survey for survey in layout.SURVEYS if survey != "cmx")
"""Surveys whose columns are known; commissioning had its own."""
MAX_PER_PIXEL = targets.MAX_OBJECTS
"""Rows of a pixel are held in memory together, 0.1 MB each; the fullest of DR1 has some 7,400."""


@dataclass(frozen=True)
class Recipe:
    """The arguments of :func:`qad.simulation.release.simulate`; the same recipe gives the same bytes."""

    quasars: int
    healpix: int
    anomaly_rate: float
    artefact_rate: float
    contaminants: float
    repeats: float
    seed: int
    survey: str
    program: str
    resolution: bool
    classes: tuple[str, ...] = tuple(ANOMALIES)

    @property
    def second_program(self) -> str:
        """The program that observes some of the quasars again."""
        return "dark" if self.program == "bright" else "bright"

    def share(self, index: int) -> int:
        """Return the quasars of the pixel with that place in the list of pixels."""
        return self.quasars * (index + 1) // self.healpix - self.quasars * index // self.healpix

    def extra(self, index: int) -> int:
        """Return the rows beside quasars of that pixel."""
        extra = self.contaminants * self.quasars
        return math.floor(extra * (index + 1) / self.healpix) - math.floor(extra * index / self.healpix)

    def key(self, healpix: int) -> list[int]:
        """Return the numbers that seed a pixel."""
        return [self.seed, healpix, int(hash_document([self.survey, self.program])[:8], 16)]


@dataclass(frozen=True)
class Order:
    """What a row shall be: `kind` of object, what is planted in it, and whether it is observed again."""

    kind: str
    anomaly: str | None = None
    artefact: str | None = None
    strength: float | None = None
    repeat: bool = False


@dataclass(frozen=True)
class Unit:
    """A pixel to make: its place in the list of pixels, and whether it is that of the second program."""

    index: int
    pixel: Pixel
    is_repeat: bool = False

    def __str__(self) -> str:
        return str(self.pixel)


def check(recipe: Recipe) -> None:
    """Raise ConfigError if an argument is impossible."""
    if recipe.quasars < 1:
        raise ConfigError(f"quasars must be at least 1, not {recipe.quasars}")
    if not 1 <= recipe.healpix <= recipe.quasars:
        raise ConfigError(
            f"healpix must be between 1 and the number of quasars, {recipe.quasars}, not {recipe.healpix}"
        )
    if math.ceil(recipe.quasars / recipe.healpix) * (1 + recipe.contaminants) > MAX_PER_PIXEL:
        raise ConfigError(f"more than {MAX_PER_PIXEL:,} rows in a pixel; spread them over more pixels (healpix)")
    for name in ("anomaly_rate", "artefact_rate", "repeats"):
        value = getattr(recipe, name)
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"{name} must be between 0 and 1, not {value}")
    if recipe.anomaly_rate + recipe.artefact_rate > 1.0:
        raise ConfigError("anomaly_rate and artefact_rate together exceed 1: a quasar carries one of them at most")
    if not 0.0 <= recipe.contaminants <= 100.0:
        raise ConfigError(f"contaminants must be between 0 and 100 per quasar, not {recipe.contaminants}")
    if recipe.seed < 0:
        raise ConfigError(f"seed must not be negative, not {recipe.seed}")
    chosen: list[tuple[str, str, tuple[str, ...]]] = [
        ("survey", recipe.survey, SURVEYS),
        ("program", recipe.program, layout.PROGRAMS),
        *(("anomaly", name, tuple(ANOMALIES)) for name in recipe.classes),
    ]
    for name, value, known in chosen:
        if value not in known:
            raise ConfigError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    if recipe.healpix > (most := len(targets.footprint())):
        raise ConfigError(f"the footprint has {most:,} pixels, not {recipe.healpix:,}")


def units(recipe: Recipe) -> list[Unit]:
    """Return the pixels to make."""
    numbers = targets.choose_pixels(recipe.healpix, recipe.seed)
    first = [Unit(i, Pixel(recipe.survey, recipe.program, number)) for i, number in enumerate(numbers)]
    again = [
        Unit(unit.index, replace(unit.pixel, program=recipe.second_program), is_repeat=True)
        for unit in first
        if any(_is_repeat(recipe, place) for place in _places(recipe, unit.index))
    ]
    return first + again


def orders(recipe: Recipe, index: int, rng: np.random.Generator) -> list[Order]:
    """Return what the rows of a pixel shall be, in the order of the file.

    Over all pixels the planted quasars are the rates' share to within one, and every class comes up equally often.
    """
    made = [_order(recipe, place, rng) for place in _places(recipe, index)]
    made += [Order(pick(rng, KINDS)) for _ in range(recipe.extra(index))]
    return [made[int(i)] for i in rng.permutation(len(made))]


def _places(recipe: Recipe, index: int) -> range:
    first = recipe.quasars * index // recipe.healpix
    return range(first, first + recipe.share(index))


def _is_repeat(recipe: Recipe, place: int) -> bool:
    return _turn(place, recipe.repeats) is not None


def _order(recipe: Recipe, place: int, rng: np.random.Generator) -> Order:
    strength, repeat = float(rng.random()), _is_repeat(recipe, place)
    planted = _turn(place, recipe.anomaly_rate + recipe.artefact_rate)
    if planted is None:
        return Order("qso", repeat=repeat)
    # of the planted ones, the anomalies' share is again spread evenly
    share = recipe.anomaly_rate / (recipe.anomaly_rate + recipe.artefact_rate)
    anomaly = _turn(planted, share)
    if anomaly is not None:
        return Order("qso", anomaly=_nth(recipe.classes, anomaly, recipe.seed), strength=strength, repeat=repeat)
    before = planted - _chosen_before(planted, share)
    return Order("qso", artefact=_nth(tuple(ARTEFACTS), before, recipe.seed), strength=strength, repeat=repeat)


def _turn(place: int, rate: float) -> int | None:
    """Return the how-manyth chosen one `place` is if the share `rate` is chosen, evenly; None: it is not chosen."""
    before = _chosen_before(place, rate)
    return before if _chosen_before(place + 1, rate) > before else None


def _chosen_before(place: int, rate: float) -> int:
    # rounds half up; the summand keeps 0.1 * 5 from falling below its half
    return math.floor(place * rate + 0.5 + 1e-9)


def _nth(names: tuple[str, ...], n: int, seed: int) -> str:
    """Return the `n`-th name of an endless list in which each round holds every name once, in random order."""
    turn, place = divmod(n, len(names))
    return names[int(np.random.default_rng([seed, turn, len(names)]).permutation(len(names))[place])]
