"""Everything that looks for known shapes in spectra: those of objects in the rest frame, those of faults in the observed frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qad.scoring.geometry import Geometry
from qad.scoring.instrument import fault_amplitudes, fault_sigma, fit_fault_spread
from qad.scoring.matched import Amplitudes, FamilyEvidence, amplitudes, family_evidence, fit_spread, rest_loading
from qad.scoring.residuals import Batch
from qad.scoring.shapes import Bank, bank


@dataclass(frozen=True)
class ShapeSpread:
    """What normal spectra do: tau^2 of the amplitude of each shape of objects, and of faults by redshift."""

    objects: np.ndarray
    faults: np.ndarray


@dataclass(frozen=True)
class Projector:
    """Finds amplitudes of shapes: what :class:`Matcher` needs before a population is known.

    Attributes
    ----------
    geometry : Geometry
    bank : Bank
    loading : ndarray, shape (n_bins, n_latent)
    """

    geometry: Geometry
    bank: Bank
    loading: np.ndarray

    @classmethod
    def of(cls, geometry: Geometry, loading: np.ndarray) -> Projector:
        """Return the projector for a grid and a model's factors, (n_rest, n_latent)."""
        shapes = bank(geometry)
        return cls(geometry, shapes, rest_loading(loading, geometry, shapes.bin_pixels))

    def amplitudes(self, batch: Batch) -> tuple[Amplitudes, Amplitudes]:
        """Return the amplitudes of objects' and of faults' shapes in a batch whose single bad pixels are masked."""
        found = amplitudes(batch, self.bank, self.loading)
        return found, fault_amplitudes(batch, self.geometry, self.loading, self.bank.bin_pixels)


def fit_shape_spread(objects: Sequence[Amplitudes], faults: Sequence[Amplitudes], z: np.ndarray) -> ShapeSpread:
    """Return the spread of a population."""
    return ShapeSpread(fit_spread(objects), fit_fault_spread(faults, z))


@dataclass(frozen=True)
class Matcher:
    """Finds shapes in spectra, in units of noise and of what normal spectra do."""

    projector: Projector
    spread: ShapeSpread

    def find(self, batch: Batch, z: np.ndarray) -> tuple[FamilyEvidence, np.ndarray]:
        """Return the evidence of every family of objects, and how strongly each kind of fault shows, sigma."""
        objects, faults = self.projector.amplitudes(batch)
        evidence = family_evidence(objects, self.projector.bank, self.spread.objects)
        return evidence, fault_sigma(faults, self.projector.geometry, z, self.spread.faults)
