"""``qad.toml`` to frozen settings: one section a stage, every value with its origin.

Precedence: command-line flag > ``--set section.key=value`` > ``QAD_<SECTION>__<KEY>`` > file > default.  An unknown
key, a wrong type or an impossible value is a ConfigError that names the place and the nearest known key.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from qad.errors import ConfigError
from qad.workspace import Workspace

FILE_NAME = "qad.toml"
ENV_PREFIX = "QAD_"


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
    limit: int = Field(0, ge=0, description="stop after this many pixels; 0: no limit")
    mode: Literal["files"] = Field(
        "files", description="files: whole coadd and redrock files, verified by the release's SHA-256 lists"
    )
    endpoint_url: str = Field("", description="another S3 server; empty: AWS, or AWS_ENDPOINT_URL_S3")
    region: str = Field("us-west-2", description="region of the bucket")
    anonymous: bool = Field(True, description="send unsigned requests, as a public bucket takes them")
    connections: int = Field(8, ge=1, le=256, description="files in flight")
    part_mib: int = Field(8, ge=1, le=1024, description="size of one range request, MiB")
    retries: int = Field(8, ge=0, le=100, description="attempts after the first, per request")
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
        {"local": 1.0, "latent": 0.5, "line": 1.0}, description="weight of each view in the score"
    )
    artefact_threshold: float = Field(
        0.5, ge=0, le=1, description="artefact probability above which a spectrum ranks below real candidates"
    )
    keep_artefacts: bool = Field(False, description="rank probable artefacts by score alone")
    batch_size: int = Field(512, ge=1, description="spectra in a step")


class Crossmatch(Section):
    """Which catalogues to match the candidates with."""

    name: str = Field("default", description="model whose candidates are matched")
    catalogs: list[str] = Field([], description="catalogue files: FITS, Parquet, CSV or VOTable")
    radius_arcsec: float = Field(1.5, gt=0, le=3600, description="largest separation, arcsec")
    top: int = Field(1000, ge=0, description="candidates to match, from rank 1; 0: all")
    ra_column: str = Field("", description="right ascension column, degrees; empty: found by name")
    dec_column: str = Field("", description="declination column, degrees; empty: found by name")
    id_column: str = Field("", description="identifier column; empty: found by name, else the row number")
    columns: list[str] = Field([], description="further columns to carry over, with the prefix cat_")
    keep_unmatched: bool = Field(False, description="write a row for candidates without a match")


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


class Index(Section):
    """The optional PostgreSQL index; the files stay the truth."""

    dsn: SecretStr = Field(
        SecretStr(""), description="connection string, such as postgresql://user@host/qad; empty: no index"
    )
    db_schema: str = Field("qad", description="schema that holds the tables")
    timeout_s: float = Field(10.0, gt=0, description="seconds to wait for the server")


SECTIONS: dict[str, type[Section]] = {
    "paths": Paths,
    "fetch": Fetch,
    "extract": Extract,
    "build_grid": BuildGrid,
    "train": Train,
    "score": Score,
    "crossmatch": Crossmatch,
    "inspect": Inspect,
    "index": Index,
}


@dataclass(frozen=True)
class Config:
    """The settings of a run, resolved.

    Attributes
    ----------
    file : Path or None
        The ``qad.toml`` that was read.
    origins : mapping of str to str
        Where each ``section.key`` that is not a default came from.
    """

    paths: Paths
    fetch: Fetch
    extract: Extract
    build_grid: BuildGrid
    train: Train
    score: Score
    crossmatch: Crossmatch
    inspect: Inspect
    index: Index
    file: Path | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The work directory, absolute: relative to ``qad.toml`` when the value comes from it, else to here."""
        text = os.path.expandvars(self.paths.root)
        path = Path(text).expanduser()
        origin = self.origins.get("paths.root", "default")
        from_file = self.file is not None and origin in ("default", str(self.file))
        base = self.file.parent if from_file and self.file is not None else Path.cwd()
        return Path(os.path.normpath(base / path))

    @property
    def workspace(self) -> Workspace:
        """The paths of the work directory."""
        return Workspace(self.root)

    def section(self, name: str) -> dict[str, Any]:
        """Return a section as JSON types, without secrets: what provenance records."""
        section: Section = getattr(self, name)
        return section.model_dump(mode="json", exclude={"dsn"})

    def items(self) -> Iterator[tuple[str, str, Any, str]]:
        """Yield (section, key, JSON value, origin) for every key; a secret shows as ``**********`` or empty."""
        for section in SECTIONS:
            for key, value in getattr(self, section).model_dump(mode="json").items():
                yield section, key, value, self.origins.get(f"{section}.{key}", "default")


def load_config(
    path: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    settings: list[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read the configuration.

    Parameters
    ----------
    path : path-like, optional
        The file; without it ``QAD_CONFIG``, else the nearest ``qad.toml`` upward from here, else the user's own.
    overrides : mapping, optional
        ``section.key`` to value: the command-line flags.  None means that the flag was not given.
    settings : list of str, optional
        ``section.key=value`` texts of ``--set``.
    environ : mapping, optional
        The environment; `os.environ` by default.

    Raises
    ------
    ConfigError
        If a file, key or value is wrong.
    """
    environ = os.environ if environ is None else environ
    file = find_config(path, environ)
    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}

    def put(section: str, key: str, value: Any, origin: str) -> None:
        values.setdefault(section, {})[key] = value
        origins[f"{section}.{key}"] = origin

    if file is not None:
        for section, key, value in _read_file(file):
            put(section, key, value, str(file))
    for section, key, value, origin in _read_environment(environ):
        put(section, key, value, origin)
    for text in settings or []:
        section, key, value = _read_setting(text)
        put(section, key, value, f"--set {section}.{key}")
    for name, value in (overrides or {}).items():
        if value is not None:
            section, _, key = name.partition(".")
            check_key(section, key, "argument")
            put(section, key, value, f"--{key.replace('_', '-')}")

    sections = {name: _validate(name, model, values.get(name, {}), origins, file) for name, model in SECTIONS.items()}
    config = Config(**sections, file=file, origins=origins)  # type: ignore[arg-type]
    _check_ranges(config)
    return config


def find_config(path: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file to read, or None for the built-in defaults."""
    named = path or environ.get(ENV_PREFIX + "CONFIG")
    if named:
        file = Path(named).expanduser()
        if not file.is_file():
            raise ConfigError(f"{file}: no such configuration file; `qad config --init` writes one")
        return file.absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    import platformdirs  # 20 ms, and only wanted when nothing nearer was found

    user = Path(platformdirs.user_config_dir("qad")) / FILE_NAME
    return user if user.is_file() else None


def check_key(section: str, key: str, place: str) -> None:
    """Raise ConfigError, with the nearest known name, unless `section`.`key` exists."""
    if section not in SECTIONS:
        raise ConfigError(f"{place}: unknown section [{section}]{_nearest(section, list(SECTIONS))}")
    known = list(SECTIONS[section].model_fields)
    if key not in known:
        elsewhere = [f"{s}.{key}" for s, model in SECTIONS.items() if key in model.model_fields]
        hint = _nearest(key, known) or (
            f"; did you mean {elsewhere[0]}?" if elsewhere else f"; known: {', '.join(known)}"
        )
        raise ConfigError(f"{place}: unknown key {section}.{key}{hint}")


def _nearest(word: str, known: list[str]) -> str:
    # a unit that was forgotten ("timeout" for "timeout_s") is a better guess than any edit distance
    with_unit = [name for name in known if name.startswith(word + "_")]
    guess = with_unit or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {guess[0]}?" if guess else ""


def _read_file(file: Path) -> Iterator[tuple[str, str, Any]]:
    try:
        text = file.read_bytes().decode("utf-8-sig")  # editors on Windows put a byte-order mark first
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    for name, table in document.items():
        section = name.replace("-", "_")
        place = f"{file}:{_line_of(text, name)}"
        if not isinstance(table, dict):
            raise ConfigError(f"{place}: key {name!r} stands outside a section; known sections: {', '.join(SECTIONS)}")
        if section not in SECTIONS:
            check_key(section, "", place)
        for key, value in table.items():
            check_key(section, key.replace("-", "_"), f"{file}:{_line_of(text, name, key)}")
            yield section, key.replace("-", "_"), value


def _line_of(text: str, section: str, key: str | None = None) -> int:
    """Return the line, from 1, of a section's header or of a key in it (the header's if the key is not found)."""
    header, inside = 0, False
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            inside = stripped.lstrip("[").split("]")[0].strip().strip("\"'") == section
            header = number if inside else header
        elif (inside and key is not None and _sets(stripped, key)) or (key is None and _sets(stripped, section)):
            return number
    return header or 1


def _sets(line: str, key: str) -> bool:
    return re.match(rf"[\"']?{re.escape(key)}[\"']?\s*[=.]", line) is not None


def _read_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, Any, str]]:
    if environ.get(ENV_PREFIX + "ROOT"):
        yield "paths", "root", environ[ENV_PREFIX + "ROOT"], ENV_PREFIX + "ROOT"
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or "__" not in name:
            continue
        section, _, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
        check_key(section, key, f"environment variable {name}")
        yield section, key, _parse_text(section, key, environ[name]), name


def _read_setting(text: str) -> tuple[str, str, Any]:
    name, equals, value = text.partition("=")
    section, _, key = name.strip().replace("-", "_").partition(".")
    if not equals or not key:
        raise ConfigError(f"--set {text}: write it as section.key=value")
    check_key(section, key, f"--set {text}")
    return section, key, _parse_text(section, key, value.strip())


def _parse_text(section: str, key: str, text: str) -> Any:
    """Read a value from text as TOML would; a text field takes it as it is, a list also takes commas."""
    annotation = SECTIONS[section].model_fields[key].annotation
    if annotation in (str, SecretStr):
        return text
    if get_origin(annotation) is list and not text.startswith("["):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _validate(
    name: str, model: type[Section], values: dict[str, Any], origins: Mapping[str, str], file: Path | None
) -> Section:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0])
        origin = origins.get(f"{name}.{key}", "default")
        if file is not None and origin == str(file):
            origin = f"{file}:{_line_of(file.read_text('utf-8-sig'), name, key)}"
        is_secret = model.model_fields[key].annotation is SecretStr
        shown = "" if is_secret else f", not {first['input']!r}"
        text = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{origin}: {name}.{key}: {text[:1].lower() + text[1:]}{shown}") from None


def _check_ranges(config: Config) -> None:
    for section, low, high in (
        ("extract", "z_min", "z_max"),
        ("extract", "min_wave", "max_wave"),
        ("build_grid", "rest_min", "rest_max"),
    ):
        values = getattr(config, section)
        if getattr(values, low) >= getattr(values, high):
            raise ConfigError(
                f"{section}.{low} = {getattr(values, low)} must lie below {section}.{high} = {getattr(values, high)}"
            )
    if config.build_grid.validation_share + config.build_grid.test_share >= 1:
        raise ConfigError("build_grid.validation_share and build_grid.test_share leave nothing to train on")


def default_toml() -> str:
    """Return a ``qad.toml`` with every key, its help and its default: what ``qad config --init`` writes."""
    lines = [
        "# qad: settings of every stage.  Each key stands at its default; delete what you do not change.",
        "# Precedence: flag > --set section.key=value > QAD_<SECTION>__<KEY> > this file > default.",
    ]
    for name, model in SECTIONS.items():
        lines += ["", f"# {model.__doc__}", f"[{name}]"]
        section = model()
        for key, info in model.model_fields.items():
            default = getattr(section, key)
            shown = default.get_secret_value() if isinstance(default, SecretStr) else default
            lines += [f"# {info.description}{_bounds(info.metadata, info.annotation)}", f"{key} = {as_toml(shown)}"]
    return "\n".join(lines) + "\n"


def _bounds(metadata: list[Any], annotation: Any) -> str:
    symbols = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    parts = [f"{symbols[name]} {getattr(item, name):g}" for item in metadata for name in symbols if hasattr(item, name)]
    if get_origin(annotation) is Literal:
        parts.append("one of " + ", ".join(annotation.__args__))
    return f" ({', '.join(parts)})" if parts else ""


def as_toml(value: Any) -> str:
    """Return a JSON value as TOML text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {as_toml(item)}" for key, item in value.items()) + " }"
    return repr(value)
