"""The same catalogue gives the same matches from every format."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qad.config import load_config
from qad.errors import InputError
from qad.matching.catalogs import catalog_name, open_catalog
from qad.matching.columns import Wanted
from qad.matching.stage import crossmatch
from qad.results import RunOptions

NAMES = ("ra", "dec", "source_id", "mag", "label")


def columns_of(field) -> dict[str, np.ndarray]:
    label = np.array([f"obj {i}" for i in range(len(field.ids))])
    return dict(zip(NAMES, (field.catalog_ra, field.catalog_dec, field.ids, field.mag, label), strict=True))


def astropy_table(columns):
    from astropy.table import Table

    table = Table(columns)
    table["ra"].unit = table["dec"].unit = "deg"
    table["mag"].unit = "mag"
    return table


def write_fits(path: Path, columns) -> None:
    from astropy.io import fits

    table = fits.table_to_hdu(astropy_table(columns))
    table.name = "CATALOG"
    empty = fits.BinTableHDU.from_columns([fits.Column("NOTHING", "J", array=np.arange(3))], name="INFO")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((5, 7), np.float32)), empty, table]).writeto(path)


def write_csv(path: Path, columns, bom: bool = False, separator: str = ",") -> None:
    text = pl.DataFrame(columns).write_csv(separator=separator, include_bom=bom)
    path.write_text(text)


def write_catalog(kind: str, folder: Path, columns) -> Path:
    path = folder / f"cat.{kind}"
    frame = pl.DataFrame(columns)
    if kind == "fits":
        write_fits(path, columns)
    elif kind == "fits.gz":
        write_fits(folder / "plain.fits", columns)
        path.write_bytes(gzip.compress((folder / "plain.fits").read_bytes()))
    elif kind == "parquet":
        frame.write_parquet(path)
    elif kind == "folder":
        path = folder / "cat"
        path.mkdir()
        half = len(frame) // 2
        frame[:half].write_parquet(path / "part-0.parquet")
        (path / "deep").mkdir()
        frame[half:].write_parquet(path / "part-1.parquet")
        (path / "_metadata").write_bytes(b"junk")
    elif kind == "csv":
        write_csv(path, columns)
    elif kind == "csv.gz":
        path.write_bytes(gzip.compress(frame.write_csv().encode()))
    elif kind == "tsv":
        write_csv(path, columns, bom=True, separator="\t")
    elif kind == "ecsv":
        astropy_table(columns).write(path, format="ascii.ecsv")
    elif kind == "vot":
        astropy_table(columns).write(path, format="votable")
    elif kind == "xml":
        astropy_table(columns).write(path, format="votable", tabledata_format="binary2")
    return path


def run(field, *paths: Path, **keys):
    settings = {f"crossmatch.{key}": value for key, value in keys.items()}
    config = load_config(
        overrides={"paths.root": str(field.root), "crossmatch.catalogs": [str(p) for p in paths], **settings}
    )
    return crossmatch(config, RunOptions(jobs=1))


KINDS = ("fits", "fits.gz", "parquet", "folder", "csv", "csv.gz", "tsv", "ecsv", "vot", "xml")


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_pairs_of_skycoord(kind, sky_field, tmp_path):
    import astropy.units as u
    from astropy.coordinates import SkyCoord

    columns = columns_of(sky_field)
    path = write_catalog(kind, tmp_path, columns)
    result = run(sky_field, path, columns=["mag", "label"], radius_arcsec=1.2)
    assert not result.failures
    table = sky_field.matches("cat")
    candidates = SkyCoord(sky_field.ra, sky_field.dec, unit="deg")
    entries = SkyCoord(sky_field.catalog_ra, sky_field.catalog_dec, unit="deg")
    j, i, sep, _ = candidates.search_around_sky(entries, 1.2 * u.arcsec)
    order = np.lexsort((sep.arcsec, i))
    i, j, sep = i[order], j[order], sep.arcsec[order]
    assert len(i) > 60
    assert table["rank"].to_pylist() == (i + 1).tolist()
    assert table["catalog_id"].to_pylist() == [str(sky_field.ids[row]) for row in j]
    assert np.abs(table["sep_arcsec"].to_numpy() - sep).max() < 1e-6
    assert table["cat_mag"].to_pylist() == columns["mag"][j].tolist()
    assert table["cat_label"].to_pylist() == columns["label"][j].tolist()
    assert table["targetid"].type == pa.int64()
    assert table["targetid"].to_pylist() == (39_627_000_000_000_001 + 2 * i).tolist()
    assert table["n_within"].to_pylist() == np.bincount(i)[i].tolist()
    assert table["best"].to_pylist() == [True, *(i[1:] != i[:-1]).tolist()]
    assert set(table["catalog"].to_pylist()) == {"cat"}
    assert result.counts["catalog_rows"] == len(sky_field.ids)
    assert result.counts["pairs"] == len(i)
    assert result.counts["matched"] == len(set(i.tolist()))


def test_units_and_types_of_carried_columns_are_kept(sky_field, tmp_path):
    path = write_catalog("fits", tmp_path, columns_of(sky_field))
    run(sky_field, path, columns=["mag", "source_id"])
    table = sky_field.matches("cat")
    assert table.schema.field("cat_mag").metadata[b"unit"] == b"mag"
    assert table["cat_source_id"].type == pa.int64()
    assert [str(value) for value in table["cat_source_id"].to_pylist()] == table["catalog_id"].to_pylist()


def test_big_identifiers_of_a_csv_stay_exact(sky_field, tmp_path):
    path = write_catalog("csv", tmp_path, columns_of(sky_field))
    run(sky_field, path, columns=["source_id", "mag"])
    table = sky_field.matches("cat")
    assert table["cat_source_id"].type == pa.int64()
    assert table["cat_mag"].type == pa.float64()
    assert set(table["cat_source_id"].to_pylist()) <= set(sky_field.ids.tolist())


def test_text_of_a_csv_becomes_numbers_only_where_nothing_is_lost():
    from qad.matching.pairs import narrow

    def narrowed(*values):
        found = narrow(pa.array(values, pa.string()))
        return str(found.type), found.to_pylist()

    assert narrowed("1", " 22", "", None) == ("int64", [1, 22, None, None])
    assert narrowed("9223372036854775807", "-9223372036854775808") == ("int64", [2**63 - 1, -(2**63)])
    assert narrowed("1", "2.5", "1e-3", "0.5") == ("double", [1.0, 2.5, 1e-3, 0.5])
    assert narrowed("007", "8") == ("string", ["007", "8"])
    assert narrowed("1", "x") == ("string", ["1", "x"])


def test_candidates_without_a_match_are_kept_when_asked(sky_field, tmp_path):
    columns = {name: values[:3] for name, values in columns_of(sky_field).items()}
    path = write_catalog("parquet", tmp_path, columns)
    result = run(sky_field, path, keep_unmatched=True, columns=["mag"])
    table = sky_field.matches("cat")
    alone = table.filter(pa.compute.is_null(table["catalog_id"]))
    assert table["rank"].to_pylist() == sorted(table["rank"].to_pylist())
    assert set(table["rank"].to_pylist()) == set(range(1, 61))
    assert alone.num_rows == 60 - result.counts["matched"]
    assert alone["sep_arcsec"].null_count == alone["cat_mag"].null_count == alone.num_rows
    assert set(alone["n_within"].to_pylist()) == {0}
    assert not any(alone["best"].to_pylist())


def test_only_the_top_candidates_are_matched(sky_field, tmp_path):
    path = write_catalog("parquet", tmp_path, columns_of(sky_field))
    assert run(sky_field, path, top=7).counts["candidates"] == 7
    assert max(sky_field.matches("cat")["rank"].to_pylist()) <= 7
    assert run(sky_field, path, top=0).counts["candidates"] == 60


SEXAGESIMAL = ("{:02d}:{:02d}:{:010.7f}", "{:02d} {:02d} {:010.7f}", "{:02d}h{:02d}m{:010.7f}s")


def in_parts(value: float) -> tuple[int, int, float]:
    whole = int(value)
    minutes = int((value - whole) * 60)
    return whole, minutes, (value - whole - minutes / 60) * 3600


@pytest.mark.parametrize("pattern", SEXAGESIMAL)
@pytest.mark.parametrize("kind", ["csv", "fits", "vot"])
def test_sexagesimal_text_is_hours_and_degrees(pattern, kind, sky_field, tmp_path):
    columns = columns_of(sky_field)
    reference = write_catalog("parquet", tmp_path, columns)
    run(sky_field, reference)
    expected = sky_field.matches("cat")
    columns["ra"] = np.array([pattern.format(*in_parts(value / 15)) for value in columns["ra"]])
    dec_pattern = pattern.replace("h", "d")
    columns["dec"] = np.array(
        [("-" if value < 0 else "+") + dec_pattern.format(*in_parts(abs(value))) for value in columns["dec"]]
    )
    folder = tmp_path / "text"
    folder.mkdir()
    if kind == "csv":
        path = write_catalog(kind, folder, columns)
    else:
        from astropy.table import Table

        path = folder / f"cat.{kind}"
        Table(columns).write(path, format="fits" if kind == "fits" else "votable")
    result = run(sky_field, path)
    assert not result.failures
    table = sky_field.matches("cat")
    assert table["catalog_id"].to_pylist() == expected["catalog_id"].to_pylist()
    assert np.abs(table["sep_arcsec"].to_numpy() - expected["sep_arcsec"].to_numpy()).max() < 1e-4


@pytest.mark.parametrize(("unit", "factor"), [("h", 1 / 15), ("hourangle", 1 / 15), ("rad", np.pi / 180), ("deg", 1.0)])
def test_units_of_fits_columns_are_respected(unit, factor, sky_field, tmp_path):
    from astropy.io import fits

    path = tmp_path / "cat.fits"
    fits.BinTableHDU.from_columns(
        [
            fits.Column("RA", "D", unit=unit, array=sky_field.catalog_ra * factor),
            fits.Column("DEC", "D", unit="deg", array=sky_field.catalog_dec),
            fits.Column("ID", "K", array=sky_field.ids),
        ]
    ).writeto(path)
    run(sky_field, path)
    parquet = write_catalog("parquet", tmp_path, columns_of(sky_field))
    from_fits = sky_field.matches("cat")["catalog_id"].to_pylist()
    run(sky_field, parquet)
    assert from_fits == sky_field.matches("cat")["catalog_id"].to_pylist()


def test_unsigned_and_null_integers_of_fits_are_exact(tmp_path, sky_field):
    from astropy.io import fits

    ids = np.array([2**63 + 11, 5], np.uint64)
    path = tmp_path / "cat.fits"
    columns = [
        fits.Column("ra", "D", array=sky_field.ra[:2]),
        fits.Column("dec", "D", array=sky_field.dec[:2]),
        fits.Column("id", "K", bzero=2**63, array=ids),
        fits.Column("n", "J", null=-99, array=np.array([7, -99], np.int32)),
        fits.Column("text", "6A", array=np.array(["é".encode(), b"ab  "])),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(path)
    result = run(sky_field, path, columns=["n", "TEXT"])
    assert not result.failures
    table = sky_field.matches("cat")
    assert table["catalog_id"].to_pylist() == [str(2**63 + 11), "5"]
    assert table["cat_n"].to_pylist() == [7, None]
    assert table["cat_text"].to_pylist() == ["é", "ab"]


@pytest.mark.parametrize(
    ("ra_name", "dec_name"),
    [
        ("RA", "DEC"),
        ("RAJ2000", "DEJ2000"),
        ("_RAJ2000", "_DEJ2000"),
        ("TARGET_RA", "TARGET_DEC"),
        ("ra_deg", "dec_deg"),
    ],
)
def test_position_columns_are_found_by_name(ra_name, dec_name, tmp_path):
    path = tmp_path / "cat.csv"
    path.write_text(f"other,{dec_name},{ra_name}\n1,2,3\n")
    layout = open_catalog(path, Wanted()).layout
    assert (layout.ra.name, layout.dec.name) == (ra_name, dec_name)


def test_position_columns_are_found_by_ucd(tmp_path, sky_field):
    from astropy.table import Table

    table = Table({"x": sky_field.ra, "y": sky_field.dec})
    table["x"].meta["ucd"], table["y"].meta["ucd"] = "pos.eq.ra;meta.main", "pos.eq.dec;meta.main"
    table["x"].info.meta = {"ucd": "pos.eq.ra;meta.main"}
    table["y"].info.meta = {"ucd": "pos.eq.dec;meta.main"}
    table.write(tmp_path / "cat.vot", format="votable")
    layout = open_catalog(tmp_path / "cat.vot", Wanted()).layout
    assert (layout.ra.name, layout.dec.name) == ("x", "y")


def test_the_table_with_positions_is_found_among_others_of_a_votable(tmp_path, sky_field):
    from astropy.io.votable import from_table, writeto
    from astropy.table import Table

    document = from_table(Table({"note": ["a", "b"], "n": [1, 2]}))
    second = from_table(Table({"label": ["x", "y"], "RA": sky_field.ra[:2], "DE": sky_field.dec[:2], "ID": [7, 8]}))
    document.resources.append(second.resources[0])
    writeto(document, str(tmp_path / "cat.vot"))
    assert not run(sky_field, tmp_path / "cat.vot", columns=["label"]).failures
    found = sky_field.matches("cat")
    assert found["catalog_id"].to_pylist() == ["7", "8"]
    assert found["cat_label"].to_pylist() == ["x", "y"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quotes_comments_and_line_ends_of_csv_are_understood(end, tmp_path, sky_field):
    lines = [
        "# a comment, with commas",
        "",
        '"id";ra;dec;note',
        f'"a;b";{sky_field.ra[0]:.9f};+{sky_field.dec[0]:.9f};"two',
        'lines"',
    ]
    (tmp_path / "cat.csv").write_bytes((end.join(lines) + end).encode())
    assert not run(sky_field, tmp_path / "cat.csv", columns=["note"]).failures
    found = sky_field.matches("cat")
    assert found["catalog_id"].to_pylist() == ["a;b"]
    assert found["cat_note"].to_pylist() == [f"two{end}lines"]


def test_without_an_identifier_the_row_number_stands_in(tmp_path, sky_field):
    path = tmp_path / "cat.csv"
    path.write_text(f"ra,dec\n1,1\n{sky_field.ra[0]},{sky_field.dec[0]}\n")
    run(sky_field, path)
    assert sky_field.matches("cat")["catalog_id"].to_pylist() == ["2"]


def test_positions_that_are_none_are_dropped_and_counted(tmp_path, sky_field):
    path = tmp_path / "cat.csv"
    ra, dec = sky_field.ra[5], sky_field.dec[5]
    wrapped = ra - 360 if ra > 180 else ra
    rows = f"{ra},{dec}\n{wrapped},{dec}\nnan,{dec}\n,{dec}\n{ra},NaN\n{ra},null\n{ra},91\n{ra},-90.001\n400,{dec}\n-181,{dec}\n"
    path.write_text("ra,dec\n" + rows)
    result = run(sky_field, path)
    assert result.counts["catalog_rows"] == 10
    assert result.counts["dropped.no_position"] == 4
    assert result.counts["dropped.out_of_range"] == 4
    assert result.counts["pairs"] == 2


@pytest.mark.parametrize("kind", ["fits", "parquet", "csv", "vot"])
def test_a_catalogue_without_rows_gives_an_empty_table(kind, tmp_path, sky_field):
    columns = {name: values[:0] for name, values in columns_of(sky_field).items()}
    result = run(sky_field, write_catalog(kind, tmp_path, columns), columns=["mag"])
    assert not result.failures
    assert sky_field.matches("cat").num_rows == 0
    assert result.counts["pairs"] == result.counts["catalog_rows"] == 0


def test_degrees_that_look_like_hours_are_pointed_out(tmp_path, sky_field):
    notes = []

    class Listener:
        def start(self, *_args):
            """Take no notice."""

        def advance(self, *_args):
            """Take no notice."""

        def note(self, message):
            notes.append(message)

    rng = np.random.default_rng(0)
    path = tmp_path / "hours.csv"
    write_csv(path, {"ra": rng.uniform(0, 24, 2000), "dec": rng.uniform(-80, 80, 2000)})
    config = load_config(overrides={"paths.root": str(sky_field.root), "crossmatch.catalogs": [str(path)]})
    crossmatch(config, replace(RunOptions(jobs=1), progress=Listener()))
    assert len(notes) == 1
    assert "hours" in notes[0]


def test_columns_of_parquet_parts_must_agree(tmp_path, sky_field):
    folder = tmp_path / "cat"
    folder.mkdir()
    pl.DataFrame({"ra": [1.0], "dec": [2.0]}).write_parquet(folder / "a.parquet")
    pl.DataFrame({"ra": ["x"], "dec": [2.0]}).write_parquet(folder / "b.parquet")
    result = run(sky_field, folder)
    assert "b.parquet" in result.failures[0].reason
    assert "column ra" in result.failures[0].reason


def test_dictionaries_and_large_text_of_parquet_are_text(tmp_path, sky_field):
    ids = pa.array(["a", "b"]).dictionary_encode()
    table = pa.table(
        {
            "ra": pa.array(sky_field.ra[:2], pa.float32()),
            "dec": sky_field.dec[:2],
            "id": ids,
            "t": pa.array(["x", None], pa.large_string()),
        }
    )
    pq.write_table(table, tmp_path / "cat.parquet")
    run(sky_field, tmp_path / "cat.parquet", columns=["t"], radius_arcsec=30.0)
    found = sky_field.matches("cat")
    assert found["catalog_id"].to_pylist() == ["a", "b"]
    assert found["cat_t"].to_pylist() == ["x", None]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("gaia.fits.gz", "gaia"),
        ("my catalogue; DROP TABLE.csv", "my_catalogue_DROP_TABLE"),
        ("..vot", "catalog"),
        ("<script>.parquet", "script_"),
        ("a..b.csv", "a.b"),
        ("v1.2.xml", "v1.2"),
    ],
)
def test_catalogue_names_are_safe_in_paths(file, name):
    from qad.workspace import safe_name

    assert catalog_name(Path("/x") / file) == name
    assert safe_name(name, "catalogue") == name


def test_real_desi_catalogues_find_their_own_positions(shared_data, tmp_path, scores_at):
    """175 quasars of DESI's early data release, from a gzip-compressed FITS catalogue."""
    from astropy.io import fits

    path = next((shared_data / "real").rglob("QSO_cat_fuji_dark_healpix.fits.gz"))
    rows = next(hdu.data for hdu in fits.open(path) if getattr(hdu, "columns", None) is not None)
    ra_name, dec_name = ("TARGET_RA", "TARGET_DEC") if "TARGET_RA" in rows.names else ("RA", "DEC")
    scores_at(tmp_path / "desi", np.asarray(rows[ra_name], float), np.asarray(rows[dec_name], float))
    config = load_config(overrides={"paths.root": str(tmp_path / "desi"), "crossmatch.catalogs": [str(path)]})
    result = crossmatch(config, RunOptions(jobs=1))
    assert result.counts["matched"] == len(rows) == 175
    best = pq.read_table(result.paths[0]).filter(pa.compute.field("best"))
    assert best["catalog_id"].to_pylist() == [str(targetid) for targetid in rows["TARGETID"]]
    assert max(best["sep_arcsec"].to_pylist()) < 1e-9


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_catalog(tmp_path / "absent.fits", Wanted())
