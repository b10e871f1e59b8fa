"""What every command has in common: help with examples, exit codes, one line for an error, signals, JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PIPELINE = ["fetch", "extract", "build-grid", "train", "score", "crossmatch", "inspect"]
COMMANDS = [*PIPELINE, "evaluate", "measure", "publish", "run", "simulate", "index", "status", "config"]


def qad(*arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **environ}
    command = [sys.executable, "-m", "qad", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def test_help_lists_the_commands_in_the_order_of_the_data() -> None:
    done = qad("--help")
    assert done.returncode == 0
    listed = [
        line.split()[0] for line in done.stdout.split("Commands:")[1].split("\n\n")[0].splitlines() if line.strip()
    ]
    assert [name for name in listed if name in PIPELINE] == PIPELINE
    assert set(COMMANDS) <= set(listed)


@pytest.mark.parametrize("name", [*(c for c in COMMANDS if c != "index"), "index sync", "index status", "index query"])
def test_every_command_has_help_with_examples(name: str) -> None:
    done = qad(*name.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert f"qad {name}" in done.stdout.split("Examples:")[1]
    for option in ("--config", "--set", "--root", "--json", "--quiet"):
        assert option in done.stdout
    for line in done.stdout.split("Options:")[1].split("Examples:")[0].splitlines():
        if line.strip().startswith("--"):
            assert len(line.split()) > 1


@pytest.mark.parametrize("name", PIPELINE)
def test_commands_say_what_is_missing_in_one_line(name: str, tmp_path: Path) -> None:
    extra = {"fetch": ["--source", str(tmp_path / "absent")], "crossmatch": [str(tmp_path / "absent.fits")]}
    done = qad(name, "--quiet", "--root", "work", *extra.get(name, []), cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"qad {name}: ")
    assert not list((tmp_path / "work").glob("[a-z]*/*.parquet"))


def test_unknown_key_command_and_option_exit_2(tmp_path: Path) -> None:
    (tmp_path / "qad.toml").write_text("[train]\nepoch = 3\n")
    done = qad("status", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr.strip() == f"qad status: {tmp_path / 'qad.toml'}:2: unknown key train.epoch; did you mean epochs?"
    )
    for wrong in (["trian"], ["train", "--epoch", "3"], ["train", "--set", "train.epochs"]):
        assert qad(*wrong, cwd=tmp_path / ".").returncode == 2


def test_config_shows_every_value_with_its_origin(tmp_path: Path) -> None:
    (tmp_path / "qad.toml").write_text("[train]\nepochs = 3\n")
    done = qad("config", "--json", "--set", "train.seed=4", cwd=tmp_path, QAD_TRAIN__TRIM="0.1")
    document = json.loads(done.stdout)
    origins = {entry["key"]: (entry["value"], entry["origin"]) for entry in document["settings"]}
    assert origins["train.epochs"] == (3, str(tmp_path / "qad.toml"))
    assert origins["train.seed"] == (4, "--set train.seed")
    assert origins["train.trim"] == (0.1, "QAD_TRAIN__TRIM")
    assert origins["train.arch"] == ("rest-frame", "default")
    assert document["root"] == str(tmp_path / "data")
    assert "epochs = 3  # " in qad("config", cwd=tmp_path).stdout


def test_config_init_writes_what_config_check_accepts(tmp_path: Path) -> None:
    assert qad("config", "--init", cwd=tmp_path).returncode == 0
    assert (tmp_path / "qad.toml").read_text() == (REPOSITORY / "qad.toml").read_text()
    assert qad("config", "--check", cwd=tmp_path).returncode == 0
    again = qad("config", "--init", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_secret_stays_out_of_every_output(tmp_path: Path) -> None:
    for arguments in (["config"], ["config", "--json"], ["status"], ["extract", "--source", "absent"]):
        done = qad(*arguments, cwd=tmp_path, QAD_INDEX__DSN="postgresql://me:hunter2@localhost/x")
        assert "hunter2" not in done.stdout + done.stderr


def test_status_of_an_empty_and_of_a_damaged_workspace(tmp_path: Path) -> None:
    assert qad("status", cwd=tmp_path).returncode == 0
    damaged = tmp_path / "data" / "scores" / "default.parquet"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("not parquet")
    done = qad("status", cwd=tmp_path)
    assert done.returncode == 0
    assert f"unreadable: {damaged}" in done.stdout
    stages = json.loads(qad("status", "--json", cwd=tmp_path).stdout)["stages"]
    assert [stage["stage"] for stage in stages] == [*PIPELINE[:5], "measure", *PIPELINE[5:], "evaluate"]


RUNTIME = """
import signal, sys, time
from qad.cli.options import Common
from qad.cli.runtime import running
from qad.errors import ServiceError, StorageError

def body(run):
    {body}

with running("fetch", Common()) as run:
    body(run)
"""


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ("raise StorageError('/data: no space left')", 5, "qad fetch: /data: no space left"),
        ("raise ServiceError('s3 does not answer')", 4, "qad fetch: s3 does not answer"),
        ("{}['x']", 70, "a bug in qad: KeyError: 'x'"),
        ("raise ValueError('a\\x1b[31m\\nb')", 70, "ValueError: a\\x1b[31m b"),
    ],
)
def test_error_becomes_one_line_and_its_exit_code(body: str, code: int, text: str) -> None:
    program = (
        RUNTIME.format(body=body)
        .replace("with running", "import typer\ntry:\n  with running")
        .replace("    body(run)\n", "    body(run)\nexcept typer.Exit as stop:\n  sys.exit(stop.exit_code)\n")
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert text in line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_stops_with_one_line_and_its_exit_code(number: signal.Signals, code: int) -> None:
    program = textwrap.dedent("""
        import sys, time, typer
        from qad.cli.options import Common
        from qad.cli.runtime import running
        try:
            with running("fetch", Common()):
                print("ready", flush=True)
                time.sleep(60)
        except typer.Exit as stop:
            sys.exit(stop.exit_code)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.strip() == f"qad fetch: stopped by {number.name}; `qad fetch` again goes on from here"


def test_closed_pipe_is_quiet() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m qad config | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 141)
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shipped_completion_is_what_the_executable_makes(shell: str) -> None:
    program = "import sys; sys.argv = ['qad']; from qad.__main__ import main; main()"
    environment = {**os.environ, "_QAD_COMPLETE": f"source_{shell}"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.strip()
    assert (REPOSITORY / "completions" / f"qad.{shell}").read_text() == done.stdout
