"""Fixtures that more than one package's tests use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# nohup, or a shell that starts the tests in the background, ignores these; so would every process that a test starts and
# stops, for qad leaves a signal ignored that it finds so
for _ignorable in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_ignorable) is signal.SIG_IGN:
        signal.signal(_ignorable, signal.SIG_DFL if _ignorable is signal.SIGHUP else signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real DESI files that are too large for the repository; the test is skipped where they are absent."""
    folder = Path(os.environ.get("QAD_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "release").is_dir():
        pytest.skip(f"no real DESI spectra at {folder}; set QAD_TEST_DATA to a folder that holds them")
    return folder


@pytest.fixture(scope="session")
def real_release(shared_data: Path) -> Path:
    """A small release of real spectra in the layout of DR1."""
    return shared_data / "release"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A user's own environment must not change what a test sees."""
    for name in [name for name in os.environ if name.startswith("QAD_") and name != "QAD_TEST_DATA"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-user-config"))
    (tmp_path_factory.getbasetemp() / "no-user-config").mkdir(exist_ok=True)
