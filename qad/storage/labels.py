"""Reading ``inspect/labels.jsonl``: what people said of targets; the last label of a target wins."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from qad.errors import InputError


@dataclass(frozen=True)
class Label:
    """One person's word on one target."""

    targetid: int
    label: str
    comment: str = ""
    who: str = ""
    when: str = ""
    """Time, UTC, ISO 8601."""
    model: str = ""


def read_labels(path: Path) -> list[Label]:
    """Return all labels in the order of their writing; lines that are torn or not labels are skipped.

    Raises
    ------
    InputError
        If the file exists and cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
    found = (_parse(line) for line in content.split(b"\n"))
    return [label for label in found if label is not None]


def last_labels(path: Path) -> dict[int, Label]:
    """Return the label of each target that counts: the last one."""
    return {label.targetid: label for label in read_labels(path)}


def _parse(line: bytes) -> Label | None:
    try:
        document = json.loads(line)
        texts = {key: document.get(key, "") for key in ("comment", "who", "when", "model")}
        label = Label(int(document["targetid"]), document["label"], **texts)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    is_text = all(isinstance(value, str) for key, value in asdict(label).items() if key != "targetid")
    return label if is_text else None
