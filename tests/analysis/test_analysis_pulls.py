"""Lines are recovered within their errors on simulated quasars: pulls of mean 0 and width 1."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from made import Made, make
from scipy.stats import trim_mean

from qad.analysis.complexes import COMPLEXES, Complex
from qad.analysis.fit import ComplexFit, fit_complex
from qad.analysis.lines import line_columns
from qad.analysis.profile import widths

N = 60
CASES = [
    # complex, line, its name in the simulation, redshifts
    ("civ", "civ", "C IV", (1.6, 2.4)),
    ("mgii", "mgii", "Mg II", (0.6, 1.4)),
    ("hbeta", "hbeta", "Hbeta", (0.2, 0.7)),
    ("hbeta", "oiii5008", "[O III]", (0.2, 0.7)),
    ("halpha", "halpha", "Halpha", (0.2, 0.4)),
]


@cache
def measured(name: str, z: tuple[float, float], snr: float) -> tuple[Made, dict[str, np.ndarray]]:
    made = make(N, z, snr, seed=int(100 * snr) + len(name))
    group = next(group for group in COMPLEXES if group.name == name)
    return made, one(made, group)


def one(made: Made, group: Complex) -> dict[str, np.ndarray]:
    """Return the columns of one complex; the others are fitted to nothing."""
    nothing = made.spectra.rows(np.zeros(0, np.int64))
    fits: dict[str, ComplexFit] = {other.name: fit_complex(nothing, other) for other in COMPLEXES}
    fits[group.name] = fit_complex(made.spectra, group)
    with np.errstate(all="ignore"):
        return line_columns(made.spectra, fits)


def check(pull: np.ndarray, bias: float, width: tuple[float, float]) -> None:
    """Pulls centre on 0 within their own error and `bias`, and are about 1 wide."""
    pull = pull[np.isfinite(pull)]
    assert len(pull) >= 25
    robust = 0.5 * float(np.subtract(*np.percentile(pull, [84.13, 15.87])))
    centre = float(trim_mean(pull, 0.1))
    assert abs(centre) < bias + 3 * robust / np.sqrt(len(pull)), f"mean {centre:.2f}, width {robust:.2f}"
    assert width[0] < robust < width[1], f"mean {centre:.2f}, width {robust:.2f}"


@pytest.mark.parametrize("snr", [2.0, 8.0])
@pytest.mark.parametrize(("group", "line", "simulated", "z"), CASES)
def test_flux_width_and_shift_agree_with_the_truth(
    group: str, line: str, simulated: str, z: tuple[float, float], snr: float
) -> None:
    made, columns = measured(group, z, snr)
    wave = next(entry.wave for other in COMPLEXES for entry in other.lines if entry.name == line)
    flux = made.true_flux(wave, simulated)
    check((columns[f"{line}_flux"] - flux) / columns[f"{line}_flux_err"], 0.35, (0.65, 1.45))
    check((columns[f"{line}_ew"] - made.true_ew(simulated)) / columns[f"{line}_ew_err"], 0.45, (0.65, 1.5))
    fwhm, shift = widths(made.true_shape(simulated))
    check((columns[f"{line}_fwhm"] - fwhm) / columns[f"{line}_fwhm_err"], 0.4, (0.6, 1.5))
    check((columns[f"{line}_shift"] - shift) / columns[f"{line}_shift_err"], 0.4, (0.6, 1.5))


def test_what_is_not_there_gets_a_limit_and_no_shape() -> None:
    made = make(40, (1.6, 2.4), 4.0, seed=3)
    flat = made.spectra.flux * 0 + 3.0
    rng = np.random.default_rng(1)
    sigma = np.divide(1, np.sqrt(made.spectra.ivar), out=np.zeros_like(flat), where=made.spectra.ivar > 0)
    group = next(group for group in COMPLEXES if group.name == "civ")
    empty = Made(
        type(made.spectra)(made.spectra.z, flat + sigma * rng.normal(size=flat.shape), made.spectra.ivar),
        [],
        made.scale,
    )
    columns = one(empty, group)
    pull = columns["civ_flux"] / columns["civ_flux_err"]
    assert abs(np.mean(pull)) < 3.5 / np.sqrt(len(pull))
    assert 0.6 < np.std(pull) < 1.4
    assert (np.isfinite(columns["civ_ew_limit"]) == (pull < 3)).all()
    assert (columns["civ_ew_limit"][pull < 3] > 0).all()
    assert np.isnan(columns["civ_fwhm"][pull < 3]).all()
