"""Extract quasar spectra from coadd and redrock files."""

from __future__ import annotations

from typing import Any

__all__ = ["extract_qso_tile_to_parquet"]


def __getattr__(name: str) -> Any:
    if name == "extract_qso_tile_to_parquet":
        from qad.extraction.stage import extract_qso_tile_to_parquet

        return extract_qso_tile_to_parquet
    raise AttributeError(f"module 'qad.extraction' has no attribute {name!r}")
