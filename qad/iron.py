"""The pseudo-continuum of iron, and the Balmer continuum.

Strong multiplets of Fe II and Fe III stand at their laboratory wavelengths (Vestergaard & Wilkes 2001, ApJS 134, 1;
Veron-Cetty, Joly & Veron 2004, A&A 417, 515; rounded); a thousand weak lines, the same for ever, fill the space between.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qad.lines import LIGHT_SPEED_KMS
from qad.profiles import FWHM_PER_SIGMA, add_gaussian, planck

Array = NDArray[np.float64]

UV_RANGE = (2200.0, 2650.0)
OPTICAL_RANGE = (4434.0, 4684.0)
_UV_LINES = ((1785.0, 2.0), (1895.5, 2.2), (1914.1, 2.2), (1926.3, 1.6), (2062.2, 2.5), (2068.9, 2.0), (2079.7, 1.6),
             (2249.9, 3.0), (2260.8, 3.0), (2328.1, 4.0), (2344.2, 6.0), (2365.0, 5.0), (2374.5, 5.5), (2382.8, 8.0),
             (2396.0, 7.0), (2405.6, 6.0), (2413.0, 5.0), (2439.3, 4.0), (2484.0, 5.0), (2493.0, 4.0), (2507.0, 5.0),
             (2527.0, 4.0), (2550.0, 4.0), (2563.0, 5.0), (2586.6, 5.5), (2600.2, 8.0), (2612.6, 6.0), (2626.0, 5.0),
             (2715.0, 3.0), (2740.3, 3.5), (2756.0, 4.0), (2880.0, 2.0), (2926.6, 3.5), (2954.0, 3.5), (2985.0, 2.5),
             (3003.5, 2.0), (3155.0, 1.5), (3187.0, 2.5), (3211.0, 2.0), (3278.0, 1.5))  # fmt: skip
_OPTICAL_LINES = ((4178.0, 1.5), (4233.2, 3.0), (4296.6, 1.5), (4303.2, 1.8), (4351.8, 2.0), (4385.4, 1.5),
                  (4490.7, 2.0), (4492.7, 1.5), (4509.5, 3.0), (4516.6, 2.5), (4521.5, 2.5), (4523.9, 3.5),
                  (4550.8, 4.0), (4557.2, 2.5), (4577.6, 1.5), (4585.1, 4.5), (4621.8, 1.0), (4630.6, 3.5),
                  (4668.1, 1.0), (4925.3, 5.0), (5019.8, 6.0), (5170.5, 6.0), (5199.0, 3.0), (5236.1, 3.5),
                  (5266.3, 2.0), (5277.5, 4.5), (5285.6, 1.5), (5318.1, 5.0), (5326.9, 1.5), (5364.4, 3.0),
                  (5415.6, 1.5), (5426.8, 1.8), (5536.4, 2.0), (6149.9, 1.0), (6240.0, 1.2), (6249.2, 1.2),
                  (6418.7, 1.0), (6458.2, 1.5))  # fmt: skip
"""Wavelength, Å (vacuum), and relative strength."""
_UV_HUMPS = ((1830.0, 110.0, 14.0), (2070.0, 65.0, 36.0), (2290.0, 120.0, 150.0), (2480.0, 110.0, 200.0), (2600.0, 90.0, 40.0),
             (2920.0, 80.0, 140.0), (2990.0, 40.0, 10.0), (3190.0, 110.0, 45.0))  # fmt: skip
_OPTICAL_HUMPS = (
    (4180.0, 110.0, 12.0),
    (4560.0, 75.0, 34.0),
    (5000.0, 100.0, 10.0),
    (5300.0, 140.0, 52.0),
    (6300.0, 200.0, 8.0),
)
"""Where the weak lines are: centre, width, Å, and their summed strength."""
_N_WEAK = 150
_WIDTHS = (900.0, 1500.0, 2300.0, 3500.0, 5000.0, 7500.0, 11_000.0)
"""Widths, km/s, for which the templates are ready; between them they are interpolated."""
_STEP = 2e-4
_LOG_WAVE: Array = np.arange(np.log(1500.0), np.log(7300.0), _STEP)


@lru_cache(maxsize=1)
def _templates() -> tuple[Array, Array]:
    """Return the ultraviolet and optical templates, shape (n_widths, n_wave), each of equivalent width 1 Å in its range."""
    wave = np.exp(_LOG_WAVE)
    uv = _sharp(wave, _UV_LINES, _UV_HUMPS, seed=26)
    optical = _sharp(wave, _OPTICAL_LINES, _OPTICAL_HUMPS, seed=56)
    return _broadened(wave, uv, UV_RANGE), _broadened(wave, optical, OPTICAL_RANGE)


def _sharp(
    wave: Array, lines: tuple[tuple[float, float], ...], humps: tuple[tuple[float, float, float], ...], seed: int
) -> Array:
    rng = np.random.default_rng(seed)
    flux = np.zeros_like(wave)
    for centre, strength in lines:
        add_gaussian(flux, wave, centre, centre * 250.0 / LIGHT_SPEED_KMS, strength)
    for centre, width, strength in humps:
        shares = rng.exponential(1.0, _N_WEAK)
        for place, share in zip(rng.normal(centre, width, _N_WEAK), shares / shares.sum(), strict=True):
            add_gaussian(flux, wave, float(place), place * 250.0 / LIGHT_SPEED_KMS, float(share * strength))
    return flux


def _broadened(wave: Array, sharp: Array, limits: tuple[float, float]) -> Array:
    from scipy.ndimage import gaussian_filter1d

    inside = (wave > limits[0]) & (wave < limits[1])
    rows = []
    for width in _WIDTHS:
        flux = gaussian_filter1d(sharp, width / (FWHM_PER_SIGMA * LIGHT_SPEED_KMS * _STEP), mode="constant")
        rows.append(flux / np.trapezoid(flux[inside], wave[inside]))
    return np.array(rows)


def iron(wave_rest: Array, fwhm: float, ew_uv: float, ew_optical: float) -> Array:
    """Return the iron emission over the continuum.

    Parameters
    ----------
    wave_rest : ndarray
        Å.
    fwhm : float
        Width of each line, km/s.
    ew_uv, ew_optical : float
        Equivalent widths, Å, in :data:`UV_RANGE` and :data:`OPTICAL_RANGE`.
    """
    widths = np.log(_WIDTHS)
    place = float(np.clip(np.interp(np.log(fwhm), widths, np.arange(widths.size)), 0, widths.size - 1.0001))
    i, share = int(place), place % 1
    uv, optical = _templates()
    mixed = sum(ew * ((1 - share) * rows[i] + share * rows[i + 1]) for ew, rows in ((ew_uv, uv), (ew_optical, optical)))
    return np.interp(np.log(wave_rest), _LOG_WAVE, mixed, left=0.0, right=0.0)


@lru_cache(maxsize=1)
def _balmer_table() -> tuple[Array, Array]:
    wave = np.arange(1500.0, 4200.0, 1.0)
    depth = 1.0 - np.exp(-((wave / 3646.0) ** 3))
    flux = np.where(wave <= 3646.0, planck(wave, 15_000.0) * depth, 0.0)
    flux /= flux[wave <= 3646.0][-1]
    # above the edge the high Balmer lines crowd and fade within 300 Å
    flux = np.where(wave > 3646.0, np.exp(-(wave - 3646.0) / 90.0), flux)
    kernel = np.exp(-0.5 * (np.arange(-60, 61) / 20.0) ** 2)
    return wave, np.convolve(np.pad(flux, 60, mode="edge"), kernel / kernel.sum(), mode="valid")


def balmer_continuum(wave_rest: Array) -> Array:
    """Return the Balmer continuum, 1 at its edge: a black body of 15000 K of optical depth 1 (Grandi 1982, ApJ 255, 25)."""
    wave, flux = _balmer_table()
    return np.interp(wave_rest, wave, flux, left=0.0, right=0.0)
