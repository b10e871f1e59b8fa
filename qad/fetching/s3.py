"""Release files in an S3 bucket: the only module that knows boto3."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from threading import Lock
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

from qad import __version__
from qad.errors import ConfigError, InputError
from qad.fetching.answers import check_part, parsed_error, refusal
from qad.fetching.http import CONNECT_TIMEOUT_S, Answer, Connections, tls_context
from qad.fetching.line import Line
from qad.fetching.listing import quicken_listings
from qad.fetching.retry import Patience
from qad.fetching.source import Readable, RemoteFile, TransientError, Transport, is_safe_key
from qad.settings import Fetch

USER_AGENT = f"qad/{__version__}"
MAX_ERROR_BYTES = 64 << 10
SIGNATURE_S = 3600
"""How long a signed URL is good for."""
MAX_SIGNATURES = 10_000


def split_url(url: str) -> tuple[str, str]:
    """Return bucket and prefix (without slashes at its ends) of ``s3://bucket/prefix``.

    Raises
    ------
    ConfigError
        If the URL names no bucket.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"source {url}: no bucket; write s3://bucket/prefix")
    return bucket, prefix.strip("/")


class S3Source:
    """A prefix of a bucket.

    Parameters
    ----------
    client
        As :func:`make_client` makes it; shared by all threads.
    bucket, prefix : str
        `prefix` is empty or ends in a slash.
    patience : Patience
        How listings are repeated.  Downloads are repeated by their caller, who knows how far they came.
    connections, targets
        What brings the bytes, and how to ask for them.
    line : Line
        How many requests may be under way.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str,
        patience: Patience,
        connections: Connections,
        targets: _Targets,
        line: Line,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._patience = patience
        self._connections = connections
        self._targets = targets
        self._line = line
        self.url = f"s3://{bucket}/{prefix}"
        self.transport: Transport = "tls" if connections.is_encrypted else "plain"
        self.refused = 0
        self._lock = Lock()

    def below(self, prefix: str) -> S3Source:
        """Return the source rooted at `prefix`."""
        own = (self._patience, self._connections, self._targets, self._line)
        return S3Source(self._client, self._bucket, self._prefix + prefix, *own)

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly in `prefix`, sorted."""
        start = len(self._prefix + prefix)
        found = []
        for page in self._pages(prefix, Delimiter="/"):
            names = [item["Prefix"][start:].removesuffix("/") for item in page.get("CommonPrefixes", [])]
            found += self._safe(names, lambda name: name)
        return sorted(found)

    def files(self, prefix: str) -> list[RemoteFile]:
        """Return every file below `prefix`, sorted by key."""
        start = len(self._prefix)
        found = []
        for page in self._pages(prefix):
            listed = [
                RemoteFile(item["Key"][start:], item["Size"], item.get("ETag", "").strip('"'))
                for item in page.get("Contents", [])
                if not item["Key"].endswith("/")  # a "folder" that some tools write as an empty object
            ]
            found += self._safe(listed, lambda file: file.key)
        return sorted(found, key=lambda file: file.key)

    @contextmanager
    def open(self, file: RemoteFile, start: int, stop: int) -> Iterator[Readable]:
        """Open the bytes [start, stop) of `file`; every header of the answer must be the one asked for.

        Raises
        ------
        TransientError, ChangedError, MissingError, DeniedError
        """
        asked = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        if file.etag:
            asked["If-Match"] = f'"{file.etag}"'
        with self._line.slot(stop - start, self._patience.check):
            began = time.monotonic()
            with _connection_errors():
                answer = self._connections.get(self._targets.of(self._prefix + file.key), asked)
            with answer:
                if answer.status >= 300:
                    self._refuse(answer, file.key)
                check_part(answer.status, answer.headers, file, start, stop)
                yield _Body(answer)
                self._line.answered(answer.first_byte_s, time.monotonic() - began, stop - start)

    def _refuse(self, answer: Answer, key: str) -> NoReturn:
        """Raise what an error answer means."""
        buffer = memoryview(bytearray(MAX_ERROR_BYTES))
        text = bytes(buffer[: _Body(answer).readinto(buffer)])
        error = refusal(parsed_error(answer.status, answer.headers, text), self.url, key)
        if isinstance(error, TransientError) and error.is_busy:
            self._line.slow_down()
        raise error

    def is_up(self) -> bool:
        """Whether the service answers a small question now, were it with a refusal."""
        try:
            self._page({"Bucket": self._bucket, "Prefix": self._prefix, "MaxKeys": 1})
        except TransientError:
            return False
        except InputError:
            return True
        return True

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()
        self._client.close()

    def _safe(self, found: list[Any], key: Callable[[Any], str]) -> list[Any]:
        kept = [item for item in found if is_safe_key(key(item))]
        with self._lock:
            self.refused += len(found) - len(kept)
        return kept

    def _pages(self, prefix: str, **more: str) -> Iterator[Any]:
        arguments = {"Bucket": self._bucket, "Prefix": self._prefix + prefix, **more}
        while True:
            page = self._patience.repeat(partial(self._page, arguments))
            yield page
            if not page["IsTruncated"]:
                return
            # without the token the first page would come again and again
            if not page.get("NextContinuationToken"):
                raise InputError(self.url, "the server cut its listing short and gave no token to go on with")
            arguments = {**arguments, "ContinuationToken": page["NextContinuationToken"]}

    def _page(self, arguments: dict[str, Any]) -> Any:
        self._patience.check()
        page: Any = self._call("", self._client.list_objects_v2, **arguments)
        # a login page that happens to parse as XML would otherwise read as an empty bucket
        if page.get("Name") != self._bucket or "IsTruncated" not in page:
            raise TransientError("the answer to a listing is not one of S3: is a proxy or login page in between?")
        return page

    def _call(self, key: str, method: Callable[..., Any], **arguments: Any) -> Any:
        from botocore.exceptions import ClientError

        with _connection_errors():
            try:
                return method(**arguments)
            except ClientError as error:
                raise refusal(error.response, self.url, key) from None


class _Body:
    """The body of an answer, with the errors of this package."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            return self._answer.readinto(buffer)
        except (HTTPException, OSError) as error:
            _raise_connection(error)


class _Targets:
    """What to ask the server for, by key: a path, with a signature in its query where requests are signed."""

    def __init__(self, client: Any, bucket: str, signed: bool) -> None:
        self._client, self._bucket, self._signed = client, bucket, signed
        self._lock = Lock()
        self._known: dict[str, tuple[float, str]] = {}
        self.url = self._presigned("k")
        self._start = urlsplit(self.url).path.removesuffix("k")

    def of(self, key: str) -> str:
        """Return the target of an object."""
        if not self._signed:
            return self._start + quote(key, safe="/~")
        now = time.monotonic()
        with self._lock:
            made, target = self._known.get(key, (float("-inf"), ""))
        if now - made > SIGNATURE_S / 2:
            parts = urlsplit(self._presigned(key))
            target = f"{parts.path}?{parts.query}"
            with self._lock:
                if len(self._known) >= MAX_SIGNATURES:
                    self._known.clear()
                self._known[key] = now, target
        return target

    def _presigned(self, key: str) -> str:
        with _connection_errors():
            url: str = self._client.generate_presigned_url(
                "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=SIGNATURE_S
            )
        return url


def open_source(settings: Fetch, region_is_set: bool, url: str, patience: Patience, line: Line) -> S3Source:
    """Return the source at ``s3://bucket/prefix``.

    Raises
    ------
    ConfigError
        If the URL, the endpoint, a profile or the credentials cannot be used.
    """
    bucket, prefix = split_url(url)
    client, authorities = make_client(settings, region_is_set, line.connections)
    targets = _Targets(client, bucket, signed=not settings.anonymous)
    connections = Connections(targets.url, settings.timeout_s, tls_context(authorities))
    source = S3Source(client, bucket, f"{prefix}/" if prefix else "", patience, connections, targets, line)
    patience.is_up = source.is_up
    return source


def make_client(settings: Fetch, region_is_set: bool, n_connections: int) -> tuple[Any, str]:
    """Return a client, and the file or folder of the authorities that it trusts; AWS's own environment variables and files count as they do for the AWS CLI.

    Parameters
    ----------
    settings : Fetch
    region_is_set : bool
        Whether the user chose `settings.region`; else ``AWS_REGION`` and ``AWS_DEFAULT_REGION`` go before it.
    n_connections : int

    Raises
    ------
    ConfigError
        If the endpoint, a profile or the credentials cannot be used.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from botocore.httpsession import get_cert_path
    from botocore.session import get_session

    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    config = Config(
        signature_version=UNSIGNED if settings.anonymous else "s3v4",
        # one attempt here: qad.fetching.retry repeats requests itself, so that one budget holds for headers and body,
        # Retry-After counts, and a signal ends the wait
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=min(CONNECT_TIMEOUT_S, settings.timeout_s),
        read_timeout=settings.timeout_s,
        max_pool_connections=n_connections,
        tcp_keepalive=True,
        # bytes are checked against the release's own lists; other servers know nothing of these headers
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        core = get_session()
        session = boto3.Session(botocore_session=core)
        client = session.client(
            "s3",
            endpoint_url=settings.endpoint_url or None,
            region_name=settings.region if region_is_set or not named else named,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"S3 client: {' '.join(str(error).split())}") from None
    if not (urlsplit(client.meta.endpoint_url).hostname or "").endswith(".amazonaws.com"):
        client.meta.events.register("before-call.s3", _do_not_redirect)
    quicken_listings(client)
    return client, str(core.get_config_variable("ca_bundle") or get_cert_path(True))


def _do_not_redirect(context: dict[str, Any], **_: Any) -> None:
    """Keep botocore from looking for the bucket in other regions.

    Only AWS has regions.  Of another server botocore asks the bucket's region with HEAD, and if that is redirected too
    it asks again, until Python's stack is full (botocore 1.44.5).
    """
    context.setdefault("s3_redirect", {})["redirected"] = True


@contextmanager
def _connection_errors() -> Iterator[None]:
    """Turn what breaks below HTTP into an error of ours."""
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (BotoCoreError, HTTPError, HTTPException, OSError) as error:
        _raise_connection(error)


def _raise_connection(error: Exception) -> NoReturn:
    """Raise the error of ours for one of botocore, urllib3 or the sockets."""
    from botocore.exceptions import (
        EndpointConnectionError,
        HTTPClientError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
        SSLError,
    )
    from botocore.parsers import ResponseParserError

    text = " ".join(str(error).split())
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        raise ConfigError(f"{text}; use --no-sign-request for a public bucket") from None
    if isinstance(error, ParamValidationError):
        raise ConfigError(f"the source is not one that S3 can have: {text}") from None
    if isinstance(error, SSLError | ssl.SSLError) and "CERTIFICATE" in text.upper():
        raise ConfigError(
            f"the server's certificate does not hold: {text}; AWS_CA_BUNDLE names another authority"
        ) from None
    if isinstance(error, ResponseParserError):
        raise TransientError("the answer is not one of S3: is a proxy or login page in between?") from None
    if isinstance(error, EndpointConnectionError | HTTPClientError | HTTPException | OSError):
        raise TransientError(f"no connection: {text}") from None
    raise TransientError(text) from None
