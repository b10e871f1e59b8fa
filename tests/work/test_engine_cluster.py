"""Units on a real Dask cluster: killed workers, poison units, schedulers that are not there or go away."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import cluster_units
import pytest
from cluster_units import tries, work

from qad.errors import ConfigError, ServiceError, StorageError
from qad.parallel import Cluster
from qad.work.engine import run_units
from qad.work.outcome import Outcome

from .conftest import REPOSITORY, DaskCluster, wait_for

# Dask's own clean-up: its loop's thread may close a socket after the test has gone on
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def outcomes(address: str, units: list[str], folder: Path, timeout_s: float = 30.0) -> dict[str, Outcome[str, int]]:
    cluster = Cluster(address, timeout_s, folder)
    return {outcome.unit: outcome for outcome in run_units(partial(work, folder=folder), units, cluster=cluster)}


def test_units_are_done_once_and_a_bad_one_fails_alone(dask_cluster: DaskCluster, tmp_path: Path) -> None:
    units = ["a", "bad", *(f"unit_{i}" for i in range(40))]
    found = outcomes(dask_cluster.address, units, tmp_path)
    assert {unit: outcome.value for unit, outcome in found.items() if unit != "bad"} == {
        unit: len(unit) for unit in units if unit != "bad"
    }
    assert found["bad"].error == "file.fits: HDU B_FLUX: is damaged"
    assert all(len(tries(tmp_path, unit)) == 1 for unit in units)
    assert not list((tmp_path / ".qad").iterdir())


def test_scheduler_file_names_the_cluster_too(dask_cluster: DaskCluster, tmp_path: Path) -> None:
    assert outcomes(str(dask_cluster.file), ["abc"], tmp_path)["abc"].value == 3


@pytest.mark.parametrize(("unit", "error"), [("full", StorageError), ("bug", KeyError)])
def test_full_disk_and_bugs_end_the_run(dask_cluster: DaskCluster, tmp_path: Path, unit: str, error: Any) -> None:
    with pytest.raises(error):
        outcomes(dask_cluster.address, ["a", unit, "b"], tmp_path)


def test_units_of_a_killed_worker_run_again(dask_cluster: DaskCluster, tmp_path: Path) -> None:
    def kill_one() -> None:
        wait_for(lambda: tries(tmp_path, "slow_0"), "the first unit")
        os.kill(tries(tmp_path, "slow_0")[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    units = [f"slow_{i}" for i in range(4)]
    found = outcomes(dask_cluster.address, units, tmp_path)
    killer.join()
    assert {unit: outcome.value for unit, outcome in found.items()} == {unit: len(unit) for unit in units}
    assert len(tries(tmp_path, "slow_0")) >= 2


def test_poison_unit_fails_alone_and_by_name(dask_cluster: DaskCluster, tmp_path: Path) -> None:
    units = ["a", "poison", *(f"unit_{i}" for i in range(6))]
    found = outcomes(dask_cluster.address, units, tmp_path)
    assert [unit for unit, outcome in found.items() if outcome.error] == ["poison"]
    assert set(found) == set(units)
    assert "kills the worker" in str(found["poison"].error)
    assert len(tries(tmp_path, "poison")) <= 4  # twice among others, twice alone


def test_scheduler_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed")
    with socket.socket() as silent:  # takes connections and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServiceError, match="no Dask scheduler answers") as caught:
            outcomes(address, ["a"], tmp_path, timeout_s=1.0)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="neither an address"):
        outcomes("nonsense://x", ["a"], tmp_path, timeout_s=1.0)


def test_cluster_without_workers_is_one_line(new_cluster: DaskCluster, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="no worker after 1 s"):
        outcomes(new_cluster.address, ["a"], tmp_path, timeout_s=1.0)


def test_scheduler_that_goes_away_ends_the_run(new_cluster: DaskCluster, tmp_path: Path) -> None:
    new_cluster.add_worker()

    def end_it() -> None:
        wait_for(lambda: tries(tmp_path, "endless"), "the unit")
        new_cluster.scheduler.kill()

    killer = threading.Thread(target=end_it)
    killer.start()
    with pytest.raises(ServiceError, match="has gone"):
        outcomes(new_cluster.address, ["endless"], tmp_path)
    killer.join()


def test_worker_of_another_version_is_refused(new_cluster: DaskCluster, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "qad", tmp_path / "other" / "qad", ignore=shutil.ignore_patterns("__pycache__"))
    init = tmp_path / "other" / "qad" / "__init__.py"
    init.write_text(init.read_text().replace('__version__ = "', '__version__ = "9.'))
    new_cluster.add_worker(path=tmp_path / "other")
    with pytest.raises(ConfigError, match=r"worker tcp://.* has qad 9\.[0-9.]+ \(here: .*install the same") as caught:
        outcomes(new_cluster.address, ["a"], tmp_path)
    assert "\n" not in str(caught.value)
    assert not tries(tmp_path, "a")


def test_worker_that_does_not_see_the_work_directory_is_refused(
    dask_cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qad.work import cluster

    # there is no second machine here: the file by which workers know the folder is taken away instead
    monkeypatch.setattr(Path, "touch", lambda _path: None)
    with pytest.raises(ConfigError, match="does not see"):
        outcomes(dask_cluster.address, ["a"], tmp_path)
    assert cluster.describe()["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_missing_dask_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "distributed.py").write_text("raise ImportError('none here')\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    (tmp_path / "scores").mkdir()
    code = (
        "from pathlib import Path\nfrom qad.parallel import Cluster\nfrom qad.work.engine import run_units\n"
        f"list(run_units(len, ['a'], cluster=Cluster('tcp://127.0.0.1:1', 1.0, Path({str(tmp_path)!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("pip install 'desi-qad[dask]'")
    assert "ConfigError" in done.stderr.splitlines()[-1]


def test_units_here_are_those_that_workers_import() -> None:
    assert Path(cluster_units.__file__).parent == Path(__file__).parent
