"""The keys of ``qad.toml``: one section a stage, each key with its default, bounds and help text.

:mod:`qad.config` finds, merges and checks them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Section(BaseModel):
    """A section of the configuration; each field carries its help text, unit and bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, ser_json_inf_nan="constants")


class Paths(Section):
    """Where qad keeps what it writes."""

    root: str = Field(
        "data",
        description="work directory; relative to this file, or to the current folder without one; ~ and $VAR are expanded",
    )


class Fetch(Section):
    """Which files of the release to fetch, and how."""

    source: str = Field(
        "s3://desidata/dr1/spectro/redux/iron",
        description="S3 URL or local folder that holds the production's healpix/ folder",
    )
    release: str = Field("dr1", description="name of the release; files land below raw/<release>/")
    survey: list[str] = Field([], description="only these surveys (main, sv1, sv2, sv3, special, cmx); empty: all")
    program: list[str] = Field([], description="only these programs (dark, bright, backup, other); empty: all")
    healpix: list[int] = Field([], description="only these pixels (nside 64, nested); empty: all")
    pixels: str = Field(
        "",
        description="table of the pixels to fetch (FITS, Parquet, CSV): HEALPIX, with SURVEY and PROGRAM where it has them",
    )
    tilepix: bool = Field(False, description="only the pixels that the source's own healpix/tilepix.fits names")
    targets: str = Field(
        "",
        description="table of the targets to fetch (FITS, Parquet, CSV): TARGETID, or TARGET_RA and TARGET_DEC, with SURVEY, PROGRAM and HEALPIX where it has them; empty: by spectype and zwarn",
    )
    radius_arcsec: float = Field(
        1.0, gt=0, le=60, description="how far a target may lie from a listed position, arcsec"
    )
    limit: int = Field(0, ge=0, description="stop after this many pixels; 0: no limit")
    mode: Literal["rows", "hdus", "files"] = Field(
        "rows",
        description="how much of the coadds. rows: the wanted rows; hdus: all rows of pixels with wanted ones, without resolution matrices; files: all",
    )
    spectype: list[str] = Field(["QSO"], description="redrock classes whose rows are wanted")
    zwarn: int = Field(0, ge=0, description="ZWARN bits that wanted rows may have set")
    resolution: bool = Field(False, description="the resolution matrices too: five times the bytes")
    endpoint_url: str = Field("", description="another S3 server; empty: AWS, or AWS_ENDPOINT_URL_S3")
    region: str = Field("us-west-2", description="region of the bucket")
    anonymous: bool = Field(True, description="send unsigned requests, as a public bucket takes them")
    connections: int = Field(
        128, ge=1, le=1024, description="requests under way at once; of large ones a quarter as many at most"
    )
    processes: int = Field(
        0, ge=0, le=64, description="processes that share the pixels and the connections; 0: as suits the work"
    )
    part_mib: int = Field(16, ge=1, le=1024, description="longest range request of a whole file, MiB")
    retries: int = Field(
        8, ge=0, le=100, description="attempts after the first, per request; all requests share a budget of 500"
    )
    timeout_s: float = Field(30.0, gt=0, description="seconds without a byte before a request is repeated")
    resume: bool = Field(True, description="continue partial files; false starts them again")


class Extract(Section):
    """Which rows are quasars, and which of their pixels count."""

    source: str = Field("", description="local release tree to read; empty: what fetch has put below raw/<release>")
    survey: list[str] = Field([], description="only these surveys; empty: all")
    program: list[str] = Field([], description="only these programs; empty: all")
    healpix: list[int] = Field([], description="only these pixels; empty: all")
    limit: int = Field(0, ge=0, description="stop after this many pixels; 0: no limit")
    spectype: list[str] = Field(["QSO"], description="redrock classes to keep")
    zwarn: int = Field(0, ge=0, description="ZWARN bits that are allowed to be set")
    objtype: list[str] = Field(["TGT"], description="OBJTYPE values to keep; a file without the column is taken whole")
    fiberstatus: int = Field(
        8, ge=0, description="COADD_FIBERSTATUS bits that are allowed to be set (bit 3, RESTRICTED, is harmless)"
    )
    z_min: float = Field(0.0, gt=-1, description="lowest redshift")
    z_max: float = Field(7.0, gt=-1, description="highest redshift")
    min_wave: float = Field(
        3600.0, gt=0, description="shortest observed wavelength to keep, Å; pixels outside get ivar 0"
    )
    max_wave: float = Field(9824.0, gt=0, description="longest observed wavelength to keep, Å")
    verify_datasum: bool = Field(True, description="refuse a file whose HDUs do not match their DATASUM")


class BuildGrid(Section):
    """The wavelength grid and the normalisation."""

    frame: Literal["rest", "observed"] = Field("rest", description="frame of the grid")
    dloglam: float = Field(2e-4, ge=2e-5, le=5e-3, description="pixel width in log10 of wavelength (1e-4: 69 km/s)")
    rest_min: float = Field(800.0, gt=0, description="blue end of the rest-frame grid, Å")
    rest_max: float = Field(9824.0, gt=0, description="red end of the rest-frame grid, Å")
    deredden: bool = Field(True, description="undo Galactic extinction, from EBV")
    r_v: float = Field(3.1, gt=1, le=6, description="R_V of the extinction law")
    min_good: int = Field(200, ge=1, description="fewest good grid pixels a spectrum may have")
    shards: int = Field(128, ge=1, le=4096, description="files the table is split over, by a hash of TARGETID")
    validation_share: float = Field(0.05, ge=0, lt=1, description="share of targets held out for validation")
    test_share: float = Field(0.05, ge=0, lt=1, description="share of targets held out for tests")


class Train(Section):
    """The model and how it is trained."""

    name: str = Field("default", description="name of the model")
    arch: Literal["rest-frame", "mlp", "factor"] = Field(
        "rest-frame",
        description="rest-frame: decoder of the rest frame on a factor model; factor: the factor model alone; mlp: the plain baseline",
    )
    n_latent: int = Field(10, ge=1, le=256, description="size of the latent space (mlp: see encoding_dim)")
    hidden: list[int] = Field([256, 128], description="hidden layers of the encoder, mirrored in the decoder")
    encoding_dim: int = Field(32, ge=1, le=1024, description="latent size of the mlp")
    mlp_hidden: list[int] = Field([512, 256, 128, 64], description="hidden layers of the mlp")
    mlp_pixels: int = Field(1000, ge=16, description="pixels that the mlp sees")
    vae: bool = Field(False, description="variational: sample the latent and add the KL divergence")
    vae_beta: float = Field(1.0, ge=0, description="weight of the KL divergence")
    epochs: int = Field(30, ge=1, description="passes over the training spectra")
    batch_size: int = Field(256, ge=1, description="spectra in a step")
    learning_rate: float = Field(
        0.0, ge=0, description="peak learning rate of AdamW; 0: what suits the architecture (rest-frame 2e-4, mlp 1e-3)"
    )
    weight_decay: float = Field(1e-2, ge=0, description="weight decay of AdamW")
    clip_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    em_iterations: int = Field(20, ge=1, description="passes of expectation-maximisation for the factor model")
    trim: float = Field(0.04, ge=0, lt=0.5, description="share of worst-fitting spectra kept out of the loss")
    seed: int = Field(0, ge=0, description="seed of every random number")
    checkpoint_minutes: float = Field(10.0, gt=0, description="minutes between checkpoints; the last two are kept")
    resume: bool = Field(True, description="continue from the last checkpoint")
    devices: int = Field(0, ge=0, description="devices of each process to train on; 0: all")
    coordinator: str = Field(
        "",
        description="HOST:PORT at which several processes meet, served by the first; auto: as Slurm, Kubernetes or MPI say; empty: one process",
    )
    processes: int = Field(
        0, ge=0, description="how many processes train together; 0: as the launcher's environment says"
    )
    process_id: int = Field(
        -1, ge=-1, description="number of this process, from 0; -1: as the launcher's environment says"
    )
    peer_timeout_s: float = Field(
        120.0, gt=0, description="seconds to wait for the other processes at the start, and without a sign of life"
    )


class Score(Section):
    """How spectra are ranked."""

    name: str = Field("default", description="model to score with, below models/; also the name of the scores")
    model: str = Field("", description="folder of a model trained elsewhere; empty: models/<name>")
    calibration: str = Field(
        "",
        description="calibration of another run (scores/<name>.calibration.npz); empty: from these spectra, or beside the model",
    )
    min_population: int = Field(
        1000,
        ge=1,
        description="fewest spectra to calibrate on; with fewer, the model's own calibration is used if there is one",
    )
    windows_kms: list[float] = Field(
        [300.0, 900.0, 2000.0, 4500.0, 9000.0, 19000.0, 38000.0], description="widths of the residual windows, km/s"
    )
    neighbours: int = Field(200, ge=20, description="spectra of like S/N and redshift that calibrate each one")
    weights: dict[str, float] = Field(
        {"local": 1.0, "latent": 0.5, "line": 1.0, "class": 1.0}, description="weight of each view in the score"
    )
    artefact_threshold: float = Field(
        0.5, ge=0, le=1, description="artefact probability above which a spectrum ranks below real candidates"
    )
    keep_artefacts: bool = Field(False, description="rank probable artefacts by score alone")
    batch_size: int = Field(512, ge=1, description="spectra in a step")


class Measure(Section):
    """What is measured on the spectra of candidates."""

    name: str = Field("default", description="model whose candidates are measured")
    top: int = Field(1000, ge=0, description="candidates to measure, from rank 1; 0: all")
    templates: str = Field(
        "",
        description="folder of redrock-templates (rrtemplate-QSO-*.fits) for other redshifts and drawings; empty: a composite made here",
    )


class Crossmatch(Section):
    """Which catalogues to match the candidates with."""

    name: str = Field("default", description="model whose candidates are matched")
    catalogs: list[str] = Field(
        [],
        description="catalogues: files (FITS, Parquet, CSV, VOTable, HATS), known ones (PRESET, PRESET:FILE), vizier:TABLE, tap:URL#TABLE; NAME= before it names it",
    )
    radius_arcsec: float = Field(
        1.5, gt=0, le=3600, description="largest separation, arcsec; known catalogues have their own unless this is set"
    )
    epoch: float = Field(
        2015.5,
        ge=1900,
        le=2100,
        description="epoch of the candidates' positions, Julian year (DESI's REF_EPOCH): sources with proper motions are moved there",
    )
    top: int = Field(1000, ge=0, description="candidates to match, from rank 1; 0: all")
    ra_column: str = Field("", description="right ascension column, degrees; empty: found by name")
    dec_column: str = Field("", description="declination column, degrees; empty: found by name")
    id_column: str = Field("", description="identifier column; empty: found by name, else the row number")
    columns: list[str] = Field([], description="further columns to carry over, with the prefix cat_")
    keep_unmatched: bool = Field(False, description="write a row for candidates without a match")
    annulus_arcsec: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="how far around candidates a service is asked, arcsec: the ring beyond the radius measures chance matches",
    )
    xmatch_url: str = Field(
        "http://cdsxmatch.u-strasbg.fr/xmatch/api/v1/sync", description="address of the CDS X-Match service"
    )
    tap_url: str = Field("", description="TAP service of the known catalogues; empty: each one's own")
    chunk: int = Field(5000, ge=1, le=500_000, description="positions in a question to a service")
    retries: int = Field(5, ge=0, le=100, description="attempts after the first, per question")
    timeout_s: float = Field(300.0, gt=0, description="seconds to wait for a service's answer")


class Inspect(Section):
    """How candidates are shown."""

    name: str = Field("default", description="model whose scores are shown")
    model: str = Field(
        "", description="folder of the model if it lies elsewhere; empty: as score.model says, or models/<name>"
    )
    top: int = Field(20, ge=1, description="rows shown")
    columns: list[str] = Field(
        ["rank", "targetid", "survey", "program", "z", "snr", "score", "p_value", "artefact", "reason"],
        description="columns of the table",
    )
    where: str = Field("", description="only rows for which this SQL expression holds, e.g. z > 2 and artefact < 0.5")
    sort: str = Field("rank", description="column that orders the rows; a leading - sorts downwards")
    targetid: list[int] = Field([], description="only these targets; empty: the first rows of the order")
    smooth_px: int = Field(7, ge=1, le=501, description="pixels of the running mean in plots")
    frame: Literal["rest", "observed"] = Field(
        "rest", description="wavelengths of the lower axis and of zoom; the other ones stand above"
    )
    zoom: str = Field(
        "", description="stretch of wavelength in plots, Å: 1450:1620; empty: all, and the driving region beside it"
    )
    layers: list[Literal["raw", "error", "model", "lines", "residual", "zoom"]] = Field(
        ["raw", "error", "model", "lines", "residual", "zoom"],
        description="what plots show beside the running mean; zoom: the driving region in a second panel",
    )
    graphics: Literal["auto", "text", "kitty", "iterm2", "sixel"] = Field(
        "auto", description="how the terminal is drawn on; auto: as the terminal answers"
    )
    background: Literal["auto", "dark", "light"] = Field("auto", description="of the terminal, and of pictures")


class Evaluate(Section):
    """How well anomalies are found: what is planted into held-out spectra, and what it stands for."""

    name: str = Field("default", description="model whose scores are evaluated")
    spectra: int = Field(
        1000, ge=10, le=1_000_000, description="spectra to plant something into, a fifth of them artefacts"
    )
    classes: list[str] = Field([], description="anomaly classes to plant, as `qad simulate` knows them; empty: all")
    prevalence: float = Field(
        0.01, gt=0, lt=0.5, description="share of anomalies among spectra, for precision and average precision"
    )
    artefact_prevalence: float = Field(
        0.01, ge=0, lt=0.5, description="the same of artefacts, for their share of the first"
    )
    top: list[int] = Field([100, 1000], description="lengths of the list that somebody would look through")
    truth: str = Field(
        "",
        description="truth.parquet of a simulated release, to judge the scores by it instead of planting; empty: the one in extract.source if there is one; none: plant",
    )
    seed: int = Field(0, ge=0, description="seed of every random number")


class Publish(Section):
    """What a catalogue for publication holds."""

    name: str = Field("default", description="model whose candidates are published")
    top: int = Field(500, ge=0, description="candidates, from rank 1; 0: all that are left")
    where: str = Field("", description="only rows for which this SQL expression holds, e.g. z > 2 and snr > 3")
    labels: list[str] = Field([], description="only candidates with one of these labels; empty: labelled or not")
    artefact_max: float = Field(0.5, ge=0, le=1, description="highest artefact probability of a published candidate")
    title: str = Field("Anomalous quasars in DESI", description="title of the catalogue")
    authors: list[str] = Field([], description="authors, Family, Given; empty: to be filled in")
    version: str = Field("1.0", description="version of the catalogue")


class Cluster(Section):
    """The optional Dask cluster that runs extract, build-grid, score and crossmatch."""

    scheduler: str = Field(
        "",
        description="address of a running Dask scheduler (tcp://host:8786), or its scheduler file; empty: the cores of this machine",
    )
    timeout_s: float = Field(
        30.0, gt=0, description="seconds to wait for the scheduler, and for a worker while there is none"
    )


class Index(Section):
    """The optional PostgreSQL index; the files stay the truth."""

    dsn: SecretStr = Field(
        SecretStr(""), description="connection string, such as postgresql://user@host/qad; empty: no index"
    )
    db_schema: str = Field("qad", description="schema that holds the tables")
    timeout_s: float = Field(10.0, gt=0, description="seconds to wait for the server")
    query_timeout_s: float = Field(60.0, gt=0, description="seconds after which the server gives a query up")


SECTIONS: dict[str, type[Section]] = {
    "paths": Paths,
    "fetch": Fetch,
    "extract": Extract,
    "build_grid": BuildGrid,
    "train": Train,
    "score": Score,
    "measure": Measure,
    "crossmatch": Crossmatch,
    "inspect": Inspect,
    "evaluate": Evaluate,
    "publish": Publish,
    "cluster": Cluster,
    "index": Index,
}
