"""What a spectrum is measured by: one pass over a batch, and one function a view.

Views know different things, and each misses whole classes alone: residuals see troughs, blends and odd profiles; latents see
rare combinations that the model can draw; line strengths see weak, absent and extreme lines that hide in both; the shapes of
known classes see what is faint but of a kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from qad.scoring.evidence import CAMERAS, find_faults, gather_evidence
from qad.scoring.geometry import Geometry
from qad.scoring.instrument import KINDS
from qad.scoring.matched import nothing_found
from qad.scoring.matcher import Matcher
from qad.scoring.population import FeaturePopulation, covariates, mahalanobis2
from qad.scoring.residuals import (
    Batch,
    BoxSums,
    Scatter,
    robust_weight,
    scoring_step,
    significance,
    total_variance,
)
from qad.scoring.shapes import FAMILIES
from qad.scoring.widths import measure_widths

LOCAL_KMS = (1500.0, 20_000.0)
"""Widths whose mean square residuals make up the local view: narrower ones see cosmic rays and narrow absorbers first, broader
ones the continuum, which the latents and slopes know better (measured on simulations: average precision fell by a tenth with all).
"""


@dataclass(frozen=True)
class Measured:
    """What the views need of each spectrum: a few hundred bytes.

    Attributes
    ----------
    z, snr, norm : ndarray, shape (n_spectra,)
    latent : ndarray, shape (n_spectra, n_latent)
    sigma : ndarray, shape (n_spectra, n_scales)
        Strongest residual box of each scale, signed, in units of noise and population scatter.
    wave : ndarray, shape (n_spectra, n_scales)
        Its centre, rest Å.
    mean_square : ndarray, shape (n_spectra, n_scales)
        Mean square of all boxes of a scale.
    chi2_dof, chi2_total : ndarray
        Reduced chi2 with noise alone, and with intrinsic variance.
    n_good : ndarray
        Pixels with ivar > 0.
    width, width_error : ndarray, shape (n_spectra, n_features)
        See :class:`qad.scoring.widths.Widths`.
    evidence : ndarray, shape (n_spectra, n_tests)
        See :func:`qad.scoring.evidence.gather_evidence`.
    is_camera_missing : ndarray of bool
        One of the cameras has no data.
    family, family_best, family_sigma : ndarray, shape (n_spectra, n_families)
        See :class:`qad.scoring.matched.FamilyEvidence`.
    """

    z: np.ndarray
    snr: np.ndarray
    norm: np.ndarray
    latent: np.ndarray
    sigma: np.ndarray
    wave: np.ndarray
    mean_square: np.ndarray
    chi2_dof: np.ndarray
    chi2_total: np.ndarray
    n_good: np.ndarray
    width: np.ndarray
    width_error: np.ndarray
    evidence: np.ndarray
    is_camera_missing: np.ndarray
    family: np.ndarray
    family_best: np.ndarray
    family_sigma: np.ndarray

    def __len__(self) -> int:
        return len(self.z)

    def rows(self, chosen: np.ndarray | slice) -> Measured:
        """Return some rows."""
        return Measured(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @staticmethod
    def join(parts: Sequence[Measured]) -> Measured:
        """Return the rows of all parts."""
        return Measured(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Measured)))

    @property
    def is_finite(self) -> np.ndarray:
        """Which spectra can be scored: everything but widths and families, which may be missing, is finite."""
        needed = (self.z, self.snr, self.norm, self.chi2_dof, self.chi2_total)
        wide = (self.latent, self.sigma, self.mean_square, self.evidence)
        finite = np.all([np.isfinite(values) for values in needed], axis=0)
        return finite & np.all([np.isfinite(values).all(axis=1) for values in wide], axis=0) & (self.n_good > 0)


def measure(
    batch: Batch,
    geometry: Geometry,
    scatters: Sequence[Scatter],
    *,
    z: np.ndarray,
    snr: np.ndarray,
    norm: np.ndarray,
    latent: np.ndarray,
    matcher: Matcher | None = None,
) -> Measured:
    """Measure a batch of spectra; without a matcher no shapes are looked for."""
    good = batch.ivar > 0
    n_good = good.sum(axis=1)
    square = batch.residual**2
    degrees = np.maximum(n_good, 1)
    faults, spike = find_faults(batch, geometry)
    clean = batch.without(faults)
    sigma, wave, mean_square = _strongest_boxes(clean, geometry, scatters)
    widths = measure_widths(clean, geometry)
    n = len(batch.flux)
    shown, fault = matcher.find(clean, z) if matcher else (nothing_found(n, len(FAMILIES)), np.zeros((n, len(KINDS))))
    strongest = np.abs(sigma[:, local_scales([geometry.kms(scatter.width) for scatter in scatters])]).max(axis=1)
    # a fault must explain more than any feature, or any known kind of object, does
    strongest = np.maximum(strongest, np.abs(shown.sigma).max(axis=1))
    return Measured(
        np.asarray(z, float),
        np.asarray(snr, float),
        np.asarray(norm, float),
        np.asarray(latent, float),
        sigma,
        wave,
        mean_square,
        (square * batch.ivar).sum(axis=1) / degrees,
        (square / total_variance(batch)).sum(axis=1) / degrees,
        n_good,
        widths.value.astype(np.float32),
        widths.error.astype(np.float32),
        gather_evidence(batch, geometry, scatters, spike, fault, strongest).astype(np.float32),
        _is_camera_missing(batch, geometry),
        shown.evidence,
        shown.best,
        shown.sigma,
    )


def _is_camera_missing(batch: Batch, geometry: Geometry) -> np.ndarray:
    """Return whether a camera has no data where it alone could have some (the window may begin and end inside it)."""
    loglam = batch.first_observed[:, None] + np.arange(batch.ivar.shape[1])[None, :] * geometry.dloglam
    missing = np.zeros(len(batch.ivar), bool)
    for low, high in CAMERAS:
        inside = (loglam > np.log10(low)) & (loglam < np.log10(high))
        missing |= inside.any(axis=1) & ~(inside & (batch.ivar > 0)).any(axis=1)
    return missing


def _strongest_boxes(
    batch: Batch, geometry: Geometry, scatters: Sequence[Scatter]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sums = BoxSums(batch, robust_weight(batch))
    rows = np.arange(len(batch.flux))
    sigma, wave, square = [], [], []
    for scatter in scatters:
        boxes = sums.boxes(scatter.width, scoring_step(scatter.width))
        deviation = significance(boxes, scatter, batch.rest_start)
        best = np.abs(deviation).argmax(axis=1)
        sigma.append(deviation[rows, best])
        wave.append(geometry.rest_wave(batch.rest_start + boxes.centre[best]))
        filled = np.maximum(np.isfinite(boxes.mean).sum(axis=1), 1)
        square.append((deviation**2).sum(axis=1) / filled)
    strongest, place, mean = (np.stack(values, axis=1).astype(np.float32) for values in (sigma, wave, square))
    return strongest, place, mean


def global_view(measured: Measured) -> np.ndarray:
    """Return ln of the reduced chi2 with total variance."""
    return np.log(measured.chi2_total + 1e-3)


def peak_views(measured: Measured) -> np.ndarray:
    """Return the square of the strongest residual of each scale, (n_spectra, n_scales)."""
    return measured.sigma.astype(float) ** 2


def extent_views(measured: Measured) -> np.ndarray:
    """Return the mean square residual of each scale, (n_spectra, n_scales): one strong deviation, or many moderate ones."""
    return measured.mean_square.astype(float)


def local_scales(windows_kms: Sequence[float]) -> list[int]:
    """Return the scales that make up the local view: those of LOCAL_KMS, or all if none lies there."""
    inside = [index for index, kms in enumerate(windows_kms) if LOCAL_KMS[0] <= kms <= LOCAL_KMS[1]]
    return inside or list(range(len(windows_kms)))


def latent_view(measured: Measured, reference: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Return the squared Mahalanobis distance from spectra of like S/N and redshift.

    Under a local Gaussian this is -2 ln p(h | z, S/N) but for a constant, and unlike a fitted density's it cannot mislead far
    out.
    """
    return mahalanobis2(measured.latent, reference, neighbours)


def line_deviations(measured: Measured, features: Sequence[FeaturePopulation]) -> np.ndarray:
    """Return each feature's signed deviation from the population, sigma, (n_spectra, n_features)."""
    x = covariates(measured.norm, measured.z)
    columns = zip(features, measured.width.T.astype(float), measured.width_error.T.astype(float), strict=True)
    nothing = np.zeros(len(measured))
    return np.stack([f.deviation(value, error, x) if f.is_known else nothing for f, value, error in columns], axis=1)
