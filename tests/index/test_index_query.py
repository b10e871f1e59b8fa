"""One question, two engines, the same rows: order, nulls and types."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from qad.errors import ConfigError, InputError, ServiceError
from qad.index.connection import Database
from qad.index.engines import Engine
from qad.index.files import Files
from qad.index.postgres import Postgres
from qad.index.query import Question, ask, open_engine
from qad.index.sky import Box, Cone, parse_box, parse_cone
from qad.index.stage import index
from qad.results import RunOptions
from qad.workspace import Workspace

FIRST = 39_627_000_000_000_001


def fill(work) -> None:
    """Write a work directory with nulls, NaN, equal values, two models, two catalogues and labels."""
    rng = np.random.default_rng(5)
    for place, (healpix, program) in enumerate([(9, "dark"), (10, "dark"), (10, "bright"), (4096, "dark")]):
        n = 40
        z = np.round(rng.uniform(0.5, 5, n), 1)
        work.spectra(
            n,
            program=program,
            healpix=healpix,
            seed=place,
            targetid=FIRST + 40 * min(place, 2) + np.arange(n),
            ra=np.mod(rng.uniform(-2, 2, n), 360),
            dec=np.clip(rng.normal([0.2, 89.5, -89.9, 45][place], 0.5, n), -90, 90),
            z=z,
            snr=np.round(rng.uniform(0.3, 9, n), 1).astype(np.float32),
            ebv=[None if i % 5 == 0 else math.nan if i % 5 == 1 else float(i) for i in range(n)],
            subtype=[None, "LYA", "nul\x00", "é"] * (n // 4),
        )
    targetid = FIRST + np.arange(60)
    shared = {"targetid": targetid, "healpix": np.where(targetid < FIRST + 40, 9, 10).astype(np.int32)}
    work.scores(60, **shared, ra=rng.uniform(0, 360, 60), dec=rng.uniform(-90, 90, 60))
    views = {"view_second": np.full(60, 0.1, np.float32), "p_odd": [None if i % 2 else i / 9 for i in range(60)]}
    work.scores(60, "other", **shared, **views)
    work.matches(10, healpix=np.full(20, 9, np.int32), cat_mixed=list(range(20)))
    work.matches(5, "milliquas", stem="mq", cat_mixed=[f"Q {i}" for i in range(10)], cat_mag=[math.nan, 20.5] * 5)
    work.label(
        (FIRST, "known"), (FIRST + 1, "interesting"), (FIRST, "artefact"), (2**70, "no target"), (3, "'; DROP --")
    )


@pytest.fixture(scope="module")
def engines(shared_database, shared_work) -> Iterator[tuple[Engine, Engine]]:
    fill(shared_work)
    config = shared_work.config(shared_database.dsn)
    assert not index(config, RunOptions(jobs=1)).failures
    with Database(config.index) as database:
        yield Postgres(database, 30.0), Files(Workspace(shared_work.root))


STATEMENTS = [
    "SELECT * FROM spectrum ORDER BY targetid, program, healpix",
    "SELECT * FROM score ORDER BY name, rank",
    "SELECT * FROM match ORDER BY name, catalog, rank, ordinal",
    "SELECT * FROM label ORDER BY targetid",
    "SELECT * FROM pixel ORDER BY program, healpix",
    "SELECT targetid, subtype FROM spectrum WHERE healpix = 9 ORDER BY subtype, targetid",
    "SELECT targetid, ebv FROM spectrum ORDER BY ebv DESC, targetid, program, healpix LIMIT 50",
    "SELECT targetid, ebv FROM spectrum ORDER BY ebv NULLS FIRST, targetid, program, healpix OFFSET 7",
    "SELECT targetid, snr FROM spectrum WHERE snr >= 3.3 AND z > 2 ORDER BY 2, 1, program, healpix",
    "SELECT targetid FROM spectrum WHERE snr = 3.3 OR snr IN (1.5, 2.5) ORDER BY targetid",
    "SELECT targetid FROM spectrum WHERE ebv > 3 ORDER BY targetid, program, healpix",
    "SELECT program, count(*) AS n, avg(snr) AS mean, sum(n_good) AS total, min(z) AS low, max(subtype) AS s "
    "FROM spectrum GROUP BY program HAVING count(*) > 1 ORDER BY n DESC, program",
    "SELECT stddev(z) AS sd, variance(snr) AS v, count(ebv) AS n, count(DISTINCT subtype) AS k FROM spectrum WHERE z < 9",
    "SELECT sum(coadd_numexp) AS a, sum(targetid) AS b, avg(fiber) AS c FROM spectrum WHERE targetid < 39627000000000010",
    "SELECT sum(targetid) AS b, max(z) AS c, count(*) AS n FROM spectrum WHERE z > 99",
    "SELECT 7 / 2 AS a, -7 / 2 AS b, 6 / 3 AS c, 7 % 4 AS d, targetid / 2 AS e, z / 2 AS f FROM spectrum "
    "WHERE healpix = 9 ORDER BY targetid, a",
    "SELECT rank / 0 AS a, (rank - 5) / healpix AS b, fiber / petal_loc AS c FROM score JOIN spectrum "
    "USING (targetid, survey, program, healpix) ORDER BY score.name, rank",
    "SELECT targetid, score.rank, spectrum.z, spectrum.snr_b FROM score JOIN spectrum "
    "USING (targetid, survey, program, healpix) WHERE name = 'default' ORDER BY rank",
    "SELECT spectrum.targetid, label, rank FROM spectrum LEFT JOIN label ON label.targetid = spectrum.targetid "
    "LEFT JOIN score ON score.targetid = spectrum.targetid AND score.name = 'other' "
    "ORDER BY rank DESC NULLS LAST, spectrum.targetid, spectrum.program, spectrum.healpix",
    "SELECT * FROM pixel JOIN (SELECT healpix, count(*) AS n FROM score GROUP BY healpix) AS s USING (healpix) "
    "ORDER BY program, healpix",
    "WITH best AS (SELECT targetid, max(score) AS s FROM score GROUP BY targetid) "
    "SELECT targetid, s FROM best WHERE s > 5 ORDER BY s DESC, targetid LIMIT 10",
    "SELECT rank, row_number() OVER (PARTITION BY name ORDER BY score DESC) AS place FROM score ORDER BY name, rank",
    "SELECT rank, view_global, view_second, p_odd FROM score ORDER BY view_global, name, rank",
    "SELECT rank FROM score WHERE view_global IS NULL ORDER BY name, rank",
    "SELECT cat_mixed, cat_mag, cat_note FROM match ORDER BY cat_mixed, cat_note",
    "SELECT DISTINCT survey, subtype FROM spectrum ORDER BY subtype",
    "SELECT targetid FROM spectrum WHERE subtype LIKE 'L%' AND morphtype ILIKE '%TYPE%1%' ORDER BY targetid",
    "SELECT CASE WHEN z > 2 THEN 'far' ELSE 'near' END AS k, count(*) AS n FROM spectrum GROUP BY k ORDER BY k",
    "SELECT upper(program) || '-' || survey AS u, length(subtype) AS n FROM spectrum WHERE healpix = 9 ORDER BY targetid",
    "SELECT coalesce(subtype, '?') AS s, nullif(program, 'dark') AS p FROM spectrum ORDER BY s, p, targetid, healpix",
    "SELECT targetid FROM spectrum WHERE targetid IN (SELECT targetid FROM label) ORDER BY targetid",
    "SELECT targetid FROM spectrum WHERE z > (SELECT avg(z) FROM spectrum) ORDER BY targetid, program, healpix",
    "SELECT z FROM spectrum WHERE healpix = 9 UNION SELECT z FROM spectrum WHERE healpix = 10 ORDER BY z",
    "SELECT abs(dec) AS a, floor(z) AS f, sqrt(z) AS s, ln(z) AS l, round(z) AS r FROM spectrum WHERE healpix = 9 ORDER BY targetid",
    "SELECT CAST(n_good AS double precision) AS d, z > 2 AS b FROM spectrum WHERE healpix = 9 ORDER BY targetid",
    "SELECT targetid AS \"A b\", NULL AS nothing, 'it''s; -- /* x' AS t FROM spectrum WHERE healpix = 9 ORDER BY targetid -- so",
    'SELECT flags, "group", class_guess FROM score ORDER BY name, rank;',
    "SELECT * FROM label WHERE label = '''; DROP --'",
    "SELECT * FROM spectrum WHERE 1 = 0",
    "SELECT 1 AS one",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_both_engines_answer_a_statement_alike(engines, statement: str) -> None:
    first, second = (ask(engine, Question(statement)) for engine in engines)
    assert_frame_equal(first, second, rel_tol=1e-12, abs_tol=0)
    if "1 = 0" not in statement:
        assert first.height > 0


QUESTIONS = [
    Question(),
    Question(columns=["all"], sort="-z"),
    Question(where="z > 2 and snr > 3", sort="-snr", top=7),
    Question(where="p_value < 0.5 and label is null", columns=["targetid", "score", "label", "z"], sort="score"),
    Question(columns=["targetid", "view_second", "ebv"], name="other", sort="ebv"),
    Question(columns=["targetid", "rank"], name="it's none"),
    Question(table="score", where="name = 'default' -- and so on", sort="rank", top=5),
    Question(table="match", columns=["targetid", "catalog", "cat_mag", "z", "label", "rank"], where="sep_arcsec < 0.1"),
    Question(table="score", name="other", columns=["rank", "name", "view_second"], top=3, sort="rank"),
    Question(table="match", area=Cone(0.0, 0.0, 2.0)),
    Question(table="label", columns=["targetid", "label", "z"], sort="-label"),
    Question(table="pixel", sort="-n_spectra"),
    Question(table="pixel", where="healpix between 9 and 10"),
    Question(area=Cone(0.0, 0.0, 1.0)),
    Question(area=Cone(359.9, 0.3, 0.5), where="z > 1", columns=["targetid", "rank"]),
    Question(area=Cone(180.0, 89.9, 0.6)),
    Question(area=Cone(10.0, -90.0, 0.2)),
    Question(area=Cone(77.0, 45.0, 180.0)),
    Question(area=Box(359.0, 1.0, -0.5, 0.5)),
    Question(area=Box(0.0, 360.0, 89.0, 90.0)),
    Question(area=Box(1.5, 0.5, -90.0, 90.0)),
    Question("SELECT count(*) AS n FROM spectrum JOIN score USING (targetid)", area=Cone(0, 0, 30)),
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_both_engines_answer_a_question_in_parts_alike(engines, question: Question) -> None:
    first, second = (ask(engine, question) for engine in engines)
    assert_frame_equal(first, second, check_exact=True)
    assert first.height > 0
    if question.top:
        assert first.height == question.top


def test_cones_and_boxes_hold_what_astropy_says(engines) -> None:
    """At the poles, across 0 and anywhere: no row more, no row less, whatever the zones spare."""
    from astropy import units
    from astropy.coordinates import SkyCoord

    everything = ask(engines[1], Question(columns=["targetid", "ra", "dec"]))
    sky = SkyCoord(everything["ra"].to_numpy() * units.deg, everything["dec"].to_numpy() * units.deg)
    rng = np.random.default_rng(0)
    for trial in range(60):
        ra, dec = rng.choice(everything["ra"]) + rng.normal(0, 0.3), rng.choice(everything["dec"])
        area = Cone(ra % 360, dec, float(10 ** rng.uniform(-3, 1.5)))
        if trial % 4 == 0:
            area = Cone(float(rng.uniform(0, 360)), float(rng.choice([-90, 90, 89.99])), float(rng.uniform(0.01, 2)))
        inside = sky.separation(SkyCoord(area.ra * units.deg, area.dec * units.deg)).deg <= area.radius
        expected = sorted(everything.filter(inside)["targetid"].to_list())
        for engine in engines:
            assert sorted(ask(engine, Question(columns=["targetid"], area=area))["targetid"].to_list()) == expected
    for _ in range(30):
        west, east = rng.uniform(0, 360, 2) if rng.random() < 0.5 else (rng.uniform(358, 360), rng.uniform(0, 2))
        south, north = sorted(rng.uniform(-90, 90, 2))
        box = Box(float(west), float(east), float(south), float(north))
        x, y = everything["ra"], everything["dec"]
        across = ((x >= west) & (x <= east)) if west <= east else ((x >= west) | (x <= east))
        expected = sorted(everything.filter(across & (y >= south) & (y <= north))["targetid"].to_list())
        for engine in engines:
            assert sorted(ask(engine, Question(columns=["targetid"], area=box))["targetid"].to_list()) == expected


def test_small_cone_reads_the_index_and_not_the_table(engines, server) -> None:
    text = engines[0].text("SELECT * FROM spectrum", ["spectrum"], Cone(1.0, 0.2, 0.001))
    plan = engines[0]._database.transaction(
        lambda connection: [
            connection.execute("SET LOCAL enable_seqscan = off"),
            connection.execute(f"EXPLAIN {text}".encode()).fetchall(),
        ][1]
    )
    assert any("spectrum_zone" in row[0] for row in plan)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT nosuch FROM spectrum", "nosuch"),
        ("SELECT * FROM nosuch", "nosuch"),
        ("SELEC 1", "SELECT or WITH"),
        ("SELECT FROM WHERE", ""),
        ("SELECT 1; DROP TABLE spectrum", "one statement"),
        ("DROP TABLE spectrum", "SELECT or WITH"),
        ("DELETE FROM spectrum", "SELECT or WITH"),
        ("WITH gone AS (DELETE FROM spectrum RETURNING *) SELECT * FROM gone", ""),
        ("SELECT * FROM read_parquet('/etc/passwd')", "read_parquet"),
        ("SELECT 1) UNION (SELECT 2", ""),
        ("", ""),
        ("SELECT " + " + ".join(["1"] * 500), "too long"),
        ("SELECT s.z, p.z FROM spectrum AS s JOIN score AS p USING (targetid)", "z"),
    ],
)
def test_wrong_statement_is_one_line_and_exit_2(engines, statement: str, expected: str) -> None:
    for engine in engines:
        if not statement:
            continue
        with pytest.raises(ConfigError) as caught:
            ask(engine, Question(statement))
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
    assert ask(engines[0], Question("SELECT count(*) AS n FROM spectrum")).item() == 160


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (Question(columns=["redshift"]), "no column 'redshift'"),
        (Question(where="zz > 2"), "did you mean z?"),
        (Question(where="z > 2; drop table spectrum"), "one expression"),
        (Question(where="z > 2) or (1=1"), "--where"),
        (Question(sort="scor"), "did you mean score?"),
        (Question(table="spectra"), "tables are pixel, spectrum"),
        (Question(table="pixel", area=Cone(0, 0, 1)), "no positions"),
    ],
)
def test_wrong_part_is_named(engines, question: Question, expected: str) -> None:
    for engine in engines:
        with pytest.raises(ConfigError) as caught:
            ask(engine, question)
        assert expected in str(caught.value)


def test_places_are_read_with_their_units() -> None:
    assert parse_cone("10.5, -41,5arcmin") == Cone(10.5, -41.0, 5 / 60)
    assert parse_cone('0,90,2"').radius == pytest.approx(2 / 3600)
    assert parse_cone("360,0,1 deg").ra == 0
    assert parse_box("350,10,-5,5") == Box(350, 10, -5, 5)
    for wrong in ("1,2", "1,2,3", "1,2,3parsec", "400,0,1deg", "0,91,1deg", "0,0,-1deg", "nan,0,1deg", "a,b,cdeg"):
        with pytest.raises(ConfigError, match="--cone"):
            parse_cone(wrong)
    for wrong in ("1,2,3", "0,10,5,-5", "0,400,0,1", "x,1,2,3"):
        with pytest.raises(ConfigError, match="--box"):
            parse_box(wrong)


def test_slow_query_is_given_up(work, database) -> None:
    work.spectra(5)
    config = work.config(database.dsn, query_timeout_s=0.2)
    index(config, RunOptions(jobs=1))
    with open_engine(config, "postgres") as (engine, _), pytest.raises(ServiceError, match=r"no answer in 0\.2 s"):
        ask(engine, Question("SELECT pg_sleep(20)"))


def test_engine_is_the_one_that_is_up_to_date(work, database) -> None:
    work.spectra(5)
    config = work.config(database.dsn)
    with open_engine(config, "auto") as (engine, reason):
        assert isinstance(engine, Files)
        assert "sync" in reason
    index(config, RunOptions(jobs=1))
    with open_engine(config, "auto") as (engine, reason):
        assert isinstance(engine, Postgres)
        assert not reason
    work.spectra(5, healpix=48)
    with open_engine(config, "auto") as (engine, reason):
        assert isinstance(engine, Files)
        assert "1 files behind" in reason
    with open_engine(config, "postgres") as (engine, reason):
        assert ask(engine, Question()).height == 5
        assert "behind" in reason
    away = work.config("postgresql://nobody@127.0.0.1:1/none")
    with open_engine(away, "auto") as (engine, reason):
        assert ask(engine, Question()).height == 10
        assert "127.0.0.1" in reason
    with pytest.raises(ServiceError), open_engine(away, "postgres"):
        pass
    with pytest.raises(ConfigError), open_engine(work.config(""), "postgres"):
        pass


def test_files_that_are_damaged_or_none_are_told(work) -> None:
    files = Files(Workspace(work.root))
    assert ask(files, Question(columns=["targetid", "score", "label"])).height == 0
    path = work.spectra(5)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"main-dark-47\.parquet"):
        ask(files, Question())
