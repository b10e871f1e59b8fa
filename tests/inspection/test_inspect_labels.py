"""Labels of several people survive each other, power cuts and hostile words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.errors import ConfigError, StorageError
from qad.inspection.labels import append_labels, new_labels
from qad.storage.labels import Label, last_labels, read_labels

WRITER = """
import sys
from pathlib import Path
from qad.inspection.labels import append_labels
from qad.storage.labels import Label
path, first = Path(sys.argv[1]), int(sys.argv[2])
for i in range(200):
    append_labels(path, [Label(first + i, "known", "x" * (i * 5))])
"""


def test_two_processes_at_once_keep_all_400_labels(tmp_path: Path) -> None:
    path = tmp_path / "inspect" / "labels.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first)]) for first in (1000, 5000)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    found = read_labels(path)
    assert sorted(label.targetid for label in found) == [*range(1000, 1200), *range(5000, 5200)]
    assert all(len(label.comment) == label.targetid % 1000 * 5 for label in found)


def test_last_label_of_a_target_wins(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    append_labels(path, [Label(1, "boring"), Label(2, "known"), Label(1, "interesting")])
    assert {targetid: label.label for targetid, label in last_labels(path).items()} == {1: "interesting", 2: "known"}
    assert len(read_labels(path)) == 3


@pytest.mark.parametrize("lost", [1, 5, 30])
def test_torn_last_line_is_skipped_and_does_not_harm_the_next(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "labels.jsonl"
    append_labels(path, [Label(1, "known"), Label(2, "artefact", "x" * 50)])
    path.write_bytes(path.read_bytes()[:-lost])
    kept = [1] if lost > 1 else [1, 2]  # only the newline lost: the document is whole
    assert [label.targetid for label in read_labels(path)] == kept
    append_labels(path, [Label(3, "boring")])
    assert [label.targetid for label in read_labels(path)] == [*kept, 3]


def test_lines_that_are_no_labels_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(b'[]\n{}\nnull\n\xff\xfe\n{"targetid": "1"}\n{"targetid": "x", "label": "a"}\n')
    append_labels(path, [Label(4, "known")])
    with path.open("ab") as handle:
        handle.write(b'{"targetid": "5", "label": 3}\n{"targetid": "6", "label": "a", "who": []}\n')
    assert [label.targetid for label in read_labels(path)] == [4]


@settings(max_examples=50, deadline=None)
@given(st.integers(-(2**63), 2**63 - 1), st.text(max_size=30), st.text(max_size=30))
def test_any_label_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, target: int, word: str, more: str
) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels.jsonl"
    label = Label(target, word, more, "somebody", "2026-01-01T00:00:00+00:00", "default")
    append_labels(path, [label])
    assert read_labels(path) == [label]


def test_targetid_is_text_in_the_file_and_a_line_is_ascii(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    append_labels(path, new_labels([39627612345678901], "interesting", "Lyα  \x1b[2J\nsecond line"))
    document = json.loads(path.read_text("ascii"))
    assert document["targetid"] == "39627612345678901"
    assert document["comment"] == "Lyα \x1b[2J second line"
    assert document["who"]
    assert document["when"].endswith("+00:00")


@pytest.mark.parametrize(("label", "comment"), [("", ""), ("  ", ""), ("x" * 101, ""), ("known", "x" * 2001)])
def test_empty_and_endless_labels_are_refused(label: str, comment: str) -> None:
    with pytest.raises(ConfigError):
        new_labels([1], label, comment)


def test_no_labels_yet(tmp_path: Path) -> None:
    assert read_labels(tmp_path / "labels.jsonl") == []


def test_unwritable_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "inspect").write_text("")
    with pytest.raises(StorageError):
        append_labels(tmp_path / "inspect" / "labels.jsonl", [Label(1, "known")])
