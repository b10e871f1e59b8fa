"""Write a release of simulated spectra in the format of DR1, and beside it the truth."""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import qad
from qad.desi import layout
from qad.errors import ConfigError
from qad.results import Failure, NoProgress, Progress, StageResult, add_counts
from qad.schema import TRUTH
from qad.simulation import targets
from qad.simulation.anomalies import ANOMALIES
from qad.simulation.artefacts import ARTEFACTS
from qad.simulation.contaminants import KINDS, pick
from qad.simulation.files import write_pixel
from qad.simulation.rows import Order, Row, make_row
from qad.storage.atomic import write_json
from qad.storage.parquet import make_table, write_table
from qad.storage.provenance import Provenance, hash_document, hash_file
from qad.storage.receipts import read_receipt
from qad.work.engine import run_units
from qad.work.units import Pixel

TILES_PER_PIXEL = 6
MAX_PER_PIXEL = 20_000
_HEALPIX_FOLDER = Path("spectro", "redux", layout.SPECPROD, "healpix")
_RECEIPTS = ".qad-simulate"


@dataclass(frozen=True)
class Recipe:
    """What a release is made from; the same recipe gives the same bytes."""

    quasars: int
    healpix: int
    anomaly_rate: float
    artefact_rate: float
    contaminants: float
    seed: int
    survey: str
    program: str
    resolution: bool

    def share(self, index: int) -> int:
        """Return the quasars of the pixel with that place in the list of pixels."""
        return self.quasars * (index + 1) // self.healpix - self.quasars * index // self.healpix


def simulate(
    directory: Path,
    *,
    quasars: int = 1000,
    healpix: int = 4,
    anomaly_rate: float = 0.02,
    artefact_rate: float = 0.01,
    contaminants: float = 0.2,
    seed: int = 0,
    survey: str = "main",
    program: str = "dark",
    resolution: bool = True,
    jobs: int = 1,
    progress: Progress | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> StageResult:
    """Write a simulated release below `directory`, and its truth to ``directory/truth.parquet``.

    Parameters
    ----------
    directory : Path
        Receives ``spectro/redux/iron/healpix/...``.
    quasars, healpix : int
        Quasars in all, and pixels over which they are spread.
    anomaly_rate, artefact_rate : float
        Shares of the quasars that carry a planted anomaly, or a planted artefact.
    contaminants : float
        Stars, galaxies, sky fibres and dead fibres per quasar.
    seed : int
    survey, program : str
    resolution : bool
        Whether to write the resolution matrices, four fifths of the bytes.
    jobs : int
        Worker processes; 0 means one per core.  The bytes do not depend on it.
    progress : Progress, optional
    force : bool
        Make pixels anew that are there already.
    dry_run : bool
        Say what would be made, and write nothing.

    Returns
    -------
    StageResult
        Units are pixels.

    Raises
    ------
    ConfigError
        If an argument is impossible.
    StorageError
        If the disk is full or not writable.
    """
    started = time.monotonic()
    recipe = Recipe(quasars, healpix, anomaly_rate, artefact_rate, contaminants, seed, survey, program, resolution)
    _check(recipe)
    report = progress or NoProgress()
    pixels = [Pixel(survey, program, number) for number in targets.choose_pixels(healpix, seed)]
    units = list(enumerate(pixels))
    waiting = [unit for unit in units if force or not _is_done(Path(directory), recipe, *unit)]
    if dry_run:
        counts = {"quasars": sum(recipe.share(i) for i, _ in waiting)}
        return StageResult("simulate", len(waiting), len(units) - len(waiting), counts=counts, dry_run=True)

    report.start("simulate", sum(recipe.share(i) for i, _ in waiting), "quasars")
    failures = []
    for outcome in run_units(functools.partial(_simulate_unit, Path(directory), recipe), waiting, jobs):
        if outcome.error is not None:
            failures.append(Failure(str(outcome.unit[1]), outcome.error))
        report.advance(recipe.share(outcome.unit[0]))
    done = [unit for unit in units if str(unit[1]) not in {failure.unit for failure in failures}]
    truth, counts = _write_truth(Path(directory), recipe, done)
    return StageResult(
        "simulate",
        n_done=len(waiting) - len(failures),
        n_skipped=len(units) - len(waiting),
        failures=tuple(failures),
        paths=(Path(directory) / _HEALPIX_FOLDER, truth),
        counts=counts,
        seconds=time.monotonic() - started,
    )


def _check(recipe: Recipe) -> None:
    if recipe.quasars < 1:
        raise ConfigError(f"quasars must be at least 1, not {recipe.quasars}")
    if not 1 <= recipe.healpix <= recipe.quasars:
        raise ConfigError(f"healpix must be between 1 and the number of quasars ({recipe.quasars}), not {recipe.healpix}")
    if math.ceil(recipe.quasars / recipe.healpix) > MAX_PER_PIXEL:
        raise ConfigError(f"more than {MAX_PER_PIXEL:,} quasars in a pixel; use more pixels (healpix)")
    if recipe.healpix > (most := targets.footprint_size()):
        raise ConfigError(f"the footprint has {most:,} pixels, not {recipe.healpix:,}")
    for name in ("anomaly_rate", "artefact_rate"):
        value = getattr(recipe, name)
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"{name} must be between 0 and 1, not {value}")
    if recipe.anomaly_rate + recipe.artefact_rate > 1.0:
        raise ConfigError("anomaly_rate and artefact_rate together exceed 1: a quasar carries one of them at most")
    if not 0.0 <= recipe.contaminants <= 100.0:
        raise ConfigError(f"contaminants must be between 0 and 100 per quasar, not {recipe.contaminants}")
    if recipe.seed < 0:
        raise ConfigError(f"seed must not be negative, not {recipe.seed}")
    if recipe.survey not in layout.SURVEYS:
        raise ConfigError(f"survey must be one of {', '.join(layout.SURVEYS)}, not {recipe.survey!r}")
    if recipe.program not in layout.PROGRAMS:
        raise ConfigError(f"program must be one of {', '.join(layout.PROGRAMS)}, not {recipe.program!r}")


def orders(recipe: Recipe, index: int, rng: np.random.Generator) -> list[Order]:
    """Return what the rows of a pixel shall be, in the order of the file.

    Over all pixels the planted quasars are the rates' share to within one, and every class comes up equally often.
    """
    first = recipe.quasars * index // recipe.healpix
    made: list[Order] = []
    for place in range(first, first + recipe.share(index)):
        made.append(_order(recipe, place, rng))
    extra = recipe.contaminants * recipe.quasars
    count = math.floor(extra * (index + 1) / recipe.healpix) - math.floor(extra * index / recipe.healpix)
    made += [Order(pick(rng, KINDS)) for _ in range(count)]
    return [made[int(i)] for i in rng.permutation(len(made))]


def _order(recipe: Recipe, place: int, rng: np.random.Generator) -> Order:
    anomaly = _turn(place, recipe.anomaly_rate)
    artefact = _turn(place, recipe.anomaly_rate + recipe.artefact_rate) if anomaly is None else None
    strength = float(rng.random())
    if anomaly is not None:
        return Order("qso", anomaly=_nth(tuple(ANOMALIES), anomaly, recipe.seed), strength=strength)
    if artefact is not None:
        return Order("qso", artefact=_nth(tuple(ARTEFACTS), artefact, recipe.seed), strength=strength)
    return Order("qso")


def _turn(place: int, rate: float) -> int | None:
    """Return the how-manyth planted one the quasar at `place` is if the share `rate` is planted, evenly; None: not planted."""
    before, after = math.floor(place * rate + 1e-9), math.floor((place + 1) * rate + 1e-9)
    return before if after > before else None


def _nth(names: tuple[str, ...], n: int, seed: int) -> str:
    """Return the `n`-th name of an endless list in which each round holds every name once, in random order."""
    turn, place = divmod(n, len(names))
    return names[int(np.random.default_rng([seed, turn, len(names)]).permutation(len(names))[place])]


def _make_rows(recipe: Recipe, index: int, pixel: Pixel) -> list[Row]:
    seeds = np.random.SeedSequence([recipe.seed, pixel.healpix, hash_number(f"{pixel.survey}/{pixel.program}")])
    rng = np.random.default_rng(seeds)
    planned = orders(recipe, index, rng)
    tiles = targets.draw_tiles(rng, TILES_PER_PIXEL)
    ra, dec = targets.draw_positions(rng, pixel.healpix, len(planned))
    dust = 0.035 * float(np.exp(0.5 * rng.normal())) * np.exp(0.08 * rng.normal(size=len(planned)))
    objids = rng.choice(8000, len(planned), replace=False) if len(planned) < 4000 else rng.permutation(len(planned) * 2)
    children = seeds.spawn(len(planned))
    return [
        make_row(
            np.random.default_rng(children[i]), order, (float(ra[i]), float(dec[i])), int(objids[i]), tiles, float(dust[i])
        )
        for i, order in enumerate(planned)
    ]


def hash_number(text: str) -> int:
    """Return a number that stands for a text, the same in every process."""
    return int(hash_document(text)[:8], 16)


def _folder(directory: Path, pixel: Pixel) -> Path:
    return layout.pixel_folder(directory / _HEALPIX_FOLDER, pixel)


def _receipt(directory: Path, pixel: Pixel) -> Path:
    return directory / _RECEIPTS / f"{pixel.name}.json"


def _recipe_hash(recipe: Recipe, index: int) -> str:
    return hash_document({**vars(recipe), "index": index, "version": qad.__version__})


def _is_done(directory: Path, recipe: Recipe, index: int, pixel: Pixel) -> bool:
    """Whether a pixel's files are those of this recipe: the receipt says so, and names and sizes agree."""
    receipt = read_receipt(_receipt(directory, pixel))
    if receipt.get("recipe") != _recipe_hash(recipe, index):
        return False
    folder = _folder(directory, pixel)
    sizes = receipt.get("sizes", {})
    return bool(sizes) and all((folder / name).is_file() and (folder / name).stat().st_size == n for name, n in sizes.items())


def _simulate_unit(directory: Path, recipe: Recipe, unit: tuple[int, Pixel]) -> int:
    """Make one pixel, and return its rows."""
    index, pixel = unit
    rows = _make_rows(recipe, index, pixel)
    paths = write_pixel(_folder(directory, pixel), pixel, rows, recipe.resolution)
    document = {
        "recipe": _recipe_hash(recipe, index),
        "sizes": {path.name: path.stat().st_size for path in paths},
        "truth": _truth_columns(pixel, rows),
    }
    write_json(_receipt(directory, pixel), document)
    return len(rows)


def _truth_columns(pixel: Pixel, rows: list[Row]) -> dict[str, list[Any]]:
    return {
        "targetid": [str(row.targetid) for row in rows],
        "survey": [pixel.survey] * len(rows),
        "program": [pixel.program] * len(rows),
        "healpix": [pixel.healpix] * len(rows),
        "kind": [row.order.kind for row in rows],
        "z_true": [row.z_true for row in rows],
        "anomaly": [row.order.anomaly for row in rows],
        "artefact": [row.order.artefact for row in rows],
        "strength": [row.order.strength if row.order.anomaly or row.order.artefact else None for row in rows],
        "snr_true": [row.snr_true for row in rows],
    }


def _write_truth(directory: Path, recipe: Recipe, units: list[tuple[int, Pixel]]) -> tuple[Path, dict[str, float]]:
    """Gather the truth of the pixels into one table sorted by TARGETID, and count."""
    columns: dict[str, list[Any]] = {column.name: [] for column in TRUTH.columns}
    for _, pixel in units:
        for name, values in read_receipt(_receipt(directory, pixel))["truth"].items():
            columns[name] += values
    columns["targetid"] = [int(text) for text in columns["targetid"]]
    order = sorted(range(len(columns["targetid"])), key=columns["targetid"].__getitem__)
    columns = {name: [values[i] for i in order] for name, values in columns.items()}
    path = directory / "truth.parquet"
    settings = {**vars(recipe), "healpix_numbers": [pixel.healpix for _, pixel in units]}
    write_table(path, make_table(TRUTH, columns), TRUTH, Provenance("simulate", settings, specprod=layout.SPECPROD))
    counts: dict[str, float] = {"rows": len(order)}
    for kind in columns["kind"]:
        add_counts(counts, {f"kind.{kind}": 1})
    for name in ("anomaly", "artefact"):
        for value in columns[name]:
            if value is not None:
                add_counts(counts, {f"{name}.{value}": 1})
    counts["bytes"] = sum(f.stat().st_size for _, pixel in units for f in _folder(directory, pixel).iterdir() if f.is_file())
    return path, counts


__all__ = ["Recipe", "hash_file", "orders", "simulate"]
