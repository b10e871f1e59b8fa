"""Planning at the size of main/dark: 13,458 pixels listed, and a second run that finds nothing to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fetching.bench import Bench, say
from qad.work.units import Pixel

RULE = "SPECTYPE QSO, ZWARN 0"
PREFIX = "dr1/spectro/redux/iron/healpix"
N_PIXELS = 13_458
"""Pixels of main/dark with a good redshift (DR1 paper's repository, density table)."""


def main(bench: Bench) -> None:
    """Plan on an empty work directory, and on one where everything is here."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests/fetching"))
    from list_server import ListServer, pixel_keys

    # spread as main/dark is: whole groups of a hundred, with holes
    pixels = [Pixel("main", "dark", number) for number in range(N_PIXELS * 3) if number % 300 < 100][:N_PIXELS]
    results = {}
    with ListServer(pixel_keys(PREFIX, pixels)) as server:
        for name, more in {"planned": ("--dry-run",), "resumed": ()}.items():
            root = bench.directory / f"plan-{name}"
            if name == "resumed":
                say("making a work directory in which every pixel is done")
                _finish(root, server.keys, pixels)
            command = [sys.executable, "-m", "qad", "fetch", "--source", f"s3://{server.bucket}/dr1", "--json", *more]
            began = time.monotonic()
            done = subprocess.run(
                [*command, "--endpoint-url", server.url, "--root", str(root)],
                capture_output=True,
                text=True,
                check=True,
            )
            seconds = time.monotonic() - began
            document = json.loads(done.stdout)
            n_pixels = int(document["counts"]["pixels"])
            results[name] = {"seconds": seconds, "pixels": n_pixels, "skipped": document["n_skipped"]}
            print(f"{name:<8} {n_pixels:,} pixels in {seconds:.1f} s ({document['n_skipped']:,} with nothing to do)")
            shutil.rmtree(root, ignore_errors=True)
    bench.save("plan", results)


def _finish(root: Path, keys: Sequence[str], pixels: Sequence[Pixel]) -> None:
    """Write what a finished fetch of these pixels leaves: redrock file, list and receipt; no pixel has a quasar."""
    from list_server import etag_of

    from qad.desi.layout import checksum_name, coadd_name, pixel_folder, pixel_key, redrock_name
    from qad.fetching.receipt import NO_ROWS, Entry, write_entries

    sizes = {key: 1000 + number for number, key in enumerate(keys)}
    healpix = root / "raw/dr1/healpix"
    for pixel in pixels:
        folder = pixel_folder(healpix, pixel)
        folder.mkdir(parents=True)
        entries = {}
        for name in (redrock_name(pixel), checksum_name(pixel), coadd_name(pixel)):
            key = f"{pixel_key(PREFIX, pixel)}/{name}"
            size, etag = sizes[key], etag_of(key.encode())
            if name.startswith("coadd-"):
                entries[name] = Entry("", 0, etag, "", NO_ROWS, 0, "rows", size, [RULE], False, "0" * 64)
                continue
            with (folder / name).open("wb") as file:
                file.truncate(size)
            mtime_ns = (folder / name).stat().st_mtime_ns
            entries[name] = Entry("", size, etag, "0" * 64, "sha256", mtime_ns, source_size=size)
        write_entries(folder, entries)
