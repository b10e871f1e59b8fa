"""Shares of the units: every unit in exactly one, whatever else is in the list; and what batch systems say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qad.errors import ConfigError
from qad.parallel import Share, chosen, parse_share
from qad.work.units import Pixel


@given(st.lists(st.text(max_size=12), max_size=30, unique=True), st.integers(1, 9))
def test_every_unit_falls_to_one_share(names: list[str], count: int) -> None:
    shares = [Share(index, count) for index in range(count)]
    assert sorted(name for share in shares for name in chosen(share, names)) == sorted(names)
    assert sorted(name for share in shares for name in share.of(names)) == sorted(names)


def test_a_units_share_does_not_depend_on_other_units_and_is_for_ever() -> None:
    pixels = [Pixel("main", "dark", number) for number in range(1000)]
    mine = chosen(Share(3, 8), pixels)
    assert chosen(Share(3, 8), pixels[::7]) == [pixel for pixel in pixels[::7] if pixel in mine]
    assert [pixel.healpix for pixel in mine[:5]] == FIRST_OF_3_IN_8
    assert 90 < len(mine) < 160


FIRST_OF_3_IN_8 = [1, 2, 14, 15, 29]


@pytest.mark.parametrize(
    ("environ", "share"),
    [
        ({"JOB_COMPLETION_INDEX": "0", "QAD_SHARDS": "4"}, Share(0, 4)),
        ({"JOB_COMPLETION_INDEX": "3", "JOB_COMPLETIONS": "4"}, Share(3, 4)),
        ({"ID": "7", "MIN": "4", "MAX": "7", "COUNT": "4"}, Share(3, 4)),
        ({"ID": "10", "MIN": "2", "MAX": "14", "STEP": "4", "COUNT": "4"}, Share(2, 4)),
        ({"ID": "5", "MIN": "1", "MAX": "5", "COUNT": "2", "QAD_SHARDS": "8"}, Share(5, 8)),
    ],
)
def test_batch_systems_are_understood(environ: dict[str, str], share: Share) -> None:
    assert parse_share("auto", slurm(environ)) == share


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({}, "neither JOB_COMPLETION_INDEX"),
        ({"JOB_COMPLETION_INDEX": "0"}, "set QAD_SHARDS"),
        ({"JOB_COMPLETION_INDEX": "4", "QAD_SHARDS": "4"}, "counts from 0 to 3"),
        ({"JOB_COMPLETION_INDEX": "x", "QAD_SHARDS": "4"}, "JOB_COMPLETION_INDEX is 'x'"),
        ({"JOB_COMPLETION_INDEX": "0", "QAD_SHARDS": "0"}, "N is at least 1"),
        ({"JOB_COMPLETION_INDEX": "0", "QAD_SHARDS": "-2"}, "no number"),
        ({"ID": "3"}, "SLURM_ARRAY_TASK_MIN is not set"),
        ({"ID": "3", "MIN": "0", "MAX": "7", "COUNT": "3"}, "no plain range"),
        ({"ID": "5", "MIN": "1", "MAX": "5", "QAD_SHARDS": "4"}, "counts from 0 to 3"),
    ],
)
def test_what_a_batch_system_leaves_unclear_is_refused(environ: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        parse_share("auto", slurm(environ))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "1", "1/", "/2", "1/0", "2/2", "-1/2", "1/2/3", "a/b", "1.0/2", "all"])
def test_wrong_shares_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_share(text)


def slurm(environ: dict[str, str]) -> dict[str, str]:
    """Give the short names of Slurm's variables their full ones."""
    return {f"SLURM_ARRAY_TASK_{name}" if "_" not in name else name: value for name, value in environ.items()}
