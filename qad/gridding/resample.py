"""From the linear observed grid onto windows of a logarithmic one: flux conserved, inverse variance propagated.

An output pixel is the mean flux density over the part of it that good input pixels cover.  With the overlap o_j of
input pixel j (in units of input pixels; 0 to 1) and g_j = 1 where it is good, else 0::

    flux_out = Σ g o f / Σ g o          ivar_out = (Σ g o)² / Σ g o² / ivar

Overlap weights, as Carnall (2017, arXiv:1705.05165) uses them, keep ∫ f dλ exactly wherever all pixels are good, return a
constant for a constant, and put a line where it is.  Weights of overlap times ivar would have smaller errors beside
sky lines (0.4 to 7 % more information on thirteen real DESI quasars at ``dloglam = 2e-4``), but a flux that leans towards the
quieter side of each pixel: a profile that depends on the noise.

`ivar_out` is the error of each pixel by itself.  Neighbours share the input pixel on their common edge, which correlates
them by a(1-a)/ivar of that pixel (a: its share on one side): on average by 0.10 at 3600 Å and 0.03 at 9800 Å for
``dloglam = 2e-4``, more on finer grids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qad.gridding.wavelength import FIRST_EDGE
from qad.schema import WAVE_STEP

MIN_COVERED = 0.5
"""Least share of an output pixel's width that good input pixels must cover; below it the pixel has ivar 0."""

_TINY = 1e-200
Float = NDArray[np.float64]


def resample(flux: Float, ivar: Float, edges: Float) -> tuple[Float, Float]:
    """Average spectra of the observed grid over the pixels of their windows.

    Parameters
    ----------
    flux, ivar : ndarray, shape (n_spectra, n_wave)
        On pixels of ``WAVE_STEP`` from ``WAVE_START``.  A pixel is good if its `ivar` is positive and both are finite;
        others do not change a result, whatever they hold.
    edges : ndarray, shape (n_spectra, n_out + 1)
        Observed wavelengths of the edges of the output pixels, Å, increasing.

    Returns
    -------
    flux_out, ivar_out : ndarray, shape (n_spectra, n_out)
        Both 0 where good input pixels cover less than ``MIN_COVERED`` of the output pixel.

    Notes
    -----
    Sums are taken pixel by pixel in float64, never as differences of a running sum: a spike of 1e30 would swallow all
    that follows it.
    """
    n_wave = flux.shape[1]
    position = (edges - FIRST_EDGE) / WAVE_STEP
    width = np.diff(position, axis=1)
    np.clip(position, 0.0, n_wave, out=position)
    overlap = _Overlap(position, n_wave + 1)

    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        variance = 1.0 / ivar
    bad = ~((ivar > 0) & (ivar < np.inf) & (variance < np.inf) & np.isfinite(flux))
    covered = overlap.sum(_padded(~bad))
    total = overlap.sum(_padded(flux, bad))
    error = overlap.sum_squared(_padded(variance, bad))
    # 1e-9 of a pixel absorbs the rounding of an edge that coincides with that of an input pixel
    enough = (covered >= MIN_COVERED * width - 1e-9) & (covered > 1e-9)
    # the division is not masked by `where=`: that is several times slower than dividing by a tiny number in vain
    flux_out = total * (enough / np.maximum(covered, _TINY))
    ivar_out = covered**2 * (enough / np.maximum(error, _TINY))
    return flux_out, ivar_out


def _padded(values: NDArray[Any], bad: NDArray[np.bool_] | None = None) -> Float:
    """Return the values, 0 where bad, with one more pixel of 0 that the last edge may point at, flattened."""
    padded = np.zeros((values.shape[0], values.shape[1] + 1))
    padded[:, :-1] = values
    if bad is not None:
        padded[:, :-1][bad] = 0.0
    return padded.reshape(-1)


class _Overlap:
    """Sums of input pixels over output pixels whose edges lie at `position`, in rows of `stride` input pixels."""

    def __init__(self, position: Float, stride: int) -> None:
        index = position.astype(np.int64)
        share = position - index
        self._left, self._right = share[:, :-1], share[:, 1:]
        self._within = index[:, 1:] == index[:, :-1]
        self._shape = index.shape
        index += stride * np.arange(len(index))[:, None]
        self._flat = index.reshape(-1)

    def sum(self, values: Float) -> Float:
        """Return Σ o v."""
        whole, first, last = self._segments(values)
        whole -= self._left * first
        whole += self._right * last
        return whole

    def sum_squared(self, values: Float) -> Float:
        """Return Σ o² v."""
        whole, first, last = self._segments(values)
        left, right = self._left, self._right
        whole -= (2.0 - left) * left * first
        whole += right**2 * last
        # both edges in one input pixel: o = right - left, not (1 - left) and right
        np.copyto(whole, (right - left) ** 2 * first, where=self._within)
        return whole

    def _segments(self, values: Float) -> tuple[Float, Float, Float]:
        """Return the sum from the input pixel of the left edge up to that of the right edge, and these two pixels."""
        at_edges = values[self._flat].reshape(self._shape)
        whole = np.add.reduceat(values, self._flat).reshape(self._shape)[:, :-1]
        whole[self._within] = 0.0
        return whole, at_edges[:, :-1], at_edges[:, 1:]
