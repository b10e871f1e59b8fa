"""From a unit of `crossmatch` to the questions that its service is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qad.matching.plan import CatalogUnit, Settings, read_candidates
from qad.matching.references import reference_preset
from qad.matching.remote import Answers, Patience, Service
from qad.matching.tap import Tap
from qad.matching.xmatch import XMatch


def asked_radius(unit: CatalogUnit, settings: Settings) -> float:
    """Return how far around each candidate its service is asked, arcsec: far enough to measure the density."""
    return max(float(settings.section["annulus_arcsec"]), 2.0 * unit.radius_arcsec)


def ask_service(unit: CatalogUnit, settings: Settings, advance: Callable[[float], None] | None = None) -> list[Path]:
    """Return the files with what the service of a unit says about all candidates; see :meth:`Answers.fetch`."""
    candidates = read_candidates(unit.scores, settings.section["top"])
    answers = _answers(unit, settings)
    return answers.fetch(candidates["ra"].to_numpy(), candidates["dec"].to_numpy(), settings.force, advance)


def questions(unit: CatalogUnit, settings: Settings) -> int:
    """Return how many questions the service of a unit would be asked now."""
    candidates = read_candidates(unit.scores, settings.section["top"])
    return _answers(unit, settings).missing(candidates["ra"].to_numpy(), candidates["dec"].to_numpy())


def _answers(unit: CatalogUnit, settings: Settings) -> Answers:
    section = settings.section
    return Answers(_service(unit, settings), unit.folder, Patience(section["retries"], section["chunk"]))


def _service(unit: CatalogUnit, settings: Settings) -> Service:
    section, reference = settings.section, unit.reference
    radius = asked_radius(unit, settings)
    if reference.service == "xmatch":
        return XMatch(section["xmatch_url"], reference.table, radius, section["timeout_s"])
    url = section["tap_url"] if section["tap_url"] and reference_preset(reference) is not None else reference.url
    return Tap(url, reference.table, radius, section["timeout_s"], settings.wanted(reference))
