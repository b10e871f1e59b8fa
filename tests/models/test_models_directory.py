"""Model directories: what was saved comes back, and nothing else is accepted or executed."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from qad.errors import InputError
from qad.models.directory import WEIGHTS, load_decoder, load_model, model_hash, read_model, write_model
from qad.models.layers import upsample
from qad.models.sizes import Sizes
from qad.storage.provenance import hash_file

FACTOR = Sizes("factor", 60, 20, 2)
MLP = Sizes("mlp", 60, 20, 3, (8,), (8,), 10)
REST = Sizes("rest-frame", 60, 20, 2, (8, 4), (4, 8))


def random_weights(sizes: Sizes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in sizes.shapes().items()}
    if "variance" in weights:
        weights["variance"] = np.abs(weights["variance"]) + np.float32(0.01)
    return weights


def save(folder: Path, sizes: Sizes = FACTOR) -> Path:
    folder.mkdir()
    write_model(folder, sizes, random_weights(sizes), {"geometry_hash": "abc", "n_rest": 60}, {"seed": 0})
    return folder


@pytest.mark.parametrize("sizes", [FACTOR, MLP, REST], ids=lambda sizes: sizes.arch)
def test_a_model_comes_back_as_it_was_saved(tmp_path: Path, sizes: Sizes) -> None:
    folder = save(tmp_path / "model", sizes)
    stored = read_model(folder)
    assert stored.sizes == sizes
    assert stored.grid_hash == "abc"
    for name, array in random_weights(sizes).items():
        np.testing.assert_array_equal(stored.weights[name], array)


@pytest.mark.parametrize("sizes", [FACTOR, MLP, REST], ids=lambda sizes: sizes.arch)
def test_the_decoder_alone_gives_the_model_s_reconstruction(tmp_path: Path, sizes: Sizes) -> None:
    folder = save(tmp_path / "model", sizes)
    rng = np.random.default_rng(0)
    flux, ivar = rng.normal(1, 1, (7, 20)).astype(np.float32), np.ones((7, 20), np.float32)
    start = rng.integers(0, 41, 7).astype(np.int32)
    model = load_model(folder)
    result = model.infer(flux, ivar, start)
    recon, variance = load_decoder(folder).decode(result.latent, start)
    np.testing.assert_allclose(recon, result.recon, atol=1e-5)
    np.testing.assert_array_equal(variance, result.intrinsic_var)
    assert (model.arch, model.n_latent, model.n_obs, model.n_rest, model.grid_hash) == (
        sizes.arch,
        sizes.n_latent,
        20,
        60,
        "abc",
    )
    assert model.infer(flux[:0], ivar[:0], start[:0]).recon.shape == (0, 20)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = save(tmp_path / "one", REST), save(tmp_path / "two", REST)
    for name in (WEIGHTS, "model.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_decoder_loads_without_jax(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", REST)
    code = (
        "import sys; from pathlib import Path; import numpy as np; from qad.models.directory import load_decoder; "
        f"load_decoder(Path({str(folder)!r})).decode(np.zeros((1, 2)), np.array([4])); "
        "sys.exit(any(name in sys.modules for name in ('jax', 'flax', 'optax')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def damage(folder: Path, kind: str) -> None:
    path = folder / WEIGHTS
    content = bytearray(path.read_bytes())
    if kind == "flipped":
        content[len(content) // 2] ^= 4
    elif kind == "cut":
        del content[-40:]
    else:
        content.clear()
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("kind", ["flipped", "cut", "empty"])
def test_damaged_weights_are_refused(tmp_path: Path, kind: str) -> None:
    folder = save(tmp_path / "model")
    damage(folder, kind)
    with pytest.raises(InputError, match="damaged: SHA-256"):
        load_model(folder)
    with pytest.raises(InputError, match="damaged: SHA-256"):
        load_decoder(folder)


def rewrite(folder: Path, **changes: object) -> None:
    """Change model.json as one who knows its hash rule would."""
    path = folder / "model.json"
    info = json.loads(path.read_text()) | changes
    info["model_hash"] = model_hash(info)
    path.write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, "update qad"),
        ({"format": "1"}, "not the description of a model"),
        ({"arch": "mlp"}, "architecture"),
        ({"sizes": REST.as_json() | {"arch": "transformer"}}, "not one of"),
        ({"sizes": FACTOR.as_json() | {"n_latent": 3}}, r"float32\[60, 2\], expected float32\[60, 3\]"),
        ({"sizes": FACTOR.as_json() | {"n_rest": -1}}, "not a positive integer"),
        ({"sizes": {"arch": "factor"}}, "missing or unknown"),
        ({"sizes": MLP.as_json(), "arch": "mlp"}, "another architecture"),
        ({"files": {}}, "lacks"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, object], text: str) -> None:
    folder = save(tmp_path / "model")
    rewrite(folder, **changes)
    with pytest.raises(InputError, match=text):
        load_model(folder)


def test_an_edited_description_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    path = folder / "model.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(InputError, match="was changed"):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '{"format": 1}'])
def test_nonsense_in_model_json_is_refused(tmp_path: Path, content: str) -> None:
    folder = save(tmp_path / "model")
    (folder / "model.json").write_text(content)
    with pytest.raises(InputError, match=r"model\.json"):
        load_model(folder)


def test_a_missing_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `qad train` first"):
        load_model(tmp_path / "none")


class Trap:
    """Whoever unpickles this, runs it."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.target),)

    target = ""


def test_a_pickle_in_the_weights_is_never_executed(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    trap = Trap()
    marker = tmp_path / "executed"
    Trap.target = str(marker)
    pickle.loads(pickle.dumps(trap))
    assert marker.exists(), "the trap must work, or this test shows nothing"
    marker.unlink()
    buffer = io.BytesIO()
    np.save(buffer, np.array([trap], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(folder / WEIGHTS, "w") as archive:
        archive.writestr("mean.npy", buffer.getvalue())
        archive.writestr("loading.npy", pickle.dumps(trap))
    rewrite(folder, files={WEIGHTS: hash_file(folder / WEIGHTS)})
    with pytest.raises(InputError, match="plain arrays"):
        load_model(folder)
    assert not marker.exists()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    weights = random_weights(FACTOR)
    weights["mean"][3] = np.nan
    write_model(folder, FACTOR, weights, {}, {})
    with pytest.raises(InputError, match="not finite"):
        load_model(folder)


def test_upsampling_keeps_constants_and_hits_the_centres() -> None:
    np.testing.assert_allclose(upsample(np.full((1, 5), 2.0), 4, 18), 2.0)
    line = upsample(np.arange(5.0)[None], 4, 20)[0]
    np.testing.assert_allclose((line[1] + line[2]) / 2, 0.0625, atol=1e-6)
    np.testing.assert_allclose(np.diff(line[2:18]), 0.25, atol=1e-6)
