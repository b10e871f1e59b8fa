"""qad finds anomalous quasars in the Dark Energy Spectroscopic Instrument's Data Release 1.

The names below are resolved on first use, so that ``import qad`` costs nothing::

    import qad

    result = qad.extract(source="/data/dr1", root="work")
    print(result.n_done, result.failures)
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    **dict.fromkeys(
        (
            "fetch",
            "extract",
            "build_grid",
            "train",
            "score",
            "evaluate",
            "measure",
            "crossmatch",
            "inspect",
            "publish",
            "simulate",
        ),
        "qad.api",
    ),
    "load_config": "qad.config",
    "Config": "qad.config",
    "StageResult": "qad.results",
    "QadError": "qad.errors",
    "extract_qso_tile_to_parquet": "qad.extraction",
    "QSOAutoencoder": "qad.models",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'qad' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
