"""An S3 server on loopback that lists: ListObjectsV2 of keys that exist nowhere, as many as DR1 has and more."""

from __future__ import annotations

import base64
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from qad.desi.layout import checksum_name, coadd_name, pixel_key, redrock_name
from qad.work.units import Pixel

BUCKET = "desidata"
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
MAX_KEYS = 1000


def pixel_keys(prefix: str, pixels: Iterable[Pixel]) -> list[str]:
    """Return the keys of pixels' folders, ten each: the listing of main/dark/23040 in DR1."""
    keys = []
    for pixel in pixels:
        names = (
            coadd_name(pixel),
            f"emline-{pixel.name}.fits",
            f"hpixexp-{pixel.name}.csv",
            f"qso_mgii-{pixel.name}.fits",
            f"qso_qn-{pixel.name}.fits",
            redrock_name(pixel),
            checksum_name(pixel),
            f"rrdetails-{pixel.name}.h5",
            f"spectra-{pixel.name}.fits.gz",
            f"logs/redrock-{pixel.name}.log",
        )
        keys += [f"{pixel_key(prefix, pixel)}/{name}" for name in names]
    return keys


class ListServer:
    """Answers listings of `keys` in a bucket; use it as a context manager.

    Parameters
    ----------
    keys : iterable of str
        An object has 1000 bytes and the place in the listing.
    bucket : str
    bodies : mapping of str to bytes, optional
        Objects that can be fetched, too, by one range.
    """

    def __init__(self, keys: Iterable[str], bucket: str = BUCKET, bodies: Mapping[str, bytes] | None = None) -> None:
        self.bodies = dict(bodies or {})
        # S3 sorts by UTF-8 bytes
        self.keys = sorted({*keys, *self.bodies}, key=str.encode)
        self.bucket = bucket
        self.n_requests = 0
        self.n_keys = 0
        self._items = [
            _item(key, etag_of(self.bodies.get(key, key.encode())), len(self.bodies.get(key, b"")) or 1000 + number)
            for number, key in enumerate(self.keys)
        ]
        self._encoded = [key.encode() for key in self.keys]
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> ListServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def listing(self, query: dict[str, str]) -> bytes:
        """Return the document that answers a query."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        limit = min(int(query.get("max-keys", MAX_KEYS)), MAX_KEYS)
        place = self._start(prefix, query)
        items: list[str] = []
        folders: list[str] = []
        while place < len(self.keys) and len(items) + len(folders) < limit and self.keys[place].startswith(prefix):
            folder, slash, _ = self.keys[place][len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if slash:
                folders.append(prefix + folder + slash)
                # past every key of the folder: its prefix with the last byte one higher
                past = folders[-1].encode()
                place = bisect_left(self._encoded, past[:-1] + bytes([past[-1] + 1]))
            else:
                items.append(self._items[place])
                place += 1
        is_truncated = place < len(self.keys) and self.keys[place].startswith(prefix)
        self.n_requests += 1
        self.n_keys += len(items)
        return self._document(query, items, folders, place if is_truncated else None)

    def _start(self, prefix: str, query: dict[str, str]) -> int:
        if "continuation-token" in query:
            return int(base64.b64decode(query["continuation-token"]))
        return bisect_left(self._encoded, prefix.encode())

    def _document(
        self, query: dict[str, str], items: Sequence[str], folders: Sequence[str], place: int | None
    ) -> bytes:
        prefix = quote(query.get("prefix", ""), safe="/") if query.get("encoding-type") else query.get("prefix", "")
        more = "" if place is None else base64.b64encode(str(place).encode()).decode()
        parts = [
            f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="{NAMESPACE}">',
            f"<Name>{self.bucket}</Name><Prefix>{escape(prefix)}</Prefix>",
            f"<NextContinuationToken>{more}</NextContinuationToken>" if more else "",
            f"<KeyCount>{len(items) + len(folders)}</KeyCount><MaxKeys>{query.get('max-keys', MAX_KEYS)}</MaxKeys>",
            "<EncodingType>url</EncodingType>" if query.get("encoding-type") else "",
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>",
            *items,
            *(f"<CommonPrefixes><Prefix>{quote(folder, safe='/')}</Prefix></CommonPrefixes>" for folder in folders),
            "</ListBucketResult>",
        ]
        return "".join(parts).encode()


def etag_of(content: bytes) -> str:
    """Return the ETag of a body; that of an object without one is its key's."""
    return md5(content).hexdigest()


def _item(key: str, etag: str, size: int) -> str:
    return (
        f"<Contents><Key>{quote(key, safe='/')}</Key><LastModified>2024-10-09T12:34:56.000Z</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>"
        f"<ChecksumType>FULL_OBJECT</ChecksumType><Size>{size}</Size>"
        "<StorageClass>INTELLIGENT_TIERING</StorageClass></Contents>"
    )


def _handler(server: ListServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
            bucket, _, key = unquote(url.path).lstrip("/").partition("/")
            if bucket == server.bucket and not key and query.get("list-type") == "2":
                self.answer(200, server.listing(query))
            elif bucket == server.bucket and key in server.bodies:
                body = server.bodies[key]
                first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
                headers = {"Content-Range": f"bytes {first}-{last}/{len(body)}", "ETag": f'"{etag_of(body)}"'}
                self.answer(206, body[first : last + 1], headers)
            else:
                self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

        def answer(self, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/xml", "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
