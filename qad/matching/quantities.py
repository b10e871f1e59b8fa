"""What counterparts say of a quasar: radio loudness, mid-infrared colours, significance of motion and parallax, velocity differences.

Arrays throughout; what cannot be had is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qad.matching.sky import Floats

SPEED_OF_LIGHT_KMS = 299792.458
RADIO_SLOPE = -0.5
"""f_nu of the radio continuum goes as nu to this (Jiang et al. 2007, ApJ 656, 680; Shen et al. 2011, ApJS 194, 45)."""
RADIO_LOUD = 10.0
"""A quasar with a greater radio loudness is radio loud (Kellermann et al. 1989, AJ 98, 1195)."""
OPTICAL_SLOPE = -0.44
"""f_nu of the continuum goes as nu to this, beyond the bands at hand (Vanden Berk et al. 2001, AJ 122, 549)."""
PARALLAX_ZERO_MAS = -0.017
"""Median parallax of quasars in Gaia EDR3 and DR3 (Lindegren et al. 2021, A&A 649, A4)."""
MJY_PER_NANOMAGGY = 3.631e-3
"""An AB magnitude of 22.5 is one nanomaggy; the zero point is 3631 Jy."""
BANDS: dict[str, tuple[float, float]] = {
    "g": (4810.0, 3.214),
    "r": (6420.0, 2.165),
    "z": (9160.0, 1.211),
    "w1": (33526.0, 0.184),
}
"""Wavelength in Å, and extinction in magnitudes per E(B-V) of SFD, of the Legacy Surveys' bands (legacysurvey.org, DR9 and DR10
catalogue descriptions; DECam filters, rounded to 10 Å; WISE: Wright et al. 2010, AJ 140, 1868)."""
MIN_SNR = 2.0
"""A band counts from this signal-to-noise on."""


def continuum_mjy(photometry: Mapping[str, Floats], z: Floats, wave_rest: float) -> Floats:
    """Return the flux density that is observed of a rest wavelength, from broad bands, corrected for Galactic dust.

    Parameters
    ----------
    photometry : mapping of str to ndarray, shape (n,)
        ``flux_g``, ``flux_r``, ``flux_z``, ``flux_w1`` in nanomaggies, ``flux_ivar_...`` of each, and ``ebv`` in mag.
    z : ndarray, shape (n,)
    wave_rest : float
        Å.

    Returns
    -------
    ndarray, shape (n,)
        mJy.

    Notes
    -----
    log f_nu is linear in log wavelength between the nearest bands on both sides, and beyond the last one f_nu follows
    `OPTICAL_SLOPE`.  Emission lines are in the bands: an error of 10 to 20 %.
    """
    ebv = np.nan_to_num(np.asarray(photometry["ebv"], np.float64))
    target = np.log10(wave_rest * (1.0 + np.asarray(z, np.float64)))
    below_x, below_y = np.full(len(target), -np.inf), np.full(len(target), np.nan)
    above_x, above_y = np.full(len(target), np.inf), np.full(len(target), np.nan)
    for band, (wave, extinction) in BANDS.items():
        flux = np.asarray(photometry[f"flux_{band}"], np.float64)
        snr = flux * np.sqrt(np.asarray(photometry[f"flux_ivar_{band}"], np.float64).clip(0))
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.log10(flux * MJY_PER_NANOMAGGY) + 0.4 * extinction * ebv
            usable = (snr > MIN_SNR) & np.isfinite(y)
        x = np.log10(wave)
        nearer = usable & (x <= target) & (x > below_x)
        below_x, below_y = np.where(nearer, x, below_x), np.where(nearer, y, below_y)
        nearer = usable & (x > target) & (x < above_x)
        above_x, above_y = np.where(nearer, x, above_x), np.where(nearer, y, above_y)
    with np.errstate(invalid="ignore"):
        between = below_y + (above_y - below_y) * (target - below_x) / (above_x - below_x)
        beyond = np.where(np.isfinite(below_x), below_y - OPTICAL_SLOPE * (target - below_x), np.nan)
        before = np.where(np.isfinite(above_x), above_y - OPTICAL_SLOPE * (target - above_x), np.nan)
    found = np.where(np.isfinite(between), between, np.where(np.isfinite(beyond), beyond, before))
    return np.asarray(10.0**found)


def radio_loudness(flux_mjy: Floats, frequency_ghz: Floats, optical_mjy: Floats, z: Floats) -> Floats:
    """Return the ratio of the flux densities at rest 5 GHz (6 cm) and at the rest wavelength of `optical_mjy`.

    Parameters
    ----------
    flux_mjy, frequency_ghz : ndarray, shape (n,)
        What a radio survey observed, and where.
    optical_mjy : ndarray, shape (n,)
        :func:`continuum_mjy` at 2500 Å (Jiang et al. 2007; Shen et al. 2011) or 4400 Å (Kellermann et al. 1989).
    z : ndarray, shape (n,)

    Notes
    -----
    R = f_nu(5 GHz) / f_nu(optical), both in the rest frame; f_nu at rest nu is observed at nu / (1 + z), and the factor 1 + z of
    the two flux densities cancels.  From the observed to the wanted frequency with `RADIO_SLOPE`.
    """
    wanted_ghz = 5.0 / (1.0 + z)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(flux_mjy * (wanted_ghz / frequency_ghz) ** RADIO_SLOPE / optical_mjy)


def motion_significance(pmra: Floats, pmra_err: Floats, pmdec: Floats, pmdec_err: Floats, corr: Floats) -> Floats:
    """Return how many sigma a proper motion is from none: the root of mu^T C^-1 mu.

    C is the covariance of the two components (Gaia Collaboration, Klioner et al. 2022, A&A 667, A148, who take less than 5
    for a quasar).  An unknown correlation counts as 0.
    """
    corr = np.nan_to_num(corr).clip(-0.999999, 0.999999)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = pmra / pmra_err, pmdec / pmdec_err
        return np.asarray(np.sqrt((x**2 - 2 * corr * x * y + y**2) / (1 - corr**2)))


def parallax_significance(parallax: Floats, error: Floats) -> Floats:
    """Return how many sigma a Gaia parallax is from that of a quasar, mas both (same source, with `PARALLAX_ZERO_MAS`)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((parallax - PARALLAX_ZERO_MAS) / error)


def colour(first: Floats, first_err: Floats, second: Floats, second_err: Floats) -> tuple[Floats, Floats]:
    """Return the difference of two magnitudes and its error; NaN unless both are measured (a limit has no error)."""
    error = np.hypot(first_err, second_err)
    return np.where(np.isfinite(error), first - second, np.nan), error


def velocity_difference_kms(z: Floats, z_known: Floats) -> Floats:
    """Return c (z - z_known) / (1 + z_known), km/s."""
    return np.asarray(SPEED_OF_LIGHT_KMS * (z - z_known) / (1.0 + z_known))
