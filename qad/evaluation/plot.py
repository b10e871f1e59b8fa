"""An evaluation as one picture: completeness by class and strength, by S/N and by redshift, and the false positives."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES, DPI = (13.0, 9.0), 110
COLOURS = {"fpr_0.001": "#1b6ca8", "fpr_0.01": "#d1732b"}
LABELS = {"fpr_0.001": "0.1 % false positives", "fpr_0.01": "1 % false positives"}
TOP_COLOURS = ("#4b8f4b", "#8a6bb1", "#7f7f7f")


def draw_plot(document: dict[str, Any]) -> bytes:
    """Return the PNG of an evaluation; the same document gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 2, width_ratios=(1.15, 1.0))
    _matrix(figure.add_subplot(grid[:, 0]), document)
    for place, by, label in ((0, "snr", "median S/N per 0.8 Å pixel"), (1, "z", "redshift")):
        _curves(figure.add_subplot(grid[place, 1]), document, by, label)
    _flatness(figure.add_subplot(grid[2, 1]), document)
    ranking, n = document["ranking"], document["n"]
    what = "planted into held-out spectra" if document["mode"] == "planted" else "of the truth"
    figure.suptitle(
        f"{document['name']}: {n['anomalies']:,} anomalies {what}, {n['list']:,} spectra in the list; "
        f"AUROC {_text(ranking['auroc'])}, AP {_text(ranking['ap'])}"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _text(figure: dict[str, float | None]) -> str:
    value, error = figure["value"], figure["error"]
    return "-" if value is None else f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"


def _cells(document: dict[str, Any], by: str) -> list[dict[str, Any]]:
    return [entry for entry in document["completeness"] if entry["by"] == by]


def _criteria(document: dict[str, Any]) -> list[str]:
    """Return the criteria for which there are figures."""
    whole = _cells(document, "all")[0]
    return [key for key, figure in whole.items() if isinstance(figure, dict) and figure["value"] is not None]


def _matrix(axes: Axes, document: dict[str, Any]) -> None:
    """Draw completeness by class (best above) and strength, at 1 % false positives or what comes nearest to it."""
    criteria = _criteria(document)
    key = "fpr_0.01" if "fpr_0.01" in criteria else (criteria or ["fpr_0.01"])[0]
    classes = sorted(_cells(document, "class"), key=lambda entry: -(entry[key]["value"] or 0.0))
    levels = [entry["cell"] for entry in _cells(document, "strength")]
    both = {entry["cell"]: entry for entry in _cells(document, "class and strength")}
    names = [entry["cell"] for entry in classes]
    shares = np.full((len(names), len(levels) + 1), np.nan)
    for row, entry in enumerate(classes):
        values = [both.get(f"{entry['cell']}, {level}", {}).get(key, {}).get("value") for level in levels]
        shares[row] = [np.nan if value is None else value for value in (*values, entry[key]["value"])]
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (row, column), value in np.ndenumerate(shares):
        if np.isfinite(value):
            axes.text(
                column,
                row,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if value > 0.6 else "black",
            )
    axes.axvline(len(levels) - 0.5, color="black", linewidth=1)
    axes.set_xticks(range(len(levels) + 1), [*levels, "all"])
    axes.set_yticks(range(len(names)), [f"{entry['cell']} ({entry['n']})" for entry in classes])
    axes.set_xlabel("strength: 0 hardly more than normal, 1 the extremes that are known")
    axes.set_title(f"completeness at {LABELS.get(key, key.replace('top_', 'the first '))}, by class (number)")


def _curves(axes: Axes, document: dict[str, Any], by: str, label: str) -> None:
    entries = _cells(document, by)
    tops = iter(TOP_COLOURS)
    for shift, key in enumerate(_criteria(document)):
        colour = COLOURS.get(key) or next(tops, "#000000")
        points = [
            (place, entry[key]["value"], entry[key]["error"] or 0.0)
            for place, entry in enumerate(entries)
            if entry[key]["value"] is not None
        ]
        if points:
            x, y, error = np.array(points).T
            name = LABELS.get(key) or f"in the first {key.removeprefix('top_')}"
            axes.errorbar(x + 0.06 * (shift - 1), y, error, color=colour, marker="o", capsize=3, label=name)
    axes.set_xticks(range(len(entries)), [f"{entry['cell']}\n({entry['n']})" for entry in entries])
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(label)
    axes.set_ylabel("completeness")
    axes.grid(alpha=0.3)
    if by == "snr":
        axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)


def _flatness(axes: Axes, document: dict[str, Any]) -> None:
    """Draw the share of p < 0.01 among spectra without a plant, by S/N and redshift."""
    entries = [entry for entry in document["false_positives"] if (entry["snr"] == "all") != (entry["z"] == "all")]
    names = [f"S/N {entry['snr']}" if entry["z"] == "all" else f"z {entry['z']}" for entry in entries]
    axes.axhspan(0.005, 0.02, color="#4b8f4b", alpha=0.15, label="half to twice the nominal rate")
    axes.axhline(0.01, color="#4b8f4b", linewidth=1)
    if entries:
        rates, errors = [entry["rate"] for entry in entries], [entry["error"] or 0.0 for entry in entries]
        axes.errorbar(range(len(entries)), rates, errors, fmt="o", color="#444444", capsize=3)
    axes.set_xticks(range(len(entries)), names, rotation=40, ha="right", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("share with p < 0.01")
    axes.set_title("false positives at the nominal 1 %", fontsize=10)
    axes.legend(fontsize=8)
