"""qad.toml, the environment and flags: precedence, origins, and one clear line for every mistake."""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from qad.config import default_toml, load_config
from qad.errors import ConfigError
from qad.settings import SECTIONS

REPOSITORY = Path(__file__).resolve().parents[2]


def write(folder: Path, text: str) -> Path:
    file = folder / "qad.toml"
    file.write_text(text)
    return file


def error_of(*args: object, **kwargs: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(*args, **kwargs)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_flag_beats_set_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = write(tmp_path, "[train]\nepochs = 2\nseed = 2\nbatch_size = 2\nn_latent = 2\n")
    environ = {"QAD_TRAIN__EPOCHS": "3", "QAD_TRAIN__SEED": "3", "QAD_TRAIN__BATCH_SIZE": "3"}
    config = load_config(file, {"train.epochs": 5, "train.trim": None}, ["train.epochs=4", "train.seed=4"], environ)
    assert (config.train.epochs, config.train.seed, config.train.batch_size, config.train.n_latent) == (5, 4, 3, 2)
    assert config.train.trim == SECTIONS["train"]().trim  # type: ignore[attr-defined]
    assert config.origins["train.epochs"] == "--epochs"
    assert config.origins["train.seed"] == "--set train.seed"
    assert config.origins["train.batch_size"] == "QAD_TRAIN__BATCH_SIZE"
    assert config.origins["train.n_latent"] == str(file)
    assert "train.trim" not in config.origins


def test_nearest_file_upward_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "[train]\nepochs = 7\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert load_config().train.epochs == 7
    assert load_config().root == tmp_path / "data"


def test_root_is_relative_to_the_file_or_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "pro ject"
    project.mkdir()
    file = write(project, '[paths]\nroot = "wörk"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load_config(file).root == project / "wörk"
    assert load_config(file, {"paths.root": "here"}).root == tmp_path / "here"
    assert load_config(file, environ={"QAD_ROOT": "there"}).root == tmp_path / "there"
    assert load_config(file, {"paths.root": "$PLACE/x"}).root == tmp_path / "place" / "x"
    assert load_config(file, {"paths.root": "~/x"}).root == tmp_path / "home" / "x"


def test_every_path_is_relative_to_the_file_or_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    file = write(project, '[extract]\nsource = "release"\n[measure]\ntemplates = "$NOWHERE/x"\n')
    monkeypatch.chdir(tmp_path)
    config = load_config(file, {"evaluate.truth": "truth.parquet"})
    assert config.path_of("extract.source") == project / "release"
    assert config.path_of("evaluate.truth") == tmp_path / "truth.parquet"
    with pytest.raises(ConfigError, match=r"measure\.templates.*NOWHERE"):
        config.path_of("measure.templates")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[fetch]\n# a comment\n\ntimeout = 3\n", ["qad.toml:4", "fetch.timeout", "did you mean timeout_s"]),
        ("[train]\nepoch = 3\n", ["qad.toml:2", "train.epoch", "did you mean epochs"]),
        ("[trian]\nepochs = 3\n", ["qad.toml:1", "[trian]", "did you mean train"]),
        ("epochs = 3\n", ["qad.toml:1", "outside a section"]),
        ("[score]\nepochs = 3\n", ["qad.toml:2", "did you mean train.epochs"]),
        ('[train]\nepochs = "many"\n', ["qad.toml:2", "train.epochs", "valid integer", "'many'"]),
        ("[train]\nepochs = 0\n", ["qad.toml:2", "train.epochs", "greater than or equal to 1", "0"]),
        ('[train]\narch = "transformer"\n', ["qad.toml:2", "train.arch", "'rest-frame', 'mlp' or 'factor'"]),
        ("[train]\nepochs = 1\nepochs = 2\n", ["qad.toml:3", "epochs", "not TOML"]),
        ("[train]\n[train]\n", ["qad.toml:2", "[train]", "not TOML"]),
        ("[train]\nepochs = 1\n[score]\n[train]\nseed = 1\n", ["qad.toml:4", "[train]", "twice"]),
        ("[train]\nhidden = [1, 2\n", ["qad.toml", "not TOML"]),
        ("[TRAIN]\nepochs = 3\n", ["qad.toml:1", "[TRAIN]", "did you mean train"]),
        ("[train]\nEpochs = 3\n", ["qad.toml:2", "train.Epochs", "did you mean epochs"]),
        ("[train]\r\n\r\nepoch = 9\r\n", ["qad.toml:3", "did you mean epochs"]),
        ("\ufeff[train]\nepoch = 9\n", ["qad.toml:2", "did you mean epochs"]),
        ("train = {epoch = 3}\n", ["qad.toml:1", "did you mean epochs"]),
        ("[train]\nname = '''\n[score]\nepoch = 3'''\nepoch = 3\n", ["qad.toml:5", "did you mean epochs"]),
        ("[train]\nepochs = true\n", ["qad.toml:2", "train.epochs", "a number, not true"]),
        ("[train]\nepochs = 3.5\n", ["qad.toml:2", "train.epochs", "valid integer", "3.5"]),
        ("[fetch]\ntimeout_s = '30 s'\n", ["qad.toml:2", "fetch.timeout_s", "valid number", "'30 s'"]),
        ("[extract]\nhealpix = '12'\n", ["qad.toml:2", "extract.healpix", "valid list"]),
        ("[index]\nquery_timeout = 3\n", ["qad.toml:2", "did you mean query_timeout_s"]),
        ("[paths]\nroot = '$QAD_NOT_SET/x'\n", ["qad.toml:2", "paths.root", "$QAD_NOT_SET"]),
        ("[paths]\nroot = '${QAD_NOT_SET}'\n", ["qad.toml:2", "paths.root", "QAD_NOT_SET"]),
        ("[paths]\nroot = '~no-such-user/x'\n", ["qad.toml:2", "paths.root", "no such user"]),
        ("[extract]\nz_min = 3.0\nz_max = 2.0\n", ["extract.z_min", "must lie below extract.z_max"]),
    ],
)
def test_mistake_is_named_with_its_place(tmp_path: Path, text: str, expected: list[str]) -> None:
    message = error_of(write(tmp_path, text))
    for part in expected:
        assert part in message


KEYS = [(section, key) for section, model in SECTIONS.items() for key in model.model_fields]


@given(st.sampled_from(KEYS), st.integers(0, 60), st.integers(0, 5), st.sampled_from(["\n", "\r\n"]), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_misspelt_key_is_named_with_its_line_and_the_nearest(tmp_path, name, place, above, newline, marked) -> None:
    section, key = name
    wrong = key[: place % len(key)] + key[place % len(key) + 1 :] if len(key) > 4 else key + key[-1]
    known = list(SECTIONS[section].model_fields)
    assume(wrong and wrong not in known and not any(other.startswith(wrong + "_") for other in known))
    lines = ["# a comment"] * above + [f"[{section}]", "# another", f"{wrong} = 1"]
    (tmp_path / "qad.toml").write_bytes(b"\xef\xbb\xbf" * marked + newline.join(lines).encode())
    message = error_of(tmp_path / "qad.toml")
    assert f"qad.toml:{above + 3}: unknown key {section}.{wrong}; did you mean " in message
    nearest = message.partition("did you mean ")[2].removesuffix("?")
    assert difflib.SequenceMatcher(None, wrong, nearest).ratio() >= difflib.SequenceMatcher(None, wrong, key).ratio()


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_wrong_type_of_any_key_is_named_with_its_line(tmp_path: Path, section: str, key: str) -> None:
    message = error_of(write(tmp_path, f"\n[{section}]\n{key} = 1979-05-27\n"))
    assert f"qad.toml:3: {section}.{key}: " in message


def test_secret_beside_a_mistake_is_not_shown(tmp_path: Path) -> None:
    for text in (
        '[index]\ndsn = "hunter2"\ndsn = "hunter2"\n',
        '[index]\ndsn = "hunter2\n',
        "[index]\ndsn = hunter2\n",
    ):
        message = error_of(write(tmp_path, text))
        assert "hunter2" not in message
        assert "dsn" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("with space/ü λ", "{here}/with space/ü λ"),
        ("../up", "{here}/../up"),
        ("/abs//y/../z", "/abs/z"),
        ("~", "{home}"),
        ("~/a b", "{home}/a b"),
        ("$QAD_PLACE/é", "/place of/é"),
        ("${QAD_PLACE}x", "/place ofx"),
        ("a~b", "{here}/a~b"),
        (".", "{here}"),
    ],
)
@pytest.mark.parametrize("way", ["file", "flag", "environment", "set"])
def test_path_is_what_qad_config_shows(tmp_path: Path, text: str, expected: str, way: str) -> None:
    """From a file relative to it, else to the current folder; shown absolute."""
    project, here = tmp_path / "pro ject", tmp_path / "hier é"
    project.mkdir()
    here.mkdir()
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "QAD_PLACE": "/place of"}
    arguments = ["--config", str(write(project, f"[paths]\nroot = '{text}'\n" if way == "file" else ""))]
    arguments += {"flag": ["--root", text], "set": ["--set", f"paths.root={text}"]}.get(way, [])
    environment |= {"QAD_PATHS__ROOT": text} if way == "environment" else {}
    if way == "file" and text in ("with space/ü λ", "$QAD_PLACE/é"):
        # once through the executable, for the rest the function that it calls
        command = [sys.executable, "-m", "qad", "config", "--json", *arguments]
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)["root"]
    else:
        overrides = {"paths.root": text} if way == "flag" else {}
        sets = [f"paths.root={text}"] if way == "set" else []
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(here)
            for name in ("HOME", "QAD_PLACE"):
                patch.setenv(name, environment[name])
            environ = {"QAD_PATHS__ROOT": text} if way == "environment" else {}
            found = str(load_config(arguments[1], overrides, sets, environ).root)
    base = project if way == "file" else here
    assert found == os.path.normpath(expected.format(here=base, home=tmp_path / "home"))


def test_mistakes_outside_the_file_are_named_too(tmp_path: Path) -> None:
    assert "QAD_TRAIN__EPOCH" in error_of(environ={"QAD_TRAIN__EPOCH": "3"})
    assert "section.key=value" in error_of(settings=["train.epochs"])
    assert "no such configuration file" in error_of(tmp_path / "absent.toml")
    file = tmp_path / "latin.toml"
    file.write_bytes(b'[paths]\nroot = "\xe9"\n')
    assert "not UTF-8" in error_of(file)


def test_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "qad.toml"
    file.write_bytes(b"\xef\xbb\xbf[train]\nepochs = 9\n")
    assert load_config(file).train.epochs == 9


def test_lists_and_tables_are_read_from_text() -> None:
    config = load_config(settings=["fetch.survey=main, sv1", "train.hidden=[8, 4]", "extract.verify_datasum=false"])
    assert config.fetch.survey == ["main", "sv1"]
    assert config.train.hidden == [8, 4]
    assert config.extract.verify_datasum is False


def test_secret_is_never_shown(tmp_path: Path) -> None:
    secret = "postgresql://me:hunter2@host/db"
    config = load_config(write(tmp_path, f'[index]\ndsn = "{secret}"\n'))
    assert config.index.dsn.get_secret_value() == secret
    shown = repr(config) + repr(list(config.items())) + repr(config.section("index"))
    assert "hunter2" not in shown
    assert "hunter2" not in error_of(write(tmp_path, "[index]\ndsn = ['hunter2']\n"))


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config().train.epochs = 3  # type: ignore[misc]


def test_shipped_file_holds_every_key_at_its_default() -> None:
    assert (REPOSITORY / "qad.toml").read_text() == default_toml()
    shipped = load_config(REPOSITORY / "qad.toml")
    for section, model in SECTIONS.items():
        assert getattr(shipped, section) == model()
        for key, info in model.model_fields.items():
            assert info.description, f"{section}.{key} has no help"
            assert f"{section}.{key}" in shipped.origins


@pytest.mark.parametrize("file", sorted((REPOSITORY / "examples").glob("*.toml")), ids=lambda file: file.name)
def test_example_is_valid(file: Path) -> None:
    config = load_config(file)
    assert config.train.name == config.score.name == config.crossmatch.name == config.inspect.name
