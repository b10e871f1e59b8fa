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

from pydantic import SecretStr, ValidationError

from qad import parallel
from qad.errors import ConfigError
from qad.parallel import Share
from qad.settings import (
    SECTIONS,
    BuildGrid,
    Cluster,
    Crossmatch,
    Evaluate,
    Extract,
    Fetch,
    Index,
    Inspect,
    Measure,
    Paths,
    Publish,
    Score,
    Section,
    Train,
)
from qad.workspace import Workspace

FILE_NAME = "qad.toml"
ENV_PREFIX = "QAD_"


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
    measure: Measure
    crossmatch: Crossmatch
    inspect: Inspect
    evaluate: Evaluate
    publish: Publish
    cluster: Cluster
    index: Index
    file: Path | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The work directory, absolute: relative to ``qad.toml`` when the value comes from it, else to here.

        Raises
        ------
        ConfigError
            If it names a variable that is not set, or the home of a user that there is not.
        """
        return Path(os.path.normpath(self.path_of("paths.root")))

    def base_of(self, key: str) -> Path:
        """Return what relative paths of a key are relative to: the folder of ``qad.toml`` if they stand there, else here."""
        if self.file is not None and self.origins.get(key, "default") in ("default", str(self.file)):
            return self.file.parent
        return Path.cwd()

    def path_of(self, key: str) -> Path:
        """Return the path that a key, such as ``paths.root``, names.

        Raises
        ------
        ConfigError
            If it names a variable that is not set, or the home of a user that there is not.
        """
        section, _, name = key.partition(".")
        origin = self.origins.get(key, "default")
        return self.base_of(key) / _expanded(getattr(getattr(self, section), name), f"{origin}: {key}")

    @property
    def workspace(self) -> Workspace:
        """The paths of the work directory."""
        return Workspace(self.root)

    def is_locked_by_its_stage(self, verb: str) -> bool:
        """Return whether a stage locks the work directory itself: of processes that train together only the first one does."""
        return verb == "train" and bool(self.train.coordinator)

    def cluster_for(self, share: Share | None = None, is_asked: bool = True) -> parallel.Cluster | None:
        """Return the Dask cluster to run on, None without one.

        A share of the units runs on this machine: `share` beats ``cluster.scheduler``, unless that `is_asked` for beside it.

        Raises
        ------
        ConfigError
            If both are asked for.
        """
        if not self.cluster.scheduler:
            return None
        if share is not None and is_asked:
            raise ConfigError("--shard and --scheduler exclude each other: a cluster shares the units out by itself")
        return None if share else parallel.Cluster(self.cluster.scheduler, self.cluster.timeout_s, self.root)

    def section(self, name: str) -> dict[str, Any]:
        """Return a section as JSON types, without secrets: what provenance records."""
        section: Section = getattr(self, name)
        return section.model_dump(mode="json", exclude={"dsn"})

    def items(self) -> Iterator[tuple[str, str, Any, str]]:
        """Yield (section, key, JSON value, origin) for every key; a secret shows as ``**********`` or empty."""
        for section in SECTIONS:
            for key, value in getattr(self, section).model_dump(mode="json").items():
                yield section, key, value, self.origins.get(f"{section}.{key}", "default")


def _expanded(text: str, place: str) -> Path:
    """Return a path with ``$VAR`` and ``~`` replaced by what they stand for."""
    found = os.path.expandvars(text)
    unset = re.search(r"\$(\w+|\{[^}]*\})", found)
    if unset:
        raise ConfigError(f"{place}: {text!r} names {unset.group()}, which the environment does not set")
    try:
        return Path(found).expanduser()
    except RuntimeError:
        raise ConfigError(f"{place}: {text!r}: there is no such user") from None


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
    guess = with_unit or difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {guess[0]}?" if guess else ""


def _read_file(file: Path) -> Iterator[tuple[str, str, Any]]:
    try:
        text = file.read_bytes().decode("utf-8-sig")  # editors on Windows put a byte-order mark first
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_toml_mistake(file, text, str(error))) from None
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


def _toml_mistake(file: Path, text: str, message: str) -> str:
    """Return what is wrong with the line and the key, but never the value: it can be a secret."""
    found = re.search(r" \(at line (\d+), column \d+\)", message)
    if found is None:
        return f"{file}: not TOML: {message}"
    source = text.splitlines()[int(found.group(1)) - 1].strip()
    name, equals, _value = source.partition("=")
    shown = source if source.startswith("[") else name.strip() if equals else ""
    return f"{file}:{found.group(1)}: {shown[:80]}{': ' if shown else ''}not TOML: {message.replace(found.group(), '')}"


def _line_of(text: str, section: str, key: str | None = None) -> int:
    """Return the line, from 1, of a section's header or of a key in it (the header's if the key is not found)."""
    header, inside, in_text = 0, False, False
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        was_in_text, in_text = in_text, in_text ^ bool((line.count('"""') + line.count("'''")) % 2)
        if was_in_text:
            continue
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
    for key, value in values.items():
        # to Python true is 1
        if isinstance(value, bool) and model.model_fields[key].annotation in (int, float):
            place = _place(name, key, origins, file)
            raise ConfigError(f"{place}: {name}.{key}: input should be a number, not {str(value).lower()}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0])
        origin = _place(name, key, origins, file)
        is_secret = model.model_fields[key].annotation is SecretStr
        shown = "" if is_secret else f", not {first['input']!r}"
        text = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{origin}: {name}.{key}: {text[:1].lower() + text[1:]}{shown}") from None


def _place(section: str, key: str, origins: Mapping[str, str], file: Path | None) -> str:
    """Return where a value came from, a file with its line."""
    origin = origins.get(f"{section}.{key}", "default")
    if file is None or origin != str(file):
        return origin
    return f"{file}:{_line_of(file.read_text('utf-8-sig'), section, key)}"


def _check_ranges(config: Config) -> None:
    _expanded(config.paths.root, _place("paths", "root", config.origins, config.file) + ": paths.root")
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
