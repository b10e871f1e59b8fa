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

Float = NDArray[np.float64]


def resample(
    flux: NDArray[Any], ivar: NDArray[Any], edges: Float, brighter: Float | None = None
) -> tuple[Float, Float]:
    """Average spectra of the observed grid over the pixels of their windows.

    Parameters
    ----------
    flux, ivar : ndarray, shape (n_spectra, n_wave)
        On pixels of ``WAVE_STEP`` from ``WAVE_START``.  A pixel is good if its `ivar` is positive and both are finite;
        others do not change a result, whatever they hold.
    edges : ndarray, shape (n_spectra, n_out + 1)
        Observed wavelengths of the edges of the output pixels, Å, increasing.
    brighter : ndarray of float64, shape (n_spectra, n_wave), optional
        Multiply flux by it first, and divide ivar by its square.

    Returns
    -------
    flux_out, ivar_out : ndarray, shape (n_spectra, n_out)
        Both 0 where good input pixels cover less than ``MIN_COVERED`` of the output pixel.

    Notes
    -----
    Sums are taken pixel by pixel in float64, never as differences of a running sum: a spike of 1e30 would swallow all
    that follows it.
    """
    from qad.gridding.kernels import resample_rows

    factor = np.ones(flux.shape) if brighter is None else brighter
    shape = len(flux), edges.shape[1] - 1
    flux_out, ivar_out = np.empty(shape), np.empty(shape)
    position = (edges - FIRST_EDGE) / WAVE_STEP
    resample_rows(flux, ivar, factor, position, MIN_COVERED, flux_out, ivar_out)
    return flux_out, ivar_out
