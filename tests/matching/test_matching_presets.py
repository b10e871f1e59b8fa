"""Known catalogues: found by name, read under their authors' and VizieR's column names, in their units."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest
from astropy import units as u
from astropy.table import Table

from qad.config import load_config
from qad.errors import ConfigError
from qad.matching.columns import ColumnError
from qad.matching.presets import preset_of
from qad.matching.references import parse_reference
from qad.matching.stage import crossmatch
from qad.matching.surveys import PRESETS, mjd_year
from qad.matching.units import unit_factor
from qad.results import RunOptions


def run(field, *catalogs, **keys):
    more = {f"crossmatch.{key}": value for key, value in keys.items()}
    overrides = {"paths.root": str(field.root), "crossmatch.catalogs": list(catalogs), **more}
    return crossmatch(load_config(overrides=overrides), RunOptions(jobs=1))


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_every_preset_is_whole(preset):
    assert len(preset.ra) == len(preset.dec)
    assert 0.5 <= preset.radius_arcsec <= 30
    assert re.match(r"\d{4}[A-Za-z&.]+[\d.]*[A-Z.]?[\d.A-Z]+\Z", preset.bibcode), preset.bibcode
    assert len(preset.bibcode) == 19
    names = [known.name for known in preset.columns]
    assert len(names) == len(set(names))
    assert set(preset.roles.values()) <= set(names)
    aliases = [alias.lower() for known in preset.columns for alias in known.names]
    assert len(aliases) == len(set(aliases))
    for known in preset.columns:
        if known.unit and "nanomaggy" not in known.unit:
            u.Unit(known.unit)
    assert preset.vizier or preset.tap_table
    assert (preset.motion is None) or preset.epoch is not None or preset.motion.epoch_column
    assert preset.kind != "radio" or preset.frequency_ghz > 0
    assert preset.kind != "xray" or preset.band


def test_epochs_are_julian_years():
    assert mjd_year(51544.5) == 2000.0
    assert mjd_year(51544.5 + 365.25) == 2001.0
    assert PRESETS["allwise"].epoch == pytest.approx(2010.556, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "service", "name", "rest"),
    [
        ("gaia_dr3", "xmatch", "gaia_dr3", "I/355/gaiadr3"),
        ("Gaia_DR3@tap", "tap", "gaia_dr3", "gaiadr3.gaia_source"),
        ("ls_dr10", "tap", "ls_dr10", "ls_dr10.tractor"),
        ("simbad@xmatch", "xmatch", "simbad", "simbad"),
        ("vizier:II/246/out", "xmatch", "II_246_out", "II/246/out"),
        ("mine=vizier:II/246/out", "xmatch", "mine", "II/246/out"),
        ("tap:https://host/tap#a.b", "tap", "a.b", "a.b"),
        ("first:some/where.fits", "file", "first", ""),
        ("old=first:some/where.fits", "file", "old", ""),
        ("some/where.fits", "file", "where", ""),
        ("a=b=c.fits", "file", "a", ""),
    ],
)
def test_catalogues_are_named_in_words(text, service, name, rest, tmp_path):
    reference = parse_reference(text, tmp_path)
    assert (reference.service, reference.name, reference.table) == (service, name, rest)


def test_a_file_that_is_there_is_a_file(tmp_path):
    for name in ("a=b.csv", "gaia_dr3:x.csv", "tap:x", "simbad@tap.csv"):
        (tmp_path / name).write_text("ra,dec\n")
        assert parse_reference(name, tmp_path).path == tmp_path / name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gaia_dr2:x.fits", "did you mean gaia_dr3"),
        ("nothing:x.fits", "--list"),
        ("ls_dr10@xmatch", "ls_dr10@tap"),
        ("first@web", "xmatch and tap"),
        ("tap:host#x", "tap:URL#TABLE"),
        ("tap:https://host/tap", "tap:URL#TABLE"),
        ("..=x.fits", ""),
    ],
)
def test_what_is_not_understood_is_said(text, said, tmp_path):
    if text.startswith(".."):
        assert parse_reference(text, tmp_path).service == "file"
        return
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_reference(text, tmp_path)
    with pytest.raises(ConfigError):
        preset_of("x")


@pytest.mark.parametrize(
    ("found", "wanted", "factor"),
    [
        ("Jy", "mJy", 1000.0),
        ("mJy/beam", "mJy", 1.0),
        ("mJy beam-1", "mJy", 1.0),
        ("mW/m2", "erg s-1 cm-2", 1.0),
        ("erg/cm**2/s", "erg s-1 cm-2", 1.0),
        ("10-18W/m2", "erg s-1 cm-2", 1e-15),
        ("arcsec/yr", "mas yr-1", 1000.0),
        ("mas.yr**-1", "mas yr-1", 1.0),
        ("deg", "arcsec", 3600.0),
        ("", "mJy", 1.0),
        ("vega", "mag", 1.0),
    ],
)
def test_units_are_converted(found, wanted, factor):
    assert unit_factor(found, wanted, "x") == pytest.approx(factor, rel=1e-12)


def test_a_unit_of_something_else_is_refused(sky_field, tmp_path):
    with pytest.raises(ColumnError, match="column x is in 'm'"):
        unit_factor("m", "mJy", "x")
    table = Table({"RA": sky_field.catalog_ra, "DEC": sky_field.catalog_dec, "FINT": sky_field.mag})
    table["FINT"].unit = "kg"
    table.write(tmp_path / "f.fits")
    result = run(sky_field, f"first:{tmp_path / 'f.fits'}")
    assert "column FINT is in 'kg', expected 'mJy'" in result.failures[0].reason


@pytest.mark.parametrize("form", ["authors", "vizier"])
def test_columns_come_over_under_one_name_and_unit(form, sky_field, tmp_path):
    names = {
        "authors": {"ra": "RA", "dec": "DEC", "id": "Component_name", "flux": "Total_flux", "error": "E_Total_flux"},
        "vizier": {"ra": "RAJ2000", "dec": "DEJ2000", "id": "CompName", "flux": "Ftot", "error": "e_Ftot"},
    }[form]
    table = Table(
        {
            names["ra"]: sky_field.catalog_ra,
            names["dec"]: sky_field.catalog_dec,
            names["id"]: [f"VLASS {i}" for i in range(len(sky_field.mag))],
            names["flux"]: sky_field.mag,
            names["error"]: sky_field.mag / 10,
        }
    )
    if form == "vizier":
        table[names["flux"]].unit = "Jy"
    table.write(tmp_path / "v.vot", format="votable")
    result = run(sky_field, f"vlass:{tmp_path / 'v.vot'}")
    assert not result.failures
    got = pl.read_parquet(result.paths[0])
    assert got["sep_arcsec"].max() <= 2.0  # its own radius
    assert {"cat_total_flux", "cat_e_total_flux"} <= set(got.columns)
    scale = 1000.0 if form == "vizier" else 1.0
    flux = dict(zip([f"VLASS {i}" for i in range(len(sky_field.mag))], sky_field.mag, strict=True))
    assert got["cat_total_flux"].to_list() == pytest.approx([flux[i] * scale for i in got["catalog_id"]])
    assert run(sky_field, f"vlass:{tmp_path / 'v.vot'}", radius_arcsec=0.5).counts["pairs"] < len(got)
    import pyarrow.parquet as pq

    schema = pq.read_schema(result.paths[0])
    assert schema.field("cat_total_flux").metadata[b"unit"] in (b"mJy",)
    assert schema.field("chance_density").metadata[b"unit"] == b"deg-2"


def test_the_list_shows_radius_epoch_and_citation(qad):
    shown = qad("crossmatch", "--list")
    assert shown.returncode == 0
    assert "2023A&A...674A...1G" in shown.stdout
    assert len(shown.stdout.splitlines()) == 1 + len(PRESETS)
    document = json.loads(qad("crossmatch", "--list", "--json").stdout)
    gaia = next(preset for preset in document["presets"] if preset["name"] == "gaia_dr3")
    assert gaia["epoch"] == 2016.0
    assert gaia["units"]["pmra"] == "mas yr-1"
    assert gaia["tap"]["table"] == "gaiadr3.gaia_source"
