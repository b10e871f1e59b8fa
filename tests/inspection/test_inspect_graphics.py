"""Pictures in terminals: what was sent is decoded back to the picture; terminals are believed only when they answer."""

from __future__ import annotations

import base64
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qad.inspection.capabilities import Capabilities, detect
from qad.inspection.figure import render
from qad.inspection.pictures import picture, png, through_tmux
from qad.inspection.scene import LAYERS, PlotOptions, extent
from qad.inspection.spectrum import Spectrum

DA1_SIXEL, DA1_PLAIN = "\x1b[?62;4;22c", "\x1b[?62;22c"


def flat_picture(height: int, width: int, seed: int = 1) -> np.ndarray:
    """A picture of a few colours in blocks, as plots are."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (6, 3), np.uint8)
    index = rng.integers(0, 6, (-(-height // 5), -(-width // 7)))
    return colours[np.kron(index, np.ones((5, 7), int))[:height, :width]]


def sixel_decoded(text: str) -> np.ndarray:
    """Decode sixel graphics by the standard's words, an implementation of its own."""
    body = re.fullmatch(r"\x1bP[0-9;]*q(.*)\x1b\\", text, re.DOTALL)
    assert body
    raster = re.match(r'"1;1;(\d+);(\d+)', body[1])
    assert raster
    width, height = int(raster[1]), int(raster[2])
    out, palette, colour, x, y = np.zeros((height + 6, width, 3)), {}, 0, 0, 0
    token = re.compile(r'"[\d;]+|#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|(\$)|(-)')
    for found in token.finditer(body[1]):
        define, red, green, blue, use, count, repeated, single, home, line = found.groups()
        if define:
            palette[int(define)] = np.array([int(red), int(green), int(blue)]) * 255 / 100
        elif use:
            colour = int(use)
        elif home:
            x = 0
        elif line:
            x, y = 0, y + 6
        elif repeated or single:
            n, bits = int(count or 1), ord(repeated or single) - 63
            for bit in range(6):
                if bits >> bit & 1:
                    out[y + bit, x : x + n] = palette[colour]
            x += n
    return out[:height]


def kitty_decoded(text: str) -> np.ndarray:
    """Join kitty's chunks and decode the PNG."""
    pieces = re.findall(r"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", text)
    assert text.rstrip("\n") == "".join(f"\x1b_G{keys};{data}\x1b\\" for keys, data in pieces)
    assert "a=T" in pieces[0][0]
    assert "f=100" in pieces[0][0]
    assert [keys.rpartition("m=")[2] for keys, _ in pieces] == ["1"] * (len(pieces) - 1) + ["0"]
    assert all(len(data) <= 4096 for _, data in pieces)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in pieces)))))


@pytest.mark.parametrize(("height", "width"), [(6, 7), (61, 83), (200, 301)])
def test_each_protocol_gives_the_picture_back(height: int, width: int) -> None:
    pixels = flat_picture(height, width)
    assert np.array_equal(kitty_decoded(picture(pixels, Capabilities("kitty"))), pixels)
    sent = picture(pixels, Capabilities("iterm2"))
    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+);width=(\d+)px;height=(\d+)px:(.*)\a\n", sent)
    assert found
    content = base64.b64decode(found[4])
    assert (len(content), width, height) == tuple(map(int, found.groups()[:3]))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
    # sixel tells colours in hundredths
    assert np.abs(sixel_decoded(picture(pixels, Capabilities("sixel")).strip("\n")) - pixels).max() <= 2


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 10**6))
def test_sixel_of_any_size_comes_back(height: int, width: int, seed: int) -> None:
    pixels = flat_picture(height, width, seed)
    assert np.abs(sixel_decoded(picture(pixels, Capabilities("sixel")).strip("\n")) - pixels).max() <= 2


def test_libsixel_reads_what_is_sent(tmp_path: Path) -> None:
    if shutil.which("sixel2png") is None:
        pytest.skip("no sixel2png (libsixel-bin) on this machine")
    pixels = flat_picture(120, 200)
    (tmp_path / "a.six").write_text(picture(pixels, Capabilities("sixel")))
    subprocess.run(["sixel2png", "-i", "a.six", "-o", "a.png"], cwd=tmp_path, check=True, timeout=60)
    back = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    assert np.abs(back - pixels).max() <= 2


def test_tmux_hands_a_picture_on() -> None:
    sent = picture(flat_picture(300, 400), Capabilities("kitty", through_tmux=True))
    unwrapped = "".join(
        inner.replace("\x1b\x1b", "\x1b")
        for inner in re.findall(r"\x1bPtmux;(.*?[^\x1b])\x1b\\(?!\x1b\\)", sent, re.DOTALL)
    )
    assert "".join(through_tmux(p) for p in re.findall(r"\x1b_G.*?\x1b\\", unwrapped, re.DOTALL)) == sent.rstrip("\n")
    assert np.array_equal(kitty_decoded(unwrapped), flat_picture(300, 400))


def terminal_that_says(answers: dict[str, str]) -> Callable[[str], str]:
    def ask(question: str) -> str:
        return "".join(answer for part, answer in answers.items() if part in question)

    return ask


KITTY = {"\x1b[>0q": "\x1bP>|kitty(0.40.0)\x1b\\", "_G": "\x1b_Gi=31;OK\x1b\\", "\x1b[c": "\x1b[?62;c"}


@pytest.mark.parametrize(
    ("environment", "answers", "protocol"),
    [
        ({}, {}, "text"),
        ({}, {"\x1b[c": DA1_PLAIN}, "text"),
        ({}, {"\x1b[c": DA1_SIXEL}, "sixel"),
        ({}, {"\x1b[c": "\x1b[?64;1c"}, "text"),
        ({}, KITTY, "kitty"),
        ({}, {**KITTY, "_G": "\x1b_Gi=31;ENOTSUPPORTED\x1b\\"}, "text"),
        ({"TERM": "xterm-kitty"}, {"_G": "\x1b_Gi=31;OK\x1b\\", "\x1b[c": DA1_PLAIN}, "kitty"),
        ({"TERM": "xterm-kitty"}, {}, "text"),
        ({"TERM": "xterm-ghostty"}, {"_G": "\x1b_Gi=31;OK\x1b\\", "\x1b[c": DA1_PLAIN}, "kitty"),
        ({}, {"\x1b[>0q": "\x1bP>|iTerm2 3.5.4\x1b\\", "\x1b[c": DA1_SIXEL}, "iterm2"),
        ({"TERM_PROGRAM": "iTerm.app"}, {"\x1b[c": DA1_SIXEL}, "iterm2"),
        ({"LC_TERMINAL": "iTerm2"}, {"\x1b[c": DA1_SIXEL}, "iterm2"),
        ({}, {"\x1b[>0q": "\x1bP>|WezTerm 20240203\x1b\\", "\x1b[c": DA1_SIXEL}, "iterm2"),
        ({}, {"\x1b[>0q": "\x1bP>|foot(1.16.2)\x1b\\", "\x1b[c": DA1_SIXEL}, "sixel"),
        # tmux hides the terminal outside; its variables leak in
        ({"TMUX": "/tmp/x", "TERM": "xterm-kitty", "TERM_PROGRAM": "iTerm.app"}, KITTY, "text"),
        ({"TMUX": "/tmp/x", "TERM": "tmux-256color"}, {"\x1b[c": DA1_SIXEL}, "sixel"),
        ({"STY": "1.tty", "TERM": "screen"}, KITTY, "text"),
    ],
)
def test_a_terminal_is_believed_when_it_answers(
    environment: dict[str, str], answers: dict[str, str], protocol: str
) -> None:
    assert detect(environment, terminal_that_says(answers)).protocol == protocol


def test_only_a_terminal_that_names_itself_is_asked_in_kittys_words() -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return DA1_SIXEL

    detect({"TERM": "xterm-256color"}, ask)
    assert not any("_G" in question for question in asked)


@pytest.mark.parametrize(
    ("environment", "answer", "background"),
    [
        ({}, "\x1b]11;rgb:ffff/ffff/ffff\x1b\\", "light"),
        ({}, "\x1b]11;rgb:1e1e/1e1e/2e2e\x07", "dark"),
        ({}, "\x1b]11;rgb:fd/f6/e3\x1b\\", "light"),
        ({"COLORFGBG": "0;15"}, "\x1b]11;rgb:0000/0000/0000\x1b\\", "dark"),
        ({"COLORFGBG": "0;15"}, "", "light"),
        ({"COLORFGBG": "15;default;0"}, "", "dark"),
        ({}, "", "dark"),
    ],
)
def test_background_is_what_the_terminal_says(environment: dict[str, str], answer: str, background: str) -> None:
    assert detect(environment, terminal_that_says({"]11;?": answer, "\x1b[c": DA1_PLAIN})).background == background


def test_cell_size_is_read_and_nonsense_is_not() -> None:
    say = terminal_that_says
    assert detect({}, say({"16t": "\x1b[6;34;17t", "\x1b[c": DA1_PLAIN})).cell == (17, 34)
    assert detect({}, say({"16t": "\x1b[6;0;99999t", "\x1b[c": DA1_PLAIN})).cell == (9, 18)


def answering_terminal(arguments: list[str], env: dict[str, str], answers: dict[bytes, bytes]) -> str:
    """Run in a pseudo-terminal that answers questions; return what was written to it."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "qad", "inspect", *arguments],
        stdin=child,
        stdout=child,
        stderr=child,
        env=env,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(child)
    out = bytearray()

    def read() -> None:
        answered: set[bytes] = set()
        while True:
            try:
                piece = os.read(parent, 65536)
            except OSError:
                return
            if not piece:
                return
            out.extend(piece)
            for question, answer in answers.items():
                if question in out and question not in answered:
                    answered.add(question)
                    os.write(parent, answer)

    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait(60) == 0, out
    reader.join(10)
    os.close(parent)
    return out.decode()


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_sixel_terminal_gets_the_spectrum(root: Path, made: Any) -> None:
    env = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "COLUMNS": "100", "LINES": "30"}
    env.pop("TMUX", None)
    arguments = ["--root", str(root), str(made.targetid[made.trough]), "--plot"]
    sent = answering_terminal(arguments, env, {b"\x1b[16t": b"\x1b[6;16;8t", b"\x1b[c": b"\x1b[?62;4c"})
    body = re.search(r"\x1bP0;1q.*?\x1b\\", sent, re.DOTALL)
    assert body, sent[:500]
    decoded = sixel_decoded(body[0])
    assert decoded.shape[1] == 800
    assert decoded.shape[0] <= 29 * 16
    assert len(np.unique(decoded.reshape(-1, 3), axis=0)) > 8


@pytest.fixture
def spectrum() -> Spectrum:
    wave = np.geomspace(3600, 9800, 900)
    flux = 3 + np.sin(wave / 300)
    return Spectrum((1, "main", "dark", 5), 1.6, wave, flux, np.full(900, 25.0), flux * 0.9, np.full(900, 0.01), True)


def test_figure_shows_each_layer(spectrum: Spectrum) -> None:
    facts = {"worst_wave_rest": 1549.0, "reason": "$strange_{x}$ <b>", "score": 3.2, "z": 1.6}
    whole = render(spectrum, facts, PlotOptions(), (900, 420))
    assert whole.shape == (420, 900, 3)
    for layer in LAYERS:
        without = render(spectrum, facts, PlotOptions(layers=frozenset(LAYERS) - {layer}), (900, 420))
        assert not np.array_equal(without, whole), layer
    dark = render(spectrum, facts, PlotOptions(), (900, 420), dark=True)
    assert dark.mean() < 90 < 200 < whole.mean()
    zoomed = render(spectrum, facts, PlotOptions(zoom=(1500, 1600)), (900, 420))
    assert not np.array_equal(zoomed, whole)


def test_figure_of_no_data_and_of_extremes(spectrum: Spectrum) -> None:
    from dataclasses import replace

    render(replace(spectrum, ivar=np.zeros(900)), {}, PlotOptions(), (600, 300))
    assert extent(replace(spectrum, ivar=np.zeros(900))) is None
    wild = np.where(np.arange(900) == 50, 1e30, 1e-20 * spectrum.flux)
    render(replace(spectrum, flux=wild, ivar=np.full(900, 1e41), note="x" * 500), {}, PlotOptions(), (600, 300))


def test_png_says_what_it_shows() -> None:
    image = Image.open(io.BytesIO(png(flat_picture(5, 5), {"Title": "TARGETID 1"})))
    assert image.text == {"Title": "TARGETID 1"}
