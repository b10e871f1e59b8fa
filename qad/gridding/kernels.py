"""The loops of resampling and normalising, compiled by Numba; import it where it is used: that takes a quarter of a second.

Compiled once for each kind of processor, in some seconds, and kept on disk.  Without ``fastmath``: sums are taken in the
order written, so results do not depend on the processor, or on how many spectra are done together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qad.work.compiling import compiled


@compiled
def resample_rows(  # pragma: no cover  (compiled)
    flux: Any, ivar: Any, brighter: Any, position: Any, min_covered: float, flux_out: Any, ivar_out: Any
) -> None:
    """Average each row over its output pixels: the formulae of :mod:`qad.gridding.resample`.

    Parameters
    ----------
    flux, ivar : ndarray of float32 or float64, shape (n_spectra, n_wave)
    brighter : ndarray of float64, shape (n_spectra, n_wave)
        Flux is multiplied by it first, and ivar divided by its square.
    position : ndarray of float64, shape (n_spectra, n_out + 1)
        Edges of the output pixels in units of input pixels, not clipped to their range.
    min_covered : float
        Least share of an output pixel that must be covered.
    flux_out, ivar_out : ndarray of float64, shape (n_spectra, n_out)
        Receive the result.
    """
    n_spectra, n_wave = flux.shape
    # one more pixel of 0, that the last edge may point at
    good, value, variance = np.zeros(n_wave + 1), np.zeros(n_wave + 1), np.zeros(n_wave + 1)
    for row in range(n_spectra):
        for j in range(n_wave):
            b = brighter[row, j]
            f, w = flux[row, j] * b, ivar[row, j] / (b * b)
            v = 1.0 / w
            is_good = w > 0.0 and w < np.inf and v < np.inf and abs(f) < np.inf
            good[j] = 1.0 if is_good else 0.0
            value[j] = f if is_good else 0.0
            variance[j] = v if is_good else 0.0
        edge = position[row, 0]
        high = min(max(edge, 0.0), float(n_wave))
        last = int(high)
        for k in range(position.shape[1] - 1):
            low, first = high, last
            width = position[row, k + 1] - edge
            edge = position[row, k + 1]
            high = min(max(edge, 0.0), float(n_wave))
            last = int(high)
            overlap = (high if first == last else first + 1.0) - low
            covered = overlap * good[first]
            total = overlap * value[first]
            error = overlap * overlap * variance[first]
            for j in range(first + 1, last):
                covered += good[j]
                total += value[j]
                error += variance[j]
            if last > first:
                overlap = high - last
                covered += overlap * good[last]
                total += overlap * value[last]
                error += overlap * overlap * variance[last]
            # 1e-9 of a pixel absorbs the rounding of an edge that coincides with that of an input pixel
            is_enough = covered >= min_covered * width - 1e-9 and covered > 1e-9
            flux_out[row, k] = total / covered if is_enough else 0.0
            ivar_out[row, k] = covered * covered / error if is_enough else 0.0


@compiled
def huber_means(  # pragma: no cover  (compiled)
    value: Any, weight: Any, count: Any, scatter: float, huber_k: float, iterations: int, mean: Any, sigma: Any
) -> None:
    """Put Huber's mean of the first `count` values of each row into `mean`, and its error from noise alone into `sigma`.

    Parameters
    ----------
    value, weight : ndarray of float64, shape (n_spectra, n_pixels)
        `weight` is one over the variance of the noise.
    count : ndarray of int, shape (n_spectra,)
    scatter : float
        Values differ by this share of the mean beyond their noise.
    huber_k, iterations : float, int
    mean, sigma : ndarray of float64, shape (n_spectra,)
        0 and infinite where `count` is 0.
    """
    w = np.empty(value.shape[1])
    variance = np.empty(value.shape[1])
    for row in range(value.shape[0]):
        n = count[row]
        mean[row], sigma[row] = 0.0, np.inf
        if n == 0:
            continue
        noise = 0.0
        for j in range(n):
            noise += weight[row, j]
            variance[j] = 1.0 / max(weight[row, j], 1e-200)
        sigma[row] = 1.0 / np.sqrt(noise)
        middle = (n - 1) // 2
        centre = np.partition(value[row, :n], middle)[middle]
        for _ in range(iterations):
            intrinsic = (scatter * centre) ** 2
            for j in range(n):
                total = variance[j] + intrinsic
                tail = abs(value[row, j] - centre) * np.sqrt(total) / huber_k
                w[j] = 1.0 / max(total, tail)
            # four sums at a time: one alone waits for each addition
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
            for j in range(0, n - 3, 4):
                a0 += w[j]
                a1 += w[j + 1]
                a2 += w[j + 2]
                a3 += w[j + 3]
                b0 += w[j] * value[row, j]
                b1 += w[j + 1] * value[row, j + 1]
                b2 += w[j + 2] * value[row, j + 2]
                b3 += w[j + 3] * value[row, j + 3]
            for j in range(n - n % 4, n):
                a0 += w[j]
                b0 += w[j] * value[row, j]
            centre = ((b0 + b1) + (b2 + b3)) / ((a0 + a1) + (a2 + a3))
        mean[row] = centre


@compiled
def used_values(  # pragma: no cover  (compiled)
    flux: Any, ivar: Any, shape: Any, is_red: Any, min_pixels: int, value: Any, weight: Any, count: Any
) -> None:
    """Pack ``flux / shape`` and ``ivar shape²`` of the good red pixels of each row, or of all good ones where these are few."""
    for row in range(flux.shape[0]):
        n_red = 0
        for j in range(flux.shape[1]):
            n_red += 1 if ivar[row, j] > 0.0 and is_red[row, j] else 0
        n = 0
        for j in range(flux.shape[1]):
            if ivar[row, j] > 0.0 and (n_red < min_pixels or is_red[row, j]):
                value[row, n] = flux[row, j] / shape[row, j]
                weight[row, n] = ivar[row, j] * shape[row, j] ** 2
                n += 1
        count[row] = n
