"""The Python interface, and what is known of a target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import qad
from qad.config import load_config
from qad.errors import ConfigError, InputError
from qad.inspection.bits import FIBERSTATUS_BITS, SCORE_FLAGS, ZWARN_BITS, bit_names
from qad.inspection.columns import describe_column
from qad.inspection.details import describe
from qad.inspection.gallery import gallery_columns
from qad.inspection.stage import InspectResult, open_tables


def test_python_call_returns_rows_and_frame(root: Path, made: Any) -> None:
    result = qad.inspect(root=root, top=4, where="artefact < 0.5", columns=["targetid", "score"])
    assert isinstance(result, InspectResult)
    wanted = [0, 1, 3, 4]
    assert [row["targetid"] for row in result.rows] == [str(made.targetid[i]) for i in wanted]
    assert result.frame is not None
    assert result.frame["targetid"].to_list() == made.targetid[wanted].tolist()
    assert result.counts == {"rows": 4, "scored": made.n}
    json.dumps(result.as_json(), allow_nan=False)


def test_python_call_with_targets_tells_all(root: Path, made: Any) -> None:
    targetid = int(made.targetid[made.trough])
    result = qad.inspect(root=root, targetid=[targetid])
    assert isinstance(result, InspectResult)
    (target,) = result.targets
    (entry,) = target["spectra"]
    assert target["targetid"] == str(targetid)
    assert entry["redrock"]["zwarn_bits"] == ["SMALL_DELTA_CHI2"]
    assert entry["flags"] == {"value": 5, "names": ["few_pixels", "snr_edge"]}
    assert entry["photometry"][0] == {"band": "g", "mag": 20.0, "error": pytest.approx(0.01086, abs=1e-4)}
    assert entry["scores"]["worst_wave_rest"] == 1510
    assert entry["views"][0]["name"] == "local"
    c_iv = next(line for line in entry["lines"] if line["name"] == "C IV")
    assert c_iv["wave_obs"] == pytest.approx(1549.06 * 3.2, abs=0.01)
    assert all(3600 <= line["wave_obs"] <= 9824 for line in entry["lines"])


def test_target_without_a_score_is_still_described(own_root: Path, made: Any) -> None:
    targetid = int(made.targetid[made.trough])
    path = own_root / "scores" / "default.parquet"
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    pq.write_table(table.filter(pc.field("targetid") != targetid), path)
    tables = open_tables(load_config(None, {"paths.root": str(own_root)}))
    (document,) = describe(tables, [targetid])
    assert document["spectra"][0]["scores"] == {}
    assert document["spectra"][0]["redrock"]["z"] == 2.2
    with pytest.raises(InputError, match="no spectrum of TARGETID 17"):
        describe(tables, [17])


def test_target_without_a_score_is_plotted_and_listed(
    own_root: Path, made: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qad.inspection.view import Wanted, run

    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.delenv("LC_ALL", raising=False)
    test_target_without_a_score_is_still_described(own_root, made)
    targetid = int(made.targetid[made.trough])
    config = load_config(None, {"paths.root": str(own_root), "inspect.targetid": [targetid]})
    run(config, Wanted(plot=True))
    shown = capfd.readouterr().out
    assert f"TARGETID {targetid}" in shown
    assert "C IV" in shown
    run(config, Wanted())
    assert "none: the spectrum was not scored" in capfd.readouterr().out


def test_every_column_has_a_description(root: Path) -> None:
    tables = open_tables(load_config(None, {"paths.root": str(root)}))
    for name in tables.known:
        unit, description = describe_column(name)
        assert description, name
        assert isinstance(unit, str)
    assert set(gallery_columns(tables, ["z"])) <= set(tables.known)


def test_flag_names_are_those_of_score() -> None:
    from qad.scoring.rank import FLAGS

    assert {1 << bit: name for bit, name in SCORE_FLAGS.items()} == FLAGS


def test_bit_names() -> None:
    assert bit_names(0, ZWARN_BITS) == []
    assert bit_names(0b10000010100, ZWARN_BITS) == ["SMALL_DELTA_CHI2", "MANY_OUTLIERS", "BAD_MINFIT"]
    assert bit_names(1 << 40, ZWARN_BITS) == ["bit 40"]


def test_bit_names_are_those_of_desi() -> None:
    from qad.desi import masks

    for ours, theirs in ((ZWARN_BITS, masks.ZWARN_BITS), (FIBERSTATUS_BITS, masks.FIBERSTATUS_BITS)):
        assert {name: bit for bit, name in ours.items()} == dict(theirs)


def test_wrong_settings_are_named(root: Path) -> None:
    with pytest.raises(ConfigError):
        qad.inspect(root=root, top=0)
    with pytest.raises(ConfigError, match="did you mean score"):
        qad.inspect(root=root, sort="-scor")
