"""The stage `crossmatch`: candidates against catalogues by position, one `matches` table per catalogue, and what they say together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from qad.config import Config
from qad.errors import ConfigError, InputError, QadError, ServiceError
from qad.matching.counterparts import write_counterparts
from qad.matching.plan import CatalogUnit, Settings, UnitReport, plan_units, read_candidates
from qad.matching.service import ask_service, questions
from qad.matching.unit import match_unit
from qad.results import Failure, RunOptions, StageResult, add_counts
from qad.storage.atomic import remove_stale_parts
from qad.work.engine import run_units


def crossmatch(config: Config, options: RunOptions) -> StageResult:
    """Match the candidates of a model with every catalogue of ``crossmatch.catalogs``.

    Raises
    ------
    ConfigError
        If no catalogue is named, or two would be written to one file.
    InputError
        If the model has no scores.
    """
    section = config.crossmatch
    if not section.catalogs:
        raise ConfigError("no catalogue to match with: name one, `qad crossmatch CATALOG`, or set crossmatch.catalogs")
    scores = config.workspace.scores_file(section.name)
    if not scores.is_file():
        raise InputError(scores, f"no scores of model {section.name!r}; `qad score --name {section.name}` makes them")
    n_candidates = len(read_candidates(scores, section.top))
    units = plan_units(config, scores)
    units = list(options.share.of(units)) if options.share else units
    if not options.dry_run:
        remove_stale_parts(config.workspace.matches)
    settings = Settings(config.section("crossmatch"), options.force, options.verify, options.dry_run)
    asked, unanswered = _ask(units, settings, options)
    reports, failures = _match_all(asked, settings, options)
    failures += unanswered
    details: dict[str, Any] = {"catalogs": {name: reports[name].counts for name in sorted(reports)}}
    counts = _sum_counts(n_candidates, list(reports.values()))
    if not options.dry_run and options.share is None:
        output, more = write_counterparts(config, scores)
        details["counterparts"] = None if output is None else str(output)
        counts.update(more)
    done = [report for report in reports.values() if report.is_done]
    return StageResult(
        "crossmatch",
        n_done=len(done),
        n_skipped=len(reports) - len(done),
        failures=tuple(sorted(failures, key=lambda failure: failure.unit)),
        paths=tuple(unit.output for unit in units),
        counts=counts,
        dry_run=options.dry_run,
        details=details,
    )


def _ask(units: list[CatalogUnit], settings: Settings, options: RunOptions) -> tuple[list[CatalogUnit], list[Failure]]:
    """Return the units whose services have answered, with their answers; a service is asked from here, never by workers."""
    asked, failures = [], []
    for unit in units:
        if unit.reference.service == "file":
            asked.append(unit)
            continue
        try:
            if settings.dry_run:  # without a question left, asking only names the answers
                left = questions(unit, settings)
                known = () if left else tuple(ask_service(unit, settings))
                asked.append(replace(unit, n_questions=left, answers=known))
                continue
            options.progress.start(f"asking {unit.reference}", None, "positions")
            answers = ask_service(unit, settings, options.progress.advance)
        except ServiceError as error:
            failures.append(Failure(str(unit), str(error), error.exit_code))
        except QadError as error:
            failures.append(Failure(str(unit), str(error)))
        else:
            asked.append(replace(unit, answers=tuple(answers)))
    return asked, failures


def _match_all(
    units: list[CatalogUnit], settings: Settings, options: RunOptions
) -> tuple[dict[str, UnitReport], list[Failure]]:
    # workers of their own only say when a catalogue is done; here its rows can be watched
    here = options.cluster is None and (options.jobs == 1 or len(units) == 1)
    options.progress.start("crossmatch", None if here else len(units), "rows" if here else "catalogues")
    advance: Callable[[float], None] | None = options.progress.advance if here else None
    work = partial(match_unit, settings=settings, advance=advance)
    reports: dict[str, UnitReport] = {}
    failures = []
    for outcome in run_units(work, units, options.jobs, options.cluster):
        if not here:
            options.progress.advance()
        if outcome.value is None:
            failures.append(Failure(str(outcome.unit), outcome.error or "no result"))
            continue
        reports[outcome.unit.name] = outcome.value
        for note in outcome.value.notes:
            options.progress.note(note)
    return reports, failures


def _sum_counts(n_candidates: int, reports: list[UnitReport]) -> dict[str, float]:
    total: dict[str, float] = {}
    for report in reports:
        add_counts(total, report.counts)
    return {**total, "candidates": n_candidates}
