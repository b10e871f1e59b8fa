"""One work directory with scores, measurements, labels, matches and an evaluation, and the catalogue made of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl
import pytest

import qad
from qad.schema import MATCHES
from qad.storage.parquet import make_table, write_table
from qad.storage.provenance import Provenance

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))

OPTIONS = {"quasars": 30, "healpix": 2, "anomaly_rate": 0.0, "resolution": False, "seed": 9, "contaminants": 0.0}
EPOCH = "1767225600"
HOSTILE = "50 % | \"quoted\", 'Å' \x1b[31m é = -1"


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from scored import write_scores

    folder = tmp_path_factory.mktemp("published")
    qad.simulate(folder / "release", **OPTIONS, jobs=1)
    root = folder / "work"
    qad.extract(source=str(folder / "release"), root=root, jobs=1)
    frame = write_scores(root)
    qad.measure(root=root, top=20, jobs=1)
    _write_labels(root, frame)
    _write_matches(root, frame)
    (root / "evaluation").mkdir()
    (root / "evaluation" / "default.json").write_text(json.dumps(evaluation()))
    return root


def _write_labels(root: Path, frame: pl.DataFrame) -> None:
    lines = [
        {"targetid": str(frame["targetid"][i]), "label": label, "comment": comment, "who": "x", "when": "", "model": ""}
        for i, label, comment in ((0, "interesting", HOSTILE), (3, "interesting", ""), (4, "artefact", "spike"))
    ]
    (root / "inspect").mkdir()
    (root / "inspect" / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_matches(root: Path, frame: pl.DataFrame) -> None:
    names = ("rank", "targetid", "survey", "program", "healpix")
    first = frame.head(2)
    columns = {
        **{name: first[name].to_list() for name in names},
        "catalog": ["milliquas"] * 2,
        "catalog_id": ["Q 1", "Q 2"],
        "sep_arcsec": [0.2, 0.7],
        "n_within": [1, 1],
        "best": [True, True],
    }
    path = root / "matches" / "default-milliquas.parquet"
    write_table(path, make_table(MATCHES, columns), MATCHES, Provenance("crossmatch", {}))


def evaluation() -> dict[str, object]:
    """What `qad evaluate` leaves, as far as it is drawn."""
    figure = {"value": 0.4, "error": 0.1}
    cells = [("class", "hibal"), ("class", "weak_line"), ("snr", "0-1"), ("snr", "1-4"), ("z", "0-1"), ("z", ">1")]
    return {
        "format": 1,
        "completeness": [
            {"by": by, "cell": cell, "n": 9, "fpr_0.01": figure, "fpr_0.001": figure} for by, cell in cells
        ],
    }


@pytest.fixture(scope="session")
def catalogue(work: Path) -> Path:
    folder = work.parent / "catalogue"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        result = qad.publish(folder, root=work, authors=["Doe, Jane", "Roe, Richard"], title="Strange | quasars é")
    assert result.n_done == 1
    return folder
