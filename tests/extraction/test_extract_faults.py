"""``qad extract`` on bad days, through the command: damaged pixels, killed workers, a sudden end, a full disk."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crashing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutating import Pair, draw
from mutating.fitsbytes import Part, join, split
from mutating.judge import put

from qad.extraction.unit import Unit, extract_unit
from qad.schema import SPECTRA
from qad.settings import Extract
from qad.storage.parquet import read_table
from qad.work.units import Pixel

DAMAGE = (
    "replaced", "not_a_file", "cut_off", "end_of_zeros", "flipped_bit", "size_huge_or_negative", "end_missing", "doubled",
    "swapped_files", "wavelength_wrong", "sparse",
)  # fmt: skip
N_GOOD = 5
ROOM = 40_000
"""Bytes that a file may have where the disk is full: less than a table of two spectra."""


@pytest.fixture
def pixels(kit: Any) -> list[Pixel]:
    """A release of more pixels than kinds of damage; each has targets of its own."""
    found = [Pixel("main", "dark", 100 + i) for i in range(len(DAMAGE) + N_GOOD)]
    for i, pixel in enumerate(found):
        kit.release.add(
            pixel, [kit.Target(1000 * i + 1), kit.Target(1000 * i + 2, z=1.0), kit.Target(1000 * i + 3, 0.2, "STAR")]
        )
    return found


def tables(root: Path) -> dict[str, bytes]:
    """The tables of a work directory, by name."""
    return crashing.finals(root / "spectra")


def clean(kit: Any, name: str = "clean") -> dict[str, bytes]:
    """What a run without faults leaves."""
    assert kit.extract(name).failures == ()
    return tables(kit.folder / name)


def qad_extract(kit: Any, *more: object) -> list[object]:
    return ["extract", "--source", kit.release.root, "--root", kit.folder / "work", *more]


def refused_mutant(name: str, pair: Pair) -> Any:
    """The first mutant of a mutation that must be refused."""
    for seed in range(100):
        mutant = draw(name, seed, pair)
        if mutant is not None and mutant.expect.kinds == ("reject",):
            return mutant
    raise AssertionError(name)


def test_damaged_pixels_are_named_and_the_others_are_those_of_a_run_without_them(kit: Any, pixels: list[Pixel]) -> None:
    expected = clean(kit)
    damaged = dict(zip(pixels, DAMAGE, strict=False))
    words = {}
    for pixel, name in damaged.items():
        paths = dict(zip(("coadd", "redrock"), kit.release.paths(pixel), strict=True))
        mutant = refused_mutant(name, Pair(pixel, paths["coadd"].read_bytes(), paths["redrock"].read_bytes()))
        for which, path in paths.items():
            path.unlink()
            put(path, mutant.pair.file(which), mutant.special if which == mutant.which else "")
        words[str(pixel)] = (paths[mutant.which].name, mutant.expect.words)
    done = crashing.run(*qad_extract(kit, "--jobs", 2, "--json"))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    reasons = {failure["unit"]: failure["reason"] for failure in document["failures"]}
    assert set(reasons) == {str(pixel) for pixel in damaged}
    for unit, (file, hdus) in words.items():
        assert file in reasons[unit], reasons[unit]
        assert not hdus or any(hdu in reasons[unit] for hdu in hdus), reasons[unit]
    lost = {f"{pixel.name}.parquet" for pixel in damaged}
    assert tables(kit.folder / "work") == {name: raw for name, raw in expected.items() if name not in lost}
    counts = document["counts"]
    dropped = sum(n for name, n in counts.items() if name.startswith("dropped."))
    assert counts["rows_in"] == counts["rows_out"] + dropped == 3 * N_GOOD
    assert not crashing.parts(kit.folder / "work")


def test_a_killed_worker_costs_its_unit_and_no_other(kit: Any, pixels: list[Pixel]) -> None:
    expected = clean(kit)
    with crashing.start(*qad_extract(kit, "--jobs", 2, "--json")) as process:
        crashing.wait_for(process, kit.folder / "work" / "spectra", 2)
        for worker in crashing.workers_of(process)[:1]:
            os.kill(worker, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    document = json.loads(stdout)
    assert [f["reason"] for f in document["failures"]] == ["its worker process died (exit code -9); out of memory?"]
    (unit,) = (failure["unit"] for failure in document["failures"])
    assert document["n_done"] == len(pixels) - 1
    assert tables(kit.folder / "work").items() <= expected.items()
    assert len(tables(kit.folder / "work")) >= len(pixels) - 1, "none lost but the unit, which may have just been done"
    again = crashing.run(*qad_extract(kit, "--jobs", 2, "--json", "--healpix", unit.rpartition("/")[2]))
    assert again.returncode == 0, again.stderr
    assert tables(kit.folder / "work") == expected


def test_killed_while_writing_leaves_whole_tables_and_goes_on(kit: Any, pixels: list[Pixel]) -> None:
    expected, drawn = clean(kit), random.Random(5)
    for _ in range(2):
        process = crashing.start(*qad_extract(kit, "--jobs", 2))
        crashing.kill_while_writing(process, kit.folder / "work" / "spectra", drawn, 0.3)
        assert tables(kit.folder / "work").items() <= expected.items()
    done = crashing.run(*qad_extract(kit, "--jobs", 2))
    assert done.returncode == 0, done.stderr
    assert tables(kit.folder / "work") == expected


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_is_exit_5_and_has_nothing_half_written(kit: Any, pixels: list[Pixel], jobs: int) -> None:
    expected = clean(kit)
    done = crashing.run(*qad_extract(kit, "--jobs", jobs), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM)))  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "no space left" in done.stderr
    assert str(kit.folder / "work" / "spectra") in done.stderr
    assert "Traceback" not in done.stderr
    assert tables(kit.folder / "work") == {}
    # of two workers the other one is stopped in the middle of its file, which has no final name
    assert jobs == 2 or not crashing.parts(kit.folder / "work")
    assert crashing.run(*qad_extract(kit, "--jobs", jobs)).returncode == 0
    assert tables(kit.folder / "work") == expected


def test_a_small_disk_that_fills_up_keeps_what_is_whole(kit: Any, pixels: list[Pixel]) -> None:
    expected = clean(kit)
    size = sum(map(len, expected.values()))
    with crashing.small_disk(kit.folder / "work", size // 2) as is_mounted:
        if not is_mounted:
            pytest.skip("no file system may be mounted here")
        done = crashing.run(*qad_extract(kit, "--jobs", 2))
        assert done.returncode == 5, done.stderr
        assert "no space left" in done.stderr
        there = tables(kit.folder / "work")
        assert there.items() <= expected.items()
        assert 0 < len(there) < len(expected)
        crashing.make_room(kit.folder / "work", 4 * size)
        assert crashing.run(*qad_extract(kit, "--jobs", 2)).returncode == 0
        assert tables(kit.folder / "work") == expected


# laws


def extracted(kit: Any, pixel: Pixel, coadd: bytes, redrock: bytes) -> Any:
    """The table of a pair of files, without what names them."""
    folder = kit.folder / "law"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    paths = [folder / path.name for path in kit.release.paths(pixel)]
    for path, raw in zip(paths, (coadd, redrock), strict=True):
        path.write_bytes(raw)
    unit = Unit(pixel, paths[0], paths[1], folder / "table.parquet", folder / "receipt.json")
    extract_unit(unit, Extract())
    return read_table(unit.output, SPECTRA).replace_schema_metadata(None)


TARGETIDS = [39627866878511337, 616088619186127404, 7, -5, 2**60, 1]


@pytest.fixture
def pair(kit: Any) -> tuple[Pixel, bytes, bytes]:
    """A pair of six quasars."""
    paths = kit.release.add(kit.PIXEL, [kit.Target(targetid, z=0.5 + i / 3) for i, targetid in enumerate(TARGETIDS)])
    return kit.PIXEL, paths[0].read_bytes(), paths[1].read_bytes()


LAW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@LAW
@given(rows=st.permutations(range(6)), redrock_rows=st.permutations(range(6)), seed=st.integers(0, 99))
def test_neither_the_order_of_rows_nor_that_of_hdus_matters(
    kit: Any, pair: Any, rows: list[int], redrock_rows: list[int], seed: int
) -> None:
    pixel, coadd, redrock = pair
    plain = extracted(kit, pixel, coadd, redrock)

    def shuffled(raw: bytes, order: list[int], of: Callable[[str], bool]) -> bytes:
        primary, *hdus = split(raw)
        for part in hdus:
            if of(part.name):
                part.take_rows(order)
                part.seal()
        random.Random(seed).shuffle(hdus)
        return join([primary, *hdus])

    other = extracted(
        kit,
        pixel,
        shuffled(
            coadd,
            rows,
            lambda name: name.endswith(("FLUX", "IVAR", "MASK", "FIBERMAP", "SCORES")) and name[:3] != "EXP",
        ),
        shuffled(redrock, redrock_rows, lambda name: name == "REDSHIFTS"),
    )
    assert other.equals(plain)


@LAW
@given(first=st.sets(st.integers(0, 5)))
def test_rows_split_over_two_pairs_of_files_are_the_same_rows(kit: Any, pair: Any, first: set[int]) -> None:
    import pyarrow as pa

    pixel, coadd, redrock = pair
    plain = extracted(kit, pixel, coadd, redrock)

    def some(raw: bytes, rows: list[int]) -> bytes:
        hdus = split(raw)
        for part in hdus:
            if is_by_row(part):
                part.take_rows(rows)
                part.seal()
        return join(hdus)

    halves = [sorted(first), sorted(set(range(6)) - first)]
    found = [extracted(kit, pixel, some(coadd, rows), some(redrock, rows)) for rows in halves]
    joined = pa.concat_tables(found, promote_options="permissive").sort_by("targetid")
    for name in plain.schema.names:
        assert joined.column(name).to_pylist() == plain.column(name).to_pylist(), name


def is_by_row(part: Part) -> bool:
    """Whether an HDU has a row for each target."""
    return part.name.endswith(("FLUX", "IVAR", "MASK")) or part.name in ("FIBERMAP", "SCORES", "REDSHIFTS")
