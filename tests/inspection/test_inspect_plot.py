"""The terminal plot shows what the numbers say: lines in their columns, residuals where the model fails."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qad.errors import ConfigError, InputError
from qad.inspection.axes import MARGIN, Size, line_names, nice_step, wave_axis
from qad.inspection.canvas import Canvas
from qad.inspection.panels import significance
from qad.inspection.plot import as_text, draw
from qad.inspection.scene import LAYERS, PlotOptions, driving_region, extent, parse_zoom, stretches
from qad.inspection.spectrum import Spectrum, SpectrumReader, smooth
from qad.inspection.tables import Tables
from qad.inspection.text import greek
from qad.lines import EMISSION_LINES
from qad.schema import N_WAVE, WAVE_START, WAVE_STEP
from qad.workspace import Workspace

WHOLE = PlotOptions(layers=frozenset(LAYERS) - {"zoom"})
"""All layers but the second panel."""


def read(root: Path, targetid: int, model: str = "") -> list[Spectrum]:
    tables = Tables(Workspace(root), "default", model)
    frame = tables.all_rows(["z"]).filter(pl.col("targetid") == targetid)
    return SpectrumReader(tables).read(frame)


@pytest.fixture
def absorbed(root: Path, made: Any) -> Spectrum:
    (spectrum,) = read(root, int(made.targetid[made.trough]))
    return spectrum


def test_spectrum_is_in_physical_units_with_its_reconstruction(root: Path, made: Any) -> None:
    for i in (0, 11):
        (spectrum,) = read(root, int(made.targetid[i]))
        good = spectrum.ivar > 0
        truth = np.interp(spectrum.wave, WAVE_START + WAVE_STEP * np.arange(N_WAVE), made.flux[i])
        assert spectrum.wave[0] == pytest.approx(WAVE_START, rel=2e-3)
        assert spectrum.recon is not None
        inside = good & (spectrum.wave > WAVE_START)
        assert np.abs(spectrum.recon - truth)[inside].max() < 0.02 * truth.max()
        pull = (spectrum.flux - spectrum.recon)[good] * np.sqrt(spectrum.ivar[good])
        assert 0.9 < pull.std() < 1.1


def test_every_survey_of_a_target_has_its_own_spectrum(root: Path, made: Any) -> None:
    spectra = read(root, int(made.targetid[made.twice[0]]))
    assert [spectrum.key[1] for spectrum in spectra] == ["main", "sv1"]
    assert spectra[0].z != spectra[1].z


@pytest.mark.parametrize("width", [60, 80, 132, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_c_iv_is_marked_in_its_column(absorbed: Spectrum, width: int, unicode: bool) -> None:
    text = as_text(draw(absorbed, {}, Size(width, 30, unicode, False), WHOLE))
    good = absorbed.wave[absorbed.ivar > 0]
    wave = 1549.06 * (1 + absorbed.z)
    column = MARGIN + 1 + int((wave - good[0]) / (good[-1] - good[0]) * (width - MARGIN - 1))
    names = next(line for line in text.splitlines() if ("C IV" in line and "Si IV" in line) or "C IV" in line)
    start = names.index("C IV")
    assert start <= column <= start + 4
    mark = "⠁" if unicode else ":"
    panel = [line for line in text.splitlines() if len(line) > column and line[MARGIN] in "│┤|"]
    marked = [
        line
        for line in panel
        if line[column] == mark or (unicode and ord(line[column]) & 1 and ord(line[column]) > 0x2800)
    ]
    assert len(marked) >= 4, text


@pytest.mark.parametrize("size", [Size(60, 20), Size(80, 24), Size(120, 40), Size(200, 60), Size(60, 20, False, False)])
def test_plot_fills_the_terminal_and_no_line_is_wider(absorbed: Spectrum, size: Size) -> None:
    lines = as_text(
        draw(absorbed, {"reason": "strong C IV " * 30, "worst_wave_rest": 1510.0}, size, WHOLE)
    ).splitlines()
    assert len(lines) == size.height
    assert max(map(len, lines)) <= size.width
    if not size.unicode:
        assert all(line.isascii() for line in lines)


def test_strongest_residual_is_where_the_trough_was_planted(absorbed: Spectrum) -> None:
    axis = wave_axis(extent(absorbed), 100)
    sigma = significance(absorbed, axis)
    assert axis.column(1510 * (1 + absorbed.z)) == pytest.approx(int(np.nanargmin(sigma)), abs=1)
    assert np.nanmin(sigma) < -10
    text = as_text(draw(absorbed, {"worst_wave_rest": 1510.0}, Size(110, 30, True, False), WHOLE))
    ruler = next(line for line in text.splitlines() if line.strip().startswith("└"))
    assert ruler.index("▲") == MARGIN + 1 + wave_axis(extent(absorbed), 100).column(1510 * (1 + absorbed.z))  # type: ignore[union-attr]
    assert "1510 Å rest, 4832 Å observed (C IV)" in text


def test_both_axes_name_their_frame(absorbed: Spectrum) -> None:
    text = as_text(draw(absorbed, {}, Size(100, 30, True, False), WHOLE))
    assert "obs Å" in text
    assert "rest Å" in text
    observed = next(line for line in text.splitlines() if "obs Å" in line)
    assert "4000" in observed
    assert "9000" in observed
    assert "1e-17 erg/s/cm²/Å, dereddened" in text


def test_model_and_data_differ_without_colour(absorbed: Spectrum) -> None:
    plain = as_text(draw(absorbed, {}, Size(100, 30, True, False), WHOLE))
    coloured = draw(absorbed, {}, Size(100, 30, True, True), WHOLE)
    assert plain.count("o") > 30
    assert {"data", "recon", "line", "strong"} <= {style for line in coloured for _, style in line}


def test_hostile_reason_cannot_steer_the_terminal(absorbed: Spectrum, made: Any) -> None:
    text = as_text(draw(absorbed, {"reason": made.escapes + made.markup}, Size(300, 30), WHOLE))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\x9b" not in text


def test_without_a_model_the_plot_says_what_is_missing(own_root: Path, made: Any) -> None:
    targetid = int(made.targetid[made.trough])
    shutil.rmtree(own_root / "models")
    (spectrum,) = read(own_root, targetid)
    text = as_text(draw(spectrum, {}, Size(100, 30), WHOLE))
    assert "no reconstruction" in text
    assert "models/default: the model that made the scores is not here" in spectrum.note
    assert spectrum.recon is None
    for path in (own_root / "grid").iterdir():
        path.unlink()
    (spectrum,) = read(own_root, targetid)
    assert spectrum.note.startswith("no reconstruction:")
    assert "qad build-grid" in spectrum.note
    assert len(spectrum.wave) == N_WAVE
    assert np.array_equal(spectrum.flux, made.flux[made.trough].astype(np.float32).astype(float))
    shutil.rmtree(own_root / "spectra")
    assert read(own_root, targetid) == []


def test_model_of_another_grid_is_not_drawn(own_root: Path, made: Any) -> None:
    path = own_root / "grid" / "grid.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"geometry_hash": "b" * 64}))
    (spectrum,) = read(own_root, int(made.targetid[0]))
    assert spectrum.recon is None
    assert "a" * 12 in spectrum.note
    assert "b" * 12 in spectrum.note


def test_model_trained_again_is_not_drawn_over_older_scores(own_root: Path, made: Any) -> None:
    path = own_root / "models" / "default" / "model.json"
    path.write_text(path.read_text() + "\n")
    (spectrum,) = read(own_root, int(made.targetid[0]))
    assert spectrum.recon is None
    assert "was trained again after the scores were made" in spectrum.note


def test_model_from_elsewhere_is_found_where_it_is_named(own_root: Path, made: Any, tmp_path: Path) -> None:
    (own_root / "models" / "default").rename(tmp_path / "default")
    (spectrum,) = read(own_root, int(made.targetid[0]))
    assert "name its folder with --model" in spectrum.note
    (spectrum,) = read(own_root, int(made.targetid[0]), str(tmp_path / "default"))
    assert spectrum.recon is not None


def test_grid_without_a_column_is_refused(own_root: Path, made: Any) -> None:
    for path in (own_root / "grid").glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop(["norm"]), path)
    with pytest.raises(InputError, match="column norm is missing"):
        read(own_root, int(made.targetid[0]))


def test_spectrum_without_a_usable_pixel_has_a_line_of_text(absorbed: Spectrum) -> None:
    from dataclasses import replace

    text = as_text(draw(replace(absorbed, ivar=np.zeros_like(absorbed.ivar)), {}, Size(80, 24), WHOLE))
    assert "no pixel of this spectrum can be used" in text


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_smoothing_is_the_weighted_mean_and_ignores_masked_pixels(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    flux, ivar = rng.standard_normal(50), rng.uniform(0.1, 4, 50) * (rng.random(50) < 0.7)
    spoiled = np.where(ivar > 0, flux, 1e30)
    soft, weight = smooth(np.where(ivar > 0, flux, 0), ivar, width)
    assert np.isfinite(soft).all()
    constant, _ = smooth(np.ones(50), ivar, width)
    assert np.allclose(constant[weight > 0], 1)
    assert np.allclose(smooth(np.where(ivar > 0, spoiled, 0), ivar, width)[0], soft)
    if width <= 40:
        window = slice(25 - width // 2, 25 - width // 2 + width)
        mean = np.average(flux[window], weights=ivar[window]) if ivar[window].any() else 0
        assert soft[25] == pytest.approx(mean, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=40, max_size=40), st.booleans())
def test_canvas_takes_any_curve(values: list[float], braille: bool) -> None:
    canvas = Canvas(20, 5, braille, {"data": "*"})
    canvas.curve(np.array(values), "data")
    lines = ["".join(text for text, _ in pieces) for pieces in canvas.lines()]
    assert [len(line) for line in lines] == [20] * 5


def test_canvas_sets_the_dot_that_unicode_gives_it() -> None:
    for x, y, character in [(0, 0, "⠁"), (1, 0, "⠈"), (0, 3, "⡀"), (1, 3, "⢀"), (0, 2, "⠄"), (1, 1, "⠐")]:
        canvas = Canvas(1, 1, True)
        canvas.dot(x, y, "data")
        assert next(canvas.lines()) == [(character, "data")]


@given(st.floats(1e-6, 1e9))
def test_ticks_are_round(rough: float) -> None:
    step = nice_step(rough)
    assert rough <= step * (1 + 1e-9)
    assert step <= 2.5 * rough * (1 + 1e-9)


def test_second_panel_is_the_region_that_drives_the_score(absorbed: Spectrum) -> None:
    region = driving_region(absorbed, {"worst_wave_rest": 1510.0})
    assert region is not None
    assert region[0] / (1 + absorbed.z) < 1500 < 1585 < region[1] / (1 + absorbed.z)
    facts = {"worst_wave_rest": 1510.0}
    assert stretches(absorbed, facts, PlotOptions()) == [extent(absorbed), region]
    assert stretches(absorbed, facts, WHOLE) == [extent(absorbed)]
    assert stretches(absorbed, {"worst_wave_rest": float("nan")}, PlotOptions()) == [extent(absorbed)]
    beside = as_text(draw(absorbed, facts, Size(140, 30, True, False), PlotOptions())).splitlines()
    below = as_text(draw(absorbed, facts, Size(80, 40, True, False), PlotOptions())).splitlines()
    assert sum("C IV" in line for line in beside) >= 1
    assert sum(line.count("▲") for line in beside) == 3  # two panels and the legend
    assert sum(line.count("▲") for line in below) == 3
    assert (len(beside), max(map(len, beside)) <= 140, len(below), max(map(len, below)) <= 80) == (30, True, 40, True)


@pytest.mark.parametrize(("frame", "shift"), [("rest", 1.0), ("observed", 3.2)])
def test_zoom_is_in_the_frame_of_the_lower_axis(absorbed: Spectrum, frame: Any, shift: float) -> None:
    options = PlotOptions(7, frame, (1450 * shift, 1620 * shift))
    (stretch,) = stretches(absorbed, {"worst_wave_rest": 1510.0}, options)
    assert stretch == pytest.approx((1450 * 3.2, 1620 * 3.2))
    lines = as_text(draw(absorbed, {}, Size(100, 30, True, False), options)).splitlines()
    lower = next(line for line in reversed(lines) if " Å  " in line and "flux" not in line)
    assert ("rest Å" if frame == "rest" else "obs Å") in lower
    assert str(round(1500 * shift)) in lower
    # where pixels are wider than dots the curve has no holes
    assert sum(any(0x2800 < ord(line[c]) < 0x2900 for line in lines if len(line) > c) for c in range(12, 98)) == 86


def test_zoom_outside_the_data_shows_all(absorbed: Spectrum) -> None:
    assert stretches(absorbed, {}, PlotOptions(zoom=(100, 200))) == [extent(absorbed)]


@pytest.mark.parametrize("text", ["1500", "1600:1500", "a:b", "-5:9", "0:10", "1:2:3", "1e3:2e3"])
def test_zoom_in_wrong_words_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="smaller first"):
        parse_zoom(text)
    assert parse_zoom("") is None
    assert parse_zoom(" 1450 - 1620.5") == (1450, 1620.5)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.0, 6.0), st.integers(60, 200), st.integers(16, 50))
def test_names_of_lines_never_overlap(z: float, width: int, rows: int) -> None:
    wave = np.linspace(3600, 9800, 1000)
    spectrum = Spectrum((1, "main", "dark", 1), z, wave, np.ones(1000), np.ones(1000))
    axis = wave_axis((3600, 9800), width - MARGIN - 1)
    shown = {greek(line.name) for line in EMISSION_LINES}
    for line in line_names(spectrum, axis, Size(width, rows)):
        text = "".join(piece for piece, _ in line)
        left = text
        for name in sorted(shown, key=len, reverse=True):
            left = re.sub(rf"(?<!\S){re.escape(name)}(?!\S)", " ", left)
        assert not left.strip(), text
