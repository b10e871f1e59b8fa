"""The emulated line between client and server: ``line.c``, compiled when it is first needed."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from types import TracebackType

WINDOW_BYTES = 4 << 20
"""What one connection may have under way, like the TCP window of a well-set-up host."""


class Line:
    """A forwarder on the loopback address with a round trip and a shared downstream rate, until `close`.

    Parameters
    ----------
    folder : Path
        For the executable and the counters.
    target_port : int
        Of the server.
    rtt_ms, rate : float
        Milliseconds; bytes per second over all connections, 0 for no limit.
    """

    def __init__(self, folder: Path, target_port: int, rtt_ms: float, rate: float) -> None:
        program = _compile(folder)
        self._status = folder / "line.status"
        self._status.unlink(missing_ok=True)
        command = [str(program), str(target_port), str(rtt_ms), str(rate), str(WINDOW_BYTES), str(self._status)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def bytes_down(self) -> int:
        """Bytes that have passed downstream so far, headers and TLS included."""
        return self._counters()[0]

    @property
    def n_opened(self) -> int:
        """Connections that were opened so far."""
        return self._counters()[2]

    @property
    def n_open(self) -> int:
        """Connections that are open now."""
        return self._counters()[3]

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None):
        self.close()

    def _counters(self) -> tuple[int, ...]:
        return struct.unpack("4Q", self._status.read_bytes())


def _compile(folder: Path) -> Path:
    source, program = Path(__file__).parents[1] / "line.c", folder / "line"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise SystemExit("the emulated line needs a C compiler (Debian: apt install gcc libc6-dev)")
        subprocess.run([compiler, "-O2", "-o", str(program), str(source)], check=True)
    return program
