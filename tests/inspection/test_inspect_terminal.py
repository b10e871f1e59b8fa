"""``qad inspect`` as people meet it: real terminals wide, narrow and dumb, pipes, closed pipes, wrong words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import pyte
import pytest

QAD = [sys.executable, "-m", "qad"]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "COLUMNS", "LINES"))}
UTF8 = {**CLEAN, "LANG": "C.UTF-8", "TERM": "xterm-256color"}


def pipe(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*QAD, "inspect", *map(str, arguments)], capture_output=True, env=env or UTF8, timeout=60)


@dataclass
class Done:
    returncode: int
    stdout: bytes
    stderr: bytes


@pytest.fixture
def call(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Run in this process, which saves the start: stdout and stderr are files, as in a batch job."""
    for name in ("LC_ALL", "LC_CTYPE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")

    def run(*arguments: object) -> Done:
        from qad.cli.main import app

        try:
            code = app(["inspect", *map(str, arguments)], standalone_mode=False)
        except SystemExit as stop:
            code = stop.code
        out, err = capfdbinary.readouterr()
        return Done(int(code or 0), out, err)

    return run


def terminal(
    *arguments: object, columns: int = 120, rows: int = 40, env: dict[str, str] | None = None
) -> tuple[list[str], str]:
    """Run in a pseudo-terminal; return the screen's lines and the raw output."""
    command = [*QAD, "inspect", *map(str, arguments)]
    raw, code = spawn(command, columns, rows, env or UTF8)
    assert code == 0, raw
    screen = pyte.Screen(columns, 200)
    stream = pyte.Stream(screen)
    stream.feed(raw)
    return [line.rstrip() for line in screen.display], raw


def spawn(command: list[str], columns: int, rows: int, env: dict[str, str]) -> tuple[str, int]:
    child = pexpect.spawn(command[0], command[1:], dimensions=(rows, columns), env=env, encoding="utf-8", timeout=60)
    raw = child.read()
    child.close()
    return raw, child.exitstatus if child.exitstatus is not None else -1


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_table_fits_the_terminal_with_whole_targetids(root: Path, made: Any, columns: int) -> None:
    lines, raw = terminal("--root", root, "--top", 10, columns=columns)
    shown = [line for line in lines if line]
    assert len(shown) <= 1 + 10 + 3, lines  # a wrapped row would take two lines
    for targetid in made.targetid[:10]:
        assert any(f" {targetid} " in line for line in shown)
    assert "\x1b[" in raw
    assert "10 of 40" in "".join(shown)


def test_narrow_terminal_says_what_was_left_out(root: Path) -> None:
    lines, _ = terminal("--root", root, "--top", 3, columns=60)
    assert "no room for survey" in " ".join(lines)


def test_dumb_terminal_gets_plain_ascii(root: Path, made: Any) -> None:
    env = {**UTF8, "TERM": "dumb"}
    for arguments in (["--top", 5], [made.targetid[5]], [made.targetid[5], "--plot"]):
        _, raw = terminal("--root", root, *arguments, columns=80, env=env)
        assert "\x1b" not in raw
        assert raw.isascii(), raw
        assert all(len(line) <= 80 for line in raw.splitlines())


@pytest.mark.parametrize("locale", [{"LANG": "C"}, {"LC_ALL": "POSIX"}, {"LANG": "en_US.UTF-8", "LC_ALL": "C"}])
def test_locale_c_gets_ascii(root: Path, made: Any, locale: dict[str, str]) -> None:
    env = {**CLEAN, "TERM": "xterm", **locale}
    lines, raw = terminal("--root", root, made.targetid[5], "--plot", columns=90, rows=30, env=env)
    assert raw.isascii()
    assert any("C IV" in line for line in lines)
    assert any("*" in line and "o" in line for line in lines)


def test_stdout_that_takes_no_unicode_gets_ascii(root: Path, made: Any) -> None:
    done = pipe("--root", root, made.targetid[0], env={**UTF8, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert b"strong C IV, EW 80.0 A (+4.1 sigma)" in done.stdout


def test_no_color_is_respected(root: Path, made: Any) -> None:
    for arguments in (["--top", 5], [made.targetid[5], "--plot"]):
        _, raw = terminal("--root", root, *arguments, env={**UTF8, "NO_COLOR": "1"})
        assert not re.search(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d", raw), raw


def test_plot_fits_the_terminal(root: Path, made: Any) -> None:
    for columns, rows in ((80, 24), (120, 40)):
        lines, raw = terminal("--root", root, made.targetid[made.trough], "--plot", columns=columns, rows=rows)
        shown = [line for line in lines if line]
        assert len(shown) == rows - 1
        assert any("C IV" in line for line in shown)
        assert re.search(r"\x1b\[38;5;\d+m[\u2800-\u28ff]", raw), "no coloured curve"
        assert any(0x2800 < ord(c) < 0x2900 for c in raw)


def test_plot_without_targetid_draws_the_first_candidate(call: Callable[..., Done], root: Path, made: Any) -> None:
    done = call("--root", root, "--plot")
    assert done.stdout.decode().startswith(f"TARGETID {made.targetid[0]}")
    assert done.stdout.decode().count("TARGETID") == 1
    assert call("--root", root, "--plot", "--top", 2).stdout.decode().count("TARGETID") == 2


def test_piped_table_is_plain_and_whole(call: Callable[..., Done], root: Path, made: Any) -> None:
    done = call("--root", root, "--top", 40)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert done.stderr == b""
    assert b"\x1b" not in done.stdout
    assert len(lines) == 41
    assert lines[0].split()[:2] == ["rank", "TARGETID"]
    assert [int(line.split()[1]) for line in lines[1:]] == made.targetid.tolist()
    assert made.markup in lines[1 + made.hostile]


def test_closed_pipe_is_quiet(root: Path) -> None:
    command = " ".join([*QAD, "inspect", "--root", str(root), "--top", "40", "--columns", "all"])
    for tail in ("| head -1", "| true"):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{command} {tail}"], capture_output=True, env=UTF8, timeout=60
        )
        assert done.stderr == b""
        assert done.returncode in (0, 141)


def test_hostile_text_reaches_no_terminal_and_no_pipe_raw(call: Callable[..., Done], root: Path, made: Any) -> None:
    hostile = made.targetid[made.hostile]
    columns = "targetid,subtype,reason"
    for arguments in ([hostile], [hostile, "--plot"], ["--columns", columns, "--where", f"targetid = {hostile}"]):
        done = call("--root", root, *arguments)
        assert done.returncode == 0, done.stderr
        assert not set(done.stdout) & {0x1B, 0x07}
        assert b"\xc2\x9b" not in done.stdout
        _, raw = terminal("--root", root, *arguments, columns=200)
        assert "\x1b]0;" not in raw
        assert "\x1b[2J" not in raw
        assert "\x9b" not in raw
        assert r"\x1b]0;owned" in raw
        assert "[bold]" in raw or "--plot" in arguments  # Rich's markup is text too


def test_details_tell_everything_known(call: Callable[..., Done], root: Path, made: Any) -> None:
    targetid = made.targetid[made.trough]
    text = call("--root", root, targetid).stdout.decode()
    for known in (
        "zwarn 4 SMALL_DELTA_CHI2",
        "fiberstatus 8 RESTRICTED",
        "g 20.00 ± 0.011",
        "few_pixels, snr_edge",
        "C IV 4957",
        "local ",
    ):
        assert known in text, text
    both = call("--root", root, made.targetid[made.twice[0]]).stdout.decode()
    assert "main/dark" in both
    assert "sv1/dark" in both
    matched = call("--root", root, made.targetid[0]).stdout.decode()
    assert "dr16q: J0001 at 0.20″ z 2.5; dr16q: J0002" in matched


def test_json_document_has_targetids_as_text(call: Callable[..., Done], root: Path, made: Any) -> None:
    document = json.loads(call("--root", root, "--top", 3, "--json").stdout)
    assert [row["targetid"] for row in document["rows"]] == [str(targetid) for targetid in made.targetid[:3]]
    assert document["counts"] == {"rows": 3, "scored": 40}
    (target,) = json.loads(call("--root", root, made.targetid[5], "--format", "json").stdout)
    assert target["targetid"] == str(made.targetid[5])
    assert target["spectra"][0]["redrock"]["zwarn_bits"] == ["SMALL_DELTA_CHI2"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["1"], 3, "no spectrum of TARGETID 1"),
        (["abc"], 2, "'abc' is not a TARGETID"),
        (["--where", "zz > 1"], 2, "did you mean z"),
        (["--where", "z > 1; drop table x"], 2, "one expression"),
        (["--columns", "nothing"], 2, "no column 'nothing'"),
        (["--name", "other"], 3, "scores of default"),
        (["--name", "../x"], 2, "is not a name"),
        (["--top", "0"], 2, "inspect.top"),
        (["--plot", "--format", "csv"], 2, "leave out --format"),
        (["--label", "known"], 2, "needs the TARGETIDs"),
        (["--comment", "x"], 2, "goes with --label"),
        (["-o", "rows.xyz"], 2, "--format"),
    ],
)
def test_wrong_words_are_one_line_and_the_right_exit_code(
    call: Callable[..., Done], root: Path, arguments: list[str], code: int, words: str
) -> None:
    done = call("--root", root, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr.decode()
    assert len(done.stderr.decode().splitlines()) == 1
    assert done.stdout == b""


def test_files_are_written_by_their_name(call: Callable[..., Done], root: Path, tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.json", "rows.parquet", "rows.fits"):
        done = call("--root", root, "--top", 3, "-o", tmp_path / name)
        assert done.stdout.decode() == f"{tmp_path / name}: 3 rows\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "rows.fits", "rows.json", "rows.parquet"]


def test_binary_formats_go_to_a_pipe_but_not_to_a_terminal(root: Path) -> None:
    assert pipe("--root", root, "--format", "parquet").stdout.startswith(b"PAR1")
    raw, code = spawn([*QAD, "inspect", "--root", str(root), "--format", "fits"], 100, 30, UTF8)
    assert code == 2
    assert "is binary" in raw


def test_label_is_kept_and_shown(call: Callable[..., Done], own_root: Path, made: Any) -> None:
    first, second = (str(targetid) for targetid in made.targetid[:2])
    done = call("--root", own_root, first, second, "--label", "interesting", "--comment", "look again")
    assert done.stdout == b"2 labelled interesting\n", done.stderr
    assert call("--root", own_root, second, "--label", "artefact").returncode == 0
    assert call("--root", own_root, "12345", "--label", "artefact").returncode == 3
    rows = (
        call("--root", own_root, "--top", 3, "--columns", "targetid,label,label_comment", "--format", "csv")
        .stdout.decode()
        .split()
    )
    assert rows[1:] == [f"{first},interesting,look", "again", f'{second},artefact,""', f"{made.targetid[2]},,"]
    found = call(
        "--root", own_root, "--where", "label = 'interesting'", "--columns", "targetid", "--format", "csv"
    ).stdout.decode()
    assert found.split() == ["targetid", first]
    assert "interesting: look again" in call("--root", own_root, first).stdout.decode()


def test_looking_writes_nothing(call: Callable[..., Done], root: Path, made: Any) -> None:
    before = sorted(root.rglob("*"))
    call("--root", root)
    call("--root", root, made.targetid[5], "--plot")
    assert sorted(root.rglob("*")) == before


def test_looking_loads_neither_jax_nor_boto3_nor_astropy(root: Path, made: Any) -> None:
    script = (
        "import sys\nfrom qad.cli.main import app\ntry:\n    app(sys.argv[1:], standalone_mode=False)\nexcept SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'jax','flax','boto3','astropy','scipy','optax'}))"
    )
    for arguments in (
        ["--top", "3"],
        [str(made.targetid[5]), "--plot"],
        ["--top", "2", "--html", str(root.parent / "g")],
    ):
        command = [sys.executable, "-c", script, "inspect", "--root", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, env=UTF8, timeout=60)
        assert done.stdout.decode().splitlines()[-1] == "[]", done.stderr


def test_help_has_examples() -> None:
    done = pipe("--help")
    assert done.stdout.decode().count("qad inspect") >= 5
