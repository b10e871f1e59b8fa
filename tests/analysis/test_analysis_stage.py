"""``qad measure``: the table, the command, real quasars."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scored import write_scores

import qad
from qad.desi.templates import read_template, template_files
from qad.errors import ConfigError, InputError
from qad.schema import MEASURES
from qad.storage.parquet import read_metadata, read_table

OPTIONS = {"quasars": 24, "healpix": 2, "anomaly_rate": 0.0, "resolution": False, "seed": 4, "contaminants": 0.0}


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "qad", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    qad.simulate(folder / "release", **OPTIONS, jobs=1)
    qad.extract(source=str(folder / "release"), root=folder / "work", jobs=1)
    write_scores(folder / "work")
    return folder / "work"


def test_table_holds_the_first_candidates_and_is_made_once(root: Path) -> None:
    result = qad.measure(root=root, top=10, jobs=2)
    assert result.counts == {"candidates": 10, "measured": 10, "without_spectrum": 0}
    (path,) = result.paths
    table = read_table(path, MEASURES)
    assert table.column("rank").to_pylist() == list(range(1, 11))
    frame = pl.DataFrame(pl.from_arrow(table))
    assert frame["z_alt"].null_count() == 0
    assert frame["mgii_flux"].null_count() < 10
    assert not any(frame[name].is_nan().any() for name in frame.columns if frame[name].dtype.is_float())
    metadata = read_metadata(path, MEASURES)
    assert [entry["name"] for entry in metadata["qad.inputs"]] == ["scores/default.parquet"]
    content = path.read_bytes()
    assert qad.measure(root=root, top=10).n_skipped == 1
    assert qad.measure(root=root, top=10, force=True, jobs=1).n_done == 1
    assert path.read_bytes() == content
    assert qad.measure(root=root, top=0, dry_run=True).n_done == 1


def test_command_prints_the_lines_of_a_target(root: Path) -> None:
    scores = pl.read_parquet(root / "scores" / "default.parquet")
    target = scores["targetid"][0]
    done = command("measure", target, "--root", root, "--json")
    assert done.returncode == 0, done.stderr
    (document,) = [d for d in json.loads(done.stdout)["targets"] if d["rank"] == 1]
    assert document["targetid"] == str(target)
    assert {"line", "flux", "flux_err", "ew", "ew_limit"} <= set(document["lines"][0])
    assert len(document["redrock"]["coeff"]) == document["redrock"]["ncoeff"]
    shown = command("measure", target, "--root", root)
    assert "rest EW" in shown.stdout
    assert "redrock" in shown.stdout


def test_drawing_is_a_png_and_needs_a_target(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = pl.read_parquet(root / "scores" / "default.parquet")["targetid"][3]
    done = command("measure", target, "--root", root, "--png", tmp_path / "drawn")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "drawn").iterdir()
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.name.startswith(f"{target}-")
    assert command("measure", "--png", tmp_path, "--root", root).returncode == 2


def test_what_lacks_is_said_in_one_line(root: Path, tmp_path: Path) -> None:
    for arguments, code, text in (
        (["--name", "other"], 3, "no scores of model 'other'"),
        (["12"], 3, "no score of TARGETID 12"),
        (["x"], 2, "'x' is not a TARGETID"),
        (["--templates", tmp_path / "absent"], 2, "is no folder"),
        (["--templates", tmp_path], 3, "holds no rrtemplate-QSO-*.fits"),
    ):
        done = command("measure", *arguments, "--root", root, "--quiet")
        assert done.returncode == code, done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert text in line
    (tmp_path / "rrtemplate-QSO-HIZ-v1.0.fits").write_bytes(b"SIMPLE  = nothing")
    with pytest.raises(InputError, match="not a redrock template"):
        read_template(tmp_path / "rrtemplate-QSO-HIZ-v1.0.fits")
    with pytest.raises(ConfigError):
        qad.measure(root=root, templates=str(tmp_path / "absent"))


def test_scores_without_spectra_are_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "default.parquet").write_bytes((root / "scores" / "default.parquet").read_bytes())
    with pytest.raises(InputError, match="holds no spectrum of the candidates"):
        qad.measure(root=tmp_path)
    assert not (tmp_path / "measures").exists() or not list((tmp_path / "measures").iterdir())


def test_templates_give_the_chi2_of_the_redrock_files(real_release: Path, shared_data: Path) -> None:
    from astropy.io import fits

    templates = {t.subtype: t for t in map(read_template, template_files(shared_data / "templates"))}
    assert {name: t.version for name, t in templates.items()} == {"HIZ": "1.0", "LOZ": "1.0"}
    folder = next(real_release.rglob("sv1/dark/81/8139"))
    rows = fits.getdata(folder / "redrock-sv1-dark-8139.fits", "REDSHIFTS")
    with fits.open(folder / "coadd-sv1-dark-8139.fits") as coadd:
        for i, row in enumerate(rows):
            chi2 = 0.0
            for camera in "BRZ":
                wave, flux = coadd[f"{camera}_WAVELENGTH"].data, coadd[f"{camera}_FLUX"].data[i]
                ivar = coadd[f"{camera}_IVAR"].data[i] * (coadd[f"{camera}_MASK"].data[i] == 0)
                model = templates[row["SUBTYPE"].strip()].model(row["Z"], row["COEFF"], wave)
                chi2 += float(np.nansum(ivar * (flux - model) ** 2))
            # redrock folds in the resolution, which changes little for broad lines
            assert chi2 == pytest.approx(row["CHI2"], rel=5e-3)


def test_real_quasars_are_measured_sanely(real_release: Path, shared_data: Path, tmp_path: Path) -> None:
    qad.extract(source=str(real_release), root=tmp_path, jobs=1)
    write_scores(tmp_path)
    (path,) = qad.measure(root=tmp_path, templates=str(shared_data / "templates"), jobs=1).paths
    frame = pl.DataFrame(pl.from_arrow(read_table(path, MEASURES)))
    assert frame.height == 13
    clear = frame.filter(pl.col("civ_flux") > 5 * pl.col("civ_flux_err"))
    assert clear.height >= 6
    assert clear["civ_ew"].is_between(5, 150).all()
    assert clear["civ_fwhm"].drop_nulls().is_between(1000, 12_000).all()
    assert clear["civ_shift"].drop_nulls().is_between(-4000, 3000).all()
    nearby = frame.filter(pl.col("z") < 0.5)
    assert nearby["hbeta_ew"].is_between(30, 50).all()
    assert nearby["oiii5008_fwhm"].is_between(300, 900).all()
    halpha = nearby.filter(pl.col("halpha_flux").is_not_null())
    assert (halpha["halpha_flux"] / halpha["hbeta_flux"]).is_between(2.5, 5).all()
    assert frame["loglum_3000"].drop_nulls().is_between(44, 47.5).all()
    # the catalogue's redshift is right for all but few
    assert (frame["z_alt_dchi2"] < 0).sum() >= 12
