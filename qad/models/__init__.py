"""The models: what reconstructs a spectrum."""

from __future__ import annotations

from typing import Any

__all__ = ["QSOAutoencoder"]


def __getattr__(name: str) -> Any:
    if name == "QSOAutoencoder":
        from qad.training.autoencoder import QSOAutoencoder

        return QSOAutoencoder
    raise AttributeError(f"module 'qad.models' has no attribute {name!r}")
