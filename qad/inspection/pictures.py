"""A picture on its way to a terminal: kitty's and iTerm2's protocols carry PNG, sixel carries palette and rows of six."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.inspection.capabilities import Capabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 4096
"""Most bytes of base64 in one of kitty's escape sequences (kitty's graphics protocol, "Remote client")."""
SIXEL_COLOURS = 64
_ESC, _END = "\x1b", "\x1b\\"


def picture(pixels: NDArray[np.uint8], capabilities: Capabilities) -> str:
    """Return the escape sequences that show a picture at the cursor, a line end after it.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
    capabilities : Capabilities
        Its protocol must be one of pictures.

    Raises
    ------
    ValueError
        If the protocol is text.
    """
    if capabilities.protocol == "kitty":
        pieces = list(kitty(png(pixels)))
    elif capabilities.protocol == "iterm2":
        pieces = [iterm2(png(pixels), pixels.shape[1], pixels.shape[0])]
    elif capabilities.protocol == "sixel":
        pieces = [sixel(pixels)]
    else:
        raise ValueError(f"no picture by {capabilities.protocol}")
    if capabilities.through_tmux:
        pieces = [through_tmux(piece) for piece in pieces]
    return "".join(pieces) + "\n"


def png(pixels: NDArray[np.uint8], text: dict[str, str] | None = None) -> bytes:
    """Return a picture as PNG, with text entries (ASCII keys) in it."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG", pnginfo=info)
    return sink.getvalue()


def kitty(content: bytes) -> Iterator[str]:
    """Yield the sequences that send a PNG in chunks and show it at once; no answer is wanted (``q=2``)."""
    text = base64.b64encode(content).decode()
    chunks = [text[i : i + CHUNK] for i in range(0, len(text), CHUNK)]
    for i, chunk in enumerate(chunks):
        first = "a=T,f=100,q=2," if i == 0 else ""
        yield f"{_ESC}_G{first}m={int(i + 1 < len(chunks))};{chunk}{_END}"


def iterm2(content: bytes, width: int, height: int) -> str:
    """Return the sequence that shows a PNG in its own size in pixels."""
    text = base64.b64encode(content).decode()
    return f"{_ESC}]1337;File=inline=1;size={len(content)};width={width}px;height={height}px:{text}\a"


def through_tmux(sequence: str) -> str:
    """Return a sequence wrapped so that tmux hands it to the terminal outside (``allow-passthrough``)."""
    return f"{_ESC}Ptmux;{sequence.replace(_ESC, _ESC + _ESC)}{_END}"


def sixel(pixels: NDArray[np.uint8]) -> str:
    """Return a picture as sixel graphics of at most `SIXEL_COLOURS` colours.

    A band is six rows; in it each colour draws its pixels as characters of six bits, runs are counted (``!n``), ``$`` goes
    back to the left edge and ``-`` to the next band (DEC STD 070).
    """
    index, palette = _quantized(pixels)
    height, width = index.shape
    colours = "".join(
        f"#{i};2;" + ";".join(str(round(int(part) * 100 / 255)) for part in rgb) for i, rgb in enumerate(palette)
    )
    padded = np.full((-(-height // 6) * 6, width), -1, np.int16)
    padded[:height] = index
    bands = (_band(padded[top : top + 6]) for top in range(0, len(padded), 6))
    return f'{_ESC}P0;1q"1;1;{width};{height}{colours}{"-".join(bands)}{_END}'


def _quantized(pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return an index per pixel and the palette."""
    from PIL import Image

    image = Image.fromarray(pixels).quantize(SIXEL_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    index = np.asarray(image)
    return index, palette[: int(index.max()) + 1]


def _band(rows: NDArray[Any]) -> str:
    """Return six rows of palette indices as sixels; -1 draws nothing."""
    weights = (1 << np.arange(6)).astype(np.uint8)[:, None]
    parts = []
    for colour in np.unique(rows[rows >= 0]).tolist():
        bits = ((rows == colour) * weights).sum(axis=0).astype(np.uint8)
        parts.append(f"#{colour}{_runs(bits)}")
    return "$".join(parts)


def _runs(bits: NDArray[np.uint8]) -> str:
    """Return six-bit values as characters, repeated ones counted, zeros at the end left out."""
    edges = np.flatnonzero(np.diff(bits)) + 1
    starts, ends = np.r_[0, edges], np.r_[edges, len(bits)]
    if len(starts) and not bits[starts[-1]]:
        starts, ends = starts[:-1], ends[:-1]
    out = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        character, count = chr(63 + int(bits[start])), end - start
        out.append(f"!{count}{character}" if count > 3 else character * count)
    return "".join(out)
