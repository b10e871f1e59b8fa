"""What every output says of its making: no time, host or user, so that the same inputs give the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qad


@dataclass(frozen=True)
class InputFile:
    """A file that went into an output: its name (relative where that can be) and the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """The making of one output.

    Attributes
    ----------
    stage : str
        The verb.
    config : mapping
        That stage's resolved section, as :meth:`qad.config.Config.section` gives it.
    inputs : sequence of InputFile
    release, specprod : str
    wave : mapping, optional
        ``start``, ``step``, ``n``, ``unit`` and ``frame`` of the vectors' grid.
    """

    stage: str
    config: Mapping[str, Any]
    inputs: Sequence[InputFile] = ()
    release: str = ""
    specprod: str = ""
    wave: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self, table_tag: str = "") -> dict[str, Any]:
        """Return the ``qad.*`` entries as JSON types."""
        return {
            "qad.table": table_tag,
            "qad.version": qad.__version__,
            "qad.stage": self.stage,
            "qad.config": dict(self.config),
            "qad.inputs": [{"name": item.name, "sha256": item.sha256} for item in self.inputs],
            "qad.release": self.release,
            "qad.specprod": self.specprod,
            "qad.wave": dict(self.wave),
        }

    def as_metadata(self, table_tag: str) -> dict[str, str]:
        """Return the entries as the text that Parquet metadata holds; whatever is not text is JSON."""
        entries = self.as_dict(table_tag)
        return {key: value if isinstance(value, str) else canonical_json(value) for key, value in entries.items()}


def canonical_json(document: Any) -> str:
    """Return JSON that is the same for the same content."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hash_document(document: Any) -> str:
    """Return the SHA-256 of a JSON document."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
