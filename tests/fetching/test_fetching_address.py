"""Where a bucket is served: without boto3 the same as with it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.awsrequest import AWSResponse
from botocore.config import Config

from qad.errors import ConfigError
from qad.fetching.address import Signer, find_address, plain_address
from qad.settings import Fetch

QUIET = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(autouse=True)
def _no_aws_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)


def url_that_boto3_asks(bucket: str, region: str, endpoint: str) -> str:
    """Return the URL that an unsigned client of boto3 sends its request for ``k`` to."""
    asked: list[str] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        asked.append(request.url)
        return AWSResponse(request.url, 404, {}, _Nothing())

    client = boto3.client(
        "s3", region_name=region, endpoint_url=endpoint or None, config=Config(signature_version=UNSIGNED)
    )
    client.meta.events.register("before-send.s3", answer)
    with pytest.raises(client.exceptions.ClientError):
        client.get_object(Bucket=bucket, Key="k")
    return asked[0]


class _Nothing:
    def stream(self, **_: Any) -> list[bytes]:
        return []


@pytest.mark.parametrize("bucket", ["desidata", "my-copy-2"])
@pytest.mark.parametrize("region", ["us-west-2", "us-east-2", "eu-central-1", "ap-southeast-2", "me-south-1"])
def test_a_public_bucket_of_aws_is_where_boto3_finds_it(bucket: str, region: str) -> None:
    address = plain_address(Fetch(region=region), True, bucket, QUIET)
    assert address is not None
    assert f"{address.url}k" == url_that_boto3_asks(bucket, region, "")


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:9000", "https://minio.example.org", "https://s3.example.org:8443/", "http://h/base"]
)
def test_another_server_is_asked_as_boto3_asks_it(endpoint: str) -> None:
    address = plain_address(Fetch(endpoint_url=endpoint), True, "desidata", QUIET)
    assert address is not None
    assert f"{address.url}k" == url_that_boto3_asks("desidata", "us-west-2", endpoint)


def test_the_region_of_the_environment_counts_where_none_was_chosen() -> None:
    there = {**QUIET, "AWS_REGION": "eu-west-1"}
    first, second = (plain_address(Fetch(), is_set, "desidata", there) for is_set in (False, True))
    assert first is not None
    assert second is not None
    assert (first.url, second.url) == (
        "https://desidata.s3.eu-west-1.amazonaws.com/",
        "https://desidata.s3.us-west-2.amazonaws.com/",
    )


@pytest.mark.parametrize(
    ("settings", "bucket", "environ"),
    [
        (Fetch(anonymous=False), "desidata", {}),
        (Fetch(region="cn-north-1"), "desidata", {}),
        (Fetch(region="us-gov-west-1"), "desidata", {}),
        (Fetch(), "with.dots", {}),
        (Fetch(), "Not A Bucket", {}),
        (Fetch(endpoint_url="minio:9000"), "desidata", {}),
        (Fetch(), "desidata", {"AWS_PROFILE": "mine"}),
        (Fetch(), "desidata", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}),
        (Fetch(), "desidata", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}),
    ],
)
def test_what_is_not_plain_is_left_to_boto3(settings: Fetch, bucket: str, environ: dict[str, str]) -> None:
    assert plain_address(settings, True, bucket, {**QUIET, **environ}) is None


def test_a_file_of_the_aws_tools_has_its_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\nendpoint_url = http://127.0.0.1:7\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert find_address(Fetch(), True, "desidata").url == "http://127.0.0.1:7/desidata/"
    config.write_text("[default]\n")
    assert find_address(Fetch(), True, "desidata").url == "https://desidata.s3.us-west-2.amazonaws.com/"


def test_signed_requests_go_to_the_region_and_can_be_made_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    address = find_address(Fetch(anonymous=False), True, "desidata")
    assert address.url == "https://desidata.s3.us-west-2.amazonaws.com/"
    assert isinstance(address.signer, Signer)
    for signer in (address.signer, pickle.loads(pickle.dumps(address.signer))):
        target = signer.target("a b/c.fits")
        assert target.startswith("/a%20b/c.fits?")
        assert "us-west-2" in target
        assert "X-Amz-Signature=" in target
        assert "secret" not in target
    assert b"secret" not in pickle.dumps(address)
    asked = address.signer.listing({"prefix": "p/", "delimiter": "/", "continuation-token": "t"})
    assert all(word in asked for word in ("list-type=2", "prefix=p%2F", "delimiter=%2F", "continuation-token=t"))


def test_without_credentials_a_signed_request_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(ConfigError, match="--no-sign-request"):
        find_address(Fetch(anonymous=False), True, "desidata").signer.target("k")  # type: ignore[union-attr]
