"""A scores table without a model: enough for the stages that come after `score`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from qad.schema import SCORES
from qad.storage.parquet import make_table, write_table
from qad.storage.provenance import Provenance

KEY = ("targetid", "survey", "program", "healpix", "ra", "dec", "z", "snr")


def write_scores(root: Path, name: str = "default", n_latent: int = 3) -> pl.DataFrame:
    """Write ``scores/<name>.parquet`` for every row of ``spectra/``, and return the rows."""
    files = sorted((root / "spectra").glob("*.parquet"))
    parts = [
        pl.read_parquet(path, columns=[*KEY, "n_good"]).with_columns(pl.col(pl.Categorical).cast(pl.String))
        for path in files
    ]
    frame = pl.concat(parts).sort("targetid", "survey", "program")
    n = frame.height
    rng = np.random.default_rng(5)
    score = np.sort(rng.exponential(3.0, n))[::-1] + 1
    columns = {
        "rank": list(range(1, n + 1)),
        **{column: frame[column].to_list() for column in KEY},
        "score": score,
        "p_value": 10.0**-score,
        "artefact": rng.uniform(0, 0.4, n),
        "reason": ["C IV weak, -3.1 σ"] * n,
        "class_guess": ["weak-line"] * n,
        "chi2_dof": rng.uniform(0.8, 1.5, n),
        "n_good": frame["n_good"].to_list(),
        "flags": np.zeros(n, np.uint32),
        "model": [f"{name}@0123456789ab"] * n,
        "latent": rng.normal(size=(n, n_latent)).astype(np.float32),
        "view_local": rng.normal(size=n).astype(np.float32),
        "p_local": rng.uniform(size=n).astype(np.float32),
    }
    table = make_table(SCORES, columns, n_latent=n_latent)
    write_table(root / "scores" / f"{name}.parquet", table, SCORES, Provenance("score", {"name": name}))
    return frame.with_row_index("rank", offset=1)
