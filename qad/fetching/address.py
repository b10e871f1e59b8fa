"""Where a bucket is served and who vouches for it: the only module that knows boto3.

boto3 reads the environment and files of the AWS tools, so that the server, the region, a profile and credentials are
named here as they are there.  For a public bucket it has nothing to add to qad's own settings unless those name something,
and making a client takes longer than the first pixels: then it is not even imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from qad.errors import ConfigError
from qad.fetching.source import TransientError
from qad.settings import Fetch

SIGNATURE_S = 3600
"""How long a signed URL is good for."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
"""A name that can be the first part of a host's."""
_REGION = re.compile(r"(af|ap|ca|eu|il|me|mx|sa|us)-[a-z]+-[0-9]")
"""Regions of the AWS partition that is meant where none is named; others have other domains."""
_SPEAKING = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
_SPEAKING_USES = ("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT")


@dataclass(frozen=True)
class Address:
    """Where a bucket is.

    Attributes
    ----------
    bucket : str
    url : str
        Of the bucket's root, with a slash at its end.
    authorities : str
        File or folder of the certificates to trust.
    signer : Signer or None
        Makes signed requests; None where requests go unsigned.
    """

    bucket: str
    url: str
    authorities: str
    signer: Signer | None = None


def find_address(settings: Fetch, region_is_set: bool, bucket: str, environ: Mapping[str, str] = os.environ) -> Address:
    """Return where a bucket is, by the settings and by AWS's own environment variables and files.

    Parameters
    ----------
    settings : Fetch
    region_is_set : bool
        Whether the user chose `settings.region`; else ``AWS_REGION`` and ``AWS_DEFAULT_REGION`` go before it.
    bucket : str
    environ : mapping, optional

    Raises
    ------
    ConfigError
        If the bucket, the endpoint, a profile or the credentials cannot be used.
    """
    return plain_address(settings, region_is_set, bucket, environ) or _asked_of_boto3(settings, region_is_set, bucket)


def plain_address(settings: Fetch, region_is_set: bool, bucket: str, environ: Mapping[str, str]) -> Address | None:
    """Return what boto3 would, where it is plain: unsigned requests, and nothing in the AWS tools' settings; else None."""
    if not settings.anonymous or _aws_tools_have_a_say(environ) or not _BUCKET.fullmatch(bucket):
        return None
    authorities = environ.get("AWS_CA_BUNDLE") or _authorities()
    if settings.endpoint_url:
        parts = urlsplit(settings.endpoint_url)
        is_plain = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        return Address(bucket, f"{settings.endpoint_url.rstrip('/')}/{bucket}/", authorities) if is_plain else None
    region = _region(settings, region_is_set, environ)
    if not _REGION.fullmatch(region):
        return None
    return Address(bucket, f"https://{bucket}.s3.{region}.amazonaws.com/", authorities)


def _aws_tools_have_a_say(environ: Mapping[str, str]) -> bool:
    if any(environ.get(name) for name in _SPEAKING):
        return True
    if any(environ.get(name, "false").lower() != "false" for name in _SPEAKING_USES):
        return True
    return Path(environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser().is_file()


def _region(settings: Fetch, region_is_set: bool, environ: Mapping[str, str]) -> str:
    named = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    return settings.region if region_is_set or not named else named


def _authorities() -> str:
    """Return the certificates that botocore trusts, without importing it."""
    for module, name in (("certifi", "cacert.pem"), ("botocore", "cacert.pem")):
        spec = find_spec(module)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            if (path := Path(folder) / name).is_file():
                return str(path)
    raise ConfigError("no certificates to trust are installed; name a file with AWS_CA_BUNDLE")


@dataclass
class Signer:
    """Signs requests with boto3; may be sent to another process, which reads the credentials for itself.

    Parameters
    ----------
    settings : Fetch
    region_is_set : bool
    bucket : str
    """

    settings: Fetch
    region_is_set: bool
    bucket: str
    _lock: Any = field(default_factory=Lock, repr=False)
    _client: Any = field(default=None, repr=False)

    def __reduce__(self) -> tuple[Callable[..., Signer], tuple[Any, ...]]:
        return Signer, (self.settings, self.region_is_set, self.bucket)

    def target(self, key: str) -> str:
        """Return the signed target (path and query) of an object."""
        return self._sign("get_object", Key=key)

    def listing(self, query: Mapping[str, str]) -> str:
        """Return the signed target of a page of the listing."""
        names = {"prefix": "Prefix", "delimiter": "Delimiter", "continuation-token": "ContinuationToken"}
        more: dict[str, Any] = {names[name]: value for name, value in query.items() if name in names}
        if "max-keys" in query:
            more["MaxKeys"] = int(query["max-keys"])
        return self._sign("list_objects_v2", EncodingType="url", **more)

    def close(self) -> None:
        """Close the client, if there is one."""
        if self._client is not None:
            self._client.close()

    def _sign(self, method: str, **parameters: Any) -> str:
        with self._lock:
            if self._client is None:
                self._client, _ = make_client(self.settings, self.region_is_set, self.bucket)
        with _errors_of_boto3():
            url = self._client.generate_presigned_url(
                method, Params={"Bucket": self.bucket, **parameters}, ExpiresIn=SIGNATURE_S
            )
        parts = urlsplit(url)
        return f"{parts.path}?{parts.query}"


def _asked_of_boto3(settings: Fetch, region_is_set: bool, bucket: str) -> Address:
    client, authorities = make_client(settings, region_is_set, bucket)
    with _errors_of_boto3():
        url: str = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    signer = None if settings.anonymous else Signer(settings, region_is_set, bucket, _client=client)
    return Address(bucket, urlsplit(url)._replace(query="").geturl().removesuffix("k"), authorities, signer)


def make_client(settings: Fetch, region_is_set: bool, bucket: str) -> tuple[Any, str]:
    """Return a boto3 client, and the file or folder of the authorities that it trusts.

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

    def make(**style: Any) -> Any:
        # nothing is ever sent with it: it finds the endpoint and signs
        config = Config(signature_version=UNSIGNED if settings.anonymous else "s3v4", **style)
        region = _region(settings, region_is_set, os.environ)
        return session.client("s3", endpoint_url=settings.endpoint_url or None, region_name=region, config=config)

    try:
        core = get_session()
        session = boto3.Session(botocore_session=core)
        client = make()
        is_of_aws = (urlsplit(client.meta.endpoint_url).hostname or "").endswith(
            (".amazonaws.com", ".amazonaws.com.cn")
        )
        if is_of_aws and _BUCKET.fullmatch(bucket) and not (client.meta.config.s3 or {}).get("addressing_style"):
            # else it signs for the global endpoint, which sends requests on to the region (botocore 1.44)
            client = make(s3={"addressing_style": "virtual"})
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"S3 client: {' '.join(str(error).split())}") from None
    return client, str(core.get_config_variable("ca_bundle") or get_cert_path(True))


@contextmanager
def _errors_of_boto3() -> Iterator[None]:
    """Turn what boto3 cannot sign into an error of ours."""
    from botocore.exceptions import (
        BotoCoreError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
    )

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ConfigError(f"{_line(error)}; use --no-sign-request for a public bucket") from None
    except ParamValidationError as error:
        raise ConfigError(f"the source is not one that S3 can have: {_line(error)}") from None
    except BotoCoreError as error:  # credentials that come over the network
        raise TransientError(_line(error)) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
