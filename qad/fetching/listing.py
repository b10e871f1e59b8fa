"""The pages of an S3 listing.

Reading one must be quick: main/dark of DR1 is 13,458 pixels of ten files, and an object of every element of a page, as
botocore makes them, costs 13 s of the interpreter's lock for them.  So the files are cut out of a page by one pattern; what is left of
it goes through the XML parser, and so does a page that is written otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_plus
from xml.etree import ElementTree

_START, _END = b"<Contents>", b"</Contents>"
_OBJECT = re.compile(
    rb"<Contents>(?>"  # atomic and possessive: a page of nonsense is given up at once
    rb"<Key>([^<&\x80-\xff]+)</Key>|<Size>([0-9]{1,18})</Size>|"
    rb"<ETag>(?:&quot;|&#34;|\")?([^<&\"\x80-\xff]*)(?:&quot;|&#34;|\")?</ETag>|"
    rb"<(?!Key>|Size>|ETag>)([A-Za-z]+)>[^<]*</\4>)*+</Contents>"
)
"""An object as AWS writes it.  A key is url-encoded, as it is asked for, and so has no ``&``."""


@dataclass(frozen=True)
class Page:
    """One page of ListObjectsV2.

    Attributes
    ----------
    bucket : str
    files : list of (str, int, str)
        Key, size in bytes, and ETag without quotes.
    folders : list of str
        The common prefixes, each with its slash.
    token : str
        Asks for the next page; empty on the last.
    is_truncated : bool
        Whether there is a next one.
    """

    bucket: str
    files: list[tuple[str, int, str]]
    folders: list[str]
    token: str
    is_truncated: bool


def read_page(body: bytes) -> Page:
    """Return what an answer to ListObjectsV2 holds.

    Raises
    ------
    ValueError
        If it is none.
    """
    start, stop = body.find(_START), body.rfind(_END) + len(_END)
    files = _quick(body, start, stop) if 0 <= start < stop else None
    try:
        root = ElementTree.fromstring(body if files is None else body[:start] + body[stop:])
    except ElementTree.ParseError as error:
        raise ValueError(f"no XML: {error}") from None
    # a login page that happens to parse as XML would otherwise read as an empty bucket
    if _tag(root) != "ListBucketResult" or _text(root, "IsTruncated") not in ("true", "false"):
        raise ValueError("no listing")
    if files is None:
        files = [_file(item) for item in _items(root, "Contents")]
    folders = [_text(item, "Prefix") for item in _items(root, "CommonPrefixes")]
    if _text(root, "EncodingType") == "url":
        files = [(unquote_plus(key), size, etag) for key, size, etag in files]
        folders = [unquote_plus(folder) for folder in folders]
    token = _text(root, "NextContinuationToken")
    return Page(_text(root, "Name"), files, folders, token, _text(root, "IsTruncated") == "true")


def _quick(body: bytes, start: int, stop: int) -> list[tuple[str, int, str]] | None:
    """Return key, size and ETag of the objects between two places; None if anything else is between them."""
    found = []
    while start < stop:
        match = _OBJECT.match(body, start, stop)
        if match is None or match[1] is None or match[2] is None:
            return None
        found.append((match[1].decode(), int(match[2]), (match[3] or b"").decode()))
        start = match.end()
    return found


def _file(item: ElementTree.Element) -> tuple[str, int, str]:
    size = _text(item, "Size")
    if not (size.isascii() and size.isdigit()):
        raise ValueError(f"a size of {size[:20]!r}")
    return _text(item, "Key"), int(size), _text(item, "ETag").strip('"')


def _items(parent: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for child in parent if _tag(child) == name]


def _text(parent: ElementTree.Element, name: str) -> str:
    return next((child.text or "" for child in parent if _tag(child) == name), "")


def _tag(element: ElementTree.Element) -> str:
    """Return the name without its namespace, which some servers leave out."""
    return element.tag.rpartition("}")[2]
