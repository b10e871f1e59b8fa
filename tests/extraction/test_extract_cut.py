"""Coadds of which fetch took a part, or nothing: the tables are those of the whole release, to the byte."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qad.desi.cards import header_block
from qad.desi.coadd import Cut, read_cut
from qad.desi.fits import FitsFile
from qad.errors import InputError
from qad.extraction import extract_qso_tile_to_parquet
from qad.extraction.identity import LARGE_BYTES, Identity, input_hashes
from qad.results import RunOptions, StageResult
from qad.schema import SPECTRA
from qad.simulation.release import simulate
from qad.storage.parquet import read_metadata, read_table
from qad.storage.provenance import hash_file
from qad.work.units import Pixel

PIXEL, OTHER = Pixel("main", "dark", 47), Pixel("main", "dark", 9144)
DRY = RunOptions(jobs=1, dry_run=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "spectra").glob("*.parquet"))}


def coadds(root: Path) -> list[Path]:
    return sorted(root.rglob("coadd-*.fits"))


def redrock_of(coadd: Path) -> Path:
    return coadd.with_name(coadd.name.replace("coadd", "redrock"))


def copied(root: Path, to: Path) -> Path:
    """Copy a release's files, which may be links and read-only."""
    for path in (path for path in root.rglob("*") if path.is_file()):
        new = to / path.relative_to(root)
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, new)
    return to


def fetched(kit: Any, root: Path, mode: str, more: Iterable[int] = ()) -> int:
    """Make of a release what fetch leaves of it, and return how many pixels are without a coadd."""
    n_left_out = 0
    for coadd in coadds(root):
        quasars = kit.quasars_of(redrock_of(coadd))
        if mode == "hdus" or quasars:
            kit.cut_coadd(coadd, None if mode == "hdus" else {*quasars, *more})
        else:
            coadd.unlink()
            n_left_out += 1
    return n_left_out


@pytest.fixture
def made(kit: Any) -> Any:
    """A pixel with two quasars and one with none, their SHA-256 lists, and the tables of the whole release."""
    paths = kit.release.add(PIXEL)
    others = kit.release.add(OTHER, [kit.GALAXY, kit.replace(kit.QUASAR, zwarn=4)])
    for pair in (paths, others):
        kit.write_list(*pair)
    kit.coadd, kit.redrock = paths
    kit.other_coadd, kit.other_redrock = others
    assert kit.extract("whole").counts["rows_out"] == 2
    kit.whole = contents(kit.folder / "whole")
    return kit


class TestSameBytes:
    """Whatever was fetched of a release, its tables are the same files."""

    def check(self, kit: Any, release: Path) -> list[int]:
        whole = kit.extract("whole", source=copied(release, kit.folder / "of-whole"))
        n_left_out = []
        for mode in ("rows", "hdus"):
            source = copied(release, kit.folder / f"of-{mode}")
            n_left_out.append(fetched(kit, source, mode))
            result = kit.extract(mode, source=source)
            assert result.failures == ()
            assert result.counts == whole.counts
            assert result.details.get("notes") == whole.details.get("notes")
            assert contents(kit.folder / mode) == contents(kit.folder / "whole")
            assert kit.extract(mode, source=source).n_skipped == len(whole.paths)
        return n_left_out

    def test_of_real_spectra(self, kit: Any, real_release: Path) -> None:
        assert self.check(kit, real_release) == [2, 0]

    @pytest.mark.parametrize("survey", ["main", "sv3"])
    def test_of_a_simulated_release(self, kit: Any, survey: str) -> None:
        simulate(kit.folder / "made", quasars=8, healpix=2, contaminants=1.0, artefact_rate=0.3, seed=5, survey=survey)
        assert self.check(kit, kit.folder / "made") == [0, 0]

    def test_of_the_readmes_function(self, made: Any) -> None:
        expected = extract_qso_tile_to_parquet(made.release.root, made.folder / "one")[0].read_bytes()
        made.cut_coadd(made.coadd, made.quasars_of(made.redrock))
        made.other_coadd.unlink()
        (path,) = extract_qso_tile_to_parquet(made.release.root, made.folder / "two")
        assert path.read_bytes() == expected == made.whole[path.name]

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(kinds=st.lists(st.sampled_from(["quasar", "galaxy", "warned", "sky"]), max_size=5), data=st.data())
    def test_of_any_cut_that_holds_the_wanted_rows(self, kit: Any, kinds: list[str], data: st.DataObject) -> None:
        changes: dict[str, dict[str, Any]] = {
            "galaxy": {"spectype": "GALAXY"}, "warned": {"zwarn": 4}, "sky": {"objtype": "SKY"}
        }  # fmt: skip
        targets = [kit.Target(100 - 7 * i, **changes.get(kind, {})) for i, kind in enumerate(kinds)]
        kept = data.draw(st.sets(st.sampled_from(targets)) if targets else st.just(set()))
        coadd, redrock = kit.release.add(PIXEL, targets)
        forced = RunOptions(jobs=1, force=True)
        whole = kit.extract("whole", options=forced)
        wanted = set(kit.quasars_of(redrock))
        origin = kit.cut_coadd(coadd, {target.targetid for target in kept})
        cut = kit.extract("cut", options=forced)
        is_complete = wanted <= {target.targetid for target in kept}
        same = contents(kit.folder / "whole") == contents(kit.folder / "cut")
        assert same == is_complete
        assert ("notes" in cut.details) != is_complete
        named = read_metadata(cut.paths[0], SPECTRA)["qad.inputs"][0]["sha256"]
        assert named == (origin if is_complete else hash_file(coadd))
        dropped = sum(n for name, n in cut.counts.items() if name.startswith("dropped."))
        assert cut.counts["rows_in"] == cut.counts["rows_out"] + dropped == whole.counts["rows_in"]


class TestDoneOrNot:
    """The table names the release's file, and yet the bytes that are there decide."""

    def cut(self, kit: Any, *targets: Any, **cards: Any) -> str:
        return str(kit.cut_coadd(kit.coadd, [target.targetid for target in targets], cards))

    def run(self, kit: Any, **options: Any) -> StageResult:
        return kit.extract(options=RunOptions(jobs=1, **options), healpix=[PIXEL.healpix])

    def test_a_finished_cut_is_skipped_and_its_file_not_opened(self, made: Any) -> None:
        self.cut(made, made.QUASAR, made.SECOND)
        first = self.run(made)
        status = made.coadd.stat()
        made.coadd.write_bytes(bytes(status.st_size))
        os.utime(made.coadd, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert self.run(made, dry_run=True).n_skipped == 1
        again = self.run(made)
        assert (again.n_skipped, again.counts) == (1, first.counts)

    def test_a_larger_cut_is_extracted_and_so_is_the_whole_file(self, made: Any) -> None:
        whole = made.coadd.read_bytes()
        steps = [([made.QUASAR], 1), ([made.QUASAR, made.SECOND], 2), (made.TARGETS, 2), (None, 2)]
        for targets, n_rows in steps:
            made.coadd.write_bytes(whole)
            if targets is not None:
                self.cut(made, *targets)
            done = self.run(made)
            # the whole file would give just the table that is there
            assert done.n_done == (targets is not None)
            assert done.counts["rows_out"] == n_rows
        assert contents(made.folder / "work")["main-dark-47.parquet"] == made.whole["main-dark-47.parquet"]

    def test_the_whole_file_after_a_cut_without_some_rows_is_extracted(self, made: Any) -> None:
        whole = made.coadd.read_bytes()
        self.cut(made, made.SECOND)
        note = (
            "main/dark/47: 1 wanted row not in coadd-main-dark-47.fits, which was fetched for SPECTYPE QSO, ZWARN 0 alone; "
            "`qad fetch` with the fitting --spectype, --zwarn or --targets gets the rest"
        )
        for n_done in (1, 0):
            found = self.run(made)
            assert (found.n_done, found.details["notes"]) == (n_done, [note])
            assert found.counts["dropped.not_in_coadd"] == 1
        made.coadd.write_bytes(whole)
        assert self.run(made).n_done == 1
        assert contents(made.folder / "work")["main-dark-47.parquet"] == made.whole["main-dark-47.parquet"]

    def test_classes_that_were_not_fetched_are_told(self, made: Any) -> None:
        self.cut(made, made.QUASAR, made.SECOND)
        assert made.extract(healpix=[47], spectype=["QSO", "GALAXY"]).counts["dropped.not_in_coadd"] == 1
        assert "notes" not in made.extract(healpix=[47]).details

    def test_without_its_receipt_a_cut_is_done_again(self, made: Any) -> None:
        self.cut(made, made.QUASAR, made.SECOND)
        self.run(made)
        receipt = made.folder / "work/.qad/receipts/extract/main-dark-47.json"
        for text in (
            None,
            "{",
            '{"origins": {"coadd-main-dark-47.fits": 3}}',
            '{"origins": 3, "inputs": [{"path": 3}]}',
        ):
            receipt.unlink() if text is None else receipt.write_text(text)
            assert self.run(made, dry_run=True).n_done == 1
            assert self.run(made).n_done == 1
        assert contents(made.folder / "work")["main-dark-47.parquet"] == made.whole["main-dark-47.parquet"]

    def test_a_touched_or_moved_cut_is_hashed_not_extracted(self, made: Any) -> None:
        self.cut(made, made.QUASAR, made.SECOND)
        self.run(made)
        os.utime(made.coadd)
        assert self.run(made).n_skipped == 1
        moved = made.release.root.rename(made.folder / "moved")
        assert made.extract(source=moved, healpix=[47]).n_skipped == 1
        assert made.extract(source=moved, healpix=[47], options=RunOptions(jobs=1, verify=True)).n_skipped == 1

    @pytest.mark.parametrize("hdu", ["PRIMARY", "FIBERMAP", "EXP_FIBERMAP", "B_FLUX", "R_IVAR", "Z_MASK", "SCORES"])
    def test_a_flipped_bit_is_refused(self, made: Any, hdu: str) -> None:
        self.cut(made, made.QUASAR, made.SECOND)
        self.run(made)
        status = made.coadd.stat()
        raw = bytearray(made.coadd.read_bytes())
        with FitsFile(made.coadd) as file:
            raw[file.hdus[0].offset - 2000 if hdu == "PRIMARY" else file.hdu(hdu).offset + 2] ^= 1
        made.coadd.write_bytes(raw)
        os.utime(made.coadd, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert self.run(made).n_skipped == 1
        assert "damaged; fetch the file again" in self.run(made, verify=True).failures[0].reason
        os.utime(made.coadd)
        assert "damaged; fetch the file again" in self.run(made).failures[0].reason
        assert contents(made.folder / "work")["main-dark-47.parquet"] == made.whole["main-dark-47.parquet"]

    @pytest.mark.parametrize(
        ("cards", "reason"),
        [
            ({"QADSHA": "x" * 64}, "QADSHA is not a SHA-256"),
            ({"QADSHA": "a" * 63}, "QADSHA is not a SHA-256"),
            ({"QADSHA": 17}, "QADSHA is not a text"),
            ({"QADMODE": "columns"}, "QADMODE is 'columns'"),
            ({"QADMODE": True}, "QADMODE is not a text"),
        ],
    )
    def test_damaged_cards_are_refused(self, made: Any, cards: dict[str, Any], reason: str) -> None:
        self.cut(made, made.QUASAR, made.SECOND, **cards)
        (failure,) = self.run(made).failures
        assert reason in failure.reason
        assert "coadd-main-dark-47.fits" in failure.reason

    def test_a_cut_without_a_list_is_named_by_its_own_hash(self, made: Any) -> None:
        self.cut(made, made.QUASAR, made.SECOND, QADSHA=None, QADSEL=None)
        found = self.run(made)
        inputs = read_metadata(found.paths[0], SPECTRA)["qad.inputs"]
        assert inputs[0]["sha256"] == hash_file(made.coadd)
        assert "notes" not in found.details
        assert read_table(found.paths[0], SPECTRA).num_rows == 2
        assert self.run(made).n_skipped == 1


class TestIdentity:
    """A cut's own hash and its origin, found without reading what need not be read."""

    @pytest.fixture
    def large(self, kit: Any, tmp_path: Path) -> Path:
        """A cut that is large enough for a voucher: a real header before nothing."""
        path, _ = kit.release.add(PIXEL)
        kit.origin = kit.cut_coadd(path, [kit.QUASAR.targetid])
        more = {"XTENSION": "IMAGE", "BITPIX": 8, "NAXIS": 1, "NAXIS1": LARGE_BYTES, "PCOUNT": 0, "GCOUNT": 1}
        with path.open("ab") as file:
            file.write(header_block(more))
            file.truncate(file.tell() + -(-LARGE_BYTES // 2880) * 2880)
        return path

    def identity(self, path: Path, verify: bool = False) -> Identity:
        return input_hashes([path], path.parent / "receipt.json", verify)

    @pytest.mark.parametrize("verify", [False, True])
    def test_the_releases_list_is_no_voucher_for_a_large_cut(self, kit: Any, large: Path, verify: bool) -> None:
        listed = large.with_name("redux_iron_healpix_main_dark_0_47.sha256sum")
        for sha256, notes in ((kit.origin, []), ("a" * 64, ["was cut from another file"])):
            listed.write_text(f"{sha256}  {large.name}\n")
            found = self.identity(large, verify)
            assert found.hashes == [hash_file(large)]
            assert found.origins == {large.name: kit.origin}
            assert [note.partition(" ")[2][: len(notes[0])] for note in found.notes] == notes

    def test_fetch_vouches_for_a_cut_and_only_its_header_is_read(self, kit: Any, large: Path) -> None:
        status = large.stat()
        entry = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": "b" * 64}
        large.with_name(".qad-fetch.json").write_text(json.dumps({"format": 2, "files": {large.name: entry}}))
        found = self.identity(large)
        assert (found.hashes, found.origins, found.read) == (["b" * 64], {large.name: kit.origin}, [])
        assert not found.is_whole
        assert self.identity(large, verify=True).read == [large]

    def test_a_file_is_a_cut_only_if_its_header_says_so(self, made: Any) -> None:
        assert read_cut(made.coadd) is None
        assert read_cut(made.redrock) is None
        assert read_cut(made.folder / "absent") is None
        origin = made.cut_coadd(made.coadd, [made.QUASAR.targetid])
        assert read_cut(made.coadd) == Cut("rows", origin, "SPECTYPE QSO, ZWARN 0")
        made.coadd.write_bytes(made.coadd.read_bytes()[:2000])
        assert read_cut(made.coadd) is None


class TestWithoutCoadd:
    """Fetch leaves a coadd out whose pixel has nothing that is wanted."""

    def test_an_empty_table_is_that_of_the_whole_release(self, made: Any) -> None:
        made.other_coadd.unlink()
        assert made.extract(options=DRY).n_done == 2
        first = made.extract()
        assert first.failures == ()
        assert first.counts == {"rows_in": 5, "dropped.spectype": 2, "dropped.zwarn": 1, "rows_out": 2}
        assert contents(made.folder / "work") == made.whole
        assert made.extract(options=DRY).n_skipped == 2
        again = made.extract()
        assert (again.n_skipped, again.counts) == (2, first.counts)

    def test_it_is_done_again_when_its_coadd_or_the_list_comes_or_the_receipt_goes(self, made: Any) -> None:
        whole = made.other_coadd.read_bytes()
        (listed,) = made.other_coadd.parent.glob("*.sha256sum")
        lines = listed.read_text()
        made.other_coadd.unlink()
        listed.unlink()
        path = made.extract(healpix=[OTHER.healpix]).paths[0]
        names = [item["name"].rpartition("/")[2] for item in read_metadata(path, SPECTRA)["qad.inputs"]]
        assert names == ["redrock-main-dark-9144.fits"]
        assert read_metadata(path, SPECTRA)["qad.specprod"] == "iron"
        listed.write_text(lines)
        assert made.extract(healpix=[OTHER.healpix]).n_done == 1
        assert path.read_bytes() == made.whole[path.name]
        (made.folder / "work/.qad/receipts/extract/main-dark-9144.json").unlink()
        assert made.extract(healpix=[OTHER.healpix]).n_done == 1
        made.other_coadd.write_bytes(whole)
        assert made.extract(healpix=[OTHER.healpix]).n_skipped == 1
        assert path.read_bytes() == made.whole[path.name]

    @pytest.mark.parametrize("keys", [{"spectype": ["GALAXY"]}, {"zwarn": 4}])
    def test_a_pixel_with_wanted_rows_fails_with_what_to_do(self, made: Any, keys: dict[str, Any]) -> None:
        made.other_coadd.unlink()
        made.extract()
        for options in (
            None,
            DRY,
            RunOptions(jobs=1, dry_run=True, force=True),
            RunOptions(jobs=1, dry_run=True, verify=True),
        ):
            found = made.extract(options=options, **keys)
            (failure,) = found.failures
            assert failure.unit == "main/dark/9144"
            assert failure.reason.startswith(
                f"{made.other_coadd}: no such file, and redrock-main-dark-9144.fits has 1 wanted row; run `qad fetch` again"
            )
            assert "\n" not in failure.reason

    def test_rows_outside_the_redshifts_asked_for_need_no_coadd(self, made: Any) -> None:
        made.coadd.unlink()
        assert [failure.unit for failure in made.extract().failures] == ["main/dark/47"]
        assert made.extract(z_min=2.5).failures == ()

    def test_a_finished_table_does_not_hide_that_its_coadd_is_gone(self, made: Any) -> None:
        made.extract()
        made.coadd.unlink()
        for options in (None, DRY):
            assert [failure.unit for failure in made.extract(options=options).failures] == ["main/dark/47"]

    def test_a_link_that_leads_nowhere_is_not_a_coadd_that_was_left_out(self, made: Any) -> None:
        made.other_coadd.unlink()
        made.other_coadd.symlink_to(made.folder / "nowhere")
        for options in (None, DRY):
            assert "no such file" in made.extract(options=options).failures[0].reason

    def test_a_coadd_without_redrock_fails(self, made: Any) -> None:
        made.other_redrock.unlink()
        (failure,) = made.extract().failures
        assert failure.reason.endswith("redrock-main-dark-9144.fits: no such file; coadd-main-dark-9144.fits is there")

    def test_damage_in_redrock_is_found(self, made: Any) -> None:
        made.other_coadd.unlink()
        raw = bytearray(made.other_redrock.read_bytes())
        raw[-2000] ^= 1
        made.other_redrock.write_bytes(raw)
        (failure,) = made.extract().failures
        assert "damaged" in failure.reason


def test_a_cut_that_cannot_be_read_says_why(made: Any) -> None:
    made.cut_coadd(made.coadd, [made.QUASAR.targetid])
    made.coadd.write_bytes(made.coadd.read_bytes()[:-3000])
    (failure,) = made.extract().failures
    assert "cut off" in failure.reason


def test_only_our_error_leaves_a_damaged_header(made: Any) -> None:
    """A flipped bit in any card is found by CHECKSUM, and where it hit CHECKSUM itself the others are right."""
    made.cut_coadd(made.coadd, [made.QUASAR.targetid])
    right = read_cut(made.coadd)
    raw = made.coadd.read_bytes()[:8640]
    for place in range(0, 2880, 7):
        made.coadd.write_bytes(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :])
        try:
            found = read_cut(made.coadd)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert found in (None, right)
