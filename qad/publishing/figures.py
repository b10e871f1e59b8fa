"""The figures of a catalogue, each as PNG and PDF: scores, coverage, completeness, the first twenty spectra."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.analysis.figure import new_figure, smoothed
from qad.analysis.spectra import WAVE
from qad.lines import EMISSION_LINES

if TYPE_CHECKING:
    import polars as pl

    from qad.analysis.source import Block

BLUE, ORANGE, GREY, DARK = "#1b6ca8", "#d1732b", "#9aa4ad", "#1b2a36"
N_SHEET = 20
_SHEET_SMOOTH = 9
_MARKED = ("Lya", "C IV", "C III]", "Mg II", "[O II]", "Hbeta", "[O III]", "Halpha")


def encoded(figure: Any) -> dict[str, bytes]:
    """Return a figure as ``png`` and ``pdf``, without a time or a version: the same data give the same bytes."""
    found = {}
    for form, metadata in (
        ("png", {"Software": None}),
        ("pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
    ):
        sink = io.BytesIO()
        figure.savefig(sink, format=form, dpi=150, metadata=metadata)
        found[form] = sink.getvalue()
    return found


def score_figure(everything: pl.DataFrame, frame: pl.DataFrame) -> Any:
    """Draw the distribution of the scores of all spectra, and of the published ones."""
    figure = new_figure((6.4, 4.2))
    axes = figure.add_subplot()
    scores = everything["score"].to_numpy()
    edges = (
        np.linspace(scores.min(), scores.max(), 61)
        if scores.max() > scores.min()
        else np.linspace(scores[0] - 1, scores[0] + 1, 3)
    )
    axes.hist(scores, edges, color=GREY, label=f"all scored spectra ({len(scores):,})")
    axes.hist(frame["score"].to_numpy(), edges, color=ORANGE, label=f"published ({frame.height:,})")
    axes.set_yscale("log")
    axes.set_ylim(0.5, None)
    axes.set_xlabel("anomaly score")
    axes.set_ylabel("spectra per bin")
    axes.legend(frameon=False)
    return figure


def coverage_figure(everything: pl.DataFrame, frame: pl.DataFrame) -> Any:
    """Draw redshift and r magnitude of the published candidates, their histograms beside those of all spectra."""
    figure = new_figure((6.4, 5.2))
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 3), width_ratios=(3, 1))
    main = figure.add_subplot(grid[1, 0])
    top, side = figure.add_subplot(grid[0, 0], sharex=main), figure.add_subplot(grid[1, 1], sharey=main)
    z, magnitude = frame["z"].to_numpy(), frame["mag_r"].cast(float).to_numpy()
    known = np.isfinite(magnitude)
    # rank 1 lies on top, and is the darkest
    order = np.argsort(-frame["rank"].to_numpy()[known])
    points = main.scatter(
        z[known][order], magnitude[known][order], c=frame["score"].to_numpy()[known][order], s=14, cmap="viridis"
    )
    edges = np.linspace(0, max(0.5, float(everything["z"].to_numpy().max())) * 1.02, 41)
    for values, colour, label in ((everything["z"].to_numpy(), GREY, "all scored"), (z, ORANGE, "published")):
        top.hist(values, edges, density=True, histtype="step", color=colour, label=label, lw=1.3)
    if known.any():
        side.hist(magnitude[known], 20, orientation="horizontal", color=ORANGE)
    main.invert_yaxis()
    main.set_xlabel("redshift")
    main.set_ylabel("r [AB mag]")
    top.legend(frameon=False, fontsize=8)
    top.tick_params(labelbottom=False)
    top.set_ylabel("density")
    side.tick_params(labelleft=False)
    side.set_xlabel("candidates")
    figure.colorbar(points, ax=side, label="anomaly score")
    if not known.all():
        main.set_title(f"{(~known).sum()} without an r magnitude not shown", fontsize=8)
    return figure


def completeness_figure(evaluation: dict[str, Any]) -> Any:
    """Draw the share of planted anomalies that a search finds, by class, by S/N and by redshift."""
    figure = new_figure((9.0, 5.2))
    grid = figure.add_gridspec(2, 2, width_ratios=(1.3, 1))
    cells = evaluation["completeness"]
    criteria = [name for name in ("fpr_0.001", "fpr_0.01") if any(_value(entry, name) is not None for entry in cells)]
    text = {"fpr_0.001": "at 0.1 % false positives", "fpr_0.01": "at 1 % false positives"}
    colour = {"fpr_0.001": BLUE, "fpr_0.01": ORANGE}
    classes = sorted(
        (entry for entry in cells if entry["by"] == "class"), key=lambda entry: _value(entry, criteria[-1]) or 0.0
    )
    axes = figure.add_subplot(grid[:, 0])
    for k, name in enumerate(criteria):
        y = np.arange(len(classes)) + 0.18 * (2 * k - 1)
        axes.errorbar([_value(e, name) or 0.0 for e in classes], y, xerr=_bars(classes, name), fmt="o", ms=4, color=colour[name], label=text[name])  # fmt: skip
    axes.set_yticks(
        np.arange(len(classes)), [f"{entry['cell'].replace('_', ' ')} ({entry['n']})" for entry in classes], fontsize=8
    )
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("completeness")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    for place, by, label in ((0, "snr", "median S/N per pixel"), (1, "z", "redshift")):
        axes = figure.add_subplot(grid[place, 1])
        entries = [entry for entry in cells if entry["by"] == by]
        for name in criteria:
            axes.errorbar(range(len(entries)), [_value(e, name) or 0.0 for e in entries], yerr=_bars(entries, name), marker="o", ms=4, color=colour[name])  # fmt: skip
        axes.set_xticks(range(len(entries)), [str(entry["cell"]) for entry in entries], fontsize=8)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(label)
        axes.set_ylabel("completeness")
    return figure


def _value(entry: dict[str, Any], name: str) -> float | None:
    found = entry.get(name)
    return found.get("value") if isinstance(found, dict) else None


def _error(entry: dict[str, Any], name: str) -> float:
    found = entry.get(name)
    return float(found.get("error") or 0.0) if isinstance(found, dict) else 0.0


def _bars(entries: list[dict[str, Any]], name: str) -> np.ndarray:
    """Return the lengths of error bars to either side, no longer than a share can go."""
    values = np.array([_value(entry, name) or 0.0 for entry in entries])
    errors = np.array([_error(entry, name) for entry in entries])
    return np.array([np.minimum(errors, values), np.minimum(errors, 1 - values)])


def contact_sheet(frame: pl.DataFrame, blocks: list[Block]) -> Any:
    """Draw the spectra of the first candidates, smoothed, in the rest frame, with the strong lines marked."""
    shown = {row["rank"]: (block, i) for block in blocks for i, row in enumerate(block.rows)}
    rows = [row for row in frame.head(N_SHEET).iter_rows(named=True) if row["rank"] in shown]
    n = max(1, -(-len(rows) // 2))
    figure = new_figure((11.0, 1.05 + 1.35 * n))
    grid = figure.subplots(n, 2, squeeze=False)
    for axes in grid.flat[len(rows) :]:
        axes.set_axis_off()
    for axes, row in zip(grid.flat, rows, strict=False):
        block, i = shown[row["rank"]]
        _panel(axes, row, block.spectra.flux[i], block.spectra.ivar[i])
    for axes in grid.flat[max(0, len(rows) - 2) : len(rows)]:
        axes.set_xlabel("rest wavelength [Å]", fontsize=8)
    figure.supylabel("flux, dereddened [10$^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$]", fontsize=8)
    return figure


def _panel(axes: Any, row: dict[str, Any], flux: np.ndarray, ivar: np.ndarray) -> None:
    rest = WAVE / (1 + row["z"])
    line = smoothed(flux, ivar, _SHEET_SMOOTH)
    axes.plot(rest, line, color=DARK, lw=0.5)
    finite = line[np.isfinite(line)]
    if len(finite):
        low, high = np.percentile(finite, [1, 99.5])
        axes.set_ylim(min(0.0, low) - 0.1 * (high - low), high + 0.35 * (high - low))
    for known in EMISSION_LINES:
        if known.name in _MARKED and rest[0] < known.wave < rest[-1]:
            axes.axvline(known.wave, color=BLUE, lw=0.5, ls=":")
    axes.set_xlim(rest[0], rest[-1])
    axes.tick_params(labelsize=7)
    text = f"{row['rank']}  {row['name']}  z {row['z']:.3f}"
    guess = row.get("class_guess")
    axes.set_title(f"{text}  {guess}" if guess else text, fontsize=7, loc="left", pad=2)
