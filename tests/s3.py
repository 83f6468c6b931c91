"""A real S3-speaking server on loopback (moto's), behind a small proxy that counts requests and makes faults.

Import the fixtures `s3_server` and `s3` in a `conftest.py`. Endpoint and credentials are given through the environment
alone, as a user would, so that other processes see them, too.
"""

import http.client
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from basics import remote

SECRET = "loopback-secret-Zx81"
"""The secret key of the tests' credentials: it may turn up nowhere."""
_ERRORS = {
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "SlowDown": (503, "Please reduce your request rate."),
    "ExpiredToken": (400, "The provided token has expired."),
    "AccessDenied": (403, "Access Denied"),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist in our records."),
}
"""Status and message of errors that can be asked for, by their code."""
_LEFT_OUT = {"connection", "transfer-encoding", "keep-alive"}


@dataclass
class _Fault:
    method: str
    pattern: str
    left: int
    code: str = ""
    """Error that is answered; none to cut the connection."""
    after: int = 0
    """Bytes of the body that are taken before the connection is cut."""


class S3Server:
    """The server, its buckets, its faults and what was asked of it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        """(method, path with query) of each request, also those that were answered by a fault."""
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._buckets = 0
        # It would write a line for each request, which pytest keeps for every test.
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self._moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._moto.start()
        self.backend = self._moto.get_host_and_port()
        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"faults": self}))
        self._proxy.daemon_threads = True
        self._thread = threading.Thread(target=self._proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._proxy.server_address[1]}"
        self.client: Any = boto3.client(
            "s3",
            endpoint_url="http://{}:{}".format(*self.backend),
            aws_access_key_id="direct",
            aws_secret_access_key="direct",
            region_name="us-east-1",
        )
        """Past the proxy: neither counted nor struck by faults."""

    def stop(self) -> None:
        self._proxy.shutdown()
        self._proxy.server_close()
        self.client.close()
        self._moto.stop()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which any program finds this server and may use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "loopback-key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def new_bucket(self) -> str:
        """Make an empty bucket; returns its address."""
        self._buckets += 1
        self.client.create_bucket(Bucket=f"bucket-{self._buckets}")
        return f"s3://bucket-{self._buckets}"

    def put(self, address: str, files: Mapping[str, bytes]) -> str:
        """Store files below an address, which is returned."""
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        for name, content in files.items():
            self.client.put_object(Bucket=bucket, Key=f"{prefix}/{name}".lstrip("/"), Body=content)
        return address

    def upload(self, folder: Path, address: str) -> str:
        """Store a local folder's files, or one file, below an address; returns where the folder or the file is."""
        if folder.is_file():
            self.put(address, {folder.name: folder.read_bytes()})
            return f"{address}/{folder.name}"
        files = (path for path in folder.rglob("*") if path.is_file())
        return self.put(address, {path.relative_to(folder).as_posix(): path.read_bytes() for path in files})

    def files(self, address: str) -> dict[str, bytes]:
        """Return all that is stored below an address, by name relative to it."""
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        prefix = prefix.rstrip("/") + "/" if prefix else ""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        got = {key: self.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
        return {key.removeprefix(prefix): content for key, content in got.items()}

    def fail(self, code: str, *, method: str = ".*", path: str = "", times: int = 1) -> None:
        """Answer the next requests of a method, whose path and query match a pattern, with an error of S3."""
        self._faults.append(_Fault(method, path, times, code=code))

    def cut_upload(self, after: int, *, path: str = "", times: int = 1) -> None:
        """Cut the connection of the next uploads (PUT or POST) when so many bytes of their body have come."""
        self._faults.append(_Fault("PUT|POST", path, times, after=after))

    def recover(self) -> None:
        """End all faults, and forget the requests."""
        self._faults.clear()
        self.requests.clear()

    def count(self, method: str = ".*", path: str = "") -> int:
        """Return how many requests of a method had a path and query that a pattern matches."""
        return sum(bool(re.fullmatch(method, m) and re.search(path, p)) for m, p in list(self.requests))

    def next_fault(self, method: str, path: str) -> _Fault | None:
        """Note down a request; returns the fault that strikes it."""
        with self._lock:
            self.requests.append((method, path))
            for fault in self._faults:
                if fault.left and re.fullmatch(fault.method, method) and re.search(fault.pattern, path):
                    fault.left -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    """One connection to the proxy; `faults` is set by the subclass that a server makes."""

    faults: S3Server
    protocol_version = "HTTP/1.1"
    # Header and body are two packets: otherwise the second waits 40 ms until the first is acknowledged.
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        fault = self.faults.next_fault(self.command, self.path)
        if fault is not None and not fault.code:
            self.rfile.read(fault.after)
            self._hang_up()
            return
        body = self._body()
        if fault is not None:
            status, message = _ERRORS[fault.code]
            text = f"<Error><Code>{fault.code}</Code><Message>{message}</Message></Error>"
            self._send(status, {"Content-Type": "application/xml"}, text.encode())
            return
        backend = http.client.HTTPConnection(*self.faults.backend, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _LEFT_OUT}
            backend.request(self.command, self.path, body, headers)
            reply = backend.getresponse()
            self._send(reply.status, dict(reply.getheaders()), reply.read())
        finally:
            backend.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return content

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _LEFT_OUT | {"content-length"}:
                self.send_header(name, value)
        # What HEAD answers is the length of the object, not of this answer's body, which is empty.
        head = self.command == "HEAD"
        length = next((v for n, v in headers.items() if n.lower() == "content-length"), "0") if head else len(body)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        pass


def forget_connections() -> None:
    """Make the next use of any file system connect anew, with the credentials of that time."""
    remote._connected.cache_clear()
    for kind in dict(fsspec.registry).values():
        kind.clear_instance_cache()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The server of all tests; tests take `s3`."""
    server = S3Server()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server without faults, and the environment in which it is the one that `s3://` means."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    forget_connections()
    s3_server.recover()
    yield s3_server
    s3_server.recover()
    forget_connections()
