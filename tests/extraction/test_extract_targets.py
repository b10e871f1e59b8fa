"""A pixel that fetch left without a coadd because it holds none of the listed targets is empty, not a failure."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import qad


@pytest.fixture
def listed(real_release: Path, tmp_path: Path) -> Path:
    """A work directory with the rows of one real quasar, of sv1/dark/8139."""
    targets = tmp_path / "targets.csv"
    targets.write_text("TARGETID\n39633559467591522\n")
    root = tmp_path / "work"
    result = qad.fetch(root=root, source=str(real_release), targets=str(targets), mode="rows")
    assert (result.failures, result.counts["rows_fetched"]) == ((), 1)
    assert result.details["targets_missing"] == []
    return root


def test_only_the_listed_target_is_extracted_and_others_are_told(listed: Path) -> None:
    result = qad.extract(root=listed)
    assert result.failures == ()
    tables = [pq.read_table(path) for path in result.paths]
    assert [table["targetid"].to_pylist() for table in tables if table.num_rows] == [[39633559467591522]]
    assert any("wanted rows not in coadd-sv1-dark-8139.fits" in note for note in result.details["notes"])


def test_a_pixel_that_redrock_calls_full_is_empty_where_no_target_lies(listed: Path, real_release: Path) -> None:
    """The receipt, not a guess, tells that the coadd was left out; another choice of rows would be a failure."""
    folder = listed / "raw/dr1/healpix/sv1/dark/81/8139"
    receipt = folder / ".qad-fetch.json"
    document = json.loads(receipt.read_text())
    (folder / "coadd-sv1-dark-8139.fits").unlink()
    entry = document["files"]["coadd-sv1-dark-8139.fits"]
    entry |= {"verified": "no-rows", "size": 0, "sha256": ""}
    receipt.write_text(json.dumps(document))
    result = qad.extract(root=listed)
    assert result.failures == ()
    assert result.counts["dropped.not_in_coadd"] == 8
    entry["rows"] = ["SPECTYPE GALAXY, ZWARN 0"]
    receipt.write_text(json.dumps(document))
    (failure,) = qad.extract(root=listed, force=True).failures
    assert "run `qad fetch` again" in failure.reason
    qad.fetch(root=listed, source=str(real_release), mode="files")
    assert qad.extract(root=listed).counts["rows_out"] == 13
