"""The release's SHA-256 lists, and what else can vouch for a file's bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from qad.errors import InputError, QadError

_LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?([^/\0]{1,200})\Z")
_CHUNK_BYTES = 4 << 20  # whole FITS blocks are not needed, whole 32-bit words are
MAX_LIST_BYTES = 1 << 20
"""A list of DR1 has about ten lines; anything near this is not one."""

SHA256, MD5, DATASUM = "sha256", "etag-md5", "datasum"
"""How a file can be verified, as receipts say it: the list, an ETag that is an MD5, DATASUM of every HDU."""
ENTRIES = "entries"
"""How a list itself is verified where its ETag is no MD5: by the files that it names."""


class MismatchError(QadError):
    """Bytes do not agree with their checksum."""


class UnverifiedError(QadError):
    """Nothing can vouch for a file's bytes: it never gets its final name."""


def parse_list(content: bytes) -> dict[str, str]:
    """Return SHA-256 by file name from what ``sha256sum`` writes.

    Every line must be ``<64 hex digits>  [./]<name>``: a list with one strange line was damaged, and its other lines
    deserve no trust.  Names of products that are not in the folder are normal.

    Raises
    ------
    MismatchError
        If a line is not one, or two lines disagree about a name.
    """
    if len(content) > MAX_LIST_BYTES:
        raise MismatchError(f"{len(content)} bytes are far too many for a checksum list")
    try:
        lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise MismatchError(f"byte {error.start} is not ASCII") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.match(line)
        if match is None:
            raise MismatchError(f"line {number} is not '<64 hex digits>  <name>'")
        if found.setdefault(match[2], match[1]) != match[1]:
            raise MismatchError(f"line {number} gives {match[2]} a second checksum")
    return found


@dataclass(frozen=True)
class Expected:
    """What a file's bytes must agree with: the best voucher that there is.

    Attributes
    ----------
    sha256 : str
        From the list; empty if it has no entry.
    md5 : str
        The ETag where it is an MD5; used without a list entry.
    """

    sha256: str = ""
    md5: str = ""

    def verify(self, sha256: str, md5: str, path: Path) -> str:
        """Return how the bytes at `path`, with these hashes, are verified.

        Raises
        ------
        QadError
            If they do not agree, or nothing can vouch for them.
        """
        if self.sha256:
            _compare("SHA-256", sha256, self.sha256, "the release's list")
            return SHA256
        if self.md5:
            _compare("MD5", md5, self.md5, "its ETag")
            return MD5
        check_datasums(path)
        return DATASUM


def _compare(what: str, found: str, expected: str, origin: str) -> None:
    if found != expected:
        raise MismatchError(f"{what} {found[:12]}… is not {expected[:12]}… of {origin}")


def check_datasums(path: Path) -> None:
    """Compare every HDU of a FITS file with its DATASUM.

    Raises
    ------
    MismatchError
        If an HDU does not agree.
    QadError
        If an HDU with data has none: then nothing vouches for the file.
    """
    from qad.desi.checksum import DataSum
    from qad.desi.fits import FitsFile
    from qad.desi.header import expected_datasum

    try:
        with FitsFile(path) as fits, path.open("rb") as handle:
            for hdu in fits.hdus:
                if hdu.n_bytes == 0:
                    continue
                if "DATASUM" not in hdu.header:
                    raise UnverifiedError(
                        f"nothing vouches for it: no entry in a SHA-256 list, no MD5 as ETag, no DATASUM in HDU {hdu.name}; "
                        "read the tree in place with `qad extract --source`, or fetch from a source with lists"
                    )
                total = DataSum()
                handle.seek(hdu.offset)
                for start in range(0, hdu.padded_bytes, _CHUNK_BYTES):
                    total.add(handle.read(min(_CHUNK_BYTES, hdu.padded_bytes - start)))
                if total.value != expected_datasum(hdu.header):
                    raise MismatchError(f"HDU {hdu.name} does not match its DATASUM")
    except InputError as error:
        raise MismatchError(f"not a sound FITS file: {error.where}: {error.reason}") from None
