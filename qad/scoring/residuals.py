"""Residuals summed over running boxes of several widths, in units of what normal quasars scatter there.

A box's mean residual m = sum(w r) / sum(w), w = 1 / (1/ivar + intrinsic variance), has the noise variance
v = sum(w^2 / ivar) / sum(w)^2.  Normal quasars scatter by more: neighbouring pixels deviate together, and broad boxes far
beyond what a per-pixel variance predicts.  So each scale and rest wavelength has its own tau^2, found from the population such
that m / sqrt(v + tau^2) has unit scatter.  This is the ranking that detects broad, coherent anomalies at every S/N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qad.scoring.geometry import Geometry

HUBER_SIGMA = 3.0
"""Pixels farther out weigh less, so that each counts at most this much: a narrow absorber or a cosmic ray must not make a broad
feature, and a strong broad one must stay it (Huber 1964; a redescending weight such as Student's t would let it vanish)."""
MIN_FILLED = 0.5
"""Least share of good pixels in a box."""
BIN_PIXELS = 8
"""Narrowest bin of rest wavelength over which a scatter is measured, pixels."""
MIN_IN_BIN = 25
"""Fewest boxes from which a bin's scatter is measured; others take it from their neighbours."""
CLIP = 1.5
"""Deviations count up to CLIP sigma in the scatter: anomalies must not widen what is called normal."""
CLIPPED_MEAN = 0.7785
"""Mean of min(x^2, CLIP^2) for a unit Gaussian x: 1 - 2 (c phi(c) + Q(c)) + 2 c^2 Q(c), with c = CLIP."""


@dataclass(frozen=True)
class Batch:
    """Spectra, and what the model makes of them; float32 of shape (n_spectra, n_obs) in normalised flux.

    Attributes
    ----------
    flux, ivar, recon, intrinsic_var : ndarray
    rest_start : ndarray, shape (n_spectra,)
        Rest-frame pixel of each window's first pixel (:meth:`Geometry.rest_start`).
    first_observed : ndarray, shape (n_spectra,)
        log10 of the observed wavelength (Å) of each window's first pixel.
    """

    flux: np.ndarray
    ivar: np.ndarray
    recon: np.ndarray
    intrinsic_var: np.ndarray
    rest_start: np.ndarray
    first_observed: np.ndarray

    @property
    def residual(self) -> np.ndarray:
        """Flux less reconstruction, 0 where ivar is 0, float64."""
        return np.where(self.ivar > 0, self.flux.astype(np.float64) - self.recon, 0.0)

    def without(self, bad: np.ndarray) -> Batch:
        """Return the batch with the pixels `bad` masked."""
        ivar = np.where(bad, np.float32(0), self.ivar)
        return Batch(self.flux, ivar, self.recon, self.intrinsic_var, self.rest_start, self.first_observed)


@dataclass(frozen=True)
class Boxes:
    """Boxes of one width: mean residual and its noise variance (nan where too few good pixels), and centres in pixels."""

    mean: np.ndarray
    noise_var: np.ndarray
    centre: np.ndarray


@dataclass(frozen=True)
class Scatter:
    """The population's scatter of box means of one width.

    Attributes
    ----------
    width, bin_pixels : int
        Pixels of a box, and of a bin of rest wavelength.
    tau2 : ndarray, shape (n_bins,)
        Variance beyond the noise, normalised flux squared.
    """

    width: int
    bin_pixels: int
    tau2: np.ndarray

    def at(self, rest_pixel: np.ndarray) -> np.ndarray:
        """Return tau^2 at rest-frame pixels."""
        return self.tau2[np.clip(rest_pixel // self.bin_pixels, 0, len(self.tau2) - 1)]


def total_variance(batch: Batch) -> np.ndarray:
    """Return noise plus intrinsic variance, inf where ivar is 0, float64."""
    good = batch.ivar > 0
    noise = np.divide(1.0, batch.ivar, out=np.full(batch.ivar.shape, np.inf), where=good)
    return noise + batch.intrinsic_var


def robust_weight(batch: Batch) -> np.ndarray:
    """Return the inverse of the total variance times Huber's weight of each pixel's residual, float64."""
    weight = 1.0 / total_variance(batch)
    size = np.sqrt(weight) * np.abs(batch.residual)
    return weight * np.minimum(1.0, HUBER_SIGMA / np.maximum(size, HUBER_SIGMA))


class BoxSums:
    """Running sums of a batch, from which boxes of any width are read; `weight` of pixels: 1 / total variance unless given."""

    def __init__(self, batch: Batch, weight: np.ndarray | None = None) -> None:
        good = batch.ivar > 0
        weight = 1.0 / total_variance(batch) if weight is None else weight
        noise = np.divide(weight**2, batch.ivar, out=np.zeros_like(weight), where=good)
        self._sums = [_running(values) for values in (weight, weight * batch.residual, noise, good)]
        self.n_obs = batch.flux.shape[1]
        self._boxes: dict[tuple[int, int], Boxes] = {}

    def boxes(self, width: int, step: int) -> Boxes:
        """Return the boxes of `width` pixels at every `step` pixels."""
        if (width, step) not in self._boxes:
            self._boxes[width, step] = self._make(width, step)
        return self._boxes[width, step]

    def _make(self, width: int, step: int) -> Boxes:
        # slices, not index arrays: several times faster on these strides
        weight, signal, noise, good = (
            total[:, width::step] - total[:, : self.n_obs - width + 1 : step] for total in self._sums
        )
        filled = good >= max(MIN_FILLED * width, 1)
        weight = np.where(filled, weight, np.nan)
        centre = np.arange(0, self.n_obs - width + 1, step) + (width - 1) / 2
        return Boxes(signal / weight, noise / weight**2, centre)


def scoring_step(width: int) -> int:
    """Return the step between boxes when scoring: a quarter of the width misses at most 6 % of a peak's significance."""
    return max(width // 4, 1)


def significance(boxes: Boxes, scatter: Scatter, rest_start: np.ndarray) -> np.ndarray:
    """Return each box's deviation in units of noise and population scatter, 0 where it has too few good pixels."""
    pixel = rest_start[:, None] + boxes.centre.astype(np.int64)[None, :]
    deviation = boxes.mean / np.sqrt(boxes.noise_var + scatter.at(pixel))
    return np.nan_to_num(deviation, nan=0.0)


class ScatterSample:
    """Collects box means of a population, a batch at a time, and fits their scatter."""

    KINDS = ("bin", "square", "noise_var")
    """What is kept of each box."""

    def __init__(self, geometry: Geometry, windows_kms: list[float]) -> None:
        self._n_rest = geometry.n_rest
        self._widths = [geometry.width(kms) for kms in windows_kms]
        self._seen: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = [[] for _ in windows_kms]

    def add(self, batch: Batch) -> None:
        """Take the boxes of a batch."""
        sums = BoxSums(batch, robust_weight(batch))
        for width, seen in zip(self._widths, self._seen, strict=True):
            step = _bin_pixels(width)
            boxes = sums.boxes(width, step)
            pixel = batch.rest_start[:, None] + boxes.centre.astype(np.int64)[None, :]
            kept = np.isfinite(boxes.mean)
            seen.append(
                (
                    (pixel[kept] // step).astype(np.int32),
                    (boxes.mean[kept] ** 2).astype(np.float32),
                    boxes.noise_var[kept].astype(np.float32),
                )
            )

    def taken(self) -> list[tuple[np.ndarray, ...]]:
        """Return what was collected at each width, the arrays of KINDS."""
        return [tuple(np.concatenate(part) for part in zip(*seen, strict=True)) for seen in self._seen]

    def take(self, taken: Sequence[tuple[np.ndarray, ...]]) -> None:
        """Add what another sample has :meth:`taken`."""
        for seen, (bins, squares, variances) in zip(self._seen, taken, strict=True):
            seen.append((bins, squares, variances))

    def fit(self) -> list[Scatter]:
        """Return the scatter of each width."""
        found = []
        for width, (bins, squares, variances) in zip(self._widths, self.taken(), strict=True):
            step = _bin_pixels(width)
            found.append(Scatter(width, step, fit_tau2(bins, squares, variances, self._n_rest // step + 1)))
        return found


def _bin_pixels(width: int) -> int:
    return max(BIN_PIXELS, width // 4)


def fit_tau2(bin_index: np.ndarray, square: np.ndarray, noise_var: np.ndarray, n_bins: int) -> np.ndarray:
    """Return per bin the tau^2 at which clipped squared deviations have a unit Gaussian's mean, by bisection in its log."""
    inside = (bin_index >= 0) & (bin_index < n_bins)
    bin_index, square, noise_var = bin_index[inside], square[inside].astype(float), noise_var[inside].astype(float)
    count = np.bincount(bin_index, minlength=n_bins)
    top = np.log(np.bincount(bin_index, square, n_bins) / np.maximum(count, 1) + 1e-12) + 3.0
    low, high = top - 25.0, top
    for _ in range(24):
        middle = 0.5 * (low + high)
        ratio = np.minimum(square / (noise_var + np.exp(middle)[bin_index]), CLIP**2)
        too_small = np.bincount(bin_index, ratio, n_bins) > CLIPPED_MEAN * count
        low, high = np.where(too_small, middle, low), np.where(too_small, high, middle)
    known = np.flatnonzero(count >= MIN_IN_BIN)
    if known.size == 0:
        known = np.flatnonzero(count == count.max())
    return np.exp(np.interp(np.arange(n_bins), known, 0.5 * (low + high)[known]))


def _running(values: np.ndarray) -> np.ndarray:
    total = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=total[:, 1:], dtype=np.float64)
    return total
