"""Known classes as directions in line features, and one view of all classes together.

A test that knows its direction sees what an omnibus test cannot: a line weak by two sigma is nothing, five that are is a class.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qad.scoring.shapes import FAMILIES

BROAD_LINES = ("Lya", "C IV", "C III]", "Mg II", "Hgamma", "Hdelta", "Hbeta", "Halpha")
LINE_CLASSES: dict[str, dict[str, float]] = {
    # Diamond-Stanic et al. 2009, ApJ 699, 782
    "weak_line": {"ew:Lya": -1.0, "ew:Si IV": -0.7, "ew:C IV": -1.0, "ew:He II 1640": -0.5, "ew:C III]": -0.8},
    # Plotkin et al. 2010, AJ 139, 390
    "featureless": dict.fromkeys((f"ew:{name}" for name in (*BROAD_LINES, "Fe II UV", "Fe II blue", "[O III]")), -1.0),
    # Jiang, Fan and Vestergaard 2008, ApJ 679, 962
    "n_rich": {"ew:N III]": 1.0, "ew:C IV": -0.5, "ew:C III]": -0.3},
    "si_iv_strong": {"ew:Si IV": 1.0, "ew:C IV": -0.5},
    # Boroson and Green 1992, ApJS 80, 109
    "strong_iron": {"ew:Fe II UV": 1.0, "ew:Fe II blue": 1.0, "ew:[O III]": -0.5, "ew:[O II]": -0.3},
    "reddened": {"slope:": 1.0},
    "blue": {"slope:": -1.0},
    # Zakamska et al. 2003, AJ 126, 2125
    "narrow_line": {"ew:[Ne V]": 1.0, "ew:[O II]": 1.0, "ew:[Ne III]": 1.0, "ew:[O III]": 1.0, "ew:Mg II": -0.5},
    "weak_lya": {"ew:Lya": -1.0},
    # Strateva et al. 2003, AJ 126, 1720
    "broad_profile": {"peak:Mg II": -1.0, "peak:Hbeta": -1.0, "peak:Halpha": -1.0},
    "host_galaxy": {"slope:3125-4018": 1.0, "slope:4018-4215": 0.7, "ew:Ca II K": -0.7, "slope:2682-3125": 0.3},
    # Hamann et al. 2017, MNRAS 464, 3431
    "boxy_c_iv": {"ew:C IV": 1.0, "peak:C IV": -0.7, "ew:Lya": 0.3},
}
"""What a class does to line features; a name that ends in a colon means all features that begin so."""
CLASSES = (*FAMILIES, *LINE_CLASSES)
"""Every class, in the order of its columns."""
PREFIX = "class_"
MAX_LOG = 200.0


def directions(names: tuple[str, ...]) -> np.ndarray:
    """Return the directions of LINE_CLASSES over features, (n_classes, n_features)."""
    found = np.zeros((len(LINE_CLASSES), len(names)))
    for row, parts in zip(found, LINE_CLASSES.values(), strict=True):
        for what, weight in parts.items():
            row[[name.startswith(what) if what.endswith(":") else name == what for name in names]] = weight
    return found


def mixture(log_p: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return ln of the mean of 1 / p over the classes: near the largest, and steadied by the others."""
    inverse = [np.exp(np.minimum(-log_p[PREFIX + name], MAX_LOG)) for name in CLASSES]
    return np.log(np.mean(inverse, axis=0))
