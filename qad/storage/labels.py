"""Reading ``inspect/labels.jsonl``: what people said of targets; the last label of a target wins.

A label of no text takes back what was said: the file is only ever appended to.
"""

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
    found = (parse_label(line) for line in content.split(b"\n"))
    return [label for label in found if label is not None]


def last_labels(path: Path) -> dict[int, Label]:
    """Return the label of each target that counts: the last one, unless it was taken back."""
    last = {label.targetid: label for label in read_labels(path)}
    return {targetid: label for targetid, label in last.items() if label.label}


def parse_label(line: bytes) -> Label | None:
    """Return the label that a line of the file holds, None if it is torn or no label."""
    try:
        document = json.loads(line)
        texts = {key: document.get(key, "") for key in ("comment", "who", "when", "model")}
        label = Label(int(document["targetid"]), document["label"], **texts)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    is_text = all(isinstance(value, str) for key, value in asdict(label).items() if key != "targetid")
    return label if is_text else None
