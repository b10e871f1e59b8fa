"""What a person sees of ``qad fetch``: the plan, the story at the end, how to try again, and what `qad status` says."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from s3server import run_qad

import qad


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated release of three pixels."""
    root = tmp_path_factory.mktemp("simulated")
    qad.simulate(root, quasars=30, healpix=3, seed=3, resolution=True, jobs=1)
    return root


def fetch(release: Path, root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run_qad("fetch", "--source", str(release), "--root", str(root), *more, cwd=root.parent)


def healpix_of(release: Path) -> Path:
    return release / "spectro/redux/iron/healpix"


def quasars_of(redrock: Path) -> list[tuple[int, float, float]]:
    """Return TARGETID and position of the quasars without warnings."""
    with fits.open(redrock) as hdus:
        found, places = hdus["REDSHIFTS"].data, hdus["FIBERMAP"].data
        good = (found["SPECTYPE"] == "QSO") & (found["ZWARN"] == 0)
        columns = (found["TARGETID"][good], places["TARGET_RA"][good], places["TARGET_DEC"][good])
        return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_dry_run_tells_quasars_bytes_and_time_of_each_mode_and_writes_nothing(release: Path, tmp_path: Path) -> None:
    shown = fetch(release, tmp_path / "work", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "wanted rows, counted in 3 pixels" in shown.stdout
    assert [line.split()[1] for line in shown.stdout.splitlines() if "--mode" in line and "*" not in line] == [
        "files",
        "hdus",
    ]
    assert " * --mode rows" in shown.stdout
    document = json.loads(fetch(release, tmp_path / "work", "--dry-run", "--json").stdout)
    by_mode = {mode: amount["value"] for mode, amount in document["bytes_by_mode"].items()}
    assert by_mode["rows"] < by_mode["hdus"] < by_mode["files"]
    assert set(document["seconds_by_mode"]) == set(by_mode)
    assert not (tmp_path / "work").exists()


def test_the_dry_run_was_right(release: Path, tmp_path: Path) -> None:
    planned = json.loads(fetch(release, tmp_path / "work", "--dry-run", "--json").stdout)
    done = json.loads(fetch(release, tmp_path / "work", "--json").stdout)
    assert done["counts"]["rows_fetched"] == planned["quasars"]["value"]
    cut = sum(path.stat().st_size for path in (tmp_path / "work").rglob("*.fits"))
    assert cut == pytest.approx(planned["bytes_by_mode"]["rows"]["value"], rel=0.1)
    again = json.loads(fetch(release, tmp_path / "work", "--dry-run", "--json").stdout)
    assert (again["n_done"], again["counts"]["bytes_to_fetch"]) == (0, 0)


def test_the_end_tells_what_was_saved_and_status_how_much_is_here(release: Path, tmp_path: Path) -> None:
    done = fetch(release, tmp_path / "work")
    assert "of the whole files" in done.stdout.splitlines()[-1]
    status = run_qad("status", "--root", str(tmp_path / "work"), cwd=tmp_path)
    assert "dr1: 3 of the 3 pixels last asked for are here (--mode rows" in status.stdout
    folder = next((tmp_path / "work/raw").rglob("coadd-*.fits")).parent
    shutil.rmtree(folder)
    document = json.loads(run_qad("status", "--root", str(tmp_path / "work"), "--json", cwd=tmp_path).stdout)
    (wanted,) = document["wanted"]
    assert (wanted["n_here"], wanted["n_pixels"]) == (2, 3)
    assert wanted["missing"] == ["/".join((*folder.parts[-4:-2], folder.name))]


def test_the_command_that_is_offered_fetches_what_failed(release: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken copy"
    shutil.copytree(release, broken)
    redrock = sorted(broken.rglob("redrock-*.fits"))[0]
    whole = redrock.read_bytes()
    redrock.write_bytes(whole[:-2880])
    failed = fetch(broken, tmp_path / "work", "--mode", "hdus", "--resolution")
    assert failed.returncode == 1
    (offered,) = [line for line in failed.stdout.splitlines() if line.startswith("to try again: ")]
    words = shlex.split(offered.removeprefix("to try again: "))
    assert words[:2] == ["qad", "fetch"]
    redrock.write_bytes(whole)
    again = run_qad(*words[1:], "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    counts = json.loads(again.stdout)["counts"]
    assert (counts["pixels"], counts["pixels_failed"], counts["files_fetched"]) == (1, 0, 2)


@pytest.mark.parametrize("how", ["targetid", "position", "csv"])
def test_listed_targets_are_fetched_and_those_that_are_nowhere_are_told(
    release: Path, tmp_path: Path, how: str
) -> None:
    rows = [row for path in sorted(healpix_of(release).rglob("redrock-*.fits")) for row in quasars_of(path)][::9][:3]
    targetid, ra, dec = ([row[i] for row in rows] for i in range(3))
    path = tmp_path / ("targets.csv" if how == "csv" else "targets.parquet")
    if how == "position":
        pq.write_table(pa.table({"RA": np.array([*ra, 10.0]), "DEC": np.array([*dec, 89.0])}), path)
    elif how == "csv":
        lines = [f"{t},{a},{d}" for t, a, d in zip([*targetid, 1], [*ra, 10.0], [*dec, 89.0], strict=True)]
        path.write_text("\n".join(["TARGETID,TARGET_RA,TARGET_DEC", *lines]))
    else:
        columns = {"TARGETID": [*targetid, 1], "TARGET_RA": [*ra, 10.0], "TARGET_DEC": [*dec, 89.0]}
        pq.write_table(pa.table(columns), path)
    done = json.loads(fetch(release, tmp_path / "work", "--targets", str(path), "--json").stdout)
    assert done["counts"]["rows_fetched"] == 3
    assert done["targets_missing"] == ["10.000000 +89.000000" if how == "position" else "1"]


@pytest.mark.parametrize("listed", ["tilepix", "file", "numbers"])
def test_pixels_come_from_the_release_s_list_a_table_or_numbers(release: Path, tmp_path: Path, listed: str) -> None:
    numbers = sorted(int(path.parent.name) for path in healpix_of(release).rglob("coadd-*.fits"))
    more = {
        "tilepix": ["--tilepix"],
        "file": ["--healpix", f"@{healpix_of(release) / 'tilepix.fits'}"],
        "numbers": ["--healpix", ",".join(map(str, numbers))],
    }[listed]
    done = json.loads(fetch(release, tmp_path / "work", *more, "--json").stdout)
    assert (done["n_done"], done["n_failed"]) == (3, 0)
