"""Is a unit done?  Its output exists and opens, and was made from the same inputs with the same settings.

The truth lies in the output's own metadata (hashes of the inputs, the settings).  A receipt beside it remembers the
size and time that each input had when it was hashed, so that a second run need not read every input again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from qad.storage.atomic import write_json
from qad.storage.provenance import hash_file

MANY, MAX_THREADS = 4, 8
"""Files that are worth threads, and how many threads a disk is asked by."""


def stat_inputs(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return path, size and modification time of files."""
    found = []
    for path in paths:
        status = path.stat()
        found.append({"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns})
    return found


def read_receipt(receipt: Path) -> dict[str, Any]:
    """Return a receipt, or an empty mapping if there is none that can be read: it is only a memory."""
    try:
        document = json.loads(receipt.read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def remembered(receipt: Path) -> dict[tuple[str, int, int], str]:
    """Return SHA-256 by path, size and modification time from a receipt; whatever is no such entry is passed over."""
    items = read_receipt(receipt).get("inputs")
    known = {}
    for item in items if isinstance(items, list) else ():
        try:
            known[item["path"], item["size"], item["mtime_ns"]] = str(item["sha256"])
        except (KeyError, TypeError):
            continue
    return known


def hashes_of(paths: list[Path], receipt: Path, verify: bool = False) -> list[str]:
    """Return the SHA-256 of each file, remembered in `receipt` unless its size or time changed or `verify` is set."""
    known = {} if verify else remembered(receipt)
    found = [known.get((status["path"], status["size"], status["mtime_ns"])) for status in stat_inputs(paths)]
    new = iter(_hash_files([path for path, sha256 in zip(paths, found, strict=True) if sha256 is None]))
    return [next(new) if sha256 is None else sha256 for sha256 in found]


def _hash_files(paths: list[Path]) -> list[str]:
    """Return the SHA-256 of files; many of them on threads, since hashing does not hold the interpreter's lock."""
    if len(paths) < MANY:
        return [hash_file(path) for path in paths]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS)) as pool:
        return list(pool.map(hash_file, paths))


def write_receipt(receipt: Path, paths: list[Path], hashes: list[str], **more: Any) -> None:
    """Remember what `paths` looked like when they had these hashes; `more` is kept beside it."""
    inputs = [{**status, "sha256": sha256} for status, sha256 in zip(stat_inputs(paths), hashes, strict=True)]
    write_json(receipt, {"inputs": inputs, **more})
