"""Progress is a bar for people and plain lines for logs; data never steers the terminal."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from qad.results import BYTES, format_bytes
from qad.terminal.console import is_plain, printable
from qad.terminal.log import stage_log
from qad.terminal.progress import PlainProgress

PROGRAM = """
from qad.terminal.progress import terminal_progress
with terminal_progress() as progress:
    progress.start("extract", total=3, unit="pixels")
    for _ in range(3):
        progress.advance()
    progress.note("a \\x1b[31mred\\x1b[0m note")
"""


def test_log_gets_plain_lines_with_share_and_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainProgress(interval_s=0.0) as progress:
        progress.start("extract", total=2, unit="pixels")
        progress.advance()
        progress.start("next")
        progress.advance(5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("extract: 1/2 pixels, ")
    assert lines[-1].startswith("next: 5, ")
    assert all("\x1b" not in line for line in lines)


def test_bytes_are_shown_as_people_read_them_with_what_is_under_way(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainProgress(interval_s=0.0) as progress:
        progress.start("fetch", total=3e9, unit=BYTES)
        progress.tell("3/12 pixels, 64 requests")
        progress.expect(2e9)
        progress.advance(5e8)
    assert capsys.readouterr().err.startswith("fetch: 500 MB of 2 GB, ")
    assert [format_bytes(n) for n in (0, 999, 1000, 12_345, 999_600, 12.7e12, 1.5e15)] == [
        *("0 B", "999 B", "1 kB", "12.3 kB", "1 MB", "12.7 TB", "1,500 TB"),
    ]


def test_pipe_gets_plain_lines_on_stderr_only() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
    assert "a \\x1b[31mred\\x1b[0m note" in done.stderr


def test_terminal_gets_a_bar_and_no_foreign_escape() -> None:
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=side, env=environment) as process:
        os.close(side)
        shown = b""
        while process.poll() is None or not shown:
            try:
                shown += os.read(main, 65536)
            except OSError:
                break
    os.close(main)
    assert b"3/3" in shown
    assert b"\x1b[31mred" not in shown


def test_dumb_terminal_and_file_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_plain(io.StringIO())

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    assert not is_plain(Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert is_plain(Terminal())


def test_control_characters_are_made_visible() -> None:
    assert printable("a\x1b]0;title\x07b\nλ Å") == "a\\x1b]0;title\\x07b\nλ Å"


def test_log_is_json_lines_with_utc_times(tmp_path: Path) -> None:
    with stage_log(tmp_path, "extract") as path:
        logging.getLogger("qad.test").info("pixel", extra={"unit": "main-dark-47"})
    (document,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert document["unit"] == "main-dark-47"
    assert document["time"].endswith("+00:00")
    assert path.name.endswith(f"-extract-{os.getpid()}.jsonl")
