"""The main job on real quasars: a release of real DESI spectra, scored by a model trained on simulated ones."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from astropy.io import fits

Qad = Callable[..., "subprocess.CompletedProcess[str]"]
Row = dict[str, str]

pytestmark = pytest.mark.slow

CAMERA_START = {"B": 0, "R": 2700, "Z": 4900}
N_WAVE = 7781
WAVE = 3600.0 + 0.8 * np.arange(N_WAVE)


@pytest.fixture(scope="module")
def known(real_release: Path) -> list[Row]:
    with (real_release / "truth.csv").open() as handle:
        return [row for row in csv.DictReader(handle) if row["spectype"] == "QSO" and row["zwarn"] == "0"]


@pytest.fixture(scope="module")
def root(survey, qad: Qad, real_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("real") / "work"
    model = survey.root / "models" / "default"
    done = qad("run", "--source", real_release, "--root", root, "--model", model, "--json", cwd=root.parent)
    assert done.returncode == 0, done.stderr
    assert [stage["stage"] for stage in json.loads(done.stdout)["stages"]] == ["extract", "build-grid", "score"]
    return root


@pytest.fixture(scope="module")
def spectra(root: Path) -> pl.DataFrame:
    frame = pl.concat([pl.read_parquet(path) for path in sorted((root / "spectra").glob("*.parquet"))])
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String))


def merged_by_hand(release: Path, known: list[Row]) -> Iterator[tuple[Row, np.ndarray, np.ndarray]]:
    """Yield each known row with its merged flux and ivar: an independent reimplementation, pixel by pixel."""
    for row in known:
        pixel = int(row["healpix"])
        folder = release / f"spectro/redux/iron/healpix/{row['survey']}/{row['program']}/{pixel // 100}/{pixel}"
        flux, ivar = np.zeros(N_WAVE), np.zeros(N_WAVE)
        with fits.open(folder / f"coadd-{row['survey']}-{row['program']}-{pixel}.fits") as hdus:
            index = list(hdus["FIBERMAP"].data["TARGETID"]).index(int(row["targetid"]))
            for camera, start in CAMERA_START.items():
                values = hdus[f"{camera}_FLUX"].data[index].astype(float)
                weights = hdus[f"{camera}_IVAR"].data[index].astype(float) * (hdus[f"{camera}_MASK"].data[index] == 0)
                for k, (value, weight) in enumerate(zip(values, weights, strict=True)):
                    flux[start + k] += weight * value
                    ivar[start + k] += weight
        yield row, np.divide(flux, ivar, out=np.zeros(N_WAVE), where=ivar > 0), ivar


def test_exactly_the_good_quasars_are_extracted_at_their_redshifts(spectra: pl.DataFrame, known: list[Row]) -> None:
    expected = {(int(row["targetid"]), row["survey"], row["program"]): float(row["z"]) for row in known}
    found = {(row["targetid"], row["survey"], row["program"]): row["z"] for row in spectra.iter_rows(named=True)}
    assert len(expected) == 13
    assert set(found) == set(expected)
    assert len({targetid for targetid, _, _ in found}) == 12
    for key, z in expected.items():
        assert found[key] == pytest.approx(z, abs=2e-5)


def test_merged_spectra_equal_an_independent_merging(
    spectra: pl.DataFrame, known: list[Row], real_release: Path
) -> None:
    for row, flux, ivar in merged_by_hand(real_release, known):
        same = pl.all_horizontal(pl.col(name) == row[name] for name in ("survey", "program"))
        one = spectra.filter((pl.col("targetid") == int(row["targetid"])) & same)
        assert np.allclose(one["ivar"][0].to_numpy(), ivar, rtol=1e-6, atol=0)
        assert np.allclose(one["flux"][0].to_numpy(), flux, rtol=1e-5, atol=1e-6 * np.abs(flux).max())


def test_missing_camera_has_no_weight_and_no_snr(spectra: pl.DataFrame) -> None:
    row = spectra.filter((pl.col("targetid") == 43977493161443436) & (pl.col("program") == "bright"))
    assert row["snr_z"][0] is None
    assert row["snr_b"][0] > 10
    assert (row["ivar"][0].to_numpy()[CAMERA_START["Z"] + 126 :] == 0).all()


def excess(flux: np.ndarray, ivar: np.ndarray, wave_rest: np.ndarray, centre: float, half: float) -> float:
    """Return how many sigma the mean flux near `centre` lies above the mean of both sides of it."""

    def mean(low: float, high: float) -> tuple[float, float]:
        inside = (wave_rest > low) & (wave_rest < high)
        total = ivar[inside].sum()
        return float((ivar * flux)[inside].sum() / total), float(1 / total)

    middle, var = mean(centre - half, centre + half)
    blue, var_blue = mean(centre - 4 * half, centre - 3 * half)
    red, var_red = mean(centre + 3 * half, centre + 4 * half)
    return float((middle - (blue + red) / 2) / np.sqrt(var + (var_blue + var_red) / 4))


@pytest.mark.parametrize(("line", "centre"), [("Lya", 1217.0), ("C IV", 1546.0)])
def test_strong_lines_stand_where_they_should(spectra: pl.DataFrame, line: str, centre: float) -> None:
    bright = spectra.filter((pl.col("z").is_between(2.0, 4.5)) & (pl.col("snr") > 2))
    significance = []
    for row in bright.iter_rows(named=True):
        wave_rest = WAVE / (1 + row["z"])
        if wave_rest[0] < centre - 60:
            significance.append(excess(np.array(row["flux"]), np.array(row["ivar"]), wave_rest, centre, 12.0))
    assert len(significance) >= 3
    assert np.median(significance) > 5


def test_real_quasars_are_scored_by_the_simulated_population(root: Path) -> None:
    scores = pl.read_parquet(root / "scores" / "default.parquet")
    assert scores.height == 13
    assert np.isfinite(scores["score"].to_numpy()).all()
    assert (scores["reason"].str.len_chars() > 0).all()
