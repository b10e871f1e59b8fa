"""The stage: what is done, skipped, redone and said; the same bytes whatever the way."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

import qad
from qad.desi.cards import header_block
from qad.desi.sky import healpix_of
from qad.errors import InputError
from qad.extraction import extract_qso_tile_to_parquet
from qad.extraction.identity import LARGE_BYTES, input_hashes
from qad.results import RunOptions
from qad.schema import SPECTRA
from qad.storage.parquet import read_metadata, read_table
from qad.storage.provenance import hash_file
from qad.work.units import Pixel

PIXELS = [
    Pixel("main", "bright", 47),
    Pixel("main", "dark", 47),
    Pixel("main", "dark", 9144),
    Pixel("sv3", "dark", 8139),
]


@pytest.fixture
def release(kit: Any) -> Any:
    for pixel in PIXELS:
        kit.release.add(pixel)
    return kit


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def test_bytes_do_not_depend_on_jobs_place_or_repetition(release: Any) -> None:
    release.extract("one")
    release.extract("two", options=RunOptions(jobs=2))
    moved = release.folder / "elsewhere" / "dr1"
    moved.parent.mkdir()
    release.release.root.rename(moved)
    release.extract("moved", source=moved / "spectro")
    release.extract("moved", source=moved / "spectro" / "redux", options=RunOptions(jobs=1, force=True))
    release.extract("each", source=moved, limit=1)
    release.extract("each", source=moved)
    first = contents(release.folder / "one/spectra")
    assert len(first) == 4
    for other in ("two", "moved", "each"):
        assert contents(release.folder / other / "spectra") == first


def test_a_second_run_skips_all_and_still_counts(release: Any) -> None:
    first, second = release.extract(), release.extract()
    assert (first.n_done, first.n_skipped) == (4, 0)
    assert (second.n_done, second.n_skipped) == (0, 4)
    assert second.counts == first.counts
    assert second.paths == first.paths


def test_a_receipt_of_nonsense_is_no_hindrance(release: Any) -> None:
    release.extract()
    for receipt, text in zip(
        sorted((release.folder / "work/.qad/receipts/extract").iterdir()),
        (
            "{",
            "[]",
            '{"inputs": 3}',
            '{"inputs": [4, {"path": "x"}, {"path": [], "size": 1, "mtime_ns": 2, "sha256": 3}]}',
        ),
        strict=True,
    ):
        receipt.write_text(text)
    assert release.extract().n_skipped == 4


def test_lost_receipts_cost_a_hash_not_an_extraction(release: Any) -> None:
    release.extract()
    for receipt in (release.folder / "work/.qad/receipts/extract").iterdir():
        receipt.unlink()
    again = release.extract()
    assert (again.n_done, again.n_skipped) == (0, 4)
    assert again.counts == {"rows_out": 8}


def test_a_changed_file_is_done_again_alone(release: Any) -> None:
    release.extract()
    release.release.add(PIXELS[1], [release.QUASAR, release.GALAXY])
    again = release.extract()
    assert (again.n_done, again.n_skipped) == (1, 3)
    assert again.counts["rows_out"] == 7


def test_a_touched_file_is_hashed_not_extracted(release: Any) -> None:
    release.extract()
    for path in release.release.paths(PIXELS[0]):
        os.utime(path)
    assert release.extract().n_skipped == 4


def test_verify_finds_a_change_that_kept_size_and_time(release: Any) -> None:
    release.extract()
    coadd = release.release.paths(PIXELS[0])[0]
    status = coadd.stat()
    raw = bytearray(coadd.read_bytes())
    raw[-3000] ^= 1
    coadd.write_bytes(raw)
    os.utime(coadd, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert release.extract().n_skipped == 4
    found = release.extract(options=RunOptions(jobs=1, verify=True))
    assert [failure.unit for failure in found.failures] == ["main/bright/47"]


@pytest.mark.parametrize("damage", [b"", b"PAR1junk", None])
def test_a_damaged_or_missing_table_is_made_again(release: Any, damage: bytes | None) -> None:
    path = release.extract().paths[0]
    good = path.read_bytes()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert release.extract().n_done == 1
    assert path.read_bytes() == good


def test_settings_that_change_rows_redo_and_those_that_choose_pixels_do_not(release: Any) -> None:
    release.extract()
    assert release.extract(survey=["main"]).n_skipped == 3
    few = release.extract(limit=2)
    assert (few.n_skipped, few.details["other_tables"]) == (2, 2)
    changed = release.extract(z_min=1.5)
    assert (changed.n_done, changed.counts["dropped.z_range"]) == (4, 4)


def test_force_does_all_again(release: Any) -> None:
    release.extract()
    assert release.extract(options=RunOptions(jobs=1, force=True)).n_done == 4


def test_a_dry_run_writes_nothing_and_counts(release: Any) -> None:
    plan = release.extract(options=RunOptions(jobs=1, dry_run=True))
    assert not (release.folder / "work").exists()
    assert (plan.n_done, plan.n_skipped, plan.counts["pixels"]) == (4, 0, 4)
    sizes = [path.stat().st_size for pixel in PIXELS for path in release.release.paths(pixel)]
    assert plan.counts["bytes_in"] == sum(sizes)
    release.extract(limit=1)
    plan = release.extract(options=RunOptions(jobs=1, dry_run=True))
    assert (plan.n_done, plan.n_skipped) == (3, 1)
    release.release.paths(PIXELS[2])[1].unlink()
    plan = release.extract(options=RunOptions(jobs=1, dry_run=True, verify=True))
    assert [failure.unit for failure in plan.failures] == ["main/dark/9144"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"survey": ["sv3"]}, ["sv3-dark-8139"]),
        ({"program": ["bright"]}, ["main-bright-47"]),
        ({"healpix": [47]}, ["main-bright-47", "main-dark-47"]),
        ({"healpix": [47], "program": ["dark"]}, ["main-dark-47"]),
        ({"limit": 2}, ["main-bright-47", "main-dark-47"]),
    ],
)
def test_pixels_are_chosen_by_survey_program_healpix_and_limit(release: Any, keys: Any, expected: list[str]) -> None:
    assert [path.stem for path in release.extract(**keys).paths] == expected


def test_pixels_that_are_not_there_are_told(release: Any) -> None:
    assert release.extract(healpix=[47, 48, 5]).details["absent_pixels"] == [5, 48]


def test_an_unusable_source_is_one_clear_error(kit: Any) -> None:
    with pytest.raises(InputError, match="no such folder"):
        kit.extract()
    with pytest.raises(InputError, match="run `qad fetch` first, or name"):
        kit.extract(source=Path())
    with pytest.raises(InputError, match="extract reads local folders"):
        kit.extract(source="s3://desidata/dr1")
    kit.release.healpix.mkdir(parents=True)
    with pytest.raises(InputError, match="holds no pixel folders"):
        kit.extract()
    kit.release.add(PIXELS[0])
    with pytest.raises(InputError, match="none of its 1 pixels"):
        kit.extract(survey=["sv1"])


def test_a_header_that_names_another_pixel_is_noted_and_the_path_counts(release: Any) -> None:
    result = release.extract()
    assert result.details["notes"] == [
        "main/bright/47: its header says PROGRAM = dark, its path bright",
        "main/dark/9144: its header says HPXPIXEL = 47, its path 9144",
        "sv3/dark/8139: its header says HPXPIXEL = 47, its path 8139",
        "sv3/dark/8139: its header says SURVEY = main, its path sv3",
    ]
    table = read_table(result.paths[3], SPECTRA, ["survey", "healpix"])
    assert set(table.column("survey").to_pylist()) == {"sv3"}
    assert set(table.column("healpix").to_pylist()) == {8139}


def test_provenance_names_inputs_by_their_place_in_the_release_and_their_hash(release: Any) -> None:
    path = release.extract().paths[1]
    metadata = read_metadata(path, SPECTRA)
    coadd, redrock = release.release.paths(PIXELS[1])
    assert metadata["qad.inputs"] == [
        {"name": "healpix/main/dark/0/47/coadd-main-dark-47.fits", "sha256": hash_file(coadd)},
        {"name": "healpix/main/dark/0/47/redrock-main-dark-47.fits", "sha256": hash_file(redrock)},
    ]
    assert metadata["qad.wave"] == {
        "start": 3600.0, "step": 0.8, "n": 7781, "unit": "Angstrom", "frame": "vacuum, barycentric"
    }  # fmt: skip
    assert (metadata["qad.release"], metadata["qad.specprod"]) == ("dr1", "iron")
    assert str(release.folder) not in json.dumps(metadata)


class TestVouchers:
    """Who may vouch for a large file's hash without its bytes being read."""

    @pytest.fixture
    def large(self, tmp_path: Path) -> Path:
        path = tmp_path / "coadd-main-dark-47.fits"
        primary = header_block({"SIMPLE": True, "BITPIX": 8, "NAXIS": 1, "NAXIS1": LARGE_BYTES})
        path.write_bytes(primary)
        os.truncate(path, len(primary) + -(-LARGE_BYTES // 2880) * 2880)
        return path

    def hashes(self, path: Path, verify: bool = False) -> tuple[list[str], list[str]]:
        found = input_hashes([path], path.parent / "receipt.json", verify)
        return found.hashes, found.notes

    def write_list(self, path: Path, sha256: str, age_s: int) -> None:
        listed = path.parent / "redux_iron_healpix_main_dark_0_47.sha256sum"
        listed.write_text(f"{'0' * 64}  ./redrock-main-dark-47.fits\n{sha256}  ./{path.name}\n")
        status = path.stat()
        os.utime(listed, ns=(status.st_atime_ns, status.st_mtime_ns - age_s * 10**9))

    def test_the_releases_list_does_if_it_is_not_older(self, large: Path) -> None:
        self.write_list(large, "a" * 64, age_s=0)
        assert self.hashes(large) == (["a" * 64], [])
        real = hash_file(large)
        note = [f"{large.name} is not the file of the release's SHA-256 list"]
        assert self.hashes(large, verify=True) == ([real], note)
        self.write_list(large, "a" * 64, age_s=1)
        assert self.hashes(large) == ([real], note)
        self.write_list(large, real, age_s=1)
        assert self.hashes(large) == ([real], [])

    def test_fetch_does_if_size_and_time_are_those_it_saw(self, large: Path) -> None:
        status = large.stat()
        entry = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": "b" * 64}
        receipt = large.with_name(".qad-fetch.json")
        receipt.write_text(json.dumps({"format": 1, "files": {large.name: entry}}))
        assert self.hashes(large) == (["b" * 64], [])
        entry["mtime_ns"] += 1
        receipt.write_text(json.dumps({"format": 1, "files": {large.name: entry}}))
        assert self.hashes(large) == ([hash_file(large)], [])

    def test_nonsense_beside_the_file_vouches_for_nothing(self, large: Path) -> None:
        real = hash_file(large)
        for name, text in ((".qad-fetch.json", '{"files": 3}'), ("x.sha256sum", "\xe9"), ("y.sha256sum", "z" * 2**21)):
            large.with_name(name).write_text(text)
        assert self.hashes(large) == ([real], [])


def test_the_readmes_function_extracts_every_pair_below_a_folder(release: Any) -> None:
    output = release.folder / "out"
    paths = extract_qso_tile_to_parquet(release.release.root, output, 4000.0, 9000.0)
    assert [path.name for path in paths] == [
        "main-bright-47.parquet", "main-dark-47.parquet", "main-dark-9144.parquet", "sv3-dark-8139.parquet"
    ]  # fmt: skip
    assert all(path.parent == output for path in paths)
    table = read_table(paths[0], SPECTRA)
    ivar = table.column("ivar").combine_chunks().flatten().to_numpy().reshape(2, -1)
    wave = 3600 + 0.8 * (ivar > 0).any(axis=0).nonzero()[0]
    assert 4000 - 1e-6 <= wave.min() < wave.max() <= 9000 + 1e-6
    assert extract_qso_tile_to_parquet(str(release.release.root), str(output), 4000.0, 9000.0) == paths


def test_the_readmes_function_reads_a_real_tile_of_dr1(shared_data: Path, tmp_path: Path) -> None:
    tile = shared_data / "real/desi/dr1/spectro/redux/iron/tiles"
    (path,) = extract_qso_tile_to_parquet(tile, tmp_path, 3600, 9824)
    assert path.name == "4-80613-thru20210324.parquet"
    assert read_table(path, SPECTRA).num_rows == 0  # its one object is a galaxy


def test_spectra_of_a_tile_get_survey_and_pixel_from_their_rows(kit: Any) -> None:
    def edit(coadd: dict[str, Any], _: dict[str, Any]) -> None:
        coadd["PRIMARY"] = fits.PrimaryHDU()
        columns = [*coadd["FIBERMAP"].columns, kit.column("SV3_DESI_TARGET", "K", [4, 4, 4])]
        coadd["FIBERMAP"] = fits.BinTableHDU.from_columns(fits.ColDefs(columns))

    targets = [kit.replace(kit.QUASAR, ra=12.3, dec=5.0), kit.replace(kit.SECOND, ra=200.0, dec=60.0), kit.GALAXY]
    coadd, redrock = kit.release.add(PIXELS[0], targets, edit=edit)
    folder = kit.folder / "tile"
    folder.mkdir()
    coadd.rename(folder / "coadd-4-80613-thru20210324.fits")
    redrock.rename(folder / "redrock-4-80613-thru20210324.fits")
    (path,) = extract_qso_tile_to_parquet(folder, kit.folder / "out", 3600, 9824)
    table = read_table(path, SPECTRA)
    positions = np.array([[12.3, 5.0], [200.0, 60.0]]).T
    assert table.column("healpix").to_pylist() == healpix_of(*positions).tolist()
    assert set(table.column("survey").to_pylist()) == {"sv3"}
    assert set(table.column("program").to_pylist()) == {"other"}
    assert table.column("desi_target").null_count == 2


def test_the_readmes_function_names_what_is_wrong(kit: Any) -> None:
    with pytest.raises(InputError, match="no such folder"):
        extract_qso_tile_to_parquet(kit.folder / "absent", kit.folder / "out", 3600, 9800)
    with pytest.raises(InputError, match="holds no coadd"):
        extract_qso_tile_to_parquet(kit.folder, kit.folder / "out", 3600, 9800)
    with pytest.raises(ValueError, match="must lie below"):
        extract_qso_tile_to_parquet(kit.folder, kit.folder / "out", 9800, 3600)
    kit.release.add(PIXELS[0])
    kit.release.add(PIXELS[1])
    twin = kit.folder / "twin" / kit.release.paths(PIXELS[0])[0].name
    twin.parent.mkdir()
    twin.write_bytes(b"")
    with pytest.raises(InputError, match="have the same name"):
        extract_qso_tile_to_parquet(kit.folder, kit.folder / "out", 3600, 9800)
    twin.unlink()
    kit.release.paths(PIXELS[0])[1].unlink()
    with pytest.raises(InputError, match=r"redrock-main-bright-47\.fits"):
        extract_qso_tile_to_parquet(kit.folder, kit.folder / "out", 3600, 9800)
    assert [path.name for path in (kit.folder / "out").glob("*.parquet")] == ["main-dark-47.parquet"]


def test_qad_extract_does_what_the_command_does(release: Any) -> None:
    result = qad.extract(source=release.release.root, root=release.folder / "api", z_min=1.5, jobs=1)
    assert result.n_done == 4
    assert result.counts["rows_out"] == 4
    assert (release.folder / "api/spectra/sv3-dark-8139.parquet").is_file()
