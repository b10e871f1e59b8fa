"""Noise, masks and missing data are what the inverse variance and DESI's rules say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from qad.simulation import sky, targets
from qad.simulation.instrument import SKY_RESIDUAL, Spectrum, observe
from qad.simulation.recipe import Order
from qad.simulation.rows import Row, make_row

CAMERAS = ("b", "r", "z")


def some_rows(kind: str, count: int, seed: int = 1) -> list[Row]:
    """Return rows of a kind."""
    tiles = targets.draw_tiles(np.random.default_rng(0), 6)
    rows = []
    for i in range(count):
        rngs = np.random.default_rng([seed, i, 0]), np.random.default_rng([seed, i, 1])
        rows.append(make_row(*rngs, Order(kind), targets.Place(150.0, 2.0, i, 0.03), tiles))
    return rows


@pytest.fixture(scope="module")
def quasars() -> list[Row]:
    """Many normal quasars."""
    return some_rows("qso", 220)


def pulls(spectra: list[Spectrum], camera: str, strong: bool) -> np.ndarray:
    """Return (flux - expected) / sigma of unmasked pixels on, or off, strong sky lines."""
    on_line = (sky.line_strength(camera) > 1.0) == strong
    found = []
    for spectrum in spectra:
        use = on_line & (spectrum.ivar[camera] > 0) & (spectrum.mask[camera] == 0)
        found.append(((spectrum.flux[camera] - spectrum.expected[camera]) * np.sqrt(spectrum.ivar[camera]))[use])
    return np.concatenate(found)


@pytest.fixture(scope="module")
def observations() -> list[Spectrum]:
    """Forty observations of a steep spectrum."""
    flux = 3.0 * (sky.WAVE / 5000.0) ** -1.5
    return [observe(flux, np.random.default_rng([4, i]), 1.0 + i % 3) for i in range(40)]


@pytest.mark.parametrize("camera", CAMERAS)
def test_pulls_are_standard_normal_away_from_sky_lines(observations: list[Spectrum], camera: str) -> None:
    values = pulls(observations, camera, strong=False)
    assert values.mean() == pytest.approx(0.0, abs=0.015)
    assert values.std() == pytest.approx(1.0, abs=0.015)
    assert np.mean(np.abs(values) > 4) < 3e-4


def test_sky_residuals_exceed_the_inverse_variance_a_little(observations: list[Spectrum]) -> None:
    assert pulls(observations, "z", strong=True).std() == pytest.approx(1 + SKY_RESIDUAL, abs=0.03)


@pytest.mark.filterwarnings("error")
def test_flux_is_finite_whatever_is_masked() -> None:
    for i in range(150):
        spectrum = observe(np.ones(sky.WAVE.size), np.random.default_rng([77, i]), 0.5)
        for camera in CAMERAS:
            assert np.isfinite(spectrum.flux[camera]).all()
            assert np.isfinite(spectrum.ivar[camera]).all()
            assert (spectrum.ivar[camera] >= 0).all()


def test_more_exposures_mean_less_noise() -> None:
    flux = np.ones(sky.WAVE.size)
    one, four = (observe(flux, np.random.default_rng(2), n) for n in (1.0, 4.0))
    assert np.median(four.ivar["r"] / np.maximum(one.ivar["r"], 1e-9)) == pytest.approx(4.0, rel=0.05)


def test_noise_against_wavelength_is_that_of_a_real_dark_exposure(real_release: Path) -> None:
    """The two faint quasars of fuji sv3/dark/9144 had one exposure of 1000 s."""
    coadd = next(real_release.rglob("coadd-sv3-dark-9144.fits"))
    for camera in CAMERAS:
        wave, ivar = (fits.getdata(coadd, f"{camera.upper()}_{what}") for what in ("WAVELENGTH", "IVAR"))
        sigma = 1 / np.sqrt(np.where(ivar > 0, ivar, np.nan))
        simulated = np.sqrt(sky.sky_variance(camera))
        for low in range(int(wave[0]), int(wave[-1]) - 150, 200):
            inside = (wave >= low) & (wave < low + 200)
            assert np.median(simulated[inside]) == pytest.approx(np.nanmedian(sigma[:, inside]), rel=0.25)


def test_signal_to_noise_is_faint_with_a_bright_tail(quasars: list[Row]) -> None:
    snr = np.array([row.snr_true for row in quasars])
    assert 1.3 < np.median(snr) < 2.6
    assert (snr > 15).any()
    assert np.mean(snr > 15) < 0.1
    assert np.mean(snr < 0.7) < 0.3


def test_masked_pixels_carry_bits_and_almost_always_no_inverse_variance(quasars: list[Row]) -> None:
    masked = kept = total = 0
    for row in quasars:
        for camera in CAMERAS:
            mask, ivar = row.spectrum.mask[camera], row.spectrum.ivar[camera]
            masked, kept = masked + (mask > 0).sum(), kept + ((mask > 0) & (ivar > 0)).sum()
            total += mask.size
            if (ivar > 0).any():  # of a missing camera nothing is masked
                assert np.all(mask[ivar == 0] > 0)
    assert 2e-4 < masked / total < 1e-2
    assert 0 < kept < 0.5 * masked


def test_some_targets_lack_a_camera(quasars: list[Row]) -> None:
    missing = [row for row in quasars if any(not row.spectrum.ivar[camera].any() for camera in CAMERAS)]
    assert 0 < len(missing) < 15
    for row in missing:
        camera = next(camera for camera in CAMERAS if not row.spectrum.ivar[camera].any())
        assert not row.spectrum.flux[camera].any()
        assert not row.spectrum.mask[camera].any()
        harmless_or_poor = 1 << 3 | 1 << 10 | 1 << 12 | 1 << 15
        assert row.fibermap["COADD_FIBERSTATUS"] & ~harmless_or_poor in (0, 1 << {"b": 22, "r": 23, "z": 24}[camera])


def test_dead_fibres_have_no_data_no_mask_and_negative_identifiers() -> None:
    for row in some_rows("dead", 20):
        assert row.targetid < 0
        assert row.fibermap["OBJTYPE"] == ""
        assert row.fibermap["COADD_FIBERSTATUS"] & ~(1 << 3) != 0
        assert row.redshift["ZWARN"] == 1 << 9
        for camera in CAMERAS:
            assert not row.spectrum.ivar[camera].any()
            assert not row.spectrum.mask[camera].any()
            assert not row.spectrum.flux[camera].any()


def test_sky_fibres_have_zwarn_and_sometimes_pretend_to_be_quasars() -> None:
    rows = some_rows("sky", 60)
    assert all(row.redshift["ZWARN"] & 1 and row.fibermap["OBJTYPE"] == "SKY" for row in rows)
    assert {"QSO", "GALAXY"} == {row.redshift["SPECTYPE"] for row in rows}
    values = np.concatenate([row.spectrum.flux["r"] * np.sqrt(row.spectrum.ivar["r"]) for row in rows])
    assert abs(np.median(values)) < 0.02


def test_redrock_finds_quasars_at_their_redshift_and_stars_and_galaxies_as_such(quasars: list[Row]) -> None:
    good = [row for row in quasars if row.redshift["ZWARN"] == 0]
    assert 0.85 < len(good) / len(quasars) < 1.0
    velocity = [299_792.458 * (row.redshift["Z"] - row.z_true) / (1 + row.z_true) for row in good]
    assert 80 < np.std(velocity) < 300
    assert {row.redshift["SUBTYPE"] for row in good} == {"HIZ", "LOZ"}
    assert {row.redshift["SPECTYPE"] for row in some_rows("star", 10)} == {"STAR"}
    assert {row.redshift["SPECTYPE"] for row in some_rows("galaxy", 10) if row.redshift["ZWARN"] == 0} == {"GALAXY"}


def test_photometry_is_that_of_the_spectrum(quasars: list[Row]) -> None:
    for row in [row for row in quasars if row.fibermap["FLUX_R"] > 3]:
        low, high = 5650.0, 7150.0
        wave = sky.camera_wave("r")
        use = (wave > low) & (wave < high)
        if row.spectrum.ivar["r"][use].all():
            fnu = np.mean(row.spectrum.flux["r"][use]) * 6400.0**2 / 2.99792458e18 * 1e-17
            assert row.fibermap["FLUX_R"] == pytest.approx(fnu / 3.631e-29, rel=0.15)


def test_targetids_encode_release_brick_and_object() -> None:
    for row in some_rows("qso", 5):
        assert row.targetid >> 42 == 9010
        assert row.targetid & (1 << 22) - 1 == row.fibermap["BRICK_OBJID"]
        assert (row.targetid >> 22) & (1 << 20) - 1 == row.fibermap["BRICKID"]
        assert str(row.targetid).startswith("3962")
    assert all(row.targetid > 1 << 59 for row in some_rows("sky", 3))


def test_bricks_and_identifiers_are_those_of_real_targets(real_release: Path) -> None:
    coadd = next(real_release.rglob("coadd-sv1-bright-7108.fits"))
    row = fits.getdata(coadd, "FIBERMAP")[0]
    name, number = targets.brick(row["TARGET_RA"], row["TARGET_DEC"])
    assert (name, number) == (row["BRICKNAME"], row["BRICKID"])
    assert targets.encode_targetid(int(row["RELEASE"]), number, int(row["BRICK_OBJID"])) == row["TARGETID"]


def test_scores_are_those_of_the_spectrum(quasars: list[Row]) -> None:
    row = quasars[0]
    for camera in CAMERAS:
        flux, ivar = row.spectrum.flux[camera], row.spectrum.ivar[camera]
        snr = np.median((flux * np.sqrt(ivar))[ivar > 0])
        assert row.scores[f"MEDIAN_COADD_SNR_{camera.upper()}"] == pytest.approx(snr)
    assert row.scores["TSNR2_QSO"] == pytest.approx(sum(row.scores[f"TSNR2_QSO_{camera}"] for camera in "BRZ"))
