"""What a tool without our views would rank by: each a score per spectrum of the grid, higher for stranger.

Plain, as such tools have it, and calibrated like ours: less the median, over the upper spread, of the 200 spectra of like S/N and
redshift.  Needs scikit-learn (``pip install scikit-learn``).
"""

from __future__ import annotations

import numpy as np

from qad.storage.flatcache import GridCache

BIN = 4
"""Grid pixels that are summed for the linear models: 550 km/s."""
N_VECTORS = 10
N_ITERATIONS = 12
N_NEIGHBOURS = 10
N_CALIBRATING = 200
RIDGE = 1e-3
MIN_COVERED = 50
"""A rest-frame pixel that fewer spectra cover is left out."""
SEED = 0


def calibrated(score: np.ndarray, snr: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return a score against those of the spectra nearest in (ln S/N, z): less their median, over their upper spread."""
    from scipy.spatial import cKDTree

    place = np.stack([np.log(np.maximum(snr, 0.05)), z], axis=1)
    place /= np.maximum(place.std(axis=0), 1e-6)
    _, near = cKDTree(place).query(place, k=min(N_CALIBRATING, len(score)))
    middle, upper = np.quantile(score[near], [0.5, 0.84], axis=1)
    return (score - middle) / np.maximum(upper - middle, 1e-3 * np.std(score) + 1e-12)


class RestFrame:
    """The spectra of a grid, summed over BIN pixels, on one rest-frame axis: value 0 and ivar 0 where there are none."""

    def __init__(self, cache: GridCache) -> None:
        n = len(cache)
        shift = cache.start % BIN
        n_bins = (cache.n_obs + BIN - 1) // BIN + 1
        total = (cache.n_rest + BIN - 1) // BIN + n_bins
        self.flux = np.zeros((n, total), np.float32)
        self.ivar = np.zeros((n, total), np.float32)
        for i in range(n):
            weight = np.zeros(n_bins * BIN)
            value = np.zeros(n_bins * BIN)
            inside = slice(int(shift[i]), int(shift[i]) + cache.n_obs)
            weight[inside] = cache.ivar[i]
            value[inside] = cache.ivar[i] * cache.flux[i]
            weight, value = weight.reshape(-1, BIN).sum(axis=1), value.reshape(-1, BIN).sum(axis=1)
            first = int(cache.start[i]) // BIN
            self.ivar[i, first : first + n_bins] = weight
            self.flux[i, first : first + n_bins] = np.divide(value, weight, out=np.zeros(n_bins), where=weight > 0)
        covered = (self.ivar > 0).sum(axis=0) >= MIN_COVERED
        self.flux, self.ivar = self.flux[:, covered], self.ivar[:, covered]


class WeightedPca:
    """Principal components with weights and gaps, by alternating least squares (Bailey 2012, PASP 124, 1015)."""

    def __init__(self, spectra: RestFrame, n_vectors: int = N_VECTORS) -> None:
        flux, ivar = spectra.flux.astype(float), spectra.ivar.astype(float)
        # a bright spectrum must not count for thousands of others: no error below 5 % of the flux
        ivar = np.divide(ivar, 1.0 + ivar * 0.05**2)
        rng = np.random.default_rng(SEED)
        self.mean = (ivar * flux).sum(axis=0) / np.maximum(ivar.sum(axis=0), 1e-12)
        rest = np.where(ivar > 0, flux - self.mean, 0.0)
        vectors = rng.standard_normal((n_vectors, flux.shape[1]))
        for _ in range(N_ITERATIONS):
            vectors, _ = np.linalg.qr(vectors.T)
            vectors = vectors.T
            coef = self._coefficients(rest, ivar, vectors)
            normal = np.einsum("np,nk,nl->pkl", ivar, coef, coef, optimize=True)
            normal += RIDGE * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(
                n_vectors
            ) / n_vectors + 1e-9 * np.eye(n_vectors)
            right = np.einsum("np,nk->pk", ivar * rest, coef, optimize=True)
            vectors = np.linalg.solve(normal, right[:, :, None])[:, :, 0].T
        self.coefficients = self._coefficients(rest, ivar, vectors)
        residual = rest - self.coefficients @ vectors
        n_good = np.maximum((spectra.ivar > 0).sum(axis=1), 1)
        self.chi2 = (spectra.ivar * residual**2).sum(axis=1) / n_good

    @staticmethod
    def _coefficients(rest: np.ndarray, ivar: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        k = len(vectors)
        outer = (vectors[:, None, :] * vectors[None, :, :]).reshape(k * k, -1)
        normal = (ivar @ outer.T).reshape(-1, k, k)
        scale = np.trace(normal, axis1=1, axis2=2)[:, None, None] / k
        return np.linalg.solve(normal + (RIDGE * scale + 1e-9) * np.eye(k), ((ivar * rest) @ vectors.T)[:, :, None])[
            :, :, 0
        ]


def isolation(features: np.ndarray) -> np.ndarray:
    """Return the anomaly score of an isolation forest (Liu, Ting & Zhou 2008)."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=300, random_state=SEED, n_jobs=1).fit(features)
    return -forest.score_samples(features)


def neighbour_distance(features: np.ndarray) -> np.ndarray:
    """Return ln of the distance to the tenth neighbour, features scaled by their robust spread."""
    from sklearn.neighbors import NearestNeighbors

    low, middle, high = np.quantile(features, [0.16, 0.5, 0.84], axis=0)
    scaled = (features - middle) / np.maximum(0.5 * (high - low), 1e-9)
    distance, _ = NearestNeighbors(n_neighbors=N_NEIGHBOURS + 1).fit(scaled).kneighbors(scaled)
    return np.log(distance[:, -1] + 1e-9)


def boosted(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return ln odds of gradient-boosted trees, each half of the spectra judged by trees that learned the truth of the other."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(SEED)
    half = np.zeros(len(truth), bool)
    for value in (False, True):  # as many anomalies in each half
        rows = rng.permutation(np.flatnonzero(truth == value))
        half[rows[: len(rows) // 2]] = True
    score = np.empty(len(truth))
    for part in (half, ~half):
        trees = HistGradientBoostingClassifier(
            max_iter=150,
            learning_rate=0.05,
            max_leaf_nodes=15,
            min_samples_leaf=15,
            l2_regularization=5.0,
            random_state=SEED,
        ).fit(features[part], truth[part])
        score[~part] = trees.decision_function(features[~part])
    return score


def pixel_features(spectra: RestFrame, coefficients: np.ndarray, snr: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return principal components and the rest-frame spectrum in broad bins, nan where there is none, for trees."""
    width = 12
    n = spectra.flux.shape[1] // width * width
    weight = spectra.ivar[:, :n].reshape(len(z), -1, width)
    flux = (weight * spectra.flux[:, :n].reshape(weight.shape)).sum(axis=2)
    total = weight.sum(axis=2)
    bins = np.divide(flux, total, out=np.full(flux.shape, np.nan), where=total > 0)
    return np.column_stack([coefficients, bins, snr, z])
