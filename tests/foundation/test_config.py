"""qad.toml, the environment and flags: precedence, origins, and one clear line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

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
        ("[train]\nepochs = 1\nepochs = 2\n", ["qad.toml", "not TOML"]),
        ("[train]\n[train]\n", ["qad.toml", "not TOML"]),
        ("[extract]\nz_min = 3.0\nz_max = 2.0\n", ["extract.z_min", "must lie below extract.z_max"]),
    ],
)
def test_mistake_is_named_with_its_place(tmp_path: Path, text: str, expected: list[str]) -> None:
    message = error_of(write(tmp_path, text))
    for part in expected:
        assert part in message


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
