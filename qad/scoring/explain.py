"""One line that a person can check, and a first guess at the class, for every candidate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qad.lines import EMISSION_LINES, LIGHT_SPEED_KMS, Line, nearest_line

STRONG_SIGMA = 3.0
"""Deviations above this are named."""
OUTFLOW_LINES = ("C IV", "Si IV", "Mg II", "N V")
MAX_OUTFLOW_KMS = 30_000.0
OIII_4960 = Line("[O III] 4960", 4960.30, 3.5, 4940.0, 4975.0, False)
"""The weaker line of the doublet, whose place would otherwise read as a shift of the stronger."""
NARROW_NAMES = ("[Ne V]", "[O II]", "[Ne III]", "[O III]")
FAR_KMS = 6000.0
"""Beyond this velocity a residual is told by its wavelength: iron bumps are wider than a velocity means anything."""
BLUE_SIDE = 700.0
"""A trough this far to the blue of a line, km/s, is absorption by an outflow rather than a weak line."""


@dataclass(frozen=True)
class Finding:
    """What is known of one spectrum.

    Attributes
    ----------
    log_p : dict of str to float
        ln p of ``local``, ``latent``, ``line``.
    sigma, wave, kms : ndarray, shape (n_scales,)
        Strongest residual of each scale: signed significance, centre (rest Å), width.
    best : int
        The scale that deviates most.
    names : sequence of str
        Line features.
    deviation, value : ndarray, shape (n_features,)
    artefact : float
    artefact_reason : str
    """

    log_p: dict[str, float]
    sigma: np.ndarray
    wave: np.ndarray
    kms: np.ndarray
    best: int
    names: Sequence[str]
    deviation: np.ndarray
    value: np.ndarray
    artefact: float = 0.0
    artefact_reason: str = ""

    @property
    def leading(self) -> str:
        """The view that is least likely by chance."""
        return min(("local", "line", "latent"), key=lambda name: self.log_p.get(name, 0.0))


def reason(finding: Finding, threshold: float = 0.5) -> str:
    """Return what drives the score: the leading view's evidence, then the next one's if it is strong too."""
    parts = {"local": residual_words(finding), "line": line_words(finding), "latent": latent_words(finding)}
    ranked = sorted(parts, key=lambda name: finding.log_p.get(name, 0.0))
    shown = [parts[ranked[0]]]
    shown += [parts[name] for name in ranked[1:] if finding.log_p.get(name, 0.0) < math.log(0.01)][:1]
    if finding.artefact >= threshold and finding.artefact_reason:
        shown.insert(0, f"probable artefact: {finding.artefact_reason}")
    return "; ".join(shown)


def residual_words(finding: Finding) -> str:
    """Return the strongest residual in words: sign, place, significance, width."""
    sigma, wave, kms = (float(values[finding.best]) for values in (finding.sigma, finding.wave, finding.kms))
    kind = "excess" if sigma > 0 else "deficit"
    width = f"{abs(sigma):.1f} sigma, {kms:.0f} km/s wide"
    if kms > 15_000:
        return f"continuum {kind} near {wave:.0f} Å, {width}"
    line, velocity = place(wave, sigma < 0)
    is_far = line is not None and abs(velocity) > FAR_KMS and line.name not in OUTFLOW_LINES
    if line is None or is_far:
        return f"{kind} at {wave:.0f} Å, {width}"
    if sigma < 0 and line.name in OUTFLOW_LINES and velocity < -BLUE_SIDE and kms >= 900:
        return f"broad absorption {-velocity:.0f} km/s blueward of {line.name}, {width}"
    if abs(velocity) < BLUE_SIDE:
        return f"{kind} at {line.name}, {width}"
    side = "blueward" if velocity < 0 else "redward"
    return f"{kind} {abs(velocity):.0f} km/s {side} of {line.name}, {width}"


def place(wave: float, is_absorption: bool) -> tuple[Line | None, float]:
    """Return the line that a rest wavelength belongs to, and the velocity from it, km/s, negative to the blue.

    Absorption belongs to the outflow line redward of it, within 30,000 km/s; everything else to the line whose region holds it.
    """
    found = nearest_line(wave)
    if abs(velocity_of(wave, OIII_4960)) < BLUE_SIDE:
        return OIII_4960, velocity_of(wave, OIII_4960)
    if is_absorption:
        outflows = [line for line in EMISSION_LINES if line.name in OUTFLOW_LINES]
        near = [line for line in outflows if -MAX_OUTFLOW_KMS < velocity_of(wave, line) < -BLUE_SIDE]
        is_own = found is not None and found.name not in OUTFLOW_LINES and found.ew > 5
        if near and not is_own:
            found = min(near, key=lambda line: abs(velocity_of(wave, line)))
    return found, 0.0 if found is None else velocity_of(wave, found)


def velocity_of(wave: float, line: Line) -> float:
    """Return the velocity of a rest wavelength from a line, km/s, negative to the blue."""
    return (wave / line.wave - 1.0) * LIGHT_SPEED_KMS


def line_words(finding: Finding) -> str:
    """Return the line features that deviate most, in words."""
    order = np.argsort(-np.abs(finding.deviation))
    chosen = [i for i in order[:3] if abs(finding.deviation[i]) >= STRONG_SIGMA] or [int(order[0])]
    words = [feature_words(finding.names[i], float(finding.value[i]), float(finding.deviation[i])) for i in chosen]
    return ", ".join(words)


def feature_words(name: str, value: float, deviation: float) -> str:
    """Return one line feature in words."""
    kind, _, what = name.partition(":")
    tail = f"({deviation:+.1f} sigma)"
    if kind == "ew":
        return f"{'strong' if deviation > 0 else 'weak'} {what}, EW {value:.1f} Å {tail}"
    if kind == "peak":
        return f"{'narrow' if deviation > 0 else 'broad'} {what} {tail}"
    blue, _, red = what.partition("-")
    return f"{'red' if deviation > 0 else 'blue'} continuum {blue}-{red} Å {tail}"


def latent_words(finding: Finding) -> str:
    """Return the latent view in words."""
    return f"rare combination of features (latent p {math.exp(max(finding.log_p.get('latent', 0.0), -690.0)):.0e})"


def class_guess(finding: Finding) -> str | None:
    """Return the class that simple rules suggest, None when nothing stands out (p of every view above 1 %)."""
    if min(finding.log_p.get(name, 0.0) for name in ("local", "latent", "line")) > math.log(0.01):
        return None
    deviation = dict(zip(finding.names, finding.deviation, strict=True))
    ew = {name.partition(":")[2]: float(d) for name, d in deviation.items() if name.startswith("ew:")}
    slopes = [float(d) for name, d in deviation.items() if name.startswith("slope:")]
    sigma, wave, kms = (float(values[finding.best]) for values in (finding.sigma, finding.wave, finding.kms))
    line, velocity = place(wave, sigma < 0)
    is_trough = line is not None and line.name in OUTFLOW_LINES and velocity < -BLUE_SIDE and 900 <= kms < 15_000
    if sigma < -4 and is_trough and finding.log_p.get("local", 0.0) < math.log(0.01):
        return "LoBAL" if line is not None and line.name == "Mg II" else "BAL"
    if ew.get("N III]", 0) > 3:
        return "N-rich"
    if sorted(ew.get(name, 0.0) for name in NARROW_NAMES)[-2] > 3:
        return "narrow-line"
    if slopes and max(slopes) > 4:
        return "reddened"
    main = [ew[name] for name in ("Lya", "C IV", "C III]", "Mg II", "Hbeta", "Halpha") if ew.get(name)]
    if main and max(main) < -1 and min(main) < -2:
        return "weak-line"
    if max(ew.get("Fe II UV", 0), ew.get("Fe II blue", 0)) > 3:
        return "strong Fe II"
    if slopes and max(slopes) > 3:
        return "reddened"
    if main and max(main, key=abs) > 3:
        return "strong-line"
    return "unusual"
