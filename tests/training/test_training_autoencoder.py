"""The Python class that the project's first README promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toygrid import Toy

import qad.models
from qad.errors import ConfigError, InputError
from qad.models import QSOAutoencoder
from qad.models.directory import load_model
from qad.storage.flatcache import open_grid
from qad.workspace import Workspace


def small() -> QSOAutoencoder:
    return QSOAutoencoder(input_dim=40, encoding_dim=4, hidden_layers=[16, 8])


def test_first_readme_s_network_is_the_default() -> None:
    sizes = QSOAutoencoder().sizes
    assert sizes.encoder_widths == (1000, 512, 256, 128, 64, 32)
    assert sizes.decoder_widths == (32, 64, 128, 256, 512, 1000)


@pytest.mark.parametrize("kind", ["root", "grid", "shard", "npy"])
def test_it_trains_on_whatever_holds_spectra(workspace: Workspace, toy: Toy, tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "flux.npy", toy.flux)
    path = {
        "root": workspace.root,
        "grid": workspace.grid,
        "shard": workspace.grid_file(0, 3),
        "npy": tmp_path / "flux.npy",
    }[kind]
    model = small().train(path, batch_size=32, epochs=2)
    assert isinstance(model, QSOAutoencoder)
    assert [epoch.epoch for epoch in model.history] == [0, 1, 2]


def test_training_makes_reconstructions_better_and_goes_on_from_where_it_was(workspace: Workspace) -> None:
    cache = open_grid(workspace)
    model = small()
    scores = [model.score(cache.flux, cache.ivar).mean()]
    for _ in range(2):
        model.train(str(workspace.root), batch_size=32, epochs=8)
        scores.append(model.score(cache.flux, cache.ivar).mean())
    assert scores[0] > scores[1] > scores[2]


def test_shapes_follow_the_input(toy: Toy) -> None:
    model = small()
    assert model.encode(toy.flux[:5], toy.ivar[:5]).shape == (5, 4)
    assert model.encode(toy.flux[0]).shape == (1, 4)
    assert model.reconstruct(toy.flux[:5]).shape == (5, 80)
    score = model.score(toy.flux[:5], np.zeros_like(toy.ivar[:5]))
    assert score.dtype == np.float64
    assert np.isnan(score).all()


def test_a_saved_model_comes_back_and_serves_as_any_other(workspace: Workspace, toy: Toy, tmp_path: Path) -> None:
    model = small().train(workspace.root, batch_size=32, epochs=1)
    model.save(tmp_path / "model")
    again = QSOAutoencoder.load(tmp_path / "model")
    np.testing.assert_array_equal(again.reconstruct(toy.flux), model.reconstruct(toy.flux))
    assert (again.input_dim, again.encoding_dim) == (40, 4)
    other = load_model(tmp_path / "model")
    assert other.arch == "mlp"
    assert other.n_latent == 4


def test_masked_pixels_never_change_a_score(toy: Toy) -> None:
    model = small()
    spoiled = np.where(toy.ivar > 0, toy.flux, np.float32(np.nan))
    np.testing.assert_array_equal(model.score(toy.flux, toy.ivar), model.score(spoiled, toy.ivar))


def test_impossible_requests_are_one_line(tmp_path: Path, toy: Toy) -> None:
    with pytest.raises(ConfigError, match="positive"):
        QSOAutoencoder(input_dim=0)
    with pytest.raises(ConfigError, match="at least 40"):
        small().encode(np.ones((2, 30)))
    with pytest.raises(ConfigError, match="must be alike"):
        small().score(np.ones((2, 40)), np.ones((2, 41)))
    with pytest.raises(InputError, match="no grid here"):
        small().train(tmp_path)
    np.save(tmp_path / "few.npy", toy.flux[:3])
    with pytest.raises(InputError, match="3 spectra"):
        small().train(tmp_path / "few.npy")
    np.save(tmp_path / "text.npy", np.array(["a"]))
    with pytest.raises(InputError, match="expected floats"):
        small().train(tmp_path / "text.npy")
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a plain array"):
        small().train(tmp_path / "pickle.npy")


def test_the_package_knows_no_other_name() -> None:
    with pytest.raises(AttributeError, match="Autoencoder2"):
        qad.models.Autoencoder2  # noqa: B018
