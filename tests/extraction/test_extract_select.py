"""Which rows come out: matched by TARGETID, counted by reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qad.desi.redrock import Redshifts
from qad.extraction.select import select_rows
from qad.schema import SPECTRA
from qad.settings import Extract
from qad.storage.parquet import read_table
from qad.work.units import Pixel

PIXEL = Pixel("main", "dark", 47)


def rows(path: Path) -> dict[int, float]:
    table = read_table(path, SPECTRA, ["targetid", "z"])
    return dict(pl.DataFrame(pl.from_arrow(table)).iter_rows())


def redshifts(targetid: list[int], z: list[float] | None = None, **more: Any) -> Redshifts:
    n = len(targetid)
    return Redshifts(
        np.array(targetid, np.int64),
        np.array([1.0] * n if z is None else z),
        np.array(more.get("zwarn", [0] * n), np.int64),
        more.get("spectype", ["QSO"] * n),
        None,
        None,
        {},
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"spectype": "GALAXY"}, "spectype"),
        ({"spectype": ""}, "spectype"),
        ({"zwarn": 4}, "zwarn"),
        ({"zwarn": -1}, "zwarn"),
        ({"objtype": "SKY"}, "objtype"),
        ({"objtype": ""}, "objtype"),
        ({"fiberstatus": 1 << 22}, "fiberstatus"),
        ({"fiberstatus": 9}, "fiberstatus"),
        ({"z": float("nan")}, "bad_z"),
        ({"z": float("inf")}, "bad_z"),
        ({"z": -1.0}, "bad_z"),
        ({"z": 1e6}, "z_range"),
        ({"z": -0.001}, "z_range"),
    ],
)
def test_a_row_is_dropped_with_its_reason(kit: Any, change: dict[str, Any], reason: str) -> None:
    kit.release.add(PIXEL, [kit.replace(kit.QUASAR, **change), kit.SECOND])
    result = kit.extract()
    assert result.counts == {"rows_in": 2, f"dropped.{reason}": 1, "rows_out": 1}
    assert rows(result.paths[0]) == {kit.SECOND.targetid: kit.SECOND.z}


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"spectype": "STAR"}, {"spectype": ["qso", "STAR"]}),
        ({"zwarn": 4 | 1024}, {"zwarn": 4 | 1024 | 32}),
        ({"objtype": "SKY"}, {"objtype": ["TGT", "SKY"]}),
        ({"fiberstatus": 8}, {}),
        ({"fiberstatus": 1 << 22}, {"fiberstatus": 1 << 22}),
        ({"z": 7.5}, {"z_max": 8.0}),
        ({"z": -0.001}, {"z_min": -0.01}),
    ],
)
def test_settings_allow_more(kit: Any, change: dict[str, Any], keys: dict[str, Any]) -> None:
    kit.release.add(PIXEL, [kit.replace(kit.QUASAR, **change), kit.SECOND])
    assert kit.extract(**keys).counts["rows_out"] == 2


def test_negative_and_large_targetids_are_exact(kit: Any) -> None:
    targets = [kit.Target(-2713437), kit.Target(616088619186127404), kit.Target(616088619186127405, z=0.5)]
    kit.release.add(PIXEL, targets)
    assert rows(kit.extract().paths[0]) == {-2713437: 2.1, 616088619186127404: 2.1, 616088619186127405: 0.5}


def test_redrock_and_coadd_are_matched_by_targetid_not_by_row(kit: Any) -> None:
    kit.release.add(PIXEL, kit.TARGETS, redrock_targets=kit.TARGETS[::-1])
    result = kit.extract()
    assert rows(result.paths[0]) == {t.targetid: t.z for t in kit.TARGETS[:2]}
    plain = read_table(result.paths[0], SPECTRA)
    kit.release.add(PIXEL)
    assert read_table(kit.extract("plain").paths[0], SPECTRA).equals(plain)


def test_a_duplicated_target_is_counted_reported_and_the_first_row_kept(kit: Any) -> None:
    again = kit.replace(kit.QUASAR, z=3.3)
    kit.release.add(PIXEL, kit.TARGETS, redrock_targets=[kit.QUASAR, again, *kit.TARGETS[1:]])
    result = kit.extract()
    assert result.counts["dropped.duplicate"] == 1
    assert result.counts["rows_in"] == 4
    assert rows(result.paths[0])[kit.QUASAR.targetid] == kit.QUASAR.z
    assert result.details["duplicate_targetids"] == [f"main/dark/47: {kit.QUASAR.targetid}"]


def test_a_duplicate_in_the_coadd_is_reported_and_its_first_row_kept(kit: Any) -> None:
    def spoil(coadd: dict[str, Any], _: dict[str, Any]) -> None:
        coadd["B_FLUX"].data[3] = 1e6

    kit.release.add(PIXEL, [*kit.TARGETS, kit.QUASAR], redrock_targets=kit.TARGETS, edit=spoil)
    result = kit.extract()
    assert result.counts["duplicate_targets"] == 1
    flux = read_table(result.paths[0], SPECTRA, ["flux"]).column("flux").combine_chunks().flatten().to_numpy()
    assert flux.max() < 1e5


def test_a_target_of_one_file_alone_is_dropped_and_counted(kit: Any) -> None:
    kit.release.add(PIXEL, kit.TARGETS[1:], redrock_targets=kit.TARGETS[:2])
    result = kit.extract()
    assert result.counts == {
        "rows_in": 3, "dropped.not_in_coadd": 1, "dropped.not_in_redrock": 1, "rows_out": 1
    }  # fmt: skip
    assert rows(result.paths[0]) == {kit.SECOND.targetid: kit.SECOND.z}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"spectype": ["GALAXY"]}, "spectype"),
        ({"zwarn": [4]}, "zwarn"),
        ({"z": [float("nan")]}, "bad_z"),
        ({"z": [8.0]}, "z_range"),
        ({}, "not_in_coadd"),
    ],
)
def test_what_redrock_tells_counts_before_what_the_coadd_lacks(change: dict[str, Any], reason: str) -> None:
    nothing = np.empty(0, np.int64)
    assert select_rows(redshifts([5], **change), nothing, None, nothing, Extract()).dropped == {reason: 1}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(3)), redrock_order=st.permutations(range(3)))
def test_the_order_of_rows_never_matters(kit: Any, order: list[int], redrock_order: list[int]) -> None:
    from qad.extraction.healpix import extract_pixel

    paths = kit.release.add(
        PIXEL, [kit.TARGETS[i] for i in order], redrock_targets=[kit.TARGETS[i] for i in redrock_order]
    )
    table = extract_pixel(PIXEL, *paths, Extract()).table
    reference = kit.__dict__.setdefault("reference", table)
    assert table.equals(reference)
    assert table.column("targetid").to_pylist() == sorted(t.targetid for t in kit.TARGETS[:2])


@settings(deadline=None)
@given(
    redrock=st.lists(st.tuples(st.integers(0, 6), st.floats(), st.sampled_from(["QSO", "STAR"])), max_size=10),
    coadd=st.lists(st.integers(0, 6), max_size=10),
)
def test_rows_in_are_rows_out_and_rows_dropped(redrock: list[tuple[int, float, str]], coadd: list[int]) -> None:
    table = redshifts([r[0] for r in redrock], [r[1] for r in redrock], spectype=[r[2] for r in redrock])
    targetid = np.array(coadd, np.int64)
    found = select_rows(table, targetid, None, np.zeros(len(coadd), np.int64), Extract())
    assert found.n_rows == len(found.redrock_rows) + sum(found.dropped.values())
    np.testing.assert_array_equal(table.targetid[found.redrock_rows], targetid[found.coadd_rows])
    assert len(set(table.targetid[found.redrock_rows].tolist())) == len(found.redrock_rows)
    z = table.z[found.redrock_rows]
    assert ((z >= 0) & (z <= 7)).all()
