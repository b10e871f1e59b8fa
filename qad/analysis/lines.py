"""From the fits of the complexes to columns: flux, equivalent width, FWHM and shift of every line, with errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qad.analysis.complexes import COMPLEXES, Complex
from qad.analysis.fit import DETECTED, ComplexFit, fit_complex
from qad.analysis.profile import widths_with_errors
from qad.analysis.spectra import Spectra

Array = NDArray[np.float64]

SHAPE_SNR = 5.0
"""Width and shift are told for lines of at least this signal-to-noise."""
CONTINUUM_SNR = 3.0
"""An equivalent width is told over a continuum of at least this signal-to-noise."""


def fit_all(spectra: Spectra) -> dict[str, ComplexFit]:
    """Return the fit of every complex by its name."""
    return {group.name: fit_complex(spectra, group) for group in COMPLEXES}


def leads(group: Complex, line: int) -> bool:
    """Return whether a line is the one that its profile's width and shift are told of: the first that has it."""
    kinematics = [entry.kinematics for entry in group.lines]
    return kinematics.index(kinematics[line]) == line


def line_columns(spectra: Spectra, fits: dict[str, ComplexFit]) -> dict[str, Array]:
    """Return the columns of the lines, shape (n,) each, nan where not measured.

    For a line `x`: ``x_flux`` (1e-17 erg/s/cm2, observed, corrected for Galactic dust), ``x_ew`` (rest Å, positive in emission),
    ``x_fwhm`` (km/s, the instrument's spread taken off), ``x_shift`` (km/s, half-flux velocity from the catalogue redshift,
    negative towards us), each with ``_err``; ``x_ew_limit``: the 3 sigma upper limit of the width where the flux is below 3
    sigma.  Lines that share a profile have one width and shift, those of the first.
    """
    found: dict[str, Array] = {}
    for group in COMPLEXES:
        fit = fits[group.name]
        column = np.full(len(spectra), np.nan)
        column[fit.index] = np.where(fit.chi2 >= 0, fit.chi2 / fit.dof, np.nan)
        found[f"{group.name}_fit_chi2"] = column
        for i, line in enumerate(group.lines):
            if line.is_reported:
                for name, values in _measured(fit, i).items():
                    column = np.full(len(spectra), np.nan)
                    column[fit.index] = values
                    found[f"{line.name}_{name}"] = column
    return found


def _measured(fit: ComplexFit, i: int) -> dict[str, Array]:
    line, place = fit.complex.lines[i], fit.n_basis + i
    good = fit.covered[:, i] & (fit.chi2 >= 0)
    flux = fit.par[:, place]
    error = np.sqrt(np.maximum(fit.cov[:, place, place], 0.0))
    ew, ew_err = _equivalent_width(fit, place, line.wave)
    is_weak = flux < DETECTED * error
    columns = {
        "flux": flux,
        "flux_err": error,
        "ew": ew,
        "ew_err": ew_err,
        "ew_limit": np.where(is_weak, np.maximum(ew, 0.0) + DETECTED * ew_err, np.nan),
    }
    if leads(fit.complex, i):
        part = fit.shape_slice(line.kinematics)
        shape = widths_with_errors(fit.par[:, part], fit.cov[:, part, part])
        clear = fit.is_free[:, line.kinematics] & (flux > SHAPE_SNR * error)
        for name, values in zip(("fwhm", "fwhm_err", "shift", "shift_err"), shape, strict=True):
            columns[name] = np.where(clear, values, np.nan)
    return {name: np.where(good, values, np.nan) for name, values in columns.items()}


def _equivalent_width(fit: ComplexFit, place: int, wave: float) -> tuple[Array, Array]:
    """Return the rest equivalent width and its error, that of the continuum and their covariance included."""
    level, sigma = fit.continuum(np.full(len(fit.index), wave))
    level = np.where(level > CONTINUUM_SNR * sigma, level, np.nan)
    ew = fit.par[:, place] / (level * (1 + fit.z))
    terms = fit.continuum_terms(np.full(len(fit.index), wave))
    n = terms.shape[1]
    gradient = np.zeros((len(fit.index), n + 1))
    gradient[:, :n] = -(ew / level)[:, None] * terms
    gradient[:, n] = 1 / (level * (1 + fit.z))
    chosen = [*range(n), place]
    cov = fit.cov[:, chosen][:, :, chosen]
    return ew, np.sqrt(np.maximum(np.einsum("ni,nij,nj->n", gradient, cov, gradient), 0.0))
