"""What a source of release files offers, whether an S3 bucket or a local folder, and the ways it can refuse.

::

    SourceError                 a request that failed; one file's matter unless retries tell otherwise
    ├── TransientError          worth repeating: connection lost, timeout, 5xx, an answer that is not the one asked for
    ├── ChangedError            the object is no longer the one that was listed (412, another ETag or size)
    ├── MissingError            the object is gone
    └── DeniedError             403
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from qad.errors import QadError

if TYPE_CHECKING:
    from qad.fetching.line import Line
    from qad.fetching.retry import Patience

MAX_KEY_BYTES = 1024
"""Longest object key that S3 allows (UTF-8 bytes)."""
MAX_NAME_BYTES = 200
"""Longest file name accepted: most file systems allow 255 bytes, and partial files need a longer name."""


class SourceError(QadError):
    """A request to a source failed."""


class TransientError(SourceError):
    """A request failed in a way that may pass.

    Parameters
    ----------
    reason : str
    retry_after_s : float
        How long the server asked to wait.
    is_busy : bool
        The server has more to do than it can: fewer requests at once may help.
    """

    def __init__(self, reason: str, retry_after_s: float = 0.0, is_busy: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.is_busy = is_busy


class ChangedError(SourceError):
    """The object is not the one that was listed."""


class MissingError(SourceError):
    """The object is gone."""


class DeniedError(SourceError):
    """The source refuses this object."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a source.

    Attributes
    ----------
    key : str
        Path below the source's root, with slashes.
    size : int
        Bytes.
    etag : str
        What changes with the content: S3's ETag without quotes; of a local file its size, time and inode.
    """

    key: str
    size: int
    etag: str

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def md5(self) -> str:
        """The MD5 of the content where the ETag is one, else empty (an ETag with ``-N`` is a hash of part hashes)."""
        return self.etag if len(self.etag) == 32 and not set(self.etag) - set("0123456789abcdef") else ""


Transport = Literal["tls", "plain", "disk"]


class Readable(Protocol):
    """The bytes of an answer."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill `buffer` as far as bytes have come, and return how many; 0 at the end."""


class Source(Protocol):
    """A tree of files below a root.  Keys are relative to it; methods may be called from several threads."""

    url: str
    """The root, as a person would type it."""
    transport: Transport
    """What vouches for bytes on the way: TLS finds every change, plain HTTP and a disk may hand on a damaged byte."""

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly in `prefix` ("" or ending in a slash), sorted."""

    def files(self, prefix: str) -> list[RemoteFile]:
        """Return every file whose key begins with `prefix`, sorted by key, without names that could leave a folder."""

    def below(self, prefix: str) -> Source:
        """Return the source rooted at `prefix` (ending in a slash)."""

    def open(self, file: RemoteFile, start: int, stop: int) -> AbstractContextManager[Readable]:
        """Open the bytes [start, stop) of `file`, which must still be the one listed."""

    @property
    def refused(self) -> int:
        """How many hostile names the listings held."""

    def reopen(self) -> Reopen:
        """Return what opens the same source in another process; it can be pickled."""

    def close(self) -> None:
        """Give back connections."""


Reopen = Callable[["Patience", "Line"], Source]


def is_safe_key(key: str) -> bool:
    """Whether a key below the root can become a path: no absolute, empty, ``.`` or ``..`` part, no control character,
    no backslash, nothing over-long."""
    if not key or len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES or not key.isprintable() or "\\" in key:
        return False
    parts = key.split("/")
    return all(part not in ("", ".", "..") and len(part.encode()) <= MAX_NAME_BYTES for part in parts)
