"""Equivalent widths, line shapes and continuum slopes, measured on the data alone with their errors.

A reconstruction hides a weak or absent line: on a linear scale it lies two sigma below the mean.  In ln EW it lies far out
(science measured on simulations: this view alone raised the recall of featureless quasars from 0.1 to 0.6).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from qad.lines import LIGHT_SPEED_KMS
from qad.scoring.geometry import Geometry
from qad.scoring.residuals import Batch

MIN_FILLED = 0.5
"""Least share of good pixels in a window."""
MIN_CONTINUUM_SNR = 3.0
"""A width is measured only over a continuum detected at this many sigma."""
WEAK_IVAR = 0.1
"""Pixels with ivar below this share of the spectrum's median are left out: sky lines and defects."""
STRONG_LINE = 5.0
"""The profile of a line is measured where its width is known at this many sigma."""
CORE_KMS = 1500.0
"""Half width of a line's core, for its peakedness."""


@dataclass(frozen=True)
class LineWindow:
    """Where a line's flux and its local continuum are measured, rest Å.

    Windows of the continuum are those of PyQSOFit's continuum list, widened where that list has no neighbour.
    """

    name: str
    wave: float
    line: tuple[float, float]
    blue: tuple[float, float]
    red: tuple[float, float]
    is_shaped: bool = False
    """Whether the line is broad and strong enough to measure how peaked it is."""


LINE_WINDOWS = (
    LineWindow("Lya", 1215.67, (1200.0, 1262.0), (1272.0, 1292.0), (1340.0, 1362.0)),
    LineWindow("O I", 1304.35, (1292.0, 1322.0), (1272.0, 1290.0), (1340.0, 1362.0)),
    LineWindow("Si IV", 1398.0, (1372.0, 1430.0), (1340.0, 1362.0), (1440.0, 1470.0)),
    LineWindow("C IV", 1549.06, (1500.0, 1590.0), (1440.0, 1475.0), (1685.0, 1715.0), True),
    LineWindow("He II 1640", 1640.42, (1610.0, 1680.0), (1440.0, 1475.0), (1685.0, 1725.0)),
    LineWindow("N III]", 1750.26, (1732.0, 1768.0), (1690.0, 1722.0), (1775.0, 1815.0)),
    LineWindow("C III]", 1908.73, (1830.0, 1965.0), (1770.0, 1815.0), (1975.0, 2020.0), True),
    LineWindow("Fe II UV", 2500.0, (2430.0, 2630.0), (2150.0, 2200.0), (2655.0, 2700.0)),
    LineWindow("Mg II", 2798.75, (2740.0, 2860.0), (2655.0, 2710.0), (2900.0, 2980.0), True),
    LineWindow("[Ne V]", 3426.85, (3410.0, 3442.0), (3370.0, 3404.0), (3450.0, 3490.0)),
    LineWindow("[O II]", 3728.48, (3712.0, 3744.0), (3680.0, 3708.0), (3750.0, 3790.0)),
    LineWindow("[Ne III]", 3869.86, (3852.0, 3888.0), (3810.0, 3848.0), (3900.0, 3925.0)),
    LineWindow("Ca II K", 3934.78, (3922.0, 3944.0), (3895.0, 3915.0), (3990.0, 4030.0)),
    LineWindow("Hdelta", 4102.89, (4060.0, 4150.0), (3990.0, 4045.0), (4160.0, 4230.0)),
    LineWindow("Hgamma", 4341.69, (4280.0, 4405.0), (4180.0, 4250.0), (4415.0, 4445.0)),
    LineWindow("Fe II blue", 4560.0, (4460.0, 4640.0), (4180.0, 4250.0), (4725.0, 4775.0)),
    LineWindow("Hbeta", 4862.71, (4785.0, 4940.0), (4725.0, 4770.0), (5060.0, 5110.0), True),
    LineWindow("[O III]", 5008.24, (4990.0, 5030.0), (4972.0, 4984.0), (5035.0, 5065.0)),
    LineWindow("He I", 5877.25, (5820.0, 5935.0), (5720.0, 5800.0), (5960.0, 6040.0)),
    LineWindow("Halpha", 6564.60, (6420.0, 6700.0), (6200.0, 6350.0), (6790.0, 6950.0), True),
)

SLOPE_WINDOWS = (
    (1272.0, 1292.0),
    (1440.0, 1475.0),
    (1685.0, 1725.0),
    (2000.0, 2060.0),
    (2655.0, 2710.0),
    (3000.0, 3250.0),
    (3990.0, 4045.0),
    (4180.0, 4250.0),
    (5060.0, 5110.0),
    (6200.0, 6350.0),
    (6790.0, 6950.0),
)
"""Windows of little line emission, rest Å, from blue to red: the ratio of neighbours is the continuum's slope."""


@dataclass(frozen=True)
class Widths:
    """Measurements of `n_features` quantities.

    Attributes
    ----------
    names : tuple of str
        ``ew:<line>``, ``peak:<line>``, ``slope:<blue>-<red>``.
    value, error : ndarray, shape (n_spectra, n_features)
        Equivalent widths in rest Å, positive in emission; peakedness as the share of the line's flux in its core; slopes
        as d ln flux / d ln wavelength.  nan where not measured.
    """

    names: tuple[str, ...]
    value: np.ndarray
    error: np.ndarray

    @staticmethod
    def join(parts: list[Widths]) -> Widths:
        """Return the rows of all parts."""
        return Widths(
            parts[0].names, np.concatenate([p.value for p in parts]), np.concatenate([p.error for p in parts])
        )


class WindowMeans:
    """Means of flux over rest-frame windows of a batch, each pixel alike, with errors."""

    def __init__(self, batch: Batch, geometry: Geometry) -> None:
        self._geometry = geometry
        self._start = batch.rest_start
        self._n_obs = batch.flux.shape[1]
        good = _usable(batch.ivar)
        variance = np.divide(1.0, batch.ivar, out=np.zeros(batch.ivar.shape), where=good)
        self._flux = _running(np.where(good, batch.flux, 0.0))
        self._variance = _running(variance)
        self._good = _running(good)

    def mean(self, window: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean flux in a window (rest Å) and its variance, nan where less than half of it is covered."""
        low, high = (self._geometry.rest_pixel(wave) - self._start for wave in window)
        first, last = np.clip(low, 0, self._n_obs), np.clip(high + 1, 0, self._n_obs)
        rows = np.arange(len(first))
        count = self._good[rows, last] - self._good[rows, first]
        covered = count >= np.maximum(MIN_FILLED * (high + 1 - low), 1)
        flux = self._flux[rows, last] - self._flux[rows, first]
        variance = self._variance[rows, last] - self._variance[rows, first]
        empty = np.full(len(rows), np.nan)
        mean = np.divide(flux, count, out=empty.copy(), where=covered)
        return mean, np.divide(variance, count**2, out=empty, where=covered)


def feature_names() -> tuple[str, ...]:
    """Return the names of the features, in the order of :func:`measure_widths`."""
    names: list[str] = []
    for window in LINE_WINDOWS:
        names.append(f"ew:{window.name}")
        names += [f"peak:{window.name}"] if window.is_shaped else []
    return (*names, *(_slope_name(*pair) for pair in itertools.pairwise(SLOPE_WINDOWS)))


def measure_widths(batch: Batch, geometry: Geometry) -> Widths:
    """Return equivalent widths, line shapes and slopes of a batch."""
    means = WindowMeans(batch, geometry)
    features = [feature for window in LINE_WINDOWS for feature in _line_features(means, window)]
    pairs = itertools.pairwise(SLOPE_WINDOWS)
    features += [_slope(means, blue, red) for blue, red in pairs]
    names, values, errors = zip(*features, strict=True)
    return Widths(names, np.stack(values, axis=1), np.stack(errors, axis=1))


Feature = tuple[str, np.ndarray, np.ndarray]


def _line_features(means: WindowMeans, window: LineWindow) -> list[Feature]:
    continuum, variance = _continuum(means, window)
    width = window.line[1] - window.line[0]
    flux, flux_var = means.mean(window.line)
    detected = continuum > MIN_CONTINUUM_SNR * np.sqrt(variance)
    level = np.where(detected, continuum, np.nan)
    ew = width * (flux / level - 1.0)
    error = width * np.sqrt(flux_var / level**2 + flux**2 * variance / level**4)
    features = [(f"ew:{window.name}", ew, error)]
    if window.is_shaped:
        share, share_error = _peakedness(means, window, level, variance, ew / error > STRONG_LINE)
        features.append((f"peak:{window.name}", share, share_error))
    return features


def _peakedness(
    means: WindowMeans, window: LineWindow, level: np.ndarray, level_var: np.ndarray, is_strong: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of a strong line's flux that lies in its core, and its error."""
    factor = 1.0 + CORE_KMS / LIGHT_SPEED_KMS
    core = (window.wave / factor, window.wave * factor)
    (total, total_var), (peak, peak_var) = (_excess(means, part, level) for part in (window.line, core))
    total = np.where(is_strong, total, np.nan)
    share = peak / total
    # the continuum's error moves both: d share / d level = -(core width - share * line width) / total
    lever = (core[1] - core[0] - share * (window.line[1] - window.line[0])) / total
    return share, np.sqrt((peak_var + share**2 * total_var) / total**2 + lever**2 * level_var)


def _excess(means: WindowMeans, part: tuple[float, float], level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, variance = means.mean(part)
    span = part[1] - part[0]
    return span * (mean - level), span**2 * variance


def _continuum(means: WindowMeans, window: LineWindow) -> tuple[np.ndarray, np.ndarray]:
    """Return the continuum under a line, on the straight line through its two windows, and its variance."""
    (blue, blue_var), (red, red_var) = means.mean(window.blue), means.mean(window.red)
    at_blue, at_red = (0.5 * (low + high) for low, high in (window.blue, window.red))
    share = (0.5 * sum(window.line) - at_blue) / (at_red - at_blue)
    return (1 - share) * blue + share * red, (1 - share) ** 2 * blue_var + share**2 * red_var


def _slope(means: WindowMeans, blue: tuple[float, float], red: tuple[float, float]) -> Feature:
    (f_blue, v_blue), (f_red, v_red) = means.mean(blue), means.mean(red)
    detected = (f_blue > MIN_CONTINUUM_SNR * np.sqrt(v_blue)) & (f_red > MIN_CONTINUUM_SNR * np.sqrt(v_red))
    f_blue, f_red = np.where(detected, f_blue, np.nan), np.where(detected, f_red, np.nan)
    span = np.log(sum(red) / sum(blue))
    value = np.log(f_red / f_blue) / span
    error = np.sqrt(v_blue / f_blue**2 + v_red / f_red**2) / span
    return _slope_name(blue, red), value, error


def _slope_name(blue: tuple[float, float], red: tuple[float, float]) -> str:
    return f"slope:{sum(blue) / 2:.0f}-{sum(red) / 2:.0f}"


def _usable(ivar: np.ndarray) -> np.ndarray:
    good = ivar > 0
    # the median of the good pixels: bad ones sort to the front, where they are skipped
    n_bad = (~good).sum(axis=1)
    middle = np.minimum(n_bad + (ivar.shape[1] - n_bad) // 2, ivar.shape[1] - 1)
    median = np.take_along_axis(np.sort(np.where(good, ivar, -1.0), axis=1), middle[:, None], axis=1)
    return good & (ivar >= WEAK_IVAR * median)


def _running(values: np.ndarray) -> np.ndarray:
    total = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=total[:, 1:], dtype=np.float64)
    return total
