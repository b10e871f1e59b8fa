"""Pixels fetched by more than one process.

A quasar's rows are some ten requests of 10 kB.  Each is little work, but all of it is done under the interpreter's lock:
one process brings some 300 quasars a second and then waits for itself.  So other processes, each with its own
connections, ask this one for pixels and tell it what becomes of them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import connection
from threading import Event, Lock, Thread
from typing import Any, NoReturn

from qad.errors import QadError
from qad.fetching.crew import TICK_S, Crew
from qad.fetching.download import Meter, Transfer
from qad.fetching.line import Line
from qad.fetching.pixel import PixelResult, Target, fetch_pixel
from qad.fetching.plan import PixelFiles
from qad.fetching.retry import Budget, Patience
from qad.fetching.source import Reopen
from qad.fetching.threads import STOP_WAIT_S, Give, Take, labour
from qad.work.engine import available_cores

MOST_PROCESSES = 4
PIXELS_EACH = 8
"""Fewer pixels are done before another process has started."""
LARGE_FILE_BYTES = 1 << 20
"""Files of this mean size keep a line busy from one process: their bytes pass without the interpreter's lock."""


def count_processes(mode: str, connections: int, pixels: Sequence[PixelFiles] | None = None) -> int:
    """Return how many processes suit the work: this one, and others where requests are small and many.

    Parameters
    ----------
    mode : str
        As of :class:`~qad.fetching.pixel.Target`.
    connections : int
        To be shared out.
    pixels : sequence of PixelFiles, optional
        Not given as long as nobody knows them: then it is as if there were many.
    """
    most = max(1, min(MOST_PROCESSES, available_cores(), connections // PIXELS_EACH))
    if pixels is None:
        return most if mode != "files" else 1
    n_files = sum(len(files.all) for files in pixels)
    if mode == "files" and sum(files.n_bytes for files in pixels) > LARGE_FILE_BYTES * n_files:
        return 1
    return max(1, min(most, len(pixels) // PIXELS_EACH))


@dataclass(frozen=True)
class State:
    """How far a process has come.

    Attributes
    ----------
    received, resumed, kept : int
        Bytes, as :class:`~qad.fetching.download.Meter` counts them.
    in_flight : int
        Requests under way.
    repeated : int
        Requests that had to be repeated.
    """

    received: int = 0
    resumed: int = 0
    kept: int = 0
    in_flight: int = 0
    repeated: int = 0

    @classmethod
    def of(cls, transfer: Transfer) -> State:
        """Return the state of a process by its transfer."""
        meter = transfer.meter
        return cls(meter.received, meter.resumed, meter.kept, transfer.line.in_flight, transfer.patience.repeated)


@dataclass(frozen=True)
class Orders:
    """What a process has to know.

    Attributes
    ----------
    reopen : callable
        Opens the source.
    target : Target
    retries, service
        As :class:`~qad.fetching.retry.Patience` takes them.
    connections, part_bytes, resume
        As :class:`~qad.fetching.line.Line` and :class:`~qad.fetching.download.Transfer` take them.
    """

    reopen: Reopen
    target: Target
    retries: int
    service: str
    connections: int
    part_bytes: int
    resume: bool


class Fleet:
    """The other processes, which cost nothing as long as there is none.

    Parameters
    ----------
    transfer : Transfer
        Of this process; what the others bring counts there.

    Attributes
    ----------
    ships : list of Ship
    """

    def __init__(self, transfer: Transfer) -> None:
        self.transfer = transfer
        self.ships: list[Ship] = []

    def build(self, n_processes: int) -> None:
        """Start what is missing to so many processes, this one included: they get ready while others list and plan."""
        if n_processes <= 1 + len(self.ships):
            return
        context = multiprocessing.get_context("spawn")
        patience = self.transfer.patience
        if not self.ships:
            patience.budget = context.RawValue("d", patience.budget.value)
        missing = range(n_processes - 1 - len(self.ships))
        self.ships += [Ship(context, patience.budget, self.transfer.meter) for _ in missing]

    def launch(self, target: Target, n_processes: int) -> None:
        """Share connections and pixels with so many processes, this one included; end those that are too many."""
        self.build(n_processes)
        while len(self.ships) >= max(1, n_processes):
            self.ships.pop().end(at_once=True)
        if not self.ships:
            return
        transfer = self.transfer
        share = transfer.line.share(n_processes)
        orders = Orders(
            transfer.source.reopen(),
            replace(target, known=set()),
            transfer.patience.retries,
            transfer.patience.service,
            share,
            transfer.part_bytes,
            transfer.resume,
        )
        for ship in self.ships:
            ship.order(orders)

    def close(self) -> None:
        """End every process that is still there."""
        for ship in self.ships:
            ship.end(at_once=True)

    @property
    def in_flight(self) -> int:
        """Requests under way, in all processes."""
        return self.transfer.line.in_flight + sum(ship.state.in_flight for ship in self.ships)

    @property
    def repeated(self) -> int:
        """Requests that had to be repeated, in all processes."""
        return self.transfer.patience.repeated + sum(ship.state.repeated for ship in self.ships)


class Ship:
    """Another process, seen from this one: a :class:`~qad.fetching.threads.Mate`."""

    def __init__(self, context: Any, budget: Budget, meter: Meter) -> None:
        self.state = State()
        self._meter = meter
        self._ended = False
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_sail, args=(theirs, budget), daemon=True)
        self._process.start()
        theirs.close()

    def order(self, orders: Orders) -> None:
        """Let it begin; one that has died is found when it is served."""
        with contextlib.suppress(OSError):
            self._pipe.send(orders)

    def serve(self, take: Take[PixelFiles], give: Give[PixelFiles, PixelResult]) -> None:
        """Hand it pixels as it asks for them, until it ends."""
        held: dict[Any, PixelFiles] = {}
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = self._pipe.recv()
                if isinstance(message, State):
                    self._note(message)
                elif message is None:
                    item = take()
                    if item is not None:
                        held[item.pixel] = item
                    self._pipe.send(item)
                else:
                    pixel, value, error, state = message
                    self._note(state)
                    give(held.pop(pixel), value, error)
        if self._ended:
            return
        self._process.join(STOP_WAIT_S)
        reason = f"the process that was fetching it died (exit code {self._process.exitcode}); run again to go on"
        for item in held.values():
            give(item, None, QadError(reason))

    def end(self, at_once: bool) -> None:
        """Tell it to end."""
        self._ended = True
        if at_once:
            self._process.kill()
        else:
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        """See it end."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()

    def _note(self, state: State) -> None:
        before, self.state = self.state, state
        self._meter.add(state.received - before.received, state.resumed - before.resumed, state.kept - before.kept)


class _Ended(BaseException):
    """The first process has no more work for this one."""


class _Link:
    """The way to the first process; methods may be called from several threads."""

    def __init__(self, pipe: connection.Connection, stop: Event) -> None:
        self._pipe, self._stop = pipe, stop
        self._asking, self._sending = Lock(), Lock()

    def take(self) -> PixelFiles | None:
        """Return the next pixel; None if there is none at the moment, or nobody to ask."""
        with self._ends(), self._asking:
            self._send(None)
            item: PixelFiles | None = self._pipe.recv()
            return item
        return None

    def give(
        self, transfer: Transfer, item: PixelFiles, value: PixelResult | None, error: BaseException | None
    ) -> None:
        """Tell what became of a pixel."""
        with self._ends():
            self._send((item.pixel, value, None if error is None else _portable(error), State.of(transfer)))

    def tell(self, state: State) -> None:
        """Tell how far this process is."""
        with self._ends():
            self._send(state)

    def _send(self, message: Any) -> None:
        with self._sending:
            self._pipe.send(message)

    @contextmanager
    def _ends(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            self._stop.set()


def _sail(pipe: connection.Connection, budget: Budget) -> None:
    """Fetch pixels for the first process: what another process runs."""
    for number in (signal.SIGINT, signal.SIGHUP):  # those of a terminal are for the first process, which ends this one
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    Thread(target=_follow_parent, daemon=True).start()
    try:
        orders = pipe.recv()
    except (_Ended, EOFError, OSError):
        os._exit(0)
    patience = Patience(orders.retries, orders.service, budget=budget)
    line = Line(orders.connections)
    source = orders.reopen(patience, line)
    crew = Crew(patience.stop, line.spare)
    transfer = Transfer(source, patience, line, crew, orders.part_bytes, orders.resume, Meter())
    link = _Link(pipe, patience.stop)
    hands = (
        partial(fetch_pixel, transfer, orders.target),
        link.take,
        partial(link.give, transfer),
        patience.stop,
        Event(),
        crew,
    )
    threads = [Thread(target=labour, args=hands, daemon=True) for _ in range(line.connections)]
    try:
        for thread in threads:
            thread.start()
        _tell(link, transfer, patience.stop)
    except _Ended:
        pass
    patience.stop.set()
    crew.wake()
    stop_at = time.monotonic() + STOP_WAIT_S
    for thread in threads:
        if thread.is_alive():
            thread.join(max(0.0, stop_at - time.monotonic()))
    os._exit(0)


def _tell(link: _Link, transfer: Transfer, stop: Event) -> None:
    told = State()
    while not stop.is_set():
        time.sleep(TICK_S)
        state = State.of(transfer)
        if state != told:
            link.tell(state)
            told = state


def _end(_number: int, _frame: object) -> NoReturn:
    raise _Ended


def _follow_parent() -> None:
    """End with the first process, however it ends: it may be run again the next moment, and needs the partial files."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _portable(error: BaseException) -> BaseException:
    """Return the error, or its text where it is a bug that cannot travel."""
    if not isinstance(error, QadError):
        error = RuntimeError("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  whatever it was, its text travels
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
