"""Everything that is measured on spectra, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qad.analysis.absorption import broad_absorption
from qad.analysis.continuum import luminosities, slopes
from qad.analysis.fit import ComplexFit
from qad.analysis.lines import fit_all, line_columns
from qad.analysis.redshift import alternative_redshifts
from qad.analysis.spectra import Spectra
from qad.desi.templates import Template


def measure_spectra(
    spectra: Spectra, templates: Sequence[Template] = (), fits: dict[str, ComplexFit] | None = None
) -> dict[str, Any]:
    """Return the columns of the `measures` table that come from the spectra alone.

    Parameters
    ----------
    spectra : Spectra
    templates : sequence of Template
        Redrock's, to look for other redshifts with.
    fits : dict, optional
        What :func:`qad.analysis.lines.fit_all` returned for these spectra.

    Returns
    -------
    dict of str to ndarray or list, shape (n,)
        nan or None where not measured.
    """
    fits = fit_all(spectra) if fits is None else fits
    # nan means not measured: arithmetic with it is meant
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            **slopes(spectra),
            **luminosities(spectra, fits),
            **broad_absorption(spectra),
            **alternative_redshifts(spectra, templates),
            **line_columns(spectra, fits),
        }
