"""The `spectra` files that a grid is made of: listed, hashed, and remembered with those that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import qad
from qad.errors import InputError
from qad.results import Failure, RunOptions
from qad.storage.provenance import hash_document
from qad.storage.receipts import hashes_of, read_receipt, remembered, stat_inputs, write_receipt
from qad.workspace import Workspace

HASHED_TOGETHER = 2048
"""Files between two signs of progress; each time the receipt is read again."""


@dataclass(frozen=True)
class Inputs:
    """Files with their SHA-256, sorted by name, and why others in their folder are not used.

    Attributes
    ----------
    unusable : dict of str to str
        Reason by file name.
    """

    files: tuple[Path, ...]
    hashes: tuple[str, ...]
    unusable: dict[str, str]

    def without(self, unusable: dict[str, str]) -> Inputs:
        """Return the inputs less some files, given with the reason.

        Raises
        ------
        InputError
            If none is left.
        """
        kept = [(f, h) for f, h in zip(self.files, self.hashes, strict=True) if f.name not in unusable]
        if not kept:
            name, reason = min(unusable.items())
            raise InputError(self.files[0].parent, f"no spectra table can be used; {name}: {reason}")
        return Inputs(tuple(f for f, _ in kept), tuple(h for _, h in kept), {**self.unusable, **unusable})

    @property
    def listed(self) -> list[Path]:
        """All files of their folder, the unusable ones too, sorted by name."""
        return sorted([*self.files, *(self.files[0].with_name(name) for name in self.unusable)])

    @property
    def hash(self) -> str:
        """One hash of all names and contents."""
        return hash_document([[file.name, sha256] for file, sha256 in zip(self.files, self.hashes, strict=True)])

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The unusable files as failures."""
        return tuple(Failure(name, reason) for name, reason in sorted(self.unusable.items()))


def list_files(workspace: Workspace) -> list[Path]:
    """Return the `spectra` files, sorted by name.

    Raises
    ------
    InputError
        If there is none.
    """
    folder = workspace.spectra
    files = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    if not files:
        raise InputError(folder, "holds no spectra tables; run `qad extract` first")
    return files


def find_inputs(workspace: Workspace, options: RunOptions) -> Inputs:
    """List and hash the `spectra` files; those whose bytes this version of qad could not use before are set aside.

    Raises
    ------
    InputError
        If there is no file, or none that can be used.
    """
    files = list_files(workspace)
    options.progress.start("check spectra", len(files), "files")
    hashes: list[str] = []
    for i in range(0, len(files), HASHED_TOGETHER):
        hashes += hashes_of(files[i : i + HASHED_TOGETHER], _receipt(workspace), options.verify)
        options.progress.advance(len(hashes) - i)
    known = {} if options.force else _known_unusable(workspace)
    unusable = {file.name: known[sha256] for file, sha256 in zip(files, hashes, strict=True) if sha256 in known}
    return Inputs(tuple(files), tuple(hashes), {}).without(unusable)


def known_inputs(workspace: Workspace) -> Inputs | None:
    """Return the inputs if the hash of each is remembered, else None; reads none of them."""
    files = list_files(workspace)
    known = remembered(_receipt(workspace))
    hashes = [known.get((item["path"], item["size"], item["mtime_ns"])) for item in stat_inputs(files)]
    return Inputs(tuple(files), tuple(map(str, hashes)), {}) if all(hashes) else None


def remember(workspace: Workspace, inputs: Inputs, unusable: dict[str, str], force: bool = False) -> None:
    """Keep the hashes of the inputs, and which of them could not be used, by hash: a repaired file has another."""
    by_name = dict(zip((file.name for file in inputs.files), inputs.hashes, strict=True))
    known = {} if force else _known_unusable(workspace)
    known |= {by_name[name]: reason for name, reason in unusable.items()}
    more = {"unusable": known, "qad_version": qad.__version__}
    write_receipt(_receipt(workspace), list(inputs.files), list(inputs.hashes), **more)


def _receipt(workspace: Workspace) -> Path:
    return workspace.receipt("build-grid", "inputs")


def _known_unusable(workspace: Workspace) -> dict[str, str]:
    document = read_receipt(_receipt(workspace))
    return dict(document["unusable"]) if document.get("qad_version") == qad.__version__ else {}
