"""The plain autoencoder as a Python class: the interface that the project's first README promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qad.errors import ConfigError, InputError
from qad.models.base import Inference
from qad.models.directory import HISTORY, read_model, write_model
from qad.models.layers import run_dense
from qad.models.rebin import expand, rebin
from qad.models.sizes import Sizes
from qad.models.trained import initial_weights
from qad.storage.atomic import atomic_folder
from qad.storage.provenance import Provenance
from qad.training.batches import epoch_order
from qad.training.history import Epoch, write_history

VALIDATION_SHARE = 0.1
MIN_SPECTRA = 10


class QSOAutoencoder:
    """Dense autoencoder of spectra with a fixed number of pixels.

    Parameters
    ----------
    input_dim : int
        Pixels that the network sees; longer windows are averaged down to it.
    encoding_dim : int
        Size of the latent space.
    hidden_layers : sequence of int
        Widths from the input to the latents; mirrored on the way back.
    seed : int
        Of the initial weights and of the order of batches.

    Examples
    --------
    >>> from qad.models import QSOAutoencoder
    >>> model = QSOAutoencoder(input_dim=100, encoding_dim=4, hidden_layers=[32, 16])
    >>> model.encode(np.ones((3, 100), np.float32)).shape
    (3, 4)
    """

    def __init__(
        self,
        input_dim: int = 1000,
        encoding_dim: int = 32,
        hidden_layers: Sequence[int] = (512, 256, 128, 64),
        *,
        seed: int = 0,
    ) -> None:
        hidden = tuple(int(width) for width in hidden_layers)
        if min((input_dim, encoding_dim, *hidden)) < 1:
            raise ConfigError("input_dim, encoding_dim and hidden_layers must be positive")
        self.sizes = Sizes("mlp", input_dim, input_dim, encoding_dim, hidden, tuple(reversed(hidden)), input_dim)
        self.seed = seed
        self.history: list[Epoch] = []
        self._grid: dict[str, Any] = {}
        self._weights: dict[str, np.ndarray] | None = None

    @property
    def input_dim(self) -> int:
        """Pixels that the network sees."""
        return self.sizes.n_input

    @property
    def encoding_dim(self) -> int:
        """Size of the latent space."""
        return self.sizes.n_latent

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The arrays of the network by path; random until :meth:`train`."""
        if self._weights is None:
            self._weights = initial_weights(self.sizes, self.seed)
        return self._weights

    def train(
        self, data_path: str | Path, batch_size: int = 256, epochs: int = 40, learning_rate: float = 1e-3
    ) -> QSOAutoencoder:
        """Train on spectra and return self; training again goes on from the present weights.

        Parameters
        ----------
        data_path : path-like
            A work directory of qad (its grid is read), its ``grid`` folder, one Parquet file of the grid table, or an ``.npy``
            array of spectra, shape (n_spectra, n_pixels).
        batch_size, epochs : int
        learning_rate : float

        Raises
        ------
        InputError
            If there are no spectra, or too few.
        QadError
            If the loss is not finite.
        """
        if min(batch_size, epochs) < 1:
            raise ConfigError("batch_size and epochs must be positive")
        data = _read_spectra(Path(data_path))
        values = self._values(data.flux, data.ivar)
        if len(values) < MIN_SPECTRA:
            raise InputError(data_path, f"{len(values)} spectra; at least {MIN_SPECTRA} are needed")
        from qad.models.runtime import start_jax

        start_jax()
        from qad.models.network import build_network, weights_of
        from qad.training.loop import LoopOptions, Trainer
        from qad.training.tasks import MlpTask

        order = epoch_order(np.arange(len(values)), self.seed, 0)
        held = max(1, int(VALIDATION_SHARE * len(values)))
        options = LoopOptions(epochs, batch_size, learning_rate, 1e-4, 1.0, self.seed)
        task = MlpTask(build_network(self.sizes, self.weights), values)
        trained = Trainer(task, np.sort(order[held:]), np.sort(order[:held]), options, data.targetid).train()
        self._weights = weights_of(trained.network)
        self.history = trained.history
        self._grid = data.grid
        return self

    def encode(self, flux: np.ndarray, ivar: np.ndarray | None = None) -> np.ndarray:
        """Return latents, shape (n_spectra, encoding_dim); without `ivar` all pixels count."""
        return run_dense(self.weights, "encoder", self._values(flux, ivar), "relu")

    def reconstruct(self, flux: np.ndarray, ivar: np.ndarray | None = None) -> np.ndarray:
        """Return reconstructions of the shape of `flux`."""
        flux = _rows(flux)
        return expand(run_dense(self.weights, "decoder", self.encode(flux, ivar), "relu"), flux.shape[1])

    def score(self, flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
        """Return each spectrum's reduced chi2, float64, shape (n_spectra,); NaN where no pixel counts.

        This is the naive score: it mostly follows signal-to-noise.  `qad score` does better.
        """
        flux, ivar = _rows(flux), _rows(ivar)
        good = (ivar > 0).sum(axis=1)
        residual = np.where(ivar > 0, flux - self.reconstruct(flux, ivar), 0)
        chi2 = (residual.astype(np.float64) ** 2 * ivar).sum(axis=1)
        return np.where(good > 0, chi2 / np.maximum(good, 1), np.nan)

    def infer(self, flux: np.ndarray, ivar: np.ndarray, start: np.ndarray) -> Inference:
        """Encode and reconstruct as every model of qad does; `start` does not matter here."""
        latent, recon = self.encode(flux, ivar), self.reconstruct(flux, ivar)
        return Inference(latent, np.zeros_like(latent), recon, np.zeros_like(recon))

    def save(self, folder: str | Path) -> Path:
        """Write a model directory, as `qad train` does, and return its path."""
        path = Path(folder)
        config = {"input_dim": self.input_dim, "encoding_dim": self.encoding_dim, "hidden": list(self.sizes.encoder)}
        provenance = Provenance("train", config)
        with atomic_folder(path) as partial:
            if self.history:
                write_history(partial / HISTORY, self.history, provenance)
            more = {"name": path.name, "config": config, "seed": self.seed, **provenance.as_dict("model/1")}
            write_model(partial, self.sizes, self.weights, self._grid, more)
        return path

    @classmethod
    def load(cls, folder: str | Path) -> QSOAutoencoder:
        """Read a model directory of :meth:`save`, or of ``qad train --arch mlp``.

        Raises
        ------
        InputError
            If it is missing, damaged, or of another architecture.
        """
        stored = read_model(Path(folder))
        if stored.sizes.arch != "mlp":
            raise InputError(folder, f"is of architecture {stored.sizes.arch}, expected mlp; use qad.models.directory")
        seed = stored.info.get("seed", 0)
        model = cls(stored.sizes.n_input, stored.sizes.n_latent, stored.sizes.encoder, seed=int(seed))
        model.sizes = stored.sizes
        model._weights = dict(stored.weights)
        model._grid = {**stored.info.get("grid", {}), "geometry_hash": stored.grid_hash}
        return model

    def _values(self, flux: np.ndarray, ivar: np.ndarray | None) -> np.ndarray:
        flux = _rows(flux)
        if flux.shape[1] < self.input_dim:
            raise ConfigError(f"spectra of {flux.shape[1]} pixels; the network needs at least {self.input_dim}")
        weight = np.isfinite(flux).astype(np.float32) if ivar is None else _rows(ivar)
        if weight.shape != flux.shape:
            raise ConfigError(f"flux is {list(flux.shape)} and ivar {list(weight.shape)}: they must be alike")
        return rebin(flux, weight, self.input_dim)


@dataclass(frozen=True)
class _Spectra:
    flux: np.ndarray
    ivar: np.ndarray | None
    targetid: np.ndarray
    grid: dict[str, Any]


def _read_spectra(path: Path) -> _Spectra:
    """Read spectra from whatever `path` is."""
    if path.suffix == ".npy":
        return _read_npy(path)
    if path.suffix == ".parquet":
        from qad.schema import GRID
        from qad.storage.parquet import read_table, vectors

        table = read_table(path, GRID, ["targetid", "flux", "ivar"])
        targetid = table.column("targetid").to_numpy()
        return _Spectra(vectors(table, "flux"), vectors(table, "ivar"), targetid, {})
    from qad.storage.flatcache import open_grid
    from qad.workspace import Workspace

    root = path.parent if path.name == "grid" and (path / "grid.json").is_file() else path
    cache = open_grid(Workspace(root))
    return _Spectra(cache.flux, cache.ivar, cache.table["targetid"].to_numpy(), cache.grid)


def _read_npy(path: Path) -> _Spectra:
    try:
        flux = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(path, f"not a plain array: {str(error).splitlines()[0]}") from None
    if flux.ndim != 2 or flux.dtype.kind != "f":
        raise InputError(path, f"holds {flux.dtype}{list(flux.shape)}, expected floats (n_spectra, n_pixels)")
    return _Spectra(flux.astype(np.float32, copy=False), None, np.arange(len(flux), dtype=np.int64), {})


def _rows(values: np.ndarray) -> np.ndarray:
    """Return float32 spectra, one a row; a single spectrum becomes one row."""
    return np.atleast_2d(np.asarray(values, np.float32))
