"""Fitting a complex of lines with its continuum to many spectra at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qad.analysis.complexes import Complex, Kinematics
from qad.analysis.profile import sigma_of
from qad.analysis.spectra import WAVE, Spectra
from qad.desi.lsf import lsf_sigma
from qad.lines import LIGHT_SPEED_KMS
from qad.schema import WAVE_START, WAVE_STEP

Array = NDArray[np.float64]
Index = NDArray[np.int64]

POWERS = (0.0, -3.0)
"""The local continuum is the sum of two power laws of these exponents: any slope between, nearly straight in the logarithm."""
IRON_FWHM = (1800.0, 3500.0, 7000.0)
"""Widths of the iron template that are tried, km/s."""
DEPARTURE = 0.01
"""How far the continuum may depart from its form, in each Legendre polynomial from the second on: errors of the flux
calibration (Guy et al. 2023, AJ 165, 144: 1 to 2 %), host galaxy, weak lines that no list has."""
CLIP_SIGMA = 4.0
SPIKE_SIGMA = 6.0
MIN_COVERED = 0.6
"""Least share of good pixels at a line."""
MIN_PIXELS = 30
DETECTED = 3.0
"""A profile is free where one of its lines is seen at this many sigma; else its usual shape is forced."""
_PINNED = 1e8
_EXCLUDED = 1e30
_CLIP_ROUNDS = 2


@dataclass(frozen=True)
class ComplexFit:
    """The fit of one complex to `n` spectra.

    Attributes
    ----------
    complex : Complex
    index : ndarray, shape (n_fitted,)
        Rows of the spectra that were fitted.
    z : ndarray, shape (n_fitted,)
    par, cov : ndarray, shapes (n_fitted, n_par), (n_fitted, n_par, n_par)
        See :mod:`qad.analysis.kernels`.  The covariance is scaled up where chi2 exceeds the degrees of freedom.
    chi2, dof : ndarray, shape (n_fitted,)
    level, iron_fwhm : ndarray, shape (n_fitted,)
        Median flux, that scales the departures of the continuum; width of the iron template, km/s.
    covered : ndarray of bool, shape (n_fitted, n_lines)
    is_free : ndarray of bool, shape (n_fitted, n_kinematics)
        Whether the profile was fitted, not forced.
    """

    complex: Complex
    index: Index
    z: Array
    par: Array
    cov: Array
    chi2: Array
    dof: Array
    level: Array
    iron_fwhm: Array
    covered: NDArray[np.bool_]
    is_free: NDArray[np.bool_]

    @property
    def n_basis(self) -> int:
        """Terms of the continuum, iron included."""
        return n_terms(self.complex)

    def shape_slice(self, kinematics: int) -> slice:
        """Return where the numbers of a kinematics lie among the parameters."""
        first = self.n_basis + len(self.complex.lines) + 5 * kinematics
        return slice(first, first + 5)

    def continuum(self, wave_rest: Array) -> tuple[Array, Array]:
        """Return the continuum without iron, and its error, at one rest wavelength (Å) per row."""
        terms = self.continuum_terms(wave_rest)
        n = terms.shape[1]
        value = np.einsum("nj,nj->n", terms, self.par[:, :n])
        cov = self.cov[:, :n, :n]
        return value, np.sqrt(np.maximum(np.einsum("ni,nij,nj->n", terms, cov, terms), 0.0))

    def continuum_terms(self, wave_rest: Array) -> Array:
        """Return the terms of the continuum without iron at one rest wavelength (Å) per row, shape (n_fitted, n_terms)."""
        return np.asarray(_smooth(self.complex, wave_rest, self.level).T)

    def model(self, row: int, wave: Array) -> tuple[Array, Array]:
        """Return the continuum (iron included) and the whole model of a fitted row at observed wavelengths (Å)."""
        width = (float(self.iron_fwhm[row]),)
        basis = _basis(self.complex, wave / (1 + self.z[row]), width, float(self.level[row]))[0]
        level = self.par[row, : self.n_basis] @ basis
        total = level.copy()
        for i, line in enumerate(self.complex.lines):
            shape = self.par[row, self.shape_slice(line.kinematics)]
            is_double = self.complex.kinematics[line.kinematics].is_double
            for part_wave, ratio in line.parts:
                flux = self.par[row, self.n_basis + i] * ratio
                total += flux * _profile(wave, part_wave * (1 + self.z[row]), shape, is_double)
        return level, total


def fit_complex(spectra: Spectra, wanted: Complex) -> ComplexFit:
    """Fit a complex to every spectrum that covers one of its lines."""
    covered = line_coverage(spectra, wanted)
    index = np.flatnonzero(covered.any(axis=1))
    data = _Data(spectra, wanted, index)
    keep = (data.w > 0).sum(axis=1) >= MIN_PIXELS
    if not keep.all():
        index = index[keep]
        data = _Data(spectra, wanted, index)
    covered = covered[index]
    prior = _priors(wanted, covered, data.n_basis)
    solution = _Solution(len(index), prior.shape[2])
    everything = np.arange(len(index))
    solution.fit(data, prior, everything)
    changed = everything
    for _ in range(_CLIP_ROUNDS if wanted.clip else 0):
        changed = data.clip(solution, changed)
        if not len(changed):
            break
        solution.fit(data, prior, changed)
    is_free = _is_detected(wanted, solution, data.n_basis, covered)
    forced = np.flatnonzero(~is_free.all(axis=1))
    if len(forced):
        _pin(prior, is_free, wanted, data.n_basis)
        solution.fit(data, prior, forced)
    n_free = prior.shape[2] - (prior[:, 1] >= _PINNED).sum(axis=1)
    dof = np.maximum((data.w > 0).sum(axis=1) - n_free, 1).astype(float)
    scale = np.maximum(solution.chi2 / dof, 1.0)
    widths = np.array(IRON_FWHM)[solution.chosen]
    return ComplexFit(
        wanted,
        index,
        spectra.z[index],
        solution.par,
        solution.cov * scale[:, None, None],
        solution.chi2,
        dof,
        data.level,
        widths,
        covered,
        is_free,
    )


def line_coverage(spectra: Spectra, wanted: Complex) -> NDArray[np.bool_]:
    """Return which lines have enough good pixels, shape (n, n_lines)."""
    good = np.zeros((len(spectra), len(WAVE) + 1))
    np.cumsum(spectra.ivar > 0, axis=1, out=good[:, 1:])
    rows = np.arange(len(spectra))
    found = np.zeros((len(spectra), len(wanted.lines)), bool)
    for i, line in enumerate(wanted.lines):
        half = 3000.0 if wanted.kinematics[line.kinematics].fwhm[0] > 1000 else 600.0
        # the blue half of Lyman alpha is the forest's
        low = wanted.ranges[0][0] if wanted.name == "lya" else 0.0
        first = np.maximum(line.wave * (1 - half / LIGHT_SPEED_KMS), low) * (1 + spectra.z)
        last = line.wave * (1 + half / LIGHT_SPEED_KMS) * (1 + spectra.z)
        begin = np.round((first - WAVE_START) / WAVE_STEP).astype(int)
        end = np.round((last - WAVE_START) / WAVE_STEP).astype(int) + 1
        inside = good[rows, np.clip(end, 0, len(WAVE))] - good[rows, np.clip(begin, 0, len(WAVE))]
        found[:, i] = inside >= MIN_COVERED * (end - begin)
    return found


class _Data:
    """The pixels of a complex, packed: arrays of shape (n_rows, n_pix)."""

    def __init__(self, spectra: Spectra, wanted: Complex, index: Index) -> None:
        rows = [_pixels(spectra, wanted, int(i)) for i in index]
        length = max([1, *(len(x) for x, _, _, _ in rows)])
        self.wanted = wanted
        self.count = np.array([len(x) for x, _, _, _ in rows], np.int64)
        self.x, self.y, self.w = (np.zeros((len(rows), length)) for _ in range(3))
        sets = IRON_FWHM if wanted.iron else IRON_FWHM[:1]
        self.n_basis = n_terms(wanted)
        self.level = np.array([float(np.median(y)) if len(y) else 0.0 for _, y, _, _ in rows])
        self.basis = np.zeros((len(rows), len(sets), self.n_basis, length))
        step = np.full(len(rows), WAVE_STEP)
        for i, (x, y, w, n_binned) in enumerate(rows):
            n = len(x)
            self.x[i, :n], self.y[i, :n], self.w[i, :n] = x, y, w
            self.basis[i, :, :, :n] = _basis(wanted, x / (1 + spectra.z[index[i]]), sets, self.level[i])
            step[i] *= n_binned
        parts = [
            (i, line.kinematics, wave, ratio, float(wanted.kinematics[line.kinematics].is_double))
            for i, line in enumerate(wanted.lines)
            for wave, ratio in line.parts
        ]
        self.member = np.tile(np.array(parts), (len(rows), 1, 1))
        self.member[:, :, 2] *= 1 + spectra.z[index][:, None]
        # the profile's mean over a pixel is nearly its value at the centre when the pixel's own variance is added
        self.spread = lsf_sigma(self.member[:, :, 2]) ** 2 + step[:, None] ** 2 / 12

    def clip(self, solution: _Solution, rows: Index) -> Index:
        """Give weight 0 to narrow absorption and spikes, and return the rows where there was some."""
        changed = []
        for i in rows:
            if solution.chi2[i] < 0:
                continue
            used = self.w[i] > 0
            model = evaluate(self, solution, int(i))
            deviation = np.where(used, (self.y[i] - model) * np.sqrt(self.w[i]), 0.0)
            scatter = max(1.0, 1.4826 * float(np.median(np.abs(deviation[used]))))
            bad = (deviation < -CLIP_SIGMA * scatter) | (deviation > SPIKE_SIGMA * scatter)
            if not bad.any():
                continue
            # the flanks of a trough are absorbed too
            flank = np.convolve(bad, np.ones(3), "same") > 0
            bad |= flank & (deviation < -1.5 * scatter)
            if (used & ~bad).sum() >= MIN_PIXELS:
                self.w[i, bad] = 0.0
                changed.append(i)
        return np.array(changed, np.int64)


def evaluate(data: _Data, solution: _Solution, row: int) -> Array:
    """Return the model of a row at its pixels."""
    rows, par = data.basis[row, solution.chosen[row]], solution.par[row]
    model = par[: data.n_basis] @ rows
    n_lines = len(data.wanted.lines)
    for m, (line, kinematics, wave, ratio, is_double) in enumerate(data.member[row]):
        first = data.n_basis + n_lines + 5 * int(kinematics)
        extra = float(data.spread[row, m])
        model = model + par[data.n_basis + int(line)] * ratio * _profile(
            data.x[row], wave, par[first : first + 5], bool(is_double), extra
        )
    return np.asarray(model)


class _Solution:
    """Parameters and covariances, filled row by row."""

    def __init__(self, n_rows: int, n_par: int) -> None:
        self.par, self.cov = np.zeros((n_rows, n_par)), np.zeros((n_rows, n_par, n_par))
        self.chi2, self.chosen = np.full(n_rows, -1.0), np.zeros(n_rows, np.int64)

    def fit(self, data: _Data, prior: Array, rows: Index) -> None:
        """Fit some rows anew."""
        if not len(rows):
            return
        from qad.analysis.kernels import fit_rows

        low, high, starts = _limits(data.wanted, prior.shape[2], data.n_basis)
        par, cov = np.zeros((len(rows), prior.shape[2])), np.zeros((len(rows), prior.shape[2], prior.shape[2]))
        chi2, chosen = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
        fit_rows(
            data.x[rows], data.y[rows], data.w[rows], data.count[rows], data.basis[rows], data.member[rows],
            data.spread[rows], prior[rows], low, high, starts, par, cov, chi2, chosen,
        )  # fmt: skip
        self.par[rows], self.cov[rows], self.chi2[rows], self.chosen[rows] = par, cov, chi2, chosen


def _pixels(spectra: Spectra, wanted: Complex, row: int) -> tuple[Array, Array, Array, int]:
    """Return wavelength, flux and inverse variance of a complex's good pixels, averaged where that loses nothing."""
    stretch = 1 + spectra.z[row]
    edges = [
        np.clip(np.round((np.array(limits) * stretch - WAVE_START) / WAVE_STEP).astype(int), 0, len(WAVE))
        for limits in wanted.ranges
    ]
    index = np.concatenate([np.arange(first, last) for first, last in edges])
    x, y, w = WAVE[index], spectra.flux[row, index], spectra.ivar[row, index]
    middle = 0.5 * (wanted.ranges[0][0] + wanted.ranges[-1][1]) * stretch
    n = max(1, int(wanted.bin_kms / LIGHT_SPEED_KMS * middle / WAVE_STEP))
    if n > 1:
        m = len(x) // n * n
        x, y, w = (values[:m].reshape(-1, n) for values in (x, y, w))
        total = w.sum(axis=1)
        safe = np.where(total > 0, total, 1.0)
        x, y, w = (w * x).sum(axis=1) / safe, (w * y).sum(axis=1) / safe, total
    used = w > 0
    return x[used], y[used], w[used], n


def n_terms(wanted: Complex) -> int:
    """Return the number of terms of the continuum: power laws, departures, iron."""
    return len(POWERS) + wanted.waves + bool(wanted.iron)


def _smooth(wanted: Complex, wave_rest: Array, level: Array | float) -> Array:
    """Return the terms of the continuum without iron, shape (n_terms, ...)."""
    low, high = wanted.ranges[0][0], wanted.ranges[-1][1]
    t = wave_rest / (0.5 * (low + high))
    u = (2 * wave_rest - low - high) / (high - low)
    polynomials = [np.polynomial.Legendre.basis(2 + k)(u) for k in range(wanted.waves)]
    return np.array([*(t**power for power in POWERS), *(level * values for values in polynomials)])


def _basis(wanted: Complex, wave_rest: Array, widths: tuple[float, ...], level: float) -> Array:
    """Return the terms of the continuum, shape (n_widths, n_terms, n_pix)."""
    from qad.iron import iron

    smooth = _smooth(wanted, wave_rest, level)
    if not wanted.iron:
        return smooth[None]
    share = (1.0, 0.0) if wanted.iron == "uv" else (0.0, 1.0)
    pivot = 0.5 * (wanted.ranges[0][0] + wanted.ranges[-1][1])
    slope = 100.0 * (wave_rest / pivot) ** -1.5
    return np.array([[*smooth, slope * iron(wave_rest, width, *share)] for width in widths])


def _profile(wave: Array, centre: float, shape: Array, is_double: bool, spread: float | None = None) -> Array:
    """Return a profile of area 1 as the instrument shows it; the derivative-free twin of the compiled one."""
    if spread is None:
        spread = float(lsf_sigma(centre)) ** 2 + WAVE_STEP**2 / 12
    sigma = np.exp(shape[1])
    core = _gaussian(wave, centre, shape[0], sigma, spread)
    if not is_double:
        return core
    wing = _gaussian(wave, centre, shape[0] + shape[4] * sigma, sigma * np.exp(shape[3]), spread)
    return np.asarray(shape[2] * core + (1 - shape[2]) * wing)


def _gaussian(wave: Array, centre: float, shift: float, sigma_kms: float, spread: float) -> Array:
    middle = centre * (1 + shift / LIGHT_SPEED_KMS)
    sigma = np.sqrt((centre * sigma_kms / LIGHT_SPEED_KMS) ** 2 + spread)
    return np.asarray(np.exp(-0.5 * ((wave - middle) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma))


def _shape_priors(kinematics: Kinematics) -> tuple[Array, Array]:
    """Return centre and width of the priors on the five numbers of a profile."""
    fwhm, scatter = kinematics.fwhm
    centre = np.array([kinematics.shift[0], np.log(sigma_of(fwhm)), 1.0, 0.0, 0.0])
    width = np.array([kinematics.shift[1], scatter, *[_PINNED**-0.5] * 3])
    if kinematics.is_double:
        centre[2:] = kinematics.core[0], np.log(kinematics.ratio[0]), kinematics.offset[0]
        width[2:] = kinematics.core[1], kinematics.ratio[1], kinematics.offset[1]
    return centre, width


def _priors(wanted: Complex, covered: NDArray[np.bool_], n_basis: int) -> Array:
    """Return the priors of each row, shape (n_rows, 3, n_par): a line that is not covered has flux 0."""
    n_lines, n_shapes = len(wanted.lines), len(wanted.kinematics)
    prior = np.zeros((len(covered), 3, n_basis + n_lines + 5 * n_shapes))
    prior[:, 1, len(POWERS) : len(POWERS) + wanted.waves] = DEPARTURE**-2
    prior[:, 1, n_basis : n_basis + n_lines] = np.where(covered, 0.0, _EXCLUDED)
    for k, kinematics in enumerate(wanted.kinematics):
        first = n_basis + n_lines + 5 * k
        centre, width = _shape_priors(kinematics)
        prior[:, 0, first : first + 5] = centre
        prior[:, 1, first : first + 5] = width**-2
    prior[:, 2, 0] = n_shapes
    return prior


def _pin(prior: Array, is_free: NDArray[np.bool_], wanted: Complex, n_basis: int) -> None:
    """Force the usual shape on profiles of which no line is seen."""
    for k in range(len(wanted.kinematics)):
        first = n_basis + len(wanted.lines) + 5 * k
        prior[~is_free[:, k], 1, first : first + 5] = _PINNED


def _is_detected(wanted: Complex, solution: _Solution, n_basis: int, covered: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which profiles have a line that is seen, shape (n_rows, n_kinematics)."""
    places = np.arange(n_basis, n_basis + len(wanted.lines))
    error = np.sqrt(np.maximum(solution.cov[:, places, places], 1e-60))
    seen = covered & (np.abs(solution.par[:, places]) > DETECTED * error)
    return np.stack(
        [seen[:, [line.kinematics == k for line in wanted.lines]].any(axis=1) for k in range(len(wanted.kinematics))],
        axis=1,
    )


def _limits(wanted: Complex, n_par: int, n_basis: int) -> tuple[Array, Array, Array]:
    """Return lower and upper bounds, and where to start: at the usual shape, and with narrower and wider, shifted cores."""
    low, high = np.full(n_par, -np.inf), np.full(n_par, np.inf)
    starts = np.zeros((4, n_par))
    for k, kinematics in enumerate(wanted.kinematics):
        first = n_basis + len(wanted.lines) + 5 * k
        centre, width = _shape_priors(kinematics)
        reach = 6 * width[0]
        low[first : first + 5] = centre[0] - reach, centre[1] - 2.2, 0.0, np.log(1.2), -4.0
        high[first : first + 5] = centre[0] + reach, centre[1] + 1.6, 1.0, np.log(6.0), 4.0
        if not kinematics.is_double:
            low[first + 3], high[first + 3] = -1.0, 1.0
        starts[:, first : first + 5] = centre
        starts[1, first + 1] -= 0.6
        starts[2, first + 1] += 0.5
        starts[3, first] -= 1.5 * width[0]
    return low, high, starts
