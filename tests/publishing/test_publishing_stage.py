"""The folder that ``qad publish`` makes: whole, repeatable, nobody else's."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import qad
from qad.errors import ConfigError, InputError

EPOCH = "1767225600"


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_folder_holds_what_its_readme_and_sums_say(catalogue: Path) -> None:
    found = digests(catalogue)
    sums = dict(reversed(line.split("  ", 1)) for line in (catalogue / "SHA256SUMS").read_text().splitlines())
    assert {name: digest for name, digest in found.items() if name != "SHA256SUMS"} == sums
    readme = (catalogue / "README.md").read_text()
    named = {name for name in found if f"`{name}`" in readme or name.endswith(".pdf") or name == "README.md"}
    assert named == set(found)
    assert "figures/completeness.png" in found
    for text in (
        "Strange | quasars é",
        "arXiv:2503.14745",
        "Flesch (2023)",
        "CC BY 4.0",
        "| `civ_ew` | Angstrom |",
        "2026-01-01",
    ):
        assert text in readme, text
    assert (catalogue / "figures" / "top20.png").read_bytes().startswith(b"\x89PNG")
    assert (catalogue / "figures" / "top20.pdf").read_bytes().startswith(b"%PDF")


def test_citation_file_is_yaml_with_authors(catalogue: Path) -> None:
    yaml = pytest.importorskip("yaml")
    document = yaml.safe_load((catalogue / "CITATION.cff").read_text("utf-8"))
    assert [author["family-names"] for author in document["authors"]] == ["Doe", "Roe"]
    assert document["title"] == "Strange | quasars é"
    assert document["license"] == "CC-BY-4.0"
    assert str(document["date-released"]) == "2026-01-01"


def test_provenance_names_every_input_by_its_hash(catalogue: Path, work: Path) -> None:
    document = json.loads((catalogue / "provenance.json").read_text("utf-8"))
    names = {entry["name"] for entry in document["inputs"]}
    assert {"scores/default.parquet", "measures/default.parquet", "matches/default-milliquas.parquet"} <= names
    for entry in document["inputs"]:
        assert hashlib.sha256((work / entry["name"]).read_bytes()).hexdigest() == entry["sha256"]
    assert str(work) not in json.dumps(document)
    assert document["counts"]["published"] == pl.read_parquet(catalogue / "candidates.parquet").height


def test_same_inputs_give_the_same_bytes_and_a_second_run_does_nothing(
    catalogue: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    options = {"root": work, "authors": ["Doe, Jane", "Roe, Richard"], "title": "Strange | quasars é"}
    qad.publish(tmp_path / "again", **options)
    assert digests(tmp_path / "again") == digests(catalogue)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    assert qad.publish(tmp_path / "again", **options).n_skipped == 1
    assert qad.publish(tmp_path / "again", **{**options, "title": "Other"}, dry_run=True).n_done == 1
    assert digests(tmp_path / "again") == digests(catalogue)


def test_labels_and_expressions_select(work: Path, tmp_path: Path) -> None:
    qad.publish(tmp_path / "labelled", root=work, labels=["interesting"])
    frame = pl.read_parquet(tmp_path / "labelled" / "candidates.parquet")
    assert frame["rank"].to_list() == [1, 4]
    assert frame["label"].to_list() == ["interesting"] * 2
    # whoever reads the text finds no control character in it
    ecsv = (tmp_path / "labelled" / "candidates.ecsv").read_text("ascii")
    assert "\x1b" not in ecsv
    for options, text in (
        ({"where": "z > 90"}, "no candidate is left"),
        ({"where": "nonsense > 1"}, "nonsense"),
        ({"labels": ["nobody"]}, "no candidate is left"),
    ):
        with pytest.raises(ConfigError, match=text):
            qad.publish(tmp_path / "none", root=work, **options)
    assert not (tmp_path / "none").exists()


def test_folder_of_others_is_never_touched(work: Path, catalogue: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="was not made by `qad publish`"):
        qad.publish(theirs, root=work, force=True)
    ours = tmp_path / "ours"
    subprocess.run(["cp", "-r", str(catalogue), str(ours)], check=True)
    (ours / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt was not written by"):
        qad.publish(ours, root=work, force=True)
    (ours / "notes.txt").unlink()
    (ours / "README.md").write_text("edited by hand")
    with pytest.raises(ConfigError, match=r"README\.md was changed"):
        qad.publish(ours, root=work, force=True)
    assert (ours / "README.md").read_text() == "edited by hand"
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        qad.publish(file, root=work)


def test_damaged_inputs_leave_nothing_behind(work: Path, tmp_path: Path) -> None:
    evaluation = work / "evaluation" / "default.json"
    kept = evaluation.read_text()
    try:
        evaluation.write_text("{}")
        with pytest.raises(InputError, match="not an evaluation"):
            qad.publish(tmp_path / "out", root=work)
    finally:
        evaluation.write_text(kept)
    with pytest.raises(InputError):
        qad.publish(tmp_path / "out", root=tmp_path / "empty")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_command_reports_and_refuses_in_one_line(work: Path, catalogue: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "qad", "publish", *map(str, arguments), "--root", str(work)]
        environment = {**os.environ, "NO_COLOR": "1", "SOURCE_DATE_EPOCH": EPOCH}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    authors = ("--author", "Doe, Jane", "--author", "Roe, Richard", "--title", "Strange | quasars é")
    done = run(catalogue, *authors, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_skipped"] == 1
    done = run(tmp_path, "--top", 5, "--dry-run", "--json")
    assert json.loads(done.stdout)["counts"]["published"] == 5
    (tmp_path / "x").write_text("")
    done = run(tmp_path, "--quiet")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "was not made by" in line
