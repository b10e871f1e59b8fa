"""Is an answer of S3 the one that was asked for, and if it refuses, what does that mean?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from qad.errors import InputError, QadError
from qad.fetching.source import ChangedError, DeniedError, MissingError, RemoteFile, TransientError

_BUSY = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "TooManyRequests", "503"}
_CLOCK = {"RequestTimeTooSkewed", "RequestExpired"}
_ELSEWHERE = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"}
_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_OF_OBJECT: dict[int, tuple[type[QadError], str]] = {
    403: (DeniedError, "the server refuses this object"),
    404: (MissingError, "the object was listed and is now gone"),
    412: (ChangedError, "the object changed at the source while it was fetched"),
    416: (ChangedError, "the object is shorter than its listing said"),
}


def check_part(status: int, headers: Mapping[str, str], file: RemoteFile, start: int, stop: int) -> None:
    """Raise unless the head of an answer, fields in lower case, is that of the range [start, stop) of the listed object.

    Raises
    ------
    TransientError
        If it is another range, or none: a proxy may have answered.
    ChangedError
        If it is of another version.
    """
    if status != 206:
        raise TransientError(
            f"the server answered {status} ({headers.get('content-type', 'no type')}) to a range request: "
            "is a proxy or login page in between?"
        )
    wanted = f"bytes {start}-{stop - 1}/{file.size}"
    if headers.get("content-range") != wanted:
        raise TransientError(f"the server sent {headers.get('content-range')!r} for {wanted!r}")
    if headers.get("content-length") != str(stop - start):
        raise TransientError(
            f"the server announced {headers.get('content-length')} bytes for a range of {stop - start}"
        )
    if headers.get("content-encoding", "identity") not in ("identity", "", "aws-chunked"):
        raise TransientError(f"the server sent the range encoded as {headers.get('content-encoding')}")
    etag = headers.get("etag", "").strip('"')
    if etag != file.etag:
        raise ChangedError(f"the object changed at the source (ETag {etag or 'missing'} after {file.etag})")


def parsed_error(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Return an error answer the way botocore parses one, for :func:`refusal`."""
    text = body.decode("utf-8", "replace")
    found = {
        name: (re.search(rf"<{name}>([^<]{{0,500}})</{name}>", text) or ("", ""))[1] for name in ("Code", "Message")
    }
    return {"Error": found, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": dict(headers)}}


def refusal(response: Any, url: str, key: str) -> QadError:
    """Return what an error answer means.

    Parameters
    ----------
    response : mapping
        As botocore parses it.
    url : str
        The source.
    key : str
        The object that was asked for; empty for a listing.
    """
    details, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status = str(details.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
    if status >= 500 or status == 429 or code in _BUSY:
        return TransientError(f"the server answered {status} {code}".strip(), retry_after(meta), status in (429, 503))
    of_source = _refusal_of_source(status, code, str(details.get("Message", "")))
    if of_source:
        return InputError(url, of_source)
    if key and status in _OF_OBJECT:
        kind, text = _OF_OBJECT[status]
        return kind(f"{text} ({status})")
    if status in (401, 403):
        text = "a private bucket needs --sign, a public one --no-sign-request"
        return InputError(url, f"access denied ({code or status}); {text}")
    return TransientError(f"the server answered {status} {code}: {details.get('Message', '')}".rstrip(": "))


def _refusal_of_source(status: int, code: str, message: str) -> str:
    """Return why nothing of this source can be had, or empty."""
    if code == "NoSuchBucket":
        return "there is no such bucket; check --source and --endpoint-url"
    # of a signature in the query AWS says no more than that it has expired, or that its date is wrong
    is_dated = code == "AuthorizationQueryParametersError" and "Date" in message
    if code in _CLOCK or is_dated or (code == "AccessDenied" and "expired" in message):
        return "the server refuses the time of the request: is this computer's clock right?"
    if code in _KEYS:
        return f"the server refuses these credentials ({code}); try --no-sign-request"
    if status in (301, 302, 307, 308) or code in _ELSEWHERE:
        return f"the bucket is served elsewhere ({code or status}); set fetch.region or --endpoint-url to its place"
    return ""


def retry_after(meta: Any) -> float:
    """Return the seconds that a Retry-After header asks for; a date in it counts as none."""
    text = meta.get("HTTPHeaders", {}).get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < float("inf") else 0.0
