"""The release as a whole: truth, determinism, re-running, the command."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from qad.cli.main import app
from qad.errors import ConfigError, StorageError
from qad.schema import TRUTH
from qad.simulation.anomalies import ANOMALIES
from qad.simulation.artefacts import ARTEFACTS
from qad.simulation.recipe import Recipe, orders
from qad.simulation.release import simulate
from qad.simulation.targets import draw_objids, footprint, objid_slot
from qad.storage.parquet import read_table

ARGUMENTS = {"quasars": 12, "healpix": 2, "anomaly_rate": 0.25, "artefact_rate": 0.25, "resolution": False, "seed": 11}


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its relative name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_arguments_give_the_same_bytes_whatever_the_jobs(tmp_path: Path) -> None:
    simulate(tmp_path / "one", **ARGUMENTS, jobs=1)
    simulate(tmp_path / "two", **ARGUMENTS, jobs=2)
    simulate(tmp_path / "other", **{**ARGUMENTS, "seed": 12}, jobs=1)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert bytes_of(tmp_path / "one")["truth.parquet"] != bytes_of(tmp_path / "other")["truth.parquet"]


def test_truth_has_a_row_for_every_row_of_every_file(small_release: Path) -> None:
    truth = read_table(small_release / "truth.parquet", TRUTH).to_pylist()
    listed = Counter((row["survey"], row["program"], row["healpix"], row["targetid"]) for row in truth)
    found: Counter = Counter()
    for path in small_release.rglob("coadd-*.fits"):
        header = fits.getheader(path)
        for targetid in fits.getdata(path, "FIBERMAP")["TARGETID"].tolist():
            found[header["SURVEY"], header["PROGRAM"], header["HPXPIXEL"], targetid] += 1
    assert listed == found
    assert [row["targetid"] for row in truth] == sorted(row["targetid"] for row in truth)


def test_truth_says_what_is_planted_and_how_strong(small_release: Path) -> None:
    truth = [row for row in read_table(small_release / "truth.parquet", TRUTH).to_pylist() if row["program"] == "dark"]
    anomalies = [row for row in truth if row["anomaly"]]
    artefacts = [row for row in truth if row["artefact"]]
    assert len([row for row in truth if row["kind"] == "qso"]) == 60
    assert (len(anomalies), len(artefacts)) == (18, 6)
    assert all(row["kind"] == "qso" and 0 <= row["strength"] <= 1 for row in anomalies + artefacts)
    assert all(row["strength"] is None for row in truth if not row["anomaly"] and not row["artefact"])
    assert all(row["z_true"] is None for row in truth if row["kind"] in ("sky", "dead"))


def test_every_class_is_planted_equally_often_and_the_rates_hold() -> None:
    recipe = Recipe(20_000, 7, 0.05, 0.03, 0.0, 0.0, 4, "main", "dark", True)
    made = [order for i in range(7) for order in orders(recipe, i, np.random.default_rng(i))]
    anomalies = Counter(order.anomaly for order in made if order.anomaly)
    artefacts = Counter(order.artefact for order in made if order.artefact)
    assert len(made) == 20_000
    assert sum(anomalies.values()) == pytest.approx(1000, abs=1)
    assert sum(artefacts.values()) == pytest.approx(600, abs=1)
    assert set(anomalies) == set(ANOMALIES)
    assert set(artefacts) == set(ARTEFACTS)
    assert max(anomalies.values()) - min(anomalies.values()) <= 1
    assert max(artefacts.values()) - min(artefacts.values()) <= 1


def test_only_the_classes_asked_for_are_planted(tmp_path: Path) -> None:
    result = simulate(tmp_path, **ARGUMENTS, anomalies=["hibal", "reddened"])
    planted = {name: n for name, n in result.counts.items() if name.startswith("anomaly.")}
    assert set(planted) == {"anomaly.hibal", "anomaly.reddened"}
    assert sum(planted.values()) == 3


def test_repeats_are_the_same_targets_observed_anew(small_release: Path) -> None:
    dark = {path.name.split("-")[-1]: path for path in small_release.rglob("coadd-main-dark-*.fits")}
    repeats = list(small_release.rglob("coadd-main-bright-*.fits"))
    assert repeats
    for path in repeats:
        with fits.open(path) as again, fits.open(dark[path.name.split("-")[-1]]) as first:
            place = {t: i for i, t in enumerate(first["FIBERMAP"].data["TARGETID"])}
            for i, targetid in enumerate(again["FIBERMAP"].data["TARGETID"]):
                j = place[targetid]
                for name in ("TARGET_RA", "TARGET_DEC", "FLUX_R", "EBV"):
                    assert again["FIBERMAP"].data[name][i] == first["FIBERMAP"].data[name][j]
                assert not np.array_equal(again["R_FLUX"].data[i], first["R_FLUX"].data[j])


def test_finished_pixels_are_skipped_and_damaged_ones_made_again(tmp_path: Path) -> None:
    first = simulate(tmp_path, **ARGUMENTS)
    before = bytes_of(tmp_path)
    assert (first.n_done, first.n_skipped) == (2, 0)
    assert (simulate(tmp_path, **ARGUMENTS).n_done, simulate(tmp_path, **ARGUMENTS).n_skipped) == (0, 2)
    next(tmp_path.rglob("coadd-*.fits")).write_bytes(b"damaged")
    assert simulate(tmp_path, **ARGUMENTS).n_done == 1
    assert simulate(tmp_path, **ARGUMENTS, force=True).n_done == 2
    assert bytes_of(tmp_path) == before


def test_verify_finds_damage_that_keeps_the_size(tmp_path: Path) -> None:
    simulate(tmp_path, **ARGUMENTS)
    before = bytes_of(tmp_path)
    path = next(tmp_path.rglob("redrock-*.fits"))
    content = bytearray(path.read_bytes())
    content[-3000] ^= 1
    path.write_bytes(content)
    assert simulate(tmp_path, **ARGUMENTS).n_done == 0
    assert simulate(tmp_path, **ARGUMENTS, verify=True).n_done == 1
    assert bytes_of(tmp_path) == before


def test_neighbouring_pixels_share_no_identifier() -> None:
    """A brick may lie in several pixels, and the numbers of its objects must not meet."""
    from astropy_healpix import neighbours

    pixels = footprint()
    with np.errstate(invalid="ignore"):  # some pixels have seven neighbours
        around = neighbours(pixels, 64, order="nested")
    slots = np.array([objid_slot(pixel) for pixel in range(12 * 64**2)])
    assert slots.max() < 512
    assert not np.any(np.isin(around, pixels) & (around >= 0) & (slots[around] == slots[pixels]))
    assert len(set(draw_objids(np.random.default_rng(0), 255, 8000))) == 8000


def test_other_arguments_replace_what_the_old_ones_left(tmp_path: Path) -> None:
    simulate(tmp_path / "reused", **{**ARGUMENTS, "seed": 1})
    simulate(tmp_path / "reused", **ARGUMENTS)
    simulate(tmp_path / "fresh", **ARGUMENTS)
    assert bytes_of(tmp_path / "reused") == bytes_of(tmp_path / "fresh")


def test_a_second_survey_joins_the_release_and_its_truth(tmp_path: Path) -> None:
    simulate(tmp_path, **ARGUMENTS)
    simulate(tmp_path, **ARGUMENTS, survey="sv3")
    truth = read_table(tmp_path / "truth.parquet", TRUTH).to_pylist()
    assert Counter(row["survey"] for row in truth if row["kind"] == "qso") == {"main": 12, "sv3": 12}


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = simulate(tmp_path / "release", **ARGUMENTS, dry_run=True)
    assert (result.n_done, result.counts["quasars"], result.dry_run) == (2, 12, True)
    assert not (tmp_path / "release").exists()
    made = simulate(tmp_path / "release", **ARGUMENTS)
    assert made.counts["rows"] == result.counts["rows"]
    assert result.counts["bytes"] == pytest.approx(made.counts["bytes"], rel=0.25)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        simulate(tmp_path / "file", **ARGUMENTS)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"quasars": 0}, "quasars"),
        ({"healpix": 0}, "healpix"),
        ({"healpix": 13}, "healpix"),
        ({"anomaly_rate": 1.5}, "anomaly_rate"),
        ({"artefact_rate": -0.1}, "artefact_rate"),
        ({"anomaly_rate": 0.7, "artefact_rate": 0.7}, "exceed 1"),
        ({"contaminants": -1.0}, "contaminants"),
        ({"anomaly_rate": float("nan")}, "anomaly_rate"),
        ({"seed": -1}, "seed"),
        ({"survey": "sdss"}, "survey"),
        ({"program": "noon"}, "program"),
        ({"anomalies": ["hibal", "ufo"]}, "ufo"),
        ({"quasars": 10_000_000, "healpix": 10}, "more pixels"),
        ({"quasars": 1_000_000, "healpix": 40_000}, "footprint"),
    ],
)
def test_impossible_arguments_are_named(tmp_path: Path, wrong: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        simulate(tmp_path, **{**ARGUMENTS, **wrong})
    assert not list(tmp_path.iterdir())


def test_command_takes_the_flags_of_the_contract_and_reports_json(tmp_path: Path) -> None:
    arguments = ["simulate", str(tmp_path / "out"), "--quasars", "6", "--healpix", "2", "--anomaly-rate", "0.5"]
    result = CliRunner().invoke(app, [*arguments, "--seed", "5", "--no-resolution", "--jobs", "1", "--json", "--quiet"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["stage"], document["n_done"], document["counts"]["kind.qso"]) == ("simulate", 2, 6)
    assert sum(n for name, n in document["counts"].items() if name.startswith("anomaly.")) == 3
    assert (tmp_path / "out" / "truth.parquet").is_file()
    assert (tmp_path / "out" / "spectro/redux/iron/healpix/main/dark").is_dir()


def test_command_refuses_bad_arguments_in_one_line(tmp_path: Path) -> None:
    for bad in (["--quasars", "0"], ["--anomaly-rate", "2"], ["--survey", "sdss"]):
        result = CliRunner().invoke(app, ["simulate", str(tmp_path / "out"), *bad])
        assert result.exit_code == 2
        assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
