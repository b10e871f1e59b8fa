"""Asking CDS X-Match.

No such service can be installed: a server on the loopback address speaks its interface, built from its documentation
(parameters, CSV upload, VOTable answer with ``angDist``, the uploaded columns and the catalogue's) and DALI's ``QUERY_STATUS``.
"""

from __future__ import annotations

import csv
import io
import json
import threading
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import polars as pl
import pytest

from qad.config import load_config
from qad.matching.sky import separation_arcsec
from qad.matching.stage import crossmatch
from qad.results import RunOptions

HEAD = (
    '<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">'
    '<INFO name="QUERY_STATUS" value="{status}">{text}</INFO><TABLE>'
    '<FIELD name="angDist" datatype="double" unit="arcsec"/><FIELD name="qad_ra" datatype="double"/>'
    '<FIELD name="qad_dec" datatype="double"/><FIELD name="AllWISE" datatype="char" arraysize="*"/>'
    '<FIELD name="RAJ2000" datatype="double" unit="deg"/><FIELD name="DEJ2000" datatype="double" unit="deg"/>'
    '<FIELD name="W1mag" datatype="float" unit="mag"/><FIELD name="e_W1mag" datatype="float" unit="mag"/>'
    '<FIELD name="W2mag" datatype="float" unit="mag"/><FIELD name="e_W2mag" datatype="float" unit="mag"/><DATA><TABLEDATA>'
)
TAIL = "</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"


class Service(ThreadingHTTPServer):
    """Answers from `sky` (RA, dec); `faults` are what it does to the next questions."""

    daemon_threads = True

    def __init__(self, sky):
        super().__init__(("127.0.0.1", 0), Handler)
        self.sky, self.faults, self.asked, self.max_rows = sky, [], [], 10**9

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/xmatch/api/v1/sync"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in message_from_bytes(head + body).get_payload()
        }
        form = {name: part.get_payload() for name, part in parts.items()}
        server = self.server
        server.asked.append(form)
        fault = server.faults.pop(0) if server.faults else ""
        if fault == "cut":
            return self.send(200, self.answer(form)[:-200])
        if fault == "drop":
            self.connection.close()
            return None
        if fault in ("503", "400"):
            return self.send(int(fault), b"the reason", {"Retry-After": "0"})
        if fault == "error":
            return self.send(200, (HEAD.format(status="ERROR", text="no such table") + TAIL).encode())
        return self.send(200, self.answer(form))

    def answer(self, form):
        assert form["REQUEST"] == "xmatch"
        assert form["cat2"] == "vizier:II/328/allwise"
        rows = []
        for row in csv.DictReader(io.StringIO(form["cat1"])):
            ra, dec = float(row[form["colRA1"]]), float(row[form["colDec1"]])
            sep = separation_arcsec(ra, dec, *self.server.sky)
            for k in np.flatnonzero(sep <= float(form["distMaxArcsec"])):
                place = f"<TD>{float(self.server.sky[0][k])!r}</TD><TD>{float(self.server.sky[1][k])!r}</TD>"
                mags = (
                    "<TD>15.5</TD><TD>0.03</TD><TD>14.25</TD><TD></TD>"
                    if k % 2
                    else "<TD>15.5</TD><TD>0.03</TD><TD>14.25</TD><TD>0.04</TD>"
                )
                rows.append(f"<TR><TD>{sep[k]}</TD><TD>{ra!r}</TD><TD>{dec!r}</TD><TD>J{k}</TD>{place}{mags}</TR>")
        status = "OK" if len(rows) <= self.server.max_rows else "OVERFLOW"
        return (HEAD.format(status=status, text="") + "".join(rows[: self.server.max_rows]) + TAIL).encode()

    def send(self, code, body, headers=None):
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def service(tmp_path, scores_at, monkeypatch):
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, 30), rng.uniform(-80, 80, 30)
    near = np.repeat(np.arange(30), 4)
    far = np.where(np.arange(120) % 4, 25.0, 0.5) / 3600
    sky = (
        ra[near] + far * rng.normal(0, 1, 120) / np.cos(np.radians(dec[near])),
        dec[near] + far * rng.normal(0, 1, 120),
    )
    scores_at(tmp_path / "work", ra, dec)
    server = Service((np.mod(sky[0], 360), sky[1]))
    monkeypatch.setattr("qad.matching.remote.LONGEST_WAIT_S", 0.01)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def configured(tmp_path, service, *catalogs, **keys):
    given = {
        "xmatch_url": service.url,
        "catalogs": list(catalogs or ["allwise"]),
        "chunk": 12,
        "timeout_s": 20.0,
        **keys,
    }
    return load_config(
        overrides={"paths.root": str(tmp_path / "work"), **{f"crossmatch.{key}": value for key, value in given.items()}}
    )


def expected(tmp_path, service, **keys):
    """Return the table of the same entries in a file."""
    pl.DataFrame(
        {"ra": service.sky[0], "dec": service.sky[1], "designation": [f"J{k}" for k in range(120)]}
    ).write_parquet(tmp_path / "a.parquet")
    result = crossmatch(
        configured(tmp_path, service, f"file=allwise:{tmp_path / 'a.parquet'}", **keys), RunOptions(jobs=1)
    )
    return pl.read_parquet(result.paths[0])


def test_pairs_are_those_of_the_file_with_units_and_chance(tmp_path, service):
    result = crossmatch(configured(tmp_path, service), RunOptions(jobs=1))
    assert not result.failures
    table, want = pl.read_parquet(result.paths[0]), expected(tmp_path, service)
    for column in ("rank", "catalog_id", "sep_arcsec", "n_within", "best"):
        assert table[column].to_list() == want[column].to_list()
    assert table["cat_w1mpro"].to_list() == [15.5] * len(table)
    assert table["chance_density"].min() > 0
    assert len(service.asked) == 3
    assert {form["distMaxArcsec"] for form in service.asked} == {"60.0"}
    counterparts = pl.read_parquet(result.details["counterparts"])
    measured = {
        rank for rank, name in table.filter("best").select("rank", "catalog_id").rows() if int(name[1:]) % 2 == 0
    }
    assert set(counterparts.filter(pl.col("w1_w2").is_not_null())["rank"].to_list()) == measured
    assert crossmatch(configured(tmp_path, service), RunOptions(jobs=1)).n_skipped == 1
    assert len(service.asked) == 3
    assert crossmatch(configured(tmp_path, service), RunOptions(jobs=1, force=True)).n_done == 1
    assert len(service.asked) == 6


@pytest.mark.parametrize("fault", ["503", "drop", "cut"])
def test_a_fault_is_waited_out(fault, tmp_path, service):
    service.faults = ["", fault, fault]
    result = crossmatch(configured(tmp_path, service), RunOptions(jobs=1))
    assert not result.failures
    assert len(service.asked) == 5
    assert (
        pl.read_parquet(result.paths[0])["catalog_id"].to_list() == expected(tmp_path, service)["catalog_id"].to_list()
    )


def test_an_answer_that_is_cut_off_at_the_limit_is_asked_in_halves(tmp_path, service):
    service.max_rows = 20
    result = crossmatch(configured(tmp_path, service), RunOptions(jobs=1))
    assert not result.failures
    assert (
        pl.read_parquet(result.paths[0])["catalog_id"].to_list() == expected(tmp_path, service)["catalog_id"].to_list()
    )
    n_asked = len(service.asked)
    assert crossmatch(configured(tmp_path, service), RunOptions(jobs=1)).n_skipped == 1
    assert len(service.asked) == n_asked


@pytest.mark.parametrize(("fault", "text"), [("400", "the reason"), ("error", "no such table")])
def test_a_refusal_is_not_repeated(fault, text, tmp_path, service):
    service.faults = [fault]
    result = crossmatch(configured(tmp_path, service), RunOptions(jobs=1))
    assert len(service.asked) == 1
    assert text in result.failures[0].reason
    assert not list((tmp_path / "work" / "answers").rglob("*.vot"))


def test_without_a_network_one_line_says_so_with_exit_code_4(tmp_path, service, qad):
    service.faults = ["", *["drop"] * 50]
    arguments = [
        "--set",
        "crossmatch.retries=1",
        "--set",
        "crossmatch.chunk=12",
        "--root",
        tmp_path / "work",
        "--quiet",
    ]
    run = qad("crossmatch", "allwise", "--set", f"crossmatch.xmatch_url={service.url}", *arguments)
    assert run.returncode == 4, run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1
    assert "no answer after 2 attempts" in lines[0]
    assert len(list((tmp_path / "work" / "answers").rglob("*.vot"))) == 1
    service.faults = []
    run = qad("crossmatch", "allwise", "--set", f"crossmatch.xmatch_url={service.url}", *arguments, "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["n_done"] == 1


def test_a_radius_beyond_the_service_is_refused_before_asking(tmp_path, service):
    result = crossmatch(configured(tmp_path, service, annulus_arcsec=500.0), RunOptions(jobs=1))
    assert "180 arcsec" in result.failures[0].reason
    assert not service.asked
