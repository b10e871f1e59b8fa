"""Which rows, which columns, in which order, and that an expression can be nothing but an expression."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.config import Config, load_config
from qad.errors import ConfigError, InputError
from qad.inspection.layout import caption, fit, plain_lines
from qad.inspection.stage import inspect
from qad.inspection.view import parse_targetids, with_columns
from qad.results import RunOptions
from qad.schema import SCORES
from qad.storage.expression import parse_where


def look(root: Path, **keys: Any) -> pl.DataFrame:
    settings = {f"inspect.{name}": value for name, value in keys.items()}
    frame = inspect(load_config(None, {"paths.root": str(root), **settings}), RunOptions()).frame
    assert frame is not None
    return frame


def test_first_rows_by_rank_without_any_other_table(own_root: Path) -> None:
    for folder in ("spectra", "grid", "models", "matches"):
        (own_root / folder).rename(own_root / f"no-{folder}")
    frame = look(own_root, top=5)
    assert frame["rank"].to_list() == [1, 2, 3, 4, 5]
    assert frame.columns == load_config().inspect.columns


def test_only_the_needed_rows_and_columns_of_the_scores_are_read(
    own_root: Path, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_root / "scores" / "default.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=8)
    seen: list[tuple[list[int], list[str]]] = []
    real = pq.ParquetFile.read_row_groups

    def read(self: Any, groups: list[int], columns: list[str] | None = None, **more: Any) -> Any:
        seen.append((list(groups), list(columns or [])))
        return real(self, groups, columns, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", read)
    assert look(own_root, top=3, columns=["rank", "targetid", "score"]).height == 3
    ((groups, columns),) = seen
    assert groups == [0]
    assert set(columns) == {"rank", "targetid", "survey", "program", "healpix", "score"}
    seen.clear()
    row = look(own_root, targetid=[int(made.targetid[20])], columns=["rank", "targetid", "score"])
    assert row["rank"].to_list() == [21]
    assert {group for groups, columns in seen if columns and "score" in columns for group in groups} == {2}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 49), max_size=30), st.integers(1, 17))
def test_rows_are_the_same_by_any_row_groups(rows: list[int], size: int) -> None:
    from qad.inspection.scores import ScoresFile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.parquet"
        table = pa.table({"rank": np.arange(1, 51), "targetid": np.arange(50) * 7}).replace_schema_metadata(
            {"qad.table": "scores/1"}
        )
        pq.write_table(table, path, row_group_size=size)
        scores = ScoresFile(path)
        expected = sorted(set(rows))
        assert scores.at(rows, ["targetid"])["targetid"].to_list() == [7 * row for row in expected]
        assert scores.with_ranks([row + 1 for row in rows]).tolist() == (expected if rows else [])
        assert scores.with_ranks([0, 51, -3, None]).tolist() == []
        assert scores.with_targetids([7 * row for row in rows]).tolist() == expected
        assert scores.head(23, ["rank"])["rank"].to_list() == list(range(1, 24))


def test_where_joins_scores_spectra_matches_and_labels(root: Path, made: Any) -> None:
    wanted = (made.z > 2) & (made.snr > 3)
    frame = look(root, where="z > 2 and snr > 3", top=100, columns=["targetid", "z"])
    assert frame["targetid"].to_list() == made.targetid[wanted].tolist()
    assert look(root, where="zwarn = 4", columns=["targetid"])["targetid"].to_list() == [made.targetid[made.trough]]
    assert look(root, where="match_id = 'J0001'", columns=["rank"])["rank"].to_list() == [1]
    assert look(root, where="cat_z > 2", columns=["rank", "n_matches", "matches"]).row(0)[1:] == (
        2,
        "dr16q J0001 0.2″; dr16q J0002 1.1″",
    )
    assert look(root, where="label is not null").height == 0


def test_magnitudes_are_ab_and_null_without_flux(root: Path) -> None:
    frame = look(root, top=2, columns=["mag_g", "mag_r", "mag_w1"])
    assert frame["mag_g"][0] == pytest.approx(20.0)
    assert frame["mag_r"].to_list() == [None, pytest.approx(17.5)]
    assert frame["mag_w1"].null_count() == 2


def test_columns_joined_later_belong_to_their_row(root: Path, made: Any) -> None:
    frame = look(root, top=100, sort="-snr", columns=["targetid", "survey", "zwarn", "subtype", "snr", "view_local"])
    order = np.argsort(-made.snr, kind="stable")
    assert frame["targetid"].to_list() == made.targetid[order].tolist()
    assert frame["survey"].to_list() == [made.survey[i] for i in order]
    assert frame["view_local"].to_list() == pytest.approx(np.linspace(9, 1, made.n)[order])
    assert frame["zwarn"].to_list() == [4 if i == made.trough else 0 for i in order]


@pytest.mark.parametrize("sort", ["snr", "snr asc", "-snr", "snr desc"])
def test_sort_in_both_directions(root: Path, made: Any, sort: str) -> None:
    values = look(root, sort=sort, top=1)["snr"]
    assert values[0] == pytest.approx(made.snr.max() if sort in ("-snr", "snr desc") else made.snr.min())


def test_targets_are_exact_and_all_their_surveys_are_shown(root: Path, made: Any) -> None:
    twice = int(made.targetid[made.twice[0]])
    frame = look(root, targetid=[twice], columns=["targetid", "survey"])
    assert frame.rows() == [(twice, "main"), (twice, "sv1")]
    assert frame["targetid"].dtype == pl.Int64


REFUSED = [
    "z > 2; DROP TABLE scores",
    "z > 2 UNION SELECT * FROM read_csv('/etc/passwd')",
    "EXISTS (SELECT * FROM read_csv('/etc/passwd'))",
    "z IN (SELECT z FROM read_parquet('/etc/passwd'))",
    "(WITH x AS (VALUES (1)) TABLE x)",
    "read_csv('/etc/passwd') = 1",
    "z > 2) OR (1 = 1",
    "z > 2 LIMIT 1",
    "z > 2, 1",
    "z >",
    "*",
    "z",
    "reason > 2",
    "unknown_function(z) > 1",
    "+".join(["z"] * 20_000) + " > 1",
    "(" * 10_000 + "true" + ")" * 10_000,
    "z > 2 /*",
    "z.x > 2",
]


@pytest.mark.parametrize("where", REFUSED, ids=range(len(REFUSED)))
def test_where_takes_an_expression_and_nothing_else(root: Path, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        look(root, where=where)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_words_of_statements_are_allowed_inside_quotes(root: Path) -> None:
    assert look(root, where="reason like '%select from with;%'").height == 0
    assert look(root, where='"z" > 0 -- from here on a comment; select', top=100).height == 40


def test_unknown_column_is_named_with_the_nearest_one(root: Path) -> None:
    with pytest.raises(ConfigError, match="no column 'artifact'; did you mean artefact"):
        look(root, where="artifact < 0.5")
    with pytest.raises(ConfigError, match="--sort: no column 'scores'; did you mean score"):
        look(root, sort="-scores")
    with pytest.raises(ConfigError, match="--columns: no column 'zzz'"):
        look(root, columns=["zzz"])


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("z>2 ()'\"-;*,=selctfromANDor%/.é\x1b\n"), max_size=40))
def test_any_text_is_an_expression_or_one_clear_error(text: str) -> None:
    try:
        expression, names = parse_where(text, ["z"])
    except ConfigError as error:
        lines = str(error).splitlines()
    else:
        assert set(names) <= {"z"}
        assert isinstance(expression, pl.Expr)
        return
    assert len(lines) == 1


def test_polars_stays_within_its_stack_at_the_allowed_length() -> None:
    text = "z > 1" + " and z > 1" * 199 + " or z > 1" * 100
    frame = pl.DataFrame({"z": [0.0, 2.0]})
    kept = []
    thread = threading.Thread(target=lambda: kept.append(frame.filter(parse_where(text, ["z"])[0]).height))
    thread.start()
    thread.join()
    assert kept == [1]


@pytest.mark.parametrize("text", ["abc", "1.5", "1e18", "", "9" * 19, "9" * 30, "１２", "--", "0x10", "1;2"])
def test_malformed_targetid_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a TARGETID"):
        parse_targetids([text])


def test_columns_can_be_added_and_listed(config: Config) -> None:
    assert with_columns(config, "+mag_r,label").inspect.columns == [*config.inspect.columns, "mag_r", "label"]
    assert with_columns(config, "z, snr").inspect.columns == ["z", "snr"]
    every = with_columns(config, "all").inspect.columns
    assert {"view_local", "p_local", "zwarn", "mag_w2", "label", "cat_z"} <= set(every)
    assert "latent" not in every
    assert len(set(every)) == len(every)
    with pytest.raises(ConfigError, match="name columns"):
        with_columns(config, ",")


def test_missing_scores_say_which_there_are(own_root: Path) -> None:
    with pytest.raises(InputError, match=r"scores of default \(--name\)"):
        look(own_root, name="other")
    (own_root / "scores/default.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        look(own_root)


def test_damaged_scores_are_named(own_root: Path) -> None:
    path = own_root / "scores/default.parquet"
    content = bytearray(path.read_bytes())
    content[4:4000] = bytes(3996)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"default\.parquet"):
        look(own_root)


def test_match_tables_of_a_longer_model_name_are_not_mixed_in(own_root: Path) -> None:
    for name in ("scores/default-b.parquet", "matches/default-b-dr16q.parquet"):
        (own_root / name).write_bytes((own_root / name.replace("-b", "")).read_bytes())
    assert look(own_root, top=1, columns=["n_matches"])["n_matches"][0] == 2


@settings(max_examples=60, deadline=None)
@given(st.integers(30, 200))
def test_layout_fits_any_width_and_keeps_targetids_whole(width: int) -> None:
    frame = pl.DataFrame(
        {
            "rank": [1, 200],
            "targetid": [39627612345678901, -1],
            "survey": ["main", "special"],
            "z": [1.23456, None],
            "score": [12.0, 3.4],
            "reason": ["strong C IV " * 20, "short"],
        }
    )
    grid = fit(frame, width)
    lines = plain_lines(grid)
    assert max(map(len, lines)) <= width
    assert "39627612345678901" in lines[1]
    assert set(grid.names) | set(grid.left_out) == set(frame.columns)
    if grid.left_out:
        assert all(name in caption(grid, 2, 2) for name in grid.left_out)


def test_layout_gives_text_the_room_that_is_left() -> None:
    frame = pl.DataFrame({"rank": [1], "targetid": [39627612345678901], "reason": ["a" * 50], "z": [1.0]})
    narrow, wide, free = (fit(frame, width) for width in (45, 70, None))
    assert narrow.left_out == ("reason",)
    assert plain_lines(wide)[1].rstrip().endswith("1.0000")
    assert "…" in plain_lines(wide)[1]
    assert "a" * 50 in plain_lines(free)[1]


def test_every_column_of_the_schema_can_be_shown(root: Path) -> None:
    names = [column.name for column in SCORES.columns if not column.is_vector]
    assert look(root, columns=names, top=2).columns == names
