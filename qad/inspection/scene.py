"""What a plot shows, whatever draws it: which layers, how smooth, which stretch of wavelength, and the region that matters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from qad.errors import ConfigError
from qad.inspection.spectrum import Spectrum
from qad.lines import Line, nearest_line

Frame = Literal["rest", "observed"]
Layer = Literal["raw", "error", "model", "lines", "residual", "zoom"]
LAYERS: tuple[Layer, ...] = ("raw", "error", "model", "lines", "residual", "zoom")
REGION_ROOM = 0.6
"""Air on either side of the driving region, as a share of its width."""
LEAST_REGION = 0.035
"""Least half width of a region around a wavelength that belongs to no line, as a share of the wavelength (10,000 km/s)."""
LEAST_PIXELS = 8
"""A stretch with fewer pixels is no plot."""
_ZOOM = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?)\s*[:,-]\s*([0-9]+(?:\.[0-9]*)?)\s*")


@dataclass(frozen=True)
class PlotOptions:
    """How a spectrum is drawn.

    Attributes
    ----------
    smooth_px : int
        Pixels of the running mean.
    frame : {"rest", "observed"}
        The wavelengths of the lower axis and of `zoom`; the other ones stand above.
    zoom : tuple of float or None
        The stretch shown, Å in `frame`; None: all, and the driving region in a second panel.
    layers : frozenset of str
        Members of `LAYERS`.
    """

    smooth_px: int = 7
    frame: Frame = "rest"
    zoom: tuple[float, float] | None = None
    layers: frozenset[str] = frozenset(LAYERS)

    def shift(self, spectrum: Spectrum) -> float:
        """Return what a wavelength of `frame` is multiplied by to be observed."""
        return 1 + spectrum.z if self.frame == "rest" else 1.0


def parse_zoom(text: str) -> tuple[float, float] | None:
    """Return the limits of ``LO:HI``, None for an empty text.

    Raises
    ------
    ConfigError
        If it is not two wavelengths in rising order.
    """
    if not text.strip():
        return None
    found = _ZOOM.fullmatch(text)
    low, high = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
    if not 0 < low < high:
        raise ConfigError(f"inspect.zoom {text!r}: two wavelengths in Å, the smaller first, such as 1450:1620")
    return low, high


def extent(spectrum: Spectrum) -> tuple[float, float] | None:
    """Return the first and last observed wavelength (Å) of usable pixels, None if there are fewer than two."""
    good = spectrum.wave[spectrum.ivar > 0]
    return (float(good[0]), float(good[-1])) if len(good) >= 2 else None


def driving_region(spectrum: Spectrum, facts: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the observed stretch (Å) around the strongest residual: the region of its line, with air on both sides.

    None where no strongest residual is known, or it lies outside the usable pixels.
    """
    worst = facts.get("worst_wave_rest")
    whole = extent(spectrum)
    if whole is None or worst is None or not math.isfinite(worst):
        return None
    line = nearest_line(worst)
    low, high = _around(worst, line)
    shift = 1 + spectrum.z
    low, high = max(low * shift, whole[0]), min(high * shift, whole[1])
    inside = (spectrum.wave >= low) & (spectrum.wave <= high) & (spectrum.ivar > 0)
    return (low, high) if np.count_nonzero(inside) >= LEAST_PIXELS else None


def _around(worst: float, line: Line | None) -> tuple[float, float]:
    least = LEAST_REGION * worst
    if line is None:
        return worst - 2 * least, worst + 2 * least
    room = REGION_ROOM * (line.high - line.low)
    return min(line.low - room, worst - least), max(line.high + room, worst + least)


def stretches(spectrum: Spectrum, facts: Mapping[str, Any], options: PlotOptions) -> list[tuple[float, float]]:
    """Return the observed stretches (Å) to draw: the chosen one, or all and then the driving region.

    Empty if no pixel can be used; a `zoom` that holds no usable pixel falls back to the whole spectrum.
    """
    whole = extent(spectrum)
    if whole is None:
        return []
    if options.zoom is not None:
        shift = options.shift(spectrum)
        low, high = max(options.zoom[0] * shift, whole[0]), min(options.zoom[1] * shift, whole[1])
        return [(low, high) if holds_pixels(spectrum, low, high) else whole]
    region = driving_region(spectrum, facts) if "zoom" in options.layers else None
    return [whole, region] if region else [whole]


def holds_pixels(spectrum: Spectrum, low: float, high: float) -> bool:
    """Whether an observed stretch (Å) holds enough usable pixels for a plot."""
    inside = (spectrum.wave >= low) & (spectrum.wave <= high) & (spectrum.ivar > 0)
    return int(np.count_nonzero(inside)) >= LEAST_PIXELS
