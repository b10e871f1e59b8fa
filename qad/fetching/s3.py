"""Release files in an S3 bucket: the only module that knows boto3."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, NoReturn
from urllib.parse import urlsplit

from qad.errors import ConfigError, InputError
from qad.fetching.answers import check_part, refusal
from qad.fetching.retry import Patience
from qad.fetching.source import Readable, RemoteFile, TransientError, is_safe_key
from qad.settings import Fetch

CONNECT_TIMEOUT_S = 10.0


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
    """

    def __init__(self, client: Any, bucket: str, prefix: str, patience: Patience) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._patience = patience
        self.url = f"s3://{bucket}/{prefix}"
        self.refused = 0
        self._lock = Lock()

    def below(self, prefix: str) -> S3Source:
        """Return the source rooted at `prefix`."""
        return S3Source(self._client, self._bucket, self._prefix + prefix, self._patience)

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
        asked = {"Bucket": self._bucket, "Key": self._prefix + file.key, "Range": f"bytes={start}-{stop - 1}"}
        if file.etag:
            asked["IfMatch"] = f'"{file.etag}"'
        answer = self._call(file.key, self._client.get_object, **asked)
        body = answer["Body"]
        try:
            check_part(answer, file, start, stop)
            yield _Body(body)
        finally:
            body.close()

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
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        try:
            return method(**arguments)
        except ClientError as error:
            raise refusal(error.response, self.url, key) from None
        except (BotoCoreError, HTTPError, OSError) as error:
            _raise_connection(error)


class _Body:
    """The body of an answer, with the errors of this package."""

    def __init__(self, body: Any) -> None:
        # urllib3's read1 gives what has come; a full read would lose it when the connection stalls or breaks
        self._read = getattr(getattr(body, "_raw_stream", None), "read1", body.read)

    def readinto(self, buffer: memoryview, /) -> int:
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        try:
            data = self._read(len(buffer))
        except (BotoCoreError, HTTPError, OSError) as error:
            _raise_connection(error)
        buffer[: len(data)] = data
        return len(data)


def make_client(settings: Fetch, region_is_set: bool, n_connections: int) -> Any:
    """Return a client; AWS's own environment variables and files count as they do for the AWS CLI.

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

    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    config = Config(
        signature_version=UNSIGNED if settings.anonymous else None,
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
        client = boto3.client(
            "s3",
            endpoint_url=settings.endpoint_url or None,
            region_name=settings.region if region_is_set or not named else named,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"S3 client: {' '.join(str(error).split())}") from None
    if not (urlsplit(client.meta.endpoint_url).hostname or "").endswith(".amazonaws.com"):
        client.meta.events.register("before-call.s3", _do_not_redirect)
    return client


def _do_not_redirect(context: dict[str, Any], **_: Any) -> None:
    """Keep botocore from looking for the bucket in other regions.

    Only AWS has regions.  Of another server botocore asks the bucket's region with HEAD, and if that is redirected too
    it asks again, until Python's stack is full (botocore 1.44.5).
    """
    context.setdefault("s3_redirect", {})["redirected"] = True


def _raise_connection(error: Exception) -> NoReturn:
    """Turn what botocore and urllib3 raise below HTTP into an error of ours."""
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
    if isinstance(error, SSLError) and "CERTIFICATE" in text.upper():
        raise ConfigError(
            f"the server's certificate does not hold: {text}; AWS_CA_BUNDLE names another authority"
        ) from None
    if isinstance(error, ResponseParserError):
        raise TransientError("the answer is not one of S3: is a proxy or login page in between?") from None
    if isinstance(error, EndpointConnectionError | HTTPClientError | OSError):
        raise TransientError(f"no connection: {text}") from None
    raise TransientError(text) from None
