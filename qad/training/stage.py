"""The stage ``train``: from the grid to a model directory."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.config import Config
from qad.errors import EXIT_BUG, InputError
from qad.models.directory import HISTORY, WEIGHTS, read_info, write_model
from qad.models.factor import FactorModel
from qad.models.sizes import Sizes
from qad.models.trained import initial_weights
from qad.models.windows import GROUP_ROWS
from qad.results import Progress, RunOptions, StageResult
from qad.settings import Train
from qad.storage.atomic import atomic_folder, remove_stale_parts
from qad.storage.flatcache import GridCache, open_grid
from qad.storage.lock import stage_lock
from qad.storage.provenance import InputFile, Provenance, hash_document, hash_file
from qad.training.history import Epoch, write_history
from qad.training.peers import Peers, join, leave_at_exit
from qad.training.split import training_rows

if TYPE_CHECKING:
    from qad.training.checkpoint import Checkpoint, Checkpoints
    from qad.training.loop import Trained

EM_SPECTRA = 20_000
"""The factor model is fitted to at most this many training spectra: more do not change its factors."""
LEARNING_RATE = {"rest-frame": 2e-4, "mlp": 1e-3}
"""Peak learning rates: the rest-frame network starts as a good model, and fits noise within a few epochs at 1e-3."""
_PLACEMENT = ("devices", "coordinator", "processes", "process_id", "peer_timeout_s")
"""Keys of ``[train]`` that say where training runs: they change the model by rounding at most, and no file names them."""
_INFO = "checkpoint.json"
_IRRELEVANT = ("name", "resume", "checkpoint_minutes", *_PLACEMENT)
"""Keys of ``[train]`` that do not make it another run."""


@dataclass(frozen=True)
class Result:
    """A trained model before it is written."""

    sizes: Sizes
    weights: Mapping[str, np.ndarray]
    history: list[Epoch]
    more: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)


def train(config: Config, options: RunOptions) -> StageResult:
    """Train a model on the grid and write its directory.

    Parameters
    ----------
    config : Config
    options : RunOptions

    Returns
    -------
    StageResult
        One unit, the model; skipped if a model of the same configuration and grid stands there whole.

    Raises
    ------
    InputError
        If there is no grid, or too few spectra, or a damaged checkpoint.
    QadError
        If the loss is not finite.
    """
    section, workspace = config.train, config.workspace
    if options.dry_run:
        return _train(config, options, Peers())
    peers = join(section)
    try:
        with stage_lock(workspace.locks, "train") if section.coordinator and peers.is_first else nullcontext():
            result = _train(config, options, peers)
            # the first one writes to the end: who left before it would pass for lost
            peers.largest(0)
            return result
    except BaseException as error:
        leave_at_exit(peers, getattr(error, "exit_code", EXIT_BUG))
        raise


def _train(config: Config, options: RunOptions, peers: Peers) -> StageResult:
    section, workspace = config.train, config.workspace
    folder = workspace.model(section.name)
    cache = open_grid(workspace, options.verify) if peers.is_first else None
    # one process looks after the cache; the others find it whole
    peers.largest(0)
    cache = cache or open_grid(workspace)
    train_rows, validation = training_rows(workspace, cache, section.n_latent)
    counts: dict[str, float] = {"train": len(train_rows), "validation": len(validation)}
    run = _run_hash(section, cache)
    is_done = peers.largest(int(peers.is_first and not options.force and _is_done(folder, run)))
    if is_done:
        return StageResult("train", n_skipped=1, paths=(folder,), counts=counts, details=_details(read_info(folder)))
    if options.dry_run:
        return StageResult("train", n_done=1, paths=(folder,), counts=counts, dry_run=True)
    if peers.is_first:
        remove_stale_parts(workspace.models)
    result = _Work(section, cache, train_rows, validation, options, folder, run, peers).run()
    counts |= result.counts
    if not peers.is_first:
        return StageResult("train", n_done=1, paths=(folder,), counts=counts)
    settings = {key: value for key, value in config.section("train").items() if key not in _PLACEMENT}
    provenance = Provenance("train", settings, [InputFile("grid", cache.key)])
    info = _write(folder, result, cache, provenance, run)
    return StageResult("train", n_done=1, paths=(folder,), counts=counts, details=_details(info))


def _details(info: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("name", "arch", "best_epoch", "best_step", "validation_loss", "model_hash")
    return {key: info.get(key) for key in keys}


def _run_hash(section: Train, cache: GridCache) -> str:
    """Return what identifies a training run: settings, data, and the programs that a bit-equal result rests on."""
    settings = {key: value for key, value in section.model_dump(mode="json").items() if key not in _IRRELEVANT}
    versions = {name: importlib.metadata.version(name) for name in ("flax", "jax", "numpy", "optax")}
    return hash_document({"settings": settings, "grid": cache.key, "versions": versions})


def _is_done(folder: Path, run: str) -> bool:
    try:
        info = read_info(folder)
        return bool(info.get("run") == run and hash_file(folder / WEIGHTS) == info["files"][WEIGHTS])
    except (InputError, OSError):
        return False


def _write(folder: Path, result: Result, cache: GridCache, provenance: Provenance, run: str) -> dict[str, Any]:
    with atomic_folder(folder) as partial:
        write_history(partial / HISTORY, result.history, provenance)
        more = {
            "name": folder.name,
            "run": run,
            "config": dict(provenance.config),
            "seed": provenance.config["seed"],
            **result.more,
            **provenance.as_dict("model/1"),
        }
        return write_model(partial, result.sizes, result.weights, cache.grid, more)


@dataclass(frozen=True)
class _Work:
    """One training run."""

    section: Train
    cache: GridCache
    train_rows: np.ndarray
    validation: np.ndarray
    options: RunOptions
    folder: Path
    run_hash: str
    peers: Peers

    @property
    def progress(self) -> Progress:
        return self.options.progress

    def run(self) -> Result:
        if self.section.arch == "mlp":
            return self._mlp()
        resume = self._resume() if self.section.arch == "rest-frame" else None
        if resume is None:
            # all processes wait for the fit: its passes are few, and a model summed over processes would not be the same bits
            model = self._factor_model_of(self.peers.share(lambda: self._fit_factor_model()))
        else:
            model = self._factor_model_of(
                {name.removeprefix("factor."): array for name, array in resume.arrays.items() if "factor." in name}
            )
        if self.section.arch == "rest-frame":
            return self._rest_frame(model, resume)
        return self._factor_result(model)

    def _sizes(self, **more: Any) -> Sizes:
        values = {"n_latent": self.section.n_latent, **more}
        return Sizes(self.section.arch, self.cache.n_rest, self.cache.n_obs, **values)

    def _fit_factor_model(self) -> dict[str, np.ndarray]:
        from qad.training.em import STARTS, fit_factor_model

        section, cache = self.section, self.cache
        rows = self.train_rows
        if len(rows) > EM_SPECTRA:
            rows = np.sort(np.random.default_rng(section.seed).choice(rows, EM_SPECTRA, replace=False))
        self.progress.start("factor model", (STARTS + 1) * section.em_iterations, "passes")
        fit = fit_factor_model(
            cache.flux[rows],
            cache.ivar[rows],
            cache.start[rows],
            cache.n_rest,
            section.n_latent,
            iterations=section.em_iterations,
            trim=section.trim,
            seed=section.seed,
            after_pass=self.progress.advance,
        )
        return {"mean": fit.model.mean, "loading": fit.model.loading, "variance": fit.model.variance}

    def _factor_model_of(self, arrays: Mapping[str, np.ndarray]) -> FactorModel:
        mean, loading, variance = (arrays[name] for name in ("mean", "loading", "variance"))
        return FactorModel(mean, loading, variance, self.cache.n_obs, grid_hash=self.cache.geometry_hash)

    def _factor_result(self, model: FactorModel) -> Result:
        weights = {"mean": model.mean, "loading": model.loading, "variance": model.variance}
        history = [Epoch(self.section.em_iterations, 0, None, None, 0.0, None, 0.0)]
        more = {"best_epoch": 0, "best_step": 0, "validation_loss": None}
        return Result(self._sizes(), weights, history, more)

    def _rest_frame(self, model: FactorModel, resume: Checkpoint | None) -> Result:
        from qad.models.runtime import start_jax
        from qad.training.trim import trim_weights

        start_jax()
        from qad.models.network import build_network, weights_of
        from qad.training.tasks import RestFrameTask

        section, cache = self.section, self.cache
        sizes = self._sizes(encoder=tuple(section.hidden), decoder=tuple(reversed(section.hidden)), vae=section.vae)
        used = np.concatenate([self.train_rows, self.validation])
        latent, spread, misfit, signal = self._describe(model, used)
        weight = np.ones(len(cache), np.float32)
        if section.trim:
            n = len(self.train_rows)
            weight[self.train_rows] = trim_weights(misfit[:n], signal[:n], section.trim)
        network = build_network(sizes, initial_weights(sizes, section.seed, model))
        task = RestFrameTask(
            network,
            cache.flux,
            cache.ivar,
            cache.start,
            _scatter(len(cache), used, latent),
            _scatter(len(cache), used, spread),
            weight,
            section.vae_beta,
        )
        extra = {"factor.mean": model.mean, "factor.loading": model.loading, "factor.variance": model.variance}
        trained = self._train(task, extra, resume)
        weights = weights_of(trained.network)
        counts: dict[str, float] = {"trimmed": int((weight[self.train_rows] < 0.5).sum())}
        return self._network_result(sizes, weights, trained, counts)

    def _describe(self, model: FactorModel, rows: np.ndarray) -> list[np.ndarray]:
        """Return what the factor model makes of chosen spectra; each process looks at its share of them."""
        from qad.training.trim import describe

        # whole groups of like start, as one process would form them: a misfit depends a little on its company
        order = np.argsort(self.cache.start[rows], kind="stable")
        own = rows[order][self.peers.own(len(rows), GROUP_ROWS)]
        found = describe(model, self.cache.flux, self.cache.ivar, self.cache.start, own)
        place = np.argsort(order)
        return [array[place] for array in self.peers.gather(len(rows), found, GROUP_ROWS)]

    def _mlp(self) -> Result:
        from qad.models.runtime import start_jax

        start_jax()
        from qad.models.network import build_network, weights_of
        from qad.training.tasks import MlpTask

        section, cache = self.section, self.cache
        sizes = self._sizes(
            n_latent=section.encoding_dim,
            encoder=tuple(section.mlp_hidden),
            decoder=tuple(reversed(section.mlp_hidden)),
            n_input=min(section.mlp_pixels, cache.n_obs),
        )
        network = build_network(sizes, initial_weights(sizes, section.seed))
        task = MlpTask(network, binned(cache, sizes.n_input))
        trained = self._train(task, {}, self._resume())
        return self._network_result(sizes, weights_of(trained.network), trained, {})

    def _train(self, task: Any, extra: Mapping[str, np.ndarray], resume: Checkpoint | None) -> Trained:
        from qad.training.loop import LoopOptions, Trainer

        keys = ("epochs", "batch_size", "weight_decay", "clip_norm", "seed", "checkpoint_minutes")
        rate = self.section.learning_rate or LEARNING_RATE[self.section.arch]
        loop = LoopOptions(learning_rate=rate, **{key: getattr(self.section, key) for key in keys})
        targetid = self.cache.table["targetid"].to_numpy()
        trainer = Trainer(
            task,
            self.train_rows,
            self.validation,
            loop,
            targetid,
            self._checkpoints(),
            extra,
            self.progress,
            self._placed(),
        )
        return trainer.train(resume)

    def _network_result(
        self, sizes: Sizes, weights: Mapping[str, np.ndarray], trained: Trained, counts: dict[str, float]
    ) -> Result:
        more = {
            "best_epoch": trained.best_epoch,
            "best_step": trained.best_step,
            "validation_loss": trained.best_loss if len(self.validation) else None,
        }
        steps = max((epoch.step for epoch in trained.history), default=0)
        return Result(sizes, weights, trained.history, more, {"steps": steps, **counts})

    def _checkpoints(self) -> Checkpoints:
        from qad.training.checkpoint import Checkpoints

        return Checkpoints(self.folder / "checkpoints", self.run_hash)

    def _placed(self) -> Peers:
        """Return the processes with their devices: one process alone chooses them only now, since choosing starts JAX."""
        from qad.training.devices import Devices

        return replace(self.peers, devices=self.peers.devices or Devices.choose(self.section.devices))

    def _resume(self) -> Checkpoint | None:
        """Return the checkpoint to go on from, on all processes, as the first one finds it."""
        from qad.training.checkpoint import Checkpoint

        shared = self.peers.share(self._find_checkpoint)
        info = json.loads(shared.pop(_INFO).tobytes())
        if info is None:
            return None
        self.progress.note(f"going on from step {info['step']}")
        return Checkpoint(info["step"], shared, info)

    def _find_checkpoint(self) -> dict[str, np.ndarray]:
        checkpoints = self._checkpoints()
        found = checkpoints.last() if self.section.resume and not self.options.force else None
        if found is None:
            checkpoints.clear()
        info = None if found is None else {**found.info, "step": found.step}
        arrays = {} if found is None else dict(found.arrays)
        return {**arrays, _INFO: np.frombuffer(json.dumps(info).encode(), np.uint8)}


def binned(cache: GridCache, n_input: int) -> np.ndarray:
    """Return all spectra of the grid as the plain autoencoder sees them."""
    from qad.models.rebin import rebin

    values = np.empty((len(cache), n_input), np.float32)
    for i in range(0, len(cache), 4096):
        values[i : i + 4096] = rebin(cache.flux[i : i + 4096], cache.ivar[i : i + 4096], n_input)
    return values


def _scatter(n: int, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    full = np.zeros((n, values.shape[1]), np.float32)
    full[rows] = values
    return full
