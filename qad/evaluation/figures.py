"""The figures of an evaluation, as one JSON document.

``qad evaluate`` writes it to ``evaluation/<name>.json``::

    format          1
    mode            "planted": copies of held-out spectra with something planted; "truth": the scores themselves, against a truth
    n               spectra in the list, normal, anomalies, artefacts, bases, lost (planted, but not scored)
    settings        what was asked for
    ranking         auroc, ap, precision_at_<k>, artefacts_in_<k>, snr_correlation: each {"value", "error"}
    completeness    list of {"by", "cell", "n", "fpr_0.001", "fpr_0.01", "top_<k>"}, the criteria each {"value", "error"};
                    "by" is all, class, strength, snr, z, or class and strength
    false_positives list of {"snr", "z", "n", "rate", "error"}: share of p_value < 0.01 among spectra without a plant
    artefacts       called: share of planted artefacts that are called so, in all and by kind; anomalies_called: share of
                    anomalies that are
    inputs          SHA-256 of what it was made from

A figure that cannot be told is null.  ``error`` is a standard error, by 200 bootstrap draws (fewer above 100,000 spectra).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from qad.evaluation.judged import Bootstrap, Judged, Measure, Ranking, snr_correlation

FORMAT = 1
SNR_EDGES = (0.0, 1.0, 2.0, 4.0, 8.0, math.inf)
"""Bands of the median S/N per 0.8 Å pixel."""
Z_EDGES = (0.0, 1.0, 1.6, 2.1, 2.6, math.inf)
"""Bands of redshift: Mg II, C IV, Lyman alpha and the forest come into DESI's window one after another."""
NOMINAL = 0.01
MIN_CELL = 50
"""Fewer spectra do not measure a false-positive rate of 1 %."""
N_DRAWS, DRAWN_ROWS = 200, 20_000_000


def document(judged: Judged, tops: Sequence[int], seed: int) -> dict[str, Any]:
    """Return ranking, completeness, false positives and artefacts of judged spectra."""
    n_draws = int(np.clip(DRAWN_ROWS // max(len(judged), 1), 25, N_DRAWS))
    boot = Bootstrap(judged, n_draws, seed)
    n_list = float(judged.weight.sum())
    usable = [k for k in tops if k <= n_list]
    return {
        "ranking": _ranking(boot, usable),
        "completeness": _completeness(boot, usable),
        "false_positives": _false_positives(boot),
        "artefacts": _artefacts(boot),
    }


def as_json(measure: Measure) -> dict[str, float | None]:
    """Return a figure as JSON: nan is null."""
    return {"value": _number(measure.value), "error": _number(measure.error)}


def _number(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _ranking(boot: Bootstrap, tops: Sequence[int]) -> dict[str, Any]:
    judged = boot.judged
    found: dict[str, Any] = {
        "auroc": as_json(boot.measure(lambda ranking, weight: ranking.auroc(weight))),
        "ap": as_json(boot.measure(lambda ranking, weight: ranking.average_precision(weight))),
    }
    for k in tops:
        for name, members in (("precision_at", judged.is_anomaly), ("artefacts_in", judged.is_artefact)):
            share = partial(Ranking.share_of_first, members=members, k=k)
            found[f"{name}_{k}"] = as_json(boot.measure(share))
    found["snr_correlation"] = as_json(snr_correlation(boot))
    return found


def bands(values: np.ndarray, edges: Sequence[float]) -> dict[str, np.ndarray]:
    """Return, by the name of each band, which values lie in it; the first and the last band are open."""
    return {
        f"{low:g}-{high:g}" if math.isfinite(high) else f">{low:g}": np.asarray(
            ((values >= low) | (low == edges[0])) & (values < high)
        )
        for low, high in itertools.pairwise(edges)
    }


def cells(judged: Judged) -> dict[tuple[str, str], np.ndarray]:
    """Return the sets of anomalies whose completeness is told, by (kind of cell, name)."""
    found: dict[tuple[str, str], np.ndarray] = {("all", "all"): judged.is_anomaly}
    classes = [str(name) for name in np.unique(judged.anomaly[judged.is_anomaly])]
    levels = _levels(judged)
    found |= {("class", name): judged.anomaly == name for name in classes}
    found |= {("strength", name): judged.is_anomaly & which for name, which in levels.items()}
    for by, values, edges in (("snr", judged.snr, SNR_EDGES), ("z", judged.z, Z_EDGES)):
        found |= {(by, name): judged.is_anomaly & which for name, which in bands(values, edges).items()}
    for name, (level, which) in itertools.product(classes, levels.items()):
        found["class and strength", f"{name}, {level}"] = (judged.anomaly == name) & which
    return {key: which for key, which in found.items() if which.any()}


def _levels(judged: Judged) -> dict[str, np.ndarray]:
    """Return the planted strengths, or fifths of them where they are continuous."""
    values = np.unique(judged.strength[judged.is_anomaly & np.isfinite(judged.strength)].round(6))
    if 0 < len(values) <= 10:
        return {f"{value:g}": np.isclose(judged.strength, value, atol=1e-6) for value in values}
    edges = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0 + 1e-9)
    return {
        f"{low:g}-{high:.1f}": (judged.strength >= low) & (judged.strength < high)
        for low, high in itertools.pairwise(edges)
    }


def _completeness(boot: Bootstrap, tops: Sequence[int]) -> list[dict[str, Any]]:
    masks = cells(boot.judged)
    found = boot.completeness({"\0".join(key): which for key, which in masks.items()}, tops)
    return [
        {
            "by": key[0],
            "cell": key[1],
            "n": int(which.sum()),
            **{name: as_json(measure) for name, measure in found["\0".join(key)].items()},
        }
        for key, which in masks.items()
    ]


def _false_positives(boot: Bootstrap) -> list[dict[str, Any]]:
    judged = boot.judged
    normal = judged.is_normal & judged.in_list
    snr, z = bands(judged.snr, SNR_EDGES), bands(judged.z, Z_EDGES)
    everything = np.ones(len(judged), bool)
    wanted = [("all", "all", everything), *((name, "all", which) for name, which in snr.items())]
    wanted += [("all", name, which) for name, which in z.items()]
    wanted += [(a, b, snr[a] & z[b]) for a, b in itertools.product(snr, z)]
    rows = []
    for snr_name, z_name, which in wanted:
        members = normal & which
        if members.sum() >= MIN_CELL:
            rate = boot.share(members, judged.p_value < NOMINAL)
            entry = {"snr": snr_name, "z": z_name, "n": int(members.sum())}
            rows.append({**entry, "rate": _number(rate.value), "error": _number(rate.error)})
    return rows


def _artefacts(boot: Bootstrap) -> dict[str, Any]:
    judged = boot.judged
    kinds = [str(name) for name in np.unique(judged.artefact[judged.is_artefact])]
    share = {name: boot.share(judged.artefact == name, judged.is_flagged) for name in kinds}
    return {
        "n": int(judged.is_artefact.sum()),
        "called": as_json(boot.share(judged.is_artefact, judged.is_flagged)),
        "called_by_kind": {name: as_json(measure) for name, measure in share.items()},
        "anomalies_called": as_json(boot.share(judged.is_anomaly, judged.is_flagged)),
    }
