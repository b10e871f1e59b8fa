"""The gallery in a real browser: it draws, sorts, filters and zooms, needs no network, and runs nothing of the data."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qad.config import load_config
from qad.errors import ConfigError
from qad.inspection import gallery
from qad.inspection.gallery import encode_spectrum, gallery_columns, write_gallery
from qad.inspection.spectrum import Spectrum
from qad.inspection.stage import open_tables, select
from qad.results import NoProgress
from qad.storage.labels import read_labels

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")
SWITCHES = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,950",
]


def make(root: Path, folder: Path, **keys: Any) -> dict[str, int]:
    chosen = {f"inspect.{name}": value for name, value in {"top": 40, **keys}.items()}
    config = load_config(None, {"paths.root": str(root), **chosen})
    tables, shown = open_tables(config), config.inspect.columns
    frame = select(config, tables, gallery_columns(tables, shown))
    return write_gallery(tables, frame, folder, shown, config.inspect.smooth_px, NoProgress())


@pytest.fixture(scope="module")
def page(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "first look"
    make(root, folder)
    return folder / "index.html"


class Browser:
    """A page in headless Chromium, driven by the WebDriver protocol."""

    def __init__(self, server: str, profile: Path) -> None:
        options = {"binary": CHROMIUM, "args": [*SWITCHES, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._server = server
        self._session = self._post("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _post(self, path: str, document: dict[str, Any], method: str = "POST") -> Any:
        request = urllib.request.Request(
            self._server + path, json.dumps(document).encode() if method != "GET" else None, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def command(self, name: str, **document: Any) -> Any:
        return self._post(f"/session/{self._session}/{name}", document)

    def open(self, path: Path, fragment: str = "") -> None:
        self.command("url", url="about:blank")
        self.command("url", url=path.as_uri() + fragment)
        for _ in range(100):
            if self.run("return document.documentElement.dataset.ready") == "true":
                self.wait_for_spectrum()
                return
            time.sleep(0.05)
        raise AssertionError(self.errors())

    def run(self, script: str) -> Any:
        return self.command("execute/sync", script=script, args=[])

    def wait_for_spectrum(self) -> None:
        """Wait until the file of the spectrum shown has been loaded."""
        for _ in range(200):
            if self.run(
                "return !document.querySelector('#rows tr[data-index]') || Boolean(document.documentElement.dataset.drawn)"
            ):
                return
            time.sleep(0.02)
        raise AssertionError(self.errors())

    def settle(self, script: str) -> Any:
        """Run a script, then wait for the next drawn frame."""
        self.run(script)
        self.wait_for_spectrum()
        wait = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done(1)))"
        self.command("execute/async", script=wait, args=[])

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.command("se/log", type="browser")]

    def quit(self) -> None:
        self._post(f"/session/{self._session}", {}, method="DELETE")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver on this machine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{server}/status", timeout=5):
                break
            time.sleep(0.05)
        driven = Browser(server, tmp_path_factory.mktemp("chromium"))
        yield driven
        driven.quit()
    finally:
        process.terminate()
        process.wait(20)


INK = """
const c = document.getElementById('plot'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n / (d.length / 4);
"""
ROWS = "return [...document.querySelectorAll('#rows tr[data-index]')].map((row) => row.querySelector('.target').textContent)"


def test_rows_plot_and_facts_are_drawn_without_an_error(browser: Browser, page: Path, made: Any) -> None:
    browser.open(page)
    assert browser.run(ROWS) == [str(targetid) for targetid in made.targetid]
    assert browser.run("return document.getElementById('target').textContent") == f"TARGETID {made.targetid[0]}"
    assert browser.run(INK) > 0.02
    facts = browser.run("return document.getElementById('facts').innerText")
    assert "dr16q J0001" in facts
    assert "20.00" in facts
    assert browser.errors() == []


def test_sorting_and_filtering(browser: Browser, page: Path, made: Any) -> None:
    browser.open(page)
    click = "[...document.querySelectorAll('#head button')].find((b) => b.textContent === 'S/N').click()"
    browser.run(click)
    order = np.argsort(made.snr, kind="stable")
    assert browser.run(ROWS) == [str(made.targetid[i]) for i in order]
    browser.run(click)
    assert browser.run(ROWS) == [str(made.targetid[i]) for i in order[::-1]]
    assert browser.run("return document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "descending"

    def matching(text: str) -> set[str]:
        browser.run(
            f"const f = document.getElementById('filter'); f.value = {json.dumps(text)}; f.dispatchEvent(new Event('input'))"
        )
        return set(browser.run(ROWS))

    wanted = (made.z > 2) & (made.snr > 3)
    assert matching("z>2 snr>3") == {str(targetid) for targetid in made.targetid[wanted]}
    assert matching(str(made.targetid[12])) == {str(made.targetid[12])}
    assert matching("survey=sv1") == {str(made.targetid[made.twice[1]])}
    assert matching("zwarn!=0") == {str(made.targetid[made.trough])}
    assert matching("no such words") == set()
    assert browser.run("return document.getElementById('none').hidden") is False
    matching("nothing>1")
    assert browser.run("return document.getElementById('count').textContent") == "no column nothing"
    assert browser.errors() == []


def test_choosing_a_candidate_draws_its_plot(browser: Browser, page: Path, made: Any) -> None:
    browser.open(page)
    picture = "return document.getElementById('plot').toDataURL()"
    first = browser.run(picture)
    browser.settle(f"document.querySelectorAll('#rows tr[data-index]')[{made.trough}].click()")
    assert str(made.targetid[made.trough]) in browser.run("return document.getElementById('target').textContent")
    assert "few_pixels, snr_edge" in browser.run("return document.getElementById('facts').innerText")
    chosen = browser.run(picture)
    assert chosen != first
    browser.settle("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'j'}))")
    assert str(made.targetid[made.trough + 1]) in browser.run("return document.getElementById('target').textContent")
    browser.settle("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'k'}))")
    assert browser.run(picture) == chosen
    for key in "fsemdloz,.[]r+-":
        browser.settle(f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))")
    assert browser.errors() == []


def test_axis_residual_and_region_change_the_plot(browser: Browser, page: Path, made: Any) -> None:
    browser.open(page, f"#{made.targetid[made.trough]}")
    picture = "return document.getElementById('plot').toDataURL()"
    whole = browser.run(picture)
    seen = {whole}
    for name in ("observed", "show-residual", "region"):
        browser.settle(f"document.getElementById('{name}').click()")
        seen.add(browser.run(picture))
    assert len(seen) == 4
    for name in ("observed", "show-residual", "reset"):
        browser.settle(f"document.getElementById('{name}').click()")
    assert browser.run(picture) == whole


def test_labels_are_given_and_saved_as_lines_that_qad_reads(
    browser: Browser, page: Path, made: Any, tmp_path: Path
) -> None:
    browser.open(page)
    blobs = "window.saved = []; const Plain = Blob; window.Blob = class extends Plain { constructor(parts, options) { super(parts, options); window.saved.push(parts.join('')); } };"
    browser.run(blobs)
    key = "document.dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}))"
    browser.settle(key % "1")
    assert "interesting" in browser.run("return document.getElementById('facts').innerText")
    browser.settle(key % "j" + ";" + key % "3")
    browser.settle(key % "j" + ";" + key % "2" + ";" + key % "0")
    assert browser.run("return document.getElementById('export').textContent") == "Save 3 labels"
    pressed = "return [...document.querySelectorAll('#marks [aria-pressed=true]')].map((b) => b.textContent)"
    assert browser.run(pressed) == []
    browser.settle(key % "k")
    assert browser.run(pressed) == ["artefact"]
    browser.run("document.getElementById('export').click()")
    (tmp_path / "labels.jsonl").write_text(browser.run("return window.saved[0]"))
    said = {label.targetid: label for label in read_labels(tmp_path / "labels.jsonl")}
    assert [said[int(targetid)].label for targetid in made.targetid[:3]] == ["interesting", "artefact", ""]
    assert said[int(made.targetid[0])].model == "default"
    assert browser.errors() == []


def test_long_tables_draw_the_rows_in_sight(browser: Browser, page: Path, tmp_path: Path) -> None:
    """Five thousand rows: some are in the page, all can be reached, and files load as they are looked at."""
    text = page.read_text()
    block = re.search(r'<script type="application/json" id="data">([^<]*)</script>', text)
    assert block
    document = json.loads(block[1])
    place = [column["name"] for column in document["columns"]]
    rows = []
    for i in range(5000):
        row = list(document["rows"][i % 40])
        row[place.index("rank")], row[place.index("targetid")] = i + 1, str(10**17 + i)
        rows.append(row)
    folder = tmp_path / "long"
    shutil.copytree(page.parent, folder)
    long = json.dumps(document | {"rows": rows}).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    (folder / "index.html").write_text(text.replace(block[1], long))
    browser.open(folder / "index.html")
    in_page = "return document.querySelectorAll('#rows tr[data-index]').length"
    assert 40 < browser.run(in_page) < 200
    assert browser.run("return document.getElementById('table').getAttribute('aria-rowcount')") == "5001"
    scripts = "return performance.getEntriesByType('resource').filter((e) => e.name.includes('spectra')).length"
    assert browser.run(scripts) <= 2
    browser.settle("const l = document.getElementById('list'); l.scrollTop = l.scrollHeight")
    browser.settle("")
    assert str(10**17 + 4999) in browser.run(ROWS)
    assert browser.run(in_page) < 200
    browser.settle(
        "const f = document.getElementById('filter'); f.value = 'rank=4321'; f.dispatchEvent(new Event('input'))"
    )
    assert browser.run(ROWS) == [str(10**17 + 4320)]
    # its spectrum's file is not there: the page says so
    assert "missing" in browser.run("return document.getElementById('note').textContent")
    assert all("ERR_FILE_NOT_FOUND" in message for message in browser.errors())


def test_hover_reads_the_numbers_of_the_table(browser: Browser, page: Path, made: Any) -> None:
    browser.open(page, f"#{made.targetid[made.trough]}")
    browser.settle(
        "const c = document.getElementById('plot'), r = c.getBoundingClientRect();"
        "c.dispatchEvent(new PointerEvent('pointermove', {clientX: r.left + r.width / 2, clientY: r.top + 150, pointerId: 1}))"
    )
    text = browser.run("return document.getElementById('readout').textContent")
    found = re.match(r"rest ([\d.]+) Å\s+observed ([\d.]+) Å\s+flux (\S+) ± (\S+)\s+smoothed (\S+)\s+model (\S+)", text)
    assert found, text
    rest, observed, flux, sigma, _, model = map(float, found.groups())
    assert observed == pytest.approx(rest * (1 + made.z[made.trough]), abs=0.3)
    truth = np.interp(observed, 3600 + 0.8 * np.arange(7781), made.flux[made.trough])
    assert model == pytest.approx(truth, rel=0.02)
    assert sigma == pytest.approx(0.1 * made.norm[made.trough], rel=0.01)
    assert abs(flux - truth) < 6 * sigma


def test_zoom_changes_the_range_and_reset_undoes_it(browser: Browser, page: Path) -> None:
    browser.open(page)
    picture = "return document.getElementById('plot').toDataURL()"
    before = browser.run(picture)
    browser.settle("document.getElementById('zoom-in').click()")
    assert browser.run(picture) != before
    browser.settle("document.getElementById('reset').click()")
    assert browser.run(picture) == before


def test_nothing_of_the_data_runs(browser: Browser, page: Path, made: Any) -> None:
    browser.open(page, f"#{made.targetid[made.hostile]}")
    browser.run("document.getElementById('filter').value = 'owned'")
    assert browser.run("return window.owned === undefined") is True
    assert made.markup in browser.run("return document.getElementById('reason').textContent")
    assert browser.run("return document.querySelectorAll('img, iframe, object, script:not([type])').length") == 1
    browser.errors()  # of the pages before: what was still loading when they were left
    # and if a hole were found: markup runs nothing, by the policy (a script element that comes as markup runs nowhere)
    browser.run("document.body.insertAdjacentHTML('beforeend', '<b id=trap onclick=\"window.owned = 3\">x</b>')")
    browser.run("document.getElementById('trap').click()")
    browser.run("const i = document.createElement('img'); i.src = 'http://127.0.0.1:9/x'; document.body.append(i)")
    assert browser.run("return window.owned === undefined") is True
    refused = browser.errors()
    assert len(refused) == 2
    assert all("Content Security Policy" in message for message in refused)


def test_dark_and_narrow_pages_draw_too(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.settle("document.getElementById('theme').click()")
    assert browser.run("return document.documentElement.dataset.theme") == "dark"
    browser.command("window/rect", width=600, height=900)
    browser.settle("window.dispatchEvent(new Event('resize'))")
    assert browser.run(INK) > 0.02
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth") is True
    browser.command("window/rect", width=1500, height=950)
    assert browser.errors() == []


def test_gallery_of_nobody_says_so(browser: Browser, root: Path, tmp_path: Path) -> None:
    assert make(root, tmp_path / "none", where="z > 99")["candidates"] == 0
    browser.open(tmp_path / "none" / "index.html")
    assert browser.run(ROWS) == []
    assert browser.run("return document.getElementById('none').hidden") is False
    browser.settle("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'j'}))")
    assert browser.errors() == []


def test_page_is_whole_in_itself(page: Path) -> None:
    text = page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    blocks = re.findall(r'<script type="application/json" id="(\w+)">([^<]*)</script>', text)
    assert len(blocks) == 1
    document = json.loads(dict(blocks)["data"])
    assert {type(row[1]) for row in document["rows"]} == {str}
    assert sorted(path.name for path in page.parent.iterdir()) == ["candidates.csv", "data", "index.html"]


def test_same_candidates_give_the_same_bytes(root: Path, page: Path, tmp_path: Path) -> None:
    make(root, tmp_path / "again")
    assert (tmp_path / "again" / "index.html").read_bytes() == page.read_bytes()
    for path in (tmp_path / "again" / "data").iterdir():
        assert path.read_bytes() == (page.parent / "data" / path.name).read_bytes()


def test_gallery_without_model_grid_and_spectra(own_root: Path, tmp_path: Path) -> None:
    shutil.rmtree(own_root / "models")
    counts = make(own_root, tmp_path / "a")
    assert counts.pop("bytes") == sum(path.stat().st_size for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert counts == {"candidates": 40, "with_spectrum": 40, "with_reconstruction": 0}
    shutil.rmtree(own_root / "grid")
    assert make(own_root, tmp_path / "b", top=3)["with_spectrum"] == 3
    shutil.rmtree(own_root / "spectra")
    assert make(own_root, tmp_path / "c", top=3)["with_spectrum"] == 0


def test_other_folders_are_never_replaced(root: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="is no gallery"):
        make(root, tmp_path / "thesis", top=1)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    make(root, tmp_path / "gallery", top=1)
    make(root, tmp_path / "gallery", top=2)
    (tmp_path / "gallery" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        make(root, tmp_path / "gallery", top=1)
    with pytest.raises(ConfigError):
        make(root, tmp_path / "thesis" / "chapter.tex", top=1)
    make(root, tmp_path / "other", top=1)
    (tmp_path / "other" / "data" / "mine.js").write_text("")
    with pytest.raises(ConfigError, match=r"mine\.js"):
        make(root, tmp_path / "other", top=1)


def test_half_a_gallery_never_appears(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> bytes:
        raise KeyboardInterrupt

    make(root, tmp_path / "gallery", top=1)
    before = (tmp_path / "gallery" / "index.html").read_bytes()
    monkeypatch.setattr(gallery, "encode", fail)
    with pytest.raises(KeyboardInterrupt):
        make(root, tmp_path / "gallery", top=2)
    assert (tmp_path / "gallery" / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"]


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_extreme_spectra_are_finite_in_the_page(size: float) -> None:
    wave = np.geomspace(3600, 9800, 500)
    flux = size * np.ones(500)
    flux[100] = 1e30 * size
    ivar = np.full(500, 25 / size**2)
    ivar[50:60] = 0
    document = encode_spectrum(Spectrum((1, "main", "dark", 1), 1.0, wave, flux, ivar, flux, flux**2))
    import base64

    for name in ("flux", "sigma", "recon", "scatter"):
        values = np.frombuffer(base64.b64decode(document[name]), "<f2").astype(float)
        assert np.isfinite(values).all()
        if name == "sigma":
            assert (values == 0).nonzero()[0].tolist() == list(range(50, 60))
            assert values[0] * document["scale"] == pytest.approx(size / 5, rel=1e-3)
