"""The review by keyboard: every key does what the help says, labels are on disk as they are given, two people meet."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.widgets import DataTable, Static

from qad.config import load_config
from qad.errors import ConfigError
from qad.inspection.labels import append_labels
from qad.inspection.neighbours import LatentSpace
from qad.inspection.reviewing.app import Review
from qad.inspection.reviewing.feed import LabelFeed
from qad.inspection.reviewing.keys import KEYS
from qad.inspection.reviewing.screens import Help
from qad.inspection.reviewing.session import Session
from qad.inspection.reviewing.start import open_session
from qad.inspection.scene import PlotOptions
from qad.inspection.stage import open_tables
from qad.storage.labels import Label, last_labels, read_labels

Drive = Callable[[Any, Review], Awaitable[None]]


def session_of(root: Path, **keys: Any) -> Session:
    chosen = {f"inspect.{name}": value for name, value in {"top": 40, **keys}.items()}
    config = load_config(None, {"paths.root": str(root), **chosen})
    return open_session(config, open_tables(config))


def drive(root: Path, what: Drive, size: tuple[int, int] = (80, 24), **keys: Any) -> Review:
    """Run the review without a terminal and let `what` press keys."""
    chosen = {f"inspect.{name}": value for name, value in {"top": 40, **keys}.items()}
    config = load_config(None, {"paths.root": str(root), **chosen})
    tables = open_tables(config)
    app = Review(tables, open_session(config, tables), PlotOptions())

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await settle(pilot, app)
            await what(pilot, app)

    asyncio.run(run())
    return app


async def settle(pilot: Any, app: Review) -> None:
    """Wait until the spectrum that is wanted has been drawn."""
    for _ in range(200):
        await pilot.pause()
        if not app._is_reading:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the spectrum was not read")


async def press(pilot: Any, app: Review, *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settle(pilot, app)


def text(app: Review, name: str) -> str:
    return str(app.query_one(f"#{name}", Static).content)


def shown(app: Review) -> int:
    assert app.session.current is not None
    return int(app.session.current["targetid"])


def test_keys_label_step_and_take_back(own_root: Path, made: Any) -> None:
    path = own_root / "inspect" / "labels.jsonl"

    async def what(pilot: Any, app: Review) -> None:
        assert "0 of 40 labelled" in text(app, "head")
        await press(pilot, app, "i")
        assert last_labels(path)[int(made.targetid[0])].label == "interesting"
        assert shown(app) == made.targetid[1]
        await press(pilot, app, "k", "a", "b")
        said = [label.label for label in read_labels(path)]
        assert said == ["interesting", "known", "artefact", "boring"]
        # rows 3 and 4 are one target in two surveys
        assert "5 of 40 labelled" in text(app, "head")
        await press(pilot, app, "u")
        assert shown(app) == made.targetid[3]
        assert "not labelled" in text(app, "state")
        assert int(made.targetid[3]) not in last_labels(path)
        await press(pilot, app, "p", "p", "p", "n")
        assert shown(app) == made.targetid[1]
        assert "known" in text(app, "state")
        await press(pilot, app, "b", "u")
        assert last_labels(path)[int(made.targetid[1])].label == "known"

    drive(own_root, what)
    assert all(line.startswith('{"targetid"') for line in path.read_text().splitlines())


def test_it_goes_on_at_the_first_unlabelled(own_root: Path, made: Any) -> None:
    async def two(pilot: Any, app: Review) -> None:
        await press(pilot, app, "i", "i")

    async def on(pilot: Any, app: Review) -> None:
        assert shown(app) == made.targetid[2]
        assert text(app, "head").strip().startswith("3/40")

    drive(own_root, two)
    drive(own_root, on)


def test_comments_stay_with_the_target(own_root: Path, made: Any) -> None:
    path = own_root / "inspect" / "labels.jsonl"

    async def what(pilot: Any, app: Review) -> None:
        await press(pilot, app, "c", *"odd", "enter")
        assert last_labels(path)[int(made.targetid[0])].comment == "odd"
        assert last_labels(path)[int(made.targetid[0])].label == "noted"
        assert "odd" in text(app, "state")
        await press(pilot, app, "i", "p")
        assert last_labels(path)[int(made.targetid[0])].label == "interesting"
        assert last_labels(path)[int(made.targetid[0])].comment == "odd"
        await press(pilot, app, "c", *"x" * 5, "escape")
        assert last_labels(path)[int(made.targetid[0])].comment == "odd"

    drive(own_root, what)


def test_plot_keys_change_the_plot(root: Path, made: Any) -> None:
    async def what(pilot: Any, app: Review) -> None:
        await press(pilot, app, "g", *str(made.targetid[made.trough]), "enter")
        assert shown(app) == made.targetid[made.trough]
        seen = text(app, "plot")
        assert "C IV" in seen
        for key in (
            "plus",
            "full_stop",
            "comma",
            "minus",
            "z",
            "w",
            "right_square_bracket",
            "left_square_bracket",
            *"lemrxvf",
        ):
            await press(pilot, app, key)
            assert app.is_running
        for key in "lemrxvf":
            await press(pilot, app, key)
        assert app.options == PlotOptions()
        await press(pilot, app, "w")
        assert text(app, "plot") == seen
        await press(pilot, app, "z")
        assert app._view is not None
        assert app._view[0] < 1510 * 3.2 < app._view[1]
        await press(pilot, app, *["plus"] * 8)
        low, high = app._view
        assert 0 < high - low < 700
        await press(pilot, app, *["comma"] * 12)
        assert app._view[0] >= 3600
        await press(pilot, app, *["minus"] * 10)
        assert app._view is None

    drive(root, what, size=(80, 24))


def test_arrows_move_the_lines_and_zero_puts_them_back(root: Path, made: Any) -> None:
    async def what(pilot: Any, app: Review) -> None:
        before, z = text(app, "plot"), made.z[0]
        await press(pilot, app, "right", "right", "shift+right")
        assert f"z {(1 + z) * 1.001**2 * 1.02 - 1:.4f} (redrock {z:.4f})" in text(app, "state")
        assert text(app, "plot") != before
        await press(pilot, app, "left", "left", "left", "shift+left", "0")
        assert text(app, "plot") == before
        assert "redrock" not in text(app, "state")
        await press(pilot, app, *["shift+left"] * 12)
        assert app.is_running

    drive(root, what)


def test_filter_order_and_unlabelled(own_root: Path, made: Any) -> None:
    async def what(pilot: Any, app: Review) -> None:
        await press(pilot, app, "i", "k")
        await press(pilot, app, "slash", *"z > ", "enter")
        assert "--where" in str(app.screen.query_one("#error", Static).content)
        await press(pilot, app, "escape", "slash", *"z > 2.5 and label is null", "enter")
        expected = [i for i in range(40) if made.z[i] > 2.5 and made.targetid[i] not in made.targetid[:2]]
        assert [app.session.rows[i]["targetid"] for i in app.session.order] == list(made.targetid[expected])
        assert "filter z > 2.5" in text(app, "head")
        await press(pilot, app, "slash", "ctrl+u", "enter")
        assert len(app.session.order) == 40
        await press(pilot, app, "o")
        assert app.session.sort == "p_local"
        await press(pilot, app, *"oooo")
        assert app.session.sort == "rank"
        await press(pilot, app, "g", "1", "enter", "U")
        assert app.session.only_unlabelled
        assert shown(app) == made.targetid[2]
        await press(pilot, app, "p")
        assert shown(app) == made.targetid[2]
        await press(pilot, app, "g", *"99999", "enter")
        assert "not among" in str(app.screen.query_one("#error", Static).content)

    drive(own_root, what)


def test_neighbours_are_listed_and_gone_to(own_root: Path, made: Any) -> None:
    async def what(pilot: Any, app: Review) -> None:
        await press(pilot, app, "t")
        for _ in range(200):
            if app.screen.query(DataTable):
                break
            await asyncio.sleep(0.02)
            await pilot.pause()
        table = app.screen.query_one(DataTable)
        assert table.row_count == 20
        first = int(str(table.get_row_at(10)[1]))
        await press(pilot, app, *["down"] * 10, "enter")
        assert shown(app) == first
        assert first not in made.targetid[:5]
        assert len(app.session.order) == 6  # it was not loaded, and is now

    drive(own_root, what, top=5)


def test_nearest_are_the_nearest(own_root: Path) -> None:
    import polars as pl

    from qad.schema import SCORES
    from qad.storage.parquet import make_table, read_table, write_table
    from qad.storage.provenance import Provenance

    path = own_root / "scores" / "default.parquet"
    table = read_table(path, SCORES)
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    latent = np.random.default_rng(3).standard_normal((40, 2)).astype(np.float32) * [1, 50]
    latent[7] = np.nan
    write_table(
        path,
        make_table(SCORES, columns | {"latent": latent.astype(np.float32)}, n_latent=2),
        SCORES,
        Provenance("test", {}),
    )
    config = load_config(None, {"paths.root": str(own_root)})
    tables = open_tables(config)
    found = LatentSpace(tables).nearest(1, 12)
    scaled = latent / np.nanstd(latent, axis=0)
    distance = np.sqrt(((scaled - scaled[0]) ** 2).sum(axis=1))
    expected = [int(i) for i in np.argsort(distance) if i not in (0, 7)][:12]
    assert [one.rank - 1 for one in found] == expected
    assert [one.distance for one in found] == pytest.approx(distance[expected], rel=1e-4)
    assert LatentSpace(tables).nearest(8, 5) == []
    assert isinstance(tables.of_ranks([3, 1], ["rank", "z"]), pl.DataFrame)


def test_labels_of_others_appear_and_are_not_taken_back(own_root: Path, made: Any) -> None:
    path, first = own_root / "inspect" / "labels.jsonl", int(made.targetid[0])

    async def what(pilot: Any, app: Review) -> None:
        await press(pilot, app, "i", "p")
        append_labels(path, [Label(first, "artefact", "sky line", "vera", "2026-01-01T00:00:00+00:00")])
        app._poll()
        await pilot.pause()
        assert "artefact by vera: sky line" in text(app, "state")
        assert f"vera says {first} is artefact" in text(app, "state")
        await press(pilot, app, "u")
        assert "vera has labelled it since" in text(app, "state")
        assert last_labels(path)[first].who == "vera"

    drive(own_root, what, size=(160, 30))


def test_a_full_disk_labels_nothing_and_says_so(own_root: Path, made: Any) -> None:
    async def what(pilot: Any, app: Review) -> None:
        (own_root / "inspect").write_text("a file in the way")
        await press(pilot, app, "i")
        assert shown(app) == made.targetid[0]
        assert "inspect" in text(app, "state")
        assert "not labelled" in text(app, "state")
        assert app.session.n_labelled == 0

    shutil.rmtree(own_root / "inspect", ignore_errors=True)
    drive(own_root, what, size=(140, 24))


def test_details_and_help_open_and_close_at_80_by_24(root: Path) -> None:
    async def what(pilot: Any, app: Review) -> None:
        await press(pilot, app, "question_mark")
        assert isinstance(app.screen, Help)
        box = app.screen.query_one("#box")
        assert box.virtual_size.height <= box.size.height  # all keys without scrolling
        await press(pilot, app, "escape", "d")
        for _ in range(100):
            if len(app.screen_stack) > 1:
                break
            await asyncio.sleep(0.02)
            await pilot.pause()
        assert "zwarn" in str(app.screen.query_one("#box Static", Static).content)
        await press(pilot, app, "escape", "q")

    drive(root, what)


def test_every_key_is_bound_once() -> None:
    keys = [name for key in KEYS for name in key.keys.split(",")]
    assert len(keys) == len(set(keys))


def test_hostile_words_are_only_shown(own_root: Path, made: Any) -> None:
    path, target = own_root / "inspect" / "labels.jsonl", int(made.targetid[made.hostile])
    append_labels(path, [Label(target, made.escapes + "[red]x", made.escapes, "[/]" + made.escapes)])

    async def what(pilot: Any, app: Review) -> None:
        await press(pilot, app, "g", *str(target), "enter")
        for name in ("head", "plot", "state"):
            assert not set(text(app, name)) & {"\x1b", "\x07", "\x9b"}, name
        await press(pilot, app, "d")

    drive(own_root, what)


def test_small_terminals_and_resizing(root: Path) -> None:
    async def what(pilot: Any, app: Review) -> None:
        for size in ((60, 20), (200, 60), (110, 24), (80, 40)):
            await pilot.resize_terminal(*size)
            await settle(pilot, app)
            lines = text(app, "plot").splitlines()
            assert max(map(len, lines)) <= size[0]
            assert len(lines) <= size[1] - 3

    drive(root, what)


def test_feed_reads_only_whole_lines_and_replaced_files(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    feed = LabelFeed(path)
    assert feed.poll() == []
    append_labels(path, [Label(1, "known")])
    with path.open("ab") as handle:
        handle.write(b'{"targetid": "2", "lab')
        handle.flush()
        assert [label.targetid for label in feed.poll()] == [1]
        handle.write(b'el": "boring"}\n')
    assert [label.targetid for label in feed.poll()] == [2]
    append_labels(path, [Label(1, "")])
    feed.poll()
    assert set(feed.last) == {2}
    path.unlink()
    append_labels(path, [Label(3, "known")])
    feed.poll()
    assert set(feed.last) == {3}


def test_review_needs_a_terminal_and_a_row(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qad", "inspect", "--root", str(root), "--review"], capture_output=True, timeout=60
    )
    assert done.returncode == 2
    assert b"--review needs a terminal" in done.stderr
    with pytest.raises(ConfigError, match="nothing to review"):
        session_of(root, where="z > 99")


# ---------------------------------------------------------------------- a real terminal


class Tmux:
    """A terminal of its own in a tmux server of its own."""

    def __init__(self, folder: Path, columns: int = 80, lines: int = 24) -> None:
        self._folder, self._starts, self._socket = folder, 0, ""
        self._size = ["-x", str(columns), "-y", str(lines)]

    def _call(self, *arguments: str) -> str:
        command = ["tmux", "-S", self._socket, "-f", "/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout

    def start(self, *command: str) -> None:
        env = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        # a socket of its own: the server of a session that was killed may be about to end
        self._starts += 1
        self._socket = str(self._folder / f"tmux{self._starts}")
        words = ["tmux", "-S", self._socket, "-f", "/dev/null", "new-session", "-d", *self._size, *command]
        subprocess.run(words, env=env, check=True, timeout=30)

    def keys(self, *keys: str) -> None:
        self._call("send-keys", *keys)

    def screen(self) -> str:
        return self._call("capture-pane", "-p")

    def wait(self, words: str, seconds: float = 30.0) -> str:
        until = time.monotonic() + seconds
        while words not in (seen := self.screen()):
            assert time.monotonic() < until, seen
            time.sleep(0.1)
        return seen

    def pid(self) -> int:
        return int(self._call("list-panes", "-F", "#{pane_pid}"))

    def end(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, timeout=30)


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("no tmux on this machine")
    terminal = Tmux(tmp_path)
    yield terminal
    terminal.end()


def test_a_killed_review_has_lost_nothing(own_root: Path, made: Any, tmux: Tmux) -> None:
    command = (sys.executable, "-m", "qad", "inspect", "--root", str(own_root), "--review")
    path = own_root / "inspect" / "labels.jsonl"
    tmux.start(*command)
    seen = tmux.wait(str(made.targetid[0]))
    assert "0 of 40 labelled" in seen
    assert len(seen.rstrip("\n").splitlines()) == 24
    tmux.keys("i")
    tmux.wait(str(made.targetid[1]))
    tmux.keys("k")
    tmux.wait("2 of 40 labelled")
    pid = tmux.pid()
    os.kill(pid, signal.SIGKILL)
    assert [label.label for label in read_labels(path)] == ["interesting", "known"]
    tmux.end()
    tmux.start(*command)
    tmux.wait("3/40")
    tmux.keys("a")
    tmux.wait("3 of 40 labelled")
    tmux.keys("?")
    tmux.wait("Keys of the review")


def test_sigterm_gives_the_terminal_back(own_root: Path, made: Any, tmux: Tmux) -> None:
    command = f"{sys.executable} -m qad inspect --root {own_root} --review; echo code=$?; sleep 60"
    tmux.start("sh", "-c", command)
    tmux.wait(str(made.targetid[0]))
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(tmux.pid())], capture_output=True, text=True)
    os.kill(int(children.stdout.split()[0]), signal.SIGTERM)
    seen = tmux.wait("code=")
    assert "code=143" in seen
    assert "stopped by SIGTERM" in seen
