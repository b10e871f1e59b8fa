"""The curve of a training run, one row an epoch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from qad.schema import Column, Table
from qad.storage.parquet import make_table, write_table
from qad.storage.provenance import Provenance

HISTORY = Table(
    "history",
    1,
    (
        Column("step", "int64", "", "steps done at the end of the epoch"),
        Column("epoch", "int32", "", "0 is the state before the first step"),
        Column("train_loss", "float64", "", "mean loss over the epoch's steps", True),
        Column("validation_loss", "float64", "", "loss on the validation spectra after the epoch", True),
        Column("learning_rate", "float64", "", "learning rate of the epoch's last step"),
        Column("grad_norm", "float64", "", "mean norm of the gradient before clipping", True),
        Column("seconds", "float64", "s", "time since training began; differs from run to run"),
    ),
    ("step",),
)


@dataclass(frozen=True)
class Epoch:
    """One row of the history."""

    step: int
    epoch: int
    train_loss: float | None
    validation_loss: float | None
    learning_rate: float
    grad_norm: float | None
    seconds: float


def write_history(path: Path, epochs: list[Epoch], provenance: Provenance) -> None:
    """Write the history."""
    rows = [asdict(epoch) for epoch in epochs]
    columns = {column.name: [row[column.name] for row in rows] for column in HISTORY.columns}
    write_table(path, make_table(HISTORY, columns), HISTORY, provenance)
