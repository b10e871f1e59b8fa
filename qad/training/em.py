"""Fit the factor model: expectation-maximisation with exact masked posteriors, robust in pixels and in spectra.

The fit runs twice: on bins of 16 pixels from a power law and random smooth factors, which is quick and finds the broad
shapes, then on the grid itself from there.  The expansion step (Liu, Rubin and Wu 1998, Biometrika 85, 755) whitens the latents
after each pass, which saves most of the passes that plain EM needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from qad.models.factor import FactorModel
from qad.models.threads import one_blas_thread
from qad.training.sums import Sums, pass_over
from qad.training.trim import log_signal, trim_weights

COARSE = 16
"""Grid pixels in a bin of the first fit."""
STARTS = 4
"""Random starts of the coarse fit; the most likely goes on.  A single one ends in a poor local maximum half of the time."""
SMOOTH_PX = 4.0
"""Sigma of the kernel whose average a pixel with few spectra is drawn to."""
PRIOR_SPECTRA = 3.0
"""Weight of that prior, in spectra."""
MIN_SPECTRA = 5
"""Fewer spectra than this on a pixel: the model is extrapolated there, and its variance is large."""
MIN_SCATTER = 0.03
"""psi is at least the square of this share of the mean spectrum: fluxes are not calibrated better than that."""
TRIM_AFTER = 0.3
"""Share of the passes before trimming starts: the misfit must mean something first."""


@dataclass(frozen=True)
class Fit:
    """A fitted factor model.

    Attributes
    ----------
    model : FactorModel
    latent : ndarray, shape (n_spectra, n_latent)
        Posterior means in the last pass.
    weight : ndarray, shape (n_spectra,)
        1 for spectra that fit, towards 0 for those that were trimmed.
    objective : float
        Mean robust log likelihood of the spectra that were not trimmed, without constants.
    """

    model: FactorModel
    latent: np.ndarray
    weight: np.ndarray
    objective: float = 0.0


def fit_factor_model(
    flux: np.ndarray,
    ivar: np.ndarray,
    start: np.ndarray,
    n_rest: int,
    n_latent: int,
    *,
    iterations: int = 30,
    trim: float = 0.04,
    seed: int = 0,
    after_pass: Callable[[], None] = lambda: None,
) -> Fit:
    """Fit a factor model.

    Parameters
    ----------
    flux, ivar : ndarray, shape (n_spectra, n_obs), float32
    start : ndarray of int, shape (n_spectra,)
    n_rest, n_latent : int
    iterations : int
        Passes on the coarse grid, and again on the fine grid.
    trim : float
        Share of worst-fitting spectra that is kept out of the fit.
    seed : int
    after_pass : callable
        Called after each of the ``(STARTS + 1) * iterations`` passes.

    Returns
    -------
    Fit
        Its factors are ordered by the signal that they carry, and their signs fixed, so that equal models look equal.
    """
    with one_blas_thread():
        return _fit(flux, ivar, np.asarray(start, np.int64), n_rest, n_latent, iterations, trim, seed, after_pass)


def _fit(
    flux: np.ndarray,
    ivar: np.ndarray,
    start: np.ndarray,
    n_rest: int,
    n_latent: int,
    iterations: int,
    trim: float,
    seed: int,
    after_pass: Callable[[], None],
) -> Fit:
    coarse_rest = -(-n_rest // COARSE) + 2  # a window that starts inside a bin reaches into one bin more
    coarse = bin_windows(flux, ivar, start, COARSE)
    trials = [
        _em(
            _first_guess(*coarse, coarse_rest, n_latent, (seed, i)),
            *coarse,
            SMOOTH_PX / COARSE,
            iterations,
            trim,
            after_pass,
        )
        for i in range(STARTS)
    ]
    fit = max(trials, key=lambda trial: trial.objective)
    model = _refine(fit.model, n_rest, flux.shape[1])
    fit = _em(model, flux, ivar, start, SMOOTH_PX, iterations, trim, after_pass, fit)
    return _canonical(fit)


def bin_windows(
    flux: np.ndarray, ivar: np.ndarray, start: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average windows over rest-frame bins of `size` pixels, weighted by ivar; return flux, ivar and start of the bins."""
    n, n_obs = flux.shape
    n_bins = -(-(n_obs + size - 1) // size)
    binned_flux = np.zeros((n, n_bins), np.float32)
    binned_ivar = np.zeros((n, n_bins), np.float32)
    for first in range(0, n, 1024):
        rows = slice(first, first + 1024)
        weight = np.asarray(ivar[rows])
        laid = np.zeros((2, len(weight), n_bins * size), np.float32)
        shift = start[rows] % size
        column = shift[:, None] + np.arange(n_obs)
        laid[0][np.arange(len(weight))[:, None], column] = weight
        laid[1][np.arange(len(weight))[:, None], column] = np.where(weight > 0, weight * flux[rows], 0)
        total, weighted = laid.reshape(2, len(weight), n_bins, size).sum(axis=3)
        binned_ivar[rows] = total
        binned_flux[rows] = np.where(total > 0, weighted / np.where(total > 0, total, 1), 0)
    return binned_flux, binned_ivar, start // size


def _first_guess(
    flux: np.ndarray, ivar: np.ndarray, start: np.ndarray, n_rest: int, k: int, seed: tuple[int, int]
) -> FactorModel:
    """Return the mean spectrum, with an amplitude factor, a slope factor and smooth random ones."""
    from scipy.ndimage import gaussian_filter1d

    # the slope of quasar composites, f_lambda ~ lambda^-1.56 (Vanden Berk et al. 2001), over the bins' loglam of 0.0032
    mean = np.exp(-1.56 * np.log(10) * 2e-4 * COARSE * np.arange(n_rest))
    n_obs = flux.shape[1]
    mean /= np.median(mean[start.min() : start.max() + n_obs])
    pixels = start[:, None] + np.arange(n_obs)
    pixels = np.minimum(pixels, n_rest - 1)
    weight = (ivar / (1 + 0.01 * ivar)).astype(np.float64)
    amplitude = np.ones(len(flux))
    for _ in range(5):
        local = mean[pixels]
        amplitude = (weight * flux * local).sum(1) / np.maximum((weight * local**2).sum(1), 1e-12)
        amplitude = np.clip(amplitude, 0.2, 5)
        top = np.bincount(pixels.ravel(), (weight * flux * amplitude[:, None]).ravel(), n_rest)
        low = np.bincount(pixels.ravel(), (weight * amplitude[:, None] ** 2).ravel(), n_rest)
        mean = _fill(np.where(low > 0, top / np.where(low > 0, low, 1), 0), low > 0)
    loading = np.random.default_rng(seed).standard_normal((n_rest, k))
    loading = gaussian_filter1d(loading, n_rest / 40, axis=0, mode="nearest")
    loading *= 0.1 / loading.std(axis=0)
    loading[:, 0] = 0.2 * mean
    if k > 1:
        loading[:, 1] = 0.2 * mean * np.linspace(-1.5, 1.5, n_rest)
    return FactorModel(mean.astype(np.float32), loading.astype(np.float32), np.full(n_rest, 0.01, np.float32), n_obs)


def _refine(model: FactorModel, n_rest: int, n_obs: int) -> FactorModel:
    """Return a model of bins on the grid's pixels."""
    centre = (np.arange(model.n_rest) + 0.5) * COARSE - 0.5
    pixel = np.arange(n_rest)
    loading = np.stack([np.interp(pixel, centre, column) for column in model.loading.T], axis=1)
    return replace(
        model,
        mean=np.interp(pixel, centre, model.mean).astype(np.float32),
        loading=loading.astype(np.float32),
        variance=np.interp(pixel, centre, model.variance).astype(np.float32),
        n_obs=n_obs,
    )


def _em(
    model: FactorModel,
    flux: np.ndarray,
    ivar: np.ndarray,
    start: np.ndarray,
    smooth_px: float,
    iterations: int,
    trim: float,
    after_pass: Callable[[], None],
    earlier: Fit | None = None,
) -> Fit:
    n = len(start)
    latent = np.zeros((n, model.n_latent)) if earlier is None else earlier.latent
    weight = np.ones(n) if earlier is None else earlier.weight
    signal = log_signal(ivar)
    for i in range(iterations):
        sums, latent, misfit = pass_over(model, flux, ivar, start, latent, weight)
        model, latent = _maximise(model, sums, latent, smooth_px)
        if trim > 0 and (i + 1 >= TRIM_AFTER * iterations or earlier is not None):
            weight = trim_weights(misfit, signal, trim)
        after_pass()
    return Fit(_extrapolate(model, sums), latent, weight, sums.objective / max(sums.total, 1e-12))


def _maximise(model: FactorModel, sums: Sums, latent: np.ndarray, smooth_px: float) -> tuple[FactorModel, np.ndarray]:
    """Return the model that the sums imply, its latents whitened, and the latents in its terms."""
    k = model.n_latent
    base = sums.cross[:, 0]
    covered = sums.count >= MIN_SPECTRA
    typical = np.median(base[covered] / sums.count[covered]) if covered.any() else 1.0
    ridge = np.eye(k + 1) * 1e-3 * typical
    smooth = _solve(_running_sum(sums.cross, smooth_px), _running_sum(sums.target, smooth_px), ridge)
    prior = np.eye(k + 1) * PRIOR_SPECTRA * typical
    theta = _solve(sums.cross, sums.target + smooth @ prior, prior)

    centre = sums.latent / sums.total
    spread = sums.second / sums.total - np.outer(centre, centre)
    root = np.linalg.cholesky(spread + 1e-6 * np.eye(k))
    mean = theta[:, 0] + theta[:, 1:] @ centre
    loading = theta[:, 1:] @ root
    latent = np.linalg.solve(root, (latent - centre).T).T

    variance = _running_sum(sums.excess, smooth_px) / np.maximum(_running_sum(sums.squared, smooth_px), 1e-300)
    variance = np.maximum(variance, np.square(MIN_SCATTER * np.maximum(mean, 0.1 * np.median(mean[covered]))))
    fitted = replace(
        model,
        mean=mean.astype(np.float32),
        loading=loading.astype(np.float32),
        variance=variance.astype(np.float32),
    )
    return fitted, latent


def _solve(cross: np.ndarray, target: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """Return [mean, loading] of every pixel from its sums; `cross` holds upper triangles."""
    m = target.shape[1]
    i, j = np.triu_indices(m)
    full = np.empty((len(target), m, m))
    full[:, i, j] = cross
    full[:, j, i] = cross
    return np.linalg.solve(full + ridge, target[:, :, None])[:, :, 0]


def _running_sum(values: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return sums along the grid under a Gaussian kernel."""
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(values, sigma_px, axis=0, mode="constant")


def _fill(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return `values` with the unknown ones interpolated; beyond the ends the last known value goes on."""
    pixel = np.arange(len(values))
    return values if known.all() else np.interp(pixel, pixel[known], values[known])


def _extrapolate(model: FactorModel, sums: Sums) -> FactorModel:
    """Return the model with its unseen pixels continued from the seen ones, at a variance that says so."""
    seen = sums.count >= MIN_SPECTRA
    if seen.all() or not seen.any():
        return model
    loading = np.stack([_fill(column, seen) for column in model.loading.T], axis=1)
    unsure = float(model.variance[seen].max()) + np.square(_fill(model.mean, seen))
    return replace(
        model,
        mean=_fill(model.mean, seen).astype(np.float32),
        loading=loading.astype(np.float32),
        variance=np.where(seen, model.variance, unsure).astype(np.float32),
    )


def _canonical(fit: Fit) -> Fit:
    """Rotate the factors to the principal axes of their signal-to-noise, largest first, sums of loadings positive."""
    model = fit.model
    scaled = model.loading / np.sqrt(model.variance.astype(np.float64))[:, None]
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    rotation = vectors[:, np.argsort(values)[::-1]]
    loading = model.loading @ rotation
    sign = np.where(loading.sum(axis=0) < 0, -1.0, 1.0)
    rotation = rotation * sign
    model = replace(model, loading=(model.loading @ rotation).astype(np.float32))
    return Fit(model, fit.latent @ rotation, fit.weight, fit.objective)
