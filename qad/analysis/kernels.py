"""The least-squares fit of lines and continuum, compiled by Numba; import it where it is used.

Levenberg-Marquardt (Marquardt 1963, J. SIAM 11, 431) with derivatives in closed form.  The parameters of a fit are, in this
order: `n_basis` coefficients of the continuum, `n_lines` fluxes, and five numbers for each kinematics (shift of the core in
km/s, ln sigma of the core in km/s, share of the core, ln of the wing's width over the core's, shift of the wing in
units of the core's sigma).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qad.lines import LIGHT_SPEED_KMS
from qad.work.compiling import compiled, inlined

N_SHAPE = 5
"""Numbers of a kinematics."""
_C = LIGHT_SPEED_KMS
_SQRT_2PI = 2.5066282746310002
_REACH = 6.5
_STEPS = 60
_GAIN = 3e-3
"""A step that lowers chi2 by less is the last."""


@inlined
def _gaussian(x: Any, centre: Any, sigma: Any) -> Any:  # pragma: no cover  (compiled)
    t = (x - centre) / sigma
    return np.exp(-0.5 * t * t) / (_SQRT_2PI * sigma) if abs(t) < _REACH else 0.0


@inlined
def _normal_equations(  # pragma: no cover  (compiled)
    p: Any,
    x: Any,
    y: Any,
    w: Any,
    n_pix: Any,
    basis: Any,
    member: Any,
    spread: Any,
    prior: Any,
    a: Any,
    b: Any,
    g: Any,
    shape: Any,
) -> Any:
    """Fill `a` (half the curvature of chi2) and `b` (half its downward slope) at `p`, and return chi2, priors included."""
    n_basis, n_par = basis.shape[0], p.size
    n_members = member.shape[0]
    n_lines = n_par - n_basis - N_SHAPE * int(prior[2, 0])
    first_shape = n_basis + n_lines
    a[:, :] = 0.0
    b[:] = 0.0
    chi2 = 0.0
    for m in range(n_members):
        k = first_shape + N_SHAPE * int(member[m, 1])
        wave = member[m, 2]
        sigma = np.exp(p[k + 1])
        wide = sigma * np.exp(p[k + 3])
        shape[m, 0] = wave * (1.0 + p[k] / _C)
        shape[m, 1] = wave * sigma / _C
        shape[m, 2] = np.sqrt(shape[m, 1] ** 2 + spread[m])
        shape[m, 3] = wave * (1.0 + (p[k] + p[k + 4] * sigma) / _C)
        shape[m, 4] = wave * wide / _C
        shape[m, 5] = np.sqrt(shape[m, 4] ** 2 + spread[m])
    for i in range(n_pix):
        if w[i] <= 0.0:
            continue
        g[:] = 0.0
        model = 0.0
        for j in range(n_basis):
            g[j] = basis[j, i]
            model += p[j] * basis[j, i]
        for m in range(n_members):
            line, k = n_basis + int(member[m, 0]), first_shape + N_SHAPE * int(member[m, 1])
            wave, ratio = member[m, 2], member[m, 3]
            core = _gaussian(x[i], shape[m, 0], shape[m, 2])
            double = member[m, 4] > 0.0
            wing = _gaussian(x[i], shape[m, 3], shape[m, 5]) if double else 0.0
            if core == 0.0 and wing == 0.0:
                continue
            share = p[k + 2] if double else 1.0
            flux = p[line] * ratio
            value = share * core + (1.0 - share) * wing
            g[line] += ratio * value
            model += flux * value
            s = shape[m, 2]
            d = x[i] - shape[m, 0]
            by_centre = flux * share * core * d / (s * s)
            by_width = flux * share * core * (d * d / (s * s) - 1.0) / s
            g[k] += by_centre * wave / _C
            g[k + 1] += by_width * shape[m, 1] * shape[m, 1] / s
            if double:
                s = shape[m, 5]
                d = x[i] - shape[m, 3]
                by_centre = flux * (1.0 - share) * wing * d / (s * s)
                by_width = flux * (1.0 - share) * wing * (d * d / (s * s) - 1.0) / s
                in_wave = by_width * shape[m, 4] * shape[m, 4] / s
                g[k] += by_centre * wave / _C
                g[k + 1] += by_centre * p[k + 4] * shape[m, 1] + in_wave
                g[k + 2] += flux * (core - wing)
                g[k + 3] += in_wave
                g[k + 4] += by_centre * shape[m, 1]
        r = y[i] - model
        chi2 += w[i] * r * r
        for j in range(n_par):
            if g[j] != 0.0:
                q = w[i] * g[j]
                b[j] += q * r
                for k in range(j + 1):
                    a[j, k] += q * g[k]
    for j in range(n_par):
        r = prior[0, j] - p[j]
        chi2 += prior[1, j] * r * r
        b[j] += prior[1, j] * r
        a[j, j] += prior[1, j]
        for i in range(j):
            a[i, j] = a[j, i]
    return chi2


@inlined
def _solve(a: Any, b: Any, damping: Any, n_free: Any, low: Any, out: Any) -> Any:  # pragma: no cover  (compiled)
    """Solve ``(a + damping diag(a)) out = b`` for the first `n_free` unknowns by Cholesky; False where that fails."""
    for i in range(n_free):
        for j in range(i + 1):
            total = a[i, j]
            if i == j:
                total = total * (1.0 + damping) + 1e-30
            for k in range(j):
                total -= low[i, k] * low[j, k]
            if i == j:
                if not total > 0.0:
                    return False
                low[i, i] = np.sqrt(total)
            else:
                low[i, j] = total / low[j, j]
    for i in range(n_free):
        total = b[i]
        for k in range(i):
            total -= low[i, k] * out[k]
        out[i] = total / low[i, i]
    for i in range(n_free - 1, -1, -1):
        total = out[i]
        for k in range(i + 1, n_free):
            total -= low[k, i] * out[k]
        out[i] = total / low[i, i]
    for i in range(n_free, b.size):
        out[i] = 0.0
    return True


@compiled
def fit_rows(  # pragma: no cover  (compiled)
    x: Any, y: Any, w: Any, count: Any, basis: Any, member: Any, spread: Any, prior: Any, low: Any, high: Any, starts: Any,
    par: Any, cov: Any, chi2: Any, chosen: Any,
) -> None:  # fmt: skip
    """Fit each row.

    Parameters
    ----------
    x, y, w : ndarray, shape (n_rows, n_pix)
        Observed wavelength, flux, and inverse variance; 0: do not use.
    count : ndarray of int, shape (n_rows,)
        Pixels of each row that are filled.
    basis : ndarray, shape (n_rows, n_sets, n_basis, n_pix)
        Alternatives for the basis of the continuum; the one that fits best with a start is taken.
    member : ndarray, shape (n_rows, n_members, 5)
        Line, kinematics, observed wavelength, flux over that of the line, and whether the profile is double.
    spread : ndarray, shape (n_rows, n_members)
        Variance of the instrument's line spread, Å².
    prior : ndarray, shape (n_rows, 3, n_par)
        Centre and inverse variance of the priors; the first number of the third row is the number of kinematics.
    low, high : ndarray, shape (n_par,)
        Bounds.
    starts : ndarray, shape (n_starts, n_par)
        Where to start, of which the shapes count.
    par, cov, chi2, chosen : ndarray, shapes (n_rows, n_par), (n_rows, n_par, n_par), (n_rows,), (n_rows,)
        Receive the parameters, their covariance, chi2 without the priors, and the set that was taken; chi2 is -1 where
        there is no fit.
    """
    n_rows, n_sets = basis.shape[:2]
    n_par = par.shape[1]
    a, b = np.zeros((n_par, n_par)), np.zeros(n_par)
    a_best, b_best = np.zeros((n_par, n_par)), np.zeros(n_par)
    lower, step, g = np.zeros((n_par, n_par)), np.zeros(n_par), np.zeros(n_par)
    shape = np.zeros((member.shape[1], 6))
    p, trial, unit = np.zeros(n_par), np.zeros(n_par), np.zeros(n_par)
    for row in range(n_rows):
        n_linear = n_par - N_SHAPE * int(prior[row, 2, 0])
        n_pix = count[row]
        args = (x[row], y[row], w[row], n_pix)
        best, best_set = np.inf, 0
        for attempt in range(n_sets + starts.shape[0] - 1):
            # all sets with the first start, then the best of them with the other starts
            s = attempt if attempt < n_sets else best_set
            start = 0 if attempt < n_sets else attempt - n_sets + 1
            for j in range(n_par):
                trial[j] = 0.0 if j < n_linear else starts[start, j]
            _normal_equations(trial, *args, basis[row, s], member[row], spread[row], prior[row], a, b, g, shape)
            if not _solve(a, b, 0.0, n_linear, lower, step):
                continue
            for j in range(n_linear):
                trial[j] += step[j]
            value = _normal_equations(trial, *args, basis[row, s], member[row], spread[row], prior[row], a, b, g, shape)
            if value < best:
                best, best_set = value, s
                p[:] = trial
        chi2[row] = -1.0
        if not best < np.inf:
            continue
        rows = basis[row, best_set]
        value = _normal_equations(p, *args, rows, member[row], spread[row], prior[row], a_best, b_best, g, shape)
        damping = 1e-3
        for _ in range(_STEPS):
            if not _solve(a_best, b_best, damping, n_par, lower, step):
                damping = max(10.0 * damping, 1e-6)
                if damping > 1e8:
                    break
                continue
            for j in range(n_par):
                trial[j] = min(max(p[j] + step[j], low[j]), high[j])
            new = _normal_equations(trial, *args, rows, member[row], spread[row], prior[row], a, b, g, shape)
            if new <= value:
                gain = value - new
                value = new
                p[:] = trial
                a_best[:, :] = a
                b_best[:] = b
                damping *= 0.2
                if gain < _GAIN:
                    break
            else:
                damping *= 5.0
                if damping > 1e8:
                    break
        for j in range(n_par):
            par[row, j] = p[j]
            value -= prior[row, 1, j] * (prior[row, 0, j] - p[j]) ** 2
        done = True
        for j in range(n_par):
            unit[:] = 0.0
            unit[j] = 1.0
            done = done and _solve(a_best, unit, 0.0, n_par, lower, step)
            for i in range(n_par):
                cov[row, i, j] = step[i]
        chi2[row] = value if done else -1.0
        chosen[row] = best_set
