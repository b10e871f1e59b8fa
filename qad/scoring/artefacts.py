"""How likely the evidence of :mod:`qad.scoring.evidence` makes an artefact, and the words for it.

The constants were set on simulated releases so that at most a few per cent of real anomalies, and under 1 % of normal spectra,
are called artefacts.
"""

from __future__ import annotations

import numpy as np

MIDDLE = np.array([80.0, 1.0, 12.0, 2.5, 6.0, 0.5, 1.0])
"""Evidence at which a test alone gives probability one half."""
SOFTNESS = np.array([20.0, 0.05, 1.0, 0.35, 1.0, 0.05, 0.05])
"""Evidence over which the odds grow by e."""
WORDS = (
    "single-pixel spike, {:.0f} sigma",
    "step at a camera or amplifier edge, {:.1f} of what tells one from any object",
    "residuals on sky lines, {:.0f} sigma",
    "residual in a band that fails often, {:.1f} sigma above any other",
    "spike in a camera overlap, {:.1f} sigma above any other",
    "one camera noisier than its ivar says, by {:.1f}",
    "dip or bump of the collimator, {:.1f} of what tells it from any object",
)


IS_LOCAL = np.array([1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
"""Whether what a test finds spoils one place only."""
LARGEST_ODDS = 6.0
"""No test counts for more than this in ln odds."""
EXPECTED_STRANGE = 10.0
"""-ln p of latents and lines that a fault alone may cause; what goes beyond it speaks for a real object."""
STRANGE_SOFTNESS = 2.0


def probability(evidence: np.ndarray, strangeness: np.ndarray | None = None) -> np.ndarray:
    """Return an artefact probability, 0 to 1: the chance that at least one test is right, each a logistic of its evidence.

    Parameters
    ----------
    evidence : ndarray, shape (n_spectra, n_tests)
    strangeness : ndarray, shape (n_spectra,), optional
        -ln p of the latent and line views together: an object that is strange all over is not explained by a fault in
        one place.  Steps are exempt, as they bend the whole continuum.
    """
    odds = np.clip((evidence - MIDDLE) / SOFTNESS, -30.0, LARGEST_ODDS)
    if strangeness is not None:
        relief = np.maximum(strangeness - EXPECTED_STRANGE, 0.0) / STRANGE_SOFTNESS
        odds = np.maximum(odds - relief[:, None] * IS_LOCAL, -30.0)
    return 1.0 - np.prod(1.0 / (1.0 + np.exp(odds)), axis=1)


def words(evidence: np.ndarray) -> str:
    """Return the strongest test of one spectrum in words."""
    test = int(np.argmax((evidence - MIDDLE) / SOFTNESS))
    return WORDS[test].format(evidence[test])
