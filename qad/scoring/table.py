"""The `scores` table: rows in the order of their rank, every view beside the score."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.schema import SCORES
from qad.scoring import artefacts, rank
from qad.scoring.calibrate import MAIN_VIEWS, Calibration, Scored
from qad.scoring.classes import CLASSES, PREFIX
from qad.scoring.explain import Finding, class_guess, reason
from qad.scoring.views import Measured
from qad.scoring.widths import feature_names
from qad.storage.parquet import make_table

if TYPE_CHECKING:
    import pyarrow as pa

    from qad.settings import Score
    from qad.storage.flatcache import GridCache

NEARLY = 0.8
"""Share of the largest -ln p at which a narrower scale is preferred in words."""
LOWEST_P = 1e-300
"""Smallest p-value that is written: below it a float64 loses digits."""


def build_table(
    cache: GridCache,
    measured: Measured,
    scored: Scored,
    rows: np.ndarray,
    calibration: Calibration,
    settings: Score,
    model: str,
    is_foreign: bool,
) -> tuple[pa.Table, dict[str, float]]:
    """Return the table and counts; `measured` and `scored` hold the grid's `rows`, in that order."""
    chance = artefacts.probability(measured.evidence, -scored.log_p["latent"] - scored.log_p["line"])
    is_artefact = chance >= settings.artefact_threshold
    flags = _flags(cache, measured, scored, rows, calibration, settings.min_population, is_foreign)
    flags |= np.where(is_artefact, np.uint32(rank.ARTEFACT), np.uint32(0))
    scalars = cache.table[rows]
    identity = [scalars[name].to_numpy() for name in ("targetid", "healpix")]
    identity[1:1] = [np.unique(scalars[name].to_list(), return_inverse=True)[1] for name in ("survey", "program")]
    order = rank.order(scored.score, is_artefact, settings.keep_artefacts, *identity)
    best = _best_scale(scored, calibration)
    words = _words(measured, scored, calibration, chance, best, settings.artefact_threshold, order)
    columns: dict[str, Any] = {
        "rank": np.arange(1, len(order) + 1),
        **{name: scalars[name].to_numpy()[order] for name in ("targetid", "healpix", "ra", "dec", "z", "snr")},
        **{name: scalars[name][order].to_list() for name in ("survey", "program")},
        "score": scored.score[order],
        "p_value": _p(scored.log_p_score)[order],
        "artefact": chance[order].astype(np.float32),
        "reason": [text for text, _ in words],
        "class_guess": [guess for _, guess in words],
        "chi2_dof": measured.chi2_dof[order].astype(np.float32),
        "n_good": measured.n_good[order].astype(np.int32),
        "worst_wave_rest": measured.wave[np.arange(len(best)), best][order].astype(np.float32),
        "flags": flags[order],
        "model": [model] * len(order),
        "latent": measured.latent[order].astype(np.float32),
        **_view_columns(measured, scored, calibration, order, is_artefact & (not settings.keep_artefacts)),
    }
    table = make_table(SCORES, columns, n_latent=measured.latent.shape[1])
    counts = {"artefacts": float(is_artefact.sum()), "p_below_0.01": float((scored.log_p_score < math.log(0.01)).sum())}
    return table, counts


def _p(log_p: np.ndarray) -> np.ndarray:
    return np.exp(np.maximum(log_p, math.log(LOWEST_P)))


def _view_columns(
    measured: Measured, scored: Scored, calibration: Calibration, order: np.ndarray, is_artefact: np.ndarray
) -> dict[str, np.ndarray]:
    """Return `view_<name>`, `p_<name>` and `rank_<name>` of the main views, the p-value of each class, and each scale's
    strongest residual, signed, in sigma.
    """
    columns: dict[str, np.ndarray] = {}
    for name in MAIN_VIEWS:
        columns[f"view_{name}"] = scored.raw[name][order]
        columns[f"p_{name}"] = _p(scored.log_p[name])[order]
        # a list of its own for each view: artefacts behind, as in the list of all
        behind = is_artefact[order]
        own = np.lexsort((np.arange(len(order)), scored.log_p[name][order], behind))
        columns[f"rank_{name}"] = np.empty(len(order), np.int64)
        columns[f"rank_{name}"][own] = np.arange(1, len(order) + 1)
    for name in CLASSES:
        columns[f"p_{PREFIX}{name}"] = _p(scored.log_p[PREFIX + name])[order]
    for index, kms in enumerate(calibration.meta["windows_kms"]):
        columns[f"view_local_{kms:.0f}"] = measured.sigma[order, index].astype(np.float32)
        columns[f"p_local_{kms:.0f}"] = _p(scored.log_p[f"local_{kms:.0f}"])[order]
    return columns


def _best_scale(scored: Scored, calibration: Calibration) -> np.ndarray:
    """Return the narrowest scale whose strongest residual is nearly as unlikely as that of the least likely scale.

    A broad box around a trough is as significant as the trough, but says less of where it is.
    """
    names = [f"local_{kms:.0f}" for kms in calibration.meta["windows_kms"]]
    evidence = -np.stack([scored.log_p[name] for name in names], axis=1)
    return np.argmax(evidence >= NEARLY * evidence.max(axis=1, keepdims=True), axis=1)


def _words(
    measured: Measured,
    scored: Scored,
    calibration: Calibration,
    chance: np.ndarray,
    best: np.ndarray,
    threshold: float,
    order: np.ndarray,
) -> list[tuple[str, str | None]]:
    names, kms = feature_names(), np.asarray(calibration.meta["windows_kms"], float)
    found = []
    for i in order:
        finding = Finding(
            {name: float(scored.log_p[name][i]) for name in ("local", "latent", "line")},
            measured.sigma[i],
            measured.wave[i],
            kms,
            int(best[i]),
            names,
            scored.deviation[i],
            measured.width[i],
            float(chance[i]),
            artefacts.words(measured.evidence[i]),
        )
        found.append((reason(finding, threshold), class_guess(finding)))
    return found


def _flags(
    cache: GridCache,
    measured: Measured,
    scored: Scored,
    rows: np.ndarray,
    calibration: Calibration,
    min_population: int,
    is_foreign: bool,
) -> np.ndarray:
    flags = rank.edge_flags(measured.z, calibration.z, rank.REDSHIFT_EDGE)
    flags |= rank.edge_flags(measured.snr, calibration.snr, rank.SNR_EDGE)
    for condition, bit in (
        (measured.n_good < rank.FEW_PIXELS_SHARE * cache.n_obs, rank.FEW_PIXELS),
        (measured.evidence[:, 0] > 0, rank.SPIKE),
        (measured.is_camera_missing, rank.CAMERA_MISSING),
        (scored.score > calibration.highest, rank.EXTRAPOLATED),
        (np.full(len(rows), calibration.n_reference < min_population), rank.SMALL_POPULATION),
        (np.full(len(rows), is_foreign), rank.FOREIGN_CALIBRATION),
    ):
        flags |= np.where(condition, np.uint32(bit), np.uint32(0))
    return flags.astype(np.uint32)
